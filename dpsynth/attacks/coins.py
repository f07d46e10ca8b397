"""A lower bound on epsilon from one release, by the coins that decided who was in.

Of m units, each put in or held out by a fair coin, guesses are made from what a mechanism put out;
how many can be right under a claim is bounded in :mod:`dpsynth.attacks.one_run` (Steinke, Nasr,
Jagielski 2023, Theorem 5.2). All units of the audit are natural records here: no canary is planted
and nothing is fitted again.

What is read for a score counts: the claim to be tested is that of the table, together with all
else that the score read and that depends on the coins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks.one_run import pair_lower_bound
from dpsynth_accounting import InvalidRequest

FEWEST_GUESSES = 10

LEVELS = (0.95, 0.999)
"""Levels of the two bounds: one to look at, one that fails a release if it is above the claim."""


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
            _lower(v, r, units, delta, 1 - (1 - level) / looks)
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


@lru_cache(maxsize=4096)
def _lower(right: int, guesses: int, units: int, delta: float, level: float) -> float:
    return pair_lower_bound((right,), guesses, units, delta, level)
