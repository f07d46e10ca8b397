"""The canary audit: broken mechanisms fail it, correct ones do not, and none is released."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth import bundle
from dpsynth.attacks import CanaryAudit, canaries, canary_audit
from dpsynth.attacks._decode import scores
from dpsynth.attacks._watched import Seen
from dpsynth.release import Release
from dpsynth.vault import Block, Measurement, Select, Step, _noise
from dpsynth_accounting import InvalidRequest

SCHEMA = dp.Schema(
    {
        **{name: dp.Categorical(tuple("abcdefghij")) for name in "uvwx"},
        "age": dp.Integer(0, 40, missing=True),
    }
)

CHANCE = 1e-6
"""A correct mechanism has a lower p-value than this in at most one of so many audits."""


class Chooser:
    """Chooses a column, and is shown nothing that could be scored."""

    name = "chooser"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        del columns
        return (Select(1, 1.0),)

    def run(self, block: Block) -> Any:
        zeros = {(n,): np.zeros(block.domain.size(n), np.int64) for n in block.domain.names}
        block.select(zeros, lambda _: list(zeros))

    def fit(self, vault: dp.Vault, *, epsilon: Any, delta: Any = None) -> Any:
        return vault.fit(self, epsilon=epsilon, delta=delta)


def audited(epsilon: float, *, method: Any = None, **words: Any) -> CanaryAudit:
    words = {"unit": dp.Row(), "surrogate": 300, "schema": SCHEMA, "canaries": 60, **words}
    return canary_audit(
        method or dp.MST(),
        words.pop("schema"),
        epsilon=epsilon,
        delta=1e-6,
        rng=np.random.default_rng(3),
        **words,
    )


def no_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        _noise, "discrete_gaussian", lambda _, shape, *rest: np.zeros(shape, dtype=np.int64)
    )


def noise_of_a_twentieth(patch: pytest.MonkeyPatch) -> None:
    drawn = _noise.discrete_gaussian
    patch.setattr(_noise, "discrete_gaussian", lambda s2, *rest: drawn(s2 / 400, *rest))


@pytest.mark.parametrize("method", [dp.MST(), dp.Independent(), dp.CliqueTree()])
def test_correct_mechanisms_are_not_refuted(method: Any) -> None:
    found = audited(3.0, method=method, runs=2)
    assert found.p_value > CHANCE
    assert found.runs == 2
    assert {each.guesses for each in found.guesses} == {15, 60}


@pytest.mark.parametrize("broken", [no_noise, noise_of_a_twentieth])
def test_too_little_noise_fails_the_canary_audit(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    found = audited(1.0, runs=6)
    assert found.failed
    assert found.p_value < 0.001
    # Of the pair alone: above the claim of 1 in most audits of six runs, not in all.
    assert found.epsilon_at_least > 0.5
    assert found.sentence.startswith("Fail: mst tells more than it claims.")
    assert found.to_json()["failed"] is True


@pytest.mark.slow
def test_all_coins_told_refute_even_epsilon_10(monkeypatch: pytest.MonkeyPatch) -> None:
    no_noise(monkeypatch)
    found = audited(10.0, canaries=100, runs=14)
    assert found.area > 0.99
    assert found.failed


@pytest.mark.slow
def test_a_person_with_several_rows_is_one_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = dp.Person("id", rows=3)
    assert audited(1.0, unit=unit, runs=3).p_value > CHANCE
    noise_of_a_twentieth(monkeypatch)
    assert audited(1.0, unit=unit, runs=8).failed


def test_columns_left_open_need_a_surrogate_and_take_it() -> None:
    schema = dp.Schema({"city": dp.Open(), "age": dp.Integer(0, 40)})
    with pytest.raises(InvalidRequest, match="surrogate"):
        audited(3.0, schema=schema)
    rng = np.random.default_rng(0)
    cities = rng.choice(["Wien", "Graz", "Linz"], 300).astype(object)
    table = pd.DataFrame({"city": cities, "age": rng.integers(0, 41, 300)})
    kept = table.copy()
    assert audited(3.0, schema=schema, surrogate=table, runs=2).p_value > CHANCE
    pd.testing.assert_frame_equal(table, kept)


def test_what_makes_no_audit_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least one run"):
        audited(1.0, runs=0)
    with pytest.raises(InvalidRequest, match="ten canaries"):
        audited(1.0, canaries=9)
    with pytest.raises(InvalidRequest, match="measured no marginal"):
        audited(1.0, method=Chooser(), runs=1)


def test_scores_are_the_best_linear_estimate() -> None:
    """By hand: two canaries, one alone in its cell, and one marginal of variance 4."""
    values = np.array([[7, 3], [5, 0]])
    seen = Seen(Measurement(("a", "b"), values, 2.0), {})
    known = {"a": np.array([0, 0, 1], np.int32), "b": np.array([0, 0, 0], np.int32)}
    made = {"a": np.array([0, 1, 1], np.int32), "b": np.array([0, 0, 0], np.int32)}
    signal = np.array([[0.5, 0, 0], [0, 0.5, 0.5]])
    residual = np.array([(7 - 2 - 0.5) / 2, (5 - 1 - 1.0) / 2])
    wanted = np.linalg.solve(signal.T @ signal + 4 * np.eye(3), signal.T @ residual)
    assert np.allclose(scores([seen], known, made, 1), wanted)
    coarse = {"a": np.array([0, 0])}
    merged = replace(seen.measurement, values=np.array([[12, 3]]))
    assert Seen(merged, coarse).cells(made).tolist() == [0, 0, 0]


def test_canaries_avoid_crowded_cells() -> None:
    table = canaries.simulated(SCHEMA, 300, dp.Row(), np.random.default_rng(0))
    table["u"] = "a"
    made = canaries.chosen_canaries(SCHEMA, table, 60, np.random.default_rng(1))
    assert list(made) == list(SCHEMA.modelled)
    assert (made["u"] == "a").sum() < 6  # a uniform draw has six


def canary_vault(folder: Path, *, canaries_in: bool = True) -> dp.Vault:
    account = dp.Ledger(folder / "ledger.db").account("x", dp.Budget(8.0, 1e-6))
    table = canaries.simulated(SCHEMA, 200, dp.Row(), np.random.default_rng(0))
    return dp.Vault(table, SCHEMA, account, unit=dp.Row(), canaries=canaries_in)


def test_a_model_of_canaries_is_never_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = canary_vault(tmp_path)
    model = dp.Independent().fit(vault, epsilon=1)
    assert model.domain.not_private
    rows = model.sample(20, rng=np.random.default_rng(0))
    spent = vault.account.remaining()
    with pytest.raises(bundle.ReleaseError, match="canaries"):
        Release.assemble(vault, model, rows, epsilon=1)
    assert vault.account.remaining() == spent
    # The twin: assembled all the same, it is not written; and written, it does not verify.
    vault.canaries = False
    monkeypatch.setattr(vault, "_unit_facts", lambda: {**canary_facts(), "audit_share": 0.2})
    made = Release.assemble(vault, model, rows, epsilon=1)
    with pytest.raises(bundle.ReleaseError, match="canaries"):
        made.write(tmp_path / "release")
    assert not (tmp_path / "release").exists()
    monkeypatch.setattr("dpsynth.release._refuse_canaries", lambda *_, **__: None)
    with pytest.raises(bundle.ReleaseError, match="canaries"):
        made.write(tmp_path / "release")
    object.__setattr__(made.model.domain, "not_private", False)
    made.write(tmp_path / "release")
    faults = bundle.verify(tmp_path / "release").faults
    assert any("canaries" in fault for fault in faults)


def canary_facts() -> dict[str, Any]:
    return {**dp.Row().to_json(), "canaries": True}


def test_an_account_of_canaries_takes_no_other_rows(tmp_path: Path) -> None:
    dp.Independent().fit(canary_vault(tmp_path), epsilon=1)
    with pytest.raises(InvalidRequest, match="unit"):
        dp.Independent().fit(canary_vault(tmp_path, canaries_in=False), epsilon=1)
