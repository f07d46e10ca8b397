"""Tuning as a synthesizer: which fit is kept, in a recipe and in code, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth.recipe import Recipe
from dpsynth.synthesizer import Synthesizer, named
from dpsynth.tuning import Tuning
from dpsynth.vault import Audit, Measure, Tune
from dpsynth_accounting import InvalidRequest

SCHEMA = dp.Schema({name: dp.Integer(0, 3) for name in "abc"})
ONE = np.random.default_rng(0).integers(0, 4, 4000)
TABLE = pd.DataFrame({"a": ONE, "b": ONE, "c": (ONE + 1) % 4})
BOTH = (dp.Independent(), dp.MST())


def vault_of(folder: Path) -> dp.Vault:
    account = dp.Ledger(folder / "ledger.db").account("people", dp.Budget(8, 1e-6))
    return dp.Vault(TABLE, SCHEMA, account, unit=dp.Row(), audit_share=0.0)


def scripted(vault: dp.Vault, monkeypatch: pytest.MonkeyPatch, *draws: int) -> None:
    """Have the coins of candidates and of stopping fall as told; noise goes on as it was."""
    rest, real = list(draws), vault.stream.below
    monkeypatch.setattr(
        vault.stream, "below", lambda n: rest.pop(0) if rest and n in (2, 5) else real(n)
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_better_fit_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[int, int]
) -> None:
    """Columns that are copies of each other: independent ones are far off, by 40 times the noise.

    Candidates in turn, no stop after the first run and one after the second.
    """
    vault = vault_of(tmp_path)
    scripted(vault, monkeypatch, order[0], 1, order[1], 0)
    model = Tuning(candidates=BOTH, runs=5).fit(vault, epsilon=4)
    drawn = model.sample(4000, rng=np.random.default_rng(1))
    assert (drawn["a"] == drawn["b"]).mean() > 0.9
    assert vault.account.remaining()[0] == 4


def test_a_single_poor_run_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: had the best not been selected, this is what would have come out."""
    vault = vault_of(tmp_path)
    scripted(vault, monkeypatch, 0, 0)
    model = Tuning(candidates=BOTH, runs=5).fit(vault, epsilon=4)
    drawn = model.sample(4000, rng=np.random.default_rng(1))
    assert (drawn["a"] == drawn["b"]).mean() < 0.5


def test_its_steps_are_those_of_the_candidates_and_a_score() -> None:
    (step,) = Tuning(candidates=BOTH, runs=7, score=0.1).steps(["a", "b", "c"])
    assert isinstance(step, Tune)
    assert step.runs == 7
    assert step.candidates[0] == (Measure(3, 0.9), Audit(0, 3, 0.1))
    for steps in step.candidates:
        assert sum(each.weight for each in steps) == pytest.approx(1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"candidates": ()},
        {"candidates": BOTH, "runs": 0},
        {"candidates": BOTH, "runs": 2.5},
        {"candidates": BOTH, "score": 0.0},
        {"candidates": BOTH, "score": 1.0},
    ],
)
def test_impossible_tunings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="A tuning"):
        Tuning(**wrong)


def test_a_recipe_names_its_candidates() -> None:
    made = named("tuning", {"candidates": [{"name": "independent"}, {"name": "mst"}], "runs": 3})
    assert made == Tuning(candidates=BOTH, runs=3)
    assert isinstance(made, Synthesizer)
    with pytest.raises(InvalidRequest, match="'nothing'"):
        named("tuning", {"candidates": [{"name": "nothing"}]})


RECIPE = """\
format_version = 1
schema = "schema.toml"
[account]
ledger = "ledger.db"
name = "people"
epsilon = 4.0
delta = 1e-6
[unit]
kind = "row"
[release]
epsilon = 4.0
[method]
name = "tuning"
runs = 2
candidates = [{ name = "independent" }, { name = "mst" }]
"""


def test_discovery_tuning_and_audit_are_one_plan_of_a_run(tmp_path: Path) -> None:
    """The release verifies by itself: its price is computed anew from the extract."""
    from rich.console import Console

    from dpsynth.bundle import verify
    from dpsynth.forecast import forecast
    from dpsynth.run import run_recipe

    (tmp_path / "release.toml").write_text(RECIPE)
    columns = '[columns.a]\ntype = "integer"\nlower = 0\nupper = 3\n[columns.b]\ntype = "open"\n'
    (tmp_path / "schema.toml").write_text(f"format_version = 1\n{columns}")
    TABLE.to_csv(tmp_path / "rows.csv", index=False)
    recipe = Recipe.load(tmp_path / "release.toml")
    assert [line["step"] for line in forecast(recipe, 4000)["steps"]] == [
        "discover",
        "tune",
        "audit",
    ]
    out = tmp_path / "out"
    found = run_recipe(recipe, tmp_path / "rows.csv", out, console=Console(quiet=True))
    assert found.released
    assert recipe.open_account().remaining()[0] == 0
    assert "secret number of runs" in (out / "report.html").read_text()
    assert not verify(out).faults
