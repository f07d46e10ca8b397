"""Look for rows where none may be: in what a model refers to, and in the bytes of files."""

from __future__ import annotations

import functools
import gc
import io
import json
import sqlite3
import struct
import sys
import types
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PACKAGES = ("dpsynth", "dpsynth_accounting")
COMPILERS = ("numba", "llvmlite")
"""What they make of a function is code; it leads to all that the compiler knows."""


@dataclass(frozen=True)
class Rows:
    """What would betray rows.

    Attributes:
        counts: Lengths that only something with one entry a row, or a person, has.
        texts: Texts of which some row holds each.
        numbers: Numbers of which some row holds each.
    """

    counts: frozenset[int]
    texts: tuple[str, ...]
    numbers: tuple[float, ...]

    def in_text(self, text: str) -> bool:
        return any(each in text for each in self.texts)

    def in_bytes(self, raw: bytes) -> bool:
        return len(raw) in self._sizes or any(each in raw for each in self._patterns)

    @functools.cached_property
    def _sizes(self) -> frozenset[int]:
        return frozenset(count * width for count in self.counts for width in (1, 2, 4, 8))

    @functools.cached_property
    def _patterns(self) -> tuple[bytes, ...]:
        written = [*self.texts, *map(repr, self.numbers)]
        found = {each.encode(code) for each in written for code in ("utf-8", "utf-16-le")}
        found |= {struct.pack("<d", each) for each in self.numbers}
        found |= {struct.pack("<q", int(each)) for each in self.numbers if each == int(each)}
        return tuple(found)


def loaded() -> dict[str, object]:
    """Return the globals of every module of the packages that was imported: caches among them."""
    return {
        name: vars(module)
        for name, module in sorted(sys.modules.items())
        if name.split(".")[0] in PACKAGES
    }


def kept_in(roots: Mapping[str, object], rows: Rows) -> list[str]:
    """Return a line for each thing with rows in it that can be reached from some objects.

    Followed are attributes, items, closures, default arguments, caches, the bases of array views
    and the classes of the packages; modules, other packages' classes and compiled code are not.
    """
    faults = []
    seen: dict[int, object] = {}
    queue = list(roots.items())
    while queue:
        path, thing = queue.pop()
        if id(thing) in seen or _is_foreign(thing):
            continue
        seen[id(thing)] = thing  # held, so that no other gets its number
        if fault := _fault(thing, rows):
            faults.append(f"{path}: {type(thing).__name__} {fault}")
        queue += [(f"{path} > {name}", part) for name, part in _parts(thing)]
    return sorted(faults)


def _is_foreign(thing: object) -> bool:
    if type(thing) in weakref.ProxyTypes:  # keeps nothing, and fails at any look if it is dead
        return True
    if type(thing).__module__.split(".")[0] in COMPILERS:
        return True
    if isinstance(thing, type):
        return thing.__module__.split(".")[0] not in PACKAGES
    return isinstance(thing, types.ModuleType | types.FrameType)


def _fault(thing: object, rows: Rows) -> str:
    """Return what is wrong with one thing by itself, or ""."""
    if isinstance(thing, str):
        return "quotes a row" if rows.in_text(thing) else ""
    if isinstance(thing, bytes | bytearray | memoryview):
        return "holds rows" if rows.in_bytes(bytes(thing)) else ""
    if isinstance(thing, int | float):
        return "is a row's number" if not isinstance(thing, bool) and thing in rows.numbers else ""
    if isinstance(thing, np.ndarray):
        if rows.counts & set(thing.shape):
            return f"has one entry a row: {thing.shape}"
        return "has rows' numbers" if _holds_numbers(thing, rows) else ""
    if isinstance(thing, list | tuple | dict | set | frozenset | pd.DataFrame | pd.Series):
        return f"has one entry a row: {len(thing)}" if len(thing) in rows.counts else ""
    return ""


def _holds_numbers(array: np.ndarray[Any, Any], rows: Rows) -> bool:
    if array.dtype.kind not in "iuf":
        return False
    narrow = array.dtype.kind == "f" and array.dtype.itemsize < 8
    wanted = np.array(rows.numbers, dtype=array.dtype if narrow else np.float64)
    return bool(np.isin(array.astype(np.float64), wanted.astype(np.float64)).any())


def _parts(thing: object) -> Iterator[tuple[str, object]]:
    """Yield what a thing refers to, with a name for each."""
    if isinstance(thing, types.FunctionType):  # but not the globals: those of ours are roots
        yield (
            "closure",
            tuple(cell.cell_contents for cell in thing.__closure__ or () if _full(cell)),
        )
        yield "defaults", (thing.__defaults__, thing.__kwdefaults__, thing.__dict__)
    elif isinstance(thing, np.ndarray):
        yield "base", thing.base
        if thing.dtype.kind in "OUST":
            yield "items", thing.ravel().tolist()
    elif isinstance(thing, pd.DataFrame):
        yield from ((str(name), thing.iloc[:, i]) for i, name in enumerate(thing.columns))
        yield "attrs", thing.attrs
    elif isinstance(thing, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        yield "items", np.asarray(thing)
        yield "base", getattr(thing, "_values", None)
    elif isinstance(thing, dict):
        yield from ((str(key), value) for key, value in thing.items())
        yield "keys", list(thing)
    elif not isinstance(thing, str | bytes | int | float):
        yield from ((type(part).__name__, part) for part in gc.get_referents(thing))


def _full(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # of a function that was not defined yet
        return False


def kept_in_files(paths: Iterable[Path], rows: Rows) -> list[str]:
    """Return a line for each thing with rows in it that files hold, archives and databases too."""
    faults = []
    for path in sorted(paths):
        raw = path.read_bytes()
        if rows.in_bytes(raw):
            faults.append(f"{path.name}: its bytes hold rows")
        faults += kept_in({path.name: list(_contents(path, raw))}, rows)
    return faults


def _contents(path: Path, raw: bytes) -> Iterator[object]:
    """Yield what a file says, by its form."""
    if raw[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for name in archive.namelist():
                member = archive.read(name)
                yield member
                if name.endswith(".npy"):
                    yield np.load(io.BytesIO(member), allow_pickle=False)
    elif raw[:6] == b"SQLite":
        yield from _cells(path)
    elif path.suffix == ".json":
        yield json.loads(raw)
    elif path.suffix == ".csv":
        yield raw.decode().splitlines()[1:]


def _cells(path: Path) -> Iterator[object]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as ledger:
        for (table,) in ledger.execute("SELECT name FROM sqlite_master WHERE type='table'"):
            for cells in ledger.execute(f"SELECT * FROM {table}"):
                yield cells
                yield [_unpacked(cell) for cell in cells if isinstance(cell, bytes | str)]
    ledger.close()


def _unpacked(cell: bytes | str) -> object:
    """Return what a cell of a database holds, if it is packed."""
    try:
        return json.loads(cell)
    except ValueError:
        pass
    try:
        plain = zlib.decompress(cell)  # type: ignore[arg-type]
    except (zlib.error, TypeError):
        return None
    try:
        return json.loads(plain)
    except ValueError:
        return np.frombuffer(plain, dtype="<i8") if len(plain) % 8 == 0 else plain
