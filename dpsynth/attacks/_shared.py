"""Indices that several attacks on the same tables share, each built once.

Within ``shared()`` an index is kept by its rows and domain, and its distances by the queries.
Arrays are told apart by identity, and kept alive: nobody may change one within the block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks.neighbours import Neighbours
from dpsynth.domain import Domain


class _Remembering(Neighbours):
    """An index that looks for the neighbours of the same array once."""

    def __init__(self, reference: NDArray[np.int32], domain: Domain) -> None:
        super().__init__(reference, domain)
        self._asked: dict[tuple[int, int], tuple[NDArray[np.int32], NDArray[np.int64]]] = {}

    def distances(
        self,
        queries: NDArray[np.int32],
        k: int = 1,
        *,
        within: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Return distances as :meth:`Neighbours.distances` does; not to be changed."""
        if within is not None:
            return super().distances(queries, k, within=within)
        key = id(queries), k
        if key not in self._asked:
            found = super().distances(queries, k)
            found.flags.writeable = False
            self._asked[key] = queries, found
        return self._asked[key][1]


_Kept = dict[tuple[int, int], tuple[NDArray[np.int32], Domain, Neighbours]]
_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


@contextmanager
def shared() -> Iterator[None]:
    """Share indices within the block; they are forgotten at its end."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def index_of(reference: NDArray[np.int32], domain: Domain) -> Neighbours:
    """Return an index of rows: within ``shared()`` the one that was built before, if any.

    Args:
        reference: int32 (rows, columns), coded by ``domain``; not changed.
        domain: The columns of the rows, in order.
    """
    kept = _kept.get()
    if kept is None:
        return Neighbours(reference, domain)
    key = id(reference), id(domain)
    if key not in kept:
        kept[key] = reference, domain, _Remembering(reference, domain)
    return kept[key][2]
