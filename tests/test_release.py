"""What a release says of its own public facts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp

RNG = np.random.default_rng(3)
TABLE = pd.DataFrame(
    {"age": RNG.integers(0, 90, 300), "city": RNG.choice(["Wien", "Graz"], 300)}
).astype({"city": object})
SCHEMA = dp.Schema({"age": dp.Integer(0, 110, source="a law"), "city": dp.Open()})


def release(folder: Path, units: int | None) -> dp.Release:
    account = dp.Ledger(folder / "ledger.db").account("people", dp.Budget(8.0, 1e-6))
    vault = dp.Vault(TABLE, SCHEMA, account, unit=dp.Row(), declared_units=units)
    model = dp.Independent().fit(vault, epsilon=2)
    table = model.sample(50, rng=np.random.default_rng(1))
    return dp.Release.assemble(vault, model, table, epsilon=1)


@pytest.mark.parametrize("units", [None, 2000])
def test_a_declared_number_of_units_is_repeated(tmp_path: Path, units: int | None) -> None:
    promise = release(tmp_path, units).statement
    sizes = [each.fact for each in promise.public if each.name == "number of units"]
    assert sizes == ([] if units is None else ["2,000 declared"])
    assert ("number of units" in promise.text()) == (units is not None)


def test_the_number_of_rows_that_is_not_declared_is_a_noisy_one(tmp_path: Path) -> None:
    made = release(tmp_path, None)
    assert made.facts["rows"]["estimated"] != len(TABLE)
    assert made.facts["rows"]["released"] == 50
