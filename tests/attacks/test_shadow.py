"""Shadow attacks: copies are found, mechanisms with their noise are not refuted, counts are exact.

The coins and the noise are the system's, so a test of a sound mechanism asserts what a sound one
breaks at most once in a million: its corrected p-value lies below ``CHANCE`` no more often. A copy
with 30 fits to guess misses so many of its coins less often still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

import dpsynth as dp
from dpsynth.attacks import ShadowAttack, shadow, shadow_attack
from dpsynth.attacks import _shadow_features as features
from dpsynth.attacks._shadow_findings import judged
from dpsynth.attacks._watched import Claimed, Seen, watched_fit
from dpsynth.attacks.one_run import Claim
from dpsynth.bundle import ReleaseError
from dpsynth.domain import Domain
from dpsynth.release import Release
from dpsynth.vault import Block, Measure, Measurement, Step, _noise
from dpsynth_accounting import InvalidRequest

SCHEMA = dp.Schema(
    {"u": dp.Categorical(tuple("abcdef")), "v": dp.Categorical(tuple("abcdef")), "w": dp.Boolean()}
)

CHANCE = 1e-6
"""A correct mechanism has a lower p-value than this in at most one of so many attacks."""


@dataclass(frozen=True)
class Copy:
    """A model that draws the counts of the full table, row by row, rounded and none below 0."""

    domain: Domain
    counts: NDArray[np.int64]

    @property
    def rows(self) -> float:
        return float(self.counts.sum())

    def sample_codes(self, n: int, *, rng: np.random.Generator) -> dict[str, NDArray[np.int32]]:
        del n, rng
        cells = np.repeat(np.arange(self.counts.size), self.counts.ravel())
        axes = np.unravel_index(cells, self.counts.shape)
        return {k: v.astype(np.int32) for k, v in zip(self.domain.names, axes, strict=True)}


@dataclass(frozen=True)
class Copier:
    """Measures the full table, and releases it as measured: a copy if there is no noise."""

    name: str = "copier"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        del columns
        return (Measure(1, 1.0),)

    def run(self, block: Block) -> Any:
        (found,) = block.measure([tuple(block.domain.names)])
        return Copy(block.domain, np.maximum(np.rint(found.values), 0).astype(np.int64))

    def fit(self, vault: dp.Vault, *, epsilon: Any, delta: Any = None) -> Any:
        return vault.fit(self, epsilon=epsilon, delta=delta)


def rows_of(unit: dp.Person | None = None) -> pd.DataFrame:
    """Return a crowd in few cells and twelve rows, or persons, alone in theirs."""
    lonely = [(u, v, w) for u in "def" for v in "ef" for w in (False, True)]
    crowd = [("a", "a", False), ("a", "b", True), ("b", "a", False)] * 40
    if unit is None:
        return pd.DataFrame(crowd + lonely, columns=["u", "v", "w"])
    people = [(f"c{i}", *row) for i, row in enumerate(crowd)]
    people += [(f"p{i}", *row) for i, row in enumerate(lonely) for _ in range(unit.rows + 2)]
    return pd.DataFrame(people, columns=["id", "u", "v", "w"])


def attacked(method: Any = None, **words: Any) -> ShadowAttack:
    words = {
        "epsilon": 1.0,
        "unit": dp.Row(),
        "surrogate": rows_of(),
        "targets": 12,
        "fits": 60,
        **words,
    }
    return shadow_attack(
        method or Copier(), SCHEMA, delta=1e-6, rng=np.random.default_rng(3), **words
    )


def no_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        _noise, "discrete_gaussian", lambda _, shape, *rest: np.zeros(shape, dtype=np.int64)
    )


def test_a_copy_is_found_and_its_twin_with_noise_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = attacked(fits=16)
    assert honest.p_value > CHANCE
    no_noise(monkeypatch)
    found = attacked()
    assert found.failed
    assert found.p_value < 0.001
    assert found.epsilon_at_least > 1.0
    # The focal marginal is the count itself: missed only where a side of the coin is never seen in
    # the 30 fits to learn from, for one of 12 targets: 12 * 2**-29.
    matched = found.together[0]
    assert matched.correct == matched.guesses == 12 * 30
    assert matched.area == 1.0
    assert found.worst.p_chance is not None
    assert found.worst.p_chance < 1e-6
    assert {each.place for each in found.targets} == set(range(120, 132))
    assert found.sentence.startswith("Fail: releases of copier tell more than it claims.")
    assert found.to_json()["worst"]["correct"] == 30


def test_mst_is_not_refuted_and_without_noise_is(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = rows_of()[:120]
    alone = pd.DataFrame({"u": list("def"), "v": list("abb"), "w": [False, True, False]})
    words = {"surrogate": pd.concat([crowd, alone], ignore_index=True), "targets": 3}
    honest = attacked(dp.MST(), fits=16, **words)
    assert honest.p_value > CHANCE
    assert len(honest.targets) == 2 * 3
    assert honest.fits == 16
    assert {each.place for each in honest.targets} == {120, 121, 122}
    no_noise(monkeypatch)
    # Each is alone in a cell of a column's exact counts, and rows are drawn by rounded counts:
    # of 20 coins of a target 17 to 20 were told. Of 30, 27 of any one refute the claim.
    broken = attacked(dp.MST(), **words)
    assert broken.failed
    assert broken.worst.area > 0.9


def test_a_person_is_attacked_with_all_rows_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = dp.Person("id", rows=4)
    words = {"unit": unit, "surrogate": rows_of(unit), "epsilon": 3.0}
    honest = attacked(**words, fits=16)
    assert honest.p_value > CHANCE
    assert {each.rows for each in honest.targets} == {4}
    assert {each.place for each in honest.targets} == {120 + 6 * i for i in range(12)}
    assert "isolated persons" in honest.sentence
    # The twin has a twentieth of the noise: 4 rows or none in a cell are six deviations apart from
    # the middle.
    drawn = _noise.discrete_gaussian
    monkeypatch.setattr(_noise, "discrete_gaussian", lambda s2, *rest: drawn(s2 / 400, *rest))
    assert attacked(**words).failed


def test_counts_and_ratios_by_hand() -> None:
    def codes(*rows: tuple[int, int]) -> dict[str, NDArray[np.int32]]:
        return dict(zip("ab", np.array(rows, dtype=np.int32).T, strict=True))

    release, reference = codes((0, 0), (0, 1), (0, 1), (2, 1)), codes((0, 0), (1, 1))
    target, units = codes((0, 1), (2, 2), (0, 0)), np.array([1, 0, 1])
    assert features.queries(["a", "b"], np.random.default_rng(0)) == [("a", "b"), ("a",), ("b",)]
    counts = features.query_counts([("a", "b"), ("a",), ("b",)], release, target, units)
    assert np.allclose(counts**2, [[0, 1, 0], [2 + 1, 3 + 3, 3 + 1]])
    ratios = features.focal_ratios([("a",)], release, reference, target, units)
    assert np.allclose(ratios, [[np.log(1.5 / 0.5)], [2 * np.log(3.5 / 1.5)]])


def test_focal_marginals_are_those_measured_the_more_often_first() -> None:
    def seen(*cliques: tuple[str, ...]) -> list[Seen]:
        values = np.zeros((1,), dtype=np.int64)
        return [Seen(Measurement(clique, values, 1.0), {}) for clique in cliques]

    fits = [seen(("b", "a"), ("c",)), seen(("a", "b"), ("a", "b"))]
    assert features.focal_marginals(fits, "abc") == [("a", "b"), ("c",)]
    assert features.focal_marginals([[]], "abc") == [("a", "b"), ("a", "c"), ("b", "c")]


def test_many_columns_are_asked_few_queries() -> None:
    names = [f"c{i}" for i in range(12)]
    asked = features.queries(names, np.random.default_rng(0))
    assert asked[0] == tuple(names)
    assert len(set(asked)) == len(asked) <= features.MOST_QUERIES
    assert {len(each) for each in asked} == set(range(1, 13))


def test_the_verdict_is_exact_binomial_and_corrected() -> None:
    """Two targets, one attack that tells all of the first and nothing of the second."""
    coins = np.array([[True, True], [False, False]] * 20)
    scores = np.where(coins, 1.0, -1.0)
    scores[:, 1] = 1.0
    claim = Claim(np.array([0.0, 2.0]), np.array([0.2, 1e-6]))
    found = judged("m", (2.0, 1e-6), "row", 80, coins, {"x": scores}, claim, [(5, 1), (7, 1)])
    first, second = found.targets
    assert (first.correct, second.correct, first.guesses) == (40, 20, 40)
    assert first.p_chance == pytest.approx(2 * 0.5**40)
    assert first.p_value == pytest.approx(3 * 0.6**40)
    assert second.p_chance == pytest.approx(stats.binom.sf(19, 40, 0.5))
    assert (first.true_positives, first.false_positives) == (1.0, 0.0)
    assert (second.true_positives, second.false_positives) == (1.0, 1.0)
    assert (first.area, second.area, found.together[0].area) == (1.0, 0.5, 0.75)
    assert found.worst is first
    right = (0.001 / 3) ** (1 / 40)  # Clopper-Pearson, one-sided, of 40 of 40
    assert first.epsilon_at_least == pytest.approx(np.log((right - 1e-6) / (1 - right)))
    assert found.failed
    chance = judged("m", (2.0, 1e-6), "row", 80, coins, {"x": -scores}, claim, [(5, 1), (7, 1)])
    assert not chance.failed
    assert chance.p_value == 1.0


def test_a_mechanism_on_its_claim_is_refuted_no_more_often_than_it_may() -> None:
    """Randomised response at its claim, exactly: the tail of a target is the law of its guesses."""
    share = np.exp(1.0) / (1 + np.exp(1.0))
    claim = Claim.pair(0.0, 2 * share - 1)
    refuted = 0.0
    for right in range(41):
        coins = np.ones((40, 1), dtype=bool)
        coins[20:] = False
        scores = np.where(coins, 1.0, -1.0)
        scores[:right] *= -1
        found = judged("m", (1.0, 0.0), "row", 80, coins, {"x": scores}, claim, [(0, 1)])
        refuted += float(stats.binom.pmf(40 - right, 40, share)) * found.failed
    assert 0 < refuted <= 0.001


def test_isolated_units_are_those_far_from_others() -> None:
    table = rows_of()
    numbers = np.arange(len(table))
    far = shadow._isolation(SCHEMA, table, numbers, np.random.default_rng(0))
    assert far[120:].min() > far[:120].max()
    one = np.concatenate([np.arange(120), np.full(12, 120)])  # all lonely rows are one person's
    assert shadow._isolation(SCHEMA, table, one, np.random.default_rng(0)).argmax() == 120


def test_open_columns_are_attacked_on_a_surrogate() -> None:
    schema = dp.Schema({"city": dp.Open(), "w": dp.Boolean()})
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"city": rng.choice(["Wien", "Graz", "Linz"], 200), "w": rng.random(200) < 0.5}
    )
    kept = table.copy()
    words: dict[str, Any] = {"epsilon": Fraction(3), "delta": 1e-6, "unit": dp.Row(), "rng": rng}
    with pytest.raises(InvalidRequest, match="surrogate"):
        shadow_attack(dp.Independent(), schema, **words)
    with pytest.raises(InvalidRequest, match="'city'"):
        shadow_attack(dp.Independent(), schema, surrogate=table[["w"]], **words)
    found = shadow_attack(dp.Independent(), schema, surrogate=table, targets=3, fits=16, **words)
    assert found.p_value > CHANCE
    pd.testing.assert_frame_equal(table, kept)


def test_what_makes_no_attack_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least one target"):
        attacked(fits=15)
    with pytest.raises(InvalidRequest, match="at least one target"):
        attacked(targets=0)
    with pytest.raises(InvalidRequest, match="fewer targets"):
        attacked(targets=67)
    with pytest.raises(InvalidRequest, match="'id'"):
        attacked(unit=dp.Person("id", rows=2))


def test_what_is_fitted_for_an_attack_is_never_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vault of a fit holds canaries, says so on its model, and assembles nothing."""
    vaults: list[dp.Vault] = []
    made = dp.Vault.__init__

    def kept(self: dp.Vault, *args: Any, **words: Any) -> None:
        made(self, *args, **words)
        vaults.append(self)

    monkeypatch.setattr(dp.Vault, "__init__", kept)
    claimed = Claimed(dp.Independent(), SCHEMA, 1.0, 1e-6, dp.Row())
    fit = watched_fit(claimed, rows_of(), "shadow attack")
    assert fit.domain.not_private
    drawn = fit.model.sample(10, rng=np.random.default_rng(0))
    with pytest.raises(ReleaseError, match="canaries"):
        Release.assemble(vaults[0], fit.model, drawn, epsilon=1.0)
