"""Privacy-loss distributions on a grid, rounded so that no price is too small.

For laws P, Q of an answer with and without a unit, the loss is L = ln dP/dQ under P, and
delta(epsilon) = E_P[(1 - e^(epsilon - L))_+]. Independent losses add.

Rounding moves the losses in one grid cell to its two ends, keeping the cell's mass under P and
under Q. Every delta(epsilon) is convex in e^-L, whose mean in the cell is kept, so none falls
(connecting the dots: Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022, section 4). A rounded loss
gains a variance of at most h^2 / 4, so the error is of second order in the interval h.
Proof and error: ``docs/explanation/numerics.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

SLACK = 1e-12
"""Delta set aside for rounding: the least."""

_SLACK_PER_LOSS = 5e-16
"""The same for each composed loss: a power of a transform multiplies its rounding (observed: up to
2.4e-16, from a hundred losses to 10^8)."""

TAIL = 1e-15
"""Mass of a composition that may be cut off; it is added to the infinite loss."""


def slack(count: int) -> float:
    """Return the delta set aside for rounding in a composition of so many losses."""
    return SLACK + _SLACK_PER_LOSS * count


@dataclass(frozen=True, eq=False)
class Losses:
    """The law of a privacy loss on the multiples of an interval.

    Attributes:
        interval: Distance of neighbouring losses, in nats.
        lower: The first loss, in intervals.
        masses: float64 (losses,): mass under P at each loss.
        infinity: Mass under P of an infinite loss.
    """

    interval: float
    lower: int
    masses: Array
    infinity: float

    @property
    def values(self) -> Array:
        """The losses, in nats: float64, the shape of ``masses``."""
        cells = np.arange(self.lower, self.lower + len(self.masses), dtype=np.float64)
        return cells * self.interval

    @cached_property
    def _above(self) -> tuple[Array, Array]:
        """Mass at and above each loss, under P and under Q, with a zero for what lies beyond."""
        under_q = self.masses * np.exp(-np.maximum(self.values, -700.0))
        return (
            np.append(np.cumsum(self.masses[::-1])[::-1], 0.0),
            np.append(np.cumsum(under_q[::-1])[::-1], 0.0),
        )

    def delta(self, epsilon: Array) -> Array:
        """Return delta at each epsilon: float64, the shape of ``epsilon``."""
        first = np.floor(epsilon / self.interval).astype(np.int64) + 1 - self.lower
        first = np.clip(first, 0, len(self.masses))
        p, q = self._above
        found = self.infinity + p[first] - np.exp(np.minimum(epsilon, 700.0)) * q[first]
        return np.asarray(np.clip(found, self.infinity, 1.0))


def on_grid(
    p: Array,
    q: Array,
    cells: NDArray[np.int64],
    interval: float,
    *,
    below: float = 0.0,
    infinity: float = 0.0,
) -> Losses:
    """Round the losses of pieces of two laws.

    Args:
        p: float64 (pieces,): mass of each piece under P.
        q: float64 (pieces,): its mass under Q.
        cells: int64 (pieces,): all losses in piece i are in [cells[i], cells[i] + 1] intervals.
        interval: The grid's interval.
        below: Mass under P of losses below all cells; they are moved up to the lowest.
        infinity: Mass under P where Q has none, or of losses above all cells.
    """
    # Masses u, v at the cell's ends with u + v = p and u e^-low + v e^-high = q.
    at_low = q * np.exp(np.clip(cells * interval, -700.0, 700.0)) - p * math.exp(-interval)
    at_low = np.clip(at_low / -math.expm1(-interval), 0.0, p)
    first = int(cells.min())
    places = cells - first
    length = int(places.max()) + 2
    masses = np.zeros(length)
    masses += np.bincount(places, at_low, length)
    masses += np.bincount(places + 1, p - at_low, length)
    masses[0] += below
    return Losses(interval, first, masses, infinity)


def atoms(log_p: Array, log_q: Array, interval: float, *, infinity: float = 0.0) -> Losses:
    """Round the losses of two discrete laws, given the log masses of each outcome under both."""
    cells = np.floor((log_p - log_q) / interval).astype(np.int64)
    return on_grid(np.exp(log_p), np.exp(log_q), cells, interval, infinity=infinity)


def from_profile(losses: NDArray[np.int64], deltas: Array, interval: float) -> Losses:
    """Return the law of a pair of laws whose delta(epsilon) is at least a given profile's.

    Args:
        losses: int64 (points,): where the profile is known, in intervals, rising.
        deltas: float64 (points,): upper bounds on delta there. The greatest convex function of
            e^epsilon below them is still one, since delta itself is convex.
        interval: The grid's interval.
    """
    x = np.concatenate([[0.0], np.exp(losses * interval)])
    y = np.concatenate([[1.0], deltas])
    hull = [0]
    for i in range(1, len(x)):
        while len(hull) > 1 and (y[hull[-1]] - y[hull[-2]]) * (x[i] - x[hull[-2]]) >= (
            y[i] - y[hull[-2]]
        ) * (x[hull[-1]] - x[hull[-2]]):
            hull.pop()
        hull.append(i)
    kept = np.array(hull)
    slopes = np.append(np.diff(y[kept]) / np.diff(x[kept]), 0.0)
    # The mass under P at a corner is x times the change of slope there (the first corner is 0).
    masses = np.zeros(int(losses[-1] - losses[0]) + 1)
    masses[losses[kept[1:] - 1] - losses[0]] = x[kept[1:]] * np.maximum(np.diff(slopes), 0.0)
    return Losses(interval, int(losses[0]), masses, float(y[kept[-1]]))


def compose(parts: Sequence[tuple[Losses, int]], most: int = 1 << 21) -> Losses:
    """Return the law of the sum of independent losses, each taken some number of times.

    All parts have the same interval. Mass of at most :data:`TAIL` beyond a window found by
    Chernoff's bound is wrapped around inside it, and added to the infinite loss.

    Raises:
        OverflowError: The window has more than ``most`` intervals.
    """
    from scipy.fft import irfft, next_fast_len, rfft  # slow to import

    interval = parts[0][0].interval
    lower, upper = _window(parts)
    if upper - lower >= most:
        raise OverflowError("a composition has too many losses for its interval")
    length = next_fast_len(upper - lower + 1, real=True)
    spectrum = np.ones(length // 2 + 1, dtype=np.complex128)
    origin, finite, short, count = 0, 0.0, 0.0, 0
    for losses, times in parts:
        folded = np.bincount(
            np.arange(len(losses.masses)) % length, weights=losses.masses, minlength=length
        )
        spectrum *= rfft(folded) ** times
        origin += losses.lower * times
        finite += times * math.log1p(-min(losses.infinity, 1 - 1e-16))
        short += times * max(0.0, -math.log(float(losses.masses.sum()) + losses.infinity))
        count += times
    masses = np.roll(irfft(spectrum, length), (origin - lower) % length)
    # What each law's masses are short of 1, and their sums' rounding: a factor on the whole.
    masses = np.maximum(masses, 0.0) * math.exp(short + count * 4e-16)
    return Losses(interval, lower, masses, min(1.0, -math.expm1(finite) + TAIL))


def _window(parts: Sequence[tuple[Losses, int]]) -> tuple[int, int]:
    """Return first and last interval between which all but :data:`TAIL` of the sum lies."""
    interval = parts[0][0].interval
    most = sum((losses.lower + len(losses.masses) - 1) * times for losses, times in parts)
    least = sum(losses.lower * times for losses, times in parts)
    coarse = [(*_coarse(losses), times) for losses, times in parts]
    variance = sum(
        float((m * v * v).sum() - (m * v).sum() ** 2) * times for m, v, _, times in coarse
    )
    deviation = max(math.sqrt(max(variance, 0.0)), interval)
    exponents = np.geomspace(0.02, 24, 24) / deviation  # small ones for skew laws
    room = -math.log(TAIL / 2)
    tops = np.full(len(exponents), room)
    bottoms = tops.copy()
    for m, high, low, times in coarse:
        logs = np.log(m)
        tops += times * _log_sum(logs + exponents[:, None] * high)
        bottoms += times * _log_sum(logs - exponents[:, None] * low)
    upper = float((tops / exponents).min())
    lower = float(-(bottoms / exponents).min())
    return max(least, math.floor(lower / interval)), min(most, math.ceil(upper / interval))


def _coarse(losses: Losses) -> tuple[Array, Array, Array]:
    """Return masses of at most a few thousand runs of losses, with the ends of each run."""
    step = len(losses.masses) // 2048 + 1
    starts = np.arange(0, len(losses.masses), step)
    masses = np.add.reduceat(losses.masses, starts)
    low = (losses.lower + starts.astype(np.float64)) * losses.interval
    kept = masses > 0
    return masses[kept], (low + (step - 1) * losses.interval)[kept], low[kept]


def _log_sum(logs: Array) -> Array:
    top = logs.max(axis=1, keepdims=True)
    return np.asarray(top[:, 0] + np.log(np.exp(logs - top).sum(axis=1)))
