"""What a released table says of a target: the focal marginals' ratio, and counts of its queries.

Only the rows of a release are read. The focal marginals are those that the mechanism measured in
other fits, which any attacker can make (Golob et al. 2024, arXiv 2410.05506, section 4); the
queries count rows that agree with a target on some columns (Houssiau et al. 2022, TAPAS, section 4;
arXiv 2211.06550).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks._watched import Seen

Codes = Mapping[str, NDArray[np.int32]]
Floats = NDArray[np.float64]
Focal = Mapping[tuple[str, ...], float]

MOST_QUERIES = 60
"""Most sets of columns that a target is counted on."""


def focal_marginals(fits: Iterable[Sequence[Seen]], names: Sequence[str]) -> Focal:
    """Return sets of columns and how often fits measured them; all pairs alike if none did.

    Args:
        fits: The noisy marginals of each fit.
        names: The modelled columns.
    """
    found: Counter[tuple[str, ...]] = Counter()
    for seen in fits:
        found.update({tuple(sorted(each.measurement.clique)) for each in seen})
    if not found:
        found.update(itertools.combinations(names, min(2, len(names))))
    return dict(found)


def focal_ratio(
    focal: Focal, release: Codes, reference: Codes, target: Codes, units: NDArray[np.int64]
) -> Floats:
    """Return each target's mean log ratio of its cells, float64 (targets, 1).

    With a and b the shares of release and reference in a row's cell, times 10,000, it is the mean
    of log((a + 1/2) / (b + 1/2)) over sets of columns, weighed by how often they are measured, and
    summed over the rows of a target.

    Args:
        focal: Sets of columns and weights.
        release: Codes of the released rows.
        reference: Codes of the rows that are in for certain.
        target: Codes of the targets' rows.
        units: int64 (rows,): the target of each row, from 0.
    """
    total = np.zeros(len(units))
    for clique, weight in focal.items():
        shares = [
            _agreeing(clique, rows, target) * (10_000 / max(len(rows[clique[0]]), 1))
            for rows in (release, reference)
        ]
        total += weight * np.log((shares[0] + 0.5) / (shares[1] + 0.5))
    summed = np.bincount(units, weights=total / sum(focal.values()))
    return summed.astype(np.float64)[:, None]


def queries(names: Sequence[str], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Return sets of columns to count on: all columns, and as many of each width as there is room.

    Args:
        names: The modelled columns.
        rng: Chooses among the sets of a width.
    """
    chosen: list[tuple[str, ...]] = [tuple(names)]
    each = max((MOST_QUERIES - 1) // max(len(names) - 1, 1), 1)
    for width in range(1, len(names)):
        if math.comb(len(names), width) <= each:
            chosen += itertools.combinations(names, width)
            continue
        kept: set[tuple[str, ...]] = set()
        while len(kept) < each:
            picked = sorted(int(j) for j in rng.choice(len(names), width, replace=False))
            kept.add(tuple(names[j] for j in picked))
        chosen += sorted(kept)
    return chosen


def query_counts(
    asked: Sequence[tuple[str, ...]], release: Codes, target: Codes, units: NDArray[np.int64]
) -> Floats:
    """Return the root of each target's counts, float64 (targets, queries): their noise is alike.

    A target of several rows has the sum over its rows.
    """
    columns = [np.bincount(units, weights=_agreeing(each, release, target)) for each in asked]
    found: Floats = np.sqrt(np.column_stack(columns))
    return found


def _agreeing(clique: Sequence[str], rows: Codes, target: Codes) -> Floats:
    """Return how many rows agree with each target row on some columns, float64 (target rows,)."""
    both = np.stack([np.concatenate([target[name], rows[name]]) for name in clique])
    _, numbers = np.unique(both, axis=1, return_inverse=True)
    numbers = numbers.reshape(-1)
    cut = len(target[clique[0]])
    counts = np.bincount(numbers[cut:], minlength=int(numbers.max(initial=0)) + 1)
    return counts[numbers[:cut]].astype(np.float64)
