"""Tests of one side of the coin against the other, each with its effect and what it could find.

If the release says nothing about who is in, then, given the sizes of the two sides, any split of
the units is as likely as any other: by the coins, and also for a holdout drawn like the table. So
the number of units that were in, among all units with a property that was fixed blind to the sides,
is hypergeometric: Fisher's exact test (Fisher 1935, *JRSS* 98), valid whatever the scores are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks.statistics import (
    Interval,
    auc,
    roc,
    smallest_excess,
    tpr_at_fpr,
    wilson,
)

LEVEL = 0.95
"""Of all intervals."""

TESTS = 60
"""About how many tests the suite makes: a smallest effect is one that would be found among them."""

ALPHA = 0.01
"""Level of the verdict, after correction."""

LOOKS = (0.001, 0.01, 0.05)
"""Shares of all units that are looked at by their scores; the rank of all is a fourth look."""

ISOLATED_LOOKS = (0.01, 0.05, 0.2)
"""The same, among the most isolated units alone."""


@dataclass(frozen=True)
class Figure:
    """A value with its interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Comparison:
    """Units of either side for which an attack succeeds.

    Attributes:
        units_in: Units attacked that were in.
        units_out: Units attacked that were held out.
        hits_in: Those of the first for which it succeeds.
        hits_out: Those of the second: what it achieves without any leak.
        rate_in: The first as a share, with Wilson's interval.
        rate_out: The second.
        excess: Their difference, with Newcombe's interval.
        p_value: Of Fisher's exact test, one-sided.
        smallest_detectable: Excess that the verdict would have found four times in five.
    """

    units_in: int
    units_out: int
    hits_in: int
    hits_out: int
    rate_in: Figure
    rate_out: Figure
    excess: Figure
    p_value: float
    smallest_detectable: float


@dataclass(frozen=True)
class ScoreComparison:
    """Scores of the units of either side.

    Attributes:
        units_in: Units attacked that were in.
        units_out: Units attacked that were held out.
        auc: Area under the ROC curve, with DeLong's interval; says little of the most exposed.
        tpr_1_percent: True-positive rate at 1 % false positives at most, with Clopper and
            Pearson's interval.
        tpr_01_percent: The same at 0.1 %.
        p_value: Of the best of four looks, times four: units above three thresholds that are set
            blind to the sides (Fisher), and the ranks of all (Mann and Whitney).
        look: The look that it is from: a share of the units, or "ranks".
        right: Of guesses "in" above that threshold, the share that is right if the sides are of
            equal size; by ranks, the area under the curve. 0.5 without a leak.
        smallest_detectable: True-positive rate at 1 % false positives that the verdict would have
            found four times in five.
    """

    units_in: int
    units_out: int
    auc: Figure
    tpr_1_percent: Figure
    tpr_01_percent: Figure
    p_value: float
    look: float | str
    right: float
    smallest_detectable: float


def compare_hits(inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> Comparison:
    """Compare for which units of either side an attack succeeds; bool (units,) each."""
    x, y = len(inside), len(outside)
    a, h = int(inside.sum()), int(outside.sum())
    rate_in, rate_out = (
        Figure(hits / units if units else 0.0, wilson(hits, units, LEVEL))
        for hits, units in ((a, x), (h, y))
    )
    return Comparison(
        x,
        y,
        a,
        h,
        rate_in,
        rate_out,
        _difference(rate_in, rate_out),
        fisher(a, h, x, y),
        _detectable(a + h, x, y),
    )


def compare_scores(
    members: NDArray[np.float64],
    others: NDArray[np.float64],
    looks: tuple[float, ...] = LOOKS,
) -> ScoreComparison:
    """Compare the scores of the units of either side; float64 (units,) each, not empty."""
    x, y = len(members), len(others)
    area = auc(members, others, LEVEL)
    found: list[tuple[float, float | str, float]] = [
        (rank_test(members, others), "ranks", area.value)
    ]
    pooled = np.sort(np.concatenate([members, others]))[::-1]
    for share in looks:
        cut = _cut(pooled, share)
        a, h = int((members >= cut).sum()), int((others >= cut).sum())
        found.append((fisher(a, h, x, y), share, _right(a, h, x, y)))
    p, look, right = min(found, key=lambda each: each[0])
    curve = roc(members, others)
    one, tenth = (tpr_at_fpr(curve, rate, LEVEL) for rate in (0.01, 0.001))
    return ScoreComparison(
        x,
        y,
        Figure(area.value, area.interval),
        Figure(one.tpr, one.interval),
        Figure(tenth.tpr, tenth.interval),
        min(1.0, len(found) * p),
        look,
        right,
        min(1.0, 0.01 + _detectable(0.01 * (x + y), x, y, len(found))),
    )


def fisher(hits_in: int, hits_out: int, units_in: int, units_out: int) -> float:
    """Return the one-sided p-value of Fisher's exact test that units that were in are hit more.

    >>> fisher(3, 0, 3, 3)
    0.05
    """
    from scipy.special import gammaln

    hits, units = hits_in + hits_out, units_in + units_out
    counts = np.arange(hits_in, min(hits, units_in) + 1)
    counts = counts[hits - counts <= units_out]

    def ways(n: int, k: NDArray[np.int64] | int) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (
            gammaln(n + 1) - gammaln(np.add(k, 1)) - gammaln(np.subtract(n, k) + 1)
        )
        return found

    logs = ways(units_in, counts) + ways(units_out, hits - counts) - ways(units, hits)
    return min(1.0, float(f"{np.exp(logs).sum():.12g}"))


def rank_test(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Return the one-sided p-value that members score higher: Mann and Whitney's test.

    The normal law with the variance that the ties leave (Lehmann 1975, *Nonparametrics*, 1.3), and
    a correction for continuity.
    """
    m, n = len(members), len(others)
    pooled = np.concatenate([members, others])
    line = np.sort(pooled)
    left, right = (np.searchsorted(line, pooled, side=side) for side in ("left", "right"))
    ranks = (left + right + 1) / 2
    total = m + n
    variance = m * n / (total * (total - 1)) * float(((ranks - ranks.mean()) ** 2).sum())
    if variance <= 0:
        return 1.0
    above = float(ranks[:m].sum()) - m * (total + 1) / 2 - 0.5
    return math.erfc(above / math.sqrt(2 * variance)) / 2


def _cut(descending: NDArray[np.float64], share: float) -> float:
    """Return the least score that so large a share reaches at most, or else the greatest."""
    most = max(math.ceil(share * len(descending)), 1)
    if most >= len(descending):
        return float(descending[-1])
    greater = descending[descending > descending[most]]
    return float(greater[-1] if len(greater) else descending[0])


def _right(hits_in: int, hits_out: int, units_in: int, units_out: int) -> float:
    one, other = hits_in / units_in, hits_out / units_out
    return one / (one + other) if one + other else 0.5


def _difference(one: Figure, other: Figure) -> Figure:
    """Return the difference of two rates with Newcombe's hybrid interval (1998, method 10)."""
    value = one.value - other.value
    down = math.hypot(one.value - one.interval.low, other.interval.high - other.value)
    up = math.hypot(one.interval.high - one.value, other.value - other.interval.low)
    return Figure(value, Interval(max(value - down, -1.0), min(value + up, 1.0), LEVEL))


def _detectable(hits: float, units_in: int, units_out: int, looks: int = 1) -> float:
    """Return the least excess rate found four times in five, at so many hits without a leak."""
    if not units_in or not units_out:
        return 1.0
    units = 2 * units_in * units_out / (units_in + units_out)
    share = min(hits / (units_in + units_out), 1.0)
    variance = 2 * units * share * (1 - share)
    return smallest_excess(variance, units, alpha=ALPHA / (TESTS * looks))
