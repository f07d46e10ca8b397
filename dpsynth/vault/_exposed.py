"""What an inspection sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Domain


@dataclass(frozen=True, repr=False)
class Exposed:
    """Coded private rows as an inspection sees them: for the custodian's machine alone.

    Attributes:
        domain: What the codes mean.
        train: int32 (rows, columns): rows that were used and are not audited.
        audit_in: int32 (rows, columns): audited rows that were used.
        audit_in_units: int64 (rows,): the unit of each.
        held_out: int32 (rows, columns): audited rows that were held out.
        held_out_units: int64 (rows,): the unit of each.
    """

    domain: Domain
    train: NDArray[np.int32]
    audit_in: NDArray[np.int32]
    audit_in_units: NDArray[np.int64]
    held_out: NDArray[np.int32]
    held_out_units: NDArray[np.int64]
