"""What names a candidate for a release: the bytes of its table, as a release writes them."""

from __future__ import annotations

import hashlib
import io

import pandas as pd

from dpsynth._csv import write_csv


class _Hashing(io.TextIOBase):
    """A text file that keeps nothing but the hash of what was written."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        self.digest.update(text.encode("utf-8"))
        return len(text)


def candidate_of(table: pd.DataFrame) -> str:
    """Return the SHA-256 that ``table.csv`` of a release of this table has.

    >>> candidate_of(pd.DataFrame({"a": [1]})) == hashlib.sha256(b"a\\n1\\n").hexdigest()
    True
    """
    file = _Hashing()
    write_csv(table, file)  # type: ignore[arg-type]  # all that is written to is `write`
    return file.digest.hexdigest()
