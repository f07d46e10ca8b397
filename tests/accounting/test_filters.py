"""Filters: whole budgets are usable, costs are what the theorems say, nothing is granted beyond."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy.stats import norm

from dpsynth_accounting import (
    ADDITIVE,
    ApproxDP,
    Budget,
    BudgetExceeded,
    Charge,
    Concentrated,
    DiscreteGaussian,
    DiscreteLaplace,
    Division,
    Event,
    Exponential,
    Filter,
    Gaussian,
    GaussianBlock,
    InvalidRequest,
    Laplace,
    Parallel,
    Repeat,
    Sequence,
    SubsampledGaussian,
    calibrate,
    choice_within,
    curve,
    rational_up,
)
from dpsynth_accounting._bounds import gaussian_delta, pure_mu
from dpsynth_accounting.renyi import rdp, rho

BUDGET = Budget(2, 1e-6)
NAMES = ["additive", "gdp", "zcdp", "rdp-24"]


def noisy(precision: float) -> Event:
    """Return twenty Gaussian answers of a total squared precision."""
    return Repeat(DiscreteGaussian(rational_up(20 / precision)), 20)


@pytest.mark.parametrize("name", ["", "pld", "rdp", "rdp-1", "rdp-02", "rdp-2.5", "GDP", "rdp--4"])
def test_a_filter_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="There are additive"):
        Filter(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", [BUDGET, Budget("0.7654321", "1e-9"), Budget(10, 1e-5)])
def test_a_fresh_account_offers_its_whole_budget_and_a_plan_can_take_it(
    name: str, budget: Budget
) -> None:
    by = Filter(name)
    capacity = by.capacity(budget)
    assert by.epsilon(capacity, budget.delta) == budget.epsilon
    event = calibrate(noisy, budget.epsilon, budget.delta, filter=by, budget=budget)
    charge = by.charge(event, budget.epsilon, budget.delta, budget)
    assert charge.fits(capacity)
    if by == ADDITIVE:
        assert curve(event).epsilon(budget.delta) > 0.999 * float(budget.epsilon)
    else:
        assert charge.cost > Fraction(999, 1000) * capacity.cost


@pytest.mark.parametrize("name", NAMES[1:])
def test_what_the_filter_grants_is_within_the_budget_by_the_exact_price(name: str) -> None:
    """All the capacity as one plan: its own curve is below the budget the filter converts to."""
    by = Filter(name)
    event = calibrate(noisy, 2, 1e-6, filter=by, budget=BUDGET)
    assert curve(event).epsilon(1e-6) <= 2


def test_twenty_gaussian_plans_fit_where_each_takes_a_twentieth() -> None:
    by = Filter("gdp")
    capacity = by.capacity(BUDGET)
    sigma = Fraction(math.isqrt(math.ceil(20 / capacity.cost * 10**12)) + 1, 10**6)
    one = by.cost(Gaussian(sigma), BUDGET)
    assert Charge(one.cost * 20, one.delta * 20).fits(capacity)
    assert not Charge(one.cost * 21, one.delta * 21).fits(capacity)
    assert curve(Repeat(Gaussian(sigma), 20)).epsilon(0.75e-6) == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("gdp", SubsampledGaussian(Fraction(1, 100), Fraction(1), 10)),
        ("zcdp", SubsampledGaussian(Fraction(1, 100), Fraction(1), 10)),
        ("gdp", Concentrated(Fraction(1, 100))),
        ("gdp", DiscreteGaussian(Fraction(2))),
        ("gdp", Parallel((Gaussian(Fraction(9)), Concentrated(Fraction(1, 100))))),
    ],
)
def test_an_event_without_a_finite_cost_is_refused_by_name(name: str, event: Event) -> None:
    with pytest.raises(InvalidRequest, match="no finite cost") as refused:
        Filter(name).cost(event, BUDGET)
    assert not refused.value.touched


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_below_the_price_is_refused(name: str) -> None:
    event = Gaussian(Fraction(3))
    price = curve(event).epsilon(1e-6)
    with pytest.raises(InvalidRequest, match="It costs epsilon"):
        Filter(name).charge(event, Fraction(price) * Fraction(9, 10), Fraction(1, 10**6), BUDGET)


# -- domination by a Gaussian: against trade-off curves computed here ------------------------------


def mu_of(event: Event) -> float:
    return math.sqrt(Filter("gdp").cost(event, BUDGET).cost)


@pytest.mark.parametrize("epsilon", [1e-4, 0.01, 0.3, 1.0, 4.0, 12.0])
def test_a_gaussian_dominates_a_choice_at_every_offset(epsilon: float) -> None:
    """And one with a thousandth less mu does not, so the bound is tight."""
    mu = mu_of(Exponential(Fraction(str(epsilon))))
    y = np.exp(np.linspace(0, epsilon, 2001)[1:-1])
    alpha = (math.exp(epsilon) / y - 1) / math.expm1(epsilon)
    beta = (y - 1) / math.expm1(epsilon)
    needed = -norm.ppf(alpha) - norm.ppf(beta)
    assert needed.max() <= mu * (1 + 1e-9)
    assert needed.max() > mu * 0.999


@pytest.mark.parametrize("epsilon", [1e-4, 0.01, 0.3, 1.0, 4.0, 12.0])
@pytest.mark.parametrize("kind", [Laplace, DiscreteLaplace, ApproxDP])
def test_a_gaussian_dominates_pure_privacy(epsilon: float, kind: type[Event]) -> None:
    exact = Fraction(str(epsilon))
    event = ApproxDP(exact, Fraction(0)) if kind is ApproxDP else kind(1 / exact)  # type: ignore[call-arg]
    corner = 1 / (1 + math.exp(epsilon))
    assert norm.cdf(norm.ppf(1 - corner) - mu_of(event)) <= corner
    assert norm.cdf(norm.ppf(1 - corner) - 0.999 * mu_of(event)) > corner


# -- division inside a block -----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(20, 4000), st.integers(1, 9), st.integers(1, 4)), max_size=60)
)
def test_a_division_never_gives_more_than_the_block_was_priced_for(
    asked: list[tuple[int, int, int]],
) -> None:
    block = GaussianBlock(Fraction(1, 10), Fraction(50), 40)
    division = Division(block)
    given_: list[Event] = []
    for sigma2, l2, shifts in asked:
        answer = DiscreteGaussian(Fraction(sigma2), max(l2, shifts), shifts)
        try:
            division.take(answer)
        except (BudgetExceeded, InvalidRequest):
            continue
        given_.append(answer)
    precision = sum(
        (a.l2_squared / (a.sigma2 - Fraction(3, 2)) for a in given_),
        Fraction(0),  # type: ignore[union-attr]
    )
    assert precision <= block.precision
    assert block.precision - precision == division.left
    if given_:
        assert curve(Sequence(tuple(given_))).epsilon(1e-6) <= curve(block).epsilon(1e-6)


def test_a_division_refuses_without_taking() -> None:
    division = Division(GaussianBlock(Fraction(1, 100), Fraction(100), 1))
    with pytest.raises(InvalidRequest, match="was priced for"):
        division.take(DiscreteGaussian(Fraction(99)))
    with pytest.raises(BudgetExceeded, match="precision"):
        division.take(DiscreteGaussian(Fraction(199), 2, 1))
    assert division.left == Fraction(1, 100)
    division.take(DiscreteGaussian(Fraction(200), 1, 1))
    with pytest.raises(BudgetExceeded, match="0 shift"):
        division.take(DiscreteGaussian(Fraction(200), 1, 1))
    assert division.left == Fraction(1, 100) - 1 / Fraction(397, 2)


@pytest.mark.parametrize("epsilon", ["1/1000000", "1/100", "1", "7", "60", "2000"])
def test_a_choice_takes_the_squared_mu_that_dominates_it(epsilon: str) -> None:
    """Written down apart: Phi(mu / 2) is 1 / (1 + exp(-epsilon / 2)); Chernoff's bound beyond."""
    wanted = Exponential(Fraction(epsilon))
    division = Division(GaussianBlock(Fraction(10**5), Fraction(4), 1))
    division.take(wanted)
    cost = division.block.precision - division.left
    half = float(wanted.epsilon) / 2
    if half < 700:
        odds = special.log_ndtr(math.sqrt(cost) / 2) - special.log_ndtr(-math.sqrt(cost) / 2)
        assert odds == pytest.approx(half, rel=1e-6 if half > 1e-3 else 1e-2)
    else:
        assert cost == pytest.approx(8 * half)
    assert division.shifts_left == 1
    # What a choice may be for a cost: no more than fits, and hardly less.
    found = choice_within(cost)
    assert float(found.epsilon) == pytest.approx(float(wanted.epsilon), rel=1e-7, abs=1e-10)
    Division(GaussianBlock(cost, Fraction(4), 1)).take(found)


def test_a_choice_that_takes_too_much_is_refused() -> None:
    division = Division(GaussianBlock(Fraction(1, 100), Fraction(100), 1))
    with pytest.raises(BudgetExceeded, match="precision"):
        division.take(Exponential(Fraction(1, 3)))
    assert division.left == Fraction(1, 100)
    division.take(Exponential(Fraction(1, 8)))
    with pytest.raises(BudgetExceeded):
        division.take(choice_within(division.left * Fraction(1001, 1000)))
    division.take(choice_within(division.left))
    assert 0 <= division.left < Fraction(1, 10**9)


@pytest.mark.parametrize("cost", [Fraction(0), Fraction(-1), Fraction(1, 10**60)])
def test_a_blind_choice_is_refused(cost: Fraction) -> None:
    with pytest.raises(InvalidRequest, match="blind"):
        choice_within(cost)


@pytest.mark.parametrize("choices", [1, 5, 60])
@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-3, 0.1])
def test_a_block_costs_no_less_than_the_choices_it_holds(choices: int, delta: float) -> None:
    block = GaussianBlock(Fraction(1, 4), Fraction(4), 1)
    each = choice_within(block.precision / choices)
    assert curve(Repeat(each, choices)).epsilon(delta) <= curve(block).epsilon(delta)


def test_a_choice_that_took_a_little_less_would_break_the_price_of_its_block() -> None:
    """At epsilon 0 a choice, at worst of two candidates, comes as far as the Gaussian does."""
    choice = choice_within(Fraction(1, 4))
    worst = math.tanh(float(choice.epsilon) / 4)  # total variation of odds of exp(+-epsilon / 2)
    assert worst <= gaussian_delta(math.sqrt(1 / 4), 0) < worst * (1 + 1e-6)
    assert worst > gaussian_delta(math.sqrt(1 / 4 - 1e-5), 0)


@pytest.mark.parametrize("name", ["gdp", "zcdp", "rdp-16"])
@pytest.mark.parametrize(
    ("whole", "fraction"),
    [
        (Gaussian(7, 3), Gaussian(Fraction(7), Fraction(3))),  # type: ignore[arg-type]
        (Laplace(3), Laplace(Fraction(3))),  # type: ignore[arg-type]
        (DiscreteGaussian(7), DiscreteGaussian(Fraction(7))),  # type: ignore[arg-type]
    ],
)
def test_whole_numbers_cost_exactly_what_fractions_do(
    name: str, whole: Event, fraction: Event
) -> None:
    """An int divided by an int is a float: it would be rounded, and down as often as up."""
    budget = Budget(1, Fraction(1, 10**6))
    assert Filter(name).cost(whole, budget) == Filter(name).cost(fraction, budget)
    assert rho(whole) == rho(fraction)


@pytest.mark.parametrize("epsilon", [1e-17, 1e-15, 1e-9, 1e-3, 0.5, 1.0, 5.0, 30.0, 699.0, 1e4])
def test_the_gaussian_of_a_pure_epsilon_is_rounded_up_at_every_size(epsilon: float) -> None:
    with mpmath.workdps(700):
        wanted = 1 / (1 + mpmath.exp(epsilon))
        mu = mpmath.mpf(pure_mu(epsilon))
        assert mpmath.ncdf(-mu / 2) <= wanted  # more distance than needed, so a smaller tail
        assert mu < min(mpmath.sqrt(mpmath.pi / 2) * epsilon, mpmath.sqrt(8 * epsilon)) * 1.01


@pytest.mark.parametrize("scale", [10, 10**6, 10**9, 10**12])
@pytest.mark.parametrize("order", [2, 16, 64])
def test_a_divergence_near_nothing_is_not_rounded_to_nothing(scale: int, order: int) -> None:
    with mpmath.workdps(60):
        x, a = mpmath.mpf(1) / scale, mpmath.mpf(order)
        laplace = a * mpmath.exp((a - 1) * x) + (a - 1) * mpmath.exp(-a * x)
        exact = mpmath.log(laplace / (2 * a - 1)) / (a - 1)
        assert rdp(Laplace(Fraction(scale)), order) >= exact * (1 - mpmath.mpf("1e-12"))
        found = rdp(SubsampledGaussian(Fraction(1, scale), Fraction(2), 1), order)
        terms = (
            mpmath.binomial(order, k) * x**k * (1 - x) ** (a - k) * mpmath.exp(k * (k - 1) / 8)
            for k in map(mpmath.mpf, range(order + 1))
        )
        assert found >= mpmath.log(mpmath.fsum(terms)) / (a - 1) * (1 - mpmath.mpf("1e-12"))
