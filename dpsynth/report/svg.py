"""Geometry of the report's drawings; the templates draw and escape, nothing here is markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

WIDTH, HEIGHT = 280.0, 150.0
"""Size of a column's drawing, in SVG units."""

AXIS = 14.0
"""Height kept for the labels under upright bars."""

LABELS, VALUES = 106.0, 44.0
"""Widths kept for the labels left of lying bars and the values right of them."""

ROC_SIZE = 260.0
ROC_MARGIN = 40.0
_ROC_STEPS = 48
_LEAST_RATE = 1e-6


@dataclass(frozen=True)
class Bar:
    """A rectangle with the text shown when it is pointed at, in SVG units."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Point:
    """A place in a drawing, with its label."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class RocBound:
    """What any attacker can reach, both rates on logarithmic axes.

    Attributes:
        ticks_x: Labelled places of the false-positive axis.
        ticks_y: Labelled places of the true-positive axis.
        guess: Polyline of guessing, where both rates are equal.
        bound: Polyline of the greatest true-positive rate that (epsilon, delta) allows.
        points: The tighter bounds stated of the plan itself.
    """

    ticks_x: tuple[Point, ...]
    ticks_y: tuple[Point, ...]
    guess: str
    bound: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Whisker:
    """An interval on a common scale, in percent of its width.

    Attributes:
        low: Where the interval begins.
        high: Where it ends.
        value: Where the estimate lies.
        zero: Where no effect lies.
    """

    low: float
    high: float
    value: float
    zero: float


def upright(values: Sequence[float], titles: Sequence[str]) -> tuple[Bar, ...]:
    """Return adjoining bars as tall as their values, the greatest filling the drawing.

    >>> [bar.height for bar in upright([1.0, 2.0], ["", ""])]
    [68.0, 136.0]
    """
    step = WIDTH / max(len(values), 1)
    room = HEIGHT - AXIS
    gap = min(1.0, step / 4)
    return tuple(
        Bar(_round(i * step), _round(room - tall), _round(step - gap), _round(tall), title)
        for i, (tall, title) in enumerate(zip(_scaled(values, room), titles, strict=True))
    )


def lying(values: Sequence[float], titles: Sequence[str]) -> tuple[Bar, ...]:
    """Return bars under one another as long as their values, between labels and values."""
    step = min(HEIGHT / max(len(values), 1), 20.0)
    room = WIDTH - LABELS - VALUES
    return tuple(
        Bar(LABELS, _round(i * step + step * 0.1), _round(long), _round(step * 0.8), title)
        for i, (long, title) in enumerate(zip(_scaled(values, room), titles, strict=True))
    )


def segments(values: Sequence[float], total: float, titles: Sequence[str]) -> tuple[Bar, ...]:
    """Return parts of a whole side by side, in percent of its width, never beyond it.

    >>> [(bar.x, bar.width) for bar in segments([1.0, 2.0], 4.0, ["", ""])]
    [(0.0, 25.0), (25.0, 50.0)]
    """
    whole = max(total, sum(max(v, 0.0) for v in values))
    shares = [100 * max(v, 0.0) / whole if whole > 0 else 0.0 for v in values]
    starts = accumulate(shares, initial=0.0)
    return tuple(
        Bar(_round(start), 0.0, _round(share), 100.0, title)
        for start, share, title in zip(starts, shares, titles, strict=False)
    )


def whiskers(intervals: Sequence[tuple[float, float, float]]) -> tuple[Whisker, ...]:
    """Return intervals (low, value, high) on one scale that holds them all and zero."""
    ends = [0.0, *(end for interval in intervals for end in interval)]
    start, stop = min(ends), max(ends)
    margin = (stop - start) * 0.06 or 1.0
    start, stop = start - margin, stop + margin

    def place(value: float) -> float:
        return _round(100 * (value - start) / (stop - start))

    return tuple(
        Whisker(place(low), place(high), place(value), place(0.0)) for low, value, high in intervals
    )


def greatest_rate(false_positives: float, epsilon: float, delta: float) -> float:
    """Return the greatest true-positive rate of any test under (epsilon, delta)-DP.

    Kairouz, Oh, Viswanath 2015, theorem 2.1, for both orders of the two tables.

    >>> round(greatest_rate(0.01, 0.0, 0.0), 12)
    0.01
    """
    first = math.exp(epsilon) * false_positives + delta
    second = 1 - math.exp(-epsilon) * max(1 - delta - false_positives, 0.0)
    return max(0.0, min(1.0, first, second))


def roc_bound(points: Sequence[tuple[float, float, str]], epsilon: float, delta: float) -> RocBound:
    """Return the drawing of what an attacker can reach.

    Args:
        points: False-positive rate, greatest true-positive rate, label.
        epsilon: Of the promise.
        delta: Of the promise.
    """
    rates = [min(max(fpr, _LEAST_RATE), 0.1) for fpr, _, _ in points]
    # Rounded before the floor: the logarithm of 0.001 may fall just short of -3.
    decades = -math.floor(round(math.log10(min(rates, default=1e-3)), 9))
    least = 10.0**-decades

    def x(rate: float) -> float:
        share = 1 + math.log10(max(rate, least)) / decades
        return _round(ROC_MARGIN + min(share, 1.0) * ROC_SIZE)

    def y(rate: float) -> float:
        return _round(ROC_SIZE + 2 * ROC_MARGIN - x(rate) - ROC_MARGIN / 2)

    grid = [10.0 ** (-decades * (1 - i / _ROC_STEPS)) for i in range(_ROC_STEPS + 1)]
    ticks = [10.0**-i for i in range(decades, -1, -1)]
    labels = [f"{100 * tick:.6g}\u00a0%" for tick in ticks]
    return RocBound(
        tuple(Point(x(tick), y(least), label) for tick, label in zip(ticks, labels, strict=True)),
        tuple(Point(x(least), y(tick), label) for tick, label in zip(ticks, labels, strict=True)),
        _polyline([(x(rate), y(rate)) for rate in (least, 1.0)]),
        _polyline([(x(rate), y(greatest_rate(rate, epsilon, delta))) for rate in grid]),
        tuple(Point(x(fpr), y(tpr), label) for fpr, tpr, label in points),
    )


def _scaled(values: Sequence[float], room: float) -> list[float]:
    top = max(values, default=0.0)
    return [room * value / top if top > 0 else 0.0 for value in values]


def _polyline(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)


def _round(value: float) -> float:
    return round(value, 1)
