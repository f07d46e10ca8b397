"""Single bounds on a privacy curve, each valid by itself; `curves` takes the least of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from dpsynth_accounting import _special as special
from dpsynth_accounting._choices import Choices
from dpsynth_accounting._loss import Array
from dpsynth_accounting.renyi import zcdp_to_approx_dp, zcdp_to_deltas

ROUNDING = 1e-9
"""Relative margin on every epsilon for floating point."""


class Bound(Protocol):
    def deltas(self, epsilon: Array) -> Array: ...

    def epsilon(self, delta: float) -> float: ...


@dataclass(frozen=True)
class GaussianBound:
    """mu-GDP (Dong, Roth, Su 2022, Corollary 2.13), loosened by a log factor ``slack``."""

    mu: float
    slack: float = 0.0

    def deltas(self, epsilon: Array) -> Array:
        shifted = epsilon * (1 - ROUNDING) - 2 * self.slack
        return np.minimum(1.0, math.exp(self.slack) * gaussian_deltas(self.mu)(shifted))

    def epsilon(self, delta: float) -> float:
        target = delta * math.exp(-self.slack)
        return max(0.0, gaussian_epsilon(self.mu, target) + 2 * self.slack) * (1 + ROUNDING)


@dataclass(frozen=True)
class ConcentratedBound:
    """rho-zCDP, by the conversion of Canonne, Kamath and Steinke (2020), Proposition 12."""

    rho: float

    def deltas(self, epsilon: Array) -> Array:
        return zcdp_to_deltas(self.rho, epsilon * (1 - ROUNDING))

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

    def deltas(self, epsilon: Array) -> Array:
        shifted = epsilon * (1 - ROUNDING) - 2 * self.slack
        return np.minimum(1.0, math.exp(self.slack) * self._worst(shifted) + self.margin)

    def epsilon(self, delta: float) -> float:
        target = (delta - self.margin) * math.exp(-self.slack)
        found = first_below(lambda at: float(self._worst(np.array([at]))[0]), target)
        return max(0.0, found + 2 * self.slack) * (1 + ROUNDING)

    def _worst(self, epsilon: Array) -> Array:
        curves = self.others
        if self.choices is not None:
            curves = tuple(partial(self.choices.deltas, other) for other in self.others)
        return np.asarray(np.max([each(epsilon) for each in curves], axis=0))


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
    """Return delta(epsilon) of mu-GDP, rounded up (Balle and Wang 2018, Theorem 8)."""
    if mu == 0:
        return max(0.0, -math.expm1(epsilon))
    first = float(special.ndtr(mu / 2 - epsilon / mu))
    log_second = epsilon + float(special.log_ndtr(-mu / 2 - epsilon / mu))
    lost = float(_lost(np.float64(mu / 2 + epsilon / mu)))
    second = math.exp(min(log_second, 0.0))
    return max(0.0, first * (1 + lost) - second) if first > 0 else 0.0


def _lost(z: Array | np.float64) -> Array:
    """Return the share of Phi's tail at z that rounding may take from a difference of two."""
    return np.asarray(1e-15 * (1 + np.minimum(np.abs(z), 40.0) ** 2))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the exact epsilon(delta) of mu-GDP; negative where total variation is below delta."""
    return first_below(lambda epsilon: gaussian_delta(mu, epsilon), delta)


def pure_mu(epsilon: float) -> float:
    """Return the mu of a Gaussian answer that dominates epsilon-DP, rounded up.

    A choice of epsilon-bounded range is dominated as if it were epsilon / 2-DP. Both proofs:
    ``docs/explanation/filters.md``.
    """
    if epsilon < 1:  # where the quantile is near 1/2 its own digits are lost
        mu = math.sqrt(8) * float(special.erfinv(math.tanh(epsilon / 2)))
    elif epsilon < 700:
        mu = 2 * float(-special.ndtri(1 / (1 + math.exp(epsilon))))
    else:
        mu = math.sqrt(8 * epsilon)  # above it, since Phi(-x) <= exp(-x^2 / 2) / 2
    return mu * (1 + 1e-12)


def pure_mu_inverse(mu: float) -> float:
    """Return the epsilon whose :func:`pure_mu` is ``mu``, up to rounding: log-odds of Phi(mu/2)."""
    half = mu / 2
    if half < 1:
        return 2 * math.atanh(math.erf(half / math.sqrt(2)))
    odds = float(special.log_ndtr(half) - special.log_ndtr(-half))
    return max(min(odds, 699.0), mu * mu / 8)  # beyond 700 the other is a bound as well


def gaussian_deltas(mu: float) -> Callable[[Array], Array]:
    """Return delta of mu-GDP as a function of arrays."""
    if mu == 0:
        return lambda epsilon: np.maximum(0.0, -np.expm1(np.minimum(epsilon, 1.0)))

    def deltas(epsilon: Array) -> Array:
        second = np.exp(np.minimum(epsilon + special.log_ndtr(-mu / 2 - epsilon / mu), 0.0))
        first = special.ndtr(mu / 2 - epsilon / mu)
        lost = _lost(mu / 2 + epsilon / mu)
        return np.asarray(np.where(first > 0, np.maximum(0.0, first * (1 + lost) - second), 0.0))

    return deltas
