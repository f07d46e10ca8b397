"""The recommended mechanism: a rule of public facts, and what a recipe without a method uses."""

from __future__ import annotations

from pathlib import Path

import pytest

import dpsynth as dp
from dpsynth.recipe import Recipe

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


def test_parameters_go_to_the_recommended_method(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text(columns(3).dump())
    text = RECIPE % 1 + "method = { bins = 9 }\n"
    (tmp_path / "release.toml").write_text(text)
    assert Recipe.load(tmp_path / "release.toml").synthesizer == dp.CliqueTree(bins=9)
