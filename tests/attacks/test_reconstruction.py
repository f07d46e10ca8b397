"""Linear reconstruction: copies and fine marginals give secrets away, mechanisms with noise do not.

The coins and the noise are the system's, so a test of a sound mechanism asserts what a sound one
breaks at most once in a million: its corrected p-value lies below ``CHANCE`` no more often. What
has no noise tells every secret of a target that is alone in its cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

import dpsynth as dp
from dpsynth.attacks import Reconstruction, one_run, reconstruction_attack
from dpsynth.attacks._watched import Claimed, watched_fit
from dpsynth.attacks.reconstruction import solved
from dpsynth.vault import Block, Measure, Step, _noise
from dpsynth_accounting import InvalidRequest
from tests.attacks.test_shadow import Copier, Copy

CHANCE = 1e-6
"""A correct mechanism has a lower p-value than this in at most one of so many attacks."""

SCHEMA = dp.Schema(
    {
        **{name: dp.Categorical(tuple("abcdef")) for name in "uvw"},
        "sick": dp.Boolean(),
    }
)


def attacked(method: Any = None, **words: Any) -> Reconstruction:
    words = {
        "epsilon": 1.0,
        "unit": dp.Row(),
        "surrogate": 150,
        "fits": 4,
        "schema": SCHEMA,
        **words,
    }
    return reconstruction_attack(
        method or Copier(),
        words.pop("schema"),
        delta=1e-6,
        rng=np.random.default_rng(5),
        **words,
    )


def no_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        _noise, "discrete_gaussian", lambda _, shape, *rest: np.zeros(shape, dtype=np.int64)
    )


@dataclass(frozen=True)
class Drawn(Copy):
    """A model of u, v and sick; w is drawn by itself."""

    def sample_codes(self, n: int, *, rng: np.random.Generator) -> dict[str, NDArray[np.int32]]:
        cells = np.repeat(np.arange(self.counts.size), self.counts.ravel())
        axes = np.unravel_index(cells, self.counts.shape)
        codes = dict(zip(("u", "v", "sick"), axes, strict=True))
        codes["w"] = rng.integers(0, self.domain.size("w"), len(cells))
        return {name: codes[name].astype(np.int32) for name in self.domain.names}


@dataclass(frozen=True)
class Fine:
    """Measures one marginal of the secret and two columns."""

    name: str = "fine"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        del columns
        return (Measure(1, 1.0),)

    def run(self, block: Block) -> Any:
        (found,) = block.measure([("u", "v", "sick")])
        return Drawn(block.domain, np.maximum(found.values, 0))

    def fit(self, vault: dp.Vault, *, epsilon: Any, delta: Any = None) -> Any:
        return vault.fit(self, epsilon=epsilon, delta=delta)


def test_a_copy_gives_secrets_away_and_its_twin_with_noise_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = attacked()
    assert honest.p_value > CHANCE
    assert (honest.secret, honest.unit, honest.targets, honest.fits) == ("sick", "row", 75, 4)
    assert {each.guesses for each in honest.guesses} == {19, 75}
    no_noise(monkeypatch)
    found = attacked()
    assert found.failed
    assert found.p_value < 1e-6
    assert found.epsilon_at_least > 0.5
    # Targets that are alike but for the secret are told by lot.
    assert found.correct > 0.8 * 75 * 4
    assert found.p_chance < 1e-30
    assert found.worst.correct == 4
    assert found.sentence.startswith("Fail: releases of copier tell more than it claims")
    assert found.to_json()["worst"]["correct"] == 4


@pytest.mark.parametrize("method", [dp.MST(), dp.AIM(), dp.Independent()])
def test_sound_mechanisms_are_not_refuted(method: Any) -> None:
    found = attacked(method, fits=2)
    assert found.p_value > CHANCE
    assert found.sentence.startswith("Not refuted")


def test_a_fine_marginal_without_noise_gives_secrets_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets alone in their cell of u and v are told, others by the counts."""
    assert attacked(Fine(), fits=2).p_value > CHANCE
    no_noise(monkeypatch)
    found = attacked(Fine(), targets=20, fits=8)
    assert found.failed
    assert found.p_chance < 1e-9


def test_all_rows_of_a_person_have_one_coin(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = dp.Person("id", rows=3)
    assert attacked(unit=unit, surrogate=300, fits=2).p_value > CHANCE
    no_noise(monkeypatch)
    tables: list[pd.DataFrame] = []

    def kept(claimed: Claimed, table: pd.DataFrame, label: str) -> Any:
        tables.append(table)
        return watched_fit(claimed, table, label)

    monkeypatch.setattr("dpsynth.attacks.reconstruction.watched_fit", kept)
    found = attacked(unit=unit, surrogate=300)
    assert found.failed
    assert (found.unit, found.targets, found.worst.rows) == ("person", 50, 3)
    first, second = tables[0], tables[1]
    changed = first["sick"] != second["sick"]
    persons = set(first["id"][changed])
    assert 0 < len(persons) <= 50  # those whose coin fell otherwise, with all their rows
    assert changed[first["id"].isin(persons)].all()
    assert first.drop(columns="sick").equals(second.drop(columns="sick"))


def test_a_leak_is_told_from_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that tells exactly how a secret follows from other columns tells no coin.

    Its rows are a fresh sample of the population, in which u determines the secret; a guess by u is
    right half of the time. Chance alone lets p fall below a millionth once in a million.
    """
    table = pd.DataFrame({"u": list("abcdef") * 40})
    table["v"], table["w"] = table["u"], "a"
    table["sick"] = table["u"].isin(list("abc"))

    @dataclass(frozen=True)
    class Population:
        name: str = "population"

        def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
            del columns
            return (Measure(1, 1.0),)

        def run(self, block: Block) -> Any:
            block.measure([("u",)])
            codes = block.domain.encode(table)
            shape = tuple(block.domain.size(name) for name in block.domain.names)
            counts = np.zeros(shape, dtype=np.int64)
            np.add.at(counts, tuple(codes[name] for name in block.domain.names), 1)
            return Copy(block.domain, counts)

        def fit(self, vault: dp.Vault, *, epsilon: Any, delta: Any = None) -> Any:
            return vault.fit(self, epsilon=epsilon, delta=delta)

    no_noise(monkeypatch)
    found = attacked(Population(), surrogate=table)
    assert found.p_chance > CHANCE
    assert not found.p_value < CHANCE


def test_secrets_of_more_than_two_values_are_told_between_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_noise(monkeypatch)
    assert attacked(secret="w").failed
    with pytest.raises(InvalidRequest, match="'x'"):
        attacked(secret="x")


def test_what_makes_no_reconstruction_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="fewer targets"):
        attacked(targets=76)
    with pytest.raises(InvalidRequest, match="takes a fit"):
        attacked(fits=0)
    alone = dp.Schema({"sick": dp.Boolean()})
    with pytest.raises(InvalidRequest, match="another one"):
        attacked(dp.Independent(), schema=alone)
    same = pd.DataFrame({"u": ["a"] * 20, "v": "a", "w": "a", "sick": True})
    with pytest.raises(InvalidRequest, match="two values"):
        attacked(surrogate=same)


def test_the_system_is_solved_by_hand() -> None:
    """Three rows of one column: two targets alone in their cells, and a known row in a third."""

    def codes(a: list[int], s: list[int]) -> dict[str, Any]:
        return {"a": np.array(a, np.int32), "s": np.array(s, np.int32)}

    known, first, second = codes([2], [0]), codes([0, 1], [0, 1]), codes([0, 1], [1, 0])
    release = codes([0, 1, 2], [1, 1, 0])  # the first target's coin fell to the second value
    found = solved([("a", "s")], release, known, [first, second], np.array([0, 1]))
    assert found[0] == pytest.approx(0.5, abs=0.01)
    assert found[1] == pytest.approx(-0.5, abs=0.01)


def test_a_unit_that_is_changed_takes_twice_the_epsilon() -> None:
    """Against a mechanism that meets epsilon 1 where a unit is removed, exactly.

    Its answer is even without the unit, and right with probability 1 - 1 / (2 e) about a secret:
    wrong with 1 / (2 e), so a step from even is within e. As a claim about units that are changed,
    epsilon 1 is false of it and is mostly refuted; what follows for them is refuted once in a
    thousand at most.
    """
    share, guesses = 1 - 1 / (2 * np.e), 400
    claim = one_run.Claim.pair(1.0, 0.0)
    law = stats.binom(guesses, share)
    likely = [c for c in range(guesses + 1) if law.pmf(c) > 1e-9]

    def refuted(bound: one_run.Claim) -> float:
        found = {c: one_run.curve_p_value(c, guesses, guesses, bound) for c in likely}
        return float(sum(law.pmf(c) for c in likely if found[c] < 1 - one_run.LEVEL))

    assert refuted(claim.replaced()) <= 0.001
    assert refuted(claim) > 0.5
    assert one_run.replaced_pair(1.0, 0.01) == pytest.approx((2.0, 0.01 * (1 + np.e)))
    typical = (round(guesses * share),)
    assert one_run.pair_lower_bound(typical, guesses, guesses, 0.0) > 1.0
    assert one_run.pair_lower_bound(typical, guesses, guesses, 0.0, replaced=True) <= 1.0


def test_a_claim_of_a_changed_unit_is_the_claim_of_the_claim() -> None:
    """Against F(F(x)) on a grid, and for a Gaussian against twice its mu."""

    def most(claim: one_run.Claim, wrong: NDArray[np.float64]) -> NDArray[np.float64]:
        odds, wide = np.exp(claim.epsilons), wrong[:, None]
        lines = [odds * wide + claim.deltas, 1 - (1 - claim.deltas - wide) / odds]
        found: NDArray[np.float64] = np.minimum(np.minimum(*lines).min(axis=1), 1.0)
        return found

    wrong = np.linspace(0, 1, 501)
    gaussian = one_run.Claim.gaussian(0.7)
    for claim in (one_run.Claim.pair(0.8, 1e-3), gaussian):
        assert np.allclose(
            most(claim.replaced(), wrong), most(claim, most(claim, wrong)), atol=1e-7
        )
    twice = stats.norm.cdf(stats.norm.ppf(wrong) + 1.4)
    found = most(gaussian.replaced(), wrong)
    assert (found >= twice - 1e-9).all()
    assert np.abs(found - twice).max() < 2e-3
