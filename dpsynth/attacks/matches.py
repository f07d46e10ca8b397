"""Exact matches: units of which some row occurs in the release, and those that are unique.

Held-out units match by coincidence, so only more matches on the other side tell of copying; an
absolute limit would fail every release of a coarse table. A row that no other private row equals
matches by coincidence less often, and tells more about the person behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks.comparison import Comparison, compare_hits
from dpsynth.attacks.targets import Rows, Targets


@dataclass(frozen=True)
class Matches:
    """Units of which some row occurs in the release.

    Attributes:
        exact: All units.
        unique: Units with a row that occurs once in all private rows, and only such rows.
    """

    exact: Comparison
    unique: Comparison


def matches(release: Rows, train: Rows, targets: Targets) -> Matches:
    """Count exact matches on both sides.

    Args:
        release: int32 (rows, columns).
        train: int32 (rows, columns): rows that were used and not audited.
        targets: Audited units that were in, and units held out.
    """
    inside, outside = targets.sides
    cut, end = len(inside.rows), len(inside.rows) + len(outside.rows)
    number = _numbered(np.concatenate([inside.rows, outside.rows, train, release]))
    private, released = number[: end + len(train)], number[end + len(train) :]
    found = np.isin(private[:end], released)
    alone = (np.bincount(private) == 1)[private[:end]]

    def compared(rows: NDArray[np.bool_], among: NDArray[np.bool_]) -> Comparison:
        sides = []
        for side, part in ((inside, slice(0, cut)), (outside, slice(cut, end))):
            sides.append(side.any(rows[part] & among[part])[side.any(among[part])])
        return compare_hits(*sides)

    return Matches(compared(found, np.ones(end, dtype=bool)), compared(found, alone))


def _numbered(rows: Rows) -> NDArray[np.int64]:
    """Return a number a row, the same for equal rows and for no others."""
    packed = np.ascontiguousarray(rows, dtype=np.int32)
    if not packed.size:
        return np.zeros(len(packed), dtype=np.int64)
    whole = packed.view(f"V{packed.shape[1] * packed.itemsize}").ravel()
    import pandas as pd

    return np.asarray(pd.factorize(np.array(whole.tolist(), dtype=object))[0], dtype=np.int64)
