"""Other accountants: their real objects read, priced beside their own, and written back."""

from __future__ import annotations

import json
import math
import warnings
from fractions import Fraction
from typing import Any

import dp_accounting
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsynth_accounting import (
    ADJACENCY,
    ApproxDP,
    Budget,
    Concentrated,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Exponential,
    Gaussian,
    GaussianBlock,
    InvalidRequest,
    Laplace,
    Ledger,
    Parallel,
    Repeat,
    Sequence,
    SubsampledGaussian,
    adjacency_of,
    curve,
    for_group,
    from_diffprivlib,
    from_dp_event,
    from_opacus_history,
    least_epsilon,
    odometer,
    own_delta,
    to_dp_event,
)

Gauss, Lap = dp_accounting.GaussianDpEvent, dp_accounting.LaplaceDpEvent
Sampled, Many = dp_accounting.PoissonSampledDpEvent, dp_accounting.SelfComposedDpEvent
All = dp_accounting.ComposedDpEvent
DELTA = Fraction(1, 10**6)


def by_their_pld(event: Any, interval: float = 1e-4) -> float:
    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    accountant = PLDAccountant(relation, value_discretization_interval=interval)
    return float(accountant.compose(event).get_epsilon(float(DELTA)))


# -- dp_accounting -------------------------------------------------------------------------------

THEIRS = {
    "gaussian": Gauss(1.7),
    "fifty gaussians": Many(Gauss(9.0), 50),
    "laplace": Lap(2.5),
    "ten laplaces": Many(Lap(12.0), 10),
    "discrete laplaces": Many(dp_event.DiscreteLaplaceDpEvent(0.125, 2), 5),
    "dp-sgd": Many(Sampled(0.01, Gauss(1.1)), 1000),
    "mixed": All([Many(Sampled(0.02, Gauss(1.3)), 200), Many(Gauss(20.0), 4), Lap(15.0)]),
}


@pytest.mark.parametrize("name", THEIRS)
def test_our_price_of_their_event_is_theirs(name: str) -> None:
    """Theirs is an upper bound at a width of 1e-4: ours may be a hair tighter, never far off."""
    ours = curve(from_dp_event(THEIRS[name])).epsilon(DELTA)
    assert ours == pytest.approx(by_their_pld(THEIRS[name]), rel=2e-3)


# Lower and upper values on which independent accountants agree.
LOWER = [
    (Gauss(1.0), "1e-5", 4.3771771, 4.3771791),
    (Many(Sampled(0.01, Gauss(4.0)), 10_000), "1e-5", 0.944870622, 0.947000307),
    (Many(Lap(10.0), 50), "1e-5", 2.79640111, 2.7966021),
    (Many(dp_event.DiscreteLaplaceDpEvent(0.05, 2), 100), "1e-6", 4.71194939, 4.71215035),
]


@pytest.mark.parametrize(("event", "delta", "lower", "upper"), LOWER)
def test_our_price_is_never_below_the_certified_value(
    event: Any, delta: str, lower: float, upper: float
) -> None:
    ours = curve(from_dp_event(event)).epsilon(Fraction(delta))
    assert lower <= ours <= upper * 1.001


def test_zcdp_is_read_and_xi_is_not() -> None:
    assert from_dp_event(dp_accounting.ZCDpEvent(0.25)) == Concentrated(Fraction(1, 4))
    with pytest.raises(InvalidRequest, match="ZCDpEvent"):
        from_dp_event(dp_accounting.ZCDpEvent(0.25, xi=0.1))


@pytest.mark.parametrize(
    "event",
    [
        dp_accounting.NonPrivateDpEvent(),
        dp_accounting.UnsupportedDpEvent(),
        dp_accounting.SampledWithReplacementDpEvent(100, 10, Gauss(1.0)),
        dp_accounting.SampledWithoutReplacementDpEvent(100, 10, Gauss(1.0)),
        dp_accounting.SingleEpochTreeAggregationDpEvent(1.0, 5),
        dp_accounting.RandomizedResponseDpEvent(0.5, 2),
        dp_event.RepeatAndSelectDpEvent(Gauss(1.0), 5.0, 1.0),
        dp_event.TruncatedSubsampledGaussianDpEvent(100, 0.1, 20, 1.0),
    ],
)
@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: All([Gauss(2.0), Many(e, 3)])])
def test_what_has_no_proved_event_is_refused_by_name(event: Any, wrap: Any) -> None:
    with pytest.raises(InvalidRequest, match=type(event).__name__):
        from_dp_event(wrap(event))


def test_a_sampled_event_names_what_was_sampled() -> None:
    with pytest.raises(InvalidRequest, match="PoissonSampledDpEvent of LaplaceDpEvent"):
        from_dp_event(Sampled(0.1, Lap(1.0)))


@pytest.mark.parametrize("event", [Gauss(0.0), Lap(0.0), Sampled(0.1, Gauss(0.0))])
def test_no_noise_is_refused(event: Any) -> None:
    with pytest.raises(InvalidRequest, match="without noise"):
        from_dp_event(event)


@pytest.mark.parametrize("event", [dp_accounting.NoOpDpEvent(), Sampled(0.0, Gauss(1.0)), All([])])
def test_what_reads_no_row_costs_nothing(event: Any) -> None:
    assert curve(from_dp_event(event)).epsilon(DELTA) == 0.0


def test_only_adding_or_removing_one_is_an_accounts_adjacency() -> None:
    relations = dp_accounting.NeighboringRelation
    assert adjacency_of(relations.ADD_OR_REMOVE_ONE) == ADJACENCY
    for other in (relations.REPLACE_ONE, relations.REPLACE_SPECIAL):
        with pytest.raises(InvalidRequest, match=other.name):
            from_dp_event(Gauss(1.0), other)


# -- round trips ---------------------------------------------------------------------------------

decimals = st.integers(1, 4000).map(lambda n: Fraction(n, 100))
leaves: st.SearchStrategy[Event] = st.one_of(
    decimals.map(Gaussian),
    decimals.map(Laplace),
    decimals.map(Concentrated),
    st.builds(DiscreteLaplace, st.integers(1, 50).map(Fraction), st.integers(1, 5)),
    st.builds(
        SubsampledGaussian,
        st.fractions(Fraction(1, 1000), 1, max_denominator=1024),
        decimals,
        st.just(1),
    ),
)
plans = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Sequence, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(
            Repeat,
            inner.filter(lambda e: not isinstance(e, SubsampledGaussian | Repeat)),
            st.integers(2, 9),
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(plans)
def test_what_goes_out_comes_back(event: Event) -> None:
    """To the last bit of a float: rates such as 1/3 come back as the decimal they print as."""
    back = from_dp_event(to_dp_event(event))
    assert to_dp_event(back) == to_dp_event(event)
    inexact = SubsampledGaussian | DiscreteLaplace  # by their rate, of which a float is exported
    if not any(isinstance(leaf, inexact) for leaf in _leaves(event)):
        assert back == event


def _leaves(event: Event) -> list[Event]:
    match event:
        case Repeat(inner, _):
            return _leaves(inner)
        case Sequence(events):
            return [leaf for each in events for leaf in _leaves(each)]
        case _:
            return [event]


@pytest.mark.parametrize("value", [Fraction(1, 3), Fraction(2, 3), Fraction(10**20 + 1, 7)])
def test_rounding_never_exports_more_noise_or_less_cost(value: Fraction) -> None:
    assert Fraction(to_dp_event(Gaussian(value)).noise_multiplier) <= value
    assert Fraction(to_dp_event(Concentrated(value)).rho) >= value


@pytest.mark.parametrize(
    "event",
    [
        Repeat(DiscreteGaussian(Fraction(40), 4, 2), 6),
        Repeat(Exponential(Fraction(1, 4)), 12),
        GaussianBlock(Fraction(1, 8), Fraction(20), 16),
        Repeat(ApproxDP(Fraction(1, 5), Fraction(0)), 7),
        Parallel((Repeat(Gaussian(Fraction(9)), 2), Gaussian(Fraction(7)))),
    ],
)
def test_what_they_have_no_event_for_is_exported_as_more(event: Event) -> None:
    theirs = RdpAccountant().compose(to_dp_event(event)).get_epsilon(float(DELTA))
    ours = curve(event).epsilon(DELTA)
    assert ours <= theirs
    assert theirs < 3 * ours  # an upper bound, and one that says something


def test_equal_parts_of_a_parallel_event_are_exported_once() -> None:
    assert to_dp_event(Parallel((Gaussian(Fraction(2)),) * 9)) == Gauss(2.0)


def test_a_group_is_exported_as_the_mixture_it_is() -> None:
    event = for_group(SubsampledGaussian(Fraction(1, 50), Fraction(2), 20), 3)
    theirs = by_their_pld(to_dp_event(event), interval=1e-3)
    assert curve(event).epsilon(DELTA) == pytest.approx(theirs, rel=2e-3)


def test_a_delta_of_its_own_is_refused_by_name_and_can_be_set_aside() -> None:
    sampler = ApproxDP(Fraction(0), Fraction(1, 10**12))
    event = Sequence((Repeat(Sequence((Gaussian(Fraction(5)), sampler)), 4), sampler))
    with pytest.raises(InvalidRequest, match="ApproxDP"):
        to_dp_event(event)
    rest, delta = own_delta(event)
    assert delta == Fraction(5, 10**12)
    assert to_dp_event(rest) == All([Many(All([Gauss(5.0)]), 4)])
    assert curve(rest).epsilon(DELTA - delta) == pytest.approx(curve(event).epsilon(DELTA))


# -- Opacus --------------------------------------------------------------------------------------


def opacus_accountant(kind: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, about experimental accountants
        accountants = pytest.importorskip("opacus.accountants", reason="opacus is not installed")
        made = accountants.create_accountant(kind)
        for noise, rate, steps in [(1.1, 0.01, 300), (1.4, 0.02, 200)]:
            for _ in range(steps):
                made.step(noise_multiplier=noise, sample_rate=rate)
    return made


@pytest.mark.parametrize("kind", ["rdp", "prv"])
def test_opacus_history_is_read_and_priced(kind: str) -> None:
    made = opacus_accountant(kind)
    event = from_opacus_history(made.history)
    assert event == Sequence(
        (
            SubsampledGaussian(Fraction("0.01"), Fraction("1.1"), 300),
            SubsampledGaussian(Fraction("0.02"), Fraction("1.4"), 200),
        )
    )
    # As it comes back from a file, with its state around it.
    assert from_opacus_history(json.loads(json.dumps(made.state_dict()))) == event
    ours = curve(event).epsilon(DELTA)
    same = All([Many(Sampled(0.01, Gauss(1.1)), 300), Many(Sampled(0.02, Gauss(1.4)), 200)])
    assert ours == pytest.approx(by_their_pld(same), rel=2e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = made.get_epsilon(float(DELTA))
    # Both theirs are looser: Renyi by its conversion, PRV by a flat error of 0.01.
    assert ours <= theirs


@pytest.mark.parametrize(
    "history",
    [None, 3, "abc", [1, 2, 3], [(1.0, 0.1)], [(1.0, 1.5, 3)], [(1.0, 0.1, 2.5)], {"mechanism": 1}],
)
def test_what_is_no_history_is_refused(history: Any) -> None:
    with pytest.raises(InvalidRequest, match="Opacus history"):
        from_opacus_history(history)


def test_training_without_noise_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="without noise"):
        from_opacus_history([(0.0, 0.01, 10)])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_history_of_no_numbers_is_refused(value: float) -> None:
    with pytest.raises(InvalidRequest, match="finite"):
        from_opacus_history([(value, 0.01, 10)])


# -- diffprivlib ---------------------------------------------------------------------------------


def diffprivlib_accountant(slack: float) -> Any:
    library = pytest.importorskip("diffprivlib", reason="diffprivlib is not installed")
    spent = [(0.1, 0)] * 30 + [(0.25, 1e-7)]
    return library.BudgetAccountant(spent_budget=spent, slack=slack)


def test_diffprivlib_spends_are_read() -> None:
    event = from_diffprivlib(diffprivlib_accountant(0.0))
    assert isinstance(event, Sequence)
    assert event.events[-1] == ApproxDP(Fraction("0.25"), Fraction("1e-7"))
    assert sum(1 for each in event.events if each == ApproxDP(Fraction("0.1"), Fraction(0))) == 30
    total, delta = diffprivlib_accountant(0.0).total()
    assert curve(event).epsilon(Fraction("1e-7")) == pytest.approx(total)
    assert delta == pytest.approx(1e-7)


def test_diffprivlib_slack_counts_as_a_delta_and_our_price_is_no_greater_than_its_own() -> None:
    made = diffprivlib_accountant(1e-4)
    total, delta = made.total()
    event = from_diffprivlib(made)
    assert isinstance(event, Sequence)
    assert event.events[-1] == ApproxDP(Fraction(0), Fraction("1e-4"))
    assert curve(event).base_delta >= Fraction(repr(delta))
    # Its theorem bounds what ours computes, at the delta that it lets the composition use.
    pairs = from_diffprivlib(diffprivlib_accountant(0.0))
    assert curve(pairs).epsilon(Fraction(repr(delta))) <= total


def test_what_is_no_accountant_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="object has no spent_budget"):
        from_diffprivlib(object())


# -- declaring -----------------------------------------------------------------------------------


def test_least_epsilon_covers_the_event_and_is_tight() -> None:
    event = SubsampledGaussian(Fraction(1, 100), Fraction(11, 10), 1000)
    price = curve(event).epsilon(DELTA)
    assert price <= float(least_epsilon(event, DELTA)) <= price * (1 + 1e-5)


def test_an_event_with_too_large_a_delta_has_no_epsilon() -> None:
    with pytest.raises(InvalidRequest, match="larger delta"):
        least_epsilon(ApproxDP(Fraction(1), Fraction(1, 100)), DELTA)


def test_imported_events_can_be_declared(tmp_path: Any) -> None:
    account = Ledger(tmp_path / "ledger.db").account("patients", Budget(9, 1e-5))
    for source, event in {
        "opacus": from_opacus_history([(1.1, 0.01, 500)]),
        "dp_accounting": from_dp_event(THEIRS["mixed"]),
        "diffprivlib": from_diffprivlib(diffprivlib_accountant(0.0)),
    }.items():
        account.declare(
            event,
            least_epsilon(event, DELTA),
            DELTA,
            unit={"unit": "row"},
            adjacency=ADJACENCY,
            source=source,
            by="ada",
        )
    found = odometer(account.extract())
    assert found.faults == ()
    assert [each.enforced for each in found.spends] == [False] * 3
    assert found.total(enforced=True).cost == 0
