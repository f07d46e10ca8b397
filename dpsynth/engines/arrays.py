"""Exact counts of coded columns in memory, by mixed-radix ``bincount``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 16  # rows a pass: the radix sums stay in cache


def marginal_counts(
    codes: Mapping[str, NDArray[np.int32]],
    clique: Sequence[str],
    shape: Sequence[int],
    coarse: Mapping[str, NDArray[np.int64]] | None = None,
) -> NDArray[np.int64]:
    """Count the rows in every cell of one marginal, empty cells included.

    Args:
        codes: One int32 array a column, all of one length.
        clique: The columns to count over; the empty clique counts rows.
        shape: The number of codes of each, after ``coarse``.
        coarse: For some columns, the coarse code of each fine code.

    Returns:
        int64 counts of the given shape.
    """
    cells = int(np.prod(shape, dtype=np.int64)) if len(shape) else 1
    rows = len(next(iter(codes.values()))) if codes else 0
    total = np.zeros(cells, dtype=np.int64)
    for start in range(0, rows, _CHUNK):
        window = slice(start, min(start + _CHUNK, rows))
        index = np.zeros(window.stop - window.start, dtype=np.int64)
        for name, size in zip(clique, shape, strict=True):
            part = codes[name][window]
            index *= size
            index += part if coarse is None or name not in coarse else coarse[name][part]
        total += np.bincount(index, minlength=cells)
    return total.reshape(tuple(shape))
