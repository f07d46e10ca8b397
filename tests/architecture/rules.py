"""The rules that hold the house together, each a function from one module's source to its faults.

Rules read syntax trees, never import what they judge, and see imports inside functions and under
``TYPE_CHECKING`` too: a type-only import couples two layers as firmly as any other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CORE = "dpsynth_accounting"
SHELL = "dpsynth"

FOUNDATIONS = frozenset(
    {
        "columns",
        "schema",
        "domain",
        "codec",
        "grids",
        "bins",
        "ranges",
        "workload",
        "_arrow",
        "_cells",
        "_toml",
        "_values",
        "_version",
        "_zones",
    }
)
MIDDLE = frozenset({"marginal", "deep", "attacks", "evaluation"})
_HEIGHTS = (
    FOUNDATIONS,
    frozenset({"engines"}),
    frozenset({"vault"}),
    frozenset({"synthesizer", "constraints"}),
    MIDDLE,
)
"""From the ground up. What is named nowhere (recipe, release, report, cli, ...) is the roof."""
ROOF = len(_HEIGHTS)

MOST_LINES = 450

LAZY = frozenset(
    {
        "anonymeter",
        "cryptography",
        "diffprivlib",
        "dp_accounting",
        "duckdb",
        "numba",
        "pyarrow",
        "sdmetrics",
        "sklearn",
        "statsmodels",
    }
)
"""Imported inside functions only, so that ``import dpsynth`` stays quick."""

PICKLES = frozenset({"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"})
"""Modules whose files run code when they are opened."""

NUMPY_GENERATORS = frozenset(
    {"Generator", "default_rng", "BitGenerator", "SeedSequence", "PCG64", "PCG64DXSM", "Philox"}
)
"""What ``numpy.random`` may be used for: explicit generators. The rest is global state."""

RESEEDED = ("dpsynth.vault._train._draws", "torch.default_generator.manual_seed")
TORCH_SEEDS = frozenset({"manual_seed", "manual_seed_all", "seed", "seed_all", "set_rng_state"})


@dataclass(frozen=True)
class Import:
    """One imported module or name, as an absolute dotted path."""

    path: str
    line: int
    at_top: bool

    @property
    def root(self) -> str:
        """The distribution's top-level name."""
        return self.path.partition(".")[0]

    def within(self, package: str) -> bool:
        """Say whether this is the package or something in it."""
        return self.path == package or self.path.startswith(f"{package}.")


@dataclass(frozen=True)
class Module:
    """The source of one module and the dotted name it is imported by."""

    name: str
    source: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of the source."""
        return ast.parse(self.source)

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Everything the module imports, wherever it stands."""
        return tuple(self._imports(self.tree, at_top=True))

    def _imports(self, node: ast.AST, *, at_top: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, at_top)
            elif isinstance(child, ast.ImportFrom):
                base = self._base(child)
                for alias in child.names:
                    yield Import(f"{base}.{alias.name}", child.lineno, at_top)
            elif isinstance(child, ast.Call) and (path := _imported_by_call(child)):
                yield Import(path, child.lineno, at_top)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing_only = isinstance(child, ast.If) and _names_type_checking(child.test)
            yield from self._imports(child, at_top=at_top and not inside and not typing_only)

    def _base(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        parts = self.name.split(".")
        keep = len(parts) - node.level + (1 if self.is_package else 0)
        return ".".join(parts[:keep] + ([node.module] if node.module else []))

    @property
    def part(self) -> str:
        """The direct child of ``dpsynth`` this belongs to; empty for ``dpsynth`` itself."""
        return _part(self.name)

    def aliases(self) -> dict[str, str]:
        """What each imported local name stands for, as a dotted path."""
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.asname:
                        names[alias.asname] = alias.name
                    else:
                        root = alias.name.partition(".")[0]
                        names[root] = root
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{self._base(node)}.{alias.name}"
        return names

    def uses(self) -> Iterator[tuple[str, ast.expr]]:
        """Yield every dotted use of an imported name, resolved, longest form only."""
        names = self.aliases()
        inner: set[int] = set()
        for node in ast.walk(self.tree):
            if id(node) in inner or not isinstance(node, ast.Attribute | ast.Name):
                continue
            dotted = _dotted(node, inner)
            if dotted is None:
                continue
            root, _, rest = dotted.partition(".")
            if root in names:
                yield (f"{names[root]}.{rest}" if rest else names[root]), node


def shipped(root: Path) -> list[Module]:
    """Return every module that the wheel ships, from a repository's root."""
    found = []
    for base, package in ((root, SHELL), (root / "accounting", CORE)):
        for path in sorted((base / package).rglob("*.py")):
            dotted = path.relative_to(base).with_suffix("").parts
            is_package = dotted[-1] == "__init__"
            name = ".".join(dotted[:-1] if is_package else dotted)
            found.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return found


# -- layers ------------------------------------------------------------------------------------


def layers(module: Module) -> list[str]:
    """Nothing imports what stands above it, and the four in the middle ignore each other."""
    if module.name == CORE or module.name.startswith(f"{CORE}."):
        return []
    own, faults = _height(module.part), []
    for found in module.imports:
        if not found.within(SHELL):
            continue
        part = _part(found.path)
        if own < ROOF and _height(part) > own:
            faults.append(_fault(module, found.line, f"imports {found.path}, which is above it"))
        elif part in MIDDLE and module.part in MIDDLE and part != module.part:
            faults.append(_fault(module, found.line, f"imports {found.path}, its neighbour"))
    return faults


def engines_are_the_vaults(module: Module) -> list[str]:
    """Engines return exact counts of private rows: only the vault may call them."""
    if module.part in {"engines", "vault"} and module.name.startswith(f"{SHELL}."):
        return []
    return [
        _fault(module, found.line, "imports an engine, which answers to the vault alone")
        for found in module.imports
        if found.within(f"{SHELL}.engines")
    ]


_LAZY_IN_CORE = {
    f"{CORE}._signing": ("cryptography",),
    f"{CORE}._postgres": ("sqlalchemy",),
    f"{CORE}.interop": ("dp_accounting",),
}
"""What single modules of the accounting may import inside a function."""


def accounting_stands_alone(module: Module) -> list[str]:
    """The accounting imports the standard library, numpy and scipy; a few modules more, lazily."""
    if module.name != CORE and not module.name.startswith(f"{CORE}."):
        return []
    allowed = sys.stdlib_module_names | {"numpy", "scipy", CORE}
    faults = []
    for found in module.imports:
        if found.root in allowed:
            continue
        if found.root in _LAZY_IN_CORE.get(module.name, ()) and not found.at_top:
            continue
        faults.append(_fault(module, found.line, f"imports {found.root}"))
    return faults


def torch_stays_deep(module: Module) -> list[str]:
    """Only generators and the vault's training loop import torch."""
    home = (f"{SHELL}.deep", f"{SHELL}.vault._train")
    if any(module.name == place or module.name.startswith(f"{place}.") for place in home):
        return []
    return [
        _fault(module, found.line, f"imports {found.root} outside deep and vault._train")
        for found in module.imports
        if found.root in {"torch", "opacus"}
    ]


def heavy_imports_are_lazy(module: Module) -> list[str]:
    """Slow or optional packages are imported where they are used."""
    return [
        _fault(module, found.line, f"imports {found.root} when it is itself imported")
        for found in module.imports
        if found.root in LAZY and found.at_top
    ]


# -- code --------------------------------------------------------------------------------------


def no_assert(module: Module) -> list[str]:
    """``python -O`` removes an assert, and with it whatever it was guarding."""
    return [
        _fault(module, node.lineno, "asserts")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assert)
    ]


def no_pickle(module: Module) -> list[str]:
    """Nothing is written or read in a form that can run code."""
    faults = [
        _fault(module, found.line, f"imports {found.path}")
        for found in module.imports
        if found.root in PICKLES
    ]
    for path, node in module.uses():
        if path in {"torch.load", "torch.save", "pandas.read_pickle"}:
            faults.append(_fault(module, node.lineno, f"uses {path}"))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr == "to_pickle":
            faults.append(_fault(module, node.lineno, "uses to_pickle"))
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and not _is_false(node):
            faults.append(_fault(module, node.value.lineno, "allows pickle"))
    return faults


def no_global_randomness(module: Module) -> list[str]:
    """Randomness is an argument: no global state, no seed that another package could set.

    One module sets such a seed, from the vault's own bits: losses of outside code draw by torch.
    """
    faults = []
    for path, node in module.uses():
        parts = path.split(".")
        wrong = (
            (parts[:2] == ["numpy", "random"] and parts[2:3] and parts[2] not in NUMPY_GENERATORS)
            or (parts[0] == "random" and parts[1:2] and parts[1] != "SystemRandom")
            or (parts[0] == "torch" and parts[-1] in TORCH_SEEDS)
        ) and (module.name, path) != RESEEDED
        if wrong:
            faults.append(_fault(module, node.lineno, f"uses {path}"))
    return faults


def no_unseeded_generator(module: Module) -> list[str]:
    """``default_rng()`` draws a seed nobody chose: take the caller's generator instead."""
    names = module.aliases()
    faults = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        dotted = _dotted(node.func, set()) or ""
        root, _, rest = dotted.partition(".")
        path = ".".join(filter(None, (names.get(root, root), rest)))
        given = [*node.args, *(word.value for word in node.keywords)]
        empty = all(isinstance(value, ast.Constant) and value.value is None for value in given)
        if path == "numpy.random.default_rng" and empty:
            faults.append(_fault(module, node.lineno, "makes a generator without a seed"))
    return faults


def no_long_module(module: Module) -> list[str]:
    """A module is read in one sitting."""
    length = len(module.source.splitlines())
    return [f"{module.name}: has {length} lines"] if length > MOST_LINES else []


def exports_once(module: Module) -> list[str]:
    """A package's ``__init__`` holds nothing but ``from x import y as y``, each name once."""
    if not module.is_package:
        return []
    seen: set[str] = set()
    faults: list[str] = []
    for node in module.tree.body:
        if isinstance(node, ast.ImportFrom):
            faults += _export_faults(module, node, seen)
        elif not _belongs_in_init(node):
            faults.append(_fault(module, node.lineno, "does more than export"))
    return faults


def _export_faults(module: Module, node: ast.ImportFrom, seen: set[str]) -> list[str]:
    if node.module == "__future__":
        return []
    faults = [_fault(module, node.lineno, "exports by a relative import")] if node.level else []
    for alias in node.names:
        if alias.asname is None:
            faults.append(_fault(module, node.lineno, f"exports {alias.name} without `as`"))
        elif alias.asname in seen:
            faults.append(_fault(module, node.lineno, f"exports {alias.asname} twice"))
        else:
            seen.add(alias.asname)
    return faults


def _belongs_in_init(node: ast.stmt) -> bool:
    """Allow a docstring, dunder names, and the two hooks by which a package exports lazily."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.Assign):
        return all(isinstance(name, ast.Name) and name.id[:2] == "__" for name in node.targets)
    return isinstance(node, ast.FunctionDef) and node.name in {"__getattr__", "__dir__"}


RULES = (
    layers,
    engines_are_the_vaults,
    accounting_stands_alone,
    torch_stays_deep,
    heavy_imports_are_lazy,
    no_assert,
    no_pickle,
    no_global_randomness,
    no_unseeded_generator,
    no_long_module,
    exports_once,
)


# -- help --------------------------------------------------------------------------------------


def _part(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def _height(part: str) -> int:
    return next((at for at, parts in enumerate(_HEIGHTS) if part in parts), ROOF)


def _fault(module: Module, line: int, text: str) -> str:
    return f"{module.name}:{line} {text}"


def _imported_by_call(node: ast.Call) -> str | None:
    """Return the literal ``x`` of ``import_module("x")`` or ``__import__("x")``."""
    name = (_dotted(node.func, set()) or "").rpartition(".")[2]
    literal = node.args and isinstance(node.args[0], ast.Constant)
    if name not in {"import_module", "__import__"} or not literal:
        return None
    return str(ast.literal_eval(node.args[0]))


def _is_false(node: ast.keyword) -> bool:
    return isinstance(node.value, ast.Constant) and node.value.value is False


def _names_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _dotted(node: ast.expr, inner: set[int]) -> str | None:
    """Return ``a.b.c`` for such an expression, and note its inner nodes as seen."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
        inner.add(id(node))
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])
