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

import numpy as np
from numpy.typing import NDArray

from dpsynth_accounting import InvalidRequest

FEWEST_GUESSES = 10

LEVELS = (0.95, 0.999)
"""Levels of the two bounds: one to look at, one that fails a release if it is above the claim."""

_MOST = 20.0  # no number of units shows more


@dataclass(frozen=True)
class OneRun:
    """Lower bounds on epsilon, and what they rest on.

    Attributes:
        units: Audited units: coins.
        delta: At which the bounds are.
        bound: Lower bound on epsilon at level 0.95; 0 says nothing.
        hard_bound: The same at level 0.999.
        guesses: Guesses "in" of the number that gave the first bound.
        right: How many of them are right.
        tried: Numbers of guesses tried, all fixed by the number of units; the levels hold for all
            of them together.
        possible: The bound at 0.95 if every guess had been right, the most this audit can show.
        claim: The epsilon claimed at that delta; None if nothing is claimed.
        refuted: Whether the bound at 0.999 is above the claim.
    """

    units: int
    delta: float
    bound: float
    hard_bound: float
    guesses: int
    right: int
    tried: tuple[int, ...]
    possible: float
    claim: float | None
    refuted: bool


def bound_epsilon(
    members: NDArray[np.float64],
    others: NDArray[np.float64],
    *,
    delta: float,
    claim: float | None,
    rng: np.random.Generator,
) -> OneRun | None:
    """Bound epsilon from one score a unit, by guessing that the highest were in.

    Args:
        members: float64 (units,): scores of the units that were in.
        others: float64 (units,): scores of the units held out.
        delta: At which epsilon is bounded.
        claim: The epsilon claimed at that delta, if any.
        rng: Orders units of equal scores; independent of the coins.

    Returns:
        The bounds; None with fewer than 40 units.

    Raises:
        InvalidRequest: Delta is not within 0..1, or a claim is negative.
    """
    if not 0 <= delta < 1 or (claim is not None and not claim >= 0):
        raise InvalidRequest(
            f"A lower bound on epsilon was asked for at delta {delta} against a claim of {claim}.",
            "Delta lies within 0..1 and a claim is 0 or above.",
            "Give the figures of the statement.",
        )
    units = len(members) + len(others)
    tried = guess_numbers(units)
    if not tried:
        return None
    inside = np.concatenate([np.ones(len(members), dtype=bool), np.zeros(len(others), dtype=bool)])
    shuffled = rng.permutation(units)
    scores = np.concatenate([members, others])[shuffled]
    correct = np.cumsum(inside[shuffled][np.argsort(-scores, kind="stable")])
    right = [int(correct[r - 1]) for r in tried]
    soft, hard = (
        [
            epsilon_lower_bound(v, r, units, delta=delta, level=1 - (1 - level) / len(tried))
            for v, r in zip(right, tried, strict=True)
        ]
        for level in LEVELS
    )
    best = int(np.argmax(soft))
    alone = 1 - (1 - LEVELS[0]) / len(tried)
    possible = max(epsilon_lower_bound(r, r, units, delta=delta, level=alone) for r in tried)
    return OneRun(
        units,
        delta,
        soft[best],
        max(hard),
        tried[best],
        right[best],
        tried,
        possible,
        claim,
        claim is not None and max(hard) > claim,
    )


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
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low
