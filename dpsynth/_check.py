"""Exact validation of a table against its schema: for the custodian's eyes, never published."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth._values import numbers_of, text_of
from dpsynth._zones import zone_of
from dpsynth.codec import NO_CATEGORY, BooleanCodec, CategoricalCodec
from dpsynth.columns import (
    Boolean,
    Categorical,
    Column,
    Date,
    Datetime,
    Integer,
    Real,
    number_of,
    type_name,
)
from dpsynth.domain import resolve
from dpsynth.recipe import Recipe
from dpsynth.schema import Schema
from dpsynth.vault import Person, load_table, needed_columns, require_form
from dpsynth_accounting.attempts import TABLE_ALONE


@dataclass(frozen=True)
class ColumnCheck:
    """What encoding will do to the values of one column, as exact numbers of rows.

    Attributes:
        name: The column.
        missing: Missing values, which become missing or the default.
        missing_allowed: Whether the schema has a place for them.
        unreadable: Values that are not of the type; they are treated as missing.
        outside: Values outside the bounds or categories; clipped, or put into ``other``.
        rounded: Values moved to the nearest whole number, step, day or second.
    """

    name: str
    missing: int
    missing_allowed: bool
    unreadable: int
    outside: int
    rounded: int

    @property
    def ok(self) -> bool:
        """Whether no value will be altered before it is coded."""
        misplaced = self.missing and not self.missing_allowed
        return not (self.unreadable or self.outside or self.rounded or misplaced)


@dataclass(frozen=True)
class CheckReport:
    """Exact figures from private rows: do not publish.

    Attributes:
        rows: Number of rows.
        without_id: Rows without a person's id, which are dropped.
        over_bound: Rows beyond the bound of their person, which are dropped.
        columns: One entry a modelled column.
    """

    rows: int
    without_id: int
    over_bound: int
    columns: tuple[ColumnCheck, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing will be altered or dropped, but for what a person's bound drops."""
        return not self.without_id and all(column.ok for column in self.columns)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON data."""
        return {"ok": self.ok, **asdict(self)}

    def text(self) -> str:
        """Return one line a finding."""
        lines = [f"{self.rows} rows"]
        if self.without_id:
            lines.append(f"{self.without_id} rows without a person's id will be dropped")
        if self.over_bound:
            lines.append(f"{self.over_bound} rows beyond the bound of their person will be dropped")
        for each in self.columns:
            if each.ok:
                continue
            parts = [f"{each.unreadable} unreadable"] if each.unreadable else []
            parts += [f"{each.outside} outside the declared values"] if each.outside else []
            parts += [f"{each.rounded} rounded"] if each.rounded else []
            if each.missing and not each.missing_allowed:
                parts.append(f"{each.missing} missing where none is allowed")
            lines.append(f"{each.name}: {', '.join(parts)}")
        if self.ok:
            lines.append("every value has a faithful place in the schema")
        return "\n".join(lines)


def check_table(recipe: Recipe, table: str | os.PathLike[str]) -> CheckReport:
    """Compare a file with a recipe's schema and unit, exactly.

    The inspection is noted in the ledger, if the account is open already, before a row is read.

    Charges: nothing, since its figures may not leave the custodian.
    """
    require_form(table, recipe.schema, recipe.unit)
    account = recipe.existing_account()
    if account is not None:
        account.record("inspect", {"purpose": TABLE_ALONE})
    frame = load_table(table, needed_columns(recipe.schema, recipe.unit))
    without_id = over = 0
    if isinstance(recipe.unit, Person):
        ids = pd.Series(text_of(frame[recipe.unit.column]), dtype=object)
        without_id = int(ids.isna().sum())
        over = int((ids.value_counts() - recipe.unit.rows).clip(lower=0).sum())
    return CheckReport(len(frame), without_id, over, check(recipe.schema, frame))


def check(schema: Schema, frame: pd.DataFrame) -> tuple[ColumnCheck, ...]:
    """Return what encoding will do to each modelled column of a frame."""
    return tuple(_column(n, schema.columns[n], frame[n]) for n in schema.modelled)


def _column(name: str, column: Column, values: pd.Series) -> ColumnCheck:
    missing = np.array([text is None for text in text_of(values)], dtype=bool)
    unreadable = outside = rounded = np.zeros(len(values), dtype=bool)
    match column:
        case Categorical():
            codec = resolve(Schema({name: column}), categories={}, bounds={}).codecs[name]
            if isinstance(codec, CategoricalCodec):
                outside = codec.find(values) == NO_CATEGORY
        case Boolean():
            unreadable = (BooleanCodec(0, True).encode(values) == 2) & ~missing
        case Integer() | Real() | Date() | Datetime():
            kind: Any = type_name(column)
            zone = column.zone if isinstance(column, Datetime) else None
            numbers, known = numbers_of(values, kind, zone_of(zone) if zone else None)
            unreadable = ~known & ~missing
            if column.lower is not None and column.upper is not None:
                low, high = number_of(column.lower, zone), number_of(column.upper, zone)
                outside = known & ((numbers < low) | (numbers > high))
            rounded = known & ~outside & _is_between(column, values)
        case _:
            pass
    counts = (int(each.sum()) for each in (unreadable, outside, rounded))
    return ColumnCheck(name, int(missing.sum()), column.missing, *counts)


def _is_between(column: Integer | Real | Date | Datetime, values: pd.Series) -> NDArray[np.bool_]:
    """Say which values lie between two that their column can tell apart."""
    match column:
        case Date() | Datetime():
            seconds = numbers_of(values, "datetime")[0]
            cut = [re.search(r":\d\d[.,]0*[1-9]", text or "") for text in text_of(values)]
            fractions = np.array([each is not None for each in cut], dtype=bool)
            return np.asarray(fractions | (isinstance(column, Date) & (seconds % 86_400 != 0)))
        case Real(step=None):
            return np.zeros(len(values), dtype=bool)
        case _:
            origin, step = (0.0, 1.0)
            if isinstance(column, Real):
                origin, step = column.lower or 0.0, column.step or 1.0
            reals = numbers_of(values, "real")[0]
            # No schema reaches further: what lies beyond is outside, not between.
            steps: NDArray[np.float64] = (np.clip(reals, -(2.0**62), 2.0**62) - origin) / step
            return np.asarray(np.abs(steps - np.rint(steps)) > 1e-6)
