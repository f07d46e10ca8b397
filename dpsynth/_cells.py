"""How numbers lie inside the cells of a grid, as far as the shares of the cells tell.

In each cell the density is a line whose integral is the cell's share. Its slope follows from the
neighbours' densities; reasons and figures: ``docs/explanation/types.md``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def leans(widths: Array, shares: Array) -> Array:
    """Return the slope of the density in each cell, relative to its mean: from -1 to 1.

    With lean a the density at a place t in [0, 1] of the cell is 1 + a (2 t - 1) times its mean, so
    the cell's mass is kept whatever a is. The density where two cells meet is taken for the
    geometric mean of theirs, which is right for an exponential one. a is 0 where the cell is a peak
    or a trough, and at most twice what either side alone says (the monotonised central limiter of
    van Leer 1977), so that a spike on one side moves little. A cell of one value is no neighbour,
    since it may be a spike; with one neighbour only, that one decides.

    Args:
        widths: float64 (cells,), 0 for a cell of one value.
        shares: float64 (cells,), probability of each cell, on any common scale.

    Returns:
        float64 (cells,).

    >>> leans(np.array([1.0, 1.0, 1.0, 0.0]), np.array([4.0, 1.0, 0.25, 9.0]))
    array([-0.5 , -0.75, -1.  ,  0.  ])
    """
    wide = widths > 0
    root = np.sqrt(np.divide(shares, widths, out=np.zeros_like(shares), where=wide))
    left, right = root[:-1], root[1:]
    ones = np.ones(len(left))
    with np.errstate(over="ignore"):
        rises = np.divide(right, left, out=ones.copy(), where=left > 0) - 1
        falls = 1 - np.divide(left, right, out=ones.copy(), where=right > 0)
    beside = wide[:-1] & wide[1:]
    after = np.append(np.where(beside, rises, np.nan), np.nan)
    before = np.append(np.nan, np.where(beside, falls, np.nan))
    one, other = np.where(np.isnan(after), before, after), np.where(np.isnan(before), after, before)
    steepest = np.minimum(np.abs(one + other) / 2, 2 * np.minimum(np.abs(one), np.abs(other)))
    signs = np.where(np.sign(one) == np.sign(other), np.sign(one), 0.0)
    return np.where(np.isnan(one), 0.0, signs * np.minimum(steepest, 1.0))
