"""The recommended mechanism: a rule of public facts, and what a recipe without a method uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth import Workload
from dpsynth.recipe import Recipe
from dpsynth_accounting import InvalidRequest

RECIPE = """
format_version = 1
schema = "schema.toml"
account = { ledger = "ledger.db", name = "x", epsilon = 3.0, delta = 1e-6 }
unit = { kind = "row" }
release = { epsilon = %s }
"""


def columns(count: int) -> dp.Schema:
    kept: dict[str, dp.schema.Column] = {f"c{i}": dp.Boolean() for i in range(count)}
    return dp.Schema({"id": dp.Key(), **kept})


@pytest.mark.parametrize(
    ("count", "epsilon", "name"),
    [(1, 1, "clique-tree"), (60, 1, "clique-tree"), (61, 1, "mst"), (5, 0.001, "mst")],
)
def test_columns_and_budget_decide(count: int, epsilon: float, name: str, tmp_path: Path) -> None:
    assert dp.recommend(columns(count), dp.Budget(epsilon, 1e-6)).name == name
    (tmp_path / "schema.toml").write_text(columns(count).dump())
    (tmp_path / "release.toml").write_text(RECIPE % epsilon)
    assert Recipe.load(tmp_path / "release.toml").synthesizer.name == name


@pytest.mark.parametrize(
    ("count", "epsilon", "name"),
    [(1, 1, "clique-tree"), (2, 1, "clique-tree"), (100, 1, "clique-tree"), (101, 1, "mst")],
)
def test_a_target_is_what_the_model_looks_for(
    count: int, epsilon: float, name: str, tmp_path: Path
) -> None:
    found = dp.recommend(columns(count), dp.Budget(epsilon, 1e-6), target="c0")
    assert found.name == name
    if isinstance(found, dp.CliqueTree):
        assert found.workload == Workload.about("c0", 3)
    (tmp_path / "schema.toml").write_text(columns(count).dump())
    (tmp_path / "release.toml").write_text(RECIPE % f'{epsilon}, target = "c0"')
    assert Recipe.load(tmp_path / "release.toml").synthesizer == found
    named = RECIPE % f'{epsilon}, target = "c0"' + 'method = { name = "clique-tree" }\n'
    (tmp_path / "release.toml").write_text(named)
    assert Recipe.load(tmp_path / "release.toml").synthesizer == dp.CliqueTree()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_is_recommended_for_a_target_fits(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({f"c{i}": rng.random(300) < 0.3 for i in range(count)})
    budget = dp.Budget(1, 1e-6)
    account = dp.Ledger(tmp_path / "ledger.db").account("x", budget)
    vault = dp.Vault(rows, columns(count), account, unit=dp.Row())
    model = dp.recommend(columns(count), budget, target="c0").fit(vault, epsilon=1)
    assert set(rows) <= set(model.sample(10, rng=rng))


def test_a_target_that_is_no_column_is_refused() -> None:
    for target in ("c9", "id"):
        with pytest.raises(InvalidRequest, match="no modelled column"):
            dp.recommend(columns(2), dp.Budget(1, 1e-6), target=target)


def test_parameters_go_to_the_recommended_method(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text(columns(3).dump())
    text = RECIPE % 1 + "method = { bins = 9 }\n"
    (tmp_path / "release.toml").write_text(text)
    assert Recipe.load(tmp_path / "release.toml").synthesizer == dp.CliqueTree(bins=9)
