"""A lower bound on epsilon from one release, by the coins that decided who was in.

Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run", Theorem 5.2: of m
units, each put in or held out by a fair coin, let r guesses be made from what a mechanism with
(epsilon, delta)-DP per unit put out. Then the number that is right exceeds v - 1 with probability
at most

    f(v) + 2 m delta max over 1 <= i <= v of (f(v - i) - f(v)) / i,

where f is the upper tail of Binomial(r, e^epsilon / (1 + e^epsilon)). Every epsilon for which that
is below 1 - level is rejected. All units of the audit are natural records here: no canary is
planted and nothing is fitted again.

What is read for a score counts: the claim to be tested is that of the table, together with all
else that the score read and that depends on the coins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dpsynth_accounting import InvalidRequest

FEWEST_GUESSES = 10

LEVELS = (0.95, 0.999)
"""Levels of the two bounds: one to look at, one that fails a release if it is above the claim."""

_MOST = 20.0  # no number of units shows more


@dataclass(frozen=True)
class Claim:
    """What is promised of a table and of all else that a score read, for the presence of a unit.

    Attributes:
        points: Pairs (epsilon, delta) that are all claimed: points of one privacy curve. Without a
            claim, epsilon is None and the bound is only shown.
    """

    points: tuple[tuple[float | None, float], ...]

    def __post_init__(self) -> None:
        """Refuse what nobody can claim."""
        for epsilon, delta in self.points:
            if not 0 <= delta < 1 or (epsilon is not None and not epsilon >= 0):
                raise InvalidRequest(
                    f"Epsilon was to be bounded at delta {delta} against a claim of {epsilon}.",
                    "Delta lies within 0..1 and a claim is 0 or above.",
                    "Give the figures of the statement.",
                )


@dataclass(frozen=True)
class BoundAt:
    """Lower bounds on epsilon at one delta.

    Attributes:
        delta: At which they are.
        claim: The epsilon claimed there; None if nothing is claimed.
        bound: Lower bound on epsilon at level 0.95; 0 says nothing.
        hard_bound: The same at level 0.999: above the claim, it refutes it.
        possible: The first bound if every guess had been right: the most this audit can show.
        hard_possible: The second.
    """

    delta: float
    claim: float | None
    bound: float
    hard_bound: float
    possible: float
    hard_possible: float

    @property
    def refuted(self) -> bool:
        """Whether the claim is refuted at level 0.999."""
        return self.claim is not None and self.hard_bound > self.claim


@dataclass(frozen=True)
class OneRun:
    """Lower bounds on epsilon, and what they rest on.

    Attributes:
        units: Audited units: coins.
        guesses: The numbers of guesses "in" that were tried, fixed by the number of units. The
            levels hold for all of them, and for all deltas, together.
        right: How many of each are right.
        points: The bounds, one a delta.
    """

    units: int
    guesses: tuple[int, ...]
    right: tuple[int, ...]
    points: tuple[BoundAt, ...]

    @property
    def refuted(self) -> bool:
        """Whether a claim is refuted at level 0.999."""
        return any(point.refuted for point in self.points)


def bound_epsilon(
    members: NDArray[np.float64],
    others: NDArray[np.float64],
    claim: Claim,
    *,
    rng: np.random.Generator,
) -> OneRun | None:
    """Bound epsilon from one score a unit, by guessing that the highest were in.

    Args:
        members: float64 (units,): scores of the units that were in.
        others: float64 (units,): scores of the units held out.
        claim: At which deltas epsilon is bounded, and what is claimed there.
        rng: Orders units of equal scores; independent of the coins.

    Returns:
        The bounds; None with fewer than 40 units.
    """
    units = len(members) + len(others)
    tried = guess_numbers(units)
    if not tried:
        return None
    inside = np.concatenate([np.ones(len(members), dtype=bool), np.zeros(len(others), dtype=bool)])
    shuffled = rng.permutation(units)
    scores = np.concatenate([members, others])[shuffled]
    correct = np.cumsum(inside[shuffled][np.argsort(-scores, kind="stable")])
    right = tuple(int(correct[r - 1]) for r in tried)
    looks = len(tried) * len(claim.points)

    def best(found: tuple[int, ...], delta: float, level: float) -> float:
        return max(
            epsilon_lower_bound(v, r, units, delta=delta, level=1 - (1 - level) / looks)
            for v, r in zip(found, tried, strict=True)
        )

    points = tuple(
        BoundAt(
            delta,
            epsilon,
            *(best(right, delta, level) for level in LEVELS),
            *(best(tried, delta, level) for level in LEVELS),
        )
        for epsilon, delta in claim.points
    )
    return OneRun(units, tried, right, points)


def guess_numbers(units: int) -> tuple[int, ...]:
    """Return how many guesses are tried: 10, 20, 40, ..., at most a quarter of the units.

    >>> guess_numbers(400)
    (10, 20, 40, 80)
    """
    found = []
    guesses = FEWEST_GUESSES
    while 4 * guesses <= units:
        found.append(guesses)
        guesses *= 2
    return tuple(found)


def p_value(right: int, guesses: int, units: int, *, epsilon: float, delta: float) -> float:
    """Return the most likely it is that so many guesses are right, if (epsilon, delta)-DP holds.

    Args:
        right: Guesses that are right.
        guesses: Guesses made.
        units: Units that had a coin.
        epsilon: Claimed.
        delta: Claimed.

    >>> p_value(10, 10, 10, epsilon=0.0, delta=0.0) == 2**-10
    True
    """
    if right <= 0:
        return 1.0
    from scipy.special import gammaln

    q = 1 / (1 + np.exp(-epsilon))
    counts = np.arange(guesses + 1)
    ways = gammaln(guesses + 1) - gammaln(counts + 1) - gammaln(guesses - counts + 1)
    mass = np.exp(ways + counts * np.log(q) + (guesses - counts) * np.log1p(-q))
    tail = float(mass[right:].sum()) if right < guesses else float(q**guesses)
    if delta:
        below = np.cumsum(mass[:right][::-1])  # f(v - i) - f(v) for i = 1, 2, ...
        tail += 2 * units * delta * float((below / np.arange(1, right + 1)).max())
    return min(1.0, tail)


@lru_cache(maxsize=4096)
def epsilon_lower_bound(
    right: int, guesses: int, units: int, *, delta: float, level: float
) -> float:
    """Return the greatest epsilon that is rejected at a level; 0 if none is.

    Bisection: the p-value grows with epsilon. The end that is rejected is returned.
    """
    alpha = 1 - level

    def rejected(epsilon: float) -> bool:
        return p_value(right, guesses, units, epsilon=epsilon, delta=delta) < alpha

    if not rejected(0.0):
        return 0.0
    low, high = 0.0, _MOST
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low
