"""Many marginals of one table, and their adjoint, by way of tables in between.

Ten pairs inside a clique of five columns are ten sums over all of its cells; by way of the tables
that lack one column each they are three, and the rest is small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique
from dpsynth.marginal.factor import spaced, summed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Node:
    """A table on the way.

    Attributes:
        parent: The table it is summed from.
        axes: Axes of the parent that are summed out.
        slots: The shape by which it is added to the parent.
    """

    parent: int
    axes: tuple[int, ...]
    slots: tuple[int, ...]


class Projections:
    """The marginals of a clique's tables that are wanted, with a way to them worked out once.

    Args:
        clique: The columns of the table, in the order of its axes.
        wanted: Marginals, each over some of the columns in the same order; distinct.
        sizes: Number of codes of each column.

    >>> sums = Projections(("a", "b"), [("a",), ("b",)], {"a": 2, "b": 2})
    >>> sums.of(np.array([[1.0, 2.0], [3.0, 4.0]]))
    [array([3., 7.]), array([4., 6.])]
    """

    def __init__(self, clique: Clique, wanted: Sequence[Clique], sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._nodes: list[_Node] = []
        self._places: dict[Clique, int] = {}
        self._shapes: list[tuple[int, ...]] = [tuple(sizes[name] for name in clique)]
        self._build(clique, 0, list(wanted))
        self._wanted = [self._places[each] for each in wanted]

    def of(self, table: Array) -> list[Array]:
        """Return the wanted marginals of a table of the clique's shape."""
        tables = [table]
        for node in self._nodes:
            tables.append(summed(tables[node.parent], node.axes))
        return [tables[place] for place in self._wanted]

    def spread(self, marginals: Sequence[Array]) -> Array:
        """Return the table whose cells hold the sum of their marginals' cells: the adjoint."""
        sums = [np.zeros(shape) for shape in self._shapes]
        for place, marginal in zip(self._wanted, marginals, strict=True):
            sums[place] += marginal
        for place, node in reversed(list(enumerate(self._nodes, 1))):
            parent = sums[node.parent]
            parent += spaced(sums[place].reshape(node.slots), parent.shape)
        return sums[0]

    def _build(self, clique: Clique, place: int, wanted: list[Clique]) -> None:
        """Note how the wanted marginals follow from the table at a place."""
        self._places[clique] = place
        left = [each for each in wanted if each != clique]
        while left:
            # Without the column that the most of them lack, and among those the widest.
            lacking = {c: [each for each in left if c not in each] for c in clique}
            column = max(clique, key=lambda c: (len(lacking[c]), self._sizes[c]))
            group = lacking[column]
            inner = group[0] if len(group) == 1 else tuple(c for c in clique if c != column)
            axes = tuple(i for i, c in enumerate(clique) if c not in inner)
            slots = tuple(self._sizes[c] if c in inner else 1 for c in clique)
            self._nodes.append(_Node(place, axes, slots))
            self._shapes.append(tuple(self._sizes[c] for c in inner))
            self._build(inner, len(self._nodes), group)
            left = [each for each in left if each not in group]
