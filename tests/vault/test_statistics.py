"""What an audit counts: one count a unit, of scores that hold by themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from dpsynth.vault._statistics import RecordScore, Statistic, units_over
from dpsynth_accounting import InvalidRequest


@dataclass(frozen=True)
class First:
    """A score of a record alone: its first code."""

    name: str = "first"
    threshold: float = 1.0

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        return records[:, 0].astype(np.float64)


@dataclass(frozen=True)
class AboveMean(First):
    """A twin that mixes records: how far each is above the mean of all."""

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        roots = np.sqrt(records[:, 0])
        return np.asarray(roots - roots.mean())


@dataclass(frozen=True)
class Among(First):
    """A twin that mixes records: how many records there are."""

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        return np.full(len(records), float(len(records)))


def codes(rows: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    rng = np.random.default_rng(rows)
    records = rng.permutation(rows).astype(np.int32)[:, np.newaxis]
    return records, np.arange(rows) // 2


@pytest.mark.parametrize("rows", [2, 3, 5, 8, 32, 33, 64, 1000])
@pytest.mark.parametrize("mixed", [AboveMean(), Among()], ids=["mean", "number"])
def test_a_score_that_mixes_records_is_refused(mixed: RecordScore, rows: int) -> None:
    """With few records too: all of them once more would show no difference."""
    with pytest.raises(InvalidRequest, match="from that record and the release alone"):
        units_over(Statistic(mixed), 1.0, *codes(rows))


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 33, 1000])
def test_a_score_of_a_record_alone_is_counted_once_a_unit(rows: int) -> None:
    records, units = codes(rows)
    assert units_over(Statistic(First()), 1.0, records, units) == len(
        set(units[records[:, 0] >= 1].tolist())
    )
