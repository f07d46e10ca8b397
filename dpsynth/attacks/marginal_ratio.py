"""Membership by marginals: cells that are more frequent in the release than in a reference."""

from __future__ import annotations

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
        self._ratios = [
            (clique, *self._table(clique, release, reference))
            for clique in _cliques(self._columns, self.width, rng)
        ]

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
        for clique, cells, ratios in self._ratios:
            if len(cells):
                wanted = _cells(clique, records)
                place = np.minimum(np.searchsorted(cells, wanted), len(cells) - 1)
                total += np.where(cells[place] == wanted, ratios[place], 0.0)
        return total / max(len(self._ratios), 1)

    @staticmethod
    def _table(
        clique: tuple[int, ...], release: Rows, reference: Rows
    ) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        parts = [_cells(clique, rows) for rows in (release, reference)]
        cells, numbers = np.unique(np.concatenate(parts), return_inverse=True)
        cut = len(release)
        shares = [
            np.bincount(each, minlength=len(cells)) * (10_000 / max(len(each), 1))
            for each in (numbers[:cut], numbers[cut:])
        ]
        return cells, np.log((shares[0] + 0.5) / (shares[1] + 0.5))


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


def _cells(clique: tuple[int, ...], rows: Rows) -> NDArray[np.uint64]:
    """Return a number for each row's cell; two cells share one with a chance near 2**-64."""
    cells = np.zeros(len(rows), dtype=np.uint64)
    for j in clique:
        cells = (cells + rows[:, j].astype(np.uint64) + np.uint64(1)) * _ODD
        cells ^= cells >> np.uint64(32)
    return cells


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
