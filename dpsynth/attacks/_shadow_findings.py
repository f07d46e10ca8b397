"""What guesses of a shadow attack show: figures of each target, and a verdict on the claim.

The coins of a target are fair and its guesses are made one a fit, so under a claim whose curve has
total variation t a guess is right with probability (1 + t) / 2 at most, whatever the other targets
do: the tail is binomial. Guesses about all targets of a fit hang together; but all fits are one
mechanism in which each coin is one canary's, so the bounds of :mod:`one_run` hold for their sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks import one_run
from dpsynth.attacks._games import at_least
from dpsynth.attacks.statistics import (
    Interval,
    auc,
    binomial_upper_tail,
    clopper_pearson,
    holm,
    wilson,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ATTACKS = ("focal marginals", "queries")
"""The attacks: ratios on the marginals that the mechanism measures, and counts of queries."""

LEVEL = 0.95
"""Confidence of the intervals of all targets and attacks together."""


@dataclass(frozen=True)
class Guessed:
    """What one attack told of one target, or of all of them together.

    Attributes:
        attack: Its name.
        place: Number of the target's first row in the surrogate, from 0; None for all together.
        rows: Rows of the target, or of all.
        guesses: Coins guessed, one a fit of the second half and target.
        correct: How many of them rightly.
        area: Area under the ROC curve of the scores; over all targets, the mean.
        area_interval: Its interval; that of a target is corrected for the number of targets and
            attacks, at 95 % together; None for the mean.
        true_positives: Rate of "in" among the fits with the target.
        true_positives_interval: Wilson's, corrected alike; None for all together, as guesses about
            one fit hang together.
        false_positives: Rate of "in" among the fits without it.
        false_positives_interval: Its interval, alike.
        p_chance: Probability of so many right guesses if nothing were told, exact, corrected by
            Holm; it is of one target each, so None for all together.
        p_value: Probability of so many right guesses under the claim, at most, corrected by Holm.
        epsilon_at_least: Refuted at the claim's delta; 99.9 % for all targets and attacks together.
    """

    attack: str
    place: int | None
    rows: int
    guesses: int
    correct: int
    area: float
    area_interval: Interval | None
    true_positives: float
    true_positives_interval: Interval | None
    false_positives: float
    false_positives_interval: Interval | None
    p_chance: float | None
    p_value: float
    epsilon_at_least: float


@dataclass(frozen=True)
class ShadowAttack:
    """The outcome of a shadow attack.

    Attributes:
        method: The mechanism.
        epsilon: Claimed.
        delta: Claimed.
        unit: ``"row"`` or ``"person"``.
        fits: How many, half of them to learn from.
        targets: Each attack on each target.
        together: Each attack on all targets together.
        worst: That on a target with the smallest ``p_chance``; among equals the greatest area.
        p_value: Of the claim, corrected for all that was tried.
        epsilon_at_least: Refuted with confidence 99.9 % at ``delta``, corrected too; 0 if none is.
        failed: Whether the claim is refuted.
    """

    method: str
    epsilon: float
    delta: float
    unit: str
    fits: int
    targets: tuple[Guessed, ...]
    together: tuple[Guessed, ...]
    worst: Guessed
    p_value: float
    epsilon_at_least: float
    failed: bool

    @property
    def sentence(self) -> str:
        """The outcome in a few sentences."""
        each = f"{self.unit}s"
        tried = f"{self.fits} fits and {len(self.targets) // len(ATTACKS)} isolated {each}"
        claim = f"epsilon {self.epsilon:g} at delta {self.delta:g}"
        means = " and ".join(f"{found.area:.2f} ({found.attack})" for found in self.together)
        within = self.worst.area_interval
        worst = (
            f"Mean AUC over {each}: {means}. The worst {self.unit}, at row {self.worst.place} of "
            f"the surrogate ({self.worst.attack}): {self.worst.correct} of {self.worst.guesses} "
            f"guesses right, AUC {self.worst.area:.2f}"
            + (f" ({within.low:.2f} to {within.high:.2f})" if within else "")
            + f", p = {self.worst.p_chance:.2g} against mere chance, corrected for all {each}."
        )
        if self.failed:
            return (
                f"Fail: releases of {self.method} tell more than it claims. {tried} refute {claim} "
                f"(p = {self.p_value:.1e}); {at_least(self.epsilon_at_least)}. {worst}"
            )
        return (
            f"Not refuted: {tried} do not contradict {claim} of {self.method} (p = "
            f"{self.p_value:.3g}; epsilon at least {self.epsilon_at_least:.2f}). {worst} "
            "An attack can refute a claim, not prove it."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON data."""
        return {**asdict(self), "sentence": self.sentence}


def judged(
    method: str,
    claimed: tuple[float, float],
    unit: str,
    fits: int,
    coins: Bools,
    scores: Mapping[str, Floats],
    claim: one_run.Claim,
    where: Sequence[tuple[int, int]],
) -> ShadowAttack:
    """Return the outcome of the guesses.

    Args:
        method: The mechanism.
        claimed: Its epsilon and delta.
        unit: What a target is.
        fits: How many fits there were, those learnt from included.
        coins: bool (fits guessed, targets).
        scores: float64 (fits guessed, targets) of each attack; above 0 says "in".
        claim: The plan's privacy curve, from epsilon 0 on.
        where: First row and number of rows of each target.
    """
    delta = claimed[1]
    share = (1 + float(claim.deltas[0])) / 2
    tests = len(scores) * (len(where) + 1)
    alone, level = 1 - (1 - LEVEL) / (len(scores) * len(where)), 1 - (1 - one_run.LEVEL) / tests
    each, together = [], []
    for attack, told in scores.items():
        found = [
            _of_target(attack, place, coins[:, i], told[:, i], share, delta, alone, level)
            for i, place in enumerate(where)
        ]
        each += found
        together.append(_of_all(attack, found, coins, told > 0, claim, delta, level))
    chance = holm([one.p_chance or 0.0 for one in each])
    under = holm([one.p_value for one in (*each, *together)])
    targets = tuple(
        replace(one, p_chance=p, p_value=q)
        for one, p, q in zip(each, chance, under[: len(each)], strict=True)
    )
    whole = tuple(
        replace(one, p_value=q) for one, q in zip(together, under[len(each) :], strict=True)
    )
    bound = max(one.epsilon_at_least for one in (*targets, *whole))
    return ShadowAttack(
        method,
        *claimed,
        unit,
        fits,
        targets,
        whole,
        min(targets, key=lambda one: (one.p_chance or 0.0, -one.area)),
        min(under),
        bound,
        min(under) < 1 - one_run.LEVEL or bound > claimed[0],
    )


def _of_target(
    attack: str,
    place: tuple[int, int],
    coins: Bools,
    told: Floats,
    share: float,
    delta: float,
    alone: float,
    level: float,
) -> Guessed:
    guesses = told > 0
    correct, fits, inside = int((guesses == coins).sum()), len(coins), int(coins.sum())
    hits, alarms = int((guesses & coins).sum()), int((guesses & ~coins).sum())
    area = auc(told[coins], told[~coins], alone) if 0 < inside < fits else None
    right = clopper_pearson(correct, fits, 2 * level - 1).low
    return Guessed(
        attack,
        *place,
        fits,
        correct,
        area.value if area else 0.5,
        area.interval if area else Interval(0.0, 1.0, alone),
        hits / max(inside, 1),
        wilson(hits, inside, alone),
        alarms / max(fits - inside, 1),
        wilson(alarms, fits - inside, alone),
        binomial_upper_tail(correct, fits),
        binomial_upper_tail(correct, fits, share),
        math.log((right - delta) / (1 - right)) if right - delta > 1 - right else 0.0,
    )


def _of_all(
    attack: str,
    found: Sequence[Guessed],
    coins: Bools,
    guesses: Bools,
    claim: one_run.Claim,
    delta: float,
    level: float,
) -> Guessed:
    correct = int((guesses == coins).sum())
    return Guessed(
        attack,
        None,
        sum(one.rows for one in found),
        coins.size,
        correct,
        float(np.mean([one.area for one in found])),
        None,
        float(guesses[coins].mean()) if coins.any() else 0.0,
        None,
        float(guesses[~coins].mean()) if not coins.all() else 0.0,
        None,
        None,
        one_run.curve_p_value(correct, coins.size, coins.size, claim),
        one_run.pair_lower_bound((correct,), coins.size, coins.size, delta, level),
    )
