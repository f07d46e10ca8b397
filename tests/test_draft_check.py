"""The draft of a schema and the exact check against one."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpsynth._check import CheckReport, ColumnCheck, check
from dpsynth._draft import draft
from dpsynth._values import numbers_of
from dpsynth.columns import (
    Boolean,
    Categorical,
    Column,
    Date,
    Datetime,
    Drop,
    Integer,
    Key,
    Open,
    Real,
)
from dpsynth.domain import resolve
from dpsynth.schema import Schema, SchemaError

SHARED = Path("../shared/data")


def drafted(frame: pd.DataFrame, folder: Path) -> Schema:
    table, file = folder / "table.csv", folder / "schema.toml"
    frame.to_csv(table, index=False)
    file.write_text(draft(table), encoding="utf-8")
    schema = Schema.load(file)
    assert list(schema.columns) == [str(name) for name in frame.columns]
    assert schema.unconfirmed == tuple(schema.columns)
    with pytest.raises(SchemaError):
        schema.require_confirmed()
    return schema


def test_a_draft_guesses_types(tmp_path: Path) -> None:
    rows = 60
    frame = pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(rows)],
            "token": [f"{i:020d}x" for i in range(rows)],
            "age": [17 + i for i in range(rows)],
            "pay": [0.5 + i for i in range(rows)],
            "change": [i - 30 for i in range(rows)],
            "code": [i % 3 for i in range(rows)],
            "flag": ["yes", "no"] * 30,
            "true": ["true", "t"] * 30,
            "smoker": [0, 1] * 30,
            "day": ["2019-01-01", "2020-12-31"] * 30,
            "moment": ["2019-05-01T10:00:00Z", "2020-01-31 23:59:59"] * 30,
            "sex": ["F", "M", None] * 20,
            "holes": [1, None, 2] * 20,
            "empty": [None] * rows,
            "blank": [""] * rows,
            "zeros": [0] * rows,
            "words": [f"w{i}" for i in range(rows)],
            'odd "name"\n': ["\u00e9", 'a"b'] * 30,
        }
    )
    columns = drafted(frame, tmp_path).columns
    guess: dict[str, Column] = {
        "patient_id": Key(),
        "token": Key(),
        "age": Integer(10, 80),
        "pay": Real(0.4, 60.0),
        "change": Integer(-40, 30),
        "code": Integer(0, 3),
        "flag": Boolean(),
        "true": Categorical(("t", "true")),
        "smoker": Boolean(),
        "day": Date(dt.date(2018, 1, 1), dt.date(2021, 12, 31)),
        "moment": Datetime(dt.datetime(2019, 1, 1), dt.datetime(2020, 12, 31, 23, 59, 59)),
        "sex": Categorical(("F", "M"), missing=True),
        "holes": Integer(0, 3, missing=True),
        "empty": Drop(),
        "blank": Drop(),
        "zeros": Integer(0, 1),
        "words": Drop(),
        'odd "name"\n': Categorical(('a"b', "\u00e9")),
    }
    for name, wanted in guess.items():
        facts = {**vars(wanted), "confirmed": False}
        assert columns[name] == type(wanted)(**facts), name


def test_a_draft_of_no_rows(tmp_path: Path) -> None:
    schema = drafted(pd.DataFrame({"a": [], "b": []}), tmp_path)
    assert all(isinstance(column, Drop) for column in schema.columns.values())


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=5)
    | st.lists(st.integers(-(10**20), 10**20), min_size=1, max_size=5)
    | st.lists(st.integers(-20, 20), min_size=1, max_size=5)
    | st.lists(st.integers(-999, 999).map(lambda i: i / 100), min_size=1, max_size=5)
)
def test_a_draft_never_shows_the_least_or_greatest_value(
    values: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    frame = pd.DataFrame({"x": pd.Series([repr(value) for value in values], dtype=object)})
    column = drafted(frame, tmp_path_factory.mktemp("draft")).columns["x"]
    finite = [value for value in values if math.isfinite(value)]
    if isinstance(column, Integer | Real) and finite:
        low, high, most = min(finite), max(finite), 2**62 if isinstance(column, Integer) else 2**60
        assert column.lower is not None
        assert column.upper is not None
        assert column.lower < low or low == 0 or low <= -most
        assert column.upper > high or high == 0 or high >= most
        for bound in (column.lower, column.upper):
            digits = Decimal(repr(bound)).normalize().as_tuple().digits
            assert len(digits) == 1 or abs(bound) in (most, most // 2)


@settings(max_examples=40, deadline=None)
@given(days=st.lists(st.dates(), min_size=1, max_size=4))
def test_a_draft_never_shows_the_first_or_last_day(
    days: list[dt.date], tmp_path_factory: pytest.TempPathFactory
) -> None:
    frame = pd.DataFrame({"x": [day.isoformat() for day in days]})
    column = drafted(frame, tmp_path_factory.mktemp("draft")).columns["x"]
    assert isinstance(column, Date)
    assert column.lower is not None
    assert column.upper is not None
    assert column.lower < min(days) or min(days) == dt.date.min
    assert max(days) < column.upper or max(days) == dt.date.max


@pytest.mark.parametrize("data", ["adult/adult.csv.gz", "nist_acs/ma2019.csv.gz"])
def test_drafts_of_public_tables(data: str, tmp_path: Path) -> None:
    if not (SHARED / data).is_file():
        pytest.skip("needs the shared data folder")
    frame = pd.read_csv(SHARED / data, dtype=object, na_filter=False, nrows=4000)
    schema = drafted(frame, tmp_path)
    for name, column in schema.columns.items():
        if isinstance(column, Integer | Real) and column.lower is not None:
            numbers, known = numbers_of(frame[name], "real")
            low, high = numbers[known].min(), numbers[known].max()
            assert column.lower < low or low == 0
            assert column.upper is not None
            assert column.upper > high
    # What was drafted from a table fits it, once the open columns are set aside.
    assert all(each.ok for each in check(schema, frame))
    closed = schema.only(n for n, c in schema.columns.items() if not isinstance(c, Open))
    resolve(closed, categories={}, bounds={}).encode(frame)


# -- check ---------------------------------------------------------------------------------------


def found(column: Column, values: list[Any]) -> ColumnCheck:
    frame = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    (answer,) = check(Schema({"x": column}), frame)
    return answer


@pytest.mark.parametrize(
    ("column", "values", "missing", "unreadable", "outside", "rounded"),
    [
        (Categorical(("a", "b")), ["a", "c", None, "", "A"], 2, 0, 2, 0),
        (Categorical((1, 2)), ["1", "1.0", 2.0, "3", "x"], 0, 0, 2, 0),
        (Open(), ["a", None], 1, 0, 0, 0),
        (Boolean(), ["yes", "?", None, 0], 1, 1, 0, 0),
        (Integer(0, 10), ["1", "x", "", 11, -1, 2.5, "inf", 10.4], 1, 1, 3, 2),
        (Integer(), ["1", 10**30, 2.5], 0, 0, 0, 1),
        (Real(0, 1), [0.5, "1.5", "x", math.nan], 1, 1, 1, 0),
        (Real(0, 1, step=0.1), [0.1 + 0.2, 0.35, 7], 0, 0, 1, 1),
        (Real(0.05, 1, step=0.1), [0.15, 0.2], 0, 0, 0, 1),
        (Real(step=0.01), [0.07, 0.075, math.inf], 0, 0, 0, 1),
        (Date(dt.date(2020, 1, 1), dt.date(2020, 1, 31)),
         ["2020-01-02", "2020-01-02T00:00:00", "2020-01-02T10:00:00", "2021-01-01", "1/2/2020"],
         0, 1, 1, 1),
        (Datetime(), ["2020-01-01T00:00:00", "2020-01-01T00:00:00.5", "2020-01-01T00:00:00.000"],
         0, 0, 0, 1),
    ],
)  # fmt: skip
def test_check_by_hand(
    column: Column, values: list[Any], missing: int, unreadable: int, outside: int, rounded: int
) -> None:
    assert found(column, values) == ColumnCheck("x", missing, False, unreadable, outside, rounded)


def test_missing_values_are_fine_where_they_are_allowed() -> None:
    assert not found(Integer(0, 1), [None]).ok
    assert found(Integer(0, 1, missing=True), [None]).ok
    assert not found(Integer(0, 1, missing=True), ["x"]).ok


def test_keys_and_dropped_columns_are_not_checked() -> None:
    frame = pd.DataFrame({"k": [1], "d": [2], "x": [3]})
    schema = Schema({"k": Key(), "d": Drop(), "x": Integer(0, 5)})
    assert [each.name for each in check(schema, frame)] == ["x"]


def test_the_report_in_words() -> None:
    bad = ColumnCheck("age", 1, False, 2, 3, 4)
    report = CheckReport(10, 1, 2, (bad, ColumnCheck("fine", 0, False, 0, 0, 0)))
    assert not report.ok
    assert report.text().splitlines() == [
        "10 rows",
        "1 rows without a person's id will be dropped",
        "2 rows beyond the bound of their person will be dropped",
        "age: 2 unreadable, 3 outside the declared values, 4 rounded, "
        "1 missing where none is allowed",
    ]
    assert report.to_json()["columns"][0]["rounded"] == 4
    fine = CheckReport(10, 0, 2, (ColumnCheck("fine", 5, True, 0, 0, 0),))
    assert fine.ok
    assert fine.text().splitlines()[-1] == "every value has a faithful place in the schema"


COLUMNS: list[Column] = [
    Categorical(("a", "1", "True"), missing=True),
    Categorical((1, 2, 3), missing=True),
    Boolean(missing=True),
    Integer(-5, 5, missing=True),
    Integer(0, 10**6, missing=True),
    Real(-1.0, 1.0, missing=True),
    Real(0.0, 10.0, step=0.25, missing=True),
    Date(dt.date(2000, 1, 1), dt.date(2001, 1, 1), missing=True),
    Datetime(dt.datetime(2000, 1, 1), dt.datetime(2000, 1, 1, 0, 5), missing=True),
]
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10),
    st.integers(-10, 10).map(str),
    st.integers(-10, 10).map(float),
    st.integers(-40, 40).map(lambda i: i / 8),
    st.floats(),
    st.sampled_from(["a", "b", "", "yes", "True", "1.0", "2000-06-01", "2000-06-01T12:00:00", "x"]),
    st.dates(dt.date(1999, 6, 1), dt.date(2001, 6, 1)),
    st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2000, 1, 1, 0, 6)),
)


@pytest.mark.parametrize("column", COLUMNS, ids=repr)
@settings(max_examples=60, deadline=None)
@given(value=values)
def test_check_agrees_with_what_encoding_does(column: Column, value: Any) -> None:
    """A value that passes is told apart from none but its neighbours; one that fails is altered."""
    answer = found(column, [value])
    codec = resolve(Schema({"x": column}), categories={}, bounds={}).codecs["x"]
    code = codec.encode(pd.Series([value], dtype=object))
    gone = int(code[0]) == codec.size - 1  # every column here has a place for what is missing
    assert gone == bool(answer.missing or answer.unreadable or (answer.outside and _listed(column)))
    assert answer.missing + answer.unreadable + answer.outside + answer.rounded <= 1
    if gone:
        return
    if _listed(column) or isinstance(column, Boolean):
        assert answer.ok
        return
    kind: Any = type(column).__name__.lower()
    decoded = [codec.decode(code, np.random.default_rng(seed)) for seed in range(5)]
    numbers = [numbers_of(each, kind)[0][0] for each in decoded]
    if kind == "real":
        exact = numbers_of(pd.Series([value], dtype=object), "real")[0][0]
    else:
        exact = _exact(value, kind)
    fine = len(set(numbers)) == 1  # the cell holds one value: it must be this one, or it is altered
    assume(fine)
    away = abs(numbers[0] - exact)
    assume(away == 0 or away > 1e-5)  # rounding errors of a step are no rounding
    assert answer.ok == (away == 0)


def _listed(column: Column) -> bool:
    return isinstance(column, Categorical)


def _exact(value: Any, kind: str) -> float:
    """Return the number a value is, in days or seconds, with its fraction."""
    if kind == "integer":
        return float(numbers_of(pd.Series([value], dtype=object), "real")[0][0])
    moment = dt.datetime.fromisoformat(str(value))
    unit = dt.timedelta(days=1) if kind == "date" else dt.timedelta(seconds=1)
    whole, rest = divmod(moment - dt.datetime(1970, 1, 1), unit)
    return whole + bool(rest) / 2
