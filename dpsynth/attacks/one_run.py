"""What one run with many canaries says about epsilon: two bounds on how many guesses come right.

Each of ``m`` canaries was put in by a fair coin of its own; whoever sees the output guesses the
coins of ``r`` of them, chosen as they like, and is right about ``c``. Under a claim of privacy so
many right guesses have a small probability, which is bounded here in two ways:

* for one pair (epsilon, delta): Steinke, Nasr, Jagielski (2023), "Privacy auditing with one (1)
  training run", Theorem 5.2;
* for a whole privacy curve: an inequality between the parts of right and wrong guesses, in the
  form of Mahloujifar, Melis, Chaudhuri (2024), "Auditing f-differential privacy in one run", with
  the worst law of the number of right guesses worked out exactly.

Proofs: ``docs/explanation/canaries.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dpsynth_accounting import Curve, Gaussian, InvalidRequest, curve

Floats = NDArray[np.float64]

LEVEL = 0.999
"""Confidence at which a claim is refuted."""

LEAST_P = 1e-12
"""Probabilities below are given as this."""

_POINTS = 160  # of a privacy curve: fewer only weaken what is refuted
_NEGLIGIBLE = Fraction(1, 10**9)  # delta beyond which a curve is not followed
_MOST_EPSILON = 60.0  # of a curve's points, and of a lower bound
_SAME = 1e-9  # by which logarithms of slopes differ that are taken as equal
_TAILS = 33  # tried at once where a probability is searched for


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim of privacy as lines: TPR <= e^epsilon FPR + delta, and the same of the other side.

    Attributes:
        epsilons: float64 (lines,), at least 0.
        deltas: float64 (lines,), the delta claimed at each.
    """

    epsilons: Floats
    deltas: Floats

    @classmethod
    def of(cls, promised: Curve) -> Claim:
        """Return the claim that a plan's privacy curve makes."""
        top = min(promised.top(_NEGLIGIBLE), _MOST_EPSILON)
        epsilons = np.linspace(0.0, top, _POINTS)
        deltas = promised.conditional_deltas(epsilons) + float(promised.base_delta)
        return cls(epsilons, np.minimum(deltas * (1 + 1e-9), 1.0))

    @classmethod
    def pair(cls, epsilon: float, delta: float) -> Claim:
        """Return the claim of (epsilon, delta)-differential privacy alone."""
        return cls(np.array([epsilon]), np.array([delta]))

    @classmethod
    def gaussian(cls, mu: float) -> Claim:
        """Return the claim of Gaussian differential privacy (Dong, Roth, Su 2022)."""
        return cls.of(curve(Gaussian(Fraction(1), Fraction(mu))))

    def replaced(self) -> Claim:
        """Return what the claim says where a unit is changed: it is removed, and another added.

        With F the greatest true-positive rate of a false-positive rate, that is F of F: lines of
        lines, of which the lowest of each slope are kept. Of a pair these are (2 epsilon, delta
        (1 + e^epsilon)) and the line of slope 1.
        """
        wrong = 1 - np.exp(-self.epsilons) * (1 - self.deltas)
        slopes = np.concatenate([self.epsilons, -self.epsilons])
        heights = np.concatenate([self.deltas, wrong])
        both = (slopes[:, None] + slopes).ravel()
        high = (heights[:, None] + np.exp(slopes)[:, None] * heights).ravel()
        order = np.argsort(both, kind="stable")
        both, high = both[order], high[order]
        # Equal but for rounding; the steepest of them is an upper bound with any of their heights.
        begins = np.flatnonzero(np.diff(both, prepend=-np.inf) > _SAME)
        steepest = np.append(both[begins[1:] - 1], both[-1])
        lowest = np.minimum.reduceat(high, begins)
        kept = steepest >= -_SAME
        deltas = np.minimum(lowest[kept] * (1 + 1e-9), 1.0)
        return Claim(np.maximum(steepest[kept], 0.0), deltas)

    def least_wrong(self, right: Floats) -> Floats:
        """Return the least false-positive rates that allow these true-positive rates."""
        shape = (*right.shape, 1)
        odds, wide = np.exp(self.epsilons), right.reshape(shape)
        by_line = np.maximum((wide - self.deltas) / odds, 1 - self.deltas - odds * (1 - wide))
        found: Floats = np.maximum(by_line.max(axis=-1), 0.0)
        return found


def curve_p_value(correct: int, guesses: int, canaries: int, claim: Claim) -> float:
    """Return an upper bound on the probability of so many right guesses under a claim.

    Args:
        correct: Guesses that are right.
        guesses: Guesses made, a number fixed beforehand.
        canaries: Coins tossed.
        claim: What the mechanism promises about each canary.

    Returns:
        A probability, from ``LEAST_P`` up; within a thousandth of the least that the inequality
        allows.

    Raises:
        InvalidRequest: The numbers are not 0 <= correct <= guesses <= canaries.
    """
    _check(correct, guesses, canaries)
    low, high = math.log(LEAST_P), 0.0
    if correct == 0:
        return 1.0
    for _ in range(3):
        tails = np.exp(np.linspace(low, high, _TAILS))
        refuted = _least_mass(tails, correct, guesses, canaries, claim) > 1.0
        if not refuted.any():
            return float(min(tails[-1], 1.0))
        first = int(refuted.argmax())  # beyond it all are: the mass grows with the tail
        if first == 0:
            return float(tails[0])
        low, high = math.log(tails[first - 1]), math.log(tails[first])
    return float(tails[first])


def _least_mass(tails: Floats, correct: int, guesses: int, canaries: int, claim: Claim) -> Floats:
    """Return the least total probability of a law that has so much of it at ``correct`` or more."""
    mass, excess = tails.copy(), tails.copy()  # sums of p_w and of (w - i + 1) p_w over w >= i
    for i in range(correct, 0, -1):
        right = np.minimum((excess + (i - 1) * mass) / canaries, 1.0)
        least = (canaries * claim.least_wrong(right) + excess) / (guesses - i + 1)
        mass = np.maximum(mass, least)
        excess = excess + mass
    return mass


def pair_p_value(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """Return an upper bound on the probability of so many right guesses under (epsilon, delta).

    Steinke, Nasr, Jagielski 2023, Theorem 5.2: with ``W`` binomial of ``guesses`` trials that
    succeed with probability 1 / (1 + e^-epsilon), it is P[W >= c] + 2 m delta * the greatest of
    P[c > W >= c - i] / i.

    Raises:
        InvalidRequest: The numbers are not 0 <= correct <= guesses <= canaries.
    """
    _check(correct, guesses, canaries)
    from scipy import special

    share = 1 / (1 + math.exp(-epsilon))
    tail = float(special.bdtrc(correct - 1, guesses, share)) if correct else 1.0
    most = 0.0
    if correct and delta > 0:
        right = np.arange(correct - 1, -1, -1)
        wrong = guesses - right
        ways = special.gammaln(guesses + 1) - special.gammaln(right + 1)
        logs = special.xlogy(right, share) + special.xlogy(wrong, 1 - share)
        below = np.cumsum(np.exp(ways - special.gammaln(wrong + 1) + logs))
        most = float((below / np.arange(1, correct + 1)).max())
    return min(max(tail + 2 * canaries * delta * most, LEAST_P), 1.0)


def combined(p_values: Sequence[float]) -> float:
    """Return one p-value of independent runs, by Fisher's method.

    Under a claim each is at most as likely to be small as a uniform number, so twice the sum of
    their negative logarithms is at most chi-square of twice as many degrees (Fisher 1925, 21.1).
    """
    from scipy import special

    total = -2 * math.fsum(map(math.log, p_values))
    return float(special.chdtrc(2 * len(p_values), total))


def replaced_pair(epsilon: float, delta: float) -> tuple[float, float]:
    """Return what (epsilon, delta) says where a unit is changed: it is removed, and another added.

    Group privacy of two: delta and then e^epsilon times delta (Dwork, Roth 2014, section 2.3).
    """
    return 2 * epsilon, min(delta * (1 + math.exp(min(epsilon, _MOST_EPSILON))), 1.0)


def pair_lower_bound(
    correct: Sequence[int],
    guesses: int,
    canaries: int,
    delta: float,
    level: float = LEVEL,
    *,
    replaced: bool = False,
) -> float:
    """Return the greatest epsilon at ``delta`` that independent runs refute; 0 if none is.

    Args:
        correct: Guesses that are right, of each run.
        guesses: Guesses made in each.
        canaries: Coins tossed in each.
        delta: Of the pair.
        level: Confidence.
        replaced: Whether a coin changes a unit, and the pair is of adding or removing one.
    """

    def refuted(epsilon: float) -> bool:
        pair = replaced_pair(epsilon, delta) if replaced else (epsilon, delta)
        found = {c: pair_p_value(c, guesses, canaries, *pair) for c in set(correct)}
        return combined([found[c] for c in correct]) < 1 - level

    return _greatest(refuted, _MOST_EPSILON)


def gaussian_lower_bound(
    correct: Sequence[int], guesses: int, canaries: int, level: float = LEVEL
) -> float:
    """Return the greatest mu of Gaussian differential privacy that runs refute; 0 if none is.

    It bounds the mu of a mechanism that *is* Gaussian; of another it is a diagnosis.
    """

    def refuted(mu: float) -> bool:
        claim = Claim.gaussian(mu)
        found = {c: curve_p_value(c, guesses, canaries, claim) for c in set(correct)}
        return combined([found[c] for c in correct]) < 1 - level

    return _greatest(refuted, 8.0)


def _greatest(refuted: Callable[[float], bool], most: float) -> float:
    """Return the greatest value that is refuted, to a hundredth and downwards."""
    low, high = 0.0, most
    if not refuted(0.01):
        return 0.0
    while high - low > 0.01 * max(high, 0.01):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _check(correct: int, guesses: int, canaries: int) -> None:
    if not 0 <= correct <= guesses <= canaries or guesses < 1:
        raise InvalidRequest(
            f"A bound was asked for from {correct} right guesses of {guesses} on {canaries}.",
            "Right guesses are among the guesses, and guesses among the canaries.",
            "Mend the call.",
        )
