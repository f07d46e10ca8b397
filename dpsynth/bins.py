"""From noisy counts to ranges, cells and quantiles: post-processing, free of charge.

A histogram of a column is refined round by round: each round counts again, in sub-cells, the cells
that the round before showed to be heavy. So cells come out fine where the mass is and coarse where
it is not: in the spirit of PrivTree (Zhang, Xiao, Xie 2016), but with a fixed number of levels that
are paid for, and noise that composes exactly. See ``docs/explanation/discovery.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dpsynth._values import DAY
from dpsynth.grids import MOST_FINE, Grid, split

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

MOST_CELLS, LEAST_CELLS = 128, 32
"""Most and fewest cells of equal mass that a range is cut into; spikes have cells of their own."""

STANDS_OUT = 4.0
"""Standard deviations of noise above which a cell is counted again in sub-cells."""

REACHES_ON = 3.0
"""Standard deviations above which mass next to a range belongs to it."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """What is known of a column's distribution so far, from noisy counts alone.

    Attributes:
        grid: The cells.
        fixed: Whether the range is public, so that only its inside is to be found.
        mass: float64 (cells,): estimated mass of each, as the first round counts it.
        within: int64 (cells,): for a cell that is to be counted next, the number of the cell that
            it is a part of; -1 for the others.
        heavy: bool (cells,): those that stood out when they were last counted.
        noise: Standard deviation of the first round's noise on a cell; 0 before it.
        first: The first cell of the range.
        last: Its last cell; below ``first`` if no mass was found.
    """

    grid: Grid
    fixed: bool
    mass: Array
    within: NDArray[np.int64]
    heavy: NDArray[np.bool_]
    noise: float
    first: int
    last: int

    @classmethod
    def over(cls, grid: Grid, *, fixed: bool = False) -> Histogram:
        """Return the histogram of a grid of which nothing is known yet."""
        size = len(grid.starts)
        heavy, last = np.zeros(size, dtype=np.bool_), size - 1 if fixed else -1
        return cls(grid, fixed, np.zeros(size), np.arange(size), heavy, 0.0, 0, last)

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Which cells are to be counted next."""
        return self.within >= 0

    @property
    def found(self) -> bool:
        """Whether mass stands out of the noise anywhere."""
        return self.last >= self.first

    def told(self, counts: Counts, sigma: float) -> Histogram:
        """Return what is known once the asked cells have been counted.

        Args:
            counts: int64 (cells,), noisy where asked, else 0.
            sigma: Standard deviation of their noise.
        """
        if not self.noise:
            mass = np.where(counts > 2 * sigma, counts, 0.0)
        else:
            mass = self.mass.copy()
            for whole in np.unique(self.within[self.asked]):
                parts = np.flatnonzero(self.within == whole)
                mass[parts] = _shared_out(counts[parts], self.mass[parts], sigma)
        first, last = (self.first, self.last) if self.fixed else self._reach(counts, sigma)
        heavy = self.asked & (counts > STANDS_OUT * sigma)
        noise = self.noise or sigma
        return replace(self, mass=mass, heavy=heavy, noise=noise, first=first, last=last)

    def divided(self) -> Histogram:
        """Return the histogram with what the next round counts.

        Heavy cells of the range, in sub-cells; and what lies outside of it, once more: few rows
        are there, so that each of them weighs more than before.
        """
        old = np.arange(len(self.mass))
        inside = (self.first <= old) & (old <= self.last)
        worth = self.heavy & inside & (self.mass * MOST_CELLS >= self.mass.sum())
        cells = zip(worth, self.grid.starts, self.grid.ends, strict=True)
        parts = [split(self.grid.of, a, b) if heavy else [a] for heavy, a, b in cells]
        many = np.array([len(part) for part in parts])
        old = np.repeat(old, many)
        grid = Grid(self.grid.of, tuple(a for part in parts for a in part), self.grid.end)
        ends = zip(grid.starts, grid.ends, strict=True)  # exact, also far out
        widths = np.array([b - a for a, b in ends], dtype=np.float64)
        begins = np.concatenate([[0], np.cumsum(many)])
        return Histogram(
            grid,
            self.fixed,
            # Until they are counted, sub-cells share the mass by their widths.
            self.mass[old] * widths / np.bincount(old, weights=widths)[old],
            np.where((many[old] > 1) | ~inside[old], old, -1),
            np.zeros(len(old), dtype=np.bool_),
            self.noise,
            int(begins[self.first]),
            int(begins[self.last + 1]) - 1,
        )

    def bounds(self) -> tuple[float, float] | tuple[int, int]:
        """Return the ends of the range: ends of cells, never the least or greatest value itself.

        If nothing stands out: -1 to 1 for reals, -4 to 3 for integers, the year 2000 for times.
        """
        of = self.grid.of
        if not self.found:
            day = 1 if of == "date" else DAY
            year = (10_957 * day, 11_323 * day - 1)
            return (-1.0, 1.0) if of == "real" else (-4, 3) if of == "integer" else year
        low, high = self.grid.starts[self.first], self.grid.ends[self.last]
        if of != "real":
            return int(low), int(high) - 1
        single = math.nextafter(self.grid.starts[self.last], math.inf)
        return float(low), float(self.grid.starts[self.last] if high <= single else high)

    def starts(self) -> tuple[int, ...] | tuple[float, ...] | None:
        """Return the starts of cells of about equal mass in the range, spikes alone.

        None if nothing was found, or if every value of the range can have a cell of its own.
        """
        if not self.found:
            return None
        of, (low, high) = self.grid.of, self.bounds()
        chosen = slice(self.first, self.last + 1)
        mass, begins, ends = self.mass[chosen], self.grid.starts[chosen], self.grid.ends[chosen]
        whole = float(mass.sum())
        cells = int(min(max(whole / self.noise, LEAST_CELLS), MOST_CELLS))
        if of != "real" and high - low < 2 * cells:
            return None
        edges = set(noisy_quantiles([*begins, ends[-1]], mass, np.arange(1, cells) / cells))
        heaviest = np.argsort(-mass, kind="stable")[: (MOST_FINE - cells - 1) // 2]
        for place in heaviest[4 * cells * mass[heaviest] > whole]:
            edges |= {begins[place], ends[place]}
        if of == "real":
            return tuple(sorted({float(low), *(float(e) for e in edges if low < e < high)}))
        return tuple(sorted({int(low), *(int(e) for e in edges if low < e <= high)}))

    def _reach(self, counts: Counts, sigma: float) -> tuple[int, int]:
        """Return the range: all that stands out, now or before, and what reaches on from there."""
        first, last = self.first, self.last
        if not self.found:
            first, last = standing_out(counts, sigma)
        else:
            low, high = standing_out(counts[:first], sigma), standing_out(counts[last + 1 :], sigma)
            first = low[0] if low[0] <= low[1] else first
            last = last + 1 + high[1] if high[0] <= high[1] else last
        if last < first:
            return first, last
        # On such evidence no range grows past zero: amounts and counts would turn negative.
        signs = np.sign(np.array(self.grid.starts))
        below = int(np.searchsorted(signs, signs[first] if signs[first] < 0 else 0))
        above = int(np.searchsorted(signs, 0, side="right" if signs[last] <= 0 else "left"))
        above = len(counts) if signs[last] > 0 else above
        first -= _grown(counts[below:first][::-1], sigma)
        last += _grown(counts[last + 1 : max(above, last + 1)], sigma)
        return first, last


def standing_out(counts: Counts, sigma: float) -> tuple[int, int]:
    """Return the first and the last cell between which mass stands out of the noise.

    Runs of 1, 2, 4, ... cells are summed too: mass that is spread over many cells stands out in
    none of them. The range is from the run that ends first to the run that starts last.

    Args:
        counts: int64 (cells,), noisy.
        sigma: Standard deviation of the noise on each.

    Returns:
        The two cells, the second below the first if nothing stands out.
    """
    low, high = (len(counts), 0), (-1, -1)
    sums = np.concatenate([[0], np.cumsum(counts)])
    runs = [2**power for power in range(len(counts).bit_length())]
    level = sigma * (math.sqrt(2 * math.log(2 * max(len(counts) * len(runs), 1))) + 1)
    for run in runs:
        found = np.flatnonzero(sums[run:] - sums[:-run] > level * math.sqrt(run))
        if len(found):
            begin, end = int(found[0]), int(found[-1])
            low = min(low, (begin + run - 1, -begin))
            high = max(high, (end, -(end + run - 1)))
    return -low[1], -high[1] if high[0] >= 0 else -1


def _grown(counts: Counts, sigma: float) -> int:
    """Return how many cells next to a range reach on from it: one or two at a time."""
    grown = 0
    while True:
        for run in (1, 2):
            mass = int(counts[grown : grown + run].sum())
            if grown + run <= len(counts) and mass > REACHES_ON * sigma * math.sqrt(run):
                grown += run
                break
        else:
            return grown


def noisy_quantiles(
    edges: Sequence[float], mass: Sequence[float] | Array, shares: Sequence[float] | Array
) -> list[float]:
    """Return quantiles of a histogram, each of its cells of even density.

    Args:
        edges: Ends of the cells, increasing, one more than there are cells.
        mass: Mass of each cell; below 0 counts as 0.
        shares: The quantiles to find, in 0..1.

    >>> noisy_quantiles([0, 10, 20], [300.0, 100.0], [0.5, 0.75])
    [6.666666666666667, 10.0]
    """
    held = np.maximum(np.asarray(mass, dtype=np.float64), 0.0)
    if not held.any():
        held = np.ones(len(held))
    below = np.concatenate([[0.0], np.cumsum(held) / held.sum()])
    return [float(e) for e in np.interp(shares, below, np.asarray(edges, dtype=np.float64))]


def _shared_out(counts: Counts, even: Array, sigma: float) -> Array:
    """Return the mass of the parts of one cell, as they were counted; its sum stays.

    Drawn to the even spread as far as the counts show no more than noise (James and Stein 1961,
    positive part), then projected onto what is not negative.
    """
    mass, seen = float(even.sum()), float(counts.sum())
    if len(counts) < 2 or seen <= sigma or mass <= 0:
        return even
    spread = even * (seen / mass)
    apart = counts - spread
    kept = max(0.0, 1.0 - (len(counts) - 2) * sigma**2 / max(float((apart**2).sum()), 1e-9))
    values = spread + kept * apart
    order = np.sort(values)[::-1]
    cuts = (np.cumsum(order) - seen) / np.arange(1, len(order) + 1)
    cut = float(cuts[np.flatnonzero(order > cuts)[-1]])
    result: Array = np.maximum(values - cut, 0.0) * (mass / seen)
    return result
