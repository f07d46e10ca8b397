"""Grids: cells of numbers, dates and times that follow from public facts alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth._values import DAY, Kind, numbers_of
from dpsynth._zones import zone_of

MOST_FINE = 512
"""Up to so many possible values, each has a code of its own; beyond, cells of a public grid."""

_UNIFORM = 128  # cells of the uniform part of a grid
_TOP = 2.0**60  # end of the widest grid of reals


def fine_starts(
    of: Kind, lower: float | int, upper: float | int, step: float | None
) -> tuple[int, ...] | tuple[float, ...]:
    """Return the starts of the cells of a column with public bounds.

    Few possible values: one cell each. Many: a uniform grid joined with one that is geometric
    around zero, since amounts spread over orders of magnitude; zero and both bounds have cells of
    their own, since zeros and top codes are common.
    """
    if of != "real":
        return _whole_starts(int(lower), int(upper), ratio=of == "integer")
    low, high = float(lower), float(upper)
    if step is None:
        return _real_starts(low, high)
    zero, last = round(-low / step), math.floor((high - low) / step + 1e-9)
    places = np.array(_whole_starts(-zero, last - zero, ratio=True), dtype=np.int64) + zero
    return tuple(lattice(low, places, step).tolist())


def _whole_starts(low: int, high: int, *, ratio: bool) -> tuple[int, ...]:
    if high - low < MOST_FINE:
        return tuple(range(low, high + 1))
    edges = {low + (high - low) * i // _UNIFORM for i in range(_UNIFORM)}
    if ratio:
        edges |= {int(e) for e in _geometric(low, high, 1.0)}
    edges |= {0, 1, low, low + 1, high}
    return tuple(sorted(e for e in edges if low <= e <= high))


def _real_starts(lower: float, upper: float) -> tuple[float, ...]:
    edges = set(np.linspace(lower, upper, _UNIFORM, endpoint=False).tolist())
    edges |= set(_geometric(lower, upper, max((upper - lower) * 1e-6, 1e-280)))
    # The cell of a single value ends at the next float.
    edges |= {e for single in (lower, 0.0) for e in (single, math.nextafter(single, math.inf))}
    edges.add(upper)
    return tuple(sorted(e for e in edges if lower <= e <= upper))


def lattice(lower: float, places: NDArray[np.int64], step: float) -> NDArray[np.float64]:
    """Return lower + places * step, with no more decimals than the two have."""
    digits = max(_decimals(lower), _decimals(step))
    reals = lower + places.astype(np.float64) * step
    # Beyond so many digits, shifting them would lose more than it tidies.
    rounded = np.round(reals, digits) if digits <= 12 else reals
    # The bound itself has those decimals already, and tidying may move it by its last bit.
    return np.where(places == 0, lower, rounded)


def _decimals(number: float) -> int:
    return max(0, -int(Decimal(repr(float(number))).as_tuple().exponent))


def on_lattice(lower: float, upper: float, step: float) -> tuple[float, float, float]:
    """Return bounds moved outwards to multiples of a step, and the step, doubled until it fits.

    No more than 2**50 steps are told apart, so that floating point tells them too.
    """
    while max(upper - lower, abs(lower), abs(upper)) / step > 2**49:
        step *= 2
    places = np.array([math.floor(lower / step), math.ceil(upper / step)])
    low, high = lattice(0.0, places, step).tolist()
    return low, high, step


def _geometric(lower: float, upper: float, unit: float) -> list[float]:
    """Return edges +-unit * 2**(j / 4) inside the bounds; those of a range without 0, by ratio."""
    reach = max(abs(lower), abs(upper))
    octaves = math.ceil(math.log2(max(reach / unit, 2.0)))
    sizes = [unit * 2 ** (j / 4) for j in range(4 * octaves + 1)]
    return [s for size in sizes for s in (size, -size) if lower <= s <= upper]


@dataclass(frozen=True)
class Grid:
    """A public grid over everything a column without declared bounds could hold.

    Attributes:
        of: What the numbers are.
        starts: Lower ends of the cells, increasing; the first also takes all that lies below.
        zone: Name of the time zone of datetimes, if declared.
        size: Number of codes: the cells, and one for what is missing, the last.
    """

    of: Kind
    starts: tuple[int, ...] | tuple[float, ...]
    zone: str | None = None

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.starts) + 1

    def encode(self, values: pd.Series) -> NDArray[np.int64]:
        """Return int64 codes of shape (rows,)."""
        numbers, known = numbers_of(values, self.of, zone_of(self.zone) if self.zone else None)
        starts = np.array(self.starts, dtype=numbers.dtype)
        codes = np.maximum(np.searchsorted(starts, numbers, side="right") - 1, 0)
        return np.where(known, codes, len(self.starts)).astype(np.int64)


def widest_grid(of: Kind) -> Grid:
    """Return the grid for a column of which only the type is public."""
    if of == "integer":
        sizes = sorted({round(2 ** (j / 4)) for j in range(4 * 62)})
        return Grid(of, tuple([-s for s in reversed(sizes)] + [0] + sizes))
    if of == "real":
        magnitudes = [2.0 ** (j / 4) for j in range(-4 * 20, 4 * 60)]
        return Grid(of, tuple([-m for m in reversed(magnitudes)] + [0.0] + magnitudes))
    months = np.arange("1800-01", "2200-01", 6, dtype="datetime64[M]").astype("datetime64[D]")
    unit = 1 if of == "date" else DAY
    return Grid(of, tuple(int(day) * unit for day in months.astype(np.int64)))


def bounds_from_histogram(
    grid: Grid, counts: NDArray[np.int64], sigma: float
) -> tuple[float, float] | tuple[int, int]:
    """Return bounds that hold all cells that stand out of the noise: post-processing.

    Args:
        grid: The grid that was counted.
        counts: int64 noisy counts, one a code.
        sigma: Standard deviation of the noise.

    Returns:
        The start of the first such cell and the end of the last, lower < upper; if none stands
        out, -1 to 1 for reals, a few cells around zero for integers, around the year 2000 for
        dates. Never the least or greatest value itself.
    """
    level = sigma * (math.sqrt(2 * math.log(2 * grid.size)) + 1)
    found = np.flatnonzero(counts[: len(grid.starts)] > level)
    if not len(found):
        middle = len(grid.starts) // 2
        reach = 81 if grid.of == "real" else 4  # up to 1, for reals
        found = np.array([middle - reach, middle + reach - 1])
    low = grid.starts[int(found[0])]
    after = int(found[-1]) + 1
    if grid.of == "real":
        return float(low), float((*grid.starts, _TOP)[after])
    # The cell of one integer ends at that integer: its successor belongs to the next.
    high = grid.starts[after] - 1 if after < len(grid.starts) else grid.starts[-1]
    return int(low), int(max(high, low + 1))
