"""Uniform bits from a cipher. All randomness of the vault comes from here.

ChaCha20 (Bernstein 2008; RFC 8439) makes at most one chunk under a key of the operating system, and
the key is then forgotten: nothing is kept from which earlier draws could be computed. What is kept
between calls, a few unused words of each thread, is thrown away after a fork. No generator of
Python, numpy or torch is used, and no seed of theirs reaches this module.

Its use is explained in docs/explanation/noise.md.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 18  # bytes under one key: long enough that its set-up is a tenth of the work
_SPARE = 512  # words that a thread draws ahead for small requests

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):  # where there is fork
    os.register_at_fork(after_in_child=_count_fork)


class _Spare(threading.local):
    """A thread's unused words, and the process that drew them."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.process = (-1, -1)


class Stream:
    """A source of uniform bits: safe under threads, forks and new processes."""

    def __init__(self) -> None:
        self._spare = _Spare()

    def _key(self) -> bytes:
        """Return 32 bytes that were never returned before."""
        return os.urandom(32)

    def words(self, count: int) -> NDArray[np.uint64]:
        """Return independent uniform words.

        Returns:
            uint64 array of shape (count,).
        """
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

        found = np.zeros(count, dtype=np.uint64)
        raw = found.view(np.uint8).data
        for start in range(0, 8 * count, _CHUNK):
            piece = raw[start : start + _CHUNK]
            # A key is used once, so the nonce may be constant. Zeros become the key stream.
            Cipher(ChaCha20(self._key(), bytes(16)), None).encryptor().update_into(piece, piece)
        return found

    def bits(self, k: int) -> int:
        """Return a uniform integer of k bits, 0 <= result < 2**k."""
        value = 0
        for _ in range(-(-k // 64)):
            value = value << 64 | self._word()
        return value >> (-k % 64)

    def below(self, n: int) -> int:
        """Return a uniform integer, 0 <= result < n, for n >= 1 of any size. Exact: by rejection.

        Raises:
            ValueError: n is below 1.
        """
        if n < 1:
            raise ValueError("there is no integer to draw below a bound under 1")
        k = (n - 1).bit_length()
        while (found := self.bits(k)) >= n:
            pass
        return found

    def _word(self) -> int:
        """Return one word.

        ``pop`` hands a word out once, even where a signal handler draws in the middle of this.
        """
        spare = self._spare
        # The count of forks tells a child that has the number of a dead ancestor; the number tells
        # a fork that Python did not make.
        process = (os.getpid(), _forks)
        if spare.process != process:
            spare.words = []
        while True:
            try:
                return spare.words.pop()
            except IndexError:
                spare.words, spare.process = self.words(_SPARE).tolist(), process


class SeededStream(Stream):
    """A stream that a seed repeats, for tests and teaching: what is drawn from it is NOT PRIVATE.

    Only the vault's not-private mode makes one. The same calls from one thread repeat; after a fork
    both processes go on alike.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = str(seed)
        self._used = itertools.count()

    def _key(self) -> bytes:
        return hashlib.sha256(f"{self._seed} {next(self._used)}".encode()).digest()


SYSTEM = Stream()
"""Keyed by the operating system. The default everywhere."""
