"""Intervals, tests and ROC figures for rates that come from attacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dpsynth_accounting import InvalidRequest


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: Lower end.
        high: Upper end.
        level: Confidence, such as 0.95.
    """

    low: float
    high: float
    level: float


def wilson(successes: float, trials: int, level: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion.

    Wilson 1927, *JASA* 22; its coverage is near the level, on average over the proportion (Brown,
    Cai, DasGupta 2001, section 3). Half successes, from ties, are allowed. Without a trial the
    interval is all of 0..1.

    Raises:
        InvalidRequest: The successes are not within 0..trials, or the level not within (0, 1).

    >>> wilson(0, 10).high.__round__(3)
    0.278
    """
    _check(successes, trials, level)
    if trials == 0:
        return Interval(0.0, 1.0, level)
    z2 = _two_sided(level) ** 2
    rate = successes / trials
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    half = math.sqrt(z2) * spread / (1 + z2 / trials)
    low = 0.0 if successes == 0 else max(centre - half, 0.0)
    high = 1.0 if successes == trials else min(centre + half, 1.0)
    return Interval(low, high, level)


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Return the exact interval of a binomial proportion: its coverage is never below the level.

    Clopper, Pearson 1934, *Biometrika* 26, from quantiles of the beta distribution.

    Raises:
        InvalidRequest: The successes are not within 0..trials, or the level not within (0, 1).
    """
    _check(successes, trials, level)
    from scipy import special

    tail = (1 - level) / 2
    low, high = 0.0, 1.0
    if successes > 0:
        low = float(special.betaincinv(successes, trials - successes + 1, tail))
    if successes < trials:
        high = float(special.betaincinv(successes + 1, trials - successes, 1 - tail))
    return Interval(low, high, level)


def binomial_upper_tail(successes: int, trials: int, p: float = 0.5) -> float:
    """Return the probability of at least so many successes: a one-sided exact p-value.

    >>> binomial_upper_tail(9, 10)
    0.0107421875
    """
    _check(min(max(successes, 0), trials), trials, 0.5)
    if successes <= 0:
        return 1.0
    if successes > trials:
        return 0.0
    from scipy import special

    return float(special.betainc(successes, trials - successes + 1, p))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given.

    Rejecting those at or below alpha keeps the probability of any false rejection within alpha,
    whatever the dependence (Holm 1979, *Scandinavian Journal of Statistics* 6).

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = worst
    return adjusted


@dataclass(frozen=True, eq=False)
class Roc:
    """An empirical ROC curve: one point a distinct score, the greatest score first.

    Records with one score stay on one side together, so ties cannot flatter an attack.

    Attributes:
        thresholds: float64; guess "member" at or above it. The first is infinite.
        fpr: float64, the share of non-members at or above.
        tpr: float64, the share of members at or above.
        members: Number of members.
        others: Number of non-members.
    """

    thresholds: NDArray[np.float64]
    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    members: int
    others: int


def roc(members: NDArray[np.float64], others: NDArray[np.float64]) -> Roc:
    """Return the ROC curve of scores of members against scores of non-members.

    Raises:
        InvalidRequest: A side is empty or a score is not a number.
    """
    _check_scores(members, others)
    values = np.unique(np.concatenate([members, others]))[::-1]
    thresholds = np.concatenate([[np.inf], values])
    return Roc(
        thresholds,
        _share_at_least(others, thresholds),
        _share_at_least(members, thresholds),
        len(members),
        len(others),
    )


@dataclass(frozen=True)
class TprAtFpr:
    """The true-positive rate at the last threshold whose false-positive rate is within a target.

    Attributes:
        target: The false-positive rate asked for.
        fpr: The false-positive rate reached, at most the target.
        tpr: The true-positive rate there.
        interval: Clopper-Pearson interval of ``tpr``, taking the threshold as given.
        threshold: Where; None if no threshold but an infinite one meets the target.
    """

    target: float
    fpr: float
    tpr: float
    interval: Interval
    threshold: float | None


def tpr_at_fpr(curve: Roc, target: float, level: float = 0.95) -> TprAtFpr:
    """Return the true-positive rate at a false-positive rate, without interpolation.

    Between two points of the curve there is no threshold, and an interpolated rate would be one
    that nobody can reach (Carlini et al. 2022, section IV, on low false-positive rates).
    """
    place = int(np.searchsorted(curve.fpr, target, side="right")) - 1
    hits = round(float(curve.tpr[place]) * curve.members)
    return TprAtFpr(
        target,
        float(curve.fpr[place]),
        float(curve.tpr[place]),
        clopper_pearson(hits, curve.members, level),
        float(curve.thresholds[place]) if place else None,
    )


@dataclass(frozen=True)
class Auc:
    """An area under the ROC curve, ties counted half, with DeLong's interval."""

    value: float
    interval: Interval


def auc(members: NDArray[np.float64], others: NDArray[np.float64], level: float = 0.95) -> Auc:
    """Return the probability that a member scores above a non-member, ties counted half.

    The interval is DeLong's (DeLong, DeLong, Clarke-Pearson 1988, section 2), computed from
    mid-ranks (Sun, Xu 2014). With one member or one non-member it is all of 0..1.

    Raises:
        InvalidRequest: A side is empty or a score is not a number.
    """
    _check_scores(members, others)
    m, n = len(members), len(others)
    above = _mid_ranks(members, others) / n  # share of non-members below each member
    below = 1 - _mid_ranks(others, members) / m
    value = float(above.mean())
    if min(m, n) < 2:
        return Auc(value, Interval(0.0, 1.0, level))
    spread = math.sqrt(float(above.var(ddof=1)) / m + float(below.var(ddof=1)) / n)
    half = _two_sided(level) * spread
    return Auc(value, Interval(max(value - half, 0.0), min(value + half, 1.0), level))


def smallest_excess(variance: float, units: float, *, alpha: float, power: float = 0.8) -> float:
    """Return the least excess rate that a one-sided test of two equal sides would find.

    The test compares hits ``a`` of units that are in with hits ``h`` of units held out, at about
    ``units`` on each side, by z = (a - h - 1) / sqrt(variance). An excess of ``e`` adds
    ``e * units`` hits, and as much to the variance: this solves for ``e``.

    Args:
        variance: Variance of ``a - h`` without an excess, in squared units.
        units: Mean number of units on a side.
        alpha: Level of the test.
        power: Probability of finding it.

    Returns:
        A rate; 1 if no excess can be found.
    """
    if units <= 0:
        return 1.0
    s2 = (NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)) ** 2
    hits = 1 + (s2 + math.sqrt(s2 * s2 + 4 * s2 * (variance + 1))) / 2
    return min(1.0, hits / units)


def _share_at_least(
    scores: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    below = np.searchsorted(np.sort(scores), thresholds, side="left")
    share: NDArray[np.float64] = (len(scores) - below) / len(scores)
    return share


def _mid_ranks(scores: NDArray[np.float64], against: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many of the other side lie below each score, equal ones counted half."""
    line = np.sort(against)
    left, right = (np.searchsorted(line, scores, side=side) for side in ("left", "right"))
    ranks: NDArray[np.float64] = (left + right) / 2
    return ranks


def _two_sided(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)


def _check(successes: float, trials: int, level: float) -> None:
    if not 0 <= successes <= trials or not 0 < level < 1:
        raise InvalidRequest(
            "An interval or tail was asked for with impossible numbers.",
            "Successes lie within 0..trials and a level strictly between 0 and 1.",
            "Mend the call.",
        )


def _check_scores(members: NDArray[np.float64], others: NDArray[np.float64]) -> None:
    if not len(members) or not len(others) or np.isnan(members).any() or np.isnan(others).any():
        raise InvalidRequest(
            "Scores of members and of others were to be compared.",
            "Each side needs at least one score, and every score must be a number.",
            "Leave the comparison out if a side is empty.",
        )
