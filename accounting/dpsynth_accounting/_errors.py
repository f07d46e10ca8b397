"""Errors that a tired person can act on, and that never carry a data value.

Every error says four things: what was asked, the limit it met, whether private rows were read or
budget was spent, and the nearest thing that works.
"""

from __future__ import annotations

UNTOUCHED = "No private row was read and nothing was spent."
CHARGED = "The charge stands: what was reserved is not refunded once rows have been read."


class DpsynthError(Exception):
    """Base of every error raised on purpose by dpsynth.

    Args:
        asked: What was asked for, in public terms only.
        limit: The rule or limit that stands against it.
        instead: The nearest thing that works.
        touched: Whether private rows may have been read by the time of the error.
    """

    def __init__(self, asked: str, limit: str, instead: str, *, touched: bool = False) -> None:
        self.asked = asked
        self.limit = limit
        self.instead = instead
        self.touched = touched
        state = CHARGED if touched else UNTOUCHED
        super().__init__(f"{asked} {limit} {state} {instead}")


class InvalidRequest(DpsynthError, ValueError):  # noqa: N818
    """A parameter, plan or request that can never be right, whatever the data."""


class BudgetExceeded(DpsynthError):  # noqa: N818
    """A charge the account's remaining budget does not cover."""


class LedgerError(DpsynthError):
    """A ledger file that cannot be used: unreadable, unwritable, unsafe place, wrong version."""


class LedgerCorrupt(LedgerError):  # noqa: N818
    """A ledger whose hash chain or totals do not verify."""
