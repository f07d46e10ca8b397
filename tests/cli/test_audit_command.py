"""`dpsynth audit` and `dpsynth attack --deep`: a mechanism, at no cost, and an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dpsynth.vault import _noise
from tests.cli.conftest import Runner

SCHEMA = """format_version = 1

[columns.u]
type = "categorical"
categories = ["a", "b", "c", "d", "e", "f", "g", "h"]

[columns.v]
type = "categorical"
categories = ["a", "b", "c", "d", "e", "f", "g", "h"]

[columns.age]
type = "integer"
lower = 0
upper = 40
"""

RECIPE = """format_version = 1
schema = "schema.toml"

[account]
ledger = "ledger.db"
name = "people"
epsilon = 1.0
delta = 1e-6

[unit]
kind = "row"

[release]
epsilon = 1.0

[method]
name = "independent"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "schema.toml").write_text(SCHEMA)
    path = tmp_path / "release.toml"
    path.write_text(RECIPE)
    return path


def test_an_audit_costs_nothing_and_does_not_refute(recipe: Path, dpsynth: Runner) -> None:
    # At most one audit in a thousand refutes by chance; the exit code follows from the p-value.
    code, out, error = dpsynth("audit", recipe, "--runs", 2, "--rows", 200, "--json")
    found = json.loads(out)
    assert code == (2 if found["failed"] else 0), error
    assert found["p_value"] > 1e-6
    assert (found["epsilon"], found["runs"], found["canaries"]) == (1.0, 2, 100)
    assert not (recipe.parent / "ledger.db").exists()


def test_a_mechanism_without_noise_ends_in_exit_code_2(
    recipe: Path, dpsynth: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: object, shape: tuple[int, ...], *rest: Any) -> np.ndarray:
        del rest
        return np.zeros(shape, dtype=np.int64)

    monkeypatch.setattr(_noise, "discrete_gaussian", none)
    table = recipe.parent / "public.csv"
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefgh"))
    columns = {"u": rng.choice(letters, 300), "v": rng.choice(letters, 300)}
    pd.DataFrame({**columns, "age": rng.integers(0, 41, 300)}).to_csv(table, index=False)
    words = ("audit", recipe, "--surrogate", table, "--runs", 6, "--canaries", 40)
    code, out, _ = dpsynth(*words)
    assert code == 2
    assert out.startswith("Fail: independent tells more than it claims.")


def test_too_few_canaries_are_an_error_of_the_line(recipe: Path, dpsynth: Runner) -> None:
    code, _, error = dpsynth("audit", recipe, "--canaries", 3)
    assert code == 2
    assert "10" in error


def test_shadow_attacks_cost_nothing_and_find_what_has_no_noise(
    recipe: Path, dpsynth: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coins and noise are the system's: a sound mechanism is refuted below 1e-6 once in a million.

    Without noise, 3 rows are each alone in a cell of an exact count: of 30 fits all coins are told.
    """
    words = ("attack", "--deep", recipe, "--rows", 60, "--targets", 3)
    _, out, error = dpsynth(*words, "--fits", 16, "--json")
    assert not error
    found = json.loads(out)
    assert found["p_value"] > 1e-6
    assert found["unit"] == "row"
    assert len(found["targets"]) == 2 * 3
    told = found["reconstruction"]
    assert told["p_value"] > 1e-6
    assert (told["secret"], told["targets"], told["fits"]) == ("u", 30, 16)
    assert not (recipe.parent / "ledger.db").exists()
    monkeypatch.setattr(
        _noise, "discrete_gaussian", lambda _, shape, *rest: np.zeros(shape, dtype=np.int64)
    )
    table = recipe.parent / "surrogate.csv"
    rows = [("a", "a", 5), ("b", "b", 6)] * 40 + [("c", "h", 40), ("g", "d", 30), ("f", "e", 20)]
    pd.DataFrame(rows, columns=["u", "v", "age"]).to_csv(table, index=False)
    code, out, _ = dpsynth(*words, "--surrogate", table, "--fits", 60)
    assert code == 2
    assert out.startswith("Fail: releases of independent tell more than it claims.")
    # One-way counts tell how many have a value of the secret, and not who.
    assert "Not refuted: reconstructing 'u' of 41 rows in 16 fits" in out


def test_options_of_the_other_attack_are_refused(recipe: Path, dpsynth: Runner) -> None:
    deep = ("--deep", recipe)
    for words, told in (
        ((*deep, "--no-classifier"), "with --classifier"),
        ((*deep, "--train", recipe, "--delta", 0), "with --train, --delta"),
        (("--targets", 5), "with --targets"),
    ):
        code, _, error = dpsynth("attack", *words)
        assert code == 2
        assert told in error
    code, _, error = dpsynth("attack", "--train", recipe)
    assert code == 2
    assert "--holdout" in error
    code, _, error = dpsynth("attack", *deep, "--secret", "nobody")
    assert code == 2
    assert "'nobody'" in error
