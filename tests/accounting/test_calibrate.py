from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpsynth_accounting import (
    ApproxDP,
    DiscreteGaussian,
    Event,
    Exponential,
    Gaussian,
    InvalidRequest,
    Repeat,
    Sequence,
    calibrate,
    curve,
    rational_down,
    rational_up,
    zcdp_to_approx_dp,
)
from dpsynth_accounting.calibrate import _root


def marginals(count: int, k: int = 1) -> Callable[[float], Event]:
    return lambda scale: Repeat(
        DiscreteGaussian(rational_up(k * k * count / scale), k * k, k), count
    )


def with_selection(rounds: int) -> Callable[[float], Event]:
    return lambda scale: Sequence(
        (
            marginals(rounds)(0.9 * scale),
            Repeat(Exponential(rational_down(2 * math.sqrt(0.1 * scale / rounds))), rounds),
            ApproxDP(Fraction(0), Fraction(1, 10**12)),
        )
    )


PLANS = {
    "one": marginals(1),
    "many": marginals(30),
    "people": marginals(4, k=3),
    "selection": with_selection(8),
    "continuous": lambda scale: Gaussian(rational_up(scale**-0.5)),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-9), (1.0, 1e-6), (8.0, 1e-5)])
def test_a_plan_is_within_its_budget_and_uses_it(name: str, epsilon: float, delta: float) -> None:
    event = calibrate(PLANS[name], epsilon, delta)
    price = curve(event).epsilon(delta)
    assert 0.995 * epsilon <= price <= epsilon


def test_a_delta_of_no_worth_is_still_never_overspent() -> None:
    event = calibrate(marginals(2), 0.5, 0.05)
    assert curve(event).epsilon(0.05) <= 0.5


def test_a_fixed_part_that_only_the_dear_bound_allows_leaves_the_rest_to_the_noise() -> None:
    """By zCDP alone the selection would exceed the budget and the plan be refused."""

    def plan(scale: float) -> Event:
        return Sequence((Exponential(Fraction(1)), Gaussian(rational_up(scale**-0.5))))

    assert zcdp_to_approx_dp(1 / 8, 1e-6) > 1.05
    event = calibrate(plan, 1.05, 1e-6)
    assert 1.04 <= curve(event).epsilon(1e-6) <= 1.05


@pytest.mark.parametrize(
    "fixed",
    [
        ApproxDP(Fraction(2), Fraction(0)),
        ApproxDP(Fraction(0), Fraction(1, 10**3)),
        Gaussian(Fraction(1, 100)),
    ],
)
def test_a_fixed_part_beyond_the_budget_is_refused(fixed: Event) -> None:
    with pytest.raises(InvalidRequest) as refused:
        calibrate(lambda s: Sequence((fixed, Gaussian(rational_up(s**-0.5)))), 1.0, 1e-6)
    assert not refused.value.touched


def test_a_plan_that_costs_nothing_is_found() -> None:
    free = ApproxDP(Fraction(1, 2), Fraction(0))
    assert calibrate(lambda _: free, 1.0, 1e-6) == free


@given(st.floats(1e-3, 1e6))
def test_rationals_bracket_the_float(value: float) -> None:
    assert rational_up(value) >= Fraction(str(value))
    assert rational_up(value) - Fraction(str(value)) < Fraction(1, 4096)
    assert rational_down(value) <= Fraction(value)
    assert Fraction(value) - rational_down(value) < Fraction(1, 1 << 20)


def test_a_rational_is_never_rounded_down_to_nothing() -> None:
    assert rational_down(1e-30, 8) == Fraction(1, 8)


@pytest.mark.parametrize("limit", [0.1, 0.7, 1.0, 3.3, 17.9])
def test_a_search_returns_a_scale_that_it_has_tried(limit: float) -> None:
    """exp(log(x)) is not always x, and a plan may jump anywhere."""
    tried = []

    def excess(scale: float) -> float:
        tried.append(scale)
        return 1.0 if scale > limit else 0.0

    for start in (limit, 0.3 * limit, 3 * limit):
        found = _root(excess, start, 1e-3)
        assert found in tried
        assert found <= limit
