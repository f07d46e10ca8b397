"""Grids: cells of numbers, dates and times that follow from public facts alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsynth._values import DAY, Kind

MOST_FINE = 512
"""Up to so many possible values, each has a code of its own; beyond, cells of a public grid."""

_UNIFORM = 128  # cells of the uniform part of a grid
_WIDEST, _TOP = 2**62, 2.0**60  # ends of the widest grids
_SMALLEST = -6  # reals below its power of ten are told from zero, not from each other
_PARTS = 10  # least number of sub-cells of a cell that is split
_SINGLES = 64  # up to so many whole numbers of a cell are told apart at once


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


def chosen_starts(
    bins: Iterable[float], lower: float | int, upper: float | int, step: float | None
) -> tuple[int, ...] | tuple[float, ...]:
    """Return the starts of chosen cells: those on the lattice inside the bounds, and the lower one.

    Args:
        bins: Where cells start.
        lower: The lower bound.
        upper: The upper bound.
        step: Spacing of the values of a real, if declared.
    """
    if step is not None:
        top = math.floor((upper - lower) / step + 1e-9)
        places = {0, *(round((each - lower) / step) for each in bins)}
        found = np.array(sorted(p for p in places if 0 <= p <= top), dtype=np.int64)
        return tuple(lattice(float(lower), found, step).tolist())
    return tuple(sorted({lower, *(each for each in bins if lower <= each <= upper)}))


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
    """Cells of the number line, for counting: public, or made from answers that were paid for.

    Attributes:
        of: What the numbers are.
        starts: Lower ends of the cells, increasing; the first also takes all that lies below.
        end: Where the last cell ends; it also takes all that lies beyond.
    """

    of: Kind
    starts: tuple[int, ...] | tuple[float, ...]
    end: float | int

    @property
    def ends(self) -> tuple[int, ...] | tuple[float, ...]:
        """Where each cell ends: at the start of the next, which it leaves out."""
        return (*self.starts[1:], self.end)

    def cells(self, numbers: NDArray[Any]) -> NDArray[np.int64]:
        """Return the int64 cell of each number."""
        starts = np.array(self.starts, dtype=numbers.dtype)
        return np.maximum(np.searchsorted(starts, numbers, side="right") - 1, 0).astype(np.int64)


def widest_grid(of: Kind, most: int = _WIDEST) -> Grid:
    """Return the grid for a column of which only the type is public.

    Numbers: cells that start at 1, 2 and 5 times a power of ten, on both sides of zero; zero is
    alone. Times: half-years.

    Args:
        of: What the numbers are.
        most: No whole number is beyond it, on either side.
    """
    if of in ("date", "datetime"):
        months = np.arange("1800-01", "2200-07", 6, dtype="datetime64[M]").astype("datetime64[D]")
        unit = 1 if of == "date" else DAY
        *starts, end = (int(day) * unit for day in months.astype(np.int64))
        return Grid(of, tuple(starts), end)
    if of == "integer":
        sizes = [m * 10**e for e in range(19) for m in (1, 2, 5) if m * 10**e < most]
        return Grid(of, (-most, *(-size for size in reversed(sizes)), 0, *sizes), most)
    reals = [float(f"{m}e{e}") for e in range(_SMALLEST, 18) for m in (1, 2, 5)]
    least = math.nextafter(0.0, 1.0)  # the end of the cell of zero alone
    return Grid(of, (-_TOP, *(-real for real in reversed(reals)), 0.0, least, *reals), _TOP)


def inner_grid(of: Kind, lower: float | int, upper: float | int) -> Grid:
    """Return the grid to begin with for a column with public bounds: coarse, to be refined."""
    end = upper + 1 if of != "real" else max(upper, math.nextafter(lower, math.inf))
    edges = {lower, *split(of, lower, end), *widest_grid(of).starts}
    return Grid(of, tuple(sorted(e for e in edges if lower <= e < end)) or (lower,), end)


def split(of: Kind, start: float | int, end: float | int) -> list[int] | list[float]:
    """Return the starts of the sub-cells of one cell, its own among them; alone if it has none.

    Whole numbers: each by itself if there are few; else about twenty cells with round ends. The
    number at each end, and the one before it, have cells of their own: values that many rows share
    (500, 99999) tend to be round, or the last before a round one. Reals: likewise, without the one
    before. Times: the years, months, days, hours, minutes or seconds of
    the cell.
    """
    if of in ("date", "datetime"):
        return _calendar(of, int(start), int(end))
    width = end - start
    if of == "integer" and width <= _SINGLES:
        return list(range(int(start), int(end)))
    if of == "real" and width < 64 * math.ulp(max(abs(start), abs(end))):
        return [float(start)]
    power = 10.0 ** math.floor(math.log10(width / _PARTS))
    size = next((power * m for m in (5, 2) if width >= _PARTS * power * m), power)
    if of == "integer":
        low, high, step = int(start), int(end), int(size)
        round_ = [low, *range(low + step - low % step, high, step), high]
        alone = {e + shift for e in round_ for shift in (-1, 0, 1)}
        return sorted(e for e in alone if low <= e < high)
    places = np.arange(math.floor(start / size) + 1, math.ceil(end / size))
    edges = [float(start), *lattice(0.0, places, float(f"{size:.3g}")).tolist()]
    alone = {e for edge in edges for e in (edge, math.nextafter(edge, math.inf))}
    return sorted(e for e in alone if start <= e < end)


def _calendar(of: Kind, start: int, end: int) -> list[int]:
    own = "D" if of == "date" else "s"
    low, high = np.array([start, end], dtype=f"datetime64[{own}]")
    for unit in ("Y", "M", "D", "h", "m", "s"):
        parts = np.arange(low.astype(f"datetime64[{unit}]"), high, dtype=f"datetime64[{unit}]")
        inner = parts.astype(f"datetime64[{own}]").astype(np.int64)
        found = sorted({start, *(int(e) for e in inner if start < e < end)})
        if len(found) > 1 or unit == own:
            return found
    return [start]
