"""A holdout of the owner's own: behind the same bound and the same promise, and never fitted."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import dpsynth as dp
from dpsynth.domain import resolve
from dpsynth.vault import Audit, Exposed, Measure, Statistic, _rows, _vault
from dpsynth.vault._bound import AUDIT_IN, HELD_OUT, TRAIN
from dpsynth_accounting import DiscreteGaussian, InvalidRequest, LedgerError, SamePeople, flatten
from tests.vault.conftest import MakeVault
from tests.vault.exact import PLANS, HasCode, without_noise

KEY = b"k" * 32
K = 2
PERSON = dp.Person("id", rows=K)
SCHEMA = dp.Schema({"a": dp.Integer(0, 2), "b": dp.Categorical(("x", "y"))})

Row = tuple[int, int, str]
Sides = tuple[list[Row], list[Row]]
"""The rows of a table, and those of its holdout."""


def frame(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "a", "b"]).astype(object)


def kept(sides: Sides, unit: dp.Row | dp.Person, share: float = 0.5) -> _rows.Kept:
    table, holdout = map(frame, sides)
    keys = {"rows_key": KEY, "coins_key": KEY[::-1]}
    return _rows.keep(table, unit, share=share, holdout=holdout, **keys)


def test_all_of_the_table_is_fitted_and_all_of_the_holdout_is_held_out() -> None:
    table = [(i, i % 3, "x") for i in range(20_000)]
    found = kept((table, [(i, 1, "y") for i in range(30_000, 30_500)]), dp.Row(), share=0.2)
    assert found.holdout is not None
    assert set(found.roles.tolist()) == {TRAIN, AUDIT_IN}
    assert abs(int((found.roles == AUDIT_IN).sum()) - 4000) < 6 * np.sqrt(3200)
    assert found.holdout.roles.tolist() == [HELD_OUT] * 500
    assert not set(found.units.tolist()) & set(found.holdout.units.tolist())


def test_who_is_in_both_counts_as_in_the_table_and_the_bound_holds_in_each() -> None:
    table = [(1, 0, "x")] * 3 + [(2, 1, "x")]
    found = kept((table, [(1, 2, "y"), (3, 2, "y"), (3, 1, "y"), (3, 0, "y")]), PERSON)
    assert found.holdout is not None
    assert Counter(found.frame["id"]) == {"1": K, "2": 1}
    assert Counter(found.holdout.frame["id"]) == {"3": K}


def test_rows_are_units_by_themselves_on_either_side() -> None:
    found = kept(([(1, 0, "x")] * 3, [(1, 0, "x")] * 2), dp.Row())
    assert found.holdout is not None
    assert (len(found.units), len(found.holdout.units)) == (3, 2)


def test_a_holdout_takes_nothing_from_the_table_and_gives_nothing_to_it() -> None:
    """What a row reads as does not depend on the other table, nor on how that one is held."""
    table = frame([(i, i % 3, "x") for i in range(50)])
    numbers = table.assign(a=table["a"].astype(np.int64))
    floats = pd.DataFrame({"id": ["new"], "a": [1.0], "b": ["y"]})
    options = {"share": 0.5, "rows_key": KEY, "coins_key": KEY[::-1]}
    alone = _rows.keep(numbers, PERSON, holdout=floats.iloc[:0], **options)  # type: ignore[arg-type]
    beside = _rows.keep(numbers, PERSON, holdout=floats, **options)  # type: ignore[arg-type]
    assert alone.frame.equals(beside.frame)
    assert np.array_equal(alone.roles, beside.roles)
    coded = beside.coded(resolve(SCHEMA, categories={}, bounds={}))
    assert coded.codes["a"].tolist() == [*(i % 3 for i in range(50)), 1]
    assert coded.roles.tolist() == [*beside.roles.tolist(), HELD_OUT]


# -- sensitivity ---------------------------------------------------------------------------------


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch the noise off."""
    without_noise(monkeypatch)
    monkeypatch.setattr(_vault, "make_plan", PLANS)


Answers = dict[str, tuple[NDArray[np.int64], DiscreteGaussian]]


def answers(sides: Sides, unit: dp.Row | dp.Person) -> Answers:
    """Return the exact answers of a measure step and of an audit step, with their events."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = dp.Ledger(Path(folder) / "ledger.db")
        ledger._secret = b"one secret for all of the tables"
        account = ledger.account("x", dp.Budget(60.0, 1e-3))
        table, holdout = map(frame, sides)
        vault = dp.Vault(table, SCHEMA, account, unit=unit, audit_share=0.5, holdout=holdout)
        with vault.reserve((Measure(1, 1.0), Audit(2, 1, 1.0)), epsilon=5, label="t") as block:
            (cells,) = block.measure([("a", "b")])
            model = {("a", "b"): np.array([[1, 0], [2, 1], [0, 3]])}
            found = block.audit([Statistic(HasCode(0)), Statistic(HasCode(1))], model, about="t")
        (measured,) = (leaf for leaf, _ in flatten(block.plan.events[0]))
        counts, distance = (
            leaf for leaf, _ in flatten(block.plan.events[1]) if isinstance(leaf, DiscreteGaussian)
        )
    assert isinstance(measured, DiscreteGaussian)
    both = [[each.audit_in for each in found.counts], [each.held_out for each in found.counts]]
    return {
        "cells": (cells.values.ravel(), measured),
        "counts": (np.array(both).ravel(), counts),
        "distance": (np.array([found.distance]), distance),
    }


def neighbours(sides: Sides, unit: dp.Row | dp.Person) -> Iterator[Sides]:
    """Yield the pairs of tables without one unit: a person in one table or in both, or a row."""
    if isinstance(unit, dp.Person):
        for person in sorted({row[0] for side in sides for row in side}):
            yield tuple([row for row in side if row[0] != person] for side in sides)  # type: ignore[misc]
        return
    for which, side in enumerate(sides):
        for place in range(len(side)):
            fewer = side[:place] + side[place + 1 :]
            yield (fewer, sides[1]) if which == 0 else (sides[0], fewer)


def faults(sides: Sides, unit: dp.Row | dp.Person) -> set[str]:
    """Return which answers one unit moves by more than their events say."""
    whole, found = answers(sides, unit), set()
    for fewer in neighbours(sides, unit):
        for name, (values, _) in answers(fewer, unit).items():
            exact, event = whole[name]
            change = exact - values
            too_far = int((change**2).sum()) > event.l2_squared
            if too_far or int((change != 0).sum()) > event.shifts:
                found.add(name)
    return found


rows = st.tuples(st.integers(0, 3), st.integers(-1, 3), st.sampled_from("xyz"))
tables = st.lists(rows, max_size=6)

DOUBLE: list[Sides] = [
    ([(0, 0, "x"), (0, 1, "x"), (1, 2, "y")], [(0, 0, "x"), (0, 1, "x"), (2, 2, "y")]),
    ([(i % 2, i % 3, "x") for i in range(8)], [(i % 3, i % 2, "x") for i in range(8)]),
    ([], [(0, 0, "x")] * 4),
    ([(0, 0, "x")] * 4, []),
]


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("unit", [dp.Row(), PERSON], ids=["row", "person"])
@pytest.mark.parametrize("sides", DOUBLE, ids=range(len(DOUBLE)))
def test_no_unit_moves_an_answer_by_more_than_its_event_says(
    sides: Sides, unit: dp.Row | dp.Person
) -> None:
    assert faults(sides, unit) == set()


@pytest.mark.parametrize("unit", [dp.Row(), PERSON], ids=["row", "person"])
@pytest.mark.usefixtures("exact")
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=tables, holdout=tables)
def test_no_unit_of_any_small_tables_does(
    unit: dp.Row | dp.Person, table: list[Row], holdout: list[Row]
) -> None:
    assert faults((table, holdout), unit) == set()


@pytest.mark.usefixtures("exact")
def test_a_person_who_counts_on_both_sides_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: whoever is in both tables keeps their rows in both."""
    cut = _rows._cut
    monkeypatch.setattr(_rows, "_cut", lambda *arguments: cut(*arguments[:4]))
    assert "counts" in set().union(*(faults(sides, PERSON) for sides in DOUBLE))


@pytest.mark.usefixtures("exact")
def test_a_holdout_without_a_bound_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: only the table itself is cut to the bound; a person stands for many units."""

    def loose(holdout: pd.DataFrame, main: _rows.Kept, *_: object) -> _rows.Kept:
        first = int(main.units.max(initial=-1)) + 1
        units = first + np.arange(len(holdout))
        return _rows.Kept(holdout, units, np.full(len(holdout), HELD_OUT, dtype=np.uint8))

    monkeypatch.setattr(_rows, "_apart", loose)
    assert "counts" in set().union(*(faults(sides, PERSON) for sides in DOUBLE))


# -- through the vault ---------------------------------------------------------------------------


def people(first: int, last: int, value: int = 1) -> pd.DataFrame:
    numbers = np.repeat(np.arange(first, last), 3)
    return pd.DataFrame({"id": numbers, "a": value, "b": "x"})


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("write", [None, "csv", "parquet"])
def test_only_the_audit_sees_a_holdout(
    make_vault: MakeVault, tmp_path: Path, write: str | None
) -> None:
    def as_given(table: pd.DataFrame, name: str) -> pd.DataFrame | Path:
        path = tmp_path / f"{name}.{write}"
        if write == "csv":
            table.to_csv(path, index=False)
        elif write == "parquet":
            table.to_parquet(path, index=False)
        return path if write else table

    table, holdout = people(0, 100), people(50, 130, value=2)
    vault = make_vault(
        as_given(table, "t"),
        SCHEMA,
        unit=PERSON,
        audit_share=0.5,
        holdout=as_given(holdout, "h"),
    )
    with vault.reserve((Measure(1, 1.0), Audit(2, 0, 1.0)), epsilon=5, label="t") as block:
        (cells,) = block.measure([("a",)])
        found = block.audit([Statistic(HasCode(1)), Statistic(HasCode(2))], {}, about="t")
    assert cells.values.tolist() == [0, 100 * K, 0]
    one, two = found.counts
    assert (one.held_out, two.audit_in, two.held_out) == (0, 0, 30)
    assert 20 < one.audit_in < 80

    def look(seen: Exposed) -> tuple[int, int, int, int]:
        assert not set(seen.audit_in_units) & set(seen.held_out_units)
        return (
            len(seen.train) + len(seen.audit_in),
            len(np.unique(seen.audit_in_units)),
            len(seen.held_out),
            len(np.unique(seen.held_out_units)),
        )

    assert vault.inspect(look, purpose="test") == (100 * K, one.audit_in, 30 * K, 30)


@pytest.mark.usefixtures("exact")
def test_discovery_does_not_see_a_holdout(make_vault: MakeVault) -> None:
    schema = dp.Schema({"b": dp.Open()})
    table = pd.DataFrame({"b": ["here"] * 500})
    holdout = pd.DataFrame({"b": ["only there"] * 500})
    vault = make_vault(table, schema, audit_share=0.2, holdout=holdout)
    assert vault.discover(epsilon=2).codecs["b"].texts == ("here", "other")  # type: ignore[union-attr]


def test_a_holdout_of_another_form_is_refused_before_anything(
    make_vault: MakeVault, tmp_path: Path
) -> None:
    short = people(9, 12).drop(columns="b")
    with pytest.raises(InvalidRequest, match="'b'"):
        make_vault(people(0, 9), SCHEMA, unit=PERSON, audit_share=0.2, holdout=short)
    path = tmp_path / "holdout.csv"
    for text, why in (("id,a\n1,2\n", "'b'"), ('id,a,b\n1,2,"x\n', "never closes")):
        path.write_text(text)
        vault = make_vault(people(0, 9), SCHEMA, unit=PERSON, audit_share=0.2, holdout=path)
        with pytest.raises(InvalidRequest, match=why) as refusal:
            vault.measure([("a",)], epsilon=1)
        assert not refusal.value.touched
        assert float(vault.account.remaining()[0]) == 10.0
    with pytest.raises(InvalidRequest, match="audit share of 0"):
        make_vault(people(0, 9), SCHEMA, unit=PERSON, audit_share=0.0, holdout=people(9, 12))


Open = Callable[..., dp.Vault]


@pytest.fixture
def on(tmp_path: Path) -> Open:
    """Return a maker of vaults on accounts of one ledger."""
    ledger = dp.Ledger(tmp_path / "ledger.db")

    def make(name: str, table: pd.DataFrame, holdout: pd.DataFrame | None) -> dp.Vault:
        account = ledger.account(name, dp.Budget(10.0, 1e-6))
        return dp.Vault(table, SCHEMA, account, unit=PERSON, holdout=holdout)

    return make


def test_a_run_with_coins_and_one_with_a_holdout_are_of_other_units(on: Open) -> None:
    first = on("a", people(0, 200), people(200, 300))
    first.measure([("a",)], epsilon=1)
    (plan,) = (
        entry["payload"]["plan"]
        for entry in first.account.ledger.entries("a")
        if entry["payload"]["kind"] == "reserve"
    )
    assert plan["unit"]["holdout"] == "own"
    with pytest.raises((InvalidRequest, LedgerError), match="unit"):
        on("a", people(0, 200), None).measure([("a",)], epsilon=1)
    on("a", people(0, 200), people(300, 400)).measure([("a",)], epsilon=1)
    coins = on("b", people(1000, 1200), None)
    coins.measure([("a",)], epsilon=1)
    assert "holdout" not in coins._unit_facts()


def test_a_block_is_resumed_with_a_holdout_and_not_without(on: Open) -> None:
    steps = (Measure(1, 1.0),)

    def run(holdout: pd.DataFrame | None, *, stop: bool, resume: bool) -> None:
        vault = on("a", people(0, 200), holdout)
        with vault.reserve(steps, epsilon=1, label="t", resume=resume) as block:
            (found,) = block.measure([("a",)])
            seen.append(found.values.tolist())
            if stop:
                raise KeyboardInterrupt

    seen: list[list[int]] = []
    with pytest.raises(KeyboardInterrupt):
        run(people(200, 300), stop=True, resume=False)
    with pytest.raises((InvalidRequest, LedgerError), match="unit"):
        run(None, stop=False, resume=True)
    run(people(200, 300), stop=False, resume=True)
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert float(on("a", people(0, 1), None).account.remaining()[0]) == 9.0


def test_people_of_a_holdout_are_recognised_under_another_account(on: Open) -> None:
    on("a", people(0, 200), people(200, 600)).measure([("a",)], epsilon=1)
    with pytest.raises(SamePeople):
        on("b", people(200, 600), None).measure([("a",)], epsilon=1)
    with pytest.raises(SamePeople):
        on("c", people(1000, 1010), people(0, 600)).measure([("a",)], epsilon=1)
