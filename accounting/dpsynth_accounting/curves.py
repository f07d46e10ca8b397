"""What an event costs: upper bounds on its privacy curve delta(epsilon).

A price is the least of several bounds, each valid by itself for a fixed plan whose queries (not
parameters) may adapt to earlier answers:

* *smoothed Gaussian*: discrete Gaussians are, up to a factor too small to matter, a
  post-processing of continuous ones with variance ``sigma2 - SMOOTHING``; continuous ones compose
  in closed form. Proof: ``docs/explanation/discrete-gaussian.md``.
* *privacy-loss distribution*: exact lattice where every shift is one, bounded range for selections.
* *zero-concentrated DP* with the conversion of Canonne, Kamath and Steinke (2020, Prop. 12).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

from dpsynth_accounting import _pld
from dpsynth_accounting._errors import InvalidRequest
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

_LATTICE_WORTHWHILE = 600.0  # above this sigma2 smoothing costs less than 0.13 % of the noise
_ROUNDING = 1e-9  # relative margin on every epsilon for floating point


class _Bound(Protocol):
    def delta(self, epsilon: float) -> float: ...

    def epsilon(self, delta: float) -> float: ...


@dataclass(frozen=True)
class _GaussianBound:
    """mu-GDP (Dong, Roth, Su 2022, Corollary 2.13), loosened by a log factor ``slack``."""

    mu: float
    slack: float = 0.0

    def delta(self, epsilon: float) -> float:
        return min(1.0, math.exp(self.slack) * _gaussian_delta(self.mu, epsilon - 2 * self.slack))

    def epsilon(self, delta: float) -> float:
        target = delta * math.exp(-self.slack)
        return max(0.0, _gaussian_epsilon(self.mu, target) + 2 * self.slack) * (1 + _ROUNDING)


@dataclass(frozen=True)
class _ConcentratedBound:
    """rho-zCDP."""

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
        found = float(self.pld.get_delta_for_epsilon(epsilon - 2 * self.slack))
        return min(1.0, math.exp(self.slack) * found + _pld.FFT_SLACK)

    def epsilon(self, delta: float) -> float:
        target = delta * math.exp(-self.slack) - _pld.FFT_SLACK
        if target <= 0:
            return math.inf
        found = float(self.pld.get_epsilon_for_delta(target))
        return max(0.0, found + 2 * self.slack) * (1 + _ROUNDING)


def _gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the exact delta(epsilon) of mu-GDP (Balle and Wang 2018, Theorem 8)."""
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
    base_epsilon: float
    base_delta: float

    def epsilon(self, delta: float) -> float:
        """Return the least certified epsilon at ``delta`` (infinite if there is none)."""
        left = delta - self.base_delta
        if left < 0 or (left == 0 and self.bounds):
            return math.inf
        if not self.bounds:
            return self.base_epsilon
        return self.base_epsilon + min(bound.epsilon(left) for bound in self.bounds)

    def delta(self, epsilon: float) -> float:
        """Return the least certified delta at ``epsilon``."""
        left = epsilon - self.base_epsilon
        if left < 0:
            return 1.0
        least = min((bound.delta(left) for bound in self.bounds), default=0.0)
        return min(1.0, self.base_delta + least)

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
        top = self.epsilon(max(self.base_delta * 2, 1e-12)) if self.bounds else self.base_epsilon
        grid = self.base_epsilon + np.linspace(0.0, max(top - self.base_epsilon, 0.0), 200)
        best = 1.0
        for epsilon in grid:
            delta = self.delta(float(epsilon))
            best = min(best, math.exp(min(epsilon, 700.0)) * false_positive_rate + delta)
            # The mirrored test: the attacker's false negatives bound the false positives.
            best = min(
                best, 1 - (1 - false_positive_rate - delta) * math.exp(-min(epsilon, 700.0))
            )
        return min(1.0, best)


@lru_cache(maxsize=256)
def curve(event: Event, *, interval: float = 1e-4, losses: bool = True) -> Curve:
    """Return the privacy curve of ``event``.

    Args:
        event: A fixed plan; its queries may adapt to earlier answers, its parameters may not.
        interval: Discretisation of privacy losses, in nats (coarser is faster and looser).
        losses: Whether to build privacy-loss distributions, the tightest and slowest bound.
    """
    leaves = flatten(event)
    base_epsilon = sum(float(e.epsilon) * n for e, n in leaves if isinstance(e, ApproxDP))
    base_delta = sum(float(e.delta) * n for e, n in leaves if isinstance(e, ApproxDP))
    parts = [(e, n) for e, n in leaves if not isinstance(e, ApproxDP)]
    bounds: list[_Bound] = []
    if parts:
        bounds.append(_ConcentratedBound(sum(_rho(e) * n for e, n in parts)))
        selections = [(e, n) for e, n in parts if isinstance(e, Exponential)]
        smooth = _smoothed(parts)
        if smooth is not None and not selections:
            bounds.append(smooth)
        if losses:
            bounds.extend(_loss_bounds(parts, selections, smooth, interval))
    return Curve(tuple(bounds), base_epsilon, base_delta)


def _rho(event: Event) -> float:
    """Return the zCDP cost of a leaf.

    Discrete Gaussian: Canonne, Kamath, Steinke (2020), Theorem 14. Bounded range: Cesar and
    Rogers (2021), Lemma 3.4 (epsilon^2 / 8).
    """
    match event:
        case Gaussian(sigma, sensitivity):
            return float(sensitivity * sensitivity / (sigma * sigma)) / 2
        case DiscreteGaussian(sigma2, l2_squared, _):
            return float(l2_squared / sigma2) / 2
        case Exponential(epsilon):
            return float(epsilon * epsilon) / 8
        case ApproxDP() | Repeat() | Sequence():
            raise TypeError("only leaves with a concentrated cost have one")


def _smoothed(parts: list[tuple[Event, int]]) -> _GaussianBound | None:
    """Return the closed-form bound on the Gaussian leaves, or None where smoothing is impossible."""
    mu2, slack = 0.0, 0.0
    for event, count in parts:
        match event:
            case Gaussian(sigma, sensitivity):
                mu2 += count * float(sensitivity * sensitivity / (sigma * sigma))
            case DiscreteGaussian(sigma2, l2_squared, shifts):
                if sigma2 <= 2 * SMOOTHING:
                    return None
                mu2 += count * l2_squared / (float(sigma2) - SMOOTHING)
                slack += count * shifts * PER_SHIFT
            case _:
                continue
    return _GaussianBound(math.sqrt(mu2), slack) if mu2 > 0 else _GaussianBound(0.0)


def _loss_bounds(
    parts: list[tuple[Event, int]],
    selections: list[tuple[Event, int]],
    smooth: _GaussianBound | None,
    interval: float,
) -> list[_Bound]:
    """Return bounds by composed privacy-loss distributions, where they can win."""
    chosen = [
        _pld.bounded_range(float(e.epsilon), n, interval)
        for e, n in selections
        if isinstance(e, Exponential)
    ]
    found: list[_Bound] = []
    if smooth is not None and selections:
        plds = [*chosen, _pld.gaussian(smooth.mu, interval)] if smooth.mu > 0 else chosen
        found.append(_LossBound(_composed(plds), smooth.slack))
    lattice = [(e, n) for e, n in parts if isinstance(e, DiscreteGaussian)]
    unit_shifts = all(e.l2_squared == e.shifts for e, _ in lattice)
    small = any(float(e.sigma2) < _LATTICE_WORTHWHILE for e, _ in lattice)
    if lattice and unit_shifts and small:
        plds = [
            _pld.discrete_gaussian(math.sqrt(float(e.sigma2)), n * e.shifts, interval)
            for e, n in lattice
        ]
        mu2 = sum(
            n * float(e.sensitivity * e.sensitivity / (e.sigma * e.sigma))
            for e, n in parts
            if isinstance(e, Gaussian)
        )
        if mu2 > 0:
            plds.append(_pld.gaussian(math.sqrt(mu2), interval))
        found.append(_LossBound(_composed([*plds, *chosen])))
    return found


def _composed(plds: list[Any]) -> Any:
    total = plds[0]
    for pld in plds[1:]:
        total = total.compose(pld)
    return total
