"""Several processes at one SQLite file, and how long a charge takes there."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import pytest

from dpsynth_accounting import Budget, Exponential
from tests.accounting.contract_race import RaceContract
from tests.accounting.sites import SQLiteSite


class TestSQLiteRace(RaceContract):
    @pytest.fixture
    def site(self, tmp_path: Path) -> SQLiteSite:
        return SQLiteSite(tmp_path / "ledger.db")


@pytest.mark.slow
def test_a_charge_costs_the_same_in_a_long_chain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account = SQLiteSite(tmp_path / "ledger.db").open().account("people", Budget(2, 1e-6))
    plan, each = Exponential(Fraction(1, 2000)), 500
    took = []
    for _ in range(4):
        start = time.perf_counter()
        for at in range(each):
            account.reserve(plan, "1/2000", "1e-10", unit={"unit": "row"}, label=f"plan {at}")
        took.append(1000 * (time.perf_counter() - start) / each)
    with capsys.disabled():
        print("\nmilliseconds a reservation, by 500:", *(f"{each:.2f}" for each in took))
    assert account.remaining()[0] == 1
