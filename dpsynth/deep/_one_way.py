"""Where every neural generator begins: a noisy distribution of each column."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpsynth.deep._parameters import require_columns
from dpsynth.vault import Block, Measure, Step, Train


def opening_steps(
    columns: Sequence[str], one_way: float, rate: float, iterations: int
) -> tuple[Step, ...]:
    """Return the plan of one marginal a column, and a training unless there is one column.

    Args:
        columns: Names of the modelled columns.
        one_way: Share of the precision for the marginals.
        rate: Of the training.
        iterations: Of the training.

    Raises:
        InvalidRequest: If there is no column.
    """
    require_columns(columns)
    if len(columns) < 2:  # there is nothing to learn but its marginal
        return (Measure(len(columns), 1.0),)
    return (Measure(len(columns), one_way), Train(rate, iterations, round(1 - one_way, 12)))


def measured(block: Block, names: Sequence[str]) -> tuple[list[NDArray[np.float64]], float]:
    """Measure the marginal of each column, and return what :func:`smoothed` makes of them."""
    ones = block.measure([(name,) for name in names])
    return smoothed([one.values for one in ones], [one.sigma for one in ones])


def smoothed(
    values: Sequence[NDArray[np.int64]], sigmas: Sequence[float]
) -> tuple[list[NDArray[np.float64]], float]:
    """Return a distribution of each column from its noisy counts, and the number of rows.

    Counts within one standard deviation of nothing are taken to be small: they share equally what
    the others leave of the rows, and get at least half a row, or a hundredth of all together, so
    that nothing is impossible. Better than the counts themselves where most codes are rare.

    Args:
        values: For each column, int64 (size,).
        sigmas: Standard deviation of the noise of each.

    Returns:
        For each column float64 (size,), positive, of sum 1; and a number of rows, at least 1.
    """
    # A column's sum has the noise of all of its codes.
    weights = [1 / (each.size * sigma**2) for each, sigma in zip(values, sigmas, strict=True)]
    sums = [float(each.sum()) for each in values]
    rows = max(math.fsum(s * w for s, w in zip(sums, weights, strict=True)) / sum(weights), 1.0)
    found = []
    for each, sigma in zip(values, sigmas, strict=True):
        kept = np.where(each >= max(sigma, 1.0), each, 0).astype(np.float64)
        small = kept == 0
        if small.any():
            left = (rows - kept.sum()) / small.sum()
            kept[small] = max(left, min(0.5, 0.01 * rows / each.size))
        found.append(kept / kept.sum())
    return found, rows
