"""Columns that are asked in ranges: counts at several resolutions make one consistent estimate.

A range of many codes adds up the noise of each. With counts of blocks of codes beside them, it adds
up that of few (Hay, Rastogi, Miklau, Suciu 2010, "Boosting the accuracy of differentially private
histograms through consistency"; sixteen blocks to one, after Qardaji, Yang, Li 2013,
"Understanding hierarchical methods for differentially private histograms").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpsynth.marginal.estimate import Observation

Codes = NDArray[np.int64]
Array = NDArray[np.float64]

MOST_LEVELS = 7
"""Levels above the codes that a column can have: blocks of 16**7 codes are beyond any column."""

_BRANCHING = 16


def levels(size: int, ordered: int) -> list[Codes]:
    """Return for each level above the codes the block of each code: int64 (size,), from 0.

    Codes that are in no order, as a missing one, are blocks by themselves.

    Args:
        size: Number of codes.
        ordered: How many leading codes are in order.

    >>> [int(level.max()) + 1 for level in levels(10_001, 10_000)]
    [626, 41, 4]
    """
    found = []
    width = _BRANCHING
    while width < ordered:
        blocks = -(-ordered // width)
        own = blocks + np.arange(size - ordered, dtype=np.int64)
        found.append(np.concatenate([np.arange(ordered, dtype=np.int64) // width, own]))
        width *= _BRANCHING
    return found


def consistent(
    fine: Observation, above: Sequence[tuple[Codes, Observation]], coarse: Codes
) -> tuple[Observation, Observation]:
    """Return the least-squares estimate of the codes, and of sums of them, from all levels.

    Of all unbiased linear estimates it has the least variance (Gauss, Markov). A sum's variance is
    its own: errors of codes beside each other cancel, so it is below the sum of their variances.

    Args:
        fine: Counts of the codes.
        above: Of each level, from the finest, the block of each code, and counts of the blocks.
        coarse: The sum that each code belongs to.
    """
    precisions = [(codes, 1.0 / seen.variance) for codes, seen in above]
    right = fine.values / fine.variance
    for (codes, precision), (_, seen) in zip(precisions, above, strict=True):
        right = right + (precision * seen.values)[codes]
    values, variance = _solve(fine.variance, precisions, right)
    sums = np.bincount(coarse, weights=values).astype(np.float64)
    spread = np.empty_like(sums)
    for label in range(sums.size):
        inside = (coarse == label).astype(np.float64)
        spread[label] = float(_solve(fine.variance, precisions, inside)[0] @ inside)
    return (
        Observation(fine.clique, values, variance),
        Observation(fine.clique, sums, spread),
    )


def _solve(
    variance: Array, levels_: Sequence[tuple[Codes, Array]], right: Array
) -> tuple[Array, Array]:
    """Return the solution of the normal equations, and the diagonal of their matrix's inverse.

    The matrix is that of the codes' precisions and, for each block, its precision in every place
    of the block: one Sherman-Morrison step a level, since blocks of a level do not touch.
    """
    ones = variance.copy()  # the inverse so far, applied to ones
    solved, diagonal = variance * right, variance.copy()
    for codes, precision in levels_:
        whole = np.bincount(codes, weights=ones)
        factor = precision / (1.0 + precision * whole)
        solved = solved - ones * (factor * np.bincount(codes, weights=solved))[codes]
        diagonal = diagonal - ones**2 * factor[codes]
        ones = ones * (1.0 - factor * whole)[codes]
    return solved, diagonal
