"""Membership attacks on a released table: is this record one that it was made from?

A *record attack* is built from the release alone and scores a record by itself, so that noisy
counts of records over its threshold can be paid for and published. Distances are Gower's; an
attack by the distance to the release relative to a reference is the calibrated attack of Chen, Yu,
Zhang, Fritz 2020 (GAN-Leaks, section 4.4), and a threshold is judged at low false-positive rates
(Carlini et al. 2022, section IV). Rows near the release tell of copying; that none are near is no
measure of privacy (Yao, Krčo, Ganev, de Montjoye 2025).
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks._shared import index_of
from dpsynth.attacks.neighbours import Neighbours
from dpsynth.domain import Domain
from dpsynth_accounting import InvalidRequest

FALSE_POSITIVES = 0.01
"""Share of fresh rows that an attack's threshold is set to let through."""

CALIBRATION_ROWS = 2000
"""Rows of the release that a threshold is set by: 20 of them lie beyond it."""


@runtime_checkable
class RecordAttack(Protocol):
    """An attack that scores a record from that record and the release alone.

    The score of a record must not depend on the other records it is given with, not even in the
    last bit, and the threshold must be fixed before any record is seen: the price of publishing
    counts rests on both. The vault checks the first on a sample; ``tests/attacks`` holds a suite
    that checks both for any attack.
    """

    @property
    def name(self) -> str:
        """A public name."""

    @property
    def threshold(self) -> float:
        """The score from which a record counts as a hit; finite."""

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return a score a record: higher means more likely a member.

        Args:
            records: int32 (records, columns), coded by the release's domain.

        Returns:
            float64 (records,).
        """


Attack = RecordAttack
"""The protocol under its public name, ``dpsynth.Attack``."""


class ExactMatch:
    """Scores 1 if the record occurs in the release, else 0.

    Args:
        domain: What codes the release.
        release: int32 (rows, columns); not changed, not kept.

    Raises:
        InvalidRequest: The release has another number of columns than the domain.
    """

    name = "exact match"
    threshold = 0.5

    def __init__(self, domain: Domain, release: NDArray[np.int32]) -> None:
        self._columns = len(domain.names)
        self._rows = frozenset(self._bytes(release))

    @classmethod
    def build(
        cls, domain: Domain, release: NDArray[np.int32], *, rng: np.random.Generator
    ) -> ExactMatch:
        """Return the attack on a release; nothing about it is random."""
        del rng
        return cls(domain, release)

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return 1.0 or 0.0 a record, float64 (records,)."""
        found = [row in self._rows for row in self._bytes(records)]
        return np.array(found, dtype=np.float64)

    def _bytes(self, rows: NDArray[np.int32]) -> list[bytes]:
        """Return each row as the bytes of its codes: equal if and only if the rows are."""
        if rows.ndim != 2 or rows.shape[1] != self._columns:
            raise InvalidRequest(
                "Coded rows were to be looked up over another number of columns than they have.",
                f"The domain has {self._columns} columns.",
                "Give an int32 array (rows, columns) coded by this domain.",
            )
        packed = np.ascontiguousarray(rows, dtype=np.int32)
        if not packed.size:
            return [b""] * len(packed)
        width = packed.shape[1] * packed.itemsize
        listed: list[bytes] = packed.view(f"V{width}").ravel().tolist()
        return listed


class NearestDistance:
    """Scores minus Gower's distance to the nearest row of the release.

    The threshold is set so that about 1 % of the release's own rows would reach it, each measured
    against the others. On coarse tables ties can let far more through: the held-out units show
    how many.

    Args:
        domain: What codes the release.
        release: int32 (rows, columns); not changed.
        rng: Draws the rows that set the threshold.

    Attributes:
        threshold: Fixed from the release; a release of fewer than two rows leaves exact copies.
    """

    name = "nearest distance"

    def __init__(
        self, domain: Domain, release: NDArray[np.int32], *, rng: np.random.Generator
    ) -> None:
        self._index = index_of(release, domain)
        own = _left_out(self._index, _sample(release, CALIBRATION_ROWS, rng))
        self.threshold = _threshold(-own) if len(release) > 1 else 0.0

    @classmethod
    def build(
        cls, domain: Domain, release: NDArray[np.int32], *, rng: np.random.Generator
    ) -> NearestDistance:
        """Return the attack on a release."""
        return cls(domain, release, rng=rng)

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return scores from -1 to 0, float64 (records,); just under -1 on an empty release."""
        return -_gower(self._index, records)


class DistanceRatio:
    """Scores the distance to a reference over the distance to the release.

    A record that is near the release only because it is common is near the reference too; one that
    the release copies is near the release alone. The reference is a fresh sample of the model that
    made the release, or else rows resampled from the release, each column by itself.

    Args:
        domain: What codes the release.
        release: int32 (rows, columns); not changed.
        rng: Draws the rows that set the threshold and, without a reference, the reference.
        reference: int32 (rows, columns), independent of private rows given the model; not changed.

    Attributes:
        threshold: Reached by about 1 % of the release's own rows, each measured against the
            others: they are a fresh sample of whatever made it. Out of reach if there are fewer
            than two.
    """

    name = "distance ratio"

    def __init__(
        self,
        domain: Domain,
        release: NDArray[np.int32],
        *,
        rng: np.random.Generator,
        reference: NDArray[np.int32] | None = None,
    ) -> None:
        self._softening = softening(domain)
        near = _resampled(release, rng) if reference is None else reference
        self._reference = index_of(near, domain)
        self._release = index_of(release, domain)
        rows = _sample(release, CALIBRATION_ROWS, rng)
        own = self._ratio(_gower(self._reference, rows), _left_out(self._release, rows))
        # No distance exceeds 2, so no ratio reaches this: without evidence, nobody is hit.
        self.threshold = _threshold(own) if len(release) > 1 else 3 / self._softening

    @classmethod
    def build(
        cls,
        domain: Domain,
        release: NDArray[np.int32],
        *,
        rng: np.random.Generator,
        reference: NDArray[np.int32] | None = None,
    ) -> DistanceRatio:
        """Return the attack on a release."""
        return cls(domain, release, rng=rng, reference=reference)

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return ratios of at least 0, float64 (records,)."""
        return self._ratio(_gower(self._reference, records), _gower(self._release, records))

    def _ratio(
        self, reference: NDArray[np.float64], release: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return reference / (release + self._softening)


def softening(domain: Domain) -> float:
    """Return what is added to a distance before dividing by it: 0.001 of one unlike column.

    It keeps ratios finite, and copies of rare records above chance matches of common ones. The
    smaller, the better copies and near copies stood out, on UCI Adult and on the tests' recipe.
    """
    return 0.001 / max(len(domain.names), 1)


def _gower(index: Neighbours, records: NDArray[np.int32]) -> NDArray[np.float64]:
    nearest: NDArray[np.float64] = index.distances(records)[:, 0] / max(index.gower.unit, 1)
    return nearest


def _left_out(index: Neighbours, rows: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the distance of rows of the index to the nearest of its other rows."""
    # Each row is its own nearest neighbour, so the second nearest is the nearest of the others.
    second: NDArray[np.float64] = index.distances(rows, 2)[:, 1] / max(index.gower.unit, 1)
    return second


def _sample(rows: NDArray[np.int32], most: int, rng: np.random.Generator) -> NDArray[np.int32]:
    if len(rows) <= most:
        return rows
    return rows[np.sort(rng.choice(len(rows), most, replace=False))]


def _resampled(rows: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
    """Return as many rows with each column drawn by itself: the product of the one-way tables."""
    drawn = np.empty_like(rows)
    for j in range(rows.shape[1]):
        drawn[:, j] = rng.permutation(rows[:, j])
    return drawn


def _threshold(scores: NDArray[np.float64]) -> float:
    """Return the least score that at most 1 % of the given scores reach, or else the greatest."""
    descending = np.sort(scores)[::-1]
    beyond = math.floor(FALSE_POSITIVES * len(descending))
    # Ties at the cut are left out together: the value after them is the next greater one.
    greater = descending[descending > descending[beyond]]
    return float(greater[-1] if len(greater) else descending[0])
