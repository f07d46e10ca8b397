"""The domain: rows to codes, codes to rows, and what is public about them."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from dpsynth.domain import Domain, resolve
from dpsynth.schema import Schema
from dpsynth_accounting import InvalidRequest

ADULT = Path("../shared/data/adult/adult.csv.gz")

SCHEMA = Schema(
    {
        "id": Key(),
        "age": Integer(0, 110, source="form 7", attested_by="J. Doe"),
        "sex": Categorical(("F", "M"), missing=True),
        "city": Open(),
        "note": Drop(),
        "pay": Real(step=0.01, missing=True),
        "visits": Integer(),
        "born": Date(dt.date(1900, 1, 1), dt.date(2030, 1, 1)),
        "seen": Datetime(missing=True),
        "insured": Boolean(missing=True),
        "grade": Categorical((1, 2, 3)),
    }
)


def domain() -> Domain:
    return resolve(
        SCHEMA,
        categories={"city": ("Paris", "other")},
        bounds={"pay": (-1.5, 1024.3), "visits": (0, 5), "seen": (0, 10**9)},
    )


FRAME = pd.DataFrame(
    {
        "id": ["a", "b", "c"],
        "age": [30, 200, -1],
        "sex": ["F", None, "x"],
        "city": ["Paris", "Rome", None],
        "pay": [0.1 + 0.2, None, 1e9],
        "visits": [2, 7, 0],
        "born": ["1970-01-01", "", "9999-12-31"],
        "seen": [pd.Timestamp(0), None, pd.Timestamp(10**18)],
        "insured": ["yes", "no", "?"],
        "grade": [3, 1, 9],
    }
)


def test_a_domain_by_hand() -> None:
    found = domain()
    assert found.names == tuple(n for n in SCHEMA.columns if n not in ("id", "note"))
    assert found.output == tuple(n for n in SCHEMA.columns if n != "note")
    assert found.shape(("age", "sex", "city", "grade")) == (111, 3, 3, 3)
    assert found.shape(()) == ()
    assert found.cells(("sex", "grade")) == 9
    assert found.cells(()) == 1
    assert (found.ordered("age"), found.ordered("sex"), found.ordered("insured")) == (111, 0, 0)
    assert found.ordered("seen") == found.size("seen") - 1
    assert [found.label("city", code) for code in range(3)] == ["Paris", "other", "other_"]
    assert found.label("sex", 2) == "(missing)"
    codes = found.encode(FRAME)
    assert {name: part.tolist() for name, part in codes.items() if name not in ("pay", "born")} == {
        "age": [30, 110, 0],
        "sex": [0, 2, 2],
        "city": [0, 2, 2],
        "visits": [2, 5, 0],
        "seen": [codes["seen"][0], found.size("seen") - 1, found.ordered("seen") - 1],
        "insured": [1, 0, 2],
        "grade": [2, 0, 0],
    }
    assert found.label("pay", int(codes["pay"][1])) == "(missing)"
    assert found.label("pay", int(codes["pay"][2])) == "1024.3"


def test_the_table_comes_back_with_its_types_and_order() -> None:
    found = domain()
    table = found.decode(found.encode(FRAME), rng=np.random.default_rng(1))
    assert list(table.columns) == list(found.output)
    text = pd.Series(["a"]).dtype
    assert {name: str(dtype) for name, dtype in table.dtypes.items()} == {
        "id": "int64",
        "age": "int64",
        "sex": str(text),
        "city": str(text),
        "pay": "float64",
        "visits": "int64",
        "born": "datetime64[s]",
        "seen": "datetime64[s]",
        "insured": "boolean",
        "grade": "int64",
    }
    assert table["id"].tolist() == [1, 2, 3]
    assert table["age"].tolist() == [30, 110, 0]
    again = found.encode(table)
    assert all((again[name] == part).all() for name, part in found.encode(FRAME).items())


def test_integers_domain() -> None:
    found = Domain.integers({"a": 3, "b": 4, "c": 2000}, ordered=("a", "c"))
    assert found.shape(("a", "b", "c")) == (3, 4, 2000)
    assert [found.ordered(name) for name in "abc"] == [3, 0, 2000]
    codes = {"a": np.array([2, 0]), "b": np.array([3, 1]), "c": np.array([1999, 0])}
    table = found.decode(codes, rng=np.random.default_rng(0))
    assert {name: table[name].tolist() for name in table} == {
        n: c.tolist() for n, c in codes.items()
    }


@pytest.mark.parametrize(
    "codes",
    [
        {"a": np.array([0])},
        {"a": np.array([0]), "b": np.array([0, 1])},
        {"a": np.array([0]), "b": np.array([4])},
        {"a": np.array([-1]), "b": np.array([0])},
        {"a": np.array([[0]]), "b": np.array([[0]])},
        {},
    ],
)
def test_what_is_no_codes_is_refused(codes: Any) -> None:
    with pytest.raises(InvalidRequest):
        Domain.integers({"a": 3, "b": 4}).decode(codes, rng=np.random.default_rng(0))


def test_a_frame_without_a_column_is_refused_and_further_ones_are_not_read() -> None:
    small = Domain.integers({"a": 3})
    with pytest.raises(InvalidRequest, match="'a'"):
        small.encode(pd.DataFrame({"b": [1]}))
    assert list(small.encode(pd.DataFrame({"b": [1], "a": [2]}))) == ["a"]


@pytest.mark.parametrize(
    ("columns", "output"),
    [
        ({"x": Drop()}, []),
        ({"x": Key()}, ["x"]),
        ({"x": Drop(), "y": Key(), "z": Boolean()}, ["y", "z"]),
    ],
)
def test_few_columns(columns: dict[str, Column], output: list[str]) -> None:
    found = resolve(Schema(columns), categories={}, bounds={})
    codes = found.encode(pd.DataFrame({"z": [True, False]}))
    table = found.decode(codes, rng=np.random.default_rng(0))
    assert list(table.columns) == output
    assert len(table) == (2 if codes else 0)
    none = found.decode(
        {name: part[:0] for name, part in codes.items()}, rng=np.random.default_rng(0)
    )
    assert none.shape == (0, len(output))
    if codes:
        assert none.dtypes.to_dict() == table.dtypes.to_dict()


def test_json_is_stable_to_the_byte() -> None:
    text = json.dumps(domain().to_json())
    again = Domain.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert again == domain()
    assert "Infinity" not in text
    assert "NaN" not in text


def test_another_process_decodes_the_same(tmp_path: Path) -> None:
    found = domain()
    path = tmp_path / "domain.json"
    path.write_text(json.dumps(found.to_json()), encoding="utf-8")
    rng = np.random.default_rng(3)
    codes = {name: rng.integers(0, found.size(name), 50) for name in found.names}
    np.savez(tmp_path / "codes.npz", **codes)
    program = (
        "import json, sys, numpy as np\n"
        "from dpsynth.domain import Domain\n"
        "folder = sys.argv[1]\n"
        "domain = Domain.from_json(json.load(open(folder + '/domain.json', encoding='utf-8')))\n"
        "codes = dict(np.load(folder + '/codes.npz'))\n"
        "table = domain.decode(codes, rng=np.random.default_rng(9))\n"
        "table.to_csv(folder + '/there.csv', index=False)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    here = found.decode(codes, rng=np.random.default_rng(9))
    assert here.to_csv(index=False) == (tmp_path / "there.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.update(format_version=2),
        lambda data: data.update(format_version=True),
        lambda data: data.pop("output"),
        lambda data: data["columns"][0].pop("name"),
        lambda data: data["columns"][0].update(codec="spline"),
        lambda data: data["columns"][0].update(further=1),
        lambda data: data["columns"].insert(0, 5),
    ],
)
def test_what_is_no_domain_is_refused(damage: Any) -> None:
    data = json.loads(json.dumps(domain().to_json()))
    damage(data)
    with pytest.raises(InvalidRequest):
        Domain.from_json(data)


def test_public_facts() -> None:
    facts = {each["name"]: each for each in domain().public_facts()}
    assert facts["age"] == {
        "name": "age",
        "type": "integer",
        "declared": "bounds declared",
        "missing": False,
        "size": 111,
        "source": "form 7",
        "attested_by": "J. Doe",
    }
    assert facts["city"]["declared"] == facts["pay"]["declared"] == "discovered (paid)"
    assert facts["sex"]["declared"] == "categories declared"
    assert facts["insured"]["declared"] == "type declared"
    assert "id" not in facts
    facts["age"]["type"] = "changed"
    assert domain().public_facts()[0]["type"] == "integer"


def test_what_is_neither_declared_nor_discovered_is_named() -> None:
    with pytest.raises(InvalidRequest, match="city, pay, visits, seen"):
        resolve(SCHEMA, categories={}, bounds={})


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_encoding_concatenated_frames(data: Any) -> None:
    found = domain()
    cell = st.one_of(
        st.none(), st.integers(), st.floats(), st.text(max_size=3), st.booleans(), st.dates()
    )
    rows = st.lists(st.fixed_dictionaries(dict.fromkeys(FRAME.columns, cell)), max_size=4)
    parts = [pd.DataFrame(data.draw(rows), columns=FRAME.columns, dtype=object) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas' own concat
        whole = pd.concat(parts)
    codes = found.encode(whole)
    for name, part in codes.items():
        assert part.tolist() == [*found.encode(parts[0])[name], *found.encode(parts[1])[name]]


@pytest.mark.skipif(not ADULT.is_file(), reason="needs the shared data folder")
def test_adult_codes_the_same_from_texts_and_from_typed_columns() -> None:
    texts = pd.read_csv(ADULT, dtype=object, na_filter=False, nrows=3000)
    typed = pd.read_csv(ADULT, keep_default_na=False, na_values=[""], nrows=3000)
    columns: dict[str, Column] = {
        str(name): Integer(0, 10**6)
        if pd.api.types.is_integer_dtype(typed[name])
        else Categorical(tuple(sorted(set(texts[name]) - {""})), missing=True)
        for name in typed.columns
    }
    found = resolve(Schema(columns), categories={}, bounds={})
    one, two = found.encode(texts), found.encode(typed)
    assert all((one[name] == two[name]).all() for name in found.names)
    table = found.decode(one, rng=np.random.default_rng(0))
    again = found.encode(table)
    assert all((one[name] == again[name]).all() for name in found.names)
