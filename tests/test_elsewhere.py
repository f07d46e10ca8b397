"""Noisy marginals from elsewhere: the model they give, the spend they leave, what is refused."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth_accounting import (
    Account,
    Gaussian,
    InvalidRequest,
    Sequence,
    least_epsilon,
    verify_extract,
)

SCHEMA = dp.Schema(
    {
        "age": dp.Integer(0, 9, bins=(0, 2, 4, 6, 8)),
        "ward": dp.Categorical(("north", "south"), missing=True),
        "sex": dp.Categorical(("f", "m")),
    }
)
AGES, WARDS, SEXES = range(1, 10, 2), ("north", "south", None), ("f", "m")
SIGMA = 5.0


def account_in(folder: Path) -> Account:
    return dp.Ledger(folder / "ledger.db").account("clinic", dp.Budget(9, 1e-6))


def tables() -> list[dp.NoisyMarginal]:
    """Age by ward and ward by sex, of some 200 rows a cell, sex depending on the ward."""
    rng = np.random.default_rng(4)
    first = pd.DataFrame(list(itertools.product(AGES, WARDS)), columns=["age", "ward"])
    first["count"] = 200 + rng.normal(0, SIGMA, len(first))
    second = pd.DataFrame(list(itertools.product(WARDS, SEXES)), columns=["ward", "sex"])
    second["count"] = np.array([900, 100, 500, 500, 0, 1000]) + rng.normal(0, SIGMA, len(second))
    return [dp.NoisyMarginal(first, SIGMA), dp.NoisyMarginal(second, SIGMA)]


FACTS: dict[str, Any] = {"unit": dp.Row(), "delta": 1e-7, "source": "warehouse", "by": "ada"}


def test_what_is_impossible_is_never_made(tmp_path: Path) -> None:
    never = pd.DataFrame({"sex": ["m", "f"], "ward": ["north", None]})
    model = dp.from_marginals(
        SCHEMA, tables(), account=account_in(tmp_path), **FACTS, impossible=[never]
    )
    found = model.marginal(("ward", "sex"))
    assert found[0, 1] == 0
    assert found[2, 0] == 0
    assert found.sum() == pytest.approx(model.rows)
    (tmp_path / "other").mkdir()
    account = account_in(tmp_path / "other")
    for wrong in (pd.DataFrame({"z": [1]}), pd.DataFrame({"ward": ["west"]}), pd.DataFrame()):
        with pytest.raises(InvalidRequest):
            dp.from_marginals(SCHEMA, tables(), account=account, **FACTS, impossible=[wrong])
    assert account.remaining()[0] == 9


def test_the_model_agrees_with_what_was_measured(tmp_path: Path) -> None:
    model = dp.from_marginals(SCHEMA, tables(), account=account_in(tmp_path), **FACTS)
    assert model.rows == pytest.approx(3000, abs=60)
    assert model.marginal(("age", "ward")).shape == (5, 3)
    np.testing.assert_allclose(model.marginal(("age", "ward")), 200, atol=40)
    found = model.marginal(("ward", "sex"))
    np.testing.assert_allclose(found, [[900, 100], [500, 500], [0, 1000]], atol=40)
    rows = model.sample(rng=np.random.default_rng(0))
    assert (rows[rows["ward"].isna()]["sex"] == "m").mean() > 0.97


def test_the_spend_is_declared_at_its_least_epsilon(tmp_path: Path) -> None:
    account = account_in(tmp_path)
    before = account.remaining()[0]
    dp.from_marginals(SCHEMA, tables(), account=account, **FACTS | {"unit": dp.Person("id", 3)})
    noise = Gaussian(Fraction(5), Fraction(3))
    assert before - account.remaining()[0] == least_epsilon(Sequence((noise, noise)), 1e-7)
    (declared,) = verify_extract(account.extract()).declared
    assert declared["source"] == "warehouse"


def without(marginal: dp.NoisyMarginal, **changes: Any) -> dp.NoisyMarginal:
    return dp.NoisyMarginal(marginal.table.assign(**changes), marginal.sigma)


@pytest.mark.parametrize(
    ("wrong", "limit"),
    [
        (lambda a, b: [a], "None of them has 'sex'"),
        (lambda a, b: [dp.NoisyMarginal(a.table[3:], 5.0), b], "Of 15 cells it lacks 3, and"),
        (lambda a, b: [without(a, age=a.table["age"].replace(3, 5)), b], "and repeats 3"),
        (lambda a, b: [without(a, age=11), b], "within its bounds"),
        (lambda a, b: [without(a, count="many"), b], "not a number"),
        (lambda a, b: [without(a, height=1), b], "modelled columns"),
        (lambda a, b: [dp.NoisyMarginal(a.table, 0.0), b], "noise above 0"),
        (lambda a, b: [dp.NoisyMarginal(a.table, 5.0, count="n"), b], "column of counts"),
        (lambda a, b: [dp.NoisyMarginal(a.table[["count"]], 5.0), b], "beside the counts"),
    ],
)
def test_what_is_no_marginal_is_refused_and_nothing_entered(
    wrong: Any, limit: str, tmp_path: Path
) -> None:
    account = account_in(tmp_path)
    with pytest.raises(InvalidRequest, match=limit):
        dp.from_marginals(SCHEMA, wrong(*tables()), account=account, **FACTS)
    assert account.remaining()[0] == 9


def test_marginals_that_need_too_large_a_table_are_refused(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(5)]
    schema = dp.Schema({name: dp.Integer(0, 29) for name in names})
    pairs = []
    for pair in itertools.combinations(names, 2):
        table = pd.DataFrame(list(itertools.product(range(30), repeat=2)), columns=list(pair))
        pairs.append(dp.NoisyMarginal(table.assign(count=1.0), 1.0))
    with pytest.raises(InvalidRequest, match="fewer marginals"):
        dp.from_marginals(schema, pairs, account=account_in(tmp_path), **FACTS)


def test_open_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="leaves open: ward"):
        dp.from_marginals(dp.Schema({"ward": dp.Open()}), [], account=account_in(tmp_path), **FACTS)
