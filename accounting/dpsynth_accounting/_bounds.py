"""Single bounds on a privacy curve, each valid by itself; `curves` takes the least of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dpsynth_accounting import _special as special
from dpsynth_accounting._choices import Choices
from dpsynth_accounting._loss import Array
from dpsynth_accounting.renyi import zcdp_to_approx_dp, zcdp_to_delta

ROUNDING = 1e-9
"""Relative margin on every epsilon for floating point."""


class Bound(Protocol):
    def delta(self, epsilon: float) -> float: ...

    def epsilon(self, delta: float) -> float: ...


@dataclass(frozen=True)
class GaussianBound:
    """mu-GDP (Dong, Roth, Su 2022, Corollary 2.13), loosened by a log factor ``slack``."""

    mu: float
    slack: float = 0.0

    def delta(self, epsilon: float) -> float:
        shifted = epsilon * (1 - ROUNDING) - 2 * self.slack
        return min(1.0, math.exp(self.slack) * gaussian_delta(self.mu, shifted))

    def epsilon(self, delta: float) -> float:
        target = delta * math.exp(-self.slack)
        return max(0.0, gaussian_epsilon(self.mu, target) + 2 * self.slack) * (1 + ROUNDING)


@dataclass(frozen=True)
class ConcentratedBound:
    """rho-zCDP, by the conversion of Canonne, Kamath and Steinke (2020), Proposition 12."""

    rho: float

    def delta(self, epsilon: float) -> float:
        return zcdp_to_delta(self.rho, epsilon)

    def epsilon(self, delta: float) -> float:
        return zcdp_to_approx_dp(self.rho, delta) * (1 + ROUNDING)


@dataclass(frozen=True)
class MixedBound:
    """Choices on top of the curve of everything else, loosened by a log factor ``slack``.

    Attributes:
        others: The curve of everything else, for a removed and for an added unit.
        choices: What choices do to it, if there are any.
        slack: As in :class:`GaussianBound`.
        margin: Delta set aside for floating point.
    """

    others: tuple[Callable[[Array], Array], ...]
    choices: Choices | None
    slack: float
    margin: float

    def delta(self, epsilon: float) -> float:
        shifted = epsilon * (1 - ROUNDING) - 2 * self.slack
        return min(1.0, math.exp(self.slack) * self._worst(shifted) + self.margin)

    def epsilon(self, delta: float) -> float:
        target = (delta - self.margin) * math.exp(-self.slack)
        found = first_below(self._worst, target)
        return max(0.0, found + 2 * self.slack) * (1 + ROUNDING)

    def _worst(self, epsilon: float) -> float:
        if self.choices is None:
            return max(float(other(np.array([epsilon]))[0]) for other in self.others)
        return max(self.choices.delta(other, epsilon) for other in self.others)


def first_below(falling: Callable[[float], float], target: float) -> float:
    """Return the least epsilon found at which a falling function is at most ``target``."""
    if target <= 0:
        return math.inf
    low, high = -0.5, 1.0
    if falling(low) <= target:
        return low
    while falling(high) > target:
        low, high = high, 2 * high
        if high > 1024:
            return math.inf
    while high - low > 1e-11 * max(1.0, high):
        middle = (low + high) / 2
        if falling(middle) <= target:
            high = middle
        else:
            low = middle
    return high


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the exact delta(epsilon) of mu-GDP (Balle and Wang 2018, Theorem 8)."""
    if mu == 0:
        return max(0.0, -math.expm1(epsilon))
    first = float(special.ndtr(mu / 2 - epsilon / mu))
    log_second = epsilon + float(special.log_ndtr(-mu / 2 - epsilon / mu))
    return max(0.0, first - math.exp(min(log_second, 0.0))) if first > 0 else 0.0


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the exact epsilon(delta) of mu-GDP; negative where total variation is below delta."""
    return first_below(lambda epsilon: gaussian_delta(mu, epsilon), delta)


def pure_mu(epsilon: float) -> float:
    """Return the mu of a Gaussian answer that dominates epsilon-DP, rounded up.

    A choice of epsilon-bounded range is dominated as if it were epsilon / 2-DP. Both proofs:
    ``docs/explanation/filters.md``.
    """
    return 2 * float(-special.ndtri(1 / (1 + math.exp(min(epsilon, 700.0))))) * (1 + 1e-12)


def gaussian_deltas(mu: float) -> Callable[[Array], Array]:
    """Return delta of mu-GDP as a function of arrays."""
    if mu == 0:
        return lambda epsilon: np.maximum(0.0, -np.expm1(np.minimum(epsilon, 1.0)))

    def deltas(epsilon: Array) -> Array:
        second = np.exp(np.minimum(epsilon + special.log_ndtr(-mu / 2 - epsilon / mu), 0.0))
        return np.asarray(np.maximum(0.0, special.ndtr(mu / 2 - epsilon / mu) - second))

    return deltas
