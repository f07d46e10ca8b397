"""A privacy curve delta(epsilon): the least of several certified upper bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from dpsynth_accounting._bounds import ROUNDING, Bound, gaussian_delta
from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting._loss import Array
from dpsynth_accounting.budget import Number, exact


@dataclass(frozen=True)
class Curve:
    """The privacy curve of an event: certified upper bounds, from whichever proof is tightest.

    Attributes:
        bounds: Valid bounds, each with the epsilon to add to it: that of leaves known only as
            (epsilon, delta)-DP, where the bound leaves them out.
        base_delta: Sum of the deltas of such leaves; of parallel parts, the greatest.
    """

    bounds: tuple[tuple[Fraction, Bound | None], ...]
    base_delta: Fraction

    def epsilon(self, delta: Number) -> float:
        """Return the least certified epsilon at ``delta`` (infinite if there is none)."""
        left = exact(delta) - self.base_delta
        if left < 0:
            return math.inf
        return min(self._epsilon(base, bound, float(left)) for base, bound in self.bounds)

    @staticmethod
    def _epsilon(base: Fraction, bound: Bound | None, delta: float) -> float:
        if bound is None:
            return float(base)
        return float(base) + bound.epsilon(delta) if delta > 0 else math.inf

    def delta(self, epsilon: Number) -> float:
        """Return the least certified delta at ``epsilon``, which may be negative."""
        return min(1.0, float(self.base_delta) + self.conditional_delta(epsilon))

    def conditional_delta(self, epsilon: Number) -> float:
        """Return delta at ``epsilon`` without ``base_delta``: given that no such leaf failed."""
        wanted = exact(epsilon)
        return min(
            float(self._deltas(bound, np.array([float(wanted - base)]))[0])
            for base, bound in self.bounds
        )

    def conditional_deltas(self, epsilon: Array) -> Array:
        """Return :meth:`conditional_delta` at each epsilon, less exactly: rounded up."""
        found = [self._deltas(bound, epsilon - _float_up(base)) for base, bound in self.bounds]
        return np.asarray(np.min(found, axis=0))

    @staticmethod
    def _deltas(bound: Bound | None, epsilon: Array) -> Array:
        size = np.abs(epsilon)
        found = np.zeros(len(size)) if bound is None else bound.deltas(size)
        # Below 0 it is the same test, seen from the other law: delta(-e) = 1 - e^-e (1 - delta(e)).
        return np.where(epsilon < 0, 1 - np.exp(-size) * (1 - found), found)

    def advantage(self) -> float:
        """Return the greatest membership advantage, TPR - FPR, of any attacker: delta(0)."""
        return self.delta(0)

    def mu(self, delta: Number) -> float:
        """Return the mu of the Gaussian mechanism that has the same epsilon at ``delta``.

        For a plan of Gaussian steps it is the plan's own mu, up to rounding; for others it is a
        summary at one delta, not a guarantee at another.
        """
        return mu_of(self.epsilon(delta), float(exact(delta)))

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
        return min(1.0, best * (1 + ROUNDING))

    def top(self, least: Fraction) -> float:
        """Return an epsilon beyond which hardly any delta is left above ``base_delta``.

        Args:
            least: What is wanted to be left; more is where no epsilon has so little.
        """
        deltas = (least, *(Fraction(1, 10**digits) for digits in (10, 9, 7, 5, 3)))
        tops = (self.epsilon(self.base_delta + each) for each in deltas)
        return next((epsilon for epsilon in tops if epsilon < math.inf), math.inf)

    @cached_property
    def _frontier(self) -> list[tuple[float, float]]:
        """Points (epsilon, delta) of the curve, from 0 to where delta is negligible."""
        top = self.top(Fraction(1, 10**11))
        if math.isinf(top):
            return []
        # The sums of declared epsilons are corners of the curve.
        corners = {base for base, _ in self.bounds}
        grid = corners | {Fraction(float(s)) for s in np.linspace(0.0, min(top, 200.0), 200)}
        return [(float(epsilon), self.delta(epsilon)) for epsilon in sorted(grid)]


def _float_up(value: Fraction) -> float:
    """Return the least float that is not below a rational."""
    near = float(value)
    return near if near >= value else math.nextafter(near, math.inf)


def mu_of(epsilon: float, delta: float) -> float:
    """Return the mu of the Gaussian mechanism with a given (epsilon, delta)."""
    if math.isinf(epsilon):
        return math.inf
    low, high = 0.0, 1.0
    while gaussian_delta(high, epsilon) < delta:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, epsilon) < delta else (low, middle)
    return high
