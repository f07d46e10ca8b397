"""Brute force: no neighbour moves an exact answer by more than its event says.

Noise is switched off, so that the vault shows exact answers; every neighbour (one unit removed) of
random and adversarial small tables is tried. A twin whose unit is not bounded must be flagged.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import dpsynth as dp
from dpsynth._values import text_of
from dpsynth.vault import (
    Audit,
    Block,
    Discover,
    Measure,
    Select,
    Statistic,
    _block,
    _bound,
    _noise,
    _rows,
    _vault,
    make_plan,
)
from dpsynth_accounting import DiscreteGaussian, flatten

SCHEMA = dp.Schema(
    {"a": dp.Integer(0, 2), "b": dp.Categorical(("x", "y")), "c": dp.Boolean(missing=True)}
)
K = 3
RELAXED = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}

PLANS = lru_cache(make_plan)  # calibration is not what is tested here

rows = st.tuples(
    st.integers(0, 3),  # person
    st.one_of(st.integers(-1, 4), st.none()),
    st.sampled_from(["x", "y", "z", None]),
    st.sampled_from([True, False, None]),
)
tables = st.lists(rows, min_size=1, max_size=9)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch the noise off."""
    monkeypatch.setattr(
        _noise, "discrete_gaussian", lambda _, shape: np.zeros(shape, dtype=np.int64)
    )
    monkeypatch.setattr(_vault, "make_plan", PLANS)


@dataclass(frozen=True)
class HasCode:
    """Counts records with a code in the first column."""

    code: int
    threshold: float = 0.5

    @property
    def name(self) -> str:
        return f"code {self.code}"

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        return (records[:, 0] == self.code).astype(np.float64)


def frame(table: Sequence[tuple[object, ...]]) -> pd.DataFrame:
    return pd.DataFrame(table, columns=["person", "a", "b", "c"]).astype(object)


def vault_of(table: pd.DataFrame, unit: dp.Row | dp.Person, share: float, folder: Path) -> dp.Vault:
    """Return a vault with one fixed secret, so that neighbours share their keyed choices."""
    ledger = dp.Ledger(folder / "ledger.db")
    ledger._secret = b"one secret for all of the tables"
    account = ledger.account("x", dp.Budget(60.0, 1e-3))
    return dp.Vault(table, SCHEMA, account, unit=unit, audit_share=share)


def answers(
    table: pd.DataFrame, unit: dp.Row | dp.Person, share: float
) -> tuple[dict[str, NDArray[np.int64]], dict[str, DiscreteGaussian]]:
    """Return the exact answers of a measure step and of an audit step, with their events."""
    with tempfile.TemporaryDirectory() as folder:
        vault = vault_of(table, unit, share, Path(folder))
        steps = (Measure(2, 1.0), Audit(2, 1, 1.0))
        given_: dict[tuple[str, ...], NDArray[np.int64]] = {
            ("a", "b"): np.array([[1, 0], [2, 1], [0, 3]])
        }
        with vault.reserve(steps, epsilon=5, label="test") as block:
            one, two = block.measure([("a",), ("b", "c")])
            found = block.audit(
                [Statistic(HasCode(0)), Statistic(HasCode(1))], given_, about="test"
            )
        counts, distance = (
            leaf for leaf, _ in flatten(block.plan.events[1]) if isinstance(leaf, DiscreteGaussian)
        )
        (cells,) = (leaf for leaf, _ in flatten(block.plan.events[0]))
        assert isinstance(cells, DiscreteGaussian)
    sides = [[c.audit_in for c in found.counts], [c.held_out for c in found.counts]]
    return (
        {
            "one": one.values.ravel(),
            "two": two.values.ravel(),
            "counts": np.array(sides).ravel(),
            "distance": np.array([found.distance]),
        },
        {"one": cells, "two": cells, "counts": counts, "distance": distance},
    )


def violations(
    table: pd.DataFrame, unit: dp.Row | dp.Person, share: float, claimed: dp.Row | dp.Person
) -> list[str]:
    """Return which answers move by more than claimed, over every neighbour of a table."""
    _, promised = answers(table.head(1), claimed, share)
    whole, _ = answers(table, unit, share)
    faults = []
    keys = table["person"] if isinstance(unit, dp.Person) else pd.Series(range(len(table)))
    for key in keys.unique():
        without, _ = answers(table[keys != key].reset_index(drop=True), unit, share)
        for name, event in promised.items():
            change = whole[name] - without[name]
            too_far = int((change**2).sum()) > event.l2_squared
            too_many = int((change != 0).sum()) > event.shifts
            if too_far or too_many:
                faults.append(name)
    return faults


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tables)
def test_no_row_moves_an_answer_by_more_than_its_event_says(
    table: list[tuple[object, ...]],
) -> None:
    assert violations(frame(table), dp.Row(), 0.5, dp.Row()) == []


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tables)
def test_no_person_moves_an_answer_by_more_than_its_event_says(
    table: list[tuple[object, ...]],
) -> None:
    unit = dp.Person("person", rows=K)
    assert violations(frame(table), unit, 0.5, unit) == []


def test_the_worst_person_moves_a_cell_by_exactly_the_bound() -> None:
    table = frame([(0, 1, "x", True)] * 7 + [(1, 2, "y", False)])
    unit = dp.Person("person", rows=K)
    whole, _ = answers(table, unit, 0.0)
    without, _ = answers(table.tail(1), unit, 0.0)
    assert (whole["one"] - without["one"]).tolist() == [0, K, 0]


def test_an_unbounded_person_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: the bound of the unit is declared but not enforced."""
    monkeypatch.setattr(
        _bound, "keep_rows", lambda units, bound, words: np.flatnonzero(np.asarray(units) >= 0)
    )
    table = frame([(0, 1, "x", True)] * 7 + [(1, 2, "y", False)])
    unit = dp.Person("person", rows=K)
    assert "one" in violations(table, unit, 0.0, unit)


def test_row_accounting_of_persons_is_flagged() -> None:
    """The broken twin of the peers: several rows a person, priced as if they were one."""
    table = frame([(0, 1, "x", True)] * 3 + [(1, 2, "y", False)])
    assert "one" in violations(table, dp.Person("person", rows=K), 0.0, dp.Row())


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tables, st.integers(0, 5))
def test_no_unit_moves_a_selection_score_by_more_than_its_rows(
    table: list[tuple[object, ...]], seed: int
) -> None:
    model = np.random.default_rng(seed).integers(0, 4, (3, 2))
    unit = dp.Person("person", rows=K)
    seen: list[NDArray[np.int64]] = []

    def spy(scores: NDArray[np.int64], epsilon: Fraction, sensitivity: int) -> int:
        assert sensitivity == K
        seen.append(scores)
        return 0

    def scores(of: pd.DataFrame) -> int:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(_noise, "exponential", spy)
            vault = vault_of(of, unit, 0.0, Path(folder))
            with vault.reserve((Select(1, 1.0),), epsilon=1, label="test") as block:
                block.select({("a", "b"): model}, lambda _: [("a", "b")])
        return int(seen.pop()[0])

    whole = frame(table)
    for person in whole["person"].unique():
        rest = whole[whole["person"] != person].reset_index(drop=True)
        assert abs(scores(whole) - scores(rest)) <= K


ADVERSARIAL: list[list[tuple[object, ...]]] = [
    [(0, 1, "x", True)] * 9,  # one person is the table
    [(0, a, b, c) for a in (0, 1, 2) for b in "xy" for c in (True, False, None)],
    [(p, 1, "x", True) for p in range(9)],  # persons alike
    [(p, 10**40 * (p - 1), "no category", object()) for p in (0, 0, 0, 0, 1, 2)],
    [(p, None, None, None) for p in (0, 0, 1, None, None)],
    [(p % 2, p, "xyz"[p % 3], p % 2 == 0) for p in range(9)],
]


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("table", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_adversarial_tables(table: list[tuple[object, ...]], k: int) -> None:
    unit = dp.Person("person", rows=k)
    assert violations(frame(table), unit, 0.5, unit) == []
    assert violations(frame(table), dp.Row(), 0.5, dp.Row()) == []


def frequencies(table: pd.DataFrame, unit: dp.Row | dp.Person) -> Counter[str]:
    """Return the exact number of units behind each category, from the thresholds it survives."""
    kept = _rows.keep(table, unit, share=0.5, rows_key=b"r", coins_key=b"c")
    used = kept.roles != _bound.HELD_OUT
    texts, units = text_of(kept.frame["b"])[used], kept.units[used]
    found: Counter[str] = Counter()
    least = 1
    while shown := _block._frequent(texts, units, Fraction(1), least):
        found.update(shown)
        least += 1
    return found


def histogram(table: pd.DataFrame, unit: dp.Row | dp.Person) -> NDArray[np.int64]:
    """Return the exact histogram that finds a range, through the vault."""
    seen: list[bytes] = []
    answer = Block._answer

    def spy(self: Block, *arguments: object) -> bytes:
        seen.append(answer(self, *arguments))  # type: ignore[arg-type]
        return seen[-1]

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Block, "_answer", spy)
        ledger = dp.Ledger(Path(folder) / "ledger.db")
        ledger._secret = b"one secret for all of the tables"
        account = ledger.account("x", dp.Budget(60.0, 1e-3))
        schema = dp.Schema({"a": dp.Integer()})
        dp.Vault(table, schema, account, unit=unit, audit_share=0.5).discover(epsilon=5)
    return np.array(json.loads(seen[0])["histograms"]["a"])


@pytest.mark.parametrize("unit", [dp.Row(), dp.Person("person", K)], ids=["row", "person"])
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=tables)
def test_no_unit_moves_a_discovery_by_more_than_its_event_says(
    unit: dp.Row | dp.Person, table: list[tuple[object, ...]]
) -> None:
    plan = PLANS((Discover(1, 1, 1.0),), unit, Fraction(5), Fraction(1, 1000))
    names, range_ = [e for e, _ in flatten(plan.events[0]) if isinstance(e, DiscreteGaussian)][
        :2
    ] * (2 if unit.rows == 1 else 1)
    whole = frame(table)
    keys = whole["person"] if isinstance(unit, dp.Person) else pd.Series(range(len(whole)))
    counts, cells = frequencies(whole, unit), histogram(whole, unit)
    for key in keys.unique():
        rest = whole[keys != key].reset_index(drop=True)
        fewer = frequencies(rest, unit)
        moved = [counts[name] - fewer[name] for name in counts | fewer]
        assert set(moved) <= {0, 1}
        assert sum(moved) <= min(names.shifts, names.l2_squared)
        change = cells - histogram(rest, unit)
        assert int((change**2).sum()) <= range_.l2_squared
        assert int((change != 0).sum()) <= range_.shifts
