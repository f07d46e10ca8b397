"""Units of privacy: whose presence is hidden, enforced by keeping at most so many rows of each.

Two secret draws are made here, keyed by the account so that they are the same in every run:
which rows of a person are kept, and which units are held out for the audit. Neither is noise, and
no guarantee rests on their secrecy; the audit's fairness rests on the coins being independent.
Proof that both leave the guarantee untouched: ``docs/explanation/units.md``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsynth_accounting import InvalidRequest

TRAIN, AUDIT_IN, HELD_OUT = 0, 1, 2
"""What a unit's rows are for: fitting; fitting and audit; audit alone."""


@dataclass(frozen=True)
class Row:
    """Each row is a unit of its own: nobody is protected beyond one of their rows."""

    @property
    def rows(self) -> int:
        """Greatest number of rows a unit contributes."""
        return 1

    def to_json(self) -> dict[str, Any]:
        """Return the unit as plain JSON data."""
        return {"unit": "row", "rows": 1}


@dataclass(frozen=True)
class Person:
    """All rows with the same value in ``column`` are one unit, cut to at most ``rows`` of them.

    Which rows are kept is a secret, uniform choice. A row without an id is dropped.

    Args:
        column: The column that identifies a person.
        rows: Greatest number of rows kept of each person; sensitivities grow with it.
    """

    column: str
    rows: int

    def __post_init__(self) -> None:
        """Refuse a bound that keeps nothing."""
        if isinstance(self.rows, bool) or not isinstance(self.rows, int) or self.rows < 1:
            raise InvalidRequest(
                "A person was to contribute fewer than one row, or not a whole number of them.",
                "The bound must be a whole number of at least 1.",
                "Use a number that most persons stay within, such as 5.",
            )

    def to_json(self) -> dict[str, Any]:
        """Return the unit as plain JSON data."""
        return {"unit": "person", "column": self.column, "rows": self.rows}


Unit = Row | Person


def _stream(key: bytes) -> np.random.Generator:
    """Return a stream of keyed numbers; for choices that no guarantee rests on, never for noise."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "big")))


def keep_rows(units: NDArray[np.int64], bound: int, key: bytes) -> NDArray[np.int64]:
    """Return the positions of the rows to keep: at most ``bound`` of each unit, uniformly chosen.

    Args:
        units: int64, the unit of each row, -1 for rows to drop.
        bound: Greatest number of rows of a unit.
        key: Secret key of the choice.

    Returns:
        int64 positions in increasing order.
    """
    priority = _stream(key).random(len(units))
    order = np.lexsort((priority, units))
    ranked = units[order]
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else ranked
    lengths = np.diff(np.r_[first, len(ranked)])
    rank = np.arange(len(ranked)) - np.repeat(first, lengths)
    return np.sort(order[(rank < bound) & (ranked >= 0)])


def roles_of_rows(count: int, share: float, key: bytes) -> NDArray[np.uint8]:
    """Return the role of each of ``count`` single-row units, from two keyed uniforms a row."""
    return _roles(_stream(key).random((count, 2)), share)


def roles_of_persons(identities: list[str], share: float, key: bytes) -> NDArray[np.uint8]:
    """Return the role of each person, from a keyed hash of the id alone."""
    words = np.empty((len(identities), 2), dtype=np.float64)
    for position, identity in enumerate(identities):
        digest = hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), key=key, digest_size=16)
        words[position] = np.frombuffer(digest.digest(), dtype=np.uint64) / 2.0**64
    return _roles(words, share)


def _roles(uniforms: NDArray[np.float64], share: float) -> NDArray[np.uint8]:
    audited = uniforms[:, 0] < share
    coin = np.where(uniforms[:, 1] < 0.5, AUDIT_IN, HELD_OUT)
    return np.where(audited, coin, TRAIN).astype(np.uint8)
