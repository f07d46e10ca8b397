"""Rows from a fitted model, with as little noise of their own as whole rows allow.

Where n rows share a distribution p over codes, each code is given n p rows rounded up or down, not
a multinomial number: the sampling of the synthetic table then adds almost no error to the model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dpsynth.marginal.factor import Factor
from dpsynth.marginal.junction import JunctionTree

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


def rounded_counts(shares: Array, rows: Codes, *, rng: np.random.Generator) -> Codes:
    """Whole numbers of rows near ``rows * shares``: floors or ceilings, right on average.

    Systematic sampling (Madow 1949): one uniform offset a group, on the running total.

    Args:
        shares: float64 array (groups, cells), non-negative; a group without mass is uniform.
        rows: int64 array (groups,), rows of each group.
        rng: Source of the offsets.

    Returns:
        int64 array (groups, cells) whose rows sum to ``rows``.
    """
    running = np.cumsum(shares, axis=1)
    whole = running[:, -1:]
    even = np.arange(1, shares.shape[1] + 1) / shares.shape[1]
    portion = np.where(whole > 0, running / np.where(whole > 0, whole, 1.0), even)
    # The last total must be the number of rows itself, whatever the rounding before it.
    portion[:, -1] = 1.0
    reached = np.floor(portion * rows[:, None] + rng.random((rows.size, 1))).astype(np.int64)
    return np.diff(reached, axis=1, prepend=0)


def assign(groups: Codes, shares: Array, *, rng: np.random.Generator) -> Codes:
    """A cell for each row, by its group's shares, rounded; in random order within each group.

    Args:
        groups: int64 array (rows,) of group numbers.
        shares: float64 array (groups, cells).
        rng: Source of the rounding and of the order.

    Returns:
        int64 array (rows,) of cells.
    """
    present, sizes = np.unique(groups, return_counts=True)
    counts = rounded_counts(shares[present], sizes, rng=rng)
    shuffled = rng.permutation(groups.size)
    order = shuffled[np.argsort(groups[shuffled], kind="stable")]
    cells = np.empty(groups.size, dtype=np.int64)
    cells[order] = np.repeat(np.tile(np.arange(shares.shape[1]), present.size), counts.ravel())
    return cells


def sample_tree(
    tree: JunctionTree, marginals: Sequence[Factor], n: int, *, rng: np.random.Generator
) -> dict[str, Codes]:
    """Codes of ``n`` rows, clique by clique from the root, each given what it shares.

    Args:
        tree: The junction tree.
        marginals: Consistent tables of its cliques.
        n: Number of rows, 0 or more.
        rng: Source of the sampling.

    Returns:
        One int64 array (n,) a column of the tree, rows in random order.
    """
    codes: dict[str, Codes] = {}
    _extend(codes, marginals[0], (), n, rng)
    for edge in tree.outward:
        _extend(codes, marginals[edge.child], edge.separator, n, rng)
    order = rng.permutation(n)
    return {name: column[order] for name, column in codes.items()}


def _extend(
    codes: dict[str, Codes],
    table: Factor,
    known: tuple[str, ...],
    n: int,
    rng: np.random.Generator,
) -> None:
    new = tuple(c for c in table.clique if c not in known)
    sizes = table.sizes
    known_shape = tuple(sizes[c] for c in known)
    new_shape = tuple(sizes[c] for c in new)
    shares = table.transpose((*known, *new)).values.reshape(int(np.prod(known_shape)), -1)
    groups = np.zeros(n, dtype=np.int64)
    for name in known:
        groups = groups * sizes[name] + codes[name]
    cells = assign(groups, shares, rng=rng)
    codes.update(zip(new, np.unravel_index(cells, new_shape), strict=True))


def refine(coarse: Codes, codes: Codes, shares: Array, *, rng: np.random.Generator) -> Codes:
    """Fine codes of one column from coarse ones, by the shares inside each coarse code.

    Args:
        coarse: int64 array (rows,) of coarse codes.
        codes: int64 array (fine size,): the coarse code of each fine code.
        shares: float64 array (fine size,): probability of each fine code given its coarse code.
        rng: Source of the rounding.
    """
    fine = np.empty(coarse.size, dtype=np.int64)
    for label in range(int(codes.max()) + 1):
        rows = np.flatnonzero(coarse == label)
        inside = np.flatnonzero(codes == label)
        if inside.size == 1:
            fine[rows] = inside[0]
            continue
        chosen = assign(np.zeros(rows.size, dtype=np.int64), shares[None, inside], rng=rng)
        fine[rows] = inside[chosen]
    return fine


def sample_codes(
    tree: JunctionTree,
    marginals: Sequence[Factor],
    maps: Mapping[str, Codes],
    shares: Mapping[str, Array],
    n: int,
    *,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.int32]]:
    """Fine codes of ``n`` rows: ``sample_tree``, then ``refine`` on each column of ``maps``."""
    coarse = sample_tree(tree, marginals, n, rng=rng)
    return {
        name: refine(coarse[name], codes, shares[name], rng=rng).astype(np.int32)
        for name, codes in maps.items()
    }
