"""Units of privacy: whose presence is hidden, enforced by keeping at most so many rows of each.

Two secret draws are made here, keyed by the account so that they are the same in every run:
which rows of a person are kept, and which units are held out for the audit. Each draw is a keyed
function of the unit itself, never of its place in a table: so adding a unit changes no other unit's
draw, in any table of the account, which is what the guarantee needs of them.
Proof: ``docs/explanation/units.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
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
    """All rows with the same text in ``column`` are one unit, cut to at most ``rows`` of them.

    The text is what a CSV file would hold: 1, 1.0 and "1" are one person.

    Which rows are kept is a secret, uniform choice, made before anything else. A row without an id
    is dropped. One bound holds for all persons: weights, and bounds that differ between groups of
    persons, are out of scope.

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


Column = tuple[NDArray[np.int32], list[str]]
"""Where in its distinct texts each row's is, -1 for a missing one; and those texts."""


def words_of_rows(columns: Mapping[str, Column], key: bytes) -> Words:
    """Return two keyed words a row, from its texts and its number among rows of equal texts.

    Equal rows are interchangeable in every answer, so numbering them by place is as good as any.
    Rows count as equal if their texts are, not if a hash of them is.

    A row is hashed by tabulation: the exclusive or of one keyed hash for each column's text and
    one for its number (Zobrist 1970; Carter, Wegman 1979), so that a text is hashed once however
    many rows have it. That alone leaves rows dependent, four of a rectangle for one; a block
    cipher makes words of it that pass for independent ones.

    Args:
        columns: The rows' texts; all columns of one length, at least one.
        key: Secret key of at most 64 bytes.

    Returns:
        uint64 of shape (rows, 2).
    """
    numbers = _numbers_among_equals(list(columns.values()))
    words = _hashes(map(str, range(numbers.max(initial=-1) + 1)), key, "number")[numbers]
    for name, (positions, texts) in columns.items():
        words ^= _hashes([*texts, ""], key, f"column {name}")[positions]  # missing is at -1
    return _enciphered(words, key)


def words_of_persons(identities: Sequence[str], key: bytes) -> Words:
    """Return two keyed words a person, from the id alone; uint64 of shape (persons, 2)."""
    return _hashes(identities, key, "person")


def _hashes(texts: Iterable[str], key: bytes, about: str) -> Words:
    """Return the keyed hash of each text, for one of several independent uses of a key."""
    own = hashlib.blake2b(about.encode("utf-8", "surrogatepass"), key=key).digest()
    blank = hashlib.blake2b(key=own, digest_size=16)

    def hashed(text: str) -> bytes:
        one = blank.copy()
        one.update(text.encode("utf-8", "surrogatepass"))
        return one.digest()

    raw = b"".join(map(hashed, texts))
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64).reshape(-1, 2)


def _enciphered(words: Words, key: bytes) -> Words:
    """Return AES-256 of each pair of words: distinct pairs stay distinct."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    own = hashlib.blake2b(b"cipher", key=key, digest_size=32).digest()
    cipher = Cipher(
        algorithms.AES(own), modes.ECB()
    ).encryptor()  # each block by itself, on purpose
    raw = cipher.update(words.astype("<u8").tobytes())
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64).reshape(-1, 2)


def _numbers_among_equals(columns: Sequence[Column]) -> NDArray[np.int64]:
    """Return how many rows before each one have the same texts in all columns."""
    content = np.zeros(len(columns[0][0]), dtype=np.int64)
    kinds = 1
    for positions, texts in columns:
        base = len(texts) + 1
        if kinds * base > 2**62:
            content, distinct = pd.factorize(content)
            kinds = len(distinct)
        content = content * base + positions
        content += 1
        kinds *= base
    return _numbers_within(content, np.argsort(content, kind="stable"))


def _numbers_within(groups: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of its group come before each element, in an order that sorts the groups."""
    ranked = groups[order]
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else ranked
    lengths = np.diff(np.r_[first, len(ranked)])
    numbers = np.empty(len(ranked), dtype=np.int64)
    numbers[order] = np.arange(len(ranked)) - np.repeat(first, lengths)
    return numbers


def keep_rows(units: NDArray[np.int64], bound: int, words: Words) -> NDArray[np.int64]:
    """Return the positions of the rows to keep: at most ``bound`` of each unit, uniformly chosen.

    Args:
        units: int64, the unit of each row, -1 for rows to drop.
        bound: Greatest number of rows of a unit.
        words: Keyed words of the rows; a unit keeps its rows with the least.

    Returns:
        int64 positions in increasing order.
    """
    numbers = _numbers_within(units, np.lexsort((words[:, 1], words[:, 0], units)))
    return np.flatnonzero((numbers < bound) & (units >= 0))


def roles(words: Words, share: float, *, coin: bool = True) -> NDArray[np.uint8]:
    """Return each unit's role: audited with probability ``share``, then a fair coin.

    Without a coin all audited units are in: a table of its own is held out.
    """
    audited = words[:, 0] / 2.0**64 < share
    held_out = coin & (words[:, 1] >> np.uint64(63) == 0)
    return np.where(audited, np.where(held_out, HELD_OUT, AUDIT_IN), TRAIN).astype(np.uint8)
