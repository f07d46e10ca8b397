"""Reference prices: those kept beside the checkout, and a dozen published ones kept here.

Each row states a certified lower and upper epsilon. A price below the lower one would be a false
promise; one above the upper one is waste.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dpsynth_accounting import (
    Concentrated,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Exponential,
    Gaussian,
    InvalidRequest,
    Laplace,
    Repeat,
    Sequence,
    SubsampledGaussian,
    curve,
    event_from_json,
    event_to_json,
)
from dpsynth_accounting.renyi import zcdp_to_approx_dp_bun_steinke

VECTORS = Path(__file__).parents[2] / ".." / "shared" / "vectors" / "accounting_vectors.csv"
needs_vectors = pytest.mark.skipif(
    not VECTORS.is_file(), reason="../shared/vectors is not beside this checkout"
)


@dataclass(frozen=True)
class Row:
    """One line of the file."""

    name: str
    mechanism: str
    facts: Mapping[str, Any]
    delta: float
    low: float
    high: float

    @property
    def event(self) -> Event:
        """What the line is the price of."""
        return event_of(self.mechanism, self.facts)


def exactly(value: float | int | str) -> Fraction:
    return Fraction(str(value))


def event_of(mechanism: str, facts: Mapping[str, Any]) -> Event:
    match mechanism:
        case "gaussian":
            one: Event = Gaussian(exactly(facts["sigma"]), exactly(facts.get("sensitivity", 1)))
        case "discrete_gaussian":
            sigma = exactly(facts["sigma"])
            one = DiscreteGaussian(sigma * sigma, int(facts["sensitivity"]) ** 2)
        case "laplace":
            one = Laplace(exactly(facts["scale"]), exactly(facts.get("sensitivity", 1)))
        case "discrete_laplace":
            one = DiscreteLaplace(1 / exactly(facts["a"]), int(facts["sensitivity"]))
        case "exponential_mechanism(bounded range)":
            one = Exponential(exactly(facts["eps"]))
        case "poisson_subsampled_gaussian(add/remove)":
            return sampled(facts)
        case "poisson_subsampled_gaussian(replace-one)":
            return sampled(facts)
        case "expmech(BR)+gaussian":
            choices = Repeat(Exponential(exactly(facts["exp_eps"])), facts["exp_count"])
            return Sequence((choices, Gaussian(Fraction(1), exactly(facts["gaussian_mu"]))))
        case "mixed":
            return mixed(facts)
        case _:
            raise AssertionError(f"no event for {mechanism}")
    return Repeat(one, int(facts["count"]))


def sampled(facts: Mapping[str, Any]) -> Event:
    return SubsampledGaussian(exactly(facts["q"]), exactly(facts["sigma"]), int(facts["steps"]))


def mixed(facts: Mapping[str, Any]) -> Event:
    parts: list[Event] = []
    for kind, value in facts.items():
        match kind:
            case "phases":
                parts += [sampled(phase) for phase in value]
            case "dpsgd":
                parts.append(sampled(value))
            case _:
                parts.append(event_of(kind, value))
    return Sequence(tuple(parts))


def rows(*starts: str, other: bool = False) -> list[Row]:
    """Return the rows whose mechanism begins so (or, ``other``, those of which none does)."""
    if not VECTORS.is_file():
        return []
    with VECTORS.open(newline="", encoding="utf-8") as file:
        found = [
            Row(
                line["name"],
                line["mechanism"],
                json.loads(line["params json"]),
                float(line["delta"]),
                float(line["eps_lower"]),
                float(line["eps_upper"]),
            )
            for line in csv.DictReader(file)
        ]
    return [row for row in found if row.mechanism.startswith(starts) != other]


def each(found: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", found, ids=[row.name for row in found])


REPLACE_ONE = "poisson_subsampled_gaussian(replace-one)"
CONVERSIONS = ("zcdp->", "(eps,delta)->rho")


def limit(row: Row) -> float:
    """Return the greatest price that is allowed: a tenth of a per cent above the upper bound.

    Below 0.1 that is less than the error of the grids behind the file's own numbers.
    """
    return row.high * 1.001 if row.high >= 0.1 else row.high + 0.002


@needs_vectors
@each(rows(REPLACE_ONE, *CONVERSIONS, other=True))
def test_prices_are_not_below_the_lower_nor_above_the_upper_bound(row: Row) -> None:
    found = curve(row.event).epsilon(row.delta)
    assert row.low <= found <= limit(row)


@needs_vectors
@each(rows("zcdp->(eps,delta) CKS"))
def test_zcdp_is_converted_as_by_canonne_kamath_and_steinke(row: Row) -> None:
    found = curve(Concentrated(exactly(row.facts["rho"]))).epsilon(row.delta)
    assert row.low <= found <= row.high * 1.001


@needs_vectors
@each(rows("zcdp->(eps,delta) Bun"))
def test_the_older_conversion_is_there_by_name_only(row: Row) -> None:
    rho = exactly(row.facts["rho"])
    found = zcdp_to_approx_dp_bun_steinke(float(rho), row.delta)
    assert float(found) == pytest.approx(row.high, rel=1e-8)
    assert curve(Concentrated(rho)).epsilon(row.delta) < found


@needs_vectors
@each(rows("(eps,delta)->rho"))
def test_rho_for_a_budget_is_the_one_whose_price_is_the_budget(row: Row) -> None:
    found = curve(Concentrated(exactly(row.facts["rho"]))).epsilon(row.delta)
    assert row.low <= found * (1 + 1e-9) <= row.high * 1.001
    less = zcdp_to_approx_dp_bun_steinke(row.facts["rho_bun_steinke"], row.delta)
    assert float(less) == pytest.approx((row.low + row.high) / 2, rel=1e-5)
    exact = Gaussian(Fraction(1), exactly(row.facts["mu_gdp_exact"]))
    assert curve(exact).epsilon(row.delta) == pytest.approx((row.low + row.high) / 2, rel=1e-5)


@needs_vectors
@each(rows(REPLACE_ONE))
def test_replace_one_has_no_event_and_add_or_remove_costs_less(row: Row) -> None:
    """Replacing a record costs up to twice as much: no event states it, so none can be mixed."""
    data = event_to_json(row.event)
    with pytest.raises(InvalidRequest):
        event_from_json({**data, "adjacency": "replace_one"})
    found = curve(row.event).epsilon(row.delta)
    assert 0.3 * row.low < found < row.low


@needs_vectors
def test_every_row_of_the_file_is_of_a_kind_that_is_tested() -> None:
    """A row of a new kind would otherwise be passed over."""
    for row in rows(*CONVERSIONS, other=True):
        assert isinstance(row.event, Event)
    every, conversions = rows(""), rows(*CONVERSIONS)
    assert {row.mechanism for row in conversions} <= {
        "zcdp->(eps,delta) CKS2020 Prop12",
        "zcdp->(eps,delta) Bun-Steinke2016 Prop1.3",
        "(eps,delta)->rho",
    }
    assert len(every) >= 60


# -- published values, which stand without the file ------------------------------------------------

PUBLISHED = [
    # Balle and Wang (2018): the analytic calibration, sigma for an epsilon and a delta.
    ("gaussian eps 1", Gaussian(Fraction("3.730631635")), 1e-5, 1.0, 1.0),
    ("gaussian eps 8", Gaussian(Fraction("0.6002290722")), 1e-5, 8.0, 8.0),
    ("gaussian eps 1, 1e-9", Gaussian(Fraction("5.495266157")), 1e-9, 1.0, 1.0),
    # Canonne, Kamath, Steinke (2020): a discrete Gaussian of sigma 1 costs 1.2 % more.
    ("discrete gaussian", DiscreteGaussian(Fraction(1)), 1e-5, 4.430237, 4.430239),
    # Abadi et al. (2016), section 3: q = 0.01, sigma = 4, 10,000 steps. Their moments gave 1.26.
    (
        "abadi 2016",
        SubsampledGaussian(Fraction(1, 100), Fraction(4), 10_000),
        1e-5,
        0.9449,
        0.9470,
    ),
    # The tutorials of TensorFlow Privacy: MNIST, batches of 256 of 60,000.
    (
        "mnist 1.1",
        SubsampledGaussian(Fraction(256, 60_000), Fraction("1.1"), 14_062),
        1e-5,
        2.3796,
        2.3817,
    ),
    (
        "mnist 1.3",
        SubsampledGaussian(Fraction(256, 60_000), Fraction("1.3"), 3_515),
        1e-5,
        0.8624,
        0.86446,
    ),
    (
        "mnist 0.7",
        SubsampledGaussian(Fraction(256, 60_000), Fraction("0.7"), 10_546),
        1e-5,
        5.6374,
        5.63945,
    ),
    # Gopi, Lee, Wutschitz (2021): an interval of certified numerics around a common setting.
    (
        "q .01 sigma 1",
        SubsampledGaussian(Fraction(1, 100), Fraction(1), 10_000),
        1e-5,
        6.1774,
        6.1878,
    ),
    ("fifty laplace", Repeat(Laplace(Fraction(10)), 50), 1e-5, 2.79640, 2.796603),
    # Dong, Durfee, Rogers (2020): one choice has a closed form.
    (
        "one choice",
        Exponential(Fraction(1)),
        1e-3,
        2 * math.log(math.sqrt(math.e) - math.sqrt(1e-3 * (math.e - 1))),
        0.949074084,
    ),
    # Bun and Steinke (2016) by the conversion of Canonne, Kamath and Steinke (2020).
    ("zcdp", Concentrated(Fraction(1, 10)), 1e-5, 1.9142387, 1.9142389),
]


@pytest.mark.parametrize(
    ("event", "delta", "low", "high"),
    [line[1:] for line in PUBLISHED],
    ids=[str(line[0]) for line in PUBLISHED],
)
def test_published_values(event: Event, delta: float, low: float, high: float) -> None:
    found = curve(event).epsilon(delta)
    assert low * (1 - 1e-8) <= found <= high * 1.001


# -- the plan of an adaptive mechanism -------------------------------------------------------------

SELECTED = [
    # (choices, epsilon of each, mu of the rest, delta, greatest price)
    (50, "0.3", None, 1e-5, 4.6823),
    (10, "1", None, 1e-6, 7.7420),
    (200, "0.2", None, 1e-6, 7.2926),
    (16, "0.0865", "0.17292362", 1e-9, 1.3613),
    (100, "0.0346", "0.173127197", 1e-9, 1.3673),
    (50, "0.1", "0.2", 1e-6, 1.7992),
]


@pytest.mark.parametrize(("count", "epsilon", "mu", "delta", "most"), SELECTED)
def test_many_choices_cost_what_their_value_iteration_says(
    count: int, epsilon: str, mu: str | None, delta: float, most: float
) -> None:
    """The figures that the noise of a plan rests on; from below they are tested elsewhere."""
    parts: list[Event] = [Repeat(Exponential(Fraction(epsilon)), count)]
    if mu is not None:
        parts.append(Gaussian(Fraction(1), Fraction(mu)))
    assert curve(Sequence(tuple(parts))).epsilon(delta) <= most
