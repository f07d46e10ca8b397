from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from dpsynth.attacks import (
    AttackCounts,
    DistanceRatio,
    ExactMatch,
    NearestDistance,
    RecordAttack,
    Verdict,
    public_verdict,
)
from dpsynth_accounting import InvalidRequest
from tests.attacks.recipes import DOMAIN, case

REPEATS = 20_000


def counts(a: float, h: float, sigma: float = 0.0, *, units: float = 1000) -> AttackCounts:
    return AttackCounts("copying", a, h, units, units, sigma)


def test_statistic_by_hand() -> None:
    one = counts(60, 30, 3.0)
    assert one.variance == pytest.approx(90 + 3 * math.sqrt(2) + 18)
    assert one.z == pytest.approx(29 / math.sqrt(90 + 3 * math.sqrt(2) + 18))
    assert one.p_value == pytest.approx(stats.norm.sf(one.z))


def test_nothing_to_compare_is_no_evidence() -> None:
    assert counts(0, 0).p_value == 1.0
    assert counts(-5, -9, 2.0).p_value > 0.1


def noisy(hits: int, sigma: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Null counts: fair coins for so many hits, whole-number Gaussian noise on both sides."""
    rng = np.random.default_rng(seed)
    inside = rng.binomial(hits, 0.5, REPEATS)
    a = inside + np.rint(rng.normal(0, sigma, REPEATS))
    h = hits - inside + np.rint(rng.normal(0, sigma, REPEATS))
    return a, h


@pytest.mark.parametrize("sigma", [0.0, 0.3, 2.0, 10.0, 40.0])
@pytest.mark.parametrize("hits", [0, 1, 6, 9, 25, 200, 3000])
def test_false_alarms_stay_within_their_level(hits: int, sigma: float) -> None:
    a, h = noisy(hits, sigma, seed=hits)
    pairs, number = np.unique(np.column_stack([a, h]), axis=0, return_counts=True)
    p = np.array([counts(x, y, sigma).p_value for x, y in pairs])
    assert number[p < 0.01].sum() / REPEATS <= 0.012
    assert number[p < 0.05].sum() / REPEATS <= 0.055


def test_the_textbook_statistic_raises_false_alarms() -> None:
    """The twin: without the noise in the variance, or the correction for continuity."""
    a, h = noisy(25, 10.0, seed=1)
    alarms = (a - h) / np.sqrt(np.maximum(a + h, 1)) > stats.norm.ppf(0.99)
    assert alarms.mean() > 0.1
    a, h = noisy(6, 0.0, seed=1)
    assert ((a - h) / np.sqrt(a + h) > stats.norm.ppf(0.99)).mean() > 0.012


@pytest.mark.parametrize("sigma", [0.0, 5.0, 20.0])
def test_members_that_leak_are_found(sigma: float) -> None:
    """The twin of the null: 120 of 1000 members are copied, beside 20 chance hits a side."""
    a, h = noisy(40, sigma, seed=2)
    pairs = zip(a[:500], h[:500], strict=True)
    outcomes = [public_verdict([counts(x + 120, y, sigma)]).outcome for x, y in pairs]
    assert np.mean([outcome == "fail" for outcome in outcomes]) > 0.6


def test_smallest_detectable_effect_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(4)
    sigma, hits, units = 5.0, 60, 2000
    least = public_verdict([counts(30, 30, sigma, units=units)]).findings[0].smallest_detectable

    def detected(excess: float) -> float:
        outcomes = []
        for _ in range(800):
            inside = rng.binomial(hits, 0.5) + rng.poisson(excess * units)
            a, h = inside + rng.normal(0, sigma), hits - rng.binomial(hits, 0.5)
            found = counts(a, h + rng.normal(0, sigma), sigma, units=units)
            outcomes.append(public_verdict([found]).outcome != "not detected")
        return float(np.mean(outcomes))

    assert 0.72 < detected(least) < 0.9
    assert detected(least / 3) < 0.5


def test_outcomes_by_hand() -> None:
    assert public_verdict([counts(90, 20)]).outcome == "fail"
    assert public_verdict([counts(30, 17)]).outcome == "review"  # z = 1.75, p = 0.040
    assert public_verdict([counts(25, 20)]).outcome == "not detected"
    assert public_verdict([counts(20, 90)]).outcome == "not detected"


def test_a_significant_excess_below_the_floor_is_for_review() -> None:
    large = AttackCounts("copying", 1000, 700, 100_000, 100_000, 0.0)
    assert large.p_value < 1e-6
    found = public_verdict([large])
    assert found.outcome == "review"
    assert "below the floor" in found.findings[0].sentence
    assert public_verdict([large], floor=0.001).outcome == "fail"


def test_holm_corrects_for_the_number_of_attacks() -> None:
    border = counts(42, 15)  # p = 0.0003: fails alone, not as the best of five
    assert public_verdict([border]).outcome == "fail"
    five = public_verdict([border, *[counts(20, 20)] * 4])
    assert five.outcome == "review"
    assert five.findings[0].adjusted_p_value == pytest.approx(5 * border.p_value)


def test_any_attack_decides() -> None:
    found = public_verdict([counts(20, 20), counts(200, 20)])
    assert found.outcome == "fail"
    assert [each.outcome for each in found.findings] == ["not detected", "fail"]


def test_without_held_out_units_nothing_is_tested() -> None:
    found = public_verdict([])
    assert found.outcome == "not tested"
    assert found.findings == ()
    assert found.sentence.startswith("Not tested")


@pytest.mark.parametrize("total", [-30.0, 0.0, 0.4])
def test_noisy_totals_near_nothing_give_rates_within_bounds(total: float) -> None:
    found = public_verdict([AttackCounts("copying", 12, -3, total, total, 20.0)])
    assert found.outcome == "not detected"
    assert found.findings[0].smallest_detectable == 1.0
    assert 0 <= found.findings[0].rate_in <= 1
    assert -1 <= found.findings[0].excess_low <= found.findings[0].excess_high <= 1


# -- a holdout of the custodian's own ------------------------------------------------------------


def own(a: float, h: float, x: float, y: float, sigma: float = 0.0) -> AttackCounts:
    return AttackCounts("copying", a, h, x, y, sigma, own_holdout=True)


def own_counts(
    inside: int, outside: int, rates: tuple[float, float], sigma: float, seed: int, repeats: int
) -> list[AttackCounts]:
    """Counts on sides of these sizes, with whole-number Gaussian noise on all four."""
    rng = np.random.default_rng(seed)
    noise = np.rint(rng.normal(0, sigma, (4, repeats)))
    a = rng.binomial(inside, rates[0], repeats) + noise[0]
    h = rng.binomial(outside, rates[1], repeats) + noise[1]
    x, y = inside + noise[2], outside + noise[3]
    return [own(*each, sigma) for each in zip(a, h, x, y, strict=True)]


def alarms(counts: Iterable[AttackCounts], level: float) -> float:
    return float(np.mean([each.p_value < level for each in counts]))


SIDES = [(300, 300), (100, 5000), (5000, 100), (20, 2000), (2000, 20)]


@pytest.mark.parametrize("sigma", [0.0, 2.0, 40.0])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_false_alarms_stay_within_their_level_with_an_own_holdout(
    sides: tuple[int, int], rate: float, sigma: float
) -> None:
    found = own_counts(*sides, (rate, rate), sigma, 1, 4000)
    slack = 4 / math.sqrt(len(found))
    assert alarms(found, 0.01) <= 0.01 + slack * 0.1
    assert alarms(found, 0.05) <= 0.05 + slack * 0.22


def test_the_coins_statistic_raises_false_alarms_with_an_own_holdout() -> None:
    """The twins: coins' rule on sides of other sizes; no skewness; denominators without noise."""
    found = own_counts(5000, 100, (0.05, 0.05), 5.0, 1, 2000)
    assert alarms([replace(each, own_holdout=False) for each in found], 0.01) > 0.9

    few = own_counts(20, 20_000, (0.01, 0.01), 0.0, 1, 20_000)
    normal = [math.erfc(each.z / math.sqrt(2)) / 2 for each in few]
    assert np.mean(np.array(normal) < 0.01) > 0.014
    assert alarms(few, 0.01) <= 0.012

    many = own_counts(400, 400, (0.97, 0.97), 20.0, 1, 2000)
    bare = []
    for each in many:
        x, y = each.sides
        variance = 4 * (x * y * each._hits * 0.03 + each.sigma**2 * (x * x + y * y)) / (x + y) ** 2
        bare.append((each.difference - 1) / math.sqrt(variance) > stats.norm.ppf(0.99))
    assert np.mean(bare) > 0.02


@pytest.mark.parametrize("sides", [(1000, 1000), (1000, 300), (500, 5000)], ids=str)
@pytest.mark.parametrize("sigma", [0.0, 5.0])
def test_members_that_leak_are_found_with_an_own_holdout(
    sides: tuple[int, int], sigma: float
) -> None:
    found = own_counts(*sides, (0.14, 0.04), sigma, 2, 300)
    outcomes = [public_verdict([each]).outcome for each in found]
    assert np.mean([outcome == "fail" for outcome in outcomes]) > 0.6


@pytest.mark.parametrize("sides", [(2000, 2000), (2000, 600), (600, 4000)], ids=str)
def test_smallest_detectable_effect_with_an_own_holdout(sides: tuple[int, int]) -> None:
    sigma, rate = 5.0, 0.03
    typical = own(rate * sides[0], rate * sides[1], *sides, sigma)
    least = public_verdict([typical]).findings[0].smallest_detectable

    def detected(excess: float) -> float:
        found = own_counts(*sides, (rate + excess, rate), sigma, 4, 800)
        return float(np.mean([public_verdict([c]).outcome != "not detected" for c in found]))

    assert 0.65 < detected(least) < 0.93
    assert detected(least / 3) < 0.5


def test_equal_sides_are_judged_as_by_coins_up_to_the_noise_of_their_sizes() -> None:
    one, two = own(60, 30, 1000, 1000), counts(60, 30)
    assert (one.difference, one.units) == (two.difference, two.units)
    assert one.variance == pytest.approx(two.variance)
    assert one.p_value == pytest.approx(two.p_value)
    assert own(60, 30, 1000, 1000, 9.0).variance > counts(60, 30, 9.0).variance


def test_statistic_by_hand_with_an_own_holdout() -> None:
    one = own(60, 10, 1000, 500)
    assert one.difference == pytest.approx(2 * (500 * 60 - 1000 * 10) / 1500)
    assert one.units == pytest.approx(2 * 1000 * 500 / 1500)
    assert one.variance == pytest.approx(4 * 1000 * 500 * 70 / 1500**2)
    finding = public_verdict([one]).findings[0]
    assert finding.excess == pytest.approx(0.06 - 0.02)
    assert finding.excess == pytest.approx(one.difference / one.units)


def test_a_verdict_with_an_own_holdout_says_what_it_rests_on() -> None:
    for one in (own(200, 20, 1000, 1000), own(30, 17, 1000, 1000), own(20, 20, 1000, 900)):
        sentence = public_verdict([one]).sentence
        assert "the custodian's own" in sentence
        assert "if it was drawn like the table" in sentence
        assert "no lower bound on epsilon" in sentence
    assert "custodian" not in public_verdict([counts(20, 20)]).sentence
    assert public_verdict([own(0, 0, -3, -9, 5.0)]).outcome == "not detected"


def every_verdict() -> list[Verdict]:
    return [
        public_verdict([]),
        public_verdict([counts(90, 20)]),
        public_verdict([counts(30, 17)]),
        public_verdict([counts(25, 20, 4.0), counts(3, 1, 4.0)]),
        public_verdict([counts(0, 0, units=3)]),
        public_verdict([own(90, 20, 1000, 800)]),
        public_verdict([own(25, 20, 1000, 800, 4.0), own(3, 1, 1000, 800, 4.0)]),
    ]


@pytest.mark.parametrize("found", every_verdict(), ids=lambda v: v.outcome)
def test_sentences_are_plain_and_never_vouch(found: Verdict) -> None:
    for sentence in (found.sentence, *(each.sentence for each in found.findings)):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        lowered = sentence.lower()
        for word in ("safe", "anonym", "private", "guarantee", "nan", "inf"):
            assert word not in lowered.split()
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["outcome"] == found.outcome
    assert len(data["findings"]) == len(found.findings)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        counts(math.nan, 0)
    with pytest.raises(InvalidRequest):
        counts(1, 1, -1.0)
    with pytest.raises(InvalidRequest):
        public_verdict([counts(1, 1)], floor=2)


@pytest.mark.parametrize(
    ("leak", "expected"), [("safe", "not detected"), ("leak10", "fail"), ("near10", "fail")]
)
def test_from_tables_to_verdict(leak: str, expected: str) -> None:
    found = case(leak, rows=10_000, seed=11)
    rng = np.random.default_rng(0)
    attacks: list[RecordAttack] = [
        ExactMatch.build(DOMAIN, found.release, rng=rng),
        NearestDistance.build(DOMAIN, found.release, rng=rng),
        DistanceRatio.build(DOMAIN, found.release, rng=rng, reference=found.fresh),
    ]
    sigma = 6.0

    def noisy_count(hits: NDArray[np.bool_]) -> float:
        return float(hits.sum() + round(rng.normal(0, sigma)))

    sides = found.audit_in, found.held_out
    totals = [noisy_count(np.ones(len(rows), dtype=bool)) for rows in sides]
    counted = []
    for attack in attacks:
        over = [noisy_count(attack.score(rows) >= attack.threshold) for rows in sides]
        counted.append(AttackCounts(attack.name, over[0], over[1], totals[0], totals[1], sigma))
    verdict = public_verdict(counted)
    assert verdict.outcome == expected, verdict.sentence
