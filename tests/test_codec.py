"""Codecs: total, row-wise, and the same way back."""

from __future__ import annotations

import datetime as dt
import json
import math
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dpsynth._values import numbers_of, text_of
from dpsynth.codec import (
    BooleanCodec,
    CategoricalCodec,
    Codec,
    NumericCodec,
    codec_from_json,
)
from dpsynth.columns import Boolean, Categorical, Column, Date, Datetime, Integer, Open, Real
from dpsynth.domain import resolve
from dpsynth.schema import Schema, SchemaError

KINDS = ("integer", "real", "date", "datetime")
HUGE = 2**62


def codec_of(column: Column, bounds: Any = None, categories: Any = None) -> Codec:
    domain = resolve(
        Schema({"x": column}),
        categories={"x": categories} if categories is not None else {},
        bounds={"x": bounds} if bounds is not None else {},
    )
    return domain.codecs["x"]


def numeric(column: Column, bounds: Any = None) -> NumericCodec:
    codec = codec_of(column, bounds)
    assert isinstance(codec, NumericCodec)
    return codec


def objects(values: list[Any]) -> pd.Series:
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        array[position] = value
    return pd.Series(array, dtype=object)


class Hostile:
    """A value whose every method raises, as a broken extension type's might."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __str__


DEEP: list[Any] = []
DEEP.append(DEEP)

ODD: list[Any] = [
    *(None, math.nan, pd.NA, pd.NaT, np.datetime64("NaT"), np.timedelta64("NaT"), Decimal("NaN")),
    *(Decimal("sNaN"), Decimal("1"), Decimal("1.0"), Decimal("1E+3"), Decimal("1E+99999")),
    *(1, 1.0, True, "1", "1.0", "True", np.bool_(True), np.int8(1), np.float32(1), Fraction(1)),
    *(0.0, -0.0, math.inf, -math.inf, "inf", "-Infinity", "1e999", "nan", "NA", 1e300, 5e-324),
    *(10**30, -(10**30), 10**5000, 2**62, 2**63, 2**64, "9" * 5000, "9" * 5000 + "x"),
    *("", " ", "a", "no", "é", "\ud800", "a\nb", 'a"b', "a\0b", "\x7f", "1,000", "1_000", "0x1"),
    *(b"", b"a", b"\xff", bytearray(b"a"), 1 + 2j, complex(math.nan, 0), complex(0, -0.0), 0j),
    *([], [1], (1,), (True,), (1.0,), (pd.NA,), {}, {1: 2}, {3}, frozenset(), DEEP, object, len),
    *(np.array([1, 2]), np.array([]), pd.Series([1]), pd.DataFrame({"a": [1]}), Hostile()),
    *(dt.date(2020, 1, 2), dt.datetime(2020, 1, 2, 3), dt.time(1), dt.timedelta(1), dt.date.min),
    *(dt.datetime.max, pd.Timestamp("2020-01-02"), pd.Timestamp("2020-01-02", tz="Asia/Tokyo")),
    *(
        dt.datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        pd.Timestamp.min,
        pd.Timestamp.max,
    ),
    *(
        pd.Timestamp(np.datetime64("123456-01-01", "s")),
        np.datetime64("2020-01-02"),
        pd.Timedelta(1),
    ),
    *("2020-01-02", "2020-01-02T03:04:05.123456789+01:00", "9999-12-31", "0001-01-01", "20200102"),
    *("2020-02-30", "2020-13-01", "2020-01-01T24:00:00", "2020-01-01T00:00:00+99:00", "yes", "F"),
    *(np.longdouble(0.1), np.str_("a"), pd.Period("2020"), pd.Interval(0, 1), np.float16(0.1)),
]

CODECS: dict[str, Codec] = {
    "categorical": codec_of(Categorical(("a", "no", "1", "é"), missing=True)),
    "whole": codec_of(Categorical((1, 2, 3), other=3)),
    "truth": codec_of(Categorical((True, False), default=False)),
    "mixed": codec_of(Categorical((1, "01", True, "x"))),
    "open": codec_of(Open(missing=True), categories=("a", "1")),
    "boolean": codec_of(Boolean(missing=True)),
    "boolean, none missing": codec_of(Boolean(default=True)),
    "integer": codec_of(Integer(0, 100, missing=True)),
    "wide integer": codec_of(Integer(-HUGE, HUGE, default=5)),
    "real": codec_of(Real(-1.0, 1.0, missing=True)),
    "lattice": codec_of(Real(0.0, 10.0, step=0.1, default=0.3)),
    "date": codec_of(Date(dt.date(1, 1, 1), dt.date(9999, 12, 31), missing=True)),
    "datetime": codec_of(Datetime(dt.datetime(2000, 1, 1), dt.datetime(2030, 1, 1))),
}

anything = st.one_of(
    st.sampled_from(range(len(ODD))).map(ODD.__getitem__),
    st.text(),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.booleans(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.complex_numbers(),
    st.binary(),
    st.tuples(st.integers(0, 1) | st.booleans() | st.floats()),
    st.floats(allow_nan=False).map(str),
    st.integers().map(str),
)


@pytest.mark.parametrize("name", CODECS)
def test_every_odd_value_has_a_code_that_depends_on_itself_alone(name: str) -> None:
    codec = CODECS[name]
    alone = [int(codec.encode(objects([value]))[0]) for value in ODD]
    assert all(0 <= code < codec.size for code in alone)
    together = codec.encode(objects(ODD))
    assert together.dtype == np.int32
    assert together.tolist() == alone
    assert codec.encode(objects(ODD[::-1])).tolist() == alone[::-1]
    assert codec.encode(objects([])).tolist() == []


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=40, deadline=None)
@given(left=st.lists(anything, max_size=8), right=st.lists(anything, max_size=8), data=st.data())
def test_encoding_is_row_wise(name: str, left: list[Any], right: list[Any], data: Any) -> None:
    codec = CODECS[name]
    both = codec.encode(objects(left + right))
    parts = [codec.encode(objects(left)), codec.encode(objects(right))]
    assert both.tolist() == np.concatenate(parts).tolist()
    assert ((both >= 0) & (both < codec.size)).all()
    order = data.draw(st.permutations(range(len(both))))
    shuffled = codec.encode(objects([(left + right)[i] for i in order]))
    assert shuffled.tolist() == both[list(order)].tolist()


# One column in all the arrays that may hold it.
COLUMNS: dict[str, pd.Series] = {
    "int64": pd.Series([0, 1, -(2**63), 2**63 - 1, 2**53 + 1]),
    "uint64": pd.Series([0, 2**64 - 1, 2**62 + 1], dtype="uint64"),
    "int8": pd.Series([1, -128], dtype="int8"),
    "float64": pd.Series([0.0, -0.0, 0.1, 2.5, 3.5, math.nan, math.inf, -math.inf, 1e300, 2.0**62]),
    "float32": pd.Series([0.1, math.nan, 3e38, 1], dtype="float32"),
    "float16": pd.Series([0.1, math.nan, 1], dtype="float16"),
    "longdouble": pd.Series([0.1, math.nan, 1], dtype=np.longdouble),
    "bool": pd.Series([True, False]),
    "Int64": pd.Series([2**53 + 1, None, 1], dtype="Int64"),
    "Float64": pd.Series([0.1, None, 1], dtype="Float64"),
    "boolean": pd.Series([True, None], dtype="boolean"),
    "str": pd.Series(["a", None, "", "1.0", "2020-01-01", "\N{SNOWMAN}"]),
    "category of text": pd.Series(["a", None, "1"], dtype="category"),
    "category of int": pd.Series([2**53 + 1, None, 1], dtype=object).astype("category"),
    "arrow int": pd.Series([2**53 + 1, None], dtype="int64[pyarrow]"),
    "arrow text": pd.Series(["a", None], dtype="string[pyarrow]"),
    "arrow time": pd.Series(["2020-01-02 03:04:05", None], dtype="timestamp[ns][pyarrow]"),
    "arrow binary": pd.Series([b"a", None], dtype="binary[pyarrow]"),
    "sparse": pd.Series(pd.arrays.SparseArray([0.0, 1.0, math.nan])),
    "complex": pd.Series([1 + 2j, 1]),
    "timedelta": pd.Series(pd.to_timedelta([1, None])),
    "period": pd.Series(pd.period_range("2020", periods=2)),
    "interval": pd.Series(pd.interval_range(0, 2)),
    "datetime ns": pd.Series(
        pd.to_datetime(["1969-12-31 23:59:59.5", None, "2020-01-02"], format="ISO8601")
    ).astype("datetime64[ns]"),
    "datetime s": pd.Series(
        np.array(["-0044-03-15", "NaT", "123456-01-01", "9999-12-31"], dtype="datetime64[s]")
    ),
    "datetime zone": pd.Series(pd.to_datetime(["1890-01-01 12:00", None])).dt.tz_localize(
        "Europe/Berlin"
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_the_array_that_holds_a_column_does_not_matter(name: str) -> None:
    column = COLUMNS[name]
    # "category of int" loses digits if pandas turns it into an array: take its values from a list.
    cells = [None if pd.isna(x) else x for x in column.tolist()]
    plain = objects(cells)
    assert text_of(column).tolist() == text_of(plain).tolist()
    for kind in KINDS:
        found, known = numbers_of(column, kind)  # type: ignore[arg-type]
        wanted, wanted_known = numbers_of(plain, kind)  # type: ignore[arg-type]
        assert found.dtype == wanted.dtype
        assert known.tolist() == wanted_known.tolist()
        assert found.tolist() == wanted.tolist()
    for codec in CODECS.values():
        assert codec.encode(column).tolist() == codec.encode(plain).tolist()
        shifted = column.set_axis([7] * len(column))  # a repeated index must not matter
        assert codec.encode(shifted).tolist() == codec.encode(plain).tolist()


def test_whole_numbers_keep_their_digits_beside_a_missing_category() -> None:
    column = pd.Series([2**53 + 1, None], dtype=object).astype("category")
    assert text_of(column).tolist() == [str(2**53 + 1), None]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(1, "1"), (1.0, "1"), (True, "True"), ("1.0", "1.0"), (-0.0, "0"), (2.5, "2.5")],
        *[("", None), (" ", " "), ("nan", "nan"), (b"", None), (b"caf\xc3\xa9", "café")],
        *[
            (b"\xff", "\\xff"),
            ("\ud800", "\\ud800"),
            (10**30, "1" + "0" * 30),
            (1e22, "1" + "0" * 22),
        ],
        *[((1,), "(1,)"), ((True,), "(True,)"), (Decimal("1.0"), "1.0"), (Decimal("sNaN"), None)],
        *[(np.float32(0.5), "0.5"), (np.int64(7), "7"), (np.bool_(False), "False")],
        *[(dt.date(2020, 1, 2), "2020-01-02"), (Hostile(), "(Hostile)"), (math.inf, "inf")],
        *[(np.str_("a"), "a"), (np.timedelta64(1, "s"), "1 seconds")],
    ],
)
def test_canonical_text(value: Any, text: str | None) -> None:
    assert text_of(objects([value])).tolist() == [text]


def test_integers_of_more_digits_than_python_writes() -> None:
    assert text_of(objects([10**5000])).tolist() == ["1" + "0" * 5000]
    found, known = numbers_of(objects([10**5000, -(10**5000)]), "integer")
    assert known.all()
    assert found.tolist() == [HUGE, -HUGE]


@given(values=st.lists(anything, max_size=10))
def test_every_text_is_unicode_and_never_empty(values: list[Any]) -> None:
    for text in text_of(objects(values)):
        assert text is None or (text and text.encode("utf-8").decode("utf-8") == text)


def test_equal_values_with_different_texts_do_not_share_one() -> None:
    pairs = [
        (1,),
        (True,),
        (1.0,),
        Decimal("1"),
        Decimal("1.0"),
        1,
        True,
        1.0,
        0j,
        complex(0, -0.0),
    ]
    for order in (pairs, pairs[::-1]):
        assert text_of(objects(order)).tolist() == [text_of(objects([x]))[0] for x in order]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *[
            ("9007199254740993", 2**53 + 1),
            ("9007199254740993.0", 2**53 + 1),
            (" 5 ", 5),
            ("+5", 5),
        ],
        *[("4611686018427387904", HUGE), ("4611686018427387905", HUGE), ("9" * 500, HUGE)],
        *[(10**30, HUGE), (-(10**30), -HUGE), (2**64 - 1, HUGE)],
        *[("inf", HUGE), ("-INF", -HUGE), ("1e999", HUGE), (math.inf, HUGE), ("1e3", 1000)],
        *[
            ("2.5", 2),
            ("3.5", 4),
            (2.5, 2),
            ("-2.5", -2),
            (".5", 0),
            ("5.", 5),
            (Decimal("7.0"), 7),
        ],
        *[(True, 1), ("True", 1), ("False", 0), (np.bool_(True), 1), ("000000000005", 5)],
        *[
            ("true", None),
            ("1,000", None),
            ("1_000", None),
            ("0x10", None),
            ("", None),
            ("nan", None),
        ],
        *[("1e", None), (".", None), ("5 6", None), ("٣", None), ("--5", None), (1 + 0j, None)],
        *[
            ([1], None),
            (dt.date(2020, 1, 1), None),
            (pd.Timedelta(1), None),
            (Decimal("NaN"), None),
        ],
        *[("1" * 100_000 + "x", None)],
    ],
)
def test_whole_numbers_are_read_exactly(value: Any, number: int | None) -> None:
    found, known = numbers_of(objects([value]), "integer")
    assert found.dtype == np.int64
    assert (int(found[0]) if known[0] else None) == number


@given(st.integers(-HUGE, HUGE), st.sampled_from([str, int, "{}.0".format, "0{}".format]))
def test_integers_up_to_2_62_are_exact_from_text(number: int, write: Any) -> None:
    assume(number >= 0 or write != "0{}".format)
    found, known = numbers_of(objects([write(number)]), "integer")
    assert known[0]
    assert found[0] == number


@given(st.floats(allow_nan=False))
def test_reals_are_exact_from_text(number: float) -> None:
    for value in (number, repr(number), Decimal(repr(number))):
        found, known = numbers_of(objects([value]), "real")
        assert known[0]
        assert found[0] == number


@pytest.mark.parametrize(
    ("value", "second"),
    [
        *[("1970-01-01", 0), ("1970-01-02", 86_400), ("19700102", 86_400), (19700102, 86_400)],
        *[("1970-01-01T00:00:01", 1), ("1970-01-01 00:01", 60), ("1970-01-01T00:00:01.9", 1)],
        *[("1969-12-31T23:59:59.5", -1), (pd.Timestamp("1969-12-31 23:59:59.5"), -1)],
        *[("1970-01-01T01:00:00+01:00", 0), ("1970-01-01T00:00:00-0130", 5400)],
        *[("1970-01-01T00:00:00Z", 0), ("1970-01-01 00:00:00.123456789 +00:00", 0)],
        *[("9999-12-31", 253_402_214_400), ("0001-01-01", -62_135_596_800)],
        *[("10000-01-01", 253_402_300_800), ("2000-02-29", 951_782_400), ("1900-02-29", None)],
        *[(dt.date(1970, 1, 2), 86_400), (dt.datetime(1970, 1, 1, 1), 3600)],
        *[(dt.datetime(1970, 1, 1, 1, tzinfo=dt.UTC), 3600), (np.datetime64("1970-01-02"), 86_400)],
        *[("1970-01-01T24:00", None), ("1970-01-01T00:60", None), ("1970-1-1", None)],
        *[
            ("1/2/1970", None),
            ("1970", None),
            ("1970-W01-1", None),
            ("1970-01-01T00:00+24:00", None),
        ],
        *[(0, None), (1.5, None), ("", None), ("today", None), (dt.time(1), None)],
    ],
)
def test_moments_are_read_one_by_one(value: Any, second: int | None) -> None:
    # Beside a nanosecond and the last day of the calendar: neither may change how the other reads.
    column = objects(["2020-01-01T00:00:00.123456789", value, "9999-12-31"])
    found, known = numbers_of(column, "datetime")
    assert (int(found[1]) if known[1] else None) == second
    assert known[[0, 2]].all()
    days, _ = numbers_of(column, "date")
    assert days[1] == (second or 0) // 86_400


@given(st.datetimes(timezones=st.none() | st.timezones()))
def test_moments_agree_with_the_standard_library(moment: dt.datetime) -> None:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    wanted = (aware - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(seconds=1)
    for value in (moment, moment.isoformat(), str(moment)):
        found, known = numbers_of(objects([value]), "datetime")
        assert known[0]
        assert found[0] == wanted


# -- categories ----------------------------------------------------------------------------------


def test_categories_by_hand() -> None:
    column = objects(["a", "b", None, "", "A", "a "])
    missing = codec_of(Categorical(("a", "b"), missing=True))
    assert missing.encode(column).tolist() == [0, 1, 2, 2, 2, 2]
    other = codec_of(Categorical(("a", "b", "x"), other="x", default="b"))
    assert other.encode(column).tolist() == [0, 1, 1, 1, 2, 2]
    neither = codec_of(Categorical(("a", "b"), default="b"))
    assert neither.encode(column).tolist() == [0, 1, 1, 1, 1, 1]
    found = codec_of(Open(), categories=("a", "other"))
    assert found.encode(column).tolist() == [0, 2, 2, 2, 2, 2]
    assert [found.label(code) for code in range(3)] == ["a", "other", "other_"]


def test_whole_categories_take_what_a_file_of_floats_has() -> None:
    codec = codec_of(Categorical((1, 2, 10), missing=True))
    assert codec.encode(objects(["1.0", "2.00", "10", 1.0, "1.5", "x", None])).tolist() == [
        *(0, 1, 2, 0, 3, 3, 3)
    ]
    text = codec_of(Categorical(("1", "2"), missing=True))
    assert text.encode(objects(["1", "1.0"])).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("column", "dtype", "values"),
    [
        (Categorical(("a", "b")), pd.Series(["a"]).dtype, ["a", "b"]),
        (Categorical(("a", "b"), missing=True), pd.Series(["a", None]).dtype, ["a", "b", None]),
        (Categorical((1, 2)), "int64", [1, 2]),
        (Categorical((1, 2), missing=True), "Int64", [1, 2, None]),
        (Categorical((True, False)), "bool", [True, False]),
        (Categorical((True, False), missing=True), "boolean", [True, False, None]),
        (Categorical((1, "a")), "object", [1, "a"]),
        (Boolean(), "bool", [False, True]),
        (Boolean(missing=True), "boolean", [False, True, None]),
        (Integer(3, 4), "int64", [3, 4]),
        (Integer(3, 4, missing=True), "Int64", [3, 4, None]),
        (Real(0, 0.2, step=0.1, missing=True), "float64", [0.0, 0.1, 0.2, None]),
        (Date(dt.date(2020, 1, 1), dt.date(2020, 1, 1), missing=True), "datetime64[s]",
         [pd.Timestamp("2020-01-01"), None]),
    ],
)  # fmt: skip
def test_values_decode_to_their_own_type(column: Column, dtype: Any, values: list[Any]) -> None:
    codec = codec_of(column)
    codes = np.arange(codec.size, dtype=np.int32)
    decoded = codec.decode(codes, np.random.default_rng(0))
    assert decoded.dtype == dtype
    assert [None if pd.isna(value) else value for value in decoded] == values
    assert codec.encode(decoded).tolist() == codes.tolist()
    assert len({codec.label(code) for code in range(codec.size)}) == codec.size
    empty = codec.decode(codes[:0], np.random.default_rng(0))
    assert empty.dtype == dtype
    only_missing = codec.decode(codes[-1:], np.random.default_rng(0))
    assert only_missing.dtype == dtype


def test_truth_values_as_people_write_them() -> None:
    codec = BooleanCodec(0, True)
    true, false = ["true", " TRUE ", "1", 1, 1.0, "1.0", "yes", "T", "y", True], ["No", "f", 0, "N"]
    unclear = ["2", "", None, "yes!", 2, math.nan]
    codes = codec.encode(objects([*true, *false, *unclear])).tolist()
    assert codes == [1] * len(true) + [0] * len(false) + [2] * len(unclear)
    assert BooleanCodec(1, False).encode(objects(unclear)).tolist() == [1] * len(unclear)


# -- numbers -------------------------------------------------------------------------------------


@st.composite
def integers(draw: st.DrawFn) -> Integer:
    near = st.integers(-1000, 1000)
    low, high = sorted(draw(st.tuples(*[near | st.integers(-HUGE, HUGE)] * 2)))
    return Integer(low, high, missing=draw(st.booleans()))


@st.composite
def lattices(draw: st.DrawFn) -> Real:
    step = draw(st.sampled_from([0.01, 0.05, 0.1, 0.25, 1 / 3, 1.0, 5.0, 1e-6, 1e3, 0.7]))
    near = st.integers(-100, 100).map(float) | st.floats(-1e6, 1e6)
    low = draw(near)
    high = low + draw(st.floats(1.0, 1e6)) * step
    return _accepted(low, high, step, draw(st.booleans()))


@st.composite
def reals(draw: st.DrawFn) -> Real:
    some = st.floats(-(2.0**60), 2.0**60) | st.integers(-10, 10).map(float)
    low, high = sorted(draw(st.tuples(some, some)))
    return _accepted(low, high, None, draw(st.booleans()))


def _accepted(low: float, high: float, step: float | None, missing: bool) -> Real:
    column = Real(low, high, step=step, missing=missing)
    try:
        Schema({"x": column})
    except SchemaError:
        assume(False)
    return column


@st.composite
def dates(draw: st.DrawFn) -> Date:
    low, high = sorted(draw(st.tuples(st.dates(), st.dates())))
    return Date(low, high, missing=draw(st.booleans()))


@st.composite
def datetimes(draw: st.DrawFn) -> Datetime:
    low, high = sorted(draw(st.tuples(st.datetimes(), st.datetimes())))
    return Datetime(low, high, missing=draw(st.booleans()))


ranged = st.one_of(integers(), lattices(), reals(), dates(), datetimes())


@settings(max_examples=150, deadline=None)
@given(column=ranged, seed=st.integers(0, 2**32))
@example(column=Integer(5, 5), seed=0)
@example(column=Integer(-HUGE, HUGE), seed=0)
@example(column=Integer(-2000, -1000), seed=0)
@example(column=Real(0.0, 1.0, step=0.35), seed=0)
@example(column=Real(0.1 + 0.2, 90.0, step=0.1), seed=0)
@example(column=Real(-0.0, 1e-6), seed=0)
@example(column=Real(0.0, 5e-324), seed=0)
@example(column=Real(-1e-300, 1e-300), seed=0)
@example(column=Real(2.0**60 - 4096, 2.0**60), seed=0)
@example(column=Real(1e-300, 1e10, step=0.5), seed=0)
def test_every_code_of_a_range_comes_back(column: Any, seed: int) -> None:
    codec = numeric(column)
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(codec.size, dtype=np.int32), 3)
    assert codec.size <= 1200
    assert codec.ordered == codec.size - column.missing
    decoded = codec.decode(codes, rng)
    assert codec.encode(decoded).tolist() == codes.tolist()
    known = decoded[codes < codec.ordered]
    assert known.notna().all()
    assert decoded[codes >= codec.ordered].isna().all()
    if isinstance(column, Integer | Real):
        assert column.lower <= known.min() <= known.max() <= column.upper
    else:
        low, high = (np.datetime64(bound, "s") for bound in (column.lower, column.upper))
        assert low <= known.min() <= known.max() <= high
    if isinstance(column, Real) and column.step is not None:
        steps = (known - column.lower) / column.step
        assert (abs(steps - np.rint(steps)) < 1e-3).all()
    # Through a file of text, too.
    texts = objects([None if pd.isna(value) else str(value) for value in decoded])
    assert codec.encode(texts).tolist() == codes.tolist()
    # The cells are in order, and read back from JSON.
    assert list(codec.starts) == sorted(set(codec.starts))
    assert codec_from_json(json.loads(json.dumps(codec.to_json()))) == codec


@settings(max_examples=100, deadline=None)
@given(column=st.one_of(integers(), lattices(), reals()), data=st.data())
def test_any_number_lands_in_the_cell_that_holds_it(column: Any, data: Any) -> None:
    codec = numeric(column)
    if isinstance(column, Integer):
        x: float = data.draw(st.integers(column.lower, column.upper))
        unit: float = 0
    else:
        x = data.draw(st.floats(column.lower, column.upper))
        unit = (column.step or 0) * (1 + 1e-6)
    code = codec.encode(objects([x]))
    low, high = codec.starts[code[0]], (*codec.starts, codec.upper)[code[0] + 1]
    assert low - unit <= x <= high + unit
    if unit == 0 and code[0] + 1 < len(codec.starts):
        assert low <= x < high
    y = codec.decode(code, np.random.default_rng(0))
    assert codec.encode(y).tolist() == code.tolist()


@settings(max_examples=100, deadline=None)
@given(column=st.one_of(integers(), reals()))
def test_zero_and_the_bounds_have_cells_of_their_own(column: Any) -> None:
    codec = numeric(column)
    singles = [column.lower, column.upper, *([0] if column.lower <= 0 <= column.upper else [])]
    codes = codec.encode(objects(singles))
    repeated = codec.decode(np.repeat(codes, 20), np.random.default_rng(1))
    assert repeated.tolist() == np.repeat(np.array(singles), 20).tolist()


@pytest.mark.parametrize("step", [0.01, 0.1, 0.25, 1.0])
def test_zero_and_the_bounds_have_cells_of_their_own_on_a_lattice(step: float) -> None:
    codec = numeric(Real(-1000.0, 5000.0, step=step))
    singles = [-1000.0, 0.0, 5000.0]
    repeated = codec.decode(np.repeat(codec.encode(objects(singles)), 20), np.random.default_rng(1))
    assert repeated.tolist() == np.repeat(singles, 20).tolist()


def test_lattice_values_are_the_decimals_that_people_write() -> None:
    codec = numeric(Real(0.0, 1.0, step=0.1))
    assert codec.encode(objects([0.1 + 0.2, "0.3", 0.3, 0.30001, 7, -7])).tolist() == [
        3,
        3,
        3,
        3,
        10,
        0,
    ]
    every = codec.decode(np.arange(11, dtype=np.int32), np.random.default_rng(0))
    assert [str(value) for value in every] == [f"{i / 10:.1f}" for i in range(11)]
    money = numeric(Real(0.0, 1e6, step=0.01))
    drawn = money.decode(
        np.repeat(np.arange(money.size, dtype=np.int32), 10), np.random.default_rng(0)
    )
    assert all(len(str(value).partition(".")[2]) <= 2 for value in drawn)


def test_outside_is_clipped_and_the_unreadable_is_missing() -> None:
    codec = numeric(Integer(0, 10, missing=True))
    column = objects([-5, 15, "1e999", "-inf", "x", None, "1,000", math.nan])
    assert codec.encode(column).tolist() == [0, 10, 10, 0, 11, 11, 11, 11]
    fixed = numeric(Integer(0, 10, default=4))
    assert fixed.encode(column).tolist() == [0, 10, 10, 0, 4, 4, 4, 4]
    days = numeric(Date(dt.date(2020, 1, 1), dt.date(2020, 1, 3), default=dt.date(2020, 1, 2)))
    column = objects(["9999-12-31", "0001-01-01", "2020-01-02", "2020-99-99", None])
    assert days.encode(column).tolist() == [2, 0, 1, 1, 1]


def test_labels_by_hand() -> None:
    def labels(column: Column) -> list[str]:
        codec = codec_of(column)
        return [codec.label(code) for code in range(codec.size)]

    assert labels(Integer(0, 2, missing=True)) == ["0", "1", "2", "(missing)"]
    assert labels(Date(dt.date(2020, 2, 28), dt.date(2020, 3, 1))) == [
        *("2020-02-28", "2020-02-29", "2020-03-01")
    ]
    assert labels(Real(0, 0.3, step=0.1)) == ["0", "0.1", "0.2", "0.3"]
    wide = labels(Real(0, 100))
    assert wide[:2] == ["0", "(0, 0.0001)"]
    assert wide[-1] == "100"
    assert labels(Boolean()) == ["false", "true"]
    ages = labels(Integer(0, 10_000))
    assert ages[:2] == ["0", "1"]
    assert ages[-1] == "10000"
    assert ages[-2] == "9921..9999"


@settings(max_examples=60, deadline=None)
@given(column=ranged)
def test_labels_tell_codes_apart(column: Any) -> None:
    codec = numeric(column)
    width = 1.0 if not isinstance(column, Real) else column.upper - column.lower
    assume(not isinstance(column, Real) or width > 1e-3 * max(abs(column.lower), abs(column.upper)))
    labels = [codec.label(code) for code in range(codec.size)]
    assert len(set(labels)) == len(labels)


def test_too_fine_a_step_of_found_bounds_is_doubled_until_it_fits() -> None:
    codec = numeric(Real(step=1e-12), (-(2.0**59), 2.0**59))
    assert codec.step is not None
    ratio = codec.step / 1e-12
    assert math.log2(ratio) == round(math.log2(ratio))
    assert codec.size > 100


def test_codecs_write_nothing_but_json(tmp_path: Any) -> None:
    for codec in CODECS.values():
        again = codec_from_json(json.loads(json.dumps(codec.to_json())))
        assert again == codec
        assert json.dumps(again.to_json()) == json.dumps(codec.to_json())
    with pytest.raises(ValueError, match="unknown codec"):
        codec_from_json({"codec": "spline"})


def test_no_warning_with_every_warning_on() -> None:
    program = (
        "import numpy as np, pandas as pd\n"
        "from dpsynth._values import text_of, numbers_of\n"
        "s = pd.Series([b'a', 'x', 1, None, '2020-01-01', [1], np.array([1, 2])], dtype=object)\n"
        "text_of(s); [numbers_of(s, k) for k in ('integer', 'real', 'date', 'datetime')]\n"
    )
    flags = [sys.executable, "-bb", "-W", "error", "-c", program]
    done = subprocess.run(flags, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", CODECS)
def test_texts_that_agree_up_to_a_nul_are_told_apart(name: str) -> None:
    column = objects(["1\0z", "1", "a\0", "a"])
    for values in (column, column[::-1]):
        alone = [int(CODECS[name].encode(objects([value]))[0]) for value in values]
        assert CODECS[name].encode(values).tolist() == alone


def test_categories_find_themselves() -> None:
    codec = codec_of(Categorical(("a", "b")))
    assert isinstance(codec, CategoricalCodec)
    assert codec.find(objects(["b", "z", None])).tolist() == [1, -1, -2]
