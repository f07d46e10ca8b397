"""What a release says of its own public facts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth.bundle import verify

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


def test_what_was_found_is_said_with_its_price(tmp_path: Path) -> None:
    facts = release(tmp_path, None).facts["discovery"]
    assert 0 < facts["epsilon"] < 2
    (city,) = facts["columns"]
    assert city["categories"] == ["Graz", "Wien", "other"]
    assert 0 < facts["shown_from"][0] <= facts["shown_from"][1] < 150


def test_the_found_schema_is_released_and_needs_no_discovery(tmp_path: Path) -> None:
    made = release(tmp_path, None)
    folder = made.write(tmp_path / "release")
    schema = dp.Schema.load(folder / "schema.toml")
    assert schema == made.schema
    assert schema.undeclared == schema.unconfirmed == ()
    assert schema.columns["age"] == SCHEMA.columns["age"]
    assert schema.columns["city"].source == "found privately, and paid for"
    account = dp.Ledger(tmp_path / "other.db").account("others", dp.Budget(8.0, 1e-6))
    vault = dp.Vault(TABLE, schema, account, unit=dp.Row())
    assert vault.discovery(1.0) == ()
    assert vault.domain.codecs == made.model.domain.codecs
    again = dp.Independent().fit(vault, epsilon=2)
    drawn = again.sample(50, rng=np.random.default_rng(1))
    assert dp.Release.assemble(vault, again, drawn, epsilon=1).facts["discovery"] is None


def test_a_changed_schema_file_is_noticed(tmp_path: Path) -> None:
    folder = release(tmp_path, None).write(tmp_path / "release")
    assert verify(folder).ok
    file = folder / "schema.toml"
    file.write_text(file.read_text().replace("Graz", "Linz"))
    assert not verify(folder).ok
