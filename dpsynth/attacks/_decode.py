"""How likely each canary is in, from noisy marginals: the best linear estimate of all coins.

With ``s`` the coins, each cell's noisy count is that of the rows known to be there, plus the
canaries that are in and fall into it, plus noise. Given the noise's variance that is a linear
model, and the best linear estimate of ``s`` takes out what canaries in one cell do to each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks._watched import Seen

Codes = Mapping[str, NDArray[np.int32]]

_ENOUGH = 16  # cells without a canary from which a noise is estimated
_LEAST = 1e-4  # least share of the stated variance that is reckoned with


def scores(seen: Sequence[Seen], known: Codes, canaries: Codes, rows: int) -> NDArray[np.float64]:
    """Return a score of each canary, float64 (canaries,): above 0 speaks for being in.

    The noise that is reckoned with is what cells without a canary show, where there are enough: so
    a mechanism with less noise than it says is read as sharply as it deserves.

    Args:
        seen: The marginals that were shown, at least one.
        known: Codes of the rows that are in for certain.
        canaries: Codes of one row of each canary.
        rows: Rows that each canary has, all alike.
    """
    from scipy import sparse

    count = len(next(iter(canaries.values())))
    signals, residuals = [], []
    for each in seen:
        values = each.measurement.values.ravel().astype(np.float64)
        there = np.bincount(each.cells(known), minlength=values.size)
        cells = each.cells(canaries)
        hits = np.bincount(cells, minlength=values.size)
        off = values - there
        empty = off[hits == 0]
        variance = each.measurement.sigma**2
        if len(empty) >= _ENOUGH:
            found = float(np.mean(empty**2)) / variance
            variance *= min(max(found, _LEAST), 1.0)
        hit, place = np.unique(cells, return_inverse=True)
        weights = np.full(count, rows / np.sqrt(variance))
        signals.append(sparse.csr_array((weights, (place.reshape(-1), np.arange(count)))))
        residuals.append((off[hit] - rows * hits[hit] / 2) / np.sqrt(variance))
    matrix = sparse.vstack(signals).tocsr()
    # A fair coin has variance 1/4.
    system = (matrix.T @ matrix).toarray() + 4 * np.eye(count)
    found_scores: NDArray[np.float64] = np.linalg.solve(
        system, matrix.T @ np.concatenate(residuals)
    )
    return found_scores
