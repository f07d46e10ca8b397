from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from dpsynth.attacks import Attack, DistanceRatio, ExactMatch, NearestDistance, RecordAttack
from dpsynth.attacks.membership import FALSE_POSITIVES, _threshold
from dpsynth.domain import Domain
from dpsynth_accounting import InvalidRequest
from tests.attacks.attack_contract import AttackContract, require_record_scores
from tests.attacks.recipes import DOMAIN, Rows, case, population, with_missing


class TestExactMatch(AttackContract):
    def make(self, domain: Domain, release: Rows, rng: np.random.Generator) -> RecordAttack:
        return ExactMatch.build(domain, release, rng=rng)


class TestNearestDistance(AttackContract):
    def make(self, domain: Domain, release: Rows, rng: np.random.Generator) -> RecordAttack:
        return NearestDistance.build(domain, release, rng=rng)


class TestDistanceRatio(AttackContract):
    def make(self, domain: Domain, release: Rows, rng: np.random.Generator) -> RecordAttack:
        return DistanceRatio.build(domain, release, rng=rng)


class TestDistanceRatioWithReference(AttackContract):
    def make(self, domain: Domain, release: Rows, rng: np.random.Generator) -> RecordAttack:
        fresh = population(500, np.random.default_rng(8))
        return DistanceRatio.build(domain, release, rng=rng, reference=fresh)


class TestDistanceRatioWithEmptyReference(AttackContract):
    def make(self, domain: Domain, release: Rows, rng: np.random.Generator) -> RecordAttack:
        return DistanceRatio.build(domain, release, rng=rng, reference=release[:0])


@dataclass
class _Ranked:
    """Breaks the contract: a rank depends on the other records."""

    name: str = "ranked"
    threshold: float = 0.5

    def score(self, records: Rows) -> NDArray[np.float64]:
        return records[:, 0].argsort().argsort() / max(len(records), 1)


@dataclass
class _Centred:
    """Breaks the contract in the last bits only: a mean over the batch."""

    name: str = "centred"
    threshold: float = 0.5

    def score(self, records: Rows) -> NDArray[np.float64]:
        noise = 1e-15 * records.mean() if len(records) else 0.0
        scores: NDArray[np.float64] = records[:, 0] / 60 + noise
        return scores


@pytest.mark.parametrize("attack", [_Ranked(), _Centred()], ids=lambda a: a.name)
def test_contract_catches_scores_that_look_at_other_records(attack: RecordAttack) -> None:
    with pytest.raises(AssertionError):
        require_record_scores(attack, population(100, np.random.default_rng(0)))


def test_attack_is_the_record_attack_protocol() -> None:
    assert Attack is RecordAttack


def test_exact_match_agrees_with_comparing_every_pair() -> None:
    rng = np.random.default_rng(0)
    domain = Domain.integers({"a": 3, "b": 4, "c": 2})
    release, records = (
        np.column_stack([rng.integers(0, s, n) for s in (3, 4, 2)]).astype(np.int32)
        for n in (12, 60)
    )
    brute = (records[:, None] == release[None]).all(axis=2).any(axis=1)
    scores = ExactMatch(domain, release).score(records)
    assert np.array_equal(scores == 1.0, brute)
    assert set(scores) == {0.0, 1.0}


def test_exact_match_reads_columns_in_any_memory_order() -> None:
    release = np.asfortranarray(population(50, np.random.default_rng(0)))
    assert ExactMatch(DOMAIN, release).score(np.asfortranarray(release[::-1])).all()


@pytest.mark.parametrize("build", [ExactMatch.build, NearestDistance.build, DistanceRatio.build])
def test_other_number_of_columns_is_refused(build: type) -> None:
    release = population(20, np.random.default_rng(0))
    attack = build(DOMAIN, release, rng=np.random.default_rng(0))
    with pytest.raises(InvalidRequest, match="columns"):
        attack.score(release[:, :3])
    with pytest.raises(InvalidRequest, match="columns"):
        build(DOMAIN, release[:, :3], rng=np.random.default_rng(0))


def test_nearest_distance_by_hand() -> None:
    """a has 5 ordered codes and a missing one, b 3, c is nominal with a missing code."""
    domain = with_missing()
    assert domain.size("a") == 6
    assert domain.ordered("a") == 5
    release = np.array([[0, 0, 0], [4, 2, 1], [5, 1, 3]], dtype=np.int32)
    records = np.array(
        [
            [1, 0, 0],  # a: one step of four from the first row
            [4, 0, 1],  # b: two steps of two from the second
            [5, 2, 3],  # b: one step of two from the third, both missing codes equal
            [2, 1, 2],  # a: 1/2, b: 1/2, c: 1 from the first; 1 + 0 + 1 from the third
        ],
        dtype=np.int32,
    )
    attack = NearestDistance.build(domain, release, rng=np.random.default_rng(0))
    expected = -np.array([0.25, 1.0, 0.5, 2.0]) / 3
    assert attack.score(records) == pytest.approx(expected, abs=1e-15)


def test_distance_ratio_by_hand() -> None:
    domain = Domain.integers({"a": 5, "b": 2}, ordered=("a",))
    release = np.array([[0, 0], [4, 1]], dtype=np.int32)
    reference = np.array([[2, 0]], dtype=np.int32)
    attack = DistanceRatio.build(domain, release, rng=np.random.default_rng(0), reference=reference)
    records = np.array([[0, 0], [2, 0], [3, 1]], dtype=np.int32)
    # To the reference 1/4, 0, 5/8; to the release 0, 1/4, 1/8; 0.001 of a column is 0.0005.
    expected = [0.25 / 0.0005, 0.0, 0.625 / (0.125 + 0.0005)]
    assert attack.score(records) == pytest.approx(expected)


@pytest.mark.parametrize("attack", [NearestDistance, DistanceRatio])
def test_threshold_lets_through_about_one_percent_of_fresh_rows(
    attack: type[NearestDistance] | type[DistanceRatio],
) -> None:
    found = case("safe", rows=6000, seed=3)
    if attack is DistanceRatio:
        built: RecordAttack = DistanceRatio.build(
            DOMAIN, found.release, rng=np.random.default_rng(0), reference=found.fresh
        )
    else:
        built = NearestDistance.build(DOMAIN, found.release, rng=np.random.default_rng(0))
    fresh = population(20_000, np.random.default_rng(9))
    assert 0.004 < (built.score(fresh) >= built.threshold).mean() < 0.017


@pytest.mark.parametrize(
    ("leak", "least", "most"),
    [("safe", -0.007, 0.007), ("leak10", 0.04, 0.2), ("near10", 0.008, 0.2)],
)
def test_distance_ratio_separates_leaks(leak: str, least: float, most: float) -> None:
    found = case(leak, rows=10_000, seed=5)
    attack = DistanceRatio.build(
        DOMAIN, found.release, rng=np.random.default_rng(0), reference=found.fresh
    )
    rates = [
        (attack.score(rows) >= attack.threshold).mean() for rows in (found.audit_in, found.held_out)
    ]
    assert least < rates[0] - rates[1] < most


def test_threshold_is_the_least_score_that_one_percent_reach() -> None:
    assert FALSE_POSITIVES == 0.01
    assert _threshold(np.arange(1000.0)) == 990  # 990..999 are ten of a thousand
    assert _threshold(np.repeat(np.arange(100.0), 10)) == 99
    # Twenty tie at the top: none reaches only 1 %, so the greatest stays.
    assert _threshold(np.append(np.zeros(980), np.ones(20))) == 1
    # Nine at the top, then a tie of thirty that would let too many through.
    tied = np.concatenate([np.zeros(961), np.ones(30), np.full(9, 2.0)])
    assert _threshold(tied) == 2
    assert _threshold(np.array([3.0, 1.0])) == 3
