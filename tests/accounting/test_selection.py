"""The best of a secret number of runs: its price against the exact law of what is shown.

For a run whose answers have laws P and Q, in the order of their scores, the best of K runs has the
law f(F(y)) - f(F(y-)), where f is the generating function of K and F the distribution function of
a run. Enumerated for small laws, this gives the exact delta of the selection, in both directions.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from dpsynth_accounting import (
    ApproxDP,
    Budget,
    DiscreteLaplace,
    Event,
    Filter,
    Gaussian,
    InvalidRequest,
    Laplace,
    Repeat,
    RepeatAndSelect,
    Sequence,
    SubsampledGaussian,
    curve,
    event_from_json,
    event_to_json,
    for_group,
    to_dp_event,
)
from dpsynth_accounting.renyi import rdp, rdp_to_approx_dp

Array = NDArray[np.float64]
EPSILONS = np.linspace(0.0, 6.0, 121)
STOPS = [Fraction(1), Fraction(9, 10), Fraction(1, 3), Fraction(1, 10), Fraction(1, 200)]


def best_of(law: Array, stop: float) -> Array:
    """Return the exact law of the best of K runs, from a run's law in rising order of scores."""
    above = np.append(np.cumsum(law[::-1])[::-1], 0.0)
    # 1 - f(1 - s) is s / (stop + (1 - stop) s) for the geometric K; its differences, uncancelled:
    odds = stop + (1 - stop) * above
    return np.asarray(stop * law / (odds[:-1] * odds[1:]))


def exact_deltas(p: Array, q: Array, epsilons: Array) -> Array:
    """Return the greater delta of the two directions at each epsilon."""
    gaps = [
        np.clip(a - np.exp(epsilons)[:, None] * b, 0.0, None).sum(1) for a, b in ((p, q), (q, p))
    ]
    return np.asarray(np.max(gaps, axis=0))


def discrete_laplace(scale: float, shift: int) -> Array:
    x = np.arange(-400, 401)
    masses = np.exp(-abs(x - shift) / scale)
    return np.asarray(masses / masses.sum())


def gaussian_cells(mu: float) -> Array:
    """Return the masses of N(mu, 1) on narrow cells: a post-processing of it, and almost it."""
    from scipy.special import ndtr

    edges = np.concatenate([[-np.inf], np.linspace(-8.0, 9.0, 6001), [np.inf]]) - mu
    lower, upper = ndtr(edges), ndtr(-edges)  # each without cancellation on its side
    return np.where(edges[1:] < 0, lower[1:] - lower[:-1], upper[:-1] - upper[1:])


def sampled_cells(q: float, sigma: float) -> tuple[Array, Array]:
    with_unit = q * gaussian_cells(1 / sigma) + (1 - q) * gaussian_cells(0.0)
    return with_unit, gaussian_cells(0.0)


RUNS: list[tuple[Event, tuple[Array, Array]]] = [
    (Gaussian(Fraction(2)), (gaussian_cells(0.5), gaussian_cells(0.0))),
    (Gaussian(Fraction(1, 2)), (gaussian_cells(2.0), gaussian_cells(0.0))),
    (DiscreteLaplace(Fraction(3)), (discrete_laplace(3, 1), discrete_laplace(3, 0))),
    (SubsampledGaussian(Fraction(1, 10), Fraction(1), 1), sampled_cells(0.1, 1.0)),
]


def orders(p: Array, q: Array) -> list[NDArray[np.intp]]:
    """Return orders of scores: by the answer, by how telling it is, both ways, and mixed."""
    telling = np.argsort(np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(q, 1e-300)))
    plain = np.arange(len(p))
    rng = np.random.default_rng(0)
    return [plain, plain[::-1], telling, telling[::-1], rng.permutation(len(p))]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize(("run", "laws"), RUNS)
def test_the_price_is_never_below_the_exact_law(
    run: Event, laws: tuple[Array, Array], stop: Fraction
) -> None:
    price = curve(RepeatAndSelect((run,), stop))
    claimed = np.array([price.delta(float(e)) for e in EPSILONS])
    for order in orders(*laws):
        p, q = (best_of(law[order], float(stop)) for law in laws)
        assert p.sum() == pytest.approx(1) == q.sum()
        assert np.all(exact_deltas(p, q, EPSILONS) <= claimed + 1e-13)


@pytest.mark.parametrize("stop", STOPS[2:])
@pytest.mark.parametrize(("run", "laws"), RUNS)
def test_the_price_of_a_single_run_in_its_place_is_flagged(
    run: Event, laws: tuple[Array, Array], stop: Fraction
) -> None:
    """The twin: losing runs for nothing, as of a search by hand that reports its best run."""
    wrong = np.array([curve(run).delta(float(e)) for e in EPSILONS])
    found = [
        exact_deltas(*(best_of(law[order], float(stop)) for law in laws), EPSILONS)
        for order in orders(*laws)
    ]
    assert any(np.any(exact > wrong * 1.1 + 1e-9) for exact in found)


def test_every_order_of_every_small_law() -> None:
    """Randomised response on a few answers, all orders of them, and a run that may fail outright.

    ``ApproxDP`` is dominated by a pair that says all with probability delta, and else answers by
    randomised response.
    """
    epsilon, delta = math.log(2), 0.05
    p = np.array([delta, 0.0, (1 - delta) * 2 / 3, (1 - delta) / 3])
    q = np.array([0.0, delta, (1 - delta) / 3, (1 - delta) * 2 / 3])
    run = ApproxDP(Fraction(math.log(2)), Fraction(1, 20))
    assert np.all(exact_deltas(p, q, EPSILONS[epsilon < EPSILONS]) == pytest.approx(delta))
    for stop in STOPS:
        price = curve(RepeatAndSelect((run,), stop))
        claimed = np.array([price.delta(float(e)) for e in EPSILONS])
        for order in permutations(range(4)):
            found = [best_of(law[list(order)], float(stop)) for law in (p, q)]
            assert np.all(exact_deltas(*found, EPSILONS) <= claimed + 1e-12)


def test_runs_of_several_kinds_cost_the_worst_of_them() -> None:
    """What a run is, a coin says, and what it was is shown: their laws lie side by side."""
    coarse = curve(RepeatAndSelect((RUNS[0][0], RUNS[2][0]), Fraction(1, 5)))
    claimed = np.array([coarse.delta(float(e)) for e in EPSILONS])
    laws = [np.concatenate([a / 2, b / 2]) for a, b in zip(RUNS[0][1], RUNS[2][1], strict=True)]
    for order in orders(*laws):
        p, q = (best_of(law[order], 0.2) for law in laws)
        assert np.all(exact_deltas(p, q, EPSILONS) <= claimed + 1e-13)


def test_one_run_costs_what_it_costs() -> None:
    for run, _ in RUNS:
        alone = curve(run).epsilon(1e-6)
        assert alone <= curve(RepeatAndSelect((run,), Fraction(1))).epsilon(1e-6) <= alone * 1.001


def test_more_runs_cost_more_and_less_than_so_many_fits() -> None:
    run = SubsampledGaussian(Fraction(1, 20), Fraction(3), 300)
    prices = [curve(RepeatAndSelect((run,), stop)).epsilon(1e-6) for stop in STOPS]
    assert prices == sorted(prices)
    ten = RepeatAndSelect((run,), Fraction(1, 10))
    assert curve(ten).epsilon(1e-6) < curve(Repeat(run, 10)).epsilon(1e-6) / 2


def test_pure_runs_cost_three_times_their_epsilon_at_most() -> None:
    """Liu and Talwar (2019), Theorem 1.3: geometric stopping triples a pure epsilon."""
    for pure in (Fraction(1, 10), Fraction(1, 2)):
        price = curve(RepeatAndSelect((Laplace(1 / pure),), Fraction(1, 1000)))
        assert price.epsilon(1e-9) <= 3 * float(pure) * 1.01


def test_it_composes_with_the_rest_of_a_plan() -> None:
    best = RepeatAndSelect((Gaussian(Fraction(5)),), Fraction(1, 4))
    whole = curve(Sequence((best, Gaussian(Fraction(8)))))
    parts = curve(best).epsilon(5e-7) + curve(Gaussian(Fraction(8))).epsilon(5e-7)
    assert curve(best).epsilon(1e-6) < whole.epsilon(1e-6) < parts
    p, q = (best_of(law, 0.25) for law in (gaussian_cells(0.2), gaussian_cells(0.0)))
    starts = np.arange(0, 6002, 40)  # coarser: fewer pairs, and a post-processing too
    p, q, *beside = (
        np.add.reduceat(law, starts) for law in (p, q, gaussian_cells(0.125), gaussian_cells(0.0))
    )
    joint = [np.outer(a, b).ravel() for a, b in ((p, beside[0]), (q, beside[1]))]
    claimed = np.array([whole.delta(float(e)) for e in EPSILONS[:40]])
    assert np.all(exact_deltas(*joint, EPSILONS[:40]) <= claimed + 1e-13)


# -- Renyi -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [2, 5, 16])
@pytest.mark.parametrize("stop", STOPS)
def test_the_renyi_price_is_never_below_the_exact_divergence(stop: Fraction, order: int) -> None:
    for run, laws in RUNS[:2]:
        claimed = rdp(RepeatAndSelect((run,), stop), order)
        for ranked in orders(*laws)[:4]:
            p, q = (best_of(law[ranked], float(stop)) for law in laws)
            kept = (p > 1e-280) & (q > 1e-280)
            logs = order * np.log(p[kept]) - (order - 1) * np.log(q[kept])
            assert np.logaddexp.reduce(logs) / (order - 1) <= claimed + 1e-9
    twin = rdp(RUNS[0][0], order)
    ranked = orders(*RUNS[0][1])[2]
    p, q = (best_of(law[ranked], 0.005) for law in RUNS[0][1])
    p, q = p[(p > 1e-280) & (q > 1e-280)], q[(p > 1e-280) & (q > 1e-280)]
    assert np.logaddexp.reduce(order * np.log(p) - (order - 1) * np.log(q)) / (order - 1) > twin


def test_it_is_what_dp_accounting_says_of_the_same_runs() -> None:
    from dp_accounting import rdp as theirs

    grid = list(range(2, 200))
    for stop in STOPS[1:]:
        event = RepeatAndSelect((SubsampledGaussian(Fraction(1, 20), Fraction(3), 300),), stop)
        accountant = theirs.RdpAccountant(orders=grid)
        accountant.compose(to_dp_event(event))
        epsilon = accountant.get_epsilon(1e-6)
        ours = min(rdp_to_approx_dp(rdp(event, order), order, 1e-6) for order in grid)
        assert ours == pytest.approx(epsilon, rel=1e-6)
        assert curve(event).epsilon(1e-6) < epsilon  # the price that is charged is the lower one


# -- the rest of the account -----------------------------------------------------------------------


def test_filters_charge_it_or_refuse_it_by_name() -> None:
    budget = Budget(3, 1e-6)
    failing = ApproxDP(Fraction(0), Fraction(1, 10**9))
    event = RepeatAndSelect((Sequence((Gaussian(Fraction(9)), failing)),), Fraction(1, 4))
    cost = Filter("rdp-16").cost(event, budget)
    assert float(cost.cost) == pytest.approx(rdp(event, 16))
    assert cost.delta == 4 * failing.delta
    for name in ("gdp", "zcdp"):
        with pytest.raises(InvalidRequest, match="RepeatAndSelect"):
            Filter(name).cost(event, budget)


def test_a_run_that_fails_may_fail_as_often_as_there_are_runs() -> None:
    run = Sequence((Gaussian(Fraction(9)), ApproxDP(Fraction(0), Fraction(1, 10**5))))
    price = curve(RepeatAndSelect((run,), Fraction(1, 8)))
    assert price.epsilon(7e-5) == math.inf
    assert price.epsilon(9e-5) < 2


def test_groups_scale_what_is_run() -> None:
    event = RepeatAndSelect((Gaussian(Fraction(9)), Laplace(Fraction(4))), Fraction(1, 4))
    assert for_group(event, 3) == RepeatAndSelect(
        (Gaussian(Fraction(9), Fraction(3)), Laplace(Fraction(4), Fraction(3))), Fraction(1, 4)
    )


def test_it_is_written_and_read() -> None:
    event = RepeatAndSelect((Gaussian(Fraction(9)), Laplace(Fraction(4))), Fraction(1, 4))
    assert event_from_json(event_to_json(event)) == event


@pytest.mark.parametrize(
    ("events", "stop"),
    [((), Fraction(1, 2)), ((Gaussian(Fraction(1)),), Fraction(0)), (RUNS[0][:1], Fraction(3, 2))],
)
def test_impossible_runs_are_refused(events: tuple[Event, ...], stop: Fraction) -> None:
    with pytest.raises(InvalidRequest, match="Repeated runs"):
        RepeatAndSelect(events, stop)
