"""Reading tables from files, one record at a time: what a record reads as depends on it alone.

A reader that guesses from a whole column (a type, a number of cells, a precision) lets one record
change what all others read as, and no bound on a unit would hold. So a CSV's cells are texts, cut
at commas by the rules of :mod:`csv` and nothing else, and the columns of a Parquet file keep their
declared types, converted value by value.

Texts are numbered while they are read: a column holds each of its distinct texts once, and a table
of millions of rows is little more than one small number a cell.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pandas as pd

from dpsynth._arrow import numbered
from dpsynth_accounting import InvalidRequest

_LONGEST = 2**31 - 1  # characters of a cell: as many as every platform's csv module can count
_END = "end,end"  # one cell if a quote is still open, else two
_BATCH = 1 << 9  # records taken apart at a time: few enough to stay in the processor's cache


def is_parquet(path: Path) -> bool:
    """Return whether a file is taken for Parquet: by its name."""
    return path.suffix.lower() in {".parquet", ".pq"}


def file_columns(path: Path) -> list[str]:
    """Return the names of a file's columns, after checking that it is a table at all.

    Raises:
        InvalidRequest: It is missing, cannot be read, is no UTF-8 text or no Parquet, has no
            header, or has a quote that never closes. The error shows nothing of the content.
    """
    if not path.is_file():
        raise InvalidRequest(
            f"The table {path} was to be read.",
            "There is no such file.",
            "Give the path of a CSV or Parquet file.",
        )
    names, fault = _parquet_names(path) if is_parquet(path) else _csv_names(path)
    if fault:  # raised out here: inside, the error that was met would hang on to it, with its bytes
        raise InvalidRequest(
            f"The table {path} was to be read.",
            fault,
            "Save it as CSV in UTF-8 with a header line, or as Parquet.",
        )
    return names


def file_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the named columns of a file; a CSV's cells are all text, "" for missing.

    A CSV record with too few cells lacks the last ones; what lies beyond the header is ignored.
    """
    return _parquet_table(path, columns) if is_parquet(path) else _csv_table(path, columns)


# -- CSV -----------------------------------------------------------------------------------------


def _csv_names(path: Path) -> tuple[list[str], str]:
    """Return the header, and what is wrong with the file as a whole or ""."""
    if fault := _text_fault(path):
        return [], fault
    with _any_length(), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(chain(file, [_END]))
        header = next(filter(_is_record, reader))
        if header == _END.split(","):
            return [], "It has no header line."
        last = deque(reader, maxlen=1)
    if not last or last[0] != _END.split(","):
        return [], "A quote in it never closes."
    return header, ""


def _text_fault(path: Path) -> str:
    """Return why a file is no UTF-8 text, or ""."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                if b"\0" in chunk:
                    return "It holds NUL bytes, so it is no UTF-8 text."
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "Its bytes are not UTF-8 text."
    except OSError as error:
        return f"It cannot be read ({error.strerror})."
    return ""


def _csv_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    import pyarrow

    parts: list[list[Any]] = [[] for _ in columns]
    with _any_length(), path.open(encoding="utf-8-sig", newline="") as file:
        records = _records(file)
        header = next(records)
        wanted = [header.index(name) for name in columns]
        most = max(wanted, default=-1) + 1
        while batch := list(islice(records, _BATCH)):
            for record in batch:
                if len(record) < most:
                    record.extend([""] * (most - len(record)))
            cells = list(zip(*batch, strict=False))
            for place, into in zip(wanted, parts, strict=True):
                into.append(pyarrow.array(cells[place], pyarrow.large_string()))
    frame = {}
    for name in columns:
        column = pyarrow.chunked_array(parts.pop(0))
        frame[name] = numbered(column[:-1]) if len(column) > 1 else pd.Series(dtype=object)
    return pd.DataFrame(frame, columns=list(columns))  # without the end


def _records(file: Iterator[str]) -> Iterator[list[str]]:
    """Return the records of a CSV that are not blank, the header first, then the end."""
    return filter(_is_record, csv.reader(chain(file, [_END])))


def _is_record(cells: list[str]) -> bool:
    return len(cells) > 1 or (bool(cells) and (not cells[0] or not cells[0].isspace()))


@contextlib.contextmanager
def _any_length() -> Iterator[None]:
    """Lift the csv module's limit on a cell: to meet it would be an answer about a record."""
    before = csv.field_size_limit(_LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


# -- Parquet -------------------------------------------------------------------------------------


def _parquet_names(path: Path) -> tuple[list[str], str]:
    """Return the names of the columns, and what is wrong with the file as a whole or ""."""
    import pyarrow
    import pyarrow.parquet

    try:
        return [str(name) for name in pyarrow.parquet.read_schema(path).names], ""
    except (pyarrow.ArrowException, OSError):
        return [], "It is not a Parquet file."


def _parquet_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:  # a column at a time, to hold one at most
        frame = {name: _series(file.read(columns=[name]).column(name)) for name in columns}
    return pd.DataFrame(frame, columns=list(columns))


def _series(column: Any) -> pd.Series:
    """Return an Arrow column value by value: no value's form depends on another's presence."""
    import pyarrow
    from pyarrow import types

    if not len(column):
        return pd.Series(dtype=object)
    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_timestamp(kind):  # in UTC, whatever zone it names; naive ones stay naive
        return _as_it_is(column.cast(pyarrow.timestamp(kind.unit, kind.tz and "UTC")))
    if types.is_floating(kind) or (types.is_integer(kind) and not column.null_count):
        return _as_it_is(column)
    # Whole numbers beside missing ones would turn into floats there, and lose their last digits.
    if types.is_date(kind):  # Python has no dates beyond the year 9999
        column = column.cast(pyarrow.date32(), safe=False).cast(pyarrow.string())
    elif types.is_string(kind) or types.is_large_string(kind):
        column = _texts(column)
    elif not (
        types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_decimal(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    ):
        return pd.Series([_plain(scalar) for scalar in column], dtype=object)
    return numbered(column)


def _as_it_is(column: Any) -> pd.Series:
    found: pd.Series = column.to_pandas()
    return found


def _texts(column: Any) -> Any:
    """Return a column of texts, as bytes if not all of them are UTF-8; they read alike."""
    import pyarrow

    try:
        column.validate(full=True)
    except pyarrow.ArrowInvalid:
        return column.cast(pyarrow.large_binary())
    return column


def _plain(scalar: Any) -> object:
    """Return a value as Python has it, or its type's name where Python has none."""
    try:
        return scalar.as_py()
    except Exception:  # out of Python's range, or not UTF-8 inside a list
        return f"({scalar.type})"
