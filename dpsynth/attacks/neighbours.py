"""Exact nearest neighbours of coded rows under Gower's distance.

Gower's distance (Gower 1971, *Biometrics* 27, with equal weights) is the mean over columns of: 0 or
1 for a nominal column (equal or not); |a - b| / (m - 1) for a column of m ordered codes; 1 between
a value and a code outside the order, such as missing. Here it is kept as an integer, so that ties
are ties and nothing depends on the order of a sum.

The search visits blocks of similar rows, nearest bound first, and skips a block only where a lower
bound shows that it holds nothing nearer. An approximate index could miss the exact copy, which is
what a memorisation check is for. Large searches are compiled by numba where the extra ``fast`` is
installed; both ways add whole numbers, and agree to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks._kernel import Compiled, ready
from dpsynth.attacks._tree import MOST_COPIES, distinct, grow, in_order
from dpsynth.domain import Domain
from dpsynth_accounting import InvalidRequest

LARGEST_SCALE = 720_720
"""Finest grid of a column's distance: beyond it, parts are rounded to multiples of its inverse."""

MOST_NEIGHBOURS = MOST_COPIES
"""Greatest number of neighbours that an index can give."""

_LEAF = 128  # rows a block: small enough to prune, large enough to pay for a numpy call
_CHUNK = 8192  # queries whose bounds are held at once
_BATCH = 512  # queries whose distances to one block stay in cache
_WARM = 3  # blocks visited nearest first, before the sweep over all others
_BOUND_CELLS = 1 << 22  # a column with more codes than this a block gives no bound
_WORTH_COMPILING = 1 << 26  # pairs of rows, from which numba's import is made up for
_WORTH_CALLING = 1 << 20  # the same, once it is imported
_FAR = np.iinfo(np.int32).max


class Gower:
    """Gower's distance over one domain, in whole numbers.

    Two rows at distance ``d`` here are at Gower's distance ``d / unit``: exactly if
    ``scale`` is a multiple of every ``ordered - 1``, else each column's part is rounded to a grid.

    Args:
        domain: The columns of the rows, in order.

    Attributes:
        scale: The distance that one column adds between unlike values.
        unit: The greatest distance of two rows: ``scale`` times the number of columns.

    Raises:
        InvalidRequest: The domain has too many columns or codes for 32-bit distances.
    """

    def __init__(self, domain: Domain) -> None:
        sizes = [domain.size(name) for name in domain.names]
        ordered = [domain.ordered(name) for name in domain.names]
        scale = math.lcm(*(m - 1 for m in ordered if m > 1))
        self.scale = min(scale, LARGEST_SCALE)
        self.unit = self.scale * len(sizes)
        # Codes outside an order lie 2, 3, ... scales from its start: capping every difference at
        # one scale then makes each of them unlike all others. A nominal column is all such codes.
        self.positions = [
            _positions(size, m if m > 1 else 0, self.scale)
            for size, m in zip(sizes, ordered, strict=True)
        ]
        self.nominal = [j for j, m in enumerate(ordered) if m < 2]
        self.graded = [j for j, m in enumerate(ordered) if m > 1]
        self.capped = [j for j in self.graded if ordered[j] < sizes[j]]
        if self.unit >= _FAR - 2 or any(p.max(initial=0) >= _FAR for p in self.positions):
            raise InvalidRequest(
                "Distances over a domain were asked for.",
                "It has more columns or unordered codes than 32-bit distances can hold.",
                "Compare rows over fewer columns.",
            )

    def place(self, records: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the positions of coded rows as an int32 array (columns, rows).

        Raises:
            InvalidRequest: The records have another number of columns than the domain.
        """
        if records.ndim != 2 or records.shape[1] != len(self.positions):
            raise InvalidRequest(
                "Coded rows were to be compared over another number of columns than they have.",
                f"The domain has {len(self.positions)} columns.",
                "Give an int32 array (rows, columns) coded by this domain.",
            )
        placed = np.empty((records.shape[1], records.shape[0]), dtype=np.int32)
        for j, table in enumerate(self.positions):
            placed[j] = table[records[:, j]]
        return placed

    def between(self, left: NDArray[np.int32], right: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the distances of every pair of placed rows, int32 (left rows, right rows)."""
        shape = (left.shape[1], right.shape[1])
        total = np.zeros(shape, dtype=np.int32)
        if self.nominal:
            unlike = np.zeros(shape, dtype=np.uint8 if len(self.nominal) < 256 else np.uint32)
            for j in self.nominal:
                unlike += left[j][:, None] != right[j][None, :]
            np.multiply(unlike, np.int32(self.scale), out=total, dtype=np.int32)
        part = np.empty(shape, dtype=np.int32)
        for j in self.graded:
            np.subtract(left[j][:, None], right[j][None, :], out=part)
            np.abs(part, out=part)
            if j in self.capped:
                np.minimum(part, np.int32(self.scale), out=part)
            total += part
        return total


def _positions(size: int, ordered: int, scale: int) -> NDArray[np.int64]:
    """Return where each code of a column lies on the line."""
    codes = np.arange(size, dtype=np.int64)
    if not ordered:
        return codes * scale
    steps = ordered - 1
    inside = (2 * codes * scale + steps) // (2 * steps)
    return np.where(codes < ordered, inside, (codes - ordered + 2) * scale)


class Neighbours:
    """An index of reference rows that gives exact nearest distances.

    Args:
        reference: int32 (rows, columns), coded by ``domain``; not changed.
        domain: The columns of the rows, in order.

    Attributes:
        gower: The distance; ``gower.unit`` turns its whole numbers into Gower's.
        none: What stands for the distance to a neighbour that does not exist: one more than the
            greatest possible distance.
    """

    def __init__(self, reference: NDArray[np.int32], domain: Domain) -> None:
        self.gower = Gower(domain)
        self.none = self.gower.unit + 1
        self.gower.place(reference[:0])
        self._sizes = [domain.size(name) for name in domain.names]
        kept = distinct(reference, self._sizes)
        placed = self.gower.place(kept)
        tree = grow(placed, self.gower.scale, _LEAF)
        self._kept, self._order = kept, tree.order
        self._rows = np.take(placed, tree.order, axis=1)
        leaves = tree.leaves if len(kept) else tree.leaves[:0]
        self._leaves = list(zip(tree.first[leaves], tree.last[leaves], strict=True))
        self._compiled = Compiled(self._rows, tree, self.gower.nominal, self.gower.scale)
        self._bounds: dict[int, NDArray[np.int32]] | None = None

    def distances(
        self,
        queries: NDArray[np.int32],
        k: int = 1,
        *,
        within: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Return each query's distances to its ``k`` nearest reference rows, nearest first.

        A reference row that occurs twice counts as two neighbours.

        Args:
            queries: int32 (rows, columns), coded by the index's domain; not changed.
            k: 1 or 2.
            within: int64 (rows,), the greatest distance of each query that matters, alike for
                queries that are alike: the less it is, the less is searched. Default: any.

        Returns:
            int64 (rows, k), in units of ``1 / gower.unit``; ``none`` where too few rows exist
            within that distance.

        Raises:
            InvalidRequest: ``k`` is neither 1 nor 2, or the number of columns is another.
        """
        if k not in (1, MOST_NEIGHBOURS):
            raise InvalidRequest(
                f"{k} neighbours a row were asked for.",
                f"An index gives 1 or {MOST_NEIGHBOURS}.",
                "Ask for one of these.",
            )
        self.gower.place(queries[:0])
        if not len(queries):
            return np.empty((0, k), dtype=np.int64)
        order, begins = in_order(queries, self._sizes)
        rows = queries[order[begins]]
        most = np.full(len(rows), self.none, dtype=np.int32)
        if within is not None:
            np.minimum(most, within[order[begins]], out=most, casting="unsafe")
        best = self._nearest(rows, k, most).astype(np.int64)
        best[best > most[:, None]] = self.none
        answer = np.empty((len(queries), k), dtype=np.int64)
        answer[order] = best[np.cumsum(begins) - 1]
        return answer

    def _nearest(
        self, rows: NDArray[np.int32], k: int, within: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        if not self._leaves:
            return np.full((len(rows), k), _FAR, dtype=np.int32)
        if len(rows) * len(self._order) >= (_WORTH_CALLING if ready() else _WORTH_COMPILING):
            found = self._compiled.nearest(self.gower.place(rows), k, within)
            if found is not None:
                return found
        chunks = [slice(start, start + _CHUNK) for start in range(0, len(rows), _CHUNK)]
        return np.concatenate([self._chunk(rows[part], k, within[part]) for part in chunks])

    def _chunk(
        self, rows: NDArray[np.int32], k: int, within: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        best = np.repeat(within[:, None] + np.int32(1), k, axis=1)
        placed = self.gower.place(rows)
        bound = np.zeros((len(rows), len(self._leaves)), dtype=np.int32)
        if self._bounds is None:
            codes = self._kept[self._order]
            self._bounds = {
                j: _bounds(table, [codes[a:z, j] for a, z in self._leaves], self.gower.scale)
                for j, table in enumerate(self.gower.positions)
                if table.size * len(self._leaves) <= _BOUND_CELLS
            }
        for j, table in self._bounds.items():
            bound += table[rows[:, j]]
        every = np.arange(len(rows))
        for _ in range(min(_WARM, len(self._leaves))):
            near = bound.argmin(axis=1)
            by_leaf = np.argsort(near, kind="stable")
            cuts = np.flatnonzero(np.diff(near[by_leaf])) + 1
            for group in np.split(by_leaf, cuts):
                group = group[bound[group, near[group[0]]] < best[group, -1]]
                self._visit(int(near[group[0]]) if len(group) else 0, group, placed, best)
            bound[every, near] = _FAR
        for leaf in range(len(self._leaves)):
            self._visit(leaf, np.flatnonzero(bound[:, leaf] < best[:, -1]), placed, best)
        return best

    def _visit(
        self,
        leaf: int,
        queries: NDArray[np.intp],
        placed: NDArray[np.int32],
        best: NDArray[np.int32],
    ) -> None:
        """Compare some queries with every row of a block and keep what is nearer."""
        begin, end = self._leaves[leaf]
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            far = self.gower.between(placed[:, batch], self._rows[:, begin:end])
            if best.shape[1] == 1:
                best[batch, 0] = np.minimum(best[batch, 0], far.min(axis=1))
                continue
            nearest = far.argmin(axis=1)
            line = np.arange(len(batch))
            first = far[line, nearest]
            far[line, nearest] = _FAR
            four = np.column_stack([best[batch], first, far.min(axis=1)])
            best[batch] = np.sort(four, axis=1)[:, :2]


def nearest_among(queries: NDArray[np.int32], indices: Sequence[Neighbours]) -> NDArray[np.int64]:
    """Return each query's distance to its nearest row in each of several indices of one domain.

    Where another index has a nearer row, the distance may be said to be ``none``: enough to tell
    which are the nearest, ties counted, at far less cost than all distances.

    Args:
        queries: int32 (rows, columns).
        indices: At least one.

    Returns:
        int64 (rows, indices).
    """
    found: list[NDArray[np.int64]] = []
    least: NDArray[np.int64] | None = None
    for index in indices:
        found.append(index.distances(queries, within=least)[:, 0])
        least = found[-1] if least is None else np.minimum(least, found[-1])
    return np.column_stack(found)


def nearest_distances(
    queries: NDArray[np.int32], reference: NDArray[np.int32], domain: Domain, *, k: int = 1
) -> NDArray[np.float64]:
    """Return Gower's distance of each query to its ``k`` nearest reference rows.

    Args:
        queries: int32 (rows, columns).
        reference: int32 (rows, columns).
        domain: What codes both.
        k: 1 or 2.

    Returns:
        float64 (queries, k) in 0..1; a neighbour that does not exist is just beyond 1.

    >>> domain = Domain.integers({"a": 5, "b": 2}, ordered=("a",))
    >>> rows = np.array([[0, 0], [4, 1]], dtype=np.int32)
    >>> nearest_distances(np.array([[1, 0]], dtype=np.int32), rows, domain)
    array([[0.125]])
    """
    index = Neighbours(reference, domain)
    return index.distances(queries, k) / index.gower.unit


def _bounds(
    positions: NDArray[np.int64], leaves: list[NDArray[np.int32]], scale: int
) -> NDArray[np.int32]:
    """Return the least distance from each code of a column to any row of each block.

    Args:
        positions: Where each code lies, int64 (codes,); ascending.
        leaves: The codes of each block's rows.
        scale: The cap.

    Returns:
        int32 (codes, blocks).
    """
    present = np.zeros((len(positions), len(leaves)), dtype=bool)
    for number, codes in enumerate(leaves):
        present[codes, number] = True
    line = positions[:, None]
    outside = np.int64(_FAR)
    below = np.maximum.accumulate(np.where(present, line, -outside), axis=0)
    above = np.minimum.accumulate(np.where(present, line, outside)[::-1], axis=0)[::-1]
    near = np.minimum(line - below, above - line)
    return np.minimum(near, scale).astype(np.int32)
