"""Reading tables from files, one record at a time: what a record reads as depends on it alone.

A reader that guesses from a whole column (a type, a number of cells, a precision) lets one record
change what all others read as, and no bound on a unit would hold. So a CSV's cells are texts, cut
at commas by the rules of :mod:`csv` and nothing else, and the columns of a Parquet file keep their
declared types, converted value by value.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from dpsynth_accounting import InvalidRequest

_LONGEST = 2**31 - 1  # characters of a cell: as many as every platform's csv module can count
_END = "end,end"  # one cell if a quote is still open, else two


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
        records = _records(file)
        header = next(records)
        if header == _END.split(","):
            return [], "It has no header line."
        last = deque(records, maxlen=1)
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
    pool: dict[str, str] = {}  # equal cells share one text
    cells: list[list[str]] = [[] for _ in columns]
    with _any_length(), path.open(encoding="utf-8-sig", newline="") as file:
        records = _records(file)
        header = next(records)
        wanted = [(header.index(name), into) for name, into in zip(columns, cells, strict=True)]
        for record in records:
            record.extend([""] * (len(header) - len(record)))
            for place, into in wanted:
                into.append(pool.setdefault(record[place], record[place]))
    frame = {
        name: pd.Series(texts[:-1], dtype=object)  # without the end
        for name, texts in zip(columns, cells, strict=True)
    }
    return pd.DataFrame(frame, columns=list(columns))


def _records(file: Iterator[str]) -> Iterator[list[str]]:
    """Yield the records of a CSV that are not blank, the header first, then the end."""
    for record in csv.reader(chain(file, [_END])):
        if len(record) > 1 or (record and (not record[0] or not record[0].isspace())):
            yield record


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

    with pyarrow.parquet.ParquetFile(path) as file:
        table = file.read(columns=list(columns))
    return pd.DataFrame({name: _series(table.column(name)) for name in columns})


def _series(column: Any) -> pd.Series:
    """Return an Arrow column value by value: no value's form depends on another's presence."""
    import pyarrow
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if types.is_date(kind):  # Python has no dates beyond the year 9999
        column = column.cast(pyarrow.date32(), safe=False).cast(pyarrow.string())
    elif types.is_timestamp(kind):  # in UTC, whatever zone it names
        column = column.cast(pyarrow.timestamp(kind.unit))
    elif types.is_string(kind) or types.is_large_string(kind):
        column = _texts(column)
    elif not (types.is_primitive(kind) or types.is_decimal(kind) or types.is_binary(kind)):
        return pd.Series([_plain(scalar) for scalar in column], dtype=object)
    # Whole numbers beside missing ones would turn into floats, and lose their last digits.
    found: pd.Series = column.to_pandas(integer_object_nulls=True)
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
