"""What an import costs: light for the package, nothing but arithmetic for the accounting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = {"torch", "opacus", "duckdb", "sklearn", "dp_accounting", "statsmodels", "pyarrow"}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level names of the modules that a fresh interpreter holds after it."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    path = os.pathsep.join([str(ROOT / "accounting"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize("statement", ["import dpsynth", "import dpsynth.cli"])
def test_package_is_light(statement: str) -> None:
    pandas_brings = loaded_by("import pandas")
    assert loaded_by(statement) & (HEAVY - pandas_brings) == set()


def test_accounting_is_alone() -> None:
    assert loaded_by("import dpsynth_accounting") & {*HEAVY, "pandas", "dpsynth"} == set()


def test_heavy_import_is_seen() -> None:
    assert {"sklearn", "duckdb"} <= loaded_by("import duckdb, sklearn.metrics")
