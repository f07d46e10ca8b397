from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpsynth.attacks.comparison import (
    _cut,
    compare_hits,
    compare_scores,
    fisher,
    rank_test,
)

tables = st.tuples(*[st.integers(0, 40)] * 4)


@settings(max_examples=100, deadline=None)
@given(tables)
def test_fisher_agrees_with_scipy(table: tuple[int, int, int, int]) -> None:
    a, not_a, h, not_h = table
    expected = stats.fisher_exact([[a, not_a], [h, not_h]], alternative="greater").pvalue
    assert fisher(a, h, a + not_a, h + not_h) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=40),
    st.lists(st.integers(0, 9), min_size=2, max_size=40),
)
def test_rank_test_agrees_with_scipy(left: list[int], right: list[int]) -> None:
    one, other = np.array(left, dtype=float), np.array(right, dtype=float)
    found = rank_test(one, other)
    if len({*left, *right}) == 1:
        assert found == 1.0
        return
    expected = stats.mannwhitneyu(one, other, alternative="greater", method="asymptotic").pvalue
    assert found == pytest.approx(expected, rel=1e-9)


def test_newcombe_by_table() -> None:
    """Newcombe 1998, Statistics in Medicine 17, p. 873, table II, method 10: 56/70 less 48/80."""
    found = compare_hits(np.arange(70) < 56, np.arange(80) < 48)
    assert (round(found.excess.interval.low, 4), round(found.excess.interval.high, 4)) == (
        0.0524,
        0.3339,
    )
    assert found.excess.value == pytest.approx(0.2)


def test_a_threshold_lets_ties_through_together_or_not_at_all() -> None:
    scores = np.array([5.0, 4.0, 4.0, 4.0, 1.0, 0.0])
    assert _cut(scores, 0.2) == 5  # two would be let through: the tie of three is left out
    assert _cut(scores, 0.7) == 1
    assert _cut(np.ones(6), 0.2) == 1  # all alike: all or nobody, so all
    assert _cut(scores, 1.0) == 0


def test_null_p_values_are_honest_and_one_look_too_many_is_not() -> None:
    """Scores that say nothing: at most 5 % below 0.05. The twin forgets that it looked four times.

    400 repeats: an honest test exceeds 36 with probability below 1e-3 of 0.05 each, and these are
    fixed draws, so the outcome is always the same.
    """
    rng = np.random.default_rng(0)
    found, careless = [], []
    for _ in range(400):
        test = compare_scores(rng.normal(size=300), rng.normal(size=280))
        found.append(test.p_value)
        careless.append(test.p_value / 4)
    assert np.mean(np.array(found) < 0.05) < 0.09
    assert np.mean(np.array(careless) < 0.05) > 0.09


def test_a_few_units_that_stand_out_are_found_though_the_area_is_flat() -> None:
    rng = np.random.default_rng(1)
    members, others = rng.normal(size=2000), rng.normal(size=2000)
    members[:40] += 8
    found = compare_scores(members, others)
    assert abs(found.auc.value - 0.5) < 0.03
    assert found.p_value < 1e-6
    assert found.look == 0.01
    assert found.right > 0.85
    assert found.tpr_1_percent.value < 0.05


def test_an_effect_as_large_as_detectable_is_found_about_four_times_in_five() -> None:
    """Simulated with the correction for all tests: 300 repeats, so the share is within 0.1."""
    from dpsynth.attacks.comparison import ALPHA, TESTS

    rng = np.random.default_rng(2)
    least = compare_hits(np.arange(2000) < 40, np.arange(2000) < 40).smallest_detectable
    found = 0
    for _ in range(300):
        inside = rng.random(2000) < 0.02 + least
        outside = rng.random(2000) < 0.02
        found += compare_hits(inside, outside).p_value < ALPHA / TESTS
    assert 0.65 < found / 300 < 0.95


def test_sides_without_units() -> None:
    empty = np.zeros(0, dtype=bool)
    found = compare_hits(empty, np.ones(3, dtype=bool))
    assert (found.p_value, found.smallest_detectable) == (1.0, 1.0)
    assert found.rate_in.interval.high == 1.0
