"""Games of coins: what is guessed in independent runs, and how probable that is under a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks import one_run

SHARES = (0.25, 1.0)
"""Shares of the coins of a run that are guessed; fixed beforehand and corrected for."""


@dataclass(frozen=True)
class Guesses:
    """What guessing so many coins of each run showed.

    Attributes:
        guesses: Coins guessed in a run.
        correct: How many of them rightly, of each run.
        p_pair: Probability of that under (epsilon, delta), at most.
        p_curve: Probability of that under the plan's privacy curve, at most.
    """

    guesses: int
    correct: tuple[int, ...]
    p_pair: float
    p_curve: float


@dataclass(frozen=True, eq=False)
class Game:
    """One run: its coins, a score of each that above 0 says "heads", and what is claimed."""

    coins: NDArray[np.bool_]
    scores: NDArray[np.float64]
    claim: one_run.Claim

    def correct(self, guesses: int) -> int:
        """Return how many of the surest guesses are right."""
        surest = np.argsort(-np.abs(self.scores), kind="stable")[:guesses]
        return int(((self.scores[surest] > 0) == self.coins[surest]).sum())


def guessed(games: Sequence[Game], epsilon: float, delta: float) -> tuple[Guesses, ...]:
    """Return what each number of guesses showed, under a claim that holds for each coin.

    Args:
        games: Independent runs, of as many coins each.
        epsilon: Of the pair, for a coin.
        delta: Of the pair, for a coin.
    """
    return tuple(
        _guesses(games, max(round(share * len(games[0].coins)), 1), epsilon, delta)
        for share in SHARES
    )


def p_value(tried: Sequence[Guesses]) -> float:
    """Return the probability under the claim, corrected for all that was tried (Bonferroni)."""
    return min(1.0, tests(tried) * min(min(each.p_pair, each.p_curve) for each in tried))


def at_least(epsilon: float) -> str:
    """Return what a lower bound says; the curve may refute a claim that the pair alone does not."""
    return f"at that delta alone, epsilon is at least {epsilon:.2f} with confidence 99.9 %"


def tests(tried: Sequence[Guesses]) -> int:
    """Return how many tests there were."""
    return 2 * len(tried)


def level(tried: Sequence[Guesses]) -> float:
    """Return the confidence of a single test at which all hold together."""
    return 1 - (1 - one_run.LEVEL) / tests(tried)


def _guesses(games: Sequence[Game], guesses: int, epsilon: float, delta: float) -> Guesses:
    canaries, claim = len(games[0].coins), games[0].claim
    correct = tuple(game.correct(guesses) for game in games)
    pair = [one_run.pair_p_value(c, guesses, canaries, epsilon, delta) for c in correct]
    whole = [one_run.curve_p_value(c, guesses, canaries, claim) for c in correct]
    return Guesses(guesses, correct, one_run.combined(pair), one_run.combined(whole))
