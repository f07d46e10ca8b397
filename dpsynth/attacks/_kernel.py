"""The search for nearest rows in a tree, as loops that numba compiles.

Without numba the plain path of ``neighbours`` does the same in numpy. Both add whole numbers, so
their answers are equal to the last bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks._tree import Tree

MOST_ROWS = 128
"""Greatest number of rows of a leaf that the loops compare at once."""

_FAR = np.iinfo(np.int32).max

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Words = NDArray[np.uint64]


@cache
def compiled() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Return ``boxes`` and ``search`` as machine code, or None without numba.

    The code is kept between processes: beside this file, or else in the user's cache folder, or
    else, where neither can be written, not at all.
    """
    try:
        from numba import njit
    except ImportError:
        return None

    def of(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True)(function)
        except RuntimeError:  # there is no place for a cache
            return njit(function)

    return of(boxes), of(search)


def ready() -> bool:
    """Whether the loops are at hand, so that a search need not wait for numba."""
    return "numba" in sys.modules and compiled() is not None


class Compiled:
    """The search in one tree.

    Args:
        rows: int32 (columns, rows), placed, in the tree's order.
        tree: The tree.
        nominal: The columns of which only equality counts.
        scale: The cap of a column's distance.
    """

    def __init__(self, rows: Ints, tree: Tree, nominal: list[int], scale: int) -> None:
        self._rows, self._tree, self._scale = rows, tree, scale
        self._sets = np.array(nominal, dtype=np.int64)
        self._spans = np.setdiff1d(np.arange(len(rows)), self._sets)
        self._boxes: tuple[Ints, Ints, Words] | None = None

    def nearest(self, queries: Ints, k: int, within: Ints) -> Ints | None:
        """Return the least distances of placed queries, int32 (queries, k).

        None if numba is not there, or cannot keep its code where it began to.
        """
        found = compiled()
        if found is None:
            return None
        box, look = found
        tree, rows = self._tree, self._rows
        try:
            if self._boxes is None:
                self._boxes = box(rows, self._bits(rows), tree.first, tree.last, tree.child)
            answer: Ints = look(
                queries,
                self._bits(queries),
                rows,
                tree.first,
                tree.last,
                tree.child,
                *self._boxes,
                self._spans,
                self._sets,
                self._scale,
                k,
                within,
            )
        except OSError:
            return None
        return answer

    def _bits(self, placed: Ints) -> Words:
        """Return one bit for each code of the nominal columns: that of the code modulo 64."""
        codes = placed[self._sets] // max(self._scale, 1)
        bits: Words = np.uint64(1) << (codes & 63).astype(np.uint64)
        return bits


def boxes(
    rows: Ints, bits: Words, first: Longs, last: Longs, child: Longs
) -> tuple[Ints, Ints, Words]:
    """Return what bounds each node's rows.

    Args:
        rows: int32 (columns, rows), placed, in the tree's order.
        bits: uint64 (columns of sets, rows): one bit for each code of the columns that are bounded
            as sets.
        first: int64 (nodes,).
        last: int64 (nodes,).
        child: int64 (nodes,).

    Returns:
        The least and greatest place of each column, int32 (nodes, columns); and the bits that occur
        of each column of sets, uint64 (nodes, columns of sets).
    """
    nodes, columns, sets = len(first), rows.shape[0], bits.shape[0]
    low = np.empty((nodes, columns), dtype=np.int32)
    high = np.empty((nodes, columns), dtype=np.int32)
    held = np.zeros((nodes, sets), dtype=np.uint64)
    for back in range(nodes):
        node = nodes - 1 - back  # children come after their parents
        under = child[node]
        if under > 0:
            for j in range(columns):
                low[node, j] = min(low[under, j], low[under + 1, j])
                high[node, j] = max(high[under, j], high[under + 1, j])
            for j in range(sets):
                held[node, j] = held[under, j] | held[under + 1, j]
        else:
            for j in range(columns):
                least, most = rows[j, first[node]], rows[j, first[node]]
                for i in range(first[node], last[node]):
                    least = min(least, rows[j, i])
                    most = max(most, rows[j, i])
                low[node, j], high[node, j] = least, most
            for j in range(sets):
                for i in range(first[node], last[node]):
                    held[node, j] |= bits[j, i]
    return low, high, held


def search(
    queries: Ints,
    bits: Words,
    rows: Ints,
    first: Longs,
    last: Longs,
    child: Longs,
    low: Ints,
    high: Ints,
    held: Words,
    spans: Longs,
    sets: Longs,
    scale: int,
    k: int,
    within: Ints,
) -> Ints:
    """Return the least distances of placed queries, int32 (queries, k).

    Args:
        queries: int32 (columns, queries), placed.
        bits: uint64 (columns of sets, queries).
        rows: int32 (columns, rows), placed, in the tree's order.
        first: int64 (nodes,).
        last: int64 (nodes,).
        child: int64 (nodes,).
        low: int32 (nodes, columns).
        high: int32 (nodes, columns).
        held: uint64 (nodes, columns of sets).
        spans: The columns that are bounded by their least and greatest place.
        sets: The columns that are bounded as sets of codes.
        scale: The cap of a column's distance.
        k: 1 or 2.
        within: int32 (queries,): what is farther need not be found, and is then said to be at the
            greatest int32.
    """
    columns = rows.shape[0]
    best = np.full((queries.shape[1], k), _FAR, dtype=np.int32)
    stack = np.empty(2 * len(first) + 2, dtype=np.int64)
    bounds = np.empty(2 * len(first) + 2, dtype=np.int64)
    total = np.empty(MOST_ROWS, dtype=np.int32)
    cap = np.int32(scale)
    two = np.empty(2, dtype=np.int64)
    for q in range(queries.shape[1]):
        beyond = np.int64(within[q]) + 1
        nearest, second = beyond, beyond
        stack[0], bounds[0] = 0, 0
        top = 1
        while top > 0:
            top -= 1
            limit = second if k == 2 else nearest
            if bounds[top] >= limit:
                continue
            node = stack[top]
            under = child[node]
            if under > 0:
                for side in range(2):
                    bound = np.int64(0)
                    for place in range(len(sets)):
                        if held[under + side, place] & bits[place, q] == 0:
                            bound += scale
                    for place in range(len(spans)):
                        j = spans[place]
                        at = queries[j, q]
                        off = max(low[under + side, j] - at, at - high[under + side, j])
                        bound += min(max(off, 0), scale)
                    two[side] = bound
                near = 0 if two[0] <= two[1] else 1
                for side in (1 - near, near):  # the nearer is taken up first
                    if two[side] < limit:
                        stack[top], bounds[top] = under + side, two[side]
                        top += 1
                continue
            begin, end = first[node], last[node]
            for start in range(begin, end, MOST_ROWS):
                count = min(end - start, MOST_ROWS)
                for i in range(count):
                    total[i] = 0
                for j in range(columns):
                    at = queries[j, q]
                    for i in range(count):
                        off = abs(rows[j, start + i] - at)
                        total[i] += min(off, cap)
                for i in range(count):
                    far = total[i]
                    if far < nearest:
                        second = nearest
                        nearest = np.int64(far)
                    elif far < second:
                        second = np.int64(far)
        if nearest < beyond:
            best[q, 0] = nearest
        if k == 2 and second < beyond:
            best[q, 1] = second
    return best
