"""Rows exchange parts, until pairs of columns that no clique holds are near to the model too.

Rounding makes the tables of the cliques as exact as whole rows can be; a pair of columns in two
cliques is still as noisy as in any random sample. Two rows that are alike in a separator may
exchange all columns on one side of it: each clique lies on one side, so no table of a clique
changes, and the pairs across do. Such exchanges are made where they bring those pairs nearer.
Updating made records towards many marginals is an idea of PrivSyn (Zhang et al. 2021); that of an
exchange which keeps the tree's tables is ours.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique
from dpsynth.marginal.junction import JunctionTree
from dpsynth_accounting import InvalidRequest

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

MOST_CELLS = 1 << 18
"""Greatest number of cells of a pair that is looked at: many more than rows are empty anyway."""

MOST_LOOKUPS = 1 << 26
"""About how many cells are looked up in all: a second's work. More rows have less noise."""

_OVERHEAD = 1 << 17  # of a pair in a move, in cells: what it takes however few rows there are
_PARTS = 24  # in which the rows are taken, so that an exchange sees most of those before it
_LEAST = 64  # pairs of rows in a part


@dataclass(frozen=True)
class Move:
    """What two rows may exchange.

    Attributes:
        alike: Columns in whose coarse codes the two rows agree.
        inside: Columns that change places.
        outside: The other columns, without those of ``alike`` that have no finer codes.
    """

    alike: Clique
    inside: Clique
    outside: Clique


def moves_of(tree: JunctionTree, maps: Mapping[str, Codes]) -> list[Move]:
    """One move for each edge of the tree, and one for each column with finer codes.

    Args:
        tree: The junction tree over coarse codes.
        maps: For each column, int64: the coarse code of each fine code.
    """
    finer = {name for name, codes in maps.items() if int(codes.max()) + 1 < codes.size}
    found = []
    for edge in tree.edges:
        away = _beyond(tree, edge.child, edge.parent) - set(edge.separator)
        small, large = sorted((away, set(maps) - away - set(edge.separator)), key=len)
        if small:
            stay = large | (finer & set(edge.separator))
            sides = (tuple(name for name in maps if name in side) for side in (small, stay))
            found.append(Move(edge.separator, *sides))
    for name in maps:
        if name in finer and len(maps) > 1:
            found.append(Move((name,), (name,), tuple(other for other in maps if other != name)))
    return found


def exchanged(
    codes: Mapping[str, NDArray[np.int32]],
    tree: JunctionTree,
    maps: Mapping[str, Codes],
    expected: Callable[[Clique], Array],
    *,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.int32]]:
    """Rows with the same tables of cliques and single columns, and pairs nearer to the model's.

    Args:
        codes: Fine codes of the rows, int32 (n,) a column.
        tree: The junction tree over coarse codes.
        maps: For each column, int64: the coarse code of each fine code.
        expected: Gives the counts that a model expects of a pair of columns, of any positive sum;
            an InvalidRequest where it cannot.
        rng: Draws who may exchange with whom.

    Returns:
        The rows after one exchange at most for each and each move.
    """
    rows = {name: column.astype(np.int64) for name, column in codes.items()}
    moves = moves_of(tree, maps)
    excess = _excess(rows, moves, maps, expected)
    for move in moves:
        across = [pair for pair in _across(move, maps) if pair in excess]
        if across:
            _sweep(rows, move, maps, {pair: excess[pair] for pair in across}, rng)
    return {name: column.astype(np.int32) for name, column in rows.items()}


def _excess(
    rows: Mapping[str, Codes],
    moves: Sequence[Move],
    maps: Mapping[str, Codes],
    expected: Callable[[Clique], Array],
) -> dict[Clique, Array]:
    """Counts of rows minus expected ones, of the pairs that are noisiest for the work they are."""
    n = next(iter(rows.values())).size
    crossings: dict[Clique, int] = {}
    for move in moves:
        for pair in _across(move, maps):
            crossings[pair] = crossings.get(pair, 0) + 1
    ranked = []
    for pair, times in crossings.items():
        cells = math.prod(maps[name].size for name in pair)
        if cells <= MOST_CELLS:
            # The noise of a count is at most its root, and that of few rows is theirs.
            work = (2 * n + _OVERHEAD) * times
            ranked.append((-math.sqrt(min(cells, n)) / times, work, pair))
    found, left = {}, MOST_LOOKUPS
    for _, work, pair in sorted(ranked):
        if work > left:
            break
        left -= work
        with contextlib.suppress(InvalidRequest):
            table = expected(pair).ravel()
            cell = rows[pair[0]] * maps[pair[1]].size + rows[pair[1]]
            found[pair] = np.bincount(cell, minlength=table.size) - table * (n / table.sum())
    return found


def _sweep(
    rows: dict[str, Codes],
    move: Move,
    maps: Mapping[str, Codes],
    excess: Mapping[Clique, Array],
    rng: np.random.Generator,
) -> None:
    """Look at every row once, beside another that is alike; ``rows`` and ``excess`` change."""
    first, second = _partners([maps[name][rows[name]] for name in move.alike], rows, rng)
    size = max(first.size // _PARTS, _LEAST)
    for start in range(0, first.size, size):
        one, two = first[start : start + size], second[start : start + size]
        gain = np.zeros(one.size)
        cells = {}
        for pair, table in excess.items():
            strides = dict(zip(pair, (maps[pair[1]].size, 1), strict=True))
            moved, kept = pair if pair[0] in move.inside else pair[::-1]
            stay = [rows[kept][each] * strides[kept] for each in (one, two)]
            part = [rows[moved][each] * strides[moved] for each in (one, two)]
            left = (stay[0] + part[0], stay[1] + part[1])
            entered = (stay[0] + part[1], stay[1] + part[0])
            # A difference where the two rows are alike on a side is none.
            nothing = (stay[0] == stay[1]) | (part[0] == part[1])
            for cell in left:
                gain -= np.where(nothing, 0.0, _change(table[cell], -1.0))
            for cell in entered:
                gain -= np.where(nothing, 0.0, _change(table[cell], 1.0))
            cells[pair] = (left, entered)
        # What others of the same part do at the same time is not seen: ask for more than a row.
        taken = gain > 1.0
        for pair, (left, entered) in cells.items():
            table = excess[pair]
            for cell in left:
                table -= np.bincount(cell[taken], minlength=table.size)
            for cell in entered:
                table += np.bincount(cell[taken], minlength=table.size)
        one, two = one[taken], two[taken]
        for name in move.inside:
            column = rows[name]
            column[one], column[two] = column[two], column[one]


def _change(excess: Array, by: float) -> Array:
    """By how much the absolute value grows where a count changes."""
    return np.abs(excess + by) - np.abs(excess)


def _partners(
    keys: Sequence[Codes], rows: Mapping[str, Codes], rng: np.random.Generator
) -> tuple[Codes, Codes]:
    """Pairs of rows with equal keys, at random, each row in one pair at most; in random order."""
    n = next(iter(rows.values())).size
    group = np.zeros(n, dtype=np.int64)
    for key in keys:
        _, group = np.unique(group * (int(key.max(initial=0)) + 1) + key, return_inverse=True)
    shuffled = rng.permutation(n)
    order = shuffled[np.argsort(group[shuffled], kind="stable")]
    ordered = group[order]
    new = np.diff(ordered, prepend=-1) != 0
    rank = np.arange(n) - np.maximum.accumulate(np.where(new, np.arange(n), 0))
    leads = np.flatnonzero((rank[:-1] % 2 == 0) & ~new[1:])
    leads = rng.permutation(leads)
    return order[leads], order[leads + 1]


def _across(move: Move, maps: Mapping[str, Codes]) -> list[Clique]:
    """The pairs of columns with one inside and one outside, each in the order of the columns."""
    return [
        (a, b)
        for i, a in enumerate(maps)
        for b in list(maps)[i + 1 :]
        if (a in move.inside and b in move.outside) or (b in move.inside and a in move.outside)
    ]


def _beyond(tree: JunctionTree, child: int, parent: int) -> set[str]:
    """The columns of the part of the tree that hangs on an edge."""
    links: dict[int, list[int]] = {i: [] for i in range(len(tree.cliques))}
    for edge in tree.edges:
        links[edge.child].append(edge.parent)
        links[edge.parent].append(edge.child)
    reached, pending = {parent, child}, [child]
    while pending:
        near = [i for i in links[pending.pop()] if i not in reached]
        reached.update(near)
        pending += near
    return {name for i in reached - {parent} for name in tree.cliques[i]}
