"""Membership by density: how much likelier a record is under the release than under a reference."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks.reference import refused, require_columns
from dpsynth.attacks.targets import Rows
from dpsynth.domain import Domain

MOST_CODES = 64
"""About how many codes of a column a tree of pairs tells apart."""


class DensityRatio:
    """Scores the log density of the release over that of the reference, each a tree of pairs.

    The density ratio of van Breugel, Sun, Qian, van der Schaar 2023 (DOMIAS, section 3), with the
    best tree of pairs (Chow, Liu 1968) as the density: kernels in many columns of codes tell
    nothing apart.

    Args:
        domain: What codes all rows.
        release: int32 (rows, columns); not changed.
        reference: int32 (rows, columns), rows that were not audited; not changed.
        rng: Not used; nothing about it is random.

    Raises:
        InvalidRequest: A table has another number of columns than the domain.
    """

    name = "density ratio"

    def __init__(
        self, domain: Domain, release: Rows, *, reference: Rows, rng: np.random.Generator
    ) -> None:
        del rng
        require_columns(domain, release, reference)
        self._coarse = [_coarse(domain, name) for name in domain.names]
        self._release, self._reference = (
            _Tree(self._brought(rows), [int(m.max(initial=0)) + 1 for m in self._coarse])
            for rows in (release, reference)
        )

    @classmethod
    def build(
        cls, domain: Domain, release: Rows, *, reference: Rows, rng: np.random.Generator
    ) -> DensityRatio:
        """Return the attack on a release."""
        return cls(domain, release, reference=reference, rng=rng)

    def score(self, records: Rows) -> NDArray[np.float64]:
        """Return log ratios, float64 (records,)."""
        if records.ndim != 2 or records.shape[1] != len(self._coarse):
            raise refused(len(self._coarse))
        brought = self._brought(records)
        return self._release.log_density(brought) - self._reference.log_density(brought)

    def _brought(self, rows: Rows) -> NDArray[np.int64]:
        """Return the rows as coarse codes, int64 (columns, rows)."""
        brought = np.empty((len(self._coarse), len(rows)), dtype=np.int64)
        for j, table in enumerate(self._coarse):
            brought[j] = table[rows[:, j]]
        return brought


class _Tree:
    """The best tree of pairs of some rows, with half a row added to every cell."""

    def __init__(self, rows: NDArray[np.int64], sizes: list[int]) -> None:
        self._logs: list[tuple[int, int, NDArray[np.float64]]] = []
        counts = {
            (a, b): np.bincount(
                rows[a] * sizes[b] + rows[b], minlength=sizes[a] * sizes[b]
            ).reshape(sizes[a], sizes[b])
            for a, b in itertools.combinations(range(len(sizes)), 2)
        }
        gain = {pair: _information(table) for pair, table in counts.items()}
        joined = {0} if sizes else set()
        self._root = _smoothed(np.bincount(rows[0], minlength=sizes[0])) if sizes else np.zeros(1)
        while len(joined) < len(sizes):
            known, new = max(
                ((a, b) for a in sorted(joined) for b in range(len(sizes)) if b not in joined),
                key=lambda pair: gain[min(pair), max(pair)],
            )
            table = counts[min(known, new), max(known, new)]
            table = table if known < new else table.T
            both = table + 0.5 / table.size
            self._logs.append((known, new, np.log(both / both.sum(axis=1, keepdims=True))))
            joined.add(new)

    def log_density(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        total = self._root[rows[0]].copy() if len(rows) else np.zeros(rows.shape[1])
        for known, new, logs in self._logs:
            total += logs[rows[known], rows[new]]
        return total


def _coarse(domain: Domain, name: str) -> NDArray[np.int64]:
    """Return a map of a column's codes to about 64: runs of an order, else remainders."""
    code = np.arange(domain.size(name), dtype=np.int64)
    ordered = domain.ordered(name)
    if len(code) <= MOST_CODES:
        return code
    if not ordered:
        return code % MOST_CODES
    return np.where(code < ordered, code * MOST_CODES // ordered, MOST_CODES + code - ordered)


def _smoothed(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    raised = counts + 0.5 / len(counts)
    logs: NDArray[np.float64] = np.log(raised / raised.sum())
    return logs


def _information(table: NDArray[np.int64]) -> float:
    """Return the mutual information of a table of counts, in nats."""
    total = max(int(table.sum()), 1)
    joint = table / total
    product = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / product[seen])).sum())
