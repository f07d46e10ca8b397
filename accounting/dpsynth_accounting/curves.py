"""What an event costs: upper bounds on its privacy curve delta(epsilon).

A price is the least of several bounds, each valid by itself for a fixed plan whose queries (not
parameters) may adapt to earlier answers:

* *smoothed Gaussian*: discrete Gaussians are, up to a factor too small to matter, a
  post-processing of continuous ones with variance ``sigma2 - SMOOTHING``; continuous ones compose
  in closed form. Proof: ``docs/explanation/discrete-gaussian.md``.
* *privacy-loss distribution*: exact lattice where one shift dominates, bounded range for
  selections, smoothed Gaussians for the rest.
* *zero-concentrated DP* with the conversion of Canonne, Kamath and Steinke (2020, Prop. 12).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

from dpsynth_accounting import _pld
from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting.budget import Number, exact
from dpsynth_accounting.events import (
    ApproxDP,
    DiscreteGaussian,
    Event,
    Exponential,
    Gaussian,
    Repeat,
    Sequence,
    flatten,
)

SMOOTHING = 1.5
"""Variance, in squared integers, given up so that the lattice is smooth."""

_ETA = 2.0 * sum(math.exp(-2.0 * math.pi**2 * SMOOTHING * n * n) for n in (1, 2, 3))
PER_SHIFT = math.log1p(_ETA) - math.log1p(-_ETA)
"""Log of the factor by which one moved coordinate can differ from its smoothed twin."""

_LATTICE_WORTHWHILE = 600  # above this sigma2 smoothing costs less than 0.13 % of the noise
_ROUNDING = 1e-9  # relative margin on every epsilon for floating point
_HOPELESS = 1000  # rho from which no epsilon worth claiming is left: priced at infinity
_LOSSES_WORTHWHILE = 100  # rho above which privacy-loss distributions are too large to build


Leaves = Iterable[tuple[Event, int]]
"""Leaves of an event, each with how often it occurs."""


class _Bound(Protocol):
    def delta(self, epsilon: float) -> float: ...

    def epsilon(self, delta: float) -> float: ...


@dataclass(frozen=True)
class _GaussianBound:
    """mu-GDP (Dong, Roth, Su 2022, Corollary 2.13), loosened by a log factor ``slack``."""

    mu: float
    slack: float = 0.0

    def delta(self, epsilon: float) -> float:
        shifted = epsilon * (1 - _ROUNDING) - 2 * self.slack
        return min(1.0, math.exp(self.slack) * _gaussian_delta(self.mu, shifted))

    def epsilon(self, delta: float) -> float:
        target = delta * math.exp(-self.slack)
        return max(0.0, _gaussian_epsilon(self.mu, target) + 2 * self.slack) * (1 + _ROUNDING)


@dataclass(frozen=True)
class _ConcentratedBound:
    """rho-zCDP, by the conversion of Canonne, Kamath and Steinke (2020), Proposition 12."""

    rho: float

    def _orders(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return 1.0 + np.exp(np.linspace(-7.0, 14.0, 4000))

    def delta(self, epsilon: float) -> float:
        order = self._orders()
        log_delta = (
            (order - 1) * (order * self.rho - epsilon)
            - np.log(order - 1)
            + order * np.log1p(-1.0 / order)
        )
        return min(1.0, float(np.exp(np.minimum(log_delta, 0.0).min())))

    def epsilon(self, delta: float) -> float:
        order = self._orders()
        bounds = (
            order * self.rho
            + np.log1p(-1.0 / order)
            - (math.log(delta) + np.log(order)) / (order - 1)
        )
        return max(0.0, float(bounds.min())) * (1 + _ROUNDING)


@dataclass(frozen=True)
class _LossBound:
    """A composed privacy-loss distribution, loosened by a log factor ``slack``."""

    pld: Any
    slack: float = 0.0

    def delta(self, epsilon: float) -> float:
        shifted = epsilon * (1 - _ROUNDING) - 2 * self.slack
        found = float(self.pld.get_delta_for_epsilon(shifted))
        return min(1.0, math.exp(self.slack) * found + _pld.FFT_SLACK)

    def epsilon(self, delta: float) -> float:
        target = delta * math.exp(-self.slack) - _pld.FFT_SLACK
        if target <= 0:
            return math.inf
        found = float(self.pld.get_epsilon_for_delta(target))
        return max(0.0, found + 2 * self.slack) * (1 + _ROUNDING)


def _gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the exact delta(epsilon) of mu-GDP (Balle and Wang 2018, Theorem 8)."""
    if mu == 0:
        return max(0.0, -math.expm1(epsilon))
    first = float(ndtr(mu / 2 - epsilon / mu))
    log_second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return max(0.0, first - math.exp(min(log_second, 0.0))) if first > 0 else 0.0


def _gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the exact epsilon(delta) of mu-GDP; negative where total variation is below delta."""
    low = -0.5
    if _gaussian_delta(mu, low) <= delta:
        return low
    high = mu * mu / 2 + mu * float(-ndtri(delta)) + 1.0
    root = brentq(lambda e: _gaussian_delta(mu, e) - delta, low, high, xtol=1e-13, rtol=1e-14)
    return float(root) + 1e-12


@dataclass(frozen=True)
class Curve:
    """The privacy curve of an event: certified upper bounds, from whichever proof is tightest.

    Attributes:
        bounds: The valid bounds on the part of the event without declared (epsilon, delta).
        base_epsilon: Sum of the epsilons of :class:`ApproxDP` leaves.
        base_delta: Sum of their deltas.
    """

    bounds: tuple[_Bound, ...]
    base_epsilon: Fraction
    base_delta: Fraction

    def epsilon(self, delta: Number) -> float:
        """Return the least certified epsilon at ``delta`` (infinite if there is none)."""
        left = exact(delta) - self.base_delta
        if left < 0 or (self.bounds and float(left) == 0):
            return math.inf
        least = min((bound.epsilon(float(left)) for bound in self.bounds), default=0.0)
        return float(self.base_epsilon) + least

    def delta(self, epsilon: Number) -> float:
        """Return the least certified delta at ``epsilon``."""
        left = exact(epsilon) - self.base_epsilon
        if left < 0:
            return 1.0
        least = min((bound.delta(float(left)) for bound in self.bounds), default=0.0)
        return min(1.0, float(self.base_delta) + least)

    def true_positive_rate(self, false_positive_rate: float) -> float:
        """Return the greatest rate at which any attacker can recognise a member.

        Any test with that false-positive rate has TPR <= e^epsilon * FPR + delta(epsilon), for
        every epsilon (Kairouz, Oh, Viswanath 2015, Theorem 2.1; and the mirrored region).
        """
        if not 0 <= false_positive_rate <= 1:
            raise InvalidRequest(
                "An attacker's rate was asked for at a false-positive rate outside [0, 1].",
                "A rate is a probability.",
                "Ask at 0.01, for instance.",
            )
        best = 1.0
        for epsilon, delta in self._frontier:
            odds = math.exp(min(epsilon, 700.0))
            best = min(best, odds * false_positive_rate + delta)
            # The mirrored test: the attacker's false negatives bound the false positives.
            best = min(best, 1 - (1 - false_positive_rate - delta) / odds)
        return min(1.0, best * (1 + _ROUNDING))

    @cached_property
    def _frontier(self) -> list[tuple[float, float]]:
        """Points (epsilon, delta) of the curve, from its base to where delta is negligible."""
        low = float(self.base_epsilon)
        top = min(self.epsilon(max(self.base_delta * 2, Fraction(1, 10**12))), low + 100.0)
        # Added exactly, so that the first point is not below the base.
        grid = [self.base_epsilon + Fraction(float(s)) for s in np.linspace(0.0, top - low, 200)]
        return [(float(epsilon), self.delta(epsilon)) for epsilon in grid]


@lru_cache(maxsize=256)
def curve(event: Event, *, interval: float = 1e-4, losses: bool = True) -> Curve:
    """Return the privacy curve of ``event``.

    Args:
        event: A fixed plan; its queries may adapt to earlier answers, its parameters may not.
        interval: Discretisation of privacy losses, in nats (coarser is faster and looser).
        losses: Whether to build privacy-loss distributions, the tightest and slowest bound.
    """
    leaves = flatten(event)
    declared = [(e, n) for e, n in leaves if isinstance(e, ApproxDP)]
    parts = [(e, n) for e, n in leaves if not isinstance(e, ApproxDP)]
    base = (
        sum((e.epsilon * n for e, n in declared), Fraction(0)),
        sum((e.delta * n for e, n in declared), Fraction(0)),
    )
    if not parts:
        return Curve((), *base)
    rho = sum((_rho(e) * n for e, n in parts), Fraction(0))
    if rho > _HOPELESS:
        return Curve((_ConcentratedBound(math.inf),), *base)
    bounds: list[_Bound] = [_ConcentratedBound(float(rho))]
    smooth = _smoothed(parts)
    if smooth is not None:
        bounds.append(smooth)
    if losses and rho <= _LOSSES_WORTHWHILE:
        composed = _losses(parts, interval)
        if composed is not None:
            bounds.append(composed)
    return Curve(tuple(bounds), *base)


def _rho(event: Event) -> Fraction:
    """Return the zCDP cost of a leaf.

    Discrete Gaussian: Canonne, Kamath, Steinke (2020), Theorem 14. Bounded range: Cesar and
    Rogers (2021), Lemma 3.4 (epsilon^2 / 8).
    """
    match event:
        case Gaussian(sigma, sensitivity):
            return Fraction(sensitivity * sensitivity / (sigma * sigma)) / 2
        case DiscreteGaussian(sigma2, l2_squared, _):
            return Fraction(l2_squared / sigma2) / 2
        case Exponential(epsilon):
            return Fraction(epsilon * epsilon) / 8
        case ApproxDP() | Repeat() | Sequence():
            raise TypeError("only leaves with a concentrated cost have one")


def _smoothed(parts: Leaves) -> _GaussianBound | None:
    """Return the closed form of leaves that are all Gaussian and smooth, or None."""
    mu2, slack = 0.0, 0.0
    for event, count in parts:
        match event:
            case Gaussian(sigma, sensitivity):
                mu2 += count * float(sensitivity * sensitivity / (sigma * sigma))
            case DiscreteGaussian(sigma2, l2_squared, shifts) if sigma2 > 2 * SMOOTHING:
                mu2 += count * l2_squared / (float(sigma2) - SMOOTHING)
                slack += count * shifts * PER_SHIFT
            case _:
                return None
    return _GaussianBound(math.sqrt(mu2), slack)


def _losses(parts: Leaves, interval: float) -> _LossBound | None:
    """Return the bound by composed privacy-loss distributions, or None where it cannot win.

    Selections and small lattices keep their own distribution; all else is smoothed.
    """
    plds: list[Any] = []
    rest: list[tuple[Event, int]] = []
    for event, count in parts:
        shift = _worst_shift(event)
        if isinstance(event, Exponential):
            plds.append(_pld.bounded_range(float(event.epsilon), count, interval))
        elif isinstance(event, DiscreteGaussian) and shift is not None:
            sigma = math.sqrt(float(event.sigma2))
            plds.append(_pld.discrete_gaussian(sigma, shift[0], count * shift[1], interval))
        else:
            rest.append((event, count))
    smooth = _smoothed(rest)
    if not plds or smooth is None:
        return None
    if smooth.mu > 0:
        plds.append(_pld.gaussian(smooth.mu, interval))
    return _LossBound(_composed(plds), smooth.slack)


def _worst_shift(event: Event) -> tuple[int, int] | None:
    """Return the (size, coordinates) of a shift that dominates all others, where one does.

    One coordinate: the discrete Gaussian is log-concave, so one threshold test is optimal against
    every shift and its power grows with the shift. Squared norm 2 or 3 over as many coordinates:
    only shifts by one fit. From 4 on (2, 0, 0, 0) fits too, and neither it nor (1, 1, 1, 1)
    dominates the other on a lattice.
    """
    match event:
        case DiscreteGaussian(sigma2) if sigma2 >= _LATTICE_WORTHWHILE:
            return None
        case DiscreteGaussian(_, l2_squared, 1):
            return math.isqrt(l2_squared), 1
        case DiscreteGaussian(_, l2_squared, shifts) if l2_squared == shifts < 4:
            return 1, shifts
        case _:
            return None


def _composed(plds: list[Any]) -> Any:
    total = plds[0]
    for pld in plds[1:]:
        total = total.compose(pld)
    return total
