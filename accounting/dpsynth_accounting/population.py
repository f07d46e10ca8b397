"""Whether two accounts hold the same people, told from keyed sketches of their units.

A sketch is the least 256 of the units' keyed hashes. It depends on private rows: it lives in the
ledger file beside the chain, never in an extract, an error or anything published. Without the key,
which is kept outside the ledger, nobody can test it for a name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from dpsynth_accounting._errors import DpsynthError, LedgerCorrupt

K = 256
"""Greatest number of hashes in a sketch: 2 KiB, and a fraction known to about three points."""

ALIKE = 0.5
"""Estimated fraction of the smaller population found in the other, from which they are alike."""

_MARK = b"kmv\x01"  # what a sketch begins with: its kind and version
_WORD = 8  # bytes of a hash
_BATCH = 1 << 16  # identities hashed at a time


class SamePeople(DpsynthError):  # noqa: N818
    """The units of a table appear under another account, and nobody wrote down that they may.

    The refusal follows from private rows: it is for the custodian, like an inspection.

    Attributes:
        account: The account that was to be charged; its charge was handed back.
        other: The account that holds the same people.
    """

    def __init__(self, account: str, other: str) -> None:
        self.account = account
        self.other = other
        asked = f"Account {account!r} was to pay for an answer about a table."
        limit = (
            f"Its units appear under account {other!r} too, where every epsilon spent on them "
            "adds to this one."
        )
        instead = (
            f"Use account {other!r}; or, if both are meant, write it down with `dpsynth ledger "
            f"override LEDGER {account!r} {other!r} --reason ... --by ...` and run again."
        )
        super().__init__(asked, limit, instead, touched=True)
        # Neither of the two states of other errors: rows were read, yet the charge was given back.
        state = "Rows were read for the custodian's eyes; nothing was spent or answered."
        self.args = (f"{asked} {limit} {state} {instead}",)


def sketch(identities: Iterable[bytes], key: bytes) -> bytes:
    """Return the sketch of a set of units: its 256 least keyed hashes, in canonical bytes.

    Two tables of the same units have the same sketch, whatever their order and their repetitions.
    This is the bottom-k sketch of Broder, "On the resemblance and containment of documents" (1997),
    section 4, and the KMV synopsis of Beyer, Haas, Reinwald, Sismanis and Gemulla, "On synopses for
    distinct-value estimation under multiset operations" (SIGMOD 2007), section 3.

    Args:
        identities: One text of bytes a unit; repetitions count once, and there may be none.
        key: Secret key of 1 to 64 bytes, the same for all sketches that will be compared.

    >>> sketch([b"ann", b"bob"], b"key") == sketch([b"bob", b"ann", b"bob"], b"key")
    True
    """
    blank = hashlib.blake2b(key=key, digest_size=_WORD, person=_MARK)
    least = np.empty(0, dtype=np.uint64)
    for words in _hashed(iter(identities), blank):
        least = np.unique(np.concatenate([least, words]))[:K]
    return _MARK + least.astype(">u8").tobytes()


def _hashed(identities: Iterator[bytes], blank: hashlib.blake2b) -> Iterator[NDArray[np.uint64]]:
    """Yield the keyed hashes of the identities, a batch at a time."""

    def hashed(identity: bytes) -> bytes:
        one = blank.copy()
        one.update(identity)
        return one.digest()

    while raw := b"".join(map(hashed, islice(identities, _BATCH))):
        yield np.frombuffer(raw, dtype=">u8").astype(np.uint64)


def shared(a: bytes, b: bytes) -> tuple[float, float]:
    """Estimate what fraction of A's units are in B, and of B's in A, from their sketches.

    Let t be the greatest hash of a full sketch (the lesser of the two if both are full, infinite
    if neither is). Every unit with a hash below t shows in the sketch of each set it belongs to,
    and the hashes below t fall evenly over the units: so the units of A below t are a uniform
    sample of A, and the fraction of them found in B estimates |A and B| / |A|. It is the ratio of
    the estimates K(A and B) / K * (K - 1) / t and (K(A) - 1) / t of Beyer et al. (2007), sections
    3 and 5, and Broder's containment (1997); t itself is left out of the sample, which removes the
    bias of 1 / K. With n units of A below t its standard deviation is at most 1 / (2 sqrt(n)).
    Where neither sketch is full it is exact.

    n is about K |A| / |B| if A is the smaller: of a set several hundred times smaller than the
    other nothing may show, and the fraction is then 0.

    Returns:
        The fraction of A's units found in B and of B's in A; 0 where a sample is empty.

    Raises:
        LedgerCorrupt: One of them is no sketch that this version wrote.

    >>> shared(sketch([b"1", b"2", b"3", b"4"], b"key"), sketch([b"1", b"5"], b"key"))
    (0.25, 0.5)
    """
    one, two = _read(a), _read(b)
    ends = [words[-1] for words in (one, two) if len(words) == K]
    if ends:
        least = min(ends)
        one, two = one[one < least], two[two < least]
    common = len(np.intersect1d(one, two, assume_unique=True))
    return common / max(len(one), 1), common / max(len(two), 1)


def alike(a: bytes, b: bytes) -> bool:
    """Say whether two sketches are of the same people: half of the smaller set is in the other."""
    return max(shared(a, b)) >= ALIKE


def _read(raw: bytes) -> NDArray[np.uint64]:
    """Return the hashes of a sketch, uint64 of shape (at most K,), strictly increasing."""
    body = raw[len(_MARK) :]
    whole = raw.startswith(_MARK) and len(body) % _WORD == 0 and len(body) <= K * _WORD
    words = np.frombuffer(body, dtype=">u8").astype(np.uint64) if whole else np.empty(0, np.uint64)
    if not whole or np.any(words[1:] <= words[:-1]):
        raise LedgerCorrupt(
            "The sketches of two accounts' people were to be compared.",
            "One of them is not what this version writes.",
            "Restore the ledger from a copy, and verify it with `dpsynth ledger verify`.",
        )
    return words
