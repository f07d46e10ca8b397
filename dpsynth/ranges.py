"""The line on which the values of a ranged column are counted, and what was found on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth._values import Kind, numbers_of
from dpsynth._zones import zone_of
from dpsynth.bins import Histogram
from dpsynth.columns import Date, Datetime, Integer, Ranged, Real, number_of
from dpsynth.grids import inner_grid, lattice, widest_grid

Bounds = tuple[float, float] | tuple[int, int]
Starts = tuple[int, ...] | tuple[float, ...]

_KINDS: dict[type, Kind] = {
    Integer: "integer",
    Real: "real",
    Date: "date",
    Datetime: "datetime",
}
_MOST_PLACES, _MOST_REAL = 2**49, 2.0**60


def kind_of(column: Ranged) -> Kind:
    """Return what the values of a column are."""
    return _KINDS[type(column)]


@dataclass(frozen=True)
class Line:
    """A column's number line: for reals with a step, whole numbers of steps.

    Attributes:
        column: The public facts.
        step: Spacing of the values, if declared.
        origin: The value from which steps are counted.
    """

    column: Ranged
    step: float | None
    origin: float

    @classmethod
    def of(cls, column: Ranged) -> Line:
        """Return the line of a column."""
        step = column.step if isinstance(column, Real) else None
        low = number_of(column.lower) if column.lower is not None and step is not None else 0
        return cls(column, step, float(low))

    def numbers(self, values: pd.Series) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return where each value lies, int64 or float64, and bool: whether it is on the line."""
        zone = self.column.zone if isinstance(self.column, Datetime) else None
        named = None if zone is None else zone_of(zone)
        numbers, known = numbers_of(values, kind_of(self.column), named)
        if self.step is None:
            return numbers, known
        most = float(self._most)
        with np.errstate(over="ignore"):  # a warning would tell of a row
            steps = (numbers - self.origin) / self.step
        places = np.rint(np.clip(steps, -most, most))
        return places.astype(np.int64), known

    def histogram(self) -> Histogram:
        """Return the histogram of its cells before anything was counted."""
        kind, column = kind_of(self.column), self.column
        of: Kind = kind if self.step is None else "integer"
        if column.lower is None or column.upper is None:
            return Histogram.over(
                widest_grid(of) if self.step is None else widest_grid(of, self._most)
            )
        zone = column.zone if isinstance(column, Datetime) else None
        lower, upper = number_of(column.lower, zone), number_of(column.upper, zone)
        if self.step is not None:
            lower, upper = 0, math.floor((upper - lower) / self.step + 1e-9)
        return Histogram.over(inner_grid(of, lower, upper), fixed=True)

    def bounds(self, histogram: Histogram) -> Bounds:
        """Return the bounds that a histogram found, in the column's own numbers."""
        low, high = histogram.bounds()
        if self.step is None:
            return low, high
        low, high = self._back([max(low, -self._most), min(high, self._most)])
        return low, high

    def starts(self, histogram: Histogram) -> Starts | None:
        """Return the cells that a histogram found; None for those that follow from the bounds."""
        found = histogram.starts()
        return found if found is None or self.step is None else tuple(self._back(found))

    @property
    def _most(self) -> int:
        """Greatest number of steps that is told apart, and that a schema can say."""
        return int(min(_MOST_PLACES, max(_MOST_REAL / (self.step or 1.0), 1.0)))

    def _back(self, places: Any) -> list[float]:
        return [
            float(e)
            for e in lattice(self.origin, np.array(places, dtype=np.int64), self.step or 1.0)
        ]
