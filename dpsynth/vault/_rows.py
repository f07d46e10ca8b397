"""Where private rows live: read once, cut to the unit's bound, coded, and never handed out."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth._arrow import column_of
from dpsynth._values import distinct_texts, is_numbered
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
        holdout: The rows of a table that its owner kept out, if there is one; all held out.
    """

    frame: pd.DataFrame
    units: NDArray[np.int64]
    roles: NDArray[np.uint8]
    holdout: Kept | None = None

    @property
    def tables(self) -> tuple[Kept, ...]:
        """The table itself and the holdout, if there is one."""
        return (self,) if self.holdout is None else (self, self.holdout)

    def coded(self, domain: Domain) -> Coded:
        """Return all rows as codes of a domain, those of the holdout last."""
        parts = [domain.encode(table.frame) for table in self.tables]
        return Coded(
            {name: np.concatenate([part[name] for part in parts]) for name in domain.names},
            np.concatenate([table.units for table in self.tables]),
            np.concatenate([table.roles for table in self.tables]),
        )


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

    def records(self, domain: Domain, *roles: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the rows of any of the roles as int32 (rows, columns), and the unit of each."""
        chosen = np.isin(self.roles, roles)
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


def in_memory(source: Source, schema: Schema, unit: _bound.Unit) -> Source:
    """Return a frame's copy, after a look at its form; a path as it is."""
    if not is_frame(source):
        return source
    require_form(source, schema, unit)
    return read(source, needed_columns(schema, unit)).copy()


def is_frame(source: Source) -> bool:
    return not isinstance(source, str) and hasattr(source, "columns")


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
    frame: pd.DataFrame,
    unit: _bound.Unit,
    *,
    share: float,
    rows_key: bytes,
    coins_key: bytes,
    holdout: pd.DataFrame | None = None,
) -> Kept:
    """Cut a table to the unit's bound and give every unit its role.

    Args:
        frame: The table.
        unit: The unit of privacy.
        share: Probability that a unit is audited.
        rows_key: Secret key of the choice of a person's rows.
        coins_key: Secret key of the roles.
        holdout: A table that was kept out by its owner: then no unit of the first one is held out.
    """
    frame, columns = _numbered(frame)
    coin = holdout is None
    match unit:
        case _bound.Row():
            roles = _bound.roles(_bound.words_of_rows(columns, coins_key), share, coin=coin)
            kept = Kept(frame, np.arange(len(frame), dtype=np.int64), roles)
        case _bound.Person(column, _):
            roles = _bound.roles(
                _bound.words_of_persons(columns[column][1], coins_key), share, coin=coin
            )
            frame, units = _cut(frame, columns, unit, rows_key)
            kept = Kept(frame, units, roles[units])
    if holdout is None:
        return kept
    return replace(kept, holdout=_apart(holdout, kept, unit, rows_key))


def _apart(frame: pd.DataFrame, main: Kept, unit: _bound.Unit, rows_key: bytes) -> Kept:
    """Return the rows of a holdout, without the persons that the table itself holds."""
    match unit:
        case _bound.Row():
            units = np.arange(len(frame), dtype=np.int64)
        case _bound.Person(column, _):
            frame, columns = _numbered(frame)
            there = set(distinct_texts(main.frame[column])[1])
            frame, units = _cut(frame, columns, unit, rows_key, there)
    first = int(main.units.max(initial=-1)) + 1
    return Kept(frame, first + units, np.full(len(frame), _bound.HELD_OUT, dtype=np.uint8))


def _numbered(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, _bound.Column]]:
    """Return a table without an object a row, and where each row's texts are among the distinct."""
    slim, columns = {}, {}
    for name in frame.columns:
        values = frame[name].reset_index(drop=True)
        columns[name] = distinct_texts(values)
        slim[name] = values if is_numbered(values) else column_of(*columns[name])
    return pd.DataFrame(slim, columns=frame.columns), columns


def _cut(
    frame: pd.DataFrame,
    columns: Mapping[str, _bound.Column],
    person: _bound.Person,
    rows_key: bytes,
    without: Collection[str] = (),
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return at most the bound's rows of each person but some, and the person of each row."""
    places, identities = columns[person.column]
    number = [-1 if each in without else place for place, each in enumerate(identities)]
    units = np.array([*number, -1], dtype=np.int64)[places]  # a missing id is at -1
    chosen = _bound.keep_rows(units, person.rows, _bound.words_of_rows(columns, rows_key))
    return frame.iloc[chosen].reset_index(drop=True), units[chosen]
