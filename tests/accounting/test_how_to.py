"""The page on calibration says what its code does."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dpsynth_accounting import Budget, Filter, Ledger, Policy

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "calibrate.md"


@pytest.mark.parametrize("filter_", ["additive", "gdp"])
def test_the_page_on_calibration_runs_and_its_figures_hold(tmp_path: Path, filter_: str) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    policy = Policy(Budget(2, 1e-6), filter=Filter(filter_))
    names: dict[str, Any] = {"account": ledger.account("patients", policy)}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        exec(block, names)
    assert float(names["sigma"]) == pytest.approx(1.5651, abs=5e-5)
    assert names["steps"] == 2665
    assert float(names["each"]) == pytest.approx(0.0944, abs=5e-5)
    assert isinstance(names["sigma"], Fraction)
    left, _ = names["account"].remaining()
    assert left < Fraction(1, 20)  # of 2; a hair of precision is left
