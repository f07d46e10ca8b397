"""Rules of the repository as text: portable, clean, with links that lead somewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import dpsynth

ROOT = Path(__file__).parents[2]

PUBLIC_NAMES = frozenset(
    {
        "Schema",
        *("Categorical", "Open", "Integer", "Real", "Date", "Datetime", "Boolean", "Drop", "Key"),
        *("Ledger", "Budget", "Vault", "Row", "Person"),
        *("Independent", "MST", "Synthesizer", "Model"),
        *("Attack", "Release"),
    }
)

# A directory that only one machine has. Split, so that this file does not offend itself.
MACHINE_PATH = re.compile(
    r"(?<![\w.~$}*>])/(?:" + "|".join(["work", "root", "tmp"]) + r"|home|Users)/\w"
)

REGISTRY = re.compile(
    "|".join(
        re.escape(".".join(parts))
        for parts in [
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "org"),
            ("deb", "debian", "org"),
            ("anaconda", "org"),
            ("download", "pytorch", "org"),
        ]
    )
    + r"|https?://\S+/simple/"
)

LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
DOCS_PAGE = re.compile(r"\bdocs/[\w/-]+\.md\b")


def tracked() -> list[Path]:
    """Return what git holds or would hold: tracked files and new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git working tree, so there is no list of tracked files")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def texts() -> dict[str, str]:
    """Return the tracked text files by relative path; git's own test tells text from binary.

    A file that is no UTF-8 holds replacement characters, which :func:`text_faults` reports.
    """
    found = {}
    for path in tracked():
        raw = path.read_bytes()
        if b"\0" not in raw[:8000]:
            found[path.relative_to(ROOT).as_posix()] = raw.decode("utf-8", errors="replace")
    return found


def text_faults(text: str) -> list[str]:
    """Return what is wrong with the text of one file."""
    lines = text.split("\n")
    faults = [f"line {at}: ends in a space" for at, x in enumerate(lines, 1) if x != x.rstrip()]
    faults += [
        f"line {at}: a machine's path" for at, x in enumerate(lines, 1) if MACHINE_PATH.search(x)
    ]
    faults += [
        f"line {at}: a registry's host" for at, x in enumerate(lines, 1) if REGISTRY.search(x)
    ]
    if "\N{REPLACEMENT CHARACTER}" in text:
        faults.append("not UTF-8")
    if text and not text.endswith("\n"):
        faults.append("no newline at the end")
    return faults


def test_text_files_are_clean() -> None:
    faults = [f"{name}: {fault}" for name, text in texts().items() for fault in text_faults(text)]
    assert faults == []


@pytest.mark.parametrize(
    "text",
    [
        "trailing \n",
        "carriage return\r\n",
        "no end of line",
        b"\xff\n".decode("utf-8", errors="replace"),
        "/" + "work/main/file.py\n",
        "open('/" + "home/someone/data.csv')\n",
        "see https://pypi" + ".org/project/x\n",
        "--index-url https://mirror.example/" + "simple/\n",
    ],
)
def test_unclean_text_is_flagged(text: str) -> None:
    assert text_faults(text)


@pytest.mark.parametrize(
    "text", ["", "plain\n", "a/" + "work/b\n", "https://example.org/home/x\n", "tmp_path / 'x'\n"]
)
def test_clean_text_is_let_pass(text: str) -> None:
    assert text_faults(text) == []


TEST_NAMED = re.compile(r"`(?:(tests/[\w/]+\.py|benchmarks/\w+\.py)|(test_\w+))`")


def absent_tests(text: str) -> list[str]:
    """Return the tests and files that a page names as its evidence and that do not exist."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    return [
        file or test
        for file, test in TEST_NAMED.findall(text)
        if not (ROOT / file).exists() or not any(f"def {test}" in source for source in sources)
    ]


def test_the_tests_that_pages_name_exist() -> None:
    pages = sorted((ROOT / "docs").rglob("*.md"))
    absent = {page.name: absent_tests(page.read_text(encoding="utf-8")) for page in pages}
    assert {name: tests for name, tests in absent.items() if tests} == {}
    assert absent_tests("`test_of_nothing_at_all`, `tests/nowhere.py`") == [
        "test_of_nothing_at_all",
        "tests/nowhere.py",
    ]


def dead_links(page: Path, text: str) -> list[str]:
    """Return the relative links of a Markdown page that lead nowhere."""
    return [link for link in LINK.findall(text) if not (page.parent / link).exists()]


def test_links_of_the_front_pages_lead_somewhere() -> None:
    pages = sorted(ROOT.glob("*.md"))
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md"} <= {page.name for page in pages}
    dead = {page.name: dead_links(page, page.read_text(encoding="utf-8")) for page in pages}
    assert {name: links for name, links in dead.items() if links} == {}


def test_dead_link_is_flagged(tmp_path: Path) -> None:
    (tmp_path / "there.md").touch()
    text = "[a](there.md) [b](gone.md) [c](https://example.org/x) [d](#part) [e](there.md#part)"
    assert dead_links(tmp_path / "page.md", text) == ["gone.md"]


def test_pages_that_code_names_exist() -> None:
    named = {
        (name, page)
        for name, text in texts().items()
        if name.endswith(".py") and not name.startswith("tests/")
        for page in DOCS_PAGE.findall(text)
    }
    assert {(name, page) for name, page in named if not (ROOT / page).is_file()} == set()


def test_public_names() -> None:
    assert {name for name in PUBLIC_NAMES if not hasattr(dpsynth, name)} == set()


def test_entry_points_lead_somewhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = dict(project["scripts"])
    for group in project["entry-points"].values():
        points |= group
    assert "mst" in points
    for target in points.values():
        module, _, name = target.partition(":")
        assert hasattr(importlib.import_module(module), name), target


def test_extra_all_holds_every_extra_but_those_for_developers_and_for_peers() -> None:
    """The extra ``peers`` holds numpy below 2 and pandas below 3: it stands alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    (everything,) = extras["all"]
    listed = set(everything.partition("[")[2].rstrip("]").split(","))
    assert listed == set(extras) - {"all", "dev", "docs", "peers"}
