"""Membership by marginals: cells that are more frequent in the release than in a reference."""

from __future__ import annotations

import functools
import itertools
import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks.reference import refused, require_columns
from dpsynth.attacks.targets import Rows
from dpsynth.domain import Domain

MOST_CLIQUES = 200
"""Most sets of columns that a marginal ratio is taken over; beyond it, random ones."""

_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: spreads sums over 64 bits
_FEW_CELLS = 1 << 17  # a marginal of no more cells is counted in full
_MIXED = (  # a bijection of 64 bits in which every bit depends on all (Steele, Lea, Flood 2014)
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)


class MarginalRatio:
    """Scores how much more frequent a record's cells are in the release than in the reference.

    The mean over sets of columns of log((a + 1/2) / (b + 1/2)), where a is the share of the release
    in the record's cell, times 10,000, and b that of the reference. It is the attack matched to
    mechanisms that reproduce marginals (Golob et al. 2024, arXiv 2410.05506, section 4), with all
    sets of columns in place of those that the mechanism measured.

    Args:
        domain: What codes all rows.
        release: int32 (rows, columns); not changed.
        reference: int32 (rows, columns), rows that were not audited; not changed.
        rng: Chooses the sets of columns if there are more than 200.

    Raises:
        InvalidRequest: A table has another number of columns than the domain.
    """

    width: ClassVar[int]
    name: ClassVar[str]

    def __init__(
        self, domain: Domain, release: Rows, *, reference: Rows, rng: np.random.Generator
    ) -> None:
        require_columns(domain, release, reference)
        self._columns = len(domain.names)
        self._sizes = [domain.size(name) for name in domain.names]
        self._cliques = _cliques(self._columns, self.width, rng)
        self._sides = len(release), len(reference)
        self._rows = np.concatenate([release, reference])

    @classmethod
    def build(
        cls, domain: Domain, release: Rows, *, reference: Rows, rng: np.random.Generator
    ) -> MarginalRatio:
        """Return the attack on a release."""
        return cls(domain, release, reference=reference, rng=rng)

    def score(self, records: Rows) -> NDArray[np.float64]:
        """Return mean log ratios, float64 (records,)."""
        if records.ndim != 2 or records.shape[1] != self._columns:
            raise refused(self._columns)
        total = np.zeros(len(records))
        if not len(records):
            return total
        table = np.concatenate([self._rows, records]).T.astype(np.int64, order="C")
        counts = [math.prod(self._sizes[j] for j in clique) for clique in self._cliques]
        spread = _spread(table if max(counts, default=0) > _FEW_CELLS else table[:0])
        released, known = self._sides[0], sum(self._sides)
        for clique, count in zip(self._cliques, counts, strict=True):
            if count <= _FEW_CELLS:
                cells, places = _flat(table, clique, self._sizes), count
            else:
                cells = _numbered(functools.reduce(np.add, (spread[j] for j in clique)))
                places = len(cells)
            parts = cells[:released], cells[released:known]
            a, b = (
                np.bincount(part, minlength=places)[cells[known:]] * (10_000 / max(rows, 1))
                for part, rows in zip(parts, self._sides, strict=True)
            )
            total += np.log((a + 0.5) / (b + 0.5))
        return total / max(len(self._cliques), 1)


class PairRatio(MarginalRatio):
    """The marginal ratio over pairs of columns; see :class:`MarginalRatio`."""

    width = 2
    name = "marginal ratio, pairs"


class TripleRatio(MarginalRatio):
    """The marginal ratio over triples of columns; see :class:`MarginalRatio`."""

    width = 3
    name = "marginal ratio, triples"


class FiveWayRatio(MarginalRatio):
    """The marginal ratio over sets of five columns; see :class:`MarginalRatio`."""

    width = 5
    name = "marginal ratio, fives"


def _flat(table: NDArray[np.int64], clique: tuple[int, ...], sizes: list[int]) -> NDArray[np.int64]:
    """Return the place of each row's cell in the flattened marginal, int64 (rows,)."""
    cells: NDArray[np.int64] = table[clique[0]]
    for j in clique[1:]:
        cells = cells * sizes[j] + table[j]
    return cells


def _spread(table: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a number for each entry of a table (columns, rows), by column and code.

    The sums over some columns are equal where the codes are, and else with a chance near 2**-64.
    """
    spread = table.astype(np.uint64)
    spread += (np.arange(1, len(spread) + 1, dtype=np.uint64) << np.uint64(32))[:, None]
    for shift, factor in _MIXED:
        spread ^= spread >> shift
        spread *= factor
    spread ^= spread >> np.uint64(31)
    return spread


def _numbered(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return for each key the place of one that equals it: the same place for equal keys.

    Each round every key writes its place into a slot. The last one written there is the place of
    all that equal it; keys of which none was written last go into other slots in the next round.
    """
    bits = max(len(keys).bit_length() + 1, 8)
    slots = np.empty(1 << bits, dtype=np.int32)
    numbers = np.empty(len(keys), dtype=np.int64)
    left = np.arange(len(keys), dtype=np.int32)
    mine = hashed = keys
    while len(left):
        slot = (hashed >> np.uint64(64 - bits)).astype(np.intp)
        slots[slot] = left
        found = slots[slot]
        same = keys[found] == mine
        numbers[left[same]] = found[same]
        other = ~same
        left, mine = left[other], mine[other]
        hashed = (hashed[other] ^ (hashed[other] >> np.uint64(29))) * _ODD
    return numbers


def _cliques(columns: int, width: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Return sets of columns: all of a width, or 200 random ones."""
    width = min(width, columns)
    if not width:
        return []
    if math.comb(columns, width) <= MOST_CLIQUES:
        return list(itertools.combinations(range(columns), width))
    chosen: set[tuple[int, ...]] = set()
    while len(chosen) < MOST_CLIQUES:
        picked = rng.choice(columns, width, replace=False)
        chosen.add(tuple(sorted(int(j) for j in picked)))
    return sorted(chosen)
