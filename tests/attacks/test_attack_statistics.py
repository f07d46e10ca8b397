from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpsynth.attacks.statistics import (
    auc,
    binomial_upper_tail,
    clopper_pearson,
    holm,
    roc,
    smallest_excess,
    tpr_at_fpr,
    wilson,
)
from dpsynth_accounting import InvalidRequest

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.9, 0.95, 0.99])


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    # From Newcombe 1998, Statistics in Medicine 17, table I: the score method.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_by_table(hits: int, trials: int, low: float, high: float) -> None:
    found = wilson(hits, trials)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    # The same table: the exact method.
    [
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ],
)
def test_clopper_pearson_by_table(hits: int, trials: int, low: float, high: float) -> None:
    found = clopper_pearson(hits, trials)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@settings(max_examples=100, deadline=None)
@given(counts, levels)
def test_intervals_agree_with_scipy(count: tuple[int, int], level: float) -> None:
    hits, trials = count
    test = stats.binomtest(hits, trials)
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        theirs = test.proportion_ci(level, method=method)
        found = ours(hits, trials, level)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
def test_no_trial_tells_nothing(interval: type) -> None:
    found = interval(0, 0)
    assert (found.low, found.high) == (0.0, 1.0)


def test_impossible_counts_are_refused() -> None:
    for hits, trials, level in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)):
        with pytest.raises(InvalidRequest):
            wilson(hits, trials, level)


def test_clopper_pearson_covers_and_a_normal_interval_does_not() -> None:
    """Exact coverage by summing over all outcomes, at a rate where the textbook interval fails."""
    n, p = 50, 0.02
    weights = stats.binom.pmf(np.arange(n + 1), n, p)
    exact = [clopper_pearson(k, n) for k in range(n + 1)]
    assert weights[[i.low <= p <= i.high for i in exact]].sum() >= 0.95
    rates = np.arange(n + 1) / n
    half = 1.96 * np.sqrt(rates * (1 - rates) / n)
    assert weights[(rates - half <= p) & (p <= rates + half)].sum() < 0.95


@settings(max_examples=100, deadline=None)
@given(counts, st.sampled_from([0.1, 0.5, 0.9]))
def test_binomial_tail_agrees_with_scipy(count: tuple[int, int], p: float) -> None:
    hits, trials = count
    expected = stats.binom.sf(hits - 1, trials, p)
    assert binomial_upper_tail(hits, trials, p) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_binomial_tail_by_hand() -> None:
    assert binomial_upper_tail(0, 0) == 1.0
    assert binomial_upper_tail(0, 3) == 1.0
    assert binomial_upper_tail(2, 3) == pytest.approx(4 / 8)
    assert binomial_upper_tail(3, 3) == pytest.approx(1 / 8)
    assert binomial_upper_tail(4, 3) == 0.0


def test_holm_by_hand() -> None:
    """Holm 1979: multiply the sorted values by m, m - 1, ... and keep them from falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_raw_and_bonferroni(values: list[float]) -> None:
    for raw, adjusted in zip(values, holm(values), strict=True):
        assert raw <= adjusted <= min(1.0, len(values) * raw) + 1e-12


def test_roc_by_hand_with_ties() -> None:
    members, others = np.array([3.0, 2.0, 2.0, 1.0]), np.array([2.0, 1.0, 1.0, 0.0])
    curve = roc(members, others)
    assert curve.thresholds.tolist() == [np.inf, 3, 2, 1, 0]
    assert curve.tpr.tolist() == [0, 0.25, 0.75, 1, 1]
    assert curve.fpr.tolist() == [0, 0, 0.25, 0.75, 1]
    at = tpr_at_fpr(curve, 0.25)
    assert (at.tpr, at.fpr, at.threshold) == (0.75, 0.25, 2.0)
    # Between two points nothing is interpolated.
    at = tpr_at_fpr(curve, 0.24)
    assert (at.tpr, at.fpr, at.threshold) == (0.25, 0.0, 3.0)
    assert (at.interval.low, at.interval.high) == pytest.approx(
        tuple(stats.binomtest(1, 4).proportion_ci(method="exact"))
    )


def test_equal_scores_for_all_win_nothing() -> None:
    curve = roc(np.zeros(50), np.zeros(50))
    at = tpr_at_fpr(curve, 0.01)
    assert (at.tpr, at.fpr, at.threshold) == (0.0, 0.0, None)
    assert auc(np.zeros(50), np.zeros(50)).value == 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=25),
    st.lists(st.integers(0, 6), min_size=1, max_size=25),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
)
def test_roc_and_auc_equal_brute_force(left: list[int], right: list[int], target: float) -> None:
    members, others = np.array(left, dtype=float), np.array(right, dtype=float)
    pairs = [(m > o) + 0.5 * (m == o) for m in members for o in others]
    assert auc(members, others).value == pytest.approx(np.mean(pairs))
    best = max(
        ((members >= t).mean() for t in [*members, *others] if (others >= t).mean() <= target),
        default=0.0,
    )
    assert tpr_at_fpr(roc(members, others), target).tpr == pytest.approx(best)


def test_delong_interval_by_the_covariance_it_is_defined_by() -> None:
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.5, 1, 40).round(1), rng.normal(0, 1, 30).round(1)
    wins = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    spread = np.sqrt(
        wins.mean(axis=1).var(ddof=1) / len(members) + wins.mean(axis=0).var(ddof=1) / len(others)
    )
    found = auc(members, others)
    assert found.interval.low == pytest.approx(wins.mean() - stats.norm.ppf(0.975) * spread)
    assert found.interval.high == pytest.approx(wins.mean() + stats.norm.ppf(0.975) * spread)


def test_auc_interval_covers_and_one_without_its_spread_does_not() -> None:
    rng = np.random.default_rng(1)
    true = stats.norm.cdf(0.5 / np.sqrt(2))
    found = [auc(rng.normal(0.5, 1, 60), rng.normal(0, 1, 60)) for _ in range(400)]
    inside = [each.interval.low <= true <= each.interval.high for each in found]
    assert 0.91 < np.mean(inside) < 0.985
    # The twin: half the width.
    halved = [
        abs(each.value - true) <= (each.interval.high - each.interval.low) / 4 for each in found
    ]
    assert np.mean(halved) < 0.8


def test_one_score_a_side_gives_no_interval() -> None:
    found = auc(np.ones(1), np.zeros(1))
    assert (found.value, found.interval.low, found.interval.high) == (1.0, 0.0, 1.0)


def test_empty_or_undefined_scores_are_refused() -> None:
    for members, others in ((np.zeros(0), np.zeros(3)), (np.array([np.nan]), np.zeros(3))):
        with pytest.raises(InvalidRequest):
            roc(members, others)
        with pytest.raises(InvalidRequest):
            auc(members, others)


def test_smallest_excess_has_the_power_it_states() -> None:
    rng = np.random.default_rng(2)
    units, rate, alpha = 4000, 0.02, 0.01
    excess = smallest_excess(2 * units * rate, units, alpha=alpha)

    def found(extra: float) -> float:
        a = rng.binomial(units, rate + extra, 20_000)
        h = rng.binomial(units, rate, 20_000)
        return float(np.mean((a - h - 1) / np.sqrt(a + h) > stats.norm.ppf(1 - alpha)))

    assert 0.75 < found(excess) < 0.87
    assert found(excess / 2) < 0.5  # the twin: a smaller one is not found so often
    assert smallest_excess(0.0, 0.0, alpha=alpha) == 1.0
