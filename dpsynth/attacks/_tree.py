"""A tree of blocks of similar rows: halved at the most spread column until small enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_COPIES = 2
"""Greatest number of copies of a row that an index keeps: as many as it gives neighbours."""

_SAMPLE = 128  # rows of a block whose spread chooses the column to halve at


@dataclass(frozen=True, eq=False)
class Tree:
    """Rows in an order in which every node's rows lie side by side.

    Attributes:
        order: intp (rows,): the rows, in the tree's order.
        first: int64 (nodes,): where each node's rows begin.
        last: int64 (nodes,): where they end.
        child: int64 (nodes,): the first of a node's two children, the other follows it; 0 at
            leaves. Children come after their parents.
    """

    order: NDArray[np.intp]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    child: NDArray[np.int64]

    @property
    def leaves(self) -> NDArray[np.intp]:
        """Return the nodes that are leaves, in the order of their rows."""
        leaves = np.flatnonzero(self.child == 0)
        found: NDArray[np.intp] = leaves[np.argsort(self.first[leaves])]
        return found


def distinct(rows: NDArray[np.int32], sizes: list[int]) -> NDArray[np.int32]:
    """Return the rows sorted, each at most twice: more cannot change a second nearest distance.

    Args:
        rows: int32 (rows, columns).
        sizes: Number of codes of each column.
    """
    order, begins = in_order(rows, sizes)
    if not len(order):
        return rows
    kept = begins.copy()
    kept[1:] |= begins[:-1]
    return rows[order[kept]]


def in_order(
    rows: NDArray[np.int32], sizes: list[int]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return an order that brings equal rows together, and which places begin a new row."""
    words = _words(rows, sizes)
    order = np.lexsort(words)
    begins = np.zeros(len(rows), dtype=bool)
    begins[:1] = True
    for word in words:
        line = word[order]
        begins[1:] |= line[1:] != line[:-1]
    return order, begins


def _words(rows: NDArray[np.int32], sizes: list[int]) -> list[NDArray[np.uint64]]:
    """Return the rows as numbers of 64 bits, as few as hold all codes."""
    words = [np.zeros(len(rows), dtype=np.uint64)]
    room = 1 << 64
    for j, size in enumerate(sizes):
        if room < size:
            words.append(np.zeros(len(rows), dtype=np.uint64))
            room = 1 << 64
        words[-1] = words[-1] * np.uint64(max(size, 1)) + rows[:, j].astype(np.uint64)
        room //= max(size, 1)
    return words


def grow(placed: NDArray[np.int32], scale: int, leaf: int) -> Tree:
    """Return a tree whose leaves have at most ``leaf`` rows, or rows that are all alike.

    Args:
        placed: int32 (columns, rows), on the line of each column.
        scale: The distance beyond which two places on a line are just unlike.
        leaf: Greatest number of rows of a leaf.
    """
    order = np.arange(placed.shape[1])
    first, last, child = [0], [placed.shape[1]], [0]
    node = 0
    while node < len(first):
        start, stop = first[node], last[node]
        part = order[start:stop]
        left = _halved(placed, part, scale) if stop - start > leaf else None
        if left is not None:
            middle = start + int(np.count_nonzero(left))
            order[start:stop] = np.concatenate([part[left], part[~left]])
            child[node] = len(first)
            first += [start, middle]
            last += [middle, stop]
            child += [0, 0]
        node += 1
    return Tree(order, np.array(first), np.array(last), np.array(child))


def _halved(
    placed: NDArray[np.int32], part: NDArray[np.intp], scale: int
) -> NDArray[np.bool_] | None:
    """Return which rows of a block go to its first half, or None if all are alike."""
    some = part[:: math.ceil(len(part) / _SAMPLE)]
    rows = placed[:, some]
    # Each row against the one half the sample away: a cheap look at pairwise distances.
    half = rows.shape[1] // 2
    far = np.minimum(np.abs(rows[:, half:] - rows[:, : rows.shape[1] - half]), scale)
    columns = np.argsort(-far.sum(axis=1, dtype=np.int64), kind="stable")
    for j in columns:
        line = placed[j][part]
        middle = np.partition(line, len(line) // 2)[len(line) // 2]
        halves = [line < middle, line <= middle]
        sizes = [np.count_nonzero(half) for half in halves]
        found = [
            (abs(2 * size - len(line)), half)
            for size, half in zip(sizes, halves, strict=True)
            if 0 < size < len(line)
        ]
        if found:
            best: NDArray[np.bool_] = min(found, key=lambda each: each[0])[1]
            return best
    return None
