"""Where private rows live: read once, cut to the unit's bound, coded, and never handed out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth._values import text_of
from dpsynth.domain import Domain
from dpsynth.schema import Schema
from dpsynth.vault import _bound
from dpsynth.vault._files import file_columns, file_table
from dpsynth_accounting import InvalidRequest

Source = pd.DataFrame | str | os.PathLike[str]
"""A table in memory, or the path of a CSV or Parquet file."""


@dataclass(frozen=True, repr=False)
class Kept:
    """The rows that may be used, before they are coded.

    Attributes:
        frame: One row a kept row.
        units: int64, the unit of each kept row, numbered from 0.
        roles: uint8, the role of each kept row (see :mod:`dpsynth.vault._bound`).
    """

    frame: pd.DataFrame
    units: NDArray[np.int64]
    roles: NDArray[np.uint8]


@dataclass(frozen=True, repr=False)
class Coded:
    """The rows that may be used, as codes of a domain; fields as in :class:`Kept`."""

    codes: dict[str, NDArray[np.int32]]
    units: NDArray[np.int64]
    roles: NDArray[np.uint8]

    def part(self, *roles: int) -> dict[str, NDArray[np.int32]]:
        """Return the codes of the rows in any of the roles."""
        chosen = np.isin(self.roles, roles)
        return {name: codes[chosen] for name, codes in self.codes.items()}

    def records(self, domain: Domain, role: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the rows of one role as an int32 array (rows, columns), with their units."""
        chosen = self.roles == role
        columns = [self.codes[name][chosen] for name in domain.names]
        return np.column_stack(columns) if columns else _EMPTY, self.units[chosen]


_EMPTY = np.empty((0, 0), dtype=np.int32)


def column_names(source: Source) -> list[str]:
    """Return the names of a source's columns: its public form, without reading a row's values.

    Raises:
        InvalidRequest: The file is missing, is no table, is not UTF-8, or repeats a name.
    """
    if isinstance(source, pd.DataFrame):
        names = [str(name) for name in source.columns]
    else:
        names = file_columns(Path(source))
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidRequest(
            "A table was to be read that names a column twice.",
            f"Repeated: {', '.join(repeated)}.",
            "Rename one of them.",
        )
    return names


def require_form(source: Source, schema: Schema, unit: _bound.Unit) -> None:
    """Refuse a source whose public form does not fit the schema: its columns' names.

    Raises:
        InvalidRequest: A column of the schema or of the unit is missing, or the file is no table.
    """
    names = set(column_names(source))
    wanted = list(needed_columns(schema, unit))
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InvalidRequest(
            f"A table without the column{'s' * (len(missing) > 1)} "
            f"{', '.join(map(repr, missing))} was given.",
            "The schema or the unit of privacy names them.",
            f"The table has: {', '.join(map(repr, sorted(names)))}.",
        )


def needed_columns(schema: Schema, unit: _bound.Unit) -> tuple[str, ...]:
    """Return the columns to read: the modelled ones and the one that identifies persons."""
    if isinstance(unit, _bound.Person) and unit.column not in schema.modelled:
        return (*schema.modelled, unit.column)
    return tuple(schema.modelled)


def read(source: Source, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the named columns of a source, row by row as they are."""
    if isinstance(source, pd.DataFrame):
        named = source.set_axis([str(name) for name in source.columns], axis=1)
        return named.loc[:, list(columns)].reset_index(drop=True)
    return file_table(Path(source), columns)


def load_table(path: str | os.PathLike[str], columns: tuple[str, ...]) -> pd.DataFrame:
    """Return a table that is no vault's: for tools that work on tables their user holds.

    Raises:
        InvalidRequest: The file is no table, or lacks a column.
    """
    names = column_names(path)
    missing = [name for name in columns if name not in names]
    if missing:
        raise InvalidRequest(
            f"The table {os.fspath(path)} was to be read.",
            f"It lacks the columns {', '.join(map(repr, missing))}.",
            "Give a table with all the columns of the schema.",
        )
    return read(path, columns)


def keep(
    frame: pd.DataFrame, unit: _bound.Unit, *, share: float, rows_key: bytes, coins_key: bytes
) -> Kept:
    """Cut a table to the unit's bound and give every unit its role."""
    texts = [text_of(frame[name]) for name in frame.columns]
    match unit:
        case _bound.Row():
            roles = _bound.roles(_bound.words_of_rows(texts, coins_key), share)
            return Kept(frame, np.arange(len(frame), dtype=np.int64), roles)
        case _bound.Person(column, rows):
            number: dict[str, int] = {}
            ids = texts[list(frame.columns).index(column)]
            units = np.fromiter(
                (-1 if text is None else number.setdefault(text, len(number)) for text in ids),
                dtype=np.int64,
                count=len(ids),
            )
            chosen = _bound.keep_rows(units, rows, _bound.words_of_rows(texts, rows_key))
            coins = _bound.words_of_persons(list(number), coins_key)
            kept = units[chosen]
            return Kept(
                frame.iloc[chosen].reset_index(drop=True), kept, _bound.roles(coins, share)[kept]
            )
