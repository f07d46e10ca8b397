"""What a released table says of a target: the ratios on focal marginals, and counts of its queries.

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
from dpsynth.domain import Clique

Codes = Mapping[str, NDArray[np.int32]]
Floats = NDArray[np.float64]

MOST_FOCAL = 100
"""Most sets of columns whose marginals are taken as the mechanism's."""

MOST_QUERIES = 60
"""Most sets of columns that a target is counted on."""


def focal_marginals(fits: Iterable[Sequence[Seen]], names: Sequence[str]) -> list[Clique]:
    """Return the sets of columns that fits measured most often; pairs if they measured none.

    Args:
        fits: The noisy marginals of each fit.
        names: The modelled columns.
    """
    found: Counter[Clique] = Counter()
    for seen in fits:
        found.update(sorted({tuple(sorted(each.measurement.clique)) for each in seen}))
    if not found:
        found.update(itertools.combinations(names, min(2, len(names))))
    return [clique for clique, _ in found.most_common(MOST_FOCAL)]


def focal_ratios(
    focal: Sequence[Clique],
    release: Codes,
    reference: Codes,
    target: Codes,
    units: NDArray[np.int64],
) -> Floats:
    """Return the log ratios of each target's cells, float64 (targets, focal marginals).

    They are log((a + 1/2) / (b + 1/2)) with a and b the rows of release and reference in a cell,
    summed over the rows of a target.

    Args:
        focal: Sets of columns.
        release: Codes of the released rows.
        reference: Codes of the rows that are in for certain.
        target: Codes of the targets' rows.
        units: int64 (rows,): the target of each row, from 0.
    """
    columns = []
    for clique in focal:
        a, b = (_agreeing(clique, rows, target) for rows in (release, reference))
        columns.append(np.bincount(units, weights=np.log((a + 0.5) / (b + 0.5))))
    return np.column_stack(columns)


def queries(names: Sequence[str], rng: np.random.Generator) -> list[Clique]:
    """Return sets of columns to count on: all columns, and as many of each width as there is room.

    Args:
        names: The modelled columns.
        rng: Chooses among the sets of a width.
    """
    chosen: list[Clique] = [tuple(names)]
    each = max((MOST_QUERIES - 1) // max(len(names) - 1, 1), 1)
    for width in range(1, len(names)):
        if math.comb(len(names), width) <= each:
            chosen += itertools.combinations(names, width)
            continue
        kept: set[Clique] = set()
        while len(kept) < each:
            picked = sorted(int(j) for j in rng.choice(len(names), width, replace=False))
            kept.add(tuple(names[j] for j in picked))
        chosen += sorted(kept)
    return chosen


def query_counts(
    asked: Sequence[Clique], release: Codes, target: Codes, units: NDArray[np.int64]
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
