"""Discovery: categories and ranges that a schema leaves open, found by noisy counts of units.

It goes in rounds. In each, a unit has one weight to spread: over the categories it holds that were
not shown yet, and another over the cells its numbers lie in that are being looked at. Whatever the
unit holds, its part of a round has an L2 norm of at most that weight; so what a round asks may
follow from earlier answers, and what is settled takes no weight from what is not. Proof and
literature: ``docs/explanation/discovery.md``; brute force: ``tests/vault/test_discovery.py``.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dpsynth_accounting as accounting
from dpsynth._values import distinct_texts
from dpsynth.bins import Histogram
from dpsynth.columns import Open, Ranged
from dpsynth.ranges import Bounds, Line, Starts
from dpsynth.schema import Schema
from dpsynth.vault import _noise
from dpsynth.vault._bound import HELD_OUT
from dpsynth.vault._rows import Kept
from dpsynth.vault._stream import Stream
from dpsynth_accounting import (
    ApproxDP,
    DiscreteGaussian,
    Event,
    InvalidRequest,
    canonical,
    rational_up,
)

CATEGORY_ROUNDS = (1 / 6, 2 / 6, 3 / 6)
"""Shares of the precision: once the frequent categories are shown, the rare weigh more."""

RANGE_ROUNDS = (1 / 3, 1 / 3, 1 / 3)
"""Shares of the precision: of the first cells, and of two levels of sub-cells."""

THRESHOLD_SHARE = Fraction(1, 10)
"""Share of a block's delta given to the thresholds of open columns, if it discovers any."""


# -- what it costs ---------------------------------------------------------------------------------


def event_of(categories: int, ranges: int, k: int, precision: float, delta: Fraction) -> Event:
    """Return what a discovery does to the rows, round by round.

    Args:
        categories: Number of open columns.
        ranges: Number of columns whose range or cells are found.
        k: Rows of a unit.
        precision: Squared signal to noise that it may take in all.
        delta: The block's delta.
    """
    each = precision / (categories + ranges)
    rounds: list[Event] = []
    for first, second in zip(CATEGORY_ROUNDS, RANGE_ROUNDS, strict=True):
        parts: list[Event] = []
        if categories:
            parts.append(_spread_of(k * categories, each * categories * first))
            parts.append(ApproxDP(Fraction(0), delta * THRESHOLD_SHARE / len(CATEGORY_ROUNDS)))
        if ranges:
            parts.append(_spread_of(k * ranges, each * ranges * second))
        rounds.append(accounting.Sequence(tuple(parts)))
    return accounting.Sequence(tuple(rounds))


def _spread_of(cells: int, precision: float) -> DiscreteGaussian:
    """Return the event of counts over which a unit spreads one weight, on at most so many cells.

    The weight is an integer so great that rounding a share of it down loses little.
    """
    weight = 64 * (math.isqrt(cells - 1) + 1)
    return DiscreteGaussian(rational_up(weight**2 / precision), weight**2, cells)


@dataclass(frozen=True)
class Round:
    """One round of a discovery, as its event has it.

    Attributes:
        categories: What the counts of categories are; None if no column is open.
        delta: Bound on the chance that a category of one unit is shown.
        ranges: What the counts of cells are; None if no range is open.
    """

    categories: DiscreteGaussian | None
    delta: Fraction
    ranges: DiscreteGaussian | None

    @property
    def least(self) -> int:
        """The least noisy count at which a category is shown."""
        if self.categories is None:
            raise TypeError("no column is open")
        event = self.categories
        return threshold(event.sigma2, self.delta, math.isqrt(event.l2_squared), event.shifts)


def rounds_of(event: Event) -> list[Round]:
    """Return the rounds of a Discover step's event."""
    if not isinstance(event, accounting.Sequence):
        raise TypeError("a discovery is a sequence of rounds")
    found = []
    for each in event.events:
        parts = list(each.events) if isinstance(each, accounting.Sequence) else []
        deltas = [part.delta for part in parts if isinstance(part, ApproxDP)]
        counts: list[DiscreteGaussian | None] = [
            part for part in parts if isinstance(part, DiscreteGaussian)
        ]
        if deltas:
            found.append(Round(counts[0], deltas[0], counts[1] if len(counts) > 1 else None))
        else:
            found.append(Round(None, Fraction(0), counts[0]))
    return found


def threshold(sigma2: Fraction, delta: Fraction, weight: int, cells: int) -> int:
    """Return the least noisy count at which a category may be shown.

    A unit can bring j categories that nobody else has, of at most ``cells``; each then has a count
    of at most weight / sqrt(j), rounded down. Some of them is shown with probability at most
    j * P(noise >= threshold - that count), which is within ``delta`` for every j.
    (For one category: Desfontaines, Voss, Gipson, Mandayam 2022, section 3; for weights: Gopi et
    al. 2020, section 4. Theirs is continuous noise; here the tail is summed over the integers.)

    Args:
        sigma2: Of the discrete Gaussian noise.
        delta: Bound on the probability.
        weight: What a unit spreads, in L2.
        cells: Most categories a unit can bring.
    """
    block, tails = _noise.upper_tails(sigma2)
    over = np.searchsorted(-tails, -float(delta) / np.arange(1, cells + 1))  # within delta / j
    if over[-1] == len(tails):
        raise InvalidRequest(
            "Categories were to be found with a delta that allows next to no chance.",
            "Their noise is not known so far out.",
            "Give the plan a delta above 1e-280, or declare the categories.",
        )
    return max(1, int((_shares(weight**2, cells)[1:] + block * over).max()))


def _shares(squared: int, most: int) -> NDArray[np.int64]:
    """Return what each of c cells gets, for c = 0..most: the root of squared / c, rounded down."""
    shares = [math.isqrt(squared // c) for c in range(1, most + 1)]
    return np.array([0, *shares], dtype=np.int64)


def describe(event: Event) -> dict[str, Any]:
    """Return the public facts of a discovery, in numbers of units.

    ``noise_sd``: of counts of units that spread their weight as widely as they can. ``shown_from``:
    how many units a category needs, if they hold nothing else that is open, and at most.
    """
    noise: set[float] = set()
    needs: list[float] = []
    for each in rounds_of(event):
        for counts in filter(None, (each.categories, each.ranges)):
            noise.add(round(math.sqrt(float(counts.sigma2 * counts.shifts / counts.l2_squared)), 2))
        if each.categories is not None:
            weight = math.isqrt(each.categories.l2_squared)
            needs += [each.least / weight, each.least / weight * math.sqrt(each.categories.shifts)]
    facts: dict[str, Any] = {"noise_sd": sorted(noise)}
    if needs:
        facts["shown_from"] = [math.ceil(min(needs)), math.ceil(max(needs))]
    return facts


# -- what it does ----------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class _Rows:
    """The columns that are looked at, read once; private.

    Attributes:
        units: int64, the unit of each row, numbered from 0.
        texts: Of each open column: int32, where in its texts each value is, -1 if missing; those.
        numbers: Of each ranged column: where on its line each value lies; bool: whether it does.
    """

    units: NDArray[np.int64]
    texts: dict[str, tuple[NDArray[np.int32], list[str]]]
    numbers: dict[str, tuple[NDArray[Any], NDArray[np.bool_]]]

    @classmethod
    def read(cls, kept: Kept, opened: Iterable[str], lines: Mapping[str, Line]) -> _Rows:
        """Return the columns of the rows that may be used."""
        used = kept.roles != HELD_OUT
        frame = kept.frame[used]
        texts = {name: distinct_texts(frame[name]) for name in opened}
        numbers = {name: line.numbers(frame[name]) for name, line in lines.items()}
        return cls(kept.units[used], texts, numbers)


class Discovery:
    """What is known so far of the columns that a schema leaves open: from answers alone.

    Attributes:
        shown: The categories shown, of each open column.
        ranges: What is known of each column whose range or cells are found.
    """

    def __init__(self, schema: Schema) -> None:
        columns = {name: schema.columns[name] for name in schema.undeclared}
        self.shown: dict[str, tuple[str, ...]] = {
            name: () for name, column in columns.items() if isinstance(column, Open)
        }
        self._lines = {n: Line.of(c) for n, c in columns.items() if isinstance(c, Ranged)}
        self.ranges = {name: line.histogram() for name, line in self._lines.items()}

    def run(
        self,
        event: Event,
        *,
        k: int,
        kept: Callable[[], Kept],
        answer: Callable[[int, Callable[[], bytes]], bytes],
        stream: Stream,
    ) -> None:
        """Carry out the rounds of an event.

        Args:
            event: A Discover step's.
            k: Rows of a unit.
            kept: Gives the rows; called only where an answer was not stored yet.
            answer: Stores what a part of the step draws before it returns it, or replays it.
            stream: Gives the noise.
        """
        read: list[_Rows] = []

        def draw(round_: Round) -> bytes:
            if not read:
                read.append(_Rows.read(kept(), self.shown, self._lines))
            return zlib.compress(canonical(self._counted(read[0], round_, k, stream)), 1)

        rounds = rounds_of(event)
        for part, round_ in enumerate(rounds):
            if part:
                self.ranges = {name: known.divided() for name, known in self.ranges.items()}
            told = json.loads(zlib.decompress(answer(part, partial(draw, round_))))
            self._learn(told, round_)

    def bounds(self) -> dict[str, Bounds]:
        """Return the bounds of the columns whose range or cells were found."""
        return {name: line.bounds(self.ranges[name]) for name, line in self._lines.items()}

    def bins(self) -> dict[str, Starts]:
        """Return the cells that were found, where they do not follow from the bounds."""
        found = {name: line.starts(self.ranges[name]) for name, line in self._lines.items()}
        return {name: starts for name, starts in found.items() if starts is not None}

    def _counted(self, rows: _Rows, round_: Round, k: int, stream: Stream) -> dict[str, Any]:
        """Return what a round answers: categories newly shown, and noisy counts of asked cells."""
        shown: dict[str, list[str]] = {}
        if round_.categories is not None:
            looked = [_without(rows.texts[name], before) for name, before in self.shown.items()]
            counts, least = spread(looked, rows.units, k, round_.categories), round_.least
            for (name, before), exact in zip(self.shown.items(), counts, strict=True):
                noise = _noise.discrete_gaussian(round_.categories.sigma2, exact.shape, stream)
                high = np.flatnonzero(exact + noise >= least)
                texts = rows.texts[name][1]
                shown[name] = sorted({texts[place] for place in high} - set(before))
        cells: dict[str, list[int]] = {}
        if round_.ranges is not None:
            looked = [_asked(rows.numbers[name], known) for name, known in self.ranges.items()]
            counts = spread(looked, rows.units, k, round_.ranges)
            for (name, known), exact in zip(self.ranges.items(), counts, strict=True):
                asked = exact[known.asked]
                noise = _noise.discrete_gaussian(round_.ranges.sigma2, asked.shape, stream)
                cells[name] = (asked + noise).tolist()
        return {"shown": shown, "cells": cells}

    def _learn(self, told: Mapping[str, Any], round_: Round) -> None:
        for name, new in told["shown"].items():
            self.shown[name] = tuple(sorted({*self.shown[name], *new}))
        if round_.ranges is not None:
            sigma = math.sqrt(float(round_.ranges.sigma2))
            for name, noisy in told["cells"].items():
                known = self.ranges[name]
                counts = np.zeros(len(known.mass), dtype=np.int64)
                counts[known.asked] = noisy
                self.ranges[name] = known.told(counts, sigma)


def _without(
    column: tuple[NDArray[np.int32], list[str]], shown: Collection[str]
) -> tuple[NDArray[np.int64], int]:
    """Return each row's category, -1 for those that are shown already, and their number."""
    places, texts = column
    shown = frozenset(shown)
    left = np.array([-1 if text in shown else i for i, text in enumerate(texts)] + [-1])
    return left[places], len(texts)


def _asked(
    column: tuple[NDArray[Any], NDArray[np.bool_]], known: Histogram
) -> tuple[NDArray[np.int64], int]:
    """Return each row's cell, -1 for those that are not asked, and their number."""
    numbers, there = column
    cells = known.grid.cells(numbers)
    return np.where(there & known.asked[cells], cells, -1), len(known.mass)


def spread(
    looked: Sequence[tuple[NDArray[np.int64], int]],
    units: NDArray[np.int64],
    k: int,
    event: DiscreteGaussian,
) -> list[NDArray[np.int64]]:
    """Return exact counts over which each unit spreads one weight.

    A unit that touches c cells, over all columns, adds weight / sqrt(c), rounded down, to each of
    them: no more than the weight in L2, whatever it touches. The weight is the root of the event's
    ``l2_squared``; c is at most its ``shifts``.

    Args:
        looked: Of each column: int64 (rows,), the cell of each row or -1; and the number of cells.
        units: int64 (rows,), the unit of each row, numbered from 0.
        k: Rows of a unit.
        event: What the counts are priced as.

    Returns:
        int64 counts, one array a column.
    """
    touched = []
    for cells, size in looked:
        pairs = (units * size + cells)[cells >= 0]
        pairs = np.unique(pairs) if k > 1 else pairs
        touched.append((pairs // max(size, 1), pairs % max(size, 1)))
    number = int(units.max()) + 1 if len(units) else 0
    many = sum((np.bincount(who, minlength=number) for who, _ in touched), np.zeros(number, int))
    shares = _shares(event.l2_squared, int(many.max(initial=0)))
    return [
        # Sums of integers below 2**53 are exact in floating point.
        np.bincount(what, weights=shares[many[who]], minlength=size).astype(np.int64)
        for (who, what), (_, size) in zip(touched, looked, strict=True)
    ]
