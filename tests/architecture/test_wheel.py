"""What is shipped: two import packages, typed, by way of the source distribution, and no test."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"dpsynth", "dpsynth_accounting"}


def faults(names: list[str]) -> list[str]:
    """Return what is wrong with the file names in a wheel."""
    found = [
        f"unexpected top-level name {top}"
        for top in sorted({name.partition("/")[0] for name in names} - PACKAGES)
        if not re.fullmatch(r"dpsynth-[^/]+\.dist-info", top)
    ]
    found += [f"missing {name}/py.typed" for name in PACKAGES if f"{name}/py.typed" not in names]
    found += [
        f"test in the wheel: {name}"
        for name in names
        if re.search(r"(^|/)(tests?/|test_[^/]*\.py$|conftest\.py$)", name)
    ]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        found.append("missing LICENSE")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Build the source distribution, the wheel out of it, and list the wheel's files."""
    pytest.importorskip("build", reason="needs the extra `dev`")
    pytest.importorskip("hatchling", reason="needs the extra `dev`")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return archive.namelist()


def test_wheel_holds_the_two_packages_and_nothing_else(wheel: list[str]) -> None:
    assert faults(wheel) == []


def test_wheel_holds_every_module(wheel: list[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dpsynth").rglob("*.py")}
    modules |= {
        path.relative_to(ROOT / "accounting").as_posix()
        for path in (ROOT / "accounting").rglob("*.py")
    }
    assert modules <= set(wheel)


SOUND = [
    "dpsynth/__init__.py",
    "dpsynth/py.typed",
    "dpsynth_accounting/py.typed",
    "dpsynth-0.1.0.dist-info/licenses/LICENSE",
]


def test_sound_wheel_has_no_fault() -> None:
    assert faults(SOUND) == []


@pytest.mark.parametrize(
    "names",
    [
        [*SOUND, "accounting/__init__.py"],
        [*SOUND, "tests/test_x.py"],
        [*SOUND, "dpsynth/test_x.py"],
        [*SOUND, "dpsynth/tests/help.py"],
        [name for name in SOUND if name != "dpsynth/py.typed"],
        [name for name in SOUND if "dist-info" not in name],
    ],
)
def test_fault_is_found(names: list[str]) -> None:
    assert faults(names)
