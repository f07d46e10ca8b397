"""Membership attacks with real rows beside the release: internal, never published.

A *reference attack* also sees rows that were not audited. Nothing that it scores can be priced by
a unit's presence, so its figures are for the custodian alone. It must not see a coin, nor another
target: then what it says of units that were in and of units held out differs by the release only.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks.targets import Rows
from dpsynth.domain import Domain
from dpsynth_accounting import InvalidRequest


@runtime_checkable
class ReferenceAttack(Protocol):
    """An attack that scores a record from that record, the release and a reference.

    The reference holds rows that were not audited. The score of a record must not depend on the
    other records it is given with, not even in the last bit; and an attack never sees who was in.
    ``tests/attacks/reference_contract.py`` is a suite that checks both for any attack.
    """

    @property
    def name(self) -> str:
        """A public name."""

    def score(self, records: Rows) -> NDArray[np.float64]:
        """Return a score a record: higher means more likely a member.

        Args:
            records: int32 (records, columns), coded by the release's domain.

        Returns:
            float64 (records,).
        """


def require_columns(domain: Domain, *tables: Rows) -> None:
    """Refuse tables that the domain does not code."""
    if any(rows.ndim != 2 or rows.shape[1] != len(domain.names) for rows in tables):
        raise refused(len(domain.names))


def refused(columns: int) -> InvalidRequest:
    """Return the error for rows that a domain of so many columns does not code."""
    return InvalidRequest(
        "Coded rows were to be attacked over another number of columns than they have.",
        f"The domain has {columns} columns.",
        "Give an int32 array (rows, columns) coded by this domain.",
    )
