"""Filters: what an account adds up, fixed when the account is opened.

Between plans a person chooses the next one from what was seen, so their *parameters* adapt, and
privacy-loss distributions of whole histories are no valid check. A filter adds up one number a
plan, and that is proved to be enough, whatever rule chooses the plans: (epsilon, delta) itself, the
squared mu of Gaussian differential privacy, the rho of zCDP, or one Renyi divergence. Theorems and
proofs: ``docs/explanation/filters.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from dpsynth_accounting._bounds import gaussian_epsilon, pure_mu
from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting.budget import Budget, show
from dpsynth_accounting.curves import (
    PER_SHIFT,
    SMOOTHING,
    curve,
)
from dpsynth_accounting.events import (
    ApproxDP,
    Concentrated,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Exponential,
    Gaussian,
    GaussianBlock,
    Laplace,
    Parallel,
    RepeatAndSelect,
    SubsampledGaussian,
    flatten,
)
from dpsynth_accounting.renyi import rdp, rdp_to_approx_dp, rho, zcdp_to_approx_dp

_CONVERSION = Fraction(3, 4)
"""Share of delta that turns a cost into epsilon; the rest is for events with a delta of their own.
Additive accounts need no such split."""

_GRAIN = 1 << 60  # costs that are not rational by nature are rounded up to this denominator


@dataclass(frozen=True)
class Charge:
    """A cost, in the measure of a filter, and the delta that comes with it. Exact.

    >>> Charge(Fraction(1), Fraction(0)).fits(Charge(Fraction(1), Fraction(1, 10**6)))
    True
    """

    cost: Fraction
    delta: Fraction

    def __add__(self, other: Charge) -> Charge:
        """Return the two together."""
        return Charge(self.cost + other.cost, self.delta + other.delta)

    def __sub__(self, other: Charge) -> Charge:
        """Return what is left without the other."""
        return Charge(self.cost - other.cost, self.delta - other.delta)

    def fits(self, capacity: Charge) -> bool:
        """Say whether neither part exceeds the capacity's."""
        return self.cost <= capacity.cost and self.delta <= capacity.delta


NOTHING = Charge(Fraction(0), Fraction(0))


@dataclass(frozen=True)
class Filter:
    """A rule that adds up plans.

    Args:
        name: "additive", "gdp", "zcdp", or "rdp-" and a whole order from 2 on.

    Raises:
        InvalidRequest: There is no filter of that name.
    """

    name: str

    def __post_init__(self) -> None:
        """Refuse an unknown filter."""
        if self.name not in ("additive", "gdp", "zcdp") and self._order is None:
            raise InvalidRequest(
                f"A filter {self.name!r} was asked for.",
                "There are additive, gdp, zcdp and rdp-N with a whole order N of at least 2.",
                "Use additive, unless many small Gaussian plans are to come.",
            )

    @staticmethod
    def named(name: str) -> Filter:
        """Return the filter of a name."""
        return Filter(name)

    @property
    def _order(self) -> int | None:
        kind, _, order = self.name.partition("-")
        whole = kind == "rdp" and order.isdecimal() and order.isascii() and order[0] != "0"
        return int(order) if whole and int(order) >= 2 else None

    @property
    def measure(self) -> str:
        """What a cost is, in words."""
        names = {"additive": "epsilon", "gdp": "mu squared", "zcdp": "rho"}
        return names.get(self.name, f"Renyi divergence of order {self._order}")

    def capacity(self, budget: Budget) -> Charge:
        """Return all that an account of this budget holds.

        Raises:
            InvalidRequest: The budget holds nothing under this filter: its order is too small.
        """
        return self.allowance(budget.epsilon, budget.delta)

    def allowance(self, epsilon: Fraction, delta: Fraction) -> Charge:
        """Return the most that a plan may cost and still be (epsilon, delta)-DP by the filter.

        Raises:
            InvalidRequest: Nothing may: the Renyi order is too small for this epsilon and delta.
        """
        if self.name == "additive":
            return Charge(epsilon, delta)
        cost = self._greatest_cost(epsilon, delta)
        if cost <= 0:
            raise InvalidRequest(
                f"Epsilon {show(epsilon)} at delta {show(delta)} was asked for under {self.name}.",
                "The conversion from that order alone exceeds it.",
                "Use a greater order (about ln(1 / delta) / epsilon + 1), or another filter.",
            )
        return Charge(cost, delta * (1 - _CONVERSION))

    def _greatest_cost(self, epsilon: Fraction, delta: Fraction) -> Fraction:
        """Return the greatest cost found that is good for (epsilon, delta), or 0."""
        at = float(delta * _CONVERSION)
        return Fraction(_greatest_below(lambda x: self._epsilon_of(x, at), float(epsilon)))

    def charge(self, event: Event, epsilon: Fraction, delta: Fraction, budget: Budget) -> Charge:
        """Return what granting a plan takes, after pricing it afresh.

        Args:
            event: The whole plan.
            epsilon: What the plan claims to be private at, with ``delta``.
            delta: What the plan claims to be private at, with ``epsilon``.
            budget: The account's; numerical slack is charged at its epsilon.

        Raises:
            InvalidRequest: The plan costs more than it claims, or has no finite cost under this
                filter.
        """
        price = _price(event, delta)
        if price > float(epsilon):
            raise InvalidRequest(
                f"A plan was to be charged at epsilon {show(epsilon)}, delta {show(delta)}.",
                f"It costs epsilon {price:.6g} at that delta.",
                "Calibrate it, or charge what it costs.",
            )
        if self.name == "additive":
            return Charge(epsilon, delta)
        return self.cost(event, budget)

    def cost(self, event: Event, budget: Budget) -> Charge:
        """Return what an event takes under this filter; not for the additive one.

        Raises:
            InvalidRequest: The event has no finite cost under this filter.
        """
        total = NOTHING
        for leaf, count in flatten(event):
            total += _times(self._leaf(leaf, budget), count)
        return total

    def _leaf(self, leaf: Event, budget: Budget) -> Charge:
        if isinstance(leaf, Parallel):
            parts = [self.cost(each, budget) for each in leaf.events]
            return Charge(max(p.cost for p in parts), max(p.delta for p in parts))
        if isinstance(leaf, RepeatAndSelect):
            if self._order is None:
                raise self._costless(leaf)
            failing = max(self.cost(each, budget).delta for each in leaf.events)
            return Charge(_up(rdp(leaf, self._order)), failing / leaf.stop)
        own = leaf.delta if isinstance(leaf, ApproxDP) else Fraction(0)
        if self._order is not None:
            return Charge(_up(rdp(leaf, self._order)), own)
        if self.name == "gdp":
            return self._gaussian(leaf, budget) + Charge(Fraction(0), own)
        cost = rho(leaf)
        if cost is None:
            raise self._costless(leaf)
        return Charge(cost, own)

    def _gaussian(self, leaf: Event, budget: Budget) -> Charge:
        """Return the squared mu of a Gaussian mechanism that dominates a leaf."""
        match leaf:
            case Gaussian(sigma, sensitivity):
                return Charge(Fraction(sensitivity / sigma) ** 2, Fraction(0))
            case DiscreteGaussian(sigma2, l2_squared, shifts) if sigma2 > 2 * SMOOTHING:
                smooth = Fraction(l2_squared) / (sigma2 - Fraction(SMOOTHING))
                return Charge(smooth, _slack(shifts, budget))
            case GaussianBlock(precision, least, shifts) if least > 2 * SMOOTHING:
                return Charge(Fraction(precision), _slack(shifts, budget))
            case Exponential(epsilon):
                return Charge(_pure_mu2(float(epsilon) / 2), Fraction(0))
            case Laplace(scale, sensitivity) | DiscreteLaplace(scale, sensitivity):
                return Charge(_pure_mu2(float(sensitivity / scale)), Fraction(0))
            case ApproxDP(epsilon, _):
                return Charge(_pure_mu2(float(epsilon)) if epsilon else Fraction(0), Fraction(0))
            case _:
                raise self._costless(leaf)

    def _costless(self, leaf: Event) -> InvalidRequest:
        instead = {
            SubsampledGaussian: "Use an account that is additive or adds up rdp-16.",
            RepeatAndSelect: "Use an account that is additive or adds up rdp-16.",
            DiscreteGaussian: "Use more noise (sigma2 above 3), or an additive or zCDP account.",
            GaussianBlock: "Use more noise (sigma2 above 3), or an additive or zCDP account.",
            Concentrated: "Use an account that is additive or adds up zCDP.",
        }
        return InvalidRequest(
            f"A {type(leaf).__name__} was to be charged to an account that adds up {self.measure}.",
            "It has no finite cost in that measure.",
            instead.get(type(leaf), "Use an additive account."),
        )

    def epsilon(self, left: Charge, delta: Fraction) -> Fraction:
        """Return the greatest epsilon that one further plan may claim, rounded down.

        Args:
            left: What the account has left.
            delta: The delta at which the plan would claim it.
        """
        if self.name == "additive":
            return max(left.cost, Fraction(0))
        if left.cost <= 0 or delta <= 0:
            return Fraction(0)
        found = max(self._epsilon_of(float(left.cost), float(delta * _CONVERSION)), 0.0)
        # The search behind an allowance ends a hair below: what fits by it exactly is offered.
        whole = Fraction(str(round(found, 9)))
        if self._greatest_cost(whole, delta) <= left.cost:
            return whole
        return Fraction(math.floor(found * (1 - 1e-9) * 2**40), 2**40)

    def _epsilon_of(self, cost: float, delta: float) -> float:
        """Return the epsilon at ``delta`` that a cost in this measure is good for."""
        if self._order is not None:
            return rdp_to_approx_dp(cost, self._order, delta)
        if self.name == "gdp":
            return gaussian_epsilon(math.sqrt(cost), delta)
        return zcdp_to_approx_dp(cost, delta)


ADDITIVE = Filter("additive")
"""The default: whole plans, each priced exactly, add up their epsilons and deltas."""


@lru_cache(maxsize=1024)
def _price(event: Event, delta: Fraction) -> float:
    """Return the certified price; kept, since a plan is priced again when it is reserved."""
    return curve(event).epsilon(delta)


def _times(charge: Charge, count: int) -> Charge:
    return Charge(charge.cost * count, charge.delta * count)


def _up(value: float) -> Fraction:
    return Fraction(math.ceil(Fraction(value * (1 + 1e-12)) * _GRAIN), _GRAIN)


def _pure_mu2(epsilon: float) -> Fraction:
    return _up(pure_mu(epsilon) ** 2)


def _slack(shifts: int, budget: Budget) -> Fraction:
    """Return the delta that stands for the factor between a lattice and its smoothed twin."""
    return _up(shifts * math.expm1(PER_SHIFT) * (1 + math.exp(float(budget.epsilon))))


def _greatest_below(rising: Callable[[float], float], target: float) -> float:
    """Return the greatest cost found at which a rising function is at most ``target``, or 0."""
    low, high = 0.0, 1.0
    while rising(high) <= target:
        low, high = high, 2 * high
    while high - low > 1e-12 * high and high > 1e-15:
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) <= target else (low, middle)
    return low
