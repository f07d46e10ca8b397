"""Texts and numbers of whole columns are those of their values, one by one."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpsynth import _values
from dpsynth._arrow import column_of, numbered
from dpsynth._values import Kind, distinct_texts, numbers_of, text_of

KINDS: tuple[Kind, ...] = get_args(Kind)

POOL: list[Any] = [
    *(1, "1", b"1", "1.0", 2.5, "2.5", b"2.5", Decimal("3.50"), "3.50", "-0", -7, 2**62 + 1),
    *("", "nan", "NA", "inf", "é", "\ud800", "\\ud800", b"\xff", "\\xff", "a\0b", "a\0c", "a"),
    *(10**30, (1, 2), "(1, 2)", dt.date(2024, 2, 29), "2024-02-29", "2024-02-29T12:00:00+01:00"),
]
"""Values of which several read alike, and none is equal to another."""


def objects(values: list[Any]) -> pd.Series:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return pd.Series(array, dtype=object)


@st.composite
def categoricals(draw: st.DrawFn) -> tuple[pd.Series, list[Any]]:
    """A categorical, and its cells."""
    chosen = draw(st.lists(st.sampled_from(range(len(POOL))), unique=True, max_size=8))
    kinds = [POOL[place] for place in chosen]
    codes = draw(st.lists(st.integers(-1, len(kinds) - 1), max_size=12))
    column = pd.Categorical.from_codes(codes, categories=pd.Index(objects(kinds), dtype=object))
    return pd.Series(column), [kinds[code] if code >= 0 else None for code in codes]


@st.composite
def arrays(draw: st.DrawFn) -> tuple[pd.Series, list[Any]]:
    """A column of numbers or moments, and its cells."""
    name = draw(
        st.sampled_from(
            ["bool", "int8", "int64", "uint64", "float32", "float64", "M8[s]", "M8[ns]", "tz"]
        )
    )
    if name in ("M8[s]", "M8[ns]", "tz"):
        far = 2**42 if name == "M8[s]" else 2**33  # a nanosecond's years end, and so do zones'
        seconds = draw(st.lists(st.integers(-far, far) | st.sampled_from([0, 1]), max_size=8))
        unit = "s" if name == "tz" else name[3:-1]
        column = pd.Series(np.array(seconds, dtype="M8[s]").astype(f"M8[{unit}]"))
        if draw(st.booleans()):
            column = pd.concat([column, pd.Series([pd.NaT], dtype=column.dtype)], ignore_index=True)
        if name == "tz":
            column = column.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    else:
        kind = np.dtype(name)
        numbers: st.SearchStrategy[Any] = st.booleans()
        if kind.kind in "iu":
            ends = np.iinfo(kind)
            numbers = st.integers(int(ends.min), int(ends.max)) | st.sampled_from([0, 1])
        if kind.kind == "f":
            numbers = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, 1e22])
        column = pd.Series(np.array(draw(st.lists(numbers, max_size=8)), dtype=kind))
    return column, column.tolist()


WORDS = ["", "a", "a\0b", "a\0c", "é", "1", "1.0", "nan", "2024-02-29", "x" * 40]
DICTIONARIES: list[list[Any]] = [
    WORDS,
    [2**53 + 1, None, -7, 0],
    [True, False],
    [b"a", b"\xff", b""],
    [Decimal("1.10"), Decimal("2.00"), None],
    ["a", "b", "a", None, ""],  # twice the same
]


@st.composite
def arrows(draw: st.DrawFn) -> tuple[pd.Series, list[Any]]:
    """A column that Arrow holds, of texts or of a dictionary, and its cells."""
    if draw(st.booleans()):
        cells = draw(st.lists(st.sampled_from([*WORDS, None]), max_size=10))
        dtype = draw(st.sampled_from([pd.StringDtype("pyarrow"), pd.ArrowDtype(pa.large_string())]))
        return pd.Series(cells, dtype=dtype), cells
    kinds = draw(st.sampled_from(DICTIONARIES))
    codes = draw(st.lists(st.none() | st.integers(0, len(kinds) - 1), min_size=1, max_size=10))
    coded = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(kinds))
    cut = draw(st.integers(0, len(codes)))
    column = numbered(pa.chunked_array([coded[:cut], coded[cut:]]))
    return column, [None if code is None else kinds[code] for code in codes]


columns = categoricals() | arrays() | arrows()


def slowly(cells: list[Any]) -> list[str | None]:
    """The texts of cells that nothing but themselves stands beside."""
    return [text_of(objects([cell]))[0] for cell in cells]


def faults(column: pd.Series, cells: list[Any]) -> list[str]:
    """Say in what a column differs from its cells read one by one."""
    found = []
    texts = slowly(cells)
    if text_of(column).tolist() != texts:
        found.append("texts")
    positions, distinct = distinct_texts(column)
    order = list(dict.fromkeys(text for text in texts if text is not None))
    wanted = [-1 if text is None else order.index(text) for text in texts]
    if (positions.dtype, positions.tolist(), distinct) != (np.int32, wanted, order):
        found.append("distinct")
    for kind in KINDS:
        numbers, known = numbers_of(column, kind)
        single = [numbers_of(objects([text]), kind) for text in texts]
        if known.tolist() != [bool(one[1][0]) for one in single]:
            found.append(f"known {kind}")
        if numbers[known].tolist() != [one[0][0] for one in single if one[1][0]]:
            found.append(kind)
    return found


@settings(deadline=None)
@given(columns)
def test_a_column_reads_as_its_cells_one_by_one(column: tuple[pd.Series, list[Any]]) -> None:
    values, cells = column
    assert _values.is_numbered(values)
    assert faults(values, cells) == []


@settings(deadline=None)
@given(columns)
def test_texts_stand_for_the_column_they_were_taken_from(
    column: tuple[pd.Series, list[Any]],
) -> None:
    """A vault keeps the texts of a column of objects, once each: it reads as the column does."""
    values, cells = column
    again = column_of(*distinct_texts(objects(cells)))
    assert text_of(again).tolist() == text_of(values).tolist()
    assert distinct_texts(again)[1] == distinct_texts(values)[1]
    for kind in KINDS:
        mine, theirs = numbers_of(again, kind), numbers_of(objects(cells), kind)
        assert [each.tolist() for each in mine] == [each.tolist() for each in theirs]


def test_moments_beyond_the_zones_read_by_themselves() -> None:
    moments = np.array(["-0044-03-15", "2024-02-29", "NaT", "123456-01-01"], dtype="datetime64[s]")
    column = pd.Series(moments).dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    alone = [text_of(column.iloc[[place]])[0] for place in range(len(column))]
    assert text_of(column).tolist() == alone
    assert text_of(column[::-1]).tolist() == alone[::-1]
    assert alone[:3] == ["-044-03-15 00:00:00", "2024-02-29 01:00:00+01:00", None]
    assert alone[3] == "123456-01-01 00:00:00"


def by_code(values: pd.Series) -> tuple[NDArray[np.int32], list[str]]:
    """The twin: categories are taken for texts, unused, alike and empty ones among them."""
    return values.cat.codes.to_numpy().astype(np.int32), list(map(str, values.cat.categories))


@pytest.mark.parametrize("cells", [["b", "a"], [1, "1"], [b"1", "1"], ["", "a"]])
def test_categories_taken_for_texts_are_flagged(
    cells: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = pd.Index(objects([*cells, "unused"]), dtype=object)
    column = pd.Series(pd.Categorical.from_codes([1, 0], categories=index))
    assert faults(column, cells[::-1]) == []
    monkeypatch.setitem(globals(), "distinct_texts", by_code)
    assert "distinct" in faults(column, cells[::-1])
