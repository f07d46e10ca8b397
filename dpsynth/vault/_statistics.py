"""What an audit counts: scores of records, one count a unit, checked as they are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dpsynth_accounting import InvalidRequest


class RecordScore(Protocol):
    """What the audit counts: a score of a record, made from the release alone.

    ``score`` maps an int32 array (records, columns) to a float array (records,). The score of a
    record may depend on that record and on what was published, never on the other records given
    with it, not even in its last bit: products of matrices round by the number of their rows, so
    add up columns one by one, or compare whole numbers. The vault checks a sample and refuses the
    answer if it differs; it cannot find every such score.
    """

    @property
    def name(self) -> str:
        """A public name."""

    @property
    def threshold(self) -> float:
        """The score from which a record counts, fixed before any private record is seen."""

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return one score a record; higher means more likely in the data."""


@dataclass(frozen=True)
class Statistic:
    """A record score as the audit counts it: one count a unit.

    Attributes:
        of: The score.
        first_row: Whether a unit counts by its first kept row alone, as a rate over records
            needs. Otherwise it counts if any of its rows reaches the threshold, as an attack
            needs, since all rows of a unit share one coin.
    """

    of: RecordScore
    first_row: bool = False


@dataclass(frozen=True)
class Counted:
    """How many units have a row whose score reaches a threshold, on either side of the coin.

    Attributes:
        name: The score's name.
        audit_in: Noisy count of audited units whose rows were used.
        held_out: Noisy count of audited units whose rows were held out.
        sigma: Standard deviation of the noise on each count, in units.
    """

    name: str
    audit_in: int
    held_out: int
    sigma: float


@dataclass(frozen=True)
class Audited:
    """The answer of an audit step.

    Attributes:
        counts: One entry a statistic.
        distance: Noisy L1 distance, summed over the marginals, in rows; None if none was asked.
        distance_sigma: Standard deviation of its noise, in rows.
    """

    counts: tuple[Counted, ...]
    distance: int | None
    distance_sigma: float


def units_over(
    statistic: Statistic,
    threshold: float,
    records: NDArray[np.int32],
    units: NDArray[np.int64],
) -> int:
    """Return how many units count for a statistic.

    Args:
        statistic: What is counted.
        threshold: The score's, as it was read before any private record was.
        records: int32 (records, columns).
        units: int64 (records,), the unit of each.

    Raises:
        InvalidRequest: The score is none; the error shows nothing of a record.
    """
    if statistic.first_row:
        _, first = np.unique(units, return_index=True)
        records, units = records[first], units[first]
    if not len(records):
        return 0
    scores = _scores(statistic.of, records)
    if scores is None:  # raised out here: an error of the score's own could hold a record
        raise InvalidRequest(
            f"The statistic {statistic.of.name!r} was to score private records.",
            "It did not give one number a record, from that record and the release alone.",
            "Mend the statistic, on records that are not private; nothing it found was shown.",
            touched=True,
        )
    return len(np.unique(units[scores >= threshold]))


def _scores(score: RecordScore, records: NDArray[np.int32]) -> NDArray[np.float64] | None:
    """Return the scores, or None if they are not one number a record that holds by itself."""
    # At most half of them: a score that mixes records must not meet the same ones again.
    some = max(1, min(32, len(records) // 2))
    probe = np.linspace(0, len(records) - 1, some).astype(np.int64)[::-1]
    try:
        scores = np.asarray(score.score(records))
        if scores.shape != (len(records),) or not np.issubdtype(scores.dtype, np.floating):
            return None
        again = np.asarray(score.score(records[probe]))
    except Exception:
        return None
    return scores if np.array_equal(again, scores[probe], equal_nan=True) else None
