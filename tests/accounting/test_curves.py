from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from dpsynth_accounting import (
    ApproxDP,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Exponential,
    Gaussian,
    InvalidRequest,
    Laplace,
    Repeat,
    Sequence,
    _bounds,
    curve,
    curves,
)
from tests.accounting.lattice import Losses, composed, moved, shifts_of_l1, shifts_within

RELATIVE = 1 + 1e-7  # brute force sums ten thousand floats
ABSOLUTE = 1e-13


def worst_excess(exact: Losses, event: Event, epsilons: np.ndarray[Any, Any]) -> float:
    """Return the greatest amount by which the exact divergence exceeds the certified bound."""
    price = curve(event, accuracy=1e-2)
    found = [(exact.delta(float(e)), price.delta(float(e))) for e in epsilons]
    return max(delta - bound * RELATIVE - ABSOLUTE for delta, bound in found)


def closed_form(event: Event, delta: float) -> float:
    """Return the least epsilon of the bounds that need no grid."""
    kinds = _bounds.GaussianBound, _bounds.ConcentratedBound
    return min(b.epsilon(delta) for _, b in curve(event).bounds if isinstance(b, kinds))


def grid(exact: Losses) -> np.ndarray[Any, Any]:
    """Return epsilons from 0 to where delta is 1e-12, where an attacker still has anything."""
    top = 0.5
    while exact.delta(top) > 1e-12:
        top *= 1.3
    return np.linspace(0.0, top, 30)


# -- exact closed forms ----------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [0.05, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 5.0])
def test_a_gaussian_costs_its_closed_form(mu: float, epsilon: float) -> None:
    event = Gaussian(Fraction(1), Fraction(str(mu)))
    exact = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    found = curve(event).delta(epsilon)
    assert exact <= found <= exact * (1 + 1e-4) + 1e-15


@pytest.mark.parametrize("mu", [1e-17, 1e-12, 1e-9, 1e-6, 1e-3, 0.3])
@pytest.mark.parametrize("multiple", [0.0, 1.0, 3.0, 6.0])
def test_a_faint_gaussian_is_not_below_its_closed_form(mu: float, multiple: float) -> None:
    """There delta is a difference of two numbers that are nearly the same."""
    epsilon = multiple * mu
    with mpmath.workdps(60):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        exact = mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)
        assert _bounds.gaussian_delta(mu, epsilon) >= exact
        assert _bounds.gaussian_deltas(mu)(np.array([epsilon]))[0] >= exact
        assert _bounds.gaussian_delta(mu, epsilon) <= exact * (1 + 1e-9) + 1e-14


def test_gaussians_add_their_squares() -> None:
    nine = curve(Repeat(Gaussian(Fraction(6)), 9))
    one = curve(Gaussian(Fraction(2)))
    assert nine.epsilon(1e-6) == pytest.approx(one.epsilon(1e-6), rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("delta", [1e-2, 1e-4, 1e-6])
def test_one_selection_costs_its_closed_form(epsilon: float, delta: float) -> None:
    odds = math.exp(epsilon)
    exact = 2 * math.log(math.sqrt(odds) - math.sqrt(delta * (odds - 1)))
    found = curve(Exponential(Fraction(str(epsilon)))).epsilon(delta)
    assert exact <= found <= exact * 1.001 + 1e-4


def test_declared_parts_add_up_exactly() -> None:
    twentieth = ApproxDP(Fraction(1, 20), Fraction(1, 20 * 10**6))
    price = curve(Repeat(twentieth, 20))
    assert price.epsilon(Fraction(1, 10**6)) == 1.0
    assert price.epsilon(1e-6) == 1.0
    assert price.epsilon(9.99e-7) == math.inf
    assert 1e-6 < price.delta(0.999) < 1.1e-3
    assert price.delta(1) == 1e-6


def test_declared_parts_are_added_to_the_rest() -> None:
    noise = Gaussian(Fraction(3))
    both = Sequence((noise, ApproxDP(Fraction(1, 2), Fraction(1, 10**6))))
    summed = 0.5 + curve(noise).epsilon(1e-6)
    assert curve(noise).epsilon(1e-6) < curve(both).epsilon(2e-6) < summed
    assert curve(both).epsilon(1e-6) == math.inf
    assert curve(both).delta(0.4) > curve(noise).delta(0.4)


def test_declared_parts_compose_no_worse_than_they_add_up() -> None:
    """Fifty pure answers: Kairouz, Oh and Viswanath's composition, far below the sum."""
    part = ApproxDP(Fraction(1, 10), Fraction(1, 10**8))
    price = curve(Repeat(part, 50)).epsilon(1e-6)
    assert 2.7 < price < 3.7  # 5 by the sum


@pytest.mark.parametrize(
    ("event", "delta", "most"),
    [
        (Repeat(Laplace(Fraction(1)), 2), 1e-12, 2.0),
        (Repeat(Laplace(Fraction(10)), 3), 1e-15, 0.3),
        (Sequence((Exponential(Fraction(1, 10_000)), Exponential(Fraction(10)))), 1e-6, 10.0001),
        (Sequence((Laplace(Fraction(2)), Exponential(Fraction(1)))), 0, 1.5),
        (Sequence((DiscreteLaplace(Fraction(2), 3), ApproxDP(Fraction(1, 2), Fraction(0)))), 0, 2),
    ],
)
def test_pure_epsilons_never_cost_more_than_their_sum(
    event: Event, delta: float, most: float
) -> None:
    found = curve(event).epsilon(delta)
    assert found <= most
    if delta == 0:
        assert found == most


def test_nothing_costs_nothing() -> None:
    assert curve(Sequence(())).epsilon(1e-6) == 0.0
    assert curve(Sequence(())).delta(0.0) == 0.0


@pytest.mark.parametrize(
    "event",
    [
        Gaussian(Fraction(1, 10**200)),
        Gaussian(Fraction(1, 10**400)),
        DiscreteGaussian(Fraction(1, 10**9)),
        DiscreteGaussian(Fraction(1, 10**9), 9, 3),
        Exponential(Fraction(10**9)),
        Exponential(Fraction(10**400)),
        Repeat(DiscreteGaussian(Fraction(100)), 10**30),
    ],
)
def test_a_hopeless_plan_is_priced_at_infinity_at_once(event: Event) -> None:
    price = curve(event)
    assert price.epsilon(1e-6) == math.inf
    assert price.delta(10.0) == 1.0
    assert price.true_positive_rate(0.01) == 1.0


@pytest.mark.parametrize("shift", [10, 17, 20, 24])
@pytest.mark.parametrize("sigma2", ["1/2", "1", "3"])
def test_a_shift_far_beyond_the_noise_is_priced_above_its_mean_loss(
    shift: int, sigma2: str
) -> None:
    """There the other law's masses are below the least float."""
    event = DiscreteGaussian(Fraction(sigma2), shift * shift, 1)
    assert curve(event).epsilon(1e-6) > shift * shift / (2 * float(Fraction(sigma2)))
    assert curve(event).delta(shift * shift / (8 * float(Fraction(sigma2)))) > 0.9


@pytest.mark.parametrize("event", [Gaussian(Fraction(10**300)), Gaussian(Fraction(10**150))])
def test_a_plan_of_almost_no_signal_costs_almost_nothing(event: Event) -> None:
    assert curve(event).epsilon(1e-9) <= 1e-9
    assert curve(event).delta(0.0) <= 1e-8


# -- discrete Gaussians against brute force --------------------------------------------------------


@pytest.mark.parametrize("sigma2", ["0.4", "1", "2.5", "3.5", "6", "20"])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("times", [1, 3])
def test_no_change_of_k_rows_exceeds_the_bound(sigma2: str, k: int, times: int) -> None:
    """A person of k rows moves a marginal by any integer vector of L1 norm up to k."""
    event = Repeat(DiscreteGaussian(Fraction(sigma2), k * k, k), times)
    for shift in shifts_of_l1(k):
        exact = moved(float(sigma2), shift, times)
        assert worst_excess(exact, event, grid(exact)) <= 0, shift


@pytest.mark.parametrize("sigma2", ["0.3", "1", "3.5", "10"])
@pytest.mark.parametrize(
    ("l2_squared", "shifts"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (4, 1), (9, 1), (5, 2)]
)
def test_no_shift_the_event_allows_exceeds_the_bound(
    sigma2: str, l2_squared: int, shifts: int
) -> None:
    """In particular (2, 0, 0, 0) where squared norm and support are both 4."""
    event = DiscreteGaussian(Fraction(sigma2), l2_squared, shifts)
    for shift in shifts_within(l2_squared, shifts):
        exact = moved(float(sigma2), shift)
        assert worst_excess(exact, event, grid(exact)) <= 0, shift


@pytest.mark.parametrize("sigma2", ["1", "3.5", "20"])
def test_the_brute_force_flags_a_noise_too_small(sigma2: str) -> None:
    """A mechanism that draws with 5 % less variance than it claims is caught."""
    event = Repeat(DiscreteGaussian(Fraction(sigma2), 1, 1), 3)
    exact = moved(float(sigma2) * 0.95, (1,), 3)
    slack = 0.5 if float(sigma2) > 1 else 1.0
    assert worst_excess(exact, event, slack * grid(exact)) > 0


def test_four_unit_shifts_do_not_stand_for_one_of_two() -> None:
    """Why the lattice is not used from a squared norm of 4 on: neither shift dominates."""
    two, ones = moved(1.0, (2,)), moved(1.0, (1, 1, 1, 1))
    differences = [two.delta(e) - ones.delta(e) for e in np.linspace(0.0, 11.0, 200)]
    assert max(differences) > 1e-7
    assert min(differences) < -1e-7


@pytest.mark.parametrize("sigma2", [0.3, 1.0, 4.0])
def test_a_greater_shift_of_one_coordinate_dominates_a_lesser(sigma2: float) -> None:
    for small, great in ((1, 2), (2, 3)):
        lesser, greater = moved(sigma2, (small,)), moved(sigma2, (great,))
        for epsilon in np.linspace(0.0, 6.0 / sigma2, 200):
            assert lesser.delta(epsilon) <= greater.delta(epsilon) * RELATIVE + ABSOLUTE


def test_the_lattice_is_tight_where_it_is_used() -> None:
    event = Repeat(DiscreteGaussian(Fraction(4)), 5)
    exact = moved(4.0, (1,), 5)
    for epsilon in (0.5, 2.0, 4.0):
        assert curve(event).delta(epsilon) <= exact.delta(epsilon) * 1.001 + 2e-12


@pytest.mark.parametrize("smoothing", [0.15, 0.22, 0.3])
def test_the_smoothing_lemma_where_its_factor_can_be_seen(smoothing: float) -> None:
    """N_Z(c, sigma2) over its smoothed twin, at smoothings coarse enough for double precision."""
    sigma2 = 3.0
    eta = 2 * sum(math.exp(-2 * math.pi**2 * smoothing * n * n) for n in range(1, 8))
    z = np.arange(-40, 41)
    y = np.linspace(-30.0, 30.0, 60_001)
    weights = np.exp(-((z[:, None] - y[None, :]) ** 2) / (2 * smoothing))
    rounding = weights / weights.sum(axis=0)
    density = np.exp(-(y**2) / (2 * (sigma2 - smoothing)))
    twin = rounding @ (density / density.sum())
    lattice = np.exp(-(z**2) / (2 * sigma2))
    lattice /= lattice.sum()
    inner = np.abs(z) < 8
    ratio = lattice[inner] / twin[inner]
    assert ratio.max() - ratio.min() > 1e-5
    assert ratio.max() / ratio.min() <= (1 + eta) / (1 - eta) * (1 + 1e-9)


def test_the_slack_per_shift_is_that_of_the_lemma() -> None:
    eta = 2 * math.exp(-2 * math.pi**2 * curves.SMOOTHING)
    assert pytest.approx(2 * eta, rel=1e-9) == curves.PER_SHIFT
    assert curves.PER_SHIFT < 1e-12


# -- many losses: rounding grows with their number -------------------------------------------------


@pytest.mark.parametrize(
    ("count", "delta"), [(10**6, 1e-8), (10**6, 1e-9), (10**6, 1e-10), (10**7, 1e-8)]
)
def test_a_million_randomised_responses_are_not_below_their_binomial(
    count: int, delta: float
) -> None:
    """A power of a transform multiplies its rounding error by the number of losses."""
    each = Fraction(1, round(math.sqrt(count)))
    found = curve(Repeat(ApproxDP(each, Fraction(0)), count)).epsilon(delta)
    assert binomial_delta(count, float(each), found) <= delta
    assert found < 9


def binomial_delta(count: int, each: float, epsilon: float) -> float:
    """Return delta of so many randomised responses, from the regularised beta function."""
    # Loss each * (2 k - count) for k true answers: delta = P(k >= least) - e^epsilon Q(k >= least).
    least = math.floor((epsilon / each + count) / 2) + 1
    true = 1 / (1 + math.exp(-each))
    log_odds = math.log(true) - math.log1p(-true)
    k = np.arange(least, min(count, least + 40 * math.isqrt(count)) + 1, dtype=np.float64)
    # From the mode outwards every mass is the last times a ratio, so no factorial is rounded.
    first = binom.logpmf(least, count, true)
    steps = np.log((count - k[:-1]) / (k[:-1] + 1)) + log_odds
    masses = np.exp(first + np.concatenate([[0.0], np.cumsum(steps)]))
    return float((masses * -np.expm1(epsilon - each * (2 * k - count))).sum())


# -- bounded range against brute force -------------------------------------------------------------


def ratio_pairs(
    rng: np.random.Generator, epsilon: float, outcomes: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return two distributions whose log ratio has a range of at most ``epsilon``."""
    base = rng.dirichlet(np.full(outcomes, 0.3)) + 1e-12
    base /= base.sum()
    tilt = rng.choice([0.0, 1.0, rng.random()], size=outcomes) * epsilon
    other = base * np.exp(tilt)
    return other / other.sum(), base


def hockey_stick(p: np.ndarray[Any, Any], q: np.ndarray[Any, Any], epsilon: float) -> float:
    return float(np.maximum(p - math.exp(epsilon) * q, 0.0).sum())


@pytest.mark.parametrize("epsilon", ["0.2", "1", "3"])
@pytest.mark.parametrize("times", [1, 2, 4])
def test_no_mechanism_of_bounded_range_exceeds_the_bound(epsilon: str, times: int) -> None:
    price = curve(Repeat(Exponential(Fraction(epsilon)), times), accuracy=1e-2)
    rng = np.random.default_rng(times)
    at = np.linspace(0.0, float(epsilon) * times, 12)
    bounds = [price.delta(float(e)) for e in at]
    for _ in range(150):
        p, q = np.ones(1), np.ones(1)
        for _ in range(times):
            one, other = ratio_pairs(rng, float(epsilon), int(rng.integers(2, 6)))
            p, q = np.outer(p, one).ravel(), np.outer(q, other).ravel()
        for e, bound in zip(at, bounds, strict=True):
            assert hockey_stick(p, q, e) <= bound * RELATIVE + ABSOLUTE
            assert hockey_stick(q, p, e) <= bound * RELATIVE + ABSOLUTE


def two_point(epsilon: float, offset: float) -> tuple[list[float], list[float]]:
    """Return the extreme mechanism whose losses are ``offset`` and ``offset - epsilon``."""
    first = math.expm1(epsilon - offset) / math.expm1(epsilon) * math.exp(offset)
    return [first, 1 - first], [
        first * math.exp(-offset),
        (1 - first) * math.exp(epsilon - offset),
    ]


def test_no_adaptive_adversary_of_two_rounds_exceeds_the_bound() -> None:
    """The second offset may depend on the first answer: every pair of a grid is tried."""
    epsilon, at = 1.0, 0.7
    bound = curve(Repeat(Exponential(Fraction(1)), 2)).delta(at)
    offsets = np.linspace(0.02, 0.98, 25)
    best = 0.0
    for first in offsets:
        p1, q1 = two_point(epsilon, first)
        gain = 0.0
        for branch in (0, 1):
            gain += max(
                sum(
                    max(p1[branch] * p - math.exp(at) * q1[branch] * q, 0.0)
                    for p, q in zip(*two_point(epsilon, second), strict=True)
                )
                for second in offsets
            )
        best = max(best, gain)
    assert 0.5 * bound < best <= bound


def test_the_brute_force_flags_a_selection_of_twice_the_range() -> None:
    price = curve(Exponential(Fraction(1)))
    p, q = two_point(2.0, 1.0)
    assert hockey_stick(np.array(p), np.array(q), 0.5) > price.delta(0.5)


def test_a_selection_beside_small_and_smoothed_noise_stays_above_brute_force() -> None:
    """All three kinds of privacy loss in one plan: a selection, a lattice, a smoothed vector."""
    event = Sequence(
        (
            Exponential(Fraction(1, 2)),
            DiscreteGaussian(Fraction(4)),
            DiscreteGaussian(Fraction(8), 4, 2),
        )
    )
    price = curve(event, accuracy=1e-2)
    lattice = composed([moved(4.0, (1,))])
    for shift in shifts_within(4, 2):
        vector = moved(8.0, shift)
        for offset, epsilon in product((0.1, 0.25, 0.4), (0.0, 0.3, 1.0, 2.5)):
            p, q = two_point(0.5, offset)
            exact = sum(
                mass * part * vector.delta(epsilon - loss - math.log(p[i] / q[i]))
                for i, part in enumerate(p)
                for mass, loss in zip(
                    lattice.mass,
                    (np.arange(len(lattice.mass)) + lattice.first) / 8.0,
                    strict=True,
                )
                if mass > 1e-18
            )
            assert exact <= price.delta(epsilon) * RELATIVE + ABSOLUTE


# -- properties ------------------------------------------------------------------------------------

scales = st.fractions(Fraction(1, 2), 400, max_denominator=64)
small_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Gaussian, st.fractions(1, 50, max_denominator=64)),
    st.builds(DiscreteGaussian, scales),
    st.builds(lambda s, k: DiscreteGaussian(s, k * k, k), scales, st.integers(1, 4)),
    st.builds(Exponential, st.fractions(Fraction(1, 8), 2, max_denominator=64)),
)
deltas = st.floats(1e-10, 1e-2)


@settings(max_examples=40, deadline=None)
@given(small_events, st.integers(1, 5), deltas, deltas)
def test_epsilon_falls_with_delta_and_rises_with_repetition(
    event: Event, times: int, one: float, other: float
) -> None:
    price = curve(Repeat(event, times), accuracy=1e-2)
    low, high = sorted((one, other))
    assert price.epsilon(high) <= price.epsilon(low)
    again = curve(Repeat(event, times + 1), accuracy=1e-2)
    assert price.epsilon(low) <= again.epsilon(low) * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(small_events, deltas)
def test_delta_at_the_certified_epsilon_is_within_delta(event: Event, delta: float) -> None:
    price = curve(event, accuracy=1e-2)
    assert price.delta(price.epsilon(delta)) <= delta * (1 + 1e-6)


@settings(max_examples=40, deadline=None)
@given(small_events, st.floats(0.0, 5.0), st.floats(0.0, 5.0))
def test_delta_falls_with_epsilon(event: Event, one: float, other: float) -> None:
    price = curve(event, accuracy=1e-2)
    low, high = sorted((one, other))
    assert price.delta(high) <= price.delta(low) * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(scales, st.fractions(1, 4, max_denominator=8), deltas)
def test_more_noise_never_costs_more_by_the_closed_forms(
    sigma2: Fraction, times: Fraction, delta: float
) -> None:
    for k in (1, 2):
        less = closed_form(DiscreteGaussian(sigma2, k * k, k), delta)
        more = closed_form(DiscreteGaussian(sigma2 * times, k * k, k), delta)
        assert more <= less * (1 + 1e-9)


def test_on_a_coarse_lattice_more_noise_can_cost_more() -> None:
    """Losses lie 1 / sigma2 apart, so epsilon jumps: exactly so, not by a loose bound."""
    delta = 6.6e-4
    less, more = (
        curve(DiscreteGaussian(s)).epsilon(delta) for s in (Fraction(5, 7), Fraction(25, 28))
    )
    assert less + 0.1 < more
    assert moved(5 / 7, (1,)).delta(less) == pytest.approx(delta, rel=2e-3)
    assert moved(25 / 28, (1,)).delta(more) == pytest.approx(delta, rel=2e-3)


@settings(max_examples=25, deadline=None)
@given(small_events, deltas)
def test_the_cheap_price_is_never_below_the_dear_one(event: Event, delta: float) -> None:
    assert curve(event, accuracy=1e-2).epsilon(delta) <= closed_form(event, delta)


@pytest.mark.parametrize("delta", [float("nan"), float("inf"), "much"])
def test_a_delta_that_is_no_number_is_refused(delta: Any) -> None:
    with pytest.raises(InvalidRequest):
        curve(Gaussian(Fraction(1))).epsilon(delta)


# -- the attacker's rate ---------------------------------------------------------------------------


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("rate", [0.0, 0.001, 0.01, 0.3, 0.9, 1.0])
def test_the_attackers_rate_of_a_gaussian(mu: float, rate: float) -> None:
    exact = norm.cdf(norm.ppf(rate) + mu)
    found = curve(Gaussian(Fraction(1), Fraction(str(mu)))).true_positive_rate(rate)
    assert exact * (1 - 1e-12) <= found <= exact * 1.01 + 1e-9


def test_no_test_on_a_lattice_beats_the_attackers_rate() -> None:
    """Every threshold test on five discrete Gaussians, by exact convolution."""
    price = curve(Repeat(DiscreteGaussian(Fraction(2)), 5), accuracy=1e-2)
    exact = moved(2.0, (1,), 5)
    losses = (np.arange(len(exact.mass)) + exact.first) / 4.0
    power = np.cumsum(exact.mass[::-1])
    false = np.cumsum((exact.mass * np.exp(-losses))[::-1])
    for at in range(0, len(power), 3):
        if 1e-9 < false[at] < 1:
            assert power[at] <= price.true_positive_rate(float(false[at])) * (1 + 1e-9)


def test_the_rate_under_a_declared_part_is_that_of_its_definition() -> None:
    price = curve(ApproxDP(Fraction(1), Fraction(1, 1000)))
    assert price.true_positive_rate(0.01) == pytest.approx(math.e * 0.01 + 0.001, rel=1e-6)
    assert price.true_positive_rate(0.9) == pytest.approx(1 - 0.099 / math.e, rel=1e-6)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate: float) -> None:
    with pytest.raises(InvalidRequest):
        curve(Gaussian(Fraction(1))).true_positive_rate(rate)
