"""Drawings: right lengths and places, worked out by hand or against a brute-force oracle."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dpsynth.report import svg

SHARES = st.lists(st.floats(0, 1e6), min_size=1, max_size=30)


def test_upright_bars_by_hand() -> None:
    bars = svg.upright([1.0, 4.0, 0.0, 2.0], ["a", "b", "c", "d"])
    assert [bar.x for bar in bars] == [0.0, 70.0, 140.0, 210.0]
    assert [bar.height for bar in bars] == [34.0, 136.0, 0.0, 68.0]
    assert [bar.y for bar in bars] == [102.0, 0.0, 136.0, 68.0]
    assert [bar.title for bar in bars] == ["a", "b", "c", "d"]


def test_lying_bars_by_hand() -> None:
    bars = svg.lying([0.6, 0.3], ["a", "b"])
    assert [bar.width for bar in bars] == [130.0, 65.0]
    assert [bar.y for bar in bars] == [2.0, 22.0]


@given(SHARES)
def test_bars_stay_within_the_drawing(values: list[float]) -> None:
    titles = [""] * len(values)
    for bar in (*svg.upright(values, titles), *svg.lying(values, titles)):
        assert bar.x >= 0
        assert bar.y >= 0
        assert bar.width >= 0
        assert bar.height >= 0
        assert bar.x + bar.width <= svg.WIDTH + 0.2
        assert bar.y + bar.height <= svg.HEIGHT + 0.2


def test_bars_of_nothing_are_flat() -> None:
    assert [bar.height for bar in svg.upright([0.0, 0.0], ["", ""])] == [0.0, 0.0]
    assert svg.lying([], []) == ()


def test_segments_that_exceed_the_whole_are_shrunk_to_it() -> None:
    bars = svg.segments([3.0, 1.0], 2.0, ["", ""])
    assert [(bar.x, bar.width) for bar in bars] == [(0.0, 75.0), (75.0, 25.0)]
    assert [bar.width for bar in svg.segments([0.0], 0.0, [""])] == [0.0]
    assert [bar.width for bar in svg.segments([-1.0, 1.0], 1.0, ["", ""])] == [0.0, 100.0]


@given(st.lists(st.tuples(*[st.floats(-1, 1)] * 3), min_size=1, max_size=5))
def test_whiskers_keep_order_and_share_one_scale(raw: list[tuple[float, float, float]]) -> None:
    ordered = [(min(each), sorted(each)[1], max(each)) for each in raw]
    drawn = svg.whiskers(ordered)
    assert len({each.zero for each in drawn}) == 1
    for each in drawn:
        assert 0 <= each.low <= each.value <= each.high <= 100
        assert 0 <= each.zero <= 100


def test_whisker_by_hand() -> None:
    # The scale is -1..3 widened by 6 % of 4 at each end: -1.24..3.24.
    (drawn,) = svg.whiskers([(-1.0, 1.0, 3.0)])
    assert drawn == svg.Whisker(low=5.4, high=94.6, value=50.0, zero=27.7)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("fpr", [0.001, 0.01, 0.2, 0.7, 1.0])
def test_bound_lies_above_a_real_mechanism(epsilon: float, fpr: float) -> None:
    # Laplace noise of scale 1 / epsilon on a count: the best test of 0 against 1, exactly.
    law = stats.laplace(scale=1 / epsilon)
    reached = float(law.sf(law.isf(fpr) - 1)) if fpr < 1 else 1.0
    bound = svg.greatest_rate(fpr, epsilon, 0.0)
    assert reached <= bound + 1e-12
    if fpr <= math.exp(-epsilon) / 2:  # where pure DP is met with equality
        assert reached == pytest.approx(bound)


def test_bound_with_delta_by_hand() -> None:
    assert svg.greatest_rate(0.0, 1.0, 0.25) == 0.25
    assert svg.greatest_rate(0.5, 0.0, 0.25) == 0.75
    assert svg.greatest_rate(1.0, 3.0, 0.0) == 1.0


def test_roc_by_hand() -> None:
    drawn = svg.roc_bound([(0.001, 0.01, "low"), (0.01, 0.1, "high")], math.log(10), 0.0)
    assert [tick.label.replace("\u00a0", " ") for tick in drawn.ticks_x] == [
        "0.1 %",
        "1 %",
        "10 %",
        "100 %",
    ]
    assert drawn.guess == "40,280 300,20"
    # A decade is 260 / 3 wide; ten times the rate of guessing is one decade above its line.
    assert [(p.x, p.y, p.label) for p in drawn.points] == [
        (40.0, 193.3, "low"),
        (126.7, 106.7, "high"),
    ]
    assert drawn.bound.startswith("40,193.3 ")
    assert drawn.bound.endswith(" 300,20")


@pytest.mark.parametrize("fpr", [0.0, 1e-12, 0.5, 1.0])
def test_roc_takes_any_rate(fpr: float) -> None:
    drawn = svg.roc_bound([(fpr, 1.0, "")], 1.0, 1e-6)
    assert all(40 <= p.x <= 300 and 20 <= p.y <= 280 for p in drawn.points)
    assert svg.roc_bound([], 1.0, 1e-6).points == ()
