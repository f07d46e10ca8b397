"""Files: a record reads as it would by itself, and a text is held once however often it occurs."""

from __future__ import annotations

import csv
import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpsynth._values import text_of
from dpsynth.vault import _files

RELAXED = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}

cells = st.text(st.sampled_from('ab1 ,";\n\r\té\ufeff'), max_size=4)
records = st.lists(st.lists(cells, min_size=1, max_size=5), max_size=9)


def texts(frame: pd.DataFrame) -> list[list[str]]:
    """The records of a table read from a CSV; "" for what is missing."""
    columns = [[text or "" for text in text_of(frame[name])] for name in frame.columns]
    return [list(record) for record in zip(*columns, strict=True)]


def write(path: Path, table: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["x", "y", "z"], *table])


@settings(max_examples=60, **RELAXED)
@given(records)
def test_a_csv_reads_as_it_was_written(tmp_path: Path, table: list[list[str]]) -> None:
    """Short records lack their last cells, long ones lose theirs; batches leave no trace."""
    path = tmp_path / "table.csv"
    write(path, table)
    kept = [each for each in table if len(each) > 1 or not each[0].isspace()]  # no blank lines
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_files, "_BATCH", 3)
        found = _files.file_table(path, ("z", "x"))
    assert texts(found) == [[z, x] for x, _, z, *_ in ([*each, "", ""] for each in kept)]


def test_a_csv_column_holds_each_text_once(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", [["a", "1", ""], ["b", "1", ""]] * 5000)
    frame = _files.file_table(tmp_path / "t.csv", ("x", "y", "z"))
    assert len(frame) == 10_000
    for name, distinct in (("x", 2), ("y", 1), ("z", 1)):
        assert len(pa.array(frame[name].array).dictionary) <= distinct


def test_the_end_of_a_csv_is_no_record(tmp_path: Path) -> None:
    """What is put behind the last record, to see that no quote is open, is not read as one."""
    write(tmp_path / "t.csv", [["end", "end", "a"], ["end", "end"]])
    found = texts(_files.file_table(tmp_path / "t.csv", ("x", "y", "z")))
    assert found == [["end", "end", "a"], ["end", "end", ""]]


@pytest.mark.parametrize("rows", [0, 1])
def test_tiny_csvs(tmp_path: Path, rows: int) -> None:
    write(tmp_path / "t.csv", [["a", "b", "c"]] * rows)
    frame = _files.file_table(tmp_path / "t.csv", ("y",))
    assert texts(frame) == [["b"]] * rows


# -- Parquet -------------------------------------------------------------------------------------

DAY = dt.date(2024, 2, 29)
NOON = dt.datetime(2024, 2, 29, 12)

ARRAYS: dict[str, pa.Array] = {
    "integers": pa.array([2**53 + 1, 2**63 - 1, -5, 2**53 + 1]),
    "integers and none": pa.array([2**53 + 1, None, 2**63 - 1, 2**53 + 1]),
    "unsigned": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "truth": pa.array([True, False, True]),
    "truth and none": pa.array([True, None, False]),
    "reals": pa.array([1.0, None, 0.1, float("nan"), float("inf"), -0.0]),
    "halves": pa.array(np.array([1.0, 0.1], dtype=np.float16)),
    "texts": pa.array(["a", None, "", "a\0b", "a\0c", "a", "é", "1.0"]),
    "large texts": pa.array(["a", None, "b"], pa.large_string()),
    "bytes": pa.array([b"a", None, b"\xff", b"a"]),
    "large bytes": pa.array([b"a", None, b"\xff"], pa.large_binary()),
    "pairs of bytes": pa.array([b"ab", None], pa.binary(2)),
    "not UTF-8": pa.array([b"a", b"\xff", None]).view(pa.string()),
    "decimals": pa.array([Decimal("1.10"), None, Decimal("2.00")]),
    "days": pa.array([DAY, None, DAY]),
    "days beyond": pa.array([DAY.toordinal(), 10**7, -(10**6)], pa.int32()).cast(pa.date32()),
    "milliseconds of days": pa.array([86_400_000 * 19_782, None], pa.int64()).cast(pa.date64()),
    "moments": pa.array([NOON, None, dt.datetime(1, 1, 2)], pa.timestamp("us")),
    "moments of a zone": pa.array([NOON, None], pa.timestamp("s", "America/New_York")),
    "moments beyond": pa.array([10**13, 0, None], pa.int64()).cast(pa.timestamp("s")),
    "times": pa.array([dt.time(1, 2), None, dt.time(23, 59, 59)], pa.time32("s")),
    "times in ns": pa.array([3_600_000_000_001, None], pa.int64()).cast(pa.time64("ns")),
    "durations": pa.array([dt.timedelta(1), None], pa.duration("s")),
    "long durations": pa.array([2**62, None, 1], pa.int64()).cast(pa.duration("s")),
    "lists": pa.array([[1, 2], None, []]),
    "records": pa.array([{"a": 1}, None]),
    "nothing": pa.nulls(3),
    "dictionary": pa.array(["b", None, "a", "b"]).dictionary_encode(),
    "dictionary of numbers": pa.array([2**53 + 1, None, 3]).dictionary_encode(),
    "dictionary with none": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None]), pa.array(["a", None])
    ),
}


def read(array: pa.Array) -> list[str | None]:
    return text_of(_files._series(pa.chunked_array([array]))).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ARRAYS)
def test_a_parquet_value_reads_as_it_would_alone(name: str) -> None:
    array = ARRAYS[name]
    alone = [read(array[place : place + 1])[0] for place in range(len(array))]
    assert read(array) == alone
    order = pa.array(range(len(array)))[::-1]
    assert read(array.take(order)) == alone[::-1]
    chunks = pa.chunked_array([array[:1], array[1:1], array[1:]])
    assert text_of(_files._series(chunks)).tolist() == alone
    assert text_of(_files._series(pa.chunked_array([], type=array.type))).tolist() == []


def test_parquet_values_by_hand() -> None:
    whole = [str(2**53 + 1), None, str(2**63 - 1), str(2**53 + 1)]
    assert read(ARRAYS["integers and none"]) == whole
    assert read(ARRAYS["not UTF-8"]) == ["a", "\\xff", None]
    assert read(ARRAYS["days"]) == ["2024-02-29", None, "2024-02-29"]
    assert read(ARRAYS["moments of a zone"])[0] == "2024-02-29 12:00:00+00:00"
    assert read(ARRAYS["times"]) == ["01:02:00", None, "23:59:59"]
    assert read(ARRAYS["durations"]) == ["1 day, 0:00:00", None]


@pytest.mark.parametrize("name", ["integers and none", "unsigned"])
def test_a_column_left_to_arrow_is_flagged(name: str) -> None:
    """The twin: beside a missing value, whole numbers become floats and lose their digits."""
    array = ARRAYS[name]

    def left(part: pa.Array) -> list[str | None]:
        return text_of(pa.chunked_array([part]).to_pandas()).tolist()  # type: ignore[no-any-return]

    alone = [left(array[place : place + 1])[0] for place in range(len(array))]
    assert left(array) != alone
    assert read(array) == [read(array[place : place + 1])[0] for place in range(len(array))]


def test_a_parquet_file_is_read_by_column(tmp_path: Path) -> None:
    texts = ARRAYS["texts"][:3]
    table: dict[str, Any] = {"x": texts, "y": ARRAYS["unsigned"], "z": ["p", "q", "r"]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    frame = _files.file_table(tmp_path / "t.parquet", ("z", "y"))
    assert list(frame.columns) == ["z", "y"]
    assert text_of(frame["y"]).tolist() == [str(2**64 - 1), None, "0"]
    assert text_of(frame["z"]).tolist() == ["p", "q", "r"]
