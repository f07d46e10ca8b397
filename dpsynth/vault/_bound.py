"""Units of privacy: whose presence is hidden, enforced by keeping at most so many rows of each.

Two secret draws are made here, keyed by the account so that they are the same in every run:
which rows of a person are kept, and which units are held out for the audit. Each draw is a keyed
hash of the unit itself, never of its place in a table: so adding a unit changes no other unit's
draw, in any table of the account, which is what the guarantee needs of them.
Proof: ``docs/explanation/units.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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


Words = NDArray[np.uint64]
"""Keyed random words, shape (units, 2)."""


def words_of_rows(columns: Sequence[NDArray[np.object_]], key: bytes) -> Words:
    """Return two keyed words a row, from its texts and its number among rows of equal texts.

    Equal rows are interchangeable in every answer, so numbering them by place is as good as any.

    Args:
        columns: Texts (None where missing) of each column, object arrays of shape (rows,).
        key: Secret key.
    """
    seen: dict[bytes, int] = {}
    words = np.empty((len(columns[0]) if columns else 0, 2), dtype=np.uint64)
    for place, row in enumerate(zip(*columns, strict=True)):
        digest = _hash(repr(row).encode("utf-8", "surrogatepass"), key)
        number = seen.get(digest, 0)
        seen[digest] = number + 1
        if number:
            digest = _hash(digest + number.to_bytes(8, "big"), key)
        words[place] = np.frombuffer(digest, dtype=np.uint64)
    return words


def words_of_persons(identities: Sequence[str], key: bytes) -> Words:
    """Return two keyed words a person, from the id alone."""
    words = np.empty((len(identities), 2), dtype=np.uint64)
    for place, identity in enumerate(identities):
        digest = _hash(identity.encode("utf-8", "surrogatepass"), key)
        words[place] = np.frombuffer(digest, dtype=np.uint64)
    return words


def _hash(message: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(message, key=key, digest_size=16).digest()


def keep_rows(units: NDArray[np.int64], bound: int, words: Words) -> NDArray[np.int64]:
    """Return the positions of the rows to keep: at most ``bound`` of each unit, uniformly chosen.

    Args:
        units: int64, the unit of each row, -1 for rows to drop.
        bound: Greatest number of rows of a unit.
        words: Keyed words of the rows; a unit keeps its rows with the least.

    Returns:
        int64 positions in increasing order.
    """
    order = np.lexsort((words[:, 1], words[:, 0], units))
    ranked = units[order]
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else ranked
    lengths = np.diff(np.r_[first, len(ranked)])
    rank = np.arange(len(ranked)) - np.repeat(first, lengths)
    return np.sort(order[(rank < bound) & (ranked >= 0)])


def roles(words: Words, share: float) -> NDArray[np.uint8]:
    """Return each unit's role: audited with probability ``share``, then a fair coin."""
    audited = words[:, 0] / 2.0**64 < share
    coin = np.where(words[:, 1] >> np.uint64(63), AUDIT_IN, HELD_OUT)
    return np.where(audited, coin, TRAIN).astype(np.uint8)
