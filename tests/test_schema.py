"""Schema files: what is written is what is read, and every fault is named at once."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpsynth._toml import toml
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
    number_of,
)
from dpsynth.schema import Schema, SchemaError, json_schema

names = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["", " ", "a.b", 'quo"te', "new\nline", "tab\t", "#", "[x]", "\x7f", "\x00", "é", "\N{SNOWMAN}",
     "true", "format_version", "columns", "\\", "\\u0041", "\r\n", "''", '"""', "\u2028",
     "\ufeff", "2020-01-01"]
)  # fmt: skip
facts = st.fixed_dictionaries(
    {},
    optional={
        "missing": st.booleans(),
        "confirmed": st.booleans(),
        "source": names,
        "attested_by": names,
    },
)
numbers = st.integers(-(2**59), 2**59)
zones = st.timezones() | st.integers(-1439, 1439).map(
    lambda minutes: dt.timezone(dt.timedelta(minutes=minutes))
)


def _bounded(cls: Any, values: Any) -> Any:
    def build(some: list[Any], given_default: bool, more: dict[str, Any]) -> Any:
        low, middle, high = sorted(some)
        return cls(low, high, default=middle if given_default else None, **more)

    return st.builds(build, st.lists(values, min_size=3, max_size=3), st.booleans(), facts)


@st.composite
def categoricals(draw: st.DrawFn) -> Categorical:
    value = names.filter(bool) | numbers | st.booleans()
    values = draw(st.lists(value, min_size=1, max_size=5, unique_by=str))
    chosen = st.none() | st.sampled_from(values)
    return Categorical(tuple(values), draw(chosen), draw(chosen), **draw(facts))


columns = st.one_of(
    categoricals(),
    *(st.builds(lambda more, cls=cls: cls(**more), facts) for cls in (Open, Drop, Key)),
    *(
        st.builds(lambda more, cls=cls: cls(**more), facts)
        for cls in (Integer, Real, Date, Datetime)
    ),
    st.builds(lambda default, more: Boolean(default, **more), st.booleans(), facts),
    _bounded(Integer, numbers),
    _bounded(Real, st.floats(-(2.0**59), 2.0**59) | st.integers(-9, 9)),
    _bounded(Date, st.dates()),
    _bounded(Datetime, st.datetimes()),
    _bounded(Datetime, st.datetimes(timezones=zones)),
)


def accepted(given_columns: dict[str, Column]) -> Schema:
    try:
        return Schema(given_columns)
    except SchemaError:
        assume(False)
        raise


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(names, columns, min_size=1, max_size=4))
def test_a_schema_comes_back_from_toml_and_json(given_columns: dict[str, Column]) -> None:
    schema = accepted(given_columns)
    text = schema.dump()
    text.encode("utf-8")
    again = Schema.from_json(tomllib.loads(text))
    assert again == schema
    assert list(again.columns) == list(given_columns)
    assert again.dump() == text
    data = schema.to_json()
    assert Schema.from_json(json.loads(json.dumps(data))) == schema


def test_a_schema_comes_back_from_a_file(tmp_path: Path) -> None:
    schema = Schema({"é\r\n": Categorical(("no", "\r", "a\nb")), "x": Real(0, 1, step=0.25)})
    path = tmp_path / "s.toml"
    path.write_text(schema.dump(), encoding="utf-8")
    assert Schema.load(path) == schema
    path.write_text("\ufeff" + schema.dump(), encoding="utf-8")
    assert Schema.load(str(path)) == schema


def faults_of(text: str) -> tuple[str, ...]:
    with pytest.raises(SchemaError) as caught:
        Schema.from_json(tomllib.loads(text))
    return caught.value.faults


def test_all_faults_are_named_at_once_with_the_nearest_key() -> None:
    faults = faults_of("""
        format_version = 2
        colums = 1
        [columns.age]
        type = "integer"
        lowr = 0
        uper = 9
        default = "5"
        [columns.city]
        type = "categorcal"
        [columns.sex]
        type = "categorical"
        categories = ["F", "M", "F"]
        other = "X"
        [columns.income]
        type = "real"
        lower = 9.0
        upper = 1.0
        [columns.none]
        lower = 1
        [columns.flag]
        type = "boolean"
        confirmed = 1
        missing = "yes"
    """)
    wanted = [
        ("'colums'", "did you mean 'columns'?"),
        ("format_version must be 1",),
        ("'age'", "'lowr'", "did you mean 'lower'?"),
        ("'age'", "'uper'", "did you mean 'upper'?"),
        ("'age'", "default", "valid integer"),
        ("'city'", "'categorcal'", "did you mean 'categorical'?"),
        ("'sex'", "'F' twice"),
        ("'sex'", "other = 'X' is not one of its categories"),
        ("'income'", "lower bound above the upper"),
        ("'none'", "no type"),
        ("'flag'", "confirmed", "valid boolean"),
        ("'flag'", "missing", "valid boolean"),
    ]
    assert len(faults) == len(wanted)
    for parts in wanted:
        assert any(all(part in fault for part in parts) for fault in faults), parts


@pytest.mark.parametrize(
    "facts_of_x",
    [
        *('type = "integer"\nlower = 1.0\nupper = 2', 'type = "integer"\nlower = "1"\nupper = 2'),
        *('type = "integer"\nlower = true\nupper = 2', 'type = "integer"\nlower = 1'),
        *('type = "real"\nlower = true\nupper = 2.0', 'type = "real"\nlower = "0"\nupper = 2.0'),
        *('type = "real"\nlower = nan\nupper = 2.0', 'type = "real"\nlower = 0\nupper = inf'),
        'type = "real"\nstep = 0',
        'type = "integer"\nbins = [1, 2]',
        'type = "integer"\nlower = 0\nupper = 9\nbins = [2, 2]',
        'type = "integer"\nlower = 0\nupper = 9\nbins = [2, 10]',
        'type = "integer"\nlower = 0\nupper = 9\nbins = [2.5]',
        'type = "integer"\nbins = "fine"',
        'type = "date"\nlower = 2020-01-01\nupper = 2021-01-01\nbins = ["noon"]',
        'type = "real"\nstep = nan',
        *('type = "real"\nlower = 0\nupper = 1\nstep = 2', 'type = "real"\nstep = -1'),
        'type = "integer"\nlower = 0\nupper = 4611686018427387905',
        'type = "integer"\nlower = 0\nupper = 9\ndefault = 10',
        'type = "categorical"',
        'type = "categorical"\ncategories = "abc"',
        'type = "categorical"\ncategories = []',
        'type = "categorical"\ncategories = [""]',
        'type = "categorical"\ncategories = [1.5]',
        'type = "categorical"\ncategories = [1, "1"]',
        'type = "categorical"\ncategories = ["a"]\ndefault = "b"',
        'type = "categorical"\ncategories = [9223372036854775808]',
        'type = "boolean"\ndefault = 1',
        'type = "boolean"\nlower = 1',
        'type = "open"\ncategories = ["a"]',
        'type = "date"\nlower = 2020-01-01T00:00:00\nupper = 2020-01-02',
        'type = "date"\nlower = 2020-01-02\nupper = 2020-01-01',
        'type = "date"\nlower = 1\nupper = 2',
        'type = "datetime"\nlower = 2020-01-01T00:00:00Z\nupper = 2020-01-02T00:00:00',
        'type = "datetime"\nlower = 2020-01-01\nupper = 2020-01-02T00:00:00',
        'type = "key"\nconfirmed = "true"',
        'type = "drop"\nsource = 1',
        'type = 1',
    ],
)  # fmt: skip
def test_what_is_not_strictly_right_is_refused(facts_of_x: str) -> None:
    faults = faults_of(f"format_version = 1\n[columns.x]\n{facts_of_x}\n")
    assert faults
    assert all("column 'x'" in fault for fault in faults)


@pytest.mark.parametrize("version", ["1.0", "true", '"1"', "0"])
def test_the_format_version_is_the_number_one(version: str) -> None:
    text = f'format_version = {version}\n[columns.x]\ntype = "open"\n'
    assert faults_of(text) == ("format_version must be 1",)


@pytest.mark.parametrize(
    "column",
    [
        Integer(0, 1.5),  # type: ignore[arg-type]
        Integer("0", "1"),  # type: ignore[arg-type]
        Categorical("abc"),  # type: ignore[arg-type]
        Categorical(("a", None)),  # type: ignore[arg-type]
        Categorical(("\ud800",)),
        Open(source="\udfff"),
        Date(dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 2)),
        Datetime(
            dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=30))),
            dt.datetime(2020, 1, 2, tzinfo=dt.UTC),
        ),
        Real(0.0, 2.0**61),
        Real(0.0, 1.0, step=1e-13),
        Real(1e9, 2e9, step=1e-12),
        Boolean(default=None),  # type: ignore[arg-type]
        Open(missing=1),  # type: ignore[arg-type]
        int,
        None,
    ],
)
def test_a_schema_made_in_python_is_as_strict_as_a_file(column: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        Schema({"x": column})
    assert caught.value.faults
    str(caught.value).encode("utf-8")


def test_names_are_unicode_text() -> None:
    for name in (5, None, "\ud800"):
        with pytest.raises(SchemaError):
            Schema({name: Open()})  # type: ignore[dict-item]


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    with pytest.raises(SchemaError, match="cannot be read"):
        Schema.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchemaError, match="UTF-8"):
        Schema.load(path)
    path.write_text("a = = 1", encoding="utf-8")
    with pytest.raises(SchemaError, match="not TOML"):
        Schema.load(path)
    for text in ("", "format_version = 1", "format_version = 1\ncolumns = 3"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(SchemaError, match=r"no \[columns\.NAME\]"):
            Schema.load(path)
    path.write_text("format_version = 1\n[columns]\nx = 3\n", encoding="utf-8")
    with pytest.raises(SchemaError, match="'x' is no table"):
        Schema.load(path)


def test_dates_are_dates_in_toml() -> None:
    text = """
        format_version = 1
        [columns.day]
        type = "date"
        lower = 2020-01-01
        upper = "2020-12-31"
        [columns.moment]
        type = "datetime"
        lower = 2020-01-01T00:00:00+02:00
        upper = 2020-12-31T23:59:59Z
    """
    schema = Schema.from_json(tomllib.loads(text))
    assert schema.columns["day"] == Date(dt.date(2020, 1, 1), dt.date(2020, 12, 31))
    moment = schema.columns["moment"]
    assert isinstance(moment, Datetime)
    assert moment.lower == dt.datetime(2019, 12, 31, 22, tzinfo=dt.UTC)
    assert "lower = 2020-01-01\n" in schema.dump()


def test_a_bound_in_a_repeated_hour_comes_back() -> None:
    # Such a moment of a named zone equals no moment of another zone, not even itself in UTC.
    zone = ZoneInfo("Europe/Berlin")
    low, high = dt.datetime(2019, 1, 1, tzinfo=zone), dt.datetime(2020, 10, 25, 2, 30, tzinfo=zone)
    for fold in (0, 1):
        schema = Schema({"x": Datetime(low, high.replace(fold=fold))})
        assert Schema.from_json(tomllib.loads(schema.dump())) == schema
        assert number_of(schema.columns["x"].upper) == 1_603_585_800 + 3600 * fold  # type: ignore[union-attr]


def test_what_is_modelled_undeclared_and_unconfirmed() -> None:
    schema = Schema(
        {
            "id": Key(),
            "age": Integer(0, 110),
            "visits": Integer(confirmed=False),
            "city": Open(),
            "born": Date(),
            "seen": Datetime(dt.datetime(2020, 1, 1), dt.datetime(2021, 1, 1)),
            "pay": Real(step=0.01),
            "note": Drop(confirmed=False),
            "sex": Categorical(("F", "M")),
        }
    )
    assert schema.modelled == ("age", "visits", "city", "born", "seen", "pay", "sex")
    assert schema.undeclared == ("visits", "city", "born", "pay")
    assert schema.unconfirmed == ("visits", "note")
    with pytest.raises(SchemaError) as caught:
        schema.require_confirmed()
    assert ["'visits'" in caught.value.faults[0], "'note'" in caught.value.faults[1]] == [
        True,
        True,
    ]
    schema.only(["id", "age"]).require_confirmed()
    assert list(schema.only(["age", "id"]).columns) == ["id", "age"]


def test_sources_and_attestations_stay() -> None:
    column = Integer(0, 9, source='a "codebook", p. 3', attested_by="J. Doe")
    schema = Schema.from_json(tomllib.loads(Schema({"x": column}).dump()))
    assert schema.columns["x"] == column


def test_facts_at_their_default_are_left_out() -> None:
    assert Schema({"x": Open()}).dump() == 'format_version = 1\n\n[columns."x"]\ntype = "open"\n'


def test_a_schema_is_not_changed_by_what_it_was_made_of() -> None:
    given_columns: dict[str, Column] = {"x": Open()}
    schema = Schema(given_columns)
    given_columns["y"] = Open()
    assert list(schema.columns) == ["x"]
    hash(schema)


@pytest.mark.parametrize(
    ("bound", "number"),
    [
        (5, 5),
        (0.5, 0.5),
        (dt.date(1970, 1, 2), 1),
        (dt.date.min, -719_162),
        (dt.datetime(1970, 1, 2), 86_400),
        (dt.datetime(1969, 12, 31, 23, 59, 59, 500_000), -1),
        (dt.datetime(1970, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))), 0),
        (dt.datetime.max, 253_402_300_799),
    ],
)
def test_bounds_as_numbers(bound: Any, number: float) -> None:
    assert number_of(bound) == number


def test_toml_has_no_form_for_what_no_schema_holds() -> None:
    with pytest.raises(TypeError, match="no TOML form"):
        toml({"a": 1})


def test_the_json_schema_names_every_type_and_key() -> None:
    schema = json_schema()
    kinds = schema["properties"]["columns"]["additionalProperties"]["oneOf"]
    by_type = {kind["properties"]["type"]["const"]: kind for kind in kinds}
    assert set(by_type) == {
        *("categorical", "open", "integer", "real", "date", "datetime", "boolean", "drop", "key")
    }
    assert by_type["categorical"]["required"] == ["type", "categories"]
    for kind, keys in itertools.product(by_type.values(), [("missing", "source", "confirmed")]):
        assert set(keys) <= set(kind["properties"])
        assert kind["additionalProperties"] is False
    assert by_type["date"]["properties"]["lower"]["anyOf"][0]["format"] == "date"
    json.dumps(schema)


def test_making_a_schema_needs_no_vault() -> None:
    program = "import sys, dpsynth.schema; print(sorted(m for m in sys.modules if 'torch' in m))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
