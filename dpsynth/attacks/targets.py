"""Who is attacked: audited units that were in, and units held out, each with all of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]


class Side:
    """The rows of one side of the coin, with their units numbered from 0.

    Args:
        rows: int32 (rows, columns).
        units: int64 (rows,): the unit of each, by any numbers.

    Attributes:
        rows: As given.
        numbers: int64 (rows,): the unit of each, from 0.
        units: How many units there are.
    """

    def __init__(self, rows: Rows, units: NDArray[np.int64]) -> None:
        names, numbers = np.unique(units, return_inverse=True)
        self.rows = rows
        self.numbers = numbers.reshape(-1)
        self.units = len(names)

    def highest(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each unit's highest score, float64 (units,)."""
        best = np.full(self.units, -np.inf)
        np.maximum.at(best, self.numbers, scores)
        return best

    def any(self, hits: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which units have a row that is hit, bool (units,)."""
        found = np.zeros(self.units, dtype=bool)
        found[self.numbers[hits]] = True
        return found

    def only(self, kept: NDArray[np.bool_]) -> Side:
        """Return some units with all their rows."""
        rows = kept[self.numbers]
        return Side(self.rows[rows], self.numbers[rows].astype(np.int64))

    def one_row_each(self, rng: np.random.Generator) -> Rows:
        """Return one random row of each unit."""
        order = rng.permutation(len(self.rows))
        _, first = np.unique(self.numbers[order], return_index=True)
        return self.rows[order[first]]


@dataclass(frozen=True, eq=False)
class Targets:
    """Both sides of the coin. Whatever is done to them is done alike, whoever is on which side.

    Attributes:
        inside: Audited units that were in the data.
        outside: Units held out.
    """

    inside: Side
    outside: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        """The units that were in, then those held out."""
        return self.inside, self.outside

    @property
    def units(self) -> int:
        """Units of both sides."""
        return self.inside.units + self.outside.units

    @cached_property
    def rows(self) -> Rows:
        """The rows of both sides, of the units that were in first; one array, not to be changed."""
        return np.concatenate([side.rows for side in self.sides])

    def highest(
        self, scores: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the highest score of each unit of either side, of the scores of all rows."""
        cut = len(self.inside.rows)
        return self.inside.highest(scores[:cut]), self.outside.highest(scores[cut:])

    def any(self, hits: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which units of either side have a row that is hit, of the hits of all rows."""
        cut = len(self.inside.rows)
        return self.inside.any(hits[:cut]), self.outside.any(hits[cut:])

    def only(self, inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> Targets:
        """Return some units of each side."""
        return Targets(self.inside.only(inside), self.outside.only(outside))

    def cut(self, most: int, rng: np.random.Generator) -> Targets:
        """Return at most so many random units of both sides together, blind to the side."""
        if self.units <= most:
            return self
        kept = np.zeros(self.units, dtype=bool)
        kept[rng.choice(self.units, most, replace=False)] = True
        return self.only(kept[: self.inside.units], kept[self.inside.units :])


def some(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    """Return at most so many random rows."""
    if len(rows) <= most:
        return rows
    return rows[rng.choice(len(rows), most, replace=False)]
