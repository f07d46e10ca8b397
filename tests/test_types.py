"""Types, from end to end: what goes in comes out as the same type, declared or found."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp

ROWS = 4000
RNG = np.random.default_rng(8)
BIG = 2**60
SPIKES = (0, 99_999)


def some_missing(values: pd.Series) -> pd.Series:
    return values.mask(RNG.random(len(values)) < 0.2)


def moments(zone: str | None) -> pd.Series:
    seconds = pd.Series(RNG.integers(0, 3 * 365 * 86_400, ROWS))
    naive = pd.Timestamp("2019-01-01") + pd.to_timedelta(seconds, "s")
    return naive.dt.tz_localize("UTC").dt.tz_convert(zone) if zone else naive


TABLE = pd.DataFrame(
    {
        "whole": RNG.integers(-40, 60, ROWS),
        "whole, missing": some_missing(pd.Series(RNG.integers(0, 9, ROWS), dtype="Int64")),
        "big": BIG + RNG.integers(-5, 5, ROWS),
        "real": RNG.normal(1e4, 3e3, ROWS),
        "money": RNG.integers(0, 5000, ROWS) / 4,
        "spikes": np.where(
            RNG.random(ROWS) < 0.5, RNG.choice(SPIKES, ROWS), RNG.integers(1, 60_000, ROWS)
        ),
        "flag": RNG.random(ROWS) < 0.3,
        "flag, missing": some_missing(pd.Series(RNG.random(ROWS) < 0.3, dtype="boolean")),
        "text": RNG.choice(['a "b"', "c,d", "\N{SNOWMAN}", "1", "NaN"], ROWS),
        "codes": RNG.choice([1, 5, 9], ROWS),
        "day": [date(2020, 1, 1 + i) for i in RNG.integers(0, 30, ROWS)],
        "moment": moments(None),
        "moment of a zone": moments("Europe/Vienna"),
    }
)
DECLARED = dp.Schema(
    {
        "whole": dp.Integer(-50, 99),
        "whole, missing": dp.Integer(0, 9, missing=True),
        "big": dp.Integer(BIG - 10, BIG + 10),
        "real": dp.Real(0.0, 1e5),
        "money": dp.Real(0.0, 1250.0, step=0.25),
        "spikes": dp.Integer(0, 99_999),
        "flag": dp.Boolean(),
        "flag, missing": dp.Boolean(missing=True),
        "text": dp.Categorical(('a "b"', "c,d", "\N{SNOWMAN}", "1", "NaN")),
        "codes": dp.Categorical((1, 5, 9)),
        "day": dp.Date(date(2020, 1, 1), date(2020, 12, 31)),
        "moment": dp.Datetime(datetime(2019, 1, 1), datetime(2022, 1, 1)),
        "moment of a zone": dp.Datetime(
            datetime(2019, 1, 1), datetime(2022, 1, 1), zone="Europe/Vienna"
        ),
    }
)
FOUND = dp.Schema(
    {
        "whole": dp.Integer(),
        "whole, missing": dp.Integer(missing=True),
        "big": dp.Integer(),
        "real": dp.Real(),
        "money": dp.Real(step=0.25),
        "spikes": dp.Integer(),
        "flag": dp.Boolean(),
        "flag, missing": dp.Boolean(missing=True),
        "text": dp.Open(),
        "codes": dp.Open(),
        "day": dp.Date(),
        "moment": dp.Datetime(),
        "moment of a zone": dp.Datetime(zone="Europe/Vienna"),
    }
)
SCHEMAS = {"declared": DECLARED, "found": FOUND}


@pytest.fixture(scope="module", params=SCHEMAS)
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return rows drawn from a generous fit, from a table in memory."""
    return fitted(TABLE, SCHEMAS[request.param], tmp_path_factory.mktemp("types"))


def fitted(table: pd.DataFrame | Path, schema: dp.Schema, folder: Path) -> pd.DataFrame:
    account = dp.Ledger(folder / "ledger.db").account("rows", dp.Budget(30, 1e-6))
    vault = dp.Vault(table, schema, account, unit=dp.Row(), audit_share=0.0)
    model = dp.Independent().fit(vault, epsilon=30)
    return model.sample(ROWS, rng=np.random.default_rng(2))


def test_types_are_those_of_the_table(drawn: pd.DataFrame) -> None:
    kinds = {name: str(kind) for name, kind in drawn.dtypes.items()}
    of_table = {name: str(kind) for name, kind in TABLE.dtypes.items()}
    for name in ("whole", "whole, missing", "big", "real", "money", "spikes", "flag, missing"):
        assert kinds[name] == of_table[name], name
    assert kinds["flag"] == "bool"
    assert kinds["moment of a zone"].endswith("Europe/Vienna]")
    assert kinds["moment"].startswith("datetime64")
    assert all(isinstance(each, str) for each in drawn["text"])


def test_values_are_of_the_kind_of_the_table(drawn: pd.DataFrame) -> None:
    assert set(drawn["text"]) <= {*TABLE["text"], "other"}
    assert set(map(str, drawn["codes"])) <= {"1", "5", "9", "other"}
    assert ((drawn["money"] * 4) % 1 == 0).all()
    # By chance of noise a neighbouring cell may be found too, and hold a row.
    assert drawn["big"].between(BIG - 10**17, BIG + 10**17).mean() > 0.999
    assert abs(drawn["big"].astype(object).map(lambda each: each - BIG).mean()) < 10**17
    assert drawn["flag"].mean() == pytest.approx(TABLE["flag"].mean(), abs=0.04)
    for name in ("whole, missing", "flag, missing"):
        assert drawn[name].isna().mean() == pytest.approx(0.2, abs=0.04)
    assert not drawn.drop(columns=["whole, missing", "flag, missing"]).isna().any().any()
    for name in ("moment", "moment of a zone"):
        assert abs(drawn[name].mean() - TABLE[name].mean()) < pd.Timedelta("60D")


def test_spikes_stay_spikes(drawn: pd.DataFrame) -> None:
    """A quarter of the rows each; the rest is spread over 60,000 values."""
    for spike in SPIKES:
        assert (drawn["spikes"] == spike).mean() == pytest.approx(0.25, abs=0.04)
    others = drawn["spikes"][~drawn["spikes"].isin(SPIKES)]
    assert others.value_counts(normalize=True).max() < 0.02


def test_reals_are_no_midpoints(drawn: pd.DataFrame) -> None:
    assert drawn["real"].nunique() > 0.98 * ROWS
    assert np.quantile(drawn["real"], [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(TABLE["real"], [0.1, 0.5, 0.9]), rel=0.08
    )


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_file_gives_the_types_of_the_table_in_memory(
    form: str, name: str, tmp_path: Path, drawn: pd.DataFrame
) -> None:
    path = tmp_path / f"table.{form}"
    if form == "csv":
        TABLE.to_csv(path, index=False)
    else:
        TABLE.to_parquet(path, index=False)
    again = fitted(path, SCHEMAS[name], tmp_path)
    assert again.dtypes.drop("codes").equals(drawn.dtypes.drop("codes"))
