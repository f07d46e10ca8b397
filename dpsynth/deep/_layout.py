"""How an autoregressive network is laid out: a function of the columns' sizes, before and after
ordered codes are merged to be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Domain

_WIDTH = 64
"""Logits at which a group of columns is closed: narrow columns share a layer, wide ones have their
own. A layer apiece would spend its time in calls, one for all would carry, and noise, twice as many
weights, half of which are masked."""

_INPUTS = 64
"""Ordered codes beyond which neighbours are read as one."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Neighbouring columns whose logits come from one layer.

    Attributes:
        start: Place of its first column in the order.
        stop: Place after its last.
        width: How many logits they have together.
    """

    start: int
    stop: int
    width: int


@dataclass(frozen=True)
class Layout:
    """Columns in the order of the chain rule, and the shape of every array.

    A column's logits are a row of weights for the constant, one for the coarse code of each column
    before it, and the hidden units that see no other column. Units are sorted by how many columns
    they see, so those a column may use are the first ones.

    Attributes:
        sizes: How many codes each column has, in the order of the chain rule.
        inputs: How many coarse codes it has as an input of the columns after it.
        hidden: How many hidden units there are.
    """

    sizes: tuple[int, ...]
    inputs: tuple[int, ...]
    hidden: int

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Place of each column's first code among those of all columns, and their number."""
        return tuple(accumulate(self.sizes, initial=0))

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """Place of each column's first coarse code among those of all, and their number."""
        return tuple(accumulate(self.inputs, initial=0))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups, in order."""
        found, start = [], 0
        for place in range(len(self.sizes)):
            width = sum(self.sizes[start : place + 1])
            if width >= _WIDTH or place + 1 == len(self.sizes):
                found.append(Group(start, place + 1, width))
                start = place + 1
        return tuple(found)

    @cached_property
    def degrees(self) -> NDArray[np.int64]:
        """How many of the first columns each hidden unit sees, int64 (hidden,), rising."""
        return 1 + np.arange(self.hidden, dtype=np.int64) * (len(self.sizes) - 1) // self.hidden

    def units(self, place: int) -> int:
        """Return how many of the hidden units see only columns before a place."""
        return int(np.searchsorted(self.degrees, place, side="right")) if self.hidden else 0

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every array of a network, by name."""
        shapes: dict[str, Shape] = {}
        for i, group in enumerate(self.groups):
            # The columns a layer reads: all before the last of its group, and the constant.
            shapes[f"head_{i}"] = (1 + self.reads[group.stop - 1], group.width)
        if self.hidden:
            shapes["inner"] = (self.reads[-2], self.hidden)
            shapes["inner_bias"] = (self.hidden,)
            for i, group in enumerate(self.groups):
                if units := self.units(group.stop - 1):
                    shapes[f"outer_{i}"] = (group.width, units)
        return shapes


def ordered_columns(domain: Domain) -> tuple[str, ...]:
    """Return the columns by size, the smallest first, and by name position among equals.

    A large column is then predicted from all others, and is itself an input to few.
    """
    return tuple(sorted(domain.names, key=domain.size))


def coarse_codes(
    shares: NDArray[np.float64], ordered: int, most: int = _INPUTS
) -> NDArray[np.int64]:
    """Return the coarse code by which each code of a column is read, int64 (size,), 0..k-1.

    Of many codes in natural order, neighbours are merged so that at most ``most`` are left that
    are about equally probable: each weight is then learnt from enough rows. A code of more than
    two such parts of the rows, such as an amount of zero, stays by itself; so do codes without
    order.

    Args:
        shares: The column's distribution, float64 (size,), of sum 1.
        ordered: How many leading codes are in natural order.
        most: How many may be left of those.
    """
    if ordered <= most:
        return np.arange(shares.size, dtype=np.int64)
    part = shares[:ordered]
    middles = (part.cumsum() - part / 2) / part.sum()
    bins = np.unique(np.floor(middles * most), return_inverse=True)[1].astype(np.int64)
    rest = np.arange(shares.size - ordered, dtype=np.int64)
    return np.concatenate([bins, bins[-1] + 1 + rest])


def layout_of(maps: Sequence[NDArray[np.int64]], hidden: int) -> Layout:
    """Return the layout of columns whose codes are read by these coarse codes, in their order.

    A single column has nothing that hidden units could see.
    """
    sizes = tuple(each.size for each in maps)
    inputs = tuple(int(each.max()) + 1 for each in maps)
    return Layout(sizes, inputs, hidden if len(maps) > 1 else 0)
