"""What must hold of every price, filter and calibration, whatever the numbers."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpsynth_accounting import (
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
    RepeatAndSelect,
    Sequence,
    SubsampledGaussian,
    _choices,
    calibrate,
    canonical,
    curve,
    event_from_json,
    event_to_json,
    for_group,
    greatest_epsilon,
    least_noise,
    most_steps,
)
from tests.accounting.adversaries import Adversary, divided_gaussian
from tests.accounting.oracles import discrete_gaussian, discrete_laplace, gaussian_delta

ROUGH = 3e-3
"""Accuracy of prices in these tests: coarse, to be quick. Certified upwards at any accuracy."""

NOISE = 1 + 2 * ROUGH
"""By how much two rough prices may contradict each other: each errs upwards by at most ROUGH."""

quick = settings(deadline=None, max_examples=15)


def price(event: Event, delta: float) -> float:
    return curve(event, accuracy=ROUGH).epsilon(delta)


def fractions(low: str, high: str) -> st.SearchStrategy[Fraction]:
    return st.fractions(Fraction(low), Fraction(high), max_denominator=64)


deltas = st.sampled_from([1e-2, 1e-4, 1e-6, 1e-8])
more = fractions("17/16", "3")

gaussians = st.builds(Gaussian, fractions("1", "20"), fractions("1/2", "2"))
laplaces = st.builds(Laplace, fractions("1/2", "20"), fractions("1/2", "2"))
discrete_laplaces = st.builds(DiscreteLaplace, fractions("1/2", "20"), st.integers(1, 3))
sampled = st.builds(
    SubsampledGaussian,
    fractions("1/16", "1/2"),
    fractions("1", "5"),
    st.integers(1, 60),
    st.integers(1, 2),
)
choices = st.builds(Exponential, fractions("1/8", "1"))
declared = st.builds(ApproxDP, fractions("0", "1"), st.just(Fraction(1, 10**9)))
blocks = st.builds(GaussianBlock, fractions("1/16", "2"), fractions("4", "90"), st.integers(1, 9))
zcdp = st.builds(Concentrated, fractions("1/16", "1"))
lattices = st.builds(
    lambda sigma2, size, coordinates: DiscreteGaussian(
        sigma2, size * size * coordinates, coordinates
    ),
    fractions("4", "90"),
    st.integers(1, 3),
    st.integers(1, 3),
)
leaves: st.SearchStrategy[Event] = st.one_of(
    gaussians,
    laplaces,
    discrete_laplaces,
    sampled,
    choices,
    declared,
    blocks,
    zcdp,
    lattices,
)
events: st.SearchStrategy[Event] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Repeat, inner, st.integers(1, 4)),
        st.builds(lambda parts: Sequence(tuple(parts)), st.lists(inner, max_size=3)),
        st.builds(lambda parts: Parallel(tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda parts, stop: RepeatAndSelect(tuple(parts), stop),
            st.lists(inner, min_size=1, max_size=2),
            fractions("1/20", "1"),
        ),
    ),
    max_leaves=4,
)


# -- every price moves the right way ---------------------------------------------------------------

DEARER: list[tuple[str, st.SearchStrategy[Event], Callable[[Event, Fraction], Event]]] = [
    ("less sigma", gaussians, lambda e, f: replace(e, sigma=e.sigma / f)),  # type: ignore[union-attr]
    ("more reach", gaussians, lambda e, f: replace(e, sensitivity=e.sensitivity * f)),  # type: ignore[union-attr]
    ("less scale", laplaces, lambda e, f: replace(e, scale=e.scale / f)),  # type: ignore[union-attr]
    ("more reach", laplaces, lambda e, f: replace(e, sensitivity=e.sensitivity * f)),  # type: ignore[union-attr]
    ("less scale", discrete_laplaces, lambda e, f: replace(e, scale=e.scale / f)),  # type: ignore[union-attr]
    (
        "more reach",
        discrete_laplaces,
        lambda e, f: replace(e, sensitivity=e.sensitivity + 1),  # type: ignore[union-attr]
    ),
    ("more rate", sampled, lambda e, f: replace(e, rate=min(e.rate * f, Fraction(1)))),  # type: ignore[union-attr]
    ("less sigma", sampled, lambda e, f: replace(e, sigma=e.sigma / f)),  # type: ignore[union-attr]
    ("more steps", sampled, lambda e, f: replace(e, steps=math.ceil(e.steps * f))),  # type: ignore[union-attr]
    ("more records", sampled, lambda e, f: replace(e, group=e.group + 1)),  # type: ignore[union-attr]
    ("more epsilon", choices, lambda e, f: replace(e, epsilon=e.epsilon * f)),  # type: ignore[union-attr]
    ("more epsilon", declared, lambda e, f: replace(e, epsilon=e.epsilon * f)),  # type: ignore[union-attr]
    ("more rho", zcdp, lambda e, f: replace(e, rho=e.rho * f)),  # type: ignore[union-attr]
    ("more precision", blocks, lambda e, f: replace(e, precision=e.precision * f)),  # type: ignore[union-attr]
    ("less floor", blocks, lambda e, f: replace(e, least_sigma2=e.least_sigma2 / f)),  # type: ignore[union-attr]
    ("more reach", lattices, lambda e, f: replace(e, l2_squared=e.l2_squared * 4)),  # type: ignore[union-attr]
]


@pytest.mark.parametrize(
    ("kind", "dearer"),
    [(kind, dearer) for _, kind, dearer in DEARER],
    ids=[f"{number}-{name}" for number, (name, _, _) in enumerate(DEARER)],
)
@settings(deadline=None, max_examples=8)
@given(data=st.data(), factor=more, delta=deltas)
def test_a_worse_parameter_never_costs_less(
    kind: st.SearchStrategy[Event],
    dearer: Callable[[Event, Fraction], Event],
    data: st.DataObject,
    factor: Fraction,
    delta: float,
) -> None:
    event = data.draw(kind)
    worse = dearer(event, factor)
    assert price(event, delta) <= price(worse, delta) * NOISE + 1e-9


@quick
@given(leaves, st.integers(1, 4), deltas)
def test_more_often_never_costs_less(event: Event, count: int, delta: float) -> None:
    once, again = Repeat(event, count), Repeat(event, count + 1)
    assert price(once, delta) <= price(again, delta) * NOISE + 1e-9


@quick
@given(events, st.sampled_from([(1e-3, 1e-6), (1e-5, 1e-9)]))
def test_less_delta_never_costs_less(event: Event, at: tuple[float, float]) -> None:
    found = curve(event, accuracy=ROUGH)
    assert found.epsilon(at[0]) <= found.epsilon(at[1]) * (1 + 1e-9)
    epsilon = found.epsilon(at[0])
    if math.isfinite(epsilon):
        assert found.delta(epsilon) <= at[0] * (1 + 1e-6)
        assert found.delta(epsilon * 1.1 + 0.01) <= found.delta(epsilon) * (1 + 1e-9)


@quick
@given(leaves, deltas)
def test_a_finer_price_is_not_below_by_more_than_the_coarse_one_promises(
    event: Event, delta: float
) -> None:
    fine, coarse = curve(event).epsilon(delta), price(event, delta)
    assume(math.isfinite(fine))
    assert fine <= coarse * (1 + 3e-4) + 1e-9
    assert coarse <= fine * (1 + 3 * ROUGH) + 1e-3


# -- composition -----------------------------------------------------------------------------------


@quick
@given(st.lists(leaves, min_size=2, max_size=3, unique=True), deltas)
def test_the_order_of_a_plan_changes_nothing(parts: list[Event], delta: float) -> None:
    """Also that of choices of different ranges, where the adversary has the worst one."""
    found = {
        round(price(Sequence(order), delta), 9) for order in itertools.permutations(tuple(parts))
    }
    assert max(found) <= min(found) * (1 + 1e-6) + 1e-9 or math.isinf(min(found))


def test_choices_of_different_ranges_are_priced_in_their_worst_order() -> None:
    small, large = Exponential(Fraction(3, 10)), Exponential(Fraction(1))
    upwards, downwards = Adversary((24, 80), 0.0125), Adversary((80, 24), 0.0125)
    assert downwards.delta(0.5) < 0.95 * upwards.delta(0.5)
    for plan in (Sequence((small, large)), Sequence((large, small))):
        assert upwards.delta(0.5) <= curve(plan).delta(0.5) <= upwards.delta(0.5) * 1.002


@pytest.mark.parametrize("count", [3, 20])
def test_many_choices_of_different_ranges_beside_dp_sgd_have_a_price(count: int) -> None:
    """DP-SGD has no finite rho, so zCDP cannot stand in where the worst order is out of reach."""
    training = SubsampledGaussian(Fraction(1, 100), Fraction(1), 500)
    ranges = [Fraction(50 + i, 1000) for i in range(count)]
    plan = Sequence((training, *(Exponential(epsilon) for epsilon in ranges)))
    narrow = Sequence((training, Repeat(Exponential(ranges[0]), count)))
    wide = Sequence((training, Repeat(Exponential(ranges[-1]), count)))
    found = price(plan, 1e-6)
    assert price(narrow, 1e-6) <= found * NOISE
    assert found <= price(wide, 1e-6) * NOISE * 1.1


@pytest.mark.parametrize("count", [2, 5, 8, 20])
def test_choices_of_many_ranges_are_priced_soon_and_not_far_above_like_ones(count: int) -> None:
    """Kinds are widened to fewer before the states of the iteration become many."""
    noise = Gaussian(Fraction(5))
    ranges = [Fraction(50 + 3 * i, 1000) for i in range(count)]
    mean = Fraction(math.sqrt(sum(each * each for each in ranges) / count))
    start = time.process_time()
    found = curve(Sequence((*map(Exponential, ranges), noise))).epsilon(1e-6)
    assert time.process_time() - start < 5  # 1.3 s where nothing else runs
    alike = curve(Sequence((Repeat(Exponential(mean), count), noise))).epsilon(1e-6)
    assert alike * 0.999 < found < alike * 1.06


@quick
@given(
    st.lists(st.tuples(fractions("1/50", "1"), st.integers(1, 3)), min_size=1, max_size=5),
    st.sampled_from([3e-3, 1e-4, 1e-6]),
)
def test_kinds_of_choices_are_only_ever_widened(
    kinds: list[tuple[Fraction, int]], accuracy: float
) -> None:
    chosen = tuple((float(epsilon), count) for epsilon, count in dict(kinds).items())
    found = _choices.grid_of(chosen, accuracy)
    assert found is not None
    before = sorted(epsilon for epsilon, count in chosen for _ in range(count))
    after = sorted(epsilon for epsilon, count in found[0] for _ in range(count))
    assert all(one <= other for one, other in zip(before, after, strict=True))


@quick
@given(st.lists(leaves, min_size=1, max_size=3), deltas)
def test_a_plan_costs_at_least_each_part(parts: list[Event], delta: float) -> None:
    whole = price(Sequence(tuple(parts)), delta)
    assert all(price(part, delta) <= whole * NOISE + 1e-9 for part in parts)


def priced_alike(event: Event) -> bool:
    """Say whether a part is not one that only zCDP, or only its own lattice, prices well."""
    coarse = isinstance(event, DiscreteGaussian) and event.sigma2 < 30
    block = isinstance(event, GaussianBlock) and event.least_sigma2 < 30
    return not (coarse or block or isinstance(event, Concentrated))


@quick
@given(st.lists(leaves.filter(priced_alike), max_size=3), deltas)
def test_a_plan_costs_no_more_than_its_parts_added_up(parts: list[Event], delta: float) -> None:
    """But where parts are cheapest by different bounds, of which a plan takes one for all."""
    assume(parts)
    whole = price(Sequence(tuple(parts)), delta)
    apart = sum(price(part, delta / len(parts)) for part in parts)
    assert whole <= apart * NOISE + 1e-6


@quick
@given(st.lists(leaves.filter(priced_alike), min_size=1, max_size=3), deltas)
def test_parallel_parts_cost_at_least_the_worst_and_at_most_all(
    parts: list[Event], delta: float
) -> None:
    both = price(Parallel(tuple(parts)), delta)
    # A lone declaration is charged as declared, though its own worst pair has a little less.
    proper = [part for part in parts if not isinstance(part, ApproxDP)]
    assert max((price(part, delta) for part in proper), default=0.0) <= both * NOISE + 1e-9
    assert both <= price(Sequence(tuple(parts)), delta) * NOISE + 1e-3


@quick
@given(leaves, st.integers(1, 3), st.integers(1, 3), deltas)
def test_parallel_parts_that_are_equal_cost_one_of_them(
    event: Event, parts: int, count: int, delta: float
) -> None:
    """However they are written, and in whatever they are wrapped."""
    one = price(Repeat(event, count), delta)
    for same in (
        Parallel((Repeat(event, count),) * parts),
        Repeat(Parallel((event,) * parts), count),
        Sequence((Parallel((Parallel((event,)),) * parts),) * count),
    ):
        found = price(same, delta)
        assert one <= found * NOISE + 1e-9
        if not isinstance(event, ApproxDP) and math.isfinite(one):
            assert found <= one * (1 + 0.05) + 1e-2


@pytest.mark.parametrize("part", [Exponential(Fraction(1)), Repeat(Exponential(Fraction(1)), 3)])
def test_choices_do_not_vanish_inside_parallel_parts(part: Event) -> None:
    alone = price(part, 1e-3)
    assert price(Parallel((part, part)), 1e-3) >= alone / NOISE
    assert price(Parallel((part,)), 1e-3) >= alone / NOISE
    noise = Gaussian(Fraction(10))
    beside = price(Sequence((part, noise)), 1e-3)
    assert price(Sequence((Parallel((part, part)), noise)), 1e-3) >= beside / NOISE


@pytest.mark.parametrize(
    "beside", [Gaussian(Fraction(3)), Laplace(Fraction(2)), Concentrated(Fraction(1, 9))]
)
def test_a_declared_delta_inside_parallel_parts_is_not_lost(beside: Event) -> None:
    lossy = ApproxDP(Fraction(1), Fraction(1, 1000))
    for event in (
        Parallel((lossy, beside)),
        Parallel((Sequence((lossy, beside)), beside)),
        Sequence((Parallel((lossy, beside)), beside)),
        Parallel((Parallel((beside, lossy)), beside)),
    ):
        found = curve(event)
        assert found.epsilon(9e-4) == math.inf
        assert found.delta(30) >= 1e-3
        assert found.true_positive_rate(0) >= 1e-3


def test_a_declared_delta_inside_parallel_parts_leaves_the_rest_its_distributions() -> None:
    """The delta is set aside, and the parts are put on a grid; not: the whole is only zCDP."""
    lossy, noise = ApproxDP(Fraction(1), Fraction(1, 1000)), Gaussian(Fraction(3))
    either = curve(Parallel((lossy, noise)))
    assert 0.99 < either.epsilon(2e-3) <= 1
    assert either.epsilon(2e-3) >= curve(noise).epsilon(2e-3)
    assert either.delta(0.5) >= curve(lossy).delta(0.5) * (1 - 1e-9)
    beside = curve(Sequence((Parallel((lossy, noise)), noise)))
    both = [curve(Sequence((part, noise))) for part in (lossy, noise)]
    assert max(each.epsilon(2e-3) for each in both) * 0.999 < beside.epsilon(2e-3) < 1.85


@pytest.mark.parametrize(
    "event",
    [
        Parallel(tuple(Laplace(Fraction(20 + i, 10)) for i in range(40))),
        SubsampledGaussian(Fraction(1, 10_000), Fraction(1), 1000, 50),
        SubsampledGaussian(Fraction(1, 100), Fraction(20), 1, 50),
    ],
)
def test_many_parts_and_large_groups_are_priced_soon(event: Event) -> None:
    start = time.process_time()
    assert curve(event).epsilon(1e-6) < 1.1
    assert time.process_time() - start < 10  # two seconds where nothing else runs


@quick
@given(leaves, st.integers(1, 4), deltas)
def test_repeating_is_a_sequence_and_nesting_changes_nothing(
    event: Event, count: int, delta: float
) -> None:
    flat = price(Repeat(event, count), delta)
    assert price(Sequence((event,) * count), delta) == flat
    assert (
        price(Sequence((Sequence((event,)), Repeat(event, count - 1))), delta) == flat
        if (count > 1)
        else True
    )


@quick
@given(leaves, deltas, st.floats(1e-4, 0.5))
def test_an_attackers_rate_is_above_chance_and_within_the_definition(
    event: Event, delta: float, rate: float
) -> None:
    found = curve(event, accuracy=ROUGH)
    power = found.true_positive_rate(rate)
    assert rate <= power <= 1
    epsilon = found.epsilon(delta)
    if epsilon < 30:
        assert power <= math.exp(epsilon) * rate + delta + 1e-3 * power
    assert power <= found.true_positive_rate(min(1.0, rate * 1.5)) * (1 + 1e-9)
    assert power - rate <= found.advantage() * (1 + 1e-6) + 1e-9


def test_an_attackers_rate_is_not_given_up_for_many_steps() -> None:
    """Rounding set aside for each step must not make the whole curve useless."""
    many = curve(SubsampledGaussian(Fraction(1, 1000), Fraction(2), 100_000))
    assert many.true_positive_rate(0.01) < 0.05


# -- JSON ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(events)
def test_every_event_survives_json_in_the_one_form_it_has(event: Event) -> None:
    data = event_to_json(event)
    written = canonical(data)
    again = event_from_json(json.loads(written))
    assert again == event
    assert canonical(event_to_json(again)) == written
    assert canonical(dict(reversed(data.items()))) == written


@settings(deadline=None, max_examples=40)
@given(events, st.sampled_from(["event", "scale", "sigma", "of", "count", "group", "extra"]))
def test_json_with_a_field_more_or_less_is_refused(event: Event, name: str) -> None:
    data = event_to_json(event)
    changed = {key: value for key, value in data.items() if key != name}
    if changed == data:
        changed = {**data, name: 1}
    with pytest.raises(InvalidRequest):
        event_from_json(changed)


# -- groups ----------------------------------------------------------------------------------------


@quick
@given(leaves, st.integers(1, 3), deltas)
def test_more_units_never_cost_less(event: Event, size: int, delta: float) -> None:
    try:
        group, larger = for_group(event, size), for_group(event, size + 1)
    except InvalidRequest:
        assert isinstance(event, ApproxDP)
        return
    assert price(event, delta) <= price(group, delta) * NOISE + 1e-9
    assert price(group, delta) <= price(larger, delta) * NOISE + 1e-9


@quick
@given(fractions("1/2", "6"), st.integers(1, 3), st.integers(1, 3))
def test_a_group_on_a_lattice_is_not_below_brute_force(
    scale: Fraction, size: int, count: int
) -> None:
    epsilons = np.linspace(0.0, 4.0, 6)
    noise = curve(for_group(Repeat(DiscreteLaplace(scale), count), size), accuracy=ROUGH)
    exact = discrete_laplace(float(scale), size).often(count)
    assert all(exact.delta(e) <= noise.delta(float(e)) * (1 + 1e-9) + 1e-13 for e in epsilons)
    noise = curve(for_group(DiscreteGaussian(scale), size), accuracy=ROUGH)
    exact = discrete_gaussian(float(scale), size)
    assert all(exact.delta(e) <= noise.delta(float(e)) * (1 + 1e-9) + 1e-13 for e in epsilons)


# -- filters against adversaries -------------------------------------------------------------------

FILTERS = ["additive", "gdp", "zcdp", "rdp-8", "rdp-32"]
BUDGET = Budget(Fraction(2), Fraction(1, 10**5))


def granted(name: str, wishes: list[tuple[Event, Fraction]]) -> tuple[Charge, list[Event]]:
    """Return what an account would have granted of these wishes, one after another."""
    rule = Filter.named(name)
    capacity, spent = rule.capacity(BUDGET), Charge(Fraction(0), Fraction(0))
    taken = []
    for event, delta in wishes:
        found = curve(event).epsilon(delta)
        if not math.isfinite(found):
            continue
        epsilon = Fraction(found) * Fraction(1_000_001, 1_000_000)
        try:
            cost = rule.charge(event, epsilon, delta, BUDGET)
        except InvalidRequest:
            continue
        if (spent + cost).fits(capacity):
            spent = spent + cost
            taken.append(event)
    return spent, taken


wished: st.SearchStrategy[Event] = st.one_of(
    st.builds(Gaussian, fractions("2", "40")),
    st.builds(DiscreteGaussian, fractions("4", "90")),
    st.builds(Laplace, fractions("2", "40")),
    st.builds(Exponential, fractions("1/16", "1")),
    st.builds(ApproxDP, fractions("1/16", "1"), st.just(Fraction(1, 10**8))),
    st.builds(Concentrated, fractions("1/64", "1/2")),
)


@pytest.mark.parametrize("name", FILTERS)
@settings(deadline=None, max_examples=6)
@given(wishes=st.lists(st.tuples(wished, st.just(Fraction(1, 10**6))), min_size=8, max_size=16))
def test_what_is_granted_stays_within_the_budget_as_one_plan(
    name: str, wishes: list[tuple[Event, Fraction]]
) -> None:
    """A filter bounds all plans together, so it bounds the fixed plan that they happen to be."""
    spent, taken = granted(name, wishes)
    assert spent.fits(Filter.named(name).capacity(BUDGET))
    # Beside a concentrated answer a curve prices everything by zCDP, pure answers too: looser than
    # a Renyi filter may be. So these are looked at by themselves.
    known = [event for event in taken if isinstance(event, Concentrated)]
    for plan in (known, [event for event in taken if event not in known]):
        if plan:
            assert curve(Sequence(tuple(plan))).epsilon(BUDGET.delta) <= BUDGET.epsilon * (1 + 1e-6)


@pytest.mark.parametrize("name", FILTERS)
def test_a_greedy_adversary_gets_all_and_no_more(name: str) -> None:
    """It asks for ever smaller steps until nothing is granted, as answers tell it to."""
    rng = np.random.default_rng(5)
    rule = Filter.named(name)
    capacity, spent = rule.capacity(BUDGET), Charge(Fraction(0), Fraction(0))
    taken: list[Event] = []
    refused, sigma = 0, Fraction(4)
    while refused < 8:
        event = Gaussian(sigma)
        delta = Fraction(1, 10**7)
        epsilon = Fraction(curve(event).epsilon(delta)) * Fraction(1_000_001, 1_000_000)
        cost = rule.charge(event, epsilon, delta, BUDGET)
        if (spent + cost).fits(capacity):
            spent = spent + cost
            taken.append(event)
            # The answer decides on the next noise: what no fixed plan can express.
            sigma = sigma * Fraction(3, 2) if rng.normal() > 1 else sigma
        else:
            refused, sigma = refused + 1, sigma * 2
    assert spent.fits(capacity)
    assert curve(Sequence(tuple(taken))).epsilon(BUDGET.delta) <= BUDGET.epsilon
    used = spent.cost / capacity.cost, spent.delta / capacity.delta if capacity.delta else 0
    assert max(used) > 0.9


@pytest.mark.parametrize("name", FILTERS)
def test_a_fresh_account_of_some_epsilon_lets_one_plan_have_it(name: str) -> None:
    rule = Filter.named(name)
    left = rule.capacity(BUDGET)
    offered = rule.epsilon(left, BUDGET.delta)
    assert BUDGET.epsilon * Fraction(999, 1000) < offered <= BUDGET.epsilon
    assert rule.epsilon(Charge(left.cost / 2, left.delta), BUDGET.delta) < offered
    assert rule.epsilon(Charge(Fraction(0), left.delta), BUDGET.delta) == 0


@pytest.mark.parametrize("name", FILTERS)
def test_a_plan_that_claims_less_than_it_costs_is_refused(name: str) -> None:
    event, delta = Gaussian(Fraction(4)), Fraction(1, 10**6)
    found = Fraction(curve(event).epsilon(delta))
    Filter.named(name).charge(event, found * Fraction(1_000_001, 1_000_000), delta, BUDGET)
    with pytest.raises(InvalidRequest):
        Filter.named(name).charge(event, found * Fraction(99, 100), delta, BUDGET)


def worst_under_a_gaussian_filter(capacity: float, at: float) -> float:
    """Return delta of the best of all adversaries who divide the capacity in quarters, 3 rounds.

    Every history of answers (in 60 intervals) and every division is tried.
    """
    return divided_gaussian(capacity, 4, 3, 60, at)


def test_the_realised_epsilon_of_the_gaussian_filter_holds_in_its_worst_case() -> None:
    """The filter's own capacity, spent by an adversary that chooses noise from answers."""
    capacity = Filter.named("gdp").capacity(BUDGET)
    worst = worst_under_a_gaussian_filter(float(capacity.cost), float(BUDGET.epsilon))
    assert 0.3 * float(BUDGET.delta) < worst <= float(BUDGET.delta)
    exact = gaussian_delta(math.sqrt(float(capacity.cost)), float(BUDGET.epsilon))
    assert exact + float(capacity.delta) <= float(BUDGET.delta) * (1 + 1e-9)


def test_twice_the_capacity_of_the_gaussian_filter_would_break_its_promise() -> None:
    capacity = Filter.named("gdp").capacity(BUDGET)
    worst = worst_under_a_gaussian_filter(2 * float(capacity.cost), float(BUDGET.epsilon))
    assert worst > float(BUDGET.delta)


@quick
@given(st.lists(fractions("4", "60"), min_size=1, max_size=12))
def test_a_block_is_never_divided_into_more_than_it_holds(noises: list[Fraction]) -> None:
    block = GaussianBlock(Fraction(1, 2), Fraction(6), 5)
    division, taken = Division(block), []
    for sigma2 in noises:
        answer = DiscreteGaussian(sigma2)
        try:
            division.take(answer)
        except (BudgetExceeded, InvalidRequest):
            continue
        taken.append(answer)
    smoothed = [answer.sigma2 - Fraction(3, 2) for answer in taken]
    assert sum((1 / each for each in smoothed), Fraction(0)) <= block.precision
    assert len(taken) <= block.shifts
    assert all(answer.sigma2 >= block.least_sigma2 for answer in taken)
    if taken:
        # The answers that were given are one fixed plan that the block's price covers.
        whole = curve(block).epsilon(1e-6)
        assert curve(Sequence(tuple(taken))).epsilon(1e-6) <= whole * (1 + 1e-6)


# -- calibration -----------------------------------------------------------------------------------

PLANS: list[tuple[str, Callable[[Fraction], Event]]] = [
    ("gaussian", lambda s: Repeat(Gaussian(s), 5)),
    ("laplace", lambda s: Repeat(Laplace(s), 5)),
    ("dp-sgd", lambda s: SubsampledGaussian(Fraction(1, 50), s, 400)),
    ("choices", lambda s: Sequence((Repeat(Exponential(Fraction(1, 8)), 6), Gaussian(s)))),
]


@pytest.mark.parametrize(("name", "plan"), PLANS, ids=[name for name, _ in PLANS])
@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-6), (4.0, 1e-9)])
def test_the_least_noise_fits_and_a_little_less_does_not(
    name: str, plan: Callable[[Fraction], Event], epsilon: float, delta: float
) -> None:
    least = least_noise(plan, epsilon, delta)
    assert curve(plan(least)).epsilon(delta) <= epsilon
    assert curve(plan(least * Fraction(998, 1000))).epsilon(delta) > epsilon


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 1e-6), (4.0, 1e-9)])
def test_a_calibrated_plan_fits_and_a_little_more_precision_does_not(
    epsilon: float, delta: float
) -> None:
    def plan(scale: float) -> Event:
        sigma2 = Fraction(math.ceil(2**30 / scale), 2**30)
        choice = Exponential(Fraction(math.floor(2**30 * math.sqrt(scale / 40)), 2**30))
        return Sequence((Repeat(DiscreteGaussian(sigma2 * 8), 8), Repeat(choice, 4)))

    event = calibrate(plan, epsilon, delta)
    assert curve(event).epsilon(delta) <= epsilon
    noise = event.events[0].event.sigma2 / 8  # type: ignore[union-attr]
    assert curve(plan(float(1 / noise) * 1.01)).epsilon(delta) > epsilon


def test_the_most_steps_fit_and_one_more_does_not() -> None:
    def plan(steps: int) -> Event:
        return SubsampledGaussian(Fraction(1, 50), Fraction(1), steps)

    most = most_steps(plan, 2.0, 1e-6)
    assert curve(plan(most)).epsilon(1e-6) <= 2.0 < curve(plan(most + 1)).epsilon(1e-6)


def test_the_greatest_epsilon_of_choices_fits_and_a_little_more_does_not() -> None:
    def plan(epsilon: Fraction) -> Event:
        return Repeat(Exponential(epsilon), 12)

    greatest = greatest_epsilon(plan, 2.0, 1e-6)
    assert curve(plan(greatest)).epsilon(1e-6) <= 2.0
    assert curve(plan(greatest * Fraction(1002, 1000))).epsilon(1e-6) > 2.0
