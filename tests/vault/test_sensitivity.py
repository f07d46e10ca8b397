"""Brute force: no neighbour moves an exact answer by more than its event says.

Noise is switched off, and every answer of every method of the vault is seen as it is before noise:
for random and adversarial small tables, for every unit that could be removed, and for further units
that could be added. Later questions may follow from earlier answers, so the answers that the first
table got are played to its neighbours: both are then asked the same. Twins must be flagged.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

import dpsynth as dp
from dpsynth.vault import (
    Audit,
    Block,
    Choose,
    Discover,
    Divide,
    Judged,
    Measure,
    Plan,
    Select,
    Statistic,
    _block,
    _bound,
    _choose,
    _discover,
    _divide,
    _noise,
    _vault,
)
from dpsynth.vault._discover import rounds_of
from dpsynth_accounting import (
    DiscreteGaussian,
    Division,
    Event,
    Exponential,
    GaussianBlock,
    Repeat,
    flatten,
)
from tests.vault.exact import (
    PLANS,
    Exact,
    FreeAccount,
    HasCode,
    seen_exactly,
    with_threshold,
)
from tests.vault.replay import Tape

COLUMNS = ["person", "a", "b", "c", "d"]
DECLARED = dp.Schema(
    {"a": dp.Integer(0, 2), "b": dp.Categorical(("x", "y")), "c": dp.Boolean(missing=True)}
)
OPEN = dp.Schema({"a": dp.Integer(), "b": dp.Open(), "c": dp.Open(), "d": dp.Date()})
REALS = dp.Schema({"a": dp.Real(), "b": dp.Open(), "d": dp.Datetime(missing=True)})
CELLS = dp.Schema({"a": dp.Integer(0, 10**6, bins="adaptive"), "d": dp.Date(), "c": dp.Boolean()})
K = 3
SETTINGS = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Row = tuple[object, ...]
Unit = dp.Row | dp.Person
Sides = tuple[list[Row], list[Row] | None]
"""A table, and the holdout of its owner's, if there is one: that is public, and may be empty."""

contents = st.tuples(
    st.one_of(st.integers(-1, 4), st.none(), st.just(10**9)),
    st.sampled_from(["x", "y", "z", None]),
    st.sampled_from([True, False, None]),
    st.sampled_from([datetime.date(2020, 1, 1), datetime.date(1, 1, 1), None]),
)
tables = st.lists(st.builds(lambda who, row: (who, *row), st.integers(0, 3), contents), max_size=9)
new_units = st.lists(contents, min_size=1, max_size=7).map(lambda rows: [(9, *r) for r in rows])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Price plans once, and show every category that occurs."""
    monkeypatch.setattr(_vault, "make_plan", PLANS)
    with_threshold(monkeypatch, lambda *_: 1)


# Of a discovery: all categories are shown at once, or those of several units, or none ever.
THRESHOLDS = {"all": 1, "some": 150, "none": 10**9}


def frame(table: Sequence[Row]) -> pd.DataFrame:
    return pd.DataFrame(table, columns=COLUMNS).astype(object)


# -- every question of the vault -----------------------------------------------------------------

STEPS = (
    Measure(2, 1.0),
    Measure(2, 1.0),
    Select(2, 1.0),
    Divide(20, 1.0),
    Audit(4, 2, 1.0),
    Choose(3, 2, 1.0),
    Choose(2, 0, 1.0),
)
HALVES = {"a": np.array([0, 0, 1]), "c": np.array([0, 1, 1])}
MARGINALS = {
    ("a", "b"): np.array([[1, 0], [2, 1], [0, 3]]),
    ("c", "a"): np.array([[0, 1, 4], [0, 0, 0], [7, 0, 1]]),
    ("b",): np.array([2, 5]),
}
WEIGHTS = dict(zip(MARGINALS, (3, 1, 2), strict=True))
OFFSETS = dict(zip(MARGINALS, (4, -2, 0), strict=True))
STATISTICS = [
    Statistic(HasCode(0)),
    Statistic(HasCode(1)),
    Statistic(HasCode(1), first_row=True),
    Statistic(HasCode(2, threshold=-1.0)),
]
PARTS = {0: [3], 1: [2 * 2]}
"""Where the marginals of the Measure steps begin in their joined counts."""


def ask(block: Block) -> None:
    """Ask a block everything it can answer once the domain is known."""
    block.measure([("a",), ("b", "c")])
    block.measure([("a", "b"), ("c",)], HALVES)
    block.select(MARGINALS, lambda chosen: [each for each in MARGINALS if each not in chosen])
    shared = block.divide()
    shared.score(MARGINALS, Fraction(1, 8))
    shared.measure([("a", "b"), ("c",)], [Fraction(1, 2), Fraction(1, 4)], HALVES)
    shared.choose(MARGINALS, Fraction(1, 16), weights=WEIGHTS, offsets=OFFSETS)
    shared.choose(MARGINALS, Fraction(1, 32), weights=WEIGHTS, offsets=OFFSETS)
    few = dict(list(MARGINALS.items())[:2])
    block.audit(STATISTICS, few, about="test")
    block.choose([Judged("a", few), Judged("b", scaled_by(0, few)), Judged("c", scaled_by(9, few))])
    block.choose([Judged("a", statistic=each) for each in STATISTICS[:2]])


def scaled_by(factor: int, answers_: dict[Any, NDArray[np.int64]]) -> dict[Any, NDArray[np.int64]]:
    return {clique: factor * each for clique, each in answers_.items()}


def answers(sides: Sides, unit: Unit, share: float, schema: dp.Schema) -> tuple[list[Exact], Plan]:
    """Return every answer of a block as it is before noise, and the plan."""
    table, holdout = sides
    with seen_exactly() as seen:
        vault = dp.Vault(
            frame(table),
            schema,
            FreeAccount(),  # type: ignore[arg-type]
            unit=unit,
            audit_share=share,
            holdout=None if holdout is None else frame(holdout),
        )
        steps = vault.discovery(1.0) or STEPS
        with vault.reserve(steps, epsilon=5, label="test") as block:
            if not isinstance(steps[0], Discover):
                ask(block)
    return seen, block.plan


def neighbours(sides: Sides, unit: Unit, more: list[Row]) -> Iterator[Sides]:
    """Yield the tables with one unit less, and those with the rows of one unit more."""
    table, holdout = sides
    held = holdout or []

    def both(rows: list[Row], apart: list[Row]) -> Sides:
        return rows, None if holdout is None else apart

    if isinstance(unit, dp.Person):
        for person in {row[0] for row in table + held}:
            one, two = ([row for row in side if row[0] != person] for side in (table, held))
            yield both(one, two)
        yield both(table + more, held)
        if holdout is not None:
            yield table, held + more
            yield more[:1] + table, more[1:] + held
    else:
        for i in range(len(table)):
            yield both(table[:i] + table[i + 1 :], held)
        for i in range(len(held)):
            yield table, held[:i] + held[i + 1 :]
        yield both(table + more[:1], held)
        if holdout is not None:
            yield table, held + more[:1]


def violations(
    sides: Sides,
    unit: Unit,
    *,
    share: float = 0.5,
    schema: dp.Schema = DECLARED,
    more: Sequence[Row] = (),
) -> list[str]:
    """Return which answers move by more than the plan says, over all neighbours of a table.

    Args:
        sides: The table and its holdout.
        unit: The unit that is enforced.
        share: Probability that a unit is audited.
        schema: The declared facts.
        more: The rows of a further unit.
    """
    tape = Tape()
    with tape.recording():
        exact, plan = answers(sides, unit, share, schema)
    faults = {"Divide: more than was charged"} if overspent(exact, plan) else set()
    for other in neighbours(sides, unit, list(more)):
        with tape.playing() as played:
            found, _ = answers(other, unit, share, schema)
        if played.asked != tape.asked:
            faults.add("what is asked")
        for one, two in zip(exact, found, strict=True):
            kind = type(plan.steps[one.index]).__name__
            faults |= {f"{kind}: {fault}" for fault in moved(one, two, plan)}
    return sorted(faults)


def moved(one: Exact, two: Exact, plan: Plan) -> Iterator[str]:
    """Yield what moves by more, between two exact answers, than the event of their step says."""
    step, leaves = plan.steps[one.index], flatten(plan.events[one.index])
    if isinstance(step, Discover):
        priced = rounds_of(plan.events[one.index])[one.part]
        for event, change in zip((priced.categories, priced.ranges), apart(one, two), strict=True):
            if exceeded(change, event):
                yield "an answer"
        return
    if isinstance(step, Divide):
        yield from divided(one, two, step, plan.events[one.index])
        return
    for epsilon, sensitivity, change in choices(one, two):
        if epsilon > leaves[0][0].epsilon:  # type: ignore[union-attr]
            yield "the epsilon of a choice"
        if np.abs(change).max() > sensitivity:
            yield "a score"
    for event in (leaf for leaf, _ in leaves if isinstance(leaf, DiscreteGaussian)):
        times = sum(n for leaf, n in leaves if leaf == event)
        changes = [c for sigma2, c in differences(one, two, step, event) if sigma2 == event.sigma2]
        if any(exceeded(change, event) for change in changes):
            yield "an answer"
        if len(changes) > times:
            yield "more answers than were charged"


def divided(one: Exact, two: Exact, step: Divide, event: Event) -> Iterator[str]:
    """Yield what moves by more than its noise, or its choice, allows for."""
    for (sigma2, mine), (_, yours) in zip(one.counts, two.counts, strict=True):
        squared, shifts = shares_of(one, mine, step, event)
        if exceeded(mine - yours, DiscreteGaussian(sigma2, max(squared, shifts), shifts)):
            yield "an answer"
    if any(np.abs(change).max() > sensitivity for _, sensitivity, change in choices(one, two)):
        yield "a score"


def shares_of(one: Exact, mine: NDArray[np.int64], step: Divide, event: Event) -> tuple[int, int]:
    """Return the squared sensitivity and the shifts of an answer of a Divide step."""
    if not isinstance(event, GaussianBlock):
        raise TypeError("a Divide step is a Gaussian block")
    k = event.shifts // step.answers
    return (k * k * len(mine), len(mine)) if one.part == 0 else (k * k, k)  # part 0 holds scores


def overspent(exact: Sequence[Exact], plan: Plan) -> bool:
    """Say whether all answers of the Divide step together take more than its precision.

    A choice takes the mu^2 of Phi(mu / 2) = 1 / (1 + exp(-epsilon / 2)), written down apart.
    """
    spent = 0.0
    for one in exact:
        step, event = plan.steps[one.index], plan.events[one.index]
        if isinstance(step, Divide) and isinstance(event, GaussianBlock):
            for sigma2, mine in one.counts:
                squared, _ = shares_of(one, mine, step, event)
                spent += float(squared / (sigma2 - Fraction(3, 2)) / event.precision)
            for epsilon, _, _ in one.scores:
                mu = 2 * norm.isf(1 / (1 + math.exp(float(epsilon) / 2)))
                spent += mu**2 / float(event.precision)
    return spent > 1


def exceeded(change: NDArray[np.int64], event: DiscreteGaussian | None) -> bool:
    """Say whether counts moved by more than they are priced for; by nothing, if they are not."""
    if event is None:
        return bool(change.any())
    return bool((change**2).sum() > event.l2_squared or (change != 0).sum() > event.shifts)


def choices(one: Exact, two: Exact) -> Iterator[tuple[Fraction, int, NDArray[np.int64]]]:
    """Yield of each choice its epsilon, its sensitivity, and how the scores differ."""
    for (epsilon, sensitivity, mine), (*_, yours) in zip(one.scores, two.scores, strict=True):
        yield epsilon, sensitivity, mine - yours


def differences(
    one: Exact, two: Exact, step: object, event: DiscreteGaussian
) -> Iterator[tuple[Fraction, NDArray[np.int64]]]:
    """Yield of each answer of a step the sigma squared of its noise, and how its counts differ."""
    for (sigma2, mine), (_, yours) in zip(one.counts, two.counts, strict=True):
        if isinstance(step, Measure):
            yield from ((sigma2, c) for c in np.split(mine - yours, PARTS[one.index]))
        else:
            yield sigma2, mine - yours
    if isinstance(step, Audit) and event.shifts == 1:
        far = [json.loads(each.drawn)["distance"] for each in (one, two)]
        yield event.sigma2, np.array([far[0] - far[1]])


def apart(one: Exact, two: Exact) -> list[NDArray[np.int64]]:
    """Return how the counts of one round of a discovery differ: categories together, then cells."""
    changes: list[list[int]] = [[], []]
    for place, ((_, mine), (_, yours)) in enumerate(zip(one.counts, two.counts, strict=True)):
        if place < len(one.texts):  # a neighbour may have other categories
            left = dict(zip(one.texts[place], mine.tolist(), strict=True))
            right = dict(zip(two.texts[place], yours.tolist(), strict=True))
            changes[0] += [left.get(text, 0) - right.get(text, 0) for text in left | right]
        else:
            changes[1] += (mine - yours).tolist()
    return [np.array(each, dtype=np.int64) for each in changes]


# -- the bound holds -----------------------------------------------------------------------------

PERSON = dp.Person("person", rows=K)
UNITS = pytest.mark.parametrize("unit", [dp.Row(), PERSON], ids=["row", "person"])


@UNITS
@SETTINGS
@given(table=tables, more=new_units)
def test_no_unit_moves_an_answer_by_more_than_its_event_says(
    unit: Unit, table: list[Row], more: list[Row]
) -> None:
    assert violations((table, None), unit, more=more) == []


@UNITS
@SETTINGS
@given(table=tables, holdout=tables, more=new_units)
def test_nor_with_a_holdout_of_the_owners(
    unit: Unit, table: list[Row], holdout: list[Row], more: list[Row]
) -> None:
    assert violations((table, holdout), unit, more=more) == []


@UNITS
@pytest.mark.parametrize("schema", [OPEN, REALS, CELLS], ids=["open", "reals", "cells"])
@pytest.mark.parametrize("least", THRESHOLDS.values(), ids=THRESHOLDS)
@SETTINGS
@given(table=tables, more=new_units)
def test_no_unit_moves_a_discovery_by_more_than_its_event_says(
    unit: Unit, schema: dp.Schema, least: int, table: list[Row], more: list[Row]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        with_threshold(patch, lambda *_: least)
        assert violations((table, None), unit, schema=schema, more=more) == []


DAY = datetime.date(2020, 2, 29)
ADVERSARIAL: list[list[Row]] = [
    [(0, 1, "x", True, DAY)] * 9,  # one person is the table
    [(0, a, b, c, None) for a in (0, 1, 2) for b in "xy" for c in (True, False, None)],
    [(p, 1, "x", True, DAY) for p in range(9)],  # persons alike
    [(p, 10**40 * (p - 1), f"city {i}", object(), i) for i, p in enumerate((0, 0, 0, 0, 1, 2))],
    [(p, None, None, None, None) for p in (0, 0, 1, None, None)],
    [(p % 2, p, "xyz"[p % 3], p % 2 == 0, DAY) for p in range(9)],
]


@pytest.mark.parametrize("schema", [DECLARED, OPEN], ids=["declared", "open"])
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("table", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_adversarial_tables(table: list[Row], k: int, schema: dp.Schema) -> None:
    unit = dp.Person("person", rows=k)
    for more in ADVERSARIAL:
        new = [(9, *row[1:]) for row in more]
        assert violations((table, None), unit, schema=schema, more=new) == []
    assert violations((table, table), dp.Row(), schema=schema) == []


def test_the_worst_person_moves_a_cell_by_exactly_the_bound() -> None:
    worst: list[Row] = [(0, 1, "x", True, DAY)] * 7
    rest: list[Row] = [(1, 2, "y", False, DAY)]
    (whole, *_), _ = answers((worst + rest, None), PERSON, 0.0, DECLARED)
    (least, *_), _ = answers((rest, None), PERSON, 0.0, DECLARED)
    (_, one), (_, two) = whole.counts[0], least.counts[0]
    assert (one - two)[:3].tolist() == [0, K, 0]


# -- the broken twins ----------------------------------------------------------------------------

TWO: Sides = ([(0, 1, "x", True, DAY)] * 7 + [(1, 2, "y", False, DAY)], None)
CITIES: Sides = ([(0, i, f"city {i}", i, DAY) for i in range(9)], None)
MANY: Sides = ([(p, p, "xyz"[p % 3], True, DAY) for p in (0, 0, 0, 0, 1, 1, 2)], None)


def all_held_out(patch: pytest.MonkeyPatch) -> None:
    def held(words: NDArray[np.uint64], *_: object, **__: object) -> NDArray[np.uint8]:
        return np.full(len(words), _bound.HELD_OUT, dtype=np.uint8)

    patch.setattr(_bound, "roles", held)


def test_an_unbounded_person_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        _bound, "keep_rows", lambda units, *_: np.flatnonzero(np.asarray(units) >= 0)
    )
    found = violations(TWO, PERSON, share=0.0)
    answers_ = {"Measure: an answer", "Select: a score", "Divide: an answer", "Audit: an answer"}
    assert answers_ <= set(found)
    assert "Discover: an answer" in violations(CITIES, PERSON, share=0.0, schema=OPEN)


def test_persons_priced_as_rows_are_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several rows a person, and a promise about single rows."""
    monkeypatch.setattr(
        _vault, "make_plan", lambda steps, _, *rest, **more: PLANS(steps, dp.Row(), *rest, **more)
    )
    assert "Measure: an answer" in violations(TWO, PERSON, share=0.0)


def test_a_part_bound_claimed_for_the_whole_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each marginal moves by k, and all of them are charged as if together they did."""

    def one_for_all(*words: Any) -> Plan:
        plan = PLANS(*words)
        events = [e.event if isinstance(e, Repeat) else e for e in plan.events]
        return replace(plan, events=tuple(events))

    monkeypatch.setattr(_vault, "make_plan", lambda *words, **_: one_for_all(*words))
    assert "Measure: more answers than were charged" in violations(TWO, PERSON)


def rows_over(
    statistic: Statistic, least: float, records: NDArray[np.int32], units: NDArray[np.int64]
) -> int:
    del units
    return int((statistic.of.score(records) >= least).sum()) if len(records) else 0


def test_rows_counted_where_units_are_charged_are_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    all_held_out(monkeypatch)
    monkeypatch.setattr(_block, "units_over", rows_over)
    assert "Audit: an answer" in violations(TWO, PERSON)


def test_a_squared_score_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    distances = Block._distances
    monkeypatch.setattr(
        Block,
        "_distances",
        lambda self, *asked: {c: far * far for c, far in distances(self, *asked).items()},
    )
    found = violations(TWO, dp.Row(), share=0.0)
    assert {"Select: a score", "Divide: an answer", "Divide: a score"} <= set(found)


def test_a_choice_among_tables_with_the_bound_of_one_marginal_is_flagged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A table's distance is over two marginals, of which a person moves each by all rows."""

    def of_one(scores: NDArray[np.int64], epsilon: Fraction, _: int, *rest: Any) -> int:
        return _noise.exponential(scores, epsilon, K, *rest)

    monkeypatch.setattr(_choose, "_noise", SimpleNamespace(exponential=of_one))
    assert "Choose: a score" in violations(TWO, PERSON, share=0.0)


def test_a_choice_by_rows_where_units_are_charged_is_flagged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def all_in(words: NDArray[np.uint64], *_: object, **__: object) -> NDArray[np.uint8]:
        return np.full(len(words), _bound.AUDIT_IN, dtype=np.uint8)

    monkeypatch.setattr(_bound, "roles", all_in)
    assert violations(TWO, PERSON) == []
    monkeypatch.setattr(_choose, "units_over", rows_over)
    assert violations(TWO, PERSON) == ["Choose: a score"]


def test_a_choice_of_weighted_scores_with_the_bound_of_plain_ones_is_flagged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of_one(*words: Any) -> Any:
        return max(*words) if len(words) > 1 else 1

    monkeypatch.setattr(_divide, "max", of_one, raising=False)
    rare: Sides = ([(0, 0, "y", True, DAY)] * 7, None)  # where the model says that no row is
    assert violations(rare, PERSON, share=0.0) == ["Divide: a score"]


def test_a_choice_priced_as_by_zcdp_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epsilon of 2 * sqrt(precision) has that rho, and not that mu."""

    def dear(cost: Fraction) -> Exponential:
        return Exponential(Fraction(2 * math.sqrt(cost)))

    monkeypatch.setattr(_divide, "choice_within", dear)
    monkeypatch.setattr(Division, "take", lambda *_: None)
    assert "Divide: more than was charged" in violations(TWO, PERSON, share=0.0)


def test_a_score_that_mixes_units_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each audited unit counts if it is among the commonest: a new one moves the others' counts."""

    def common(
        statistic: Statistic, least: float, records: NDArray[np.int32], units: NDArray[np.int64]
    ) -> int:
        del statistic, least
        return len(np.unique(units)) ** 2 * bool(len(records))

    all_held_out(monkeypatch)
    monkeypatch.setattr(_block, "units_over", common)
    assert "Audit: an answer" in violations(MANY, PERSON)


def test_a_role_that_follows_from_the_place_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coins by position: a row less at the front gives all others new ones."""

    def by_place(words: NDArray[np.uint64], share: float, **_: object) -> NDArray[np.uint8]:
        return (np.arange(len(words)) % 3).astype(np.uint8)

    monkeypatch.setattr(_bound, "roles", by_place)
    table: list[Row] = [(p, p % 3, "xy"[p % 2], True, DAY) for p in range(9)]
    assert "Measure: an answer" in violations((table, None), dp.Row())


def spread_as(counts_of: Callable[[int, int], int], *, distinct: bool = True) -> Any:
    """Return a twin of the spread of a weight over touched cells: its part of a cell is given."""

    def spread(
        looked: Sequence[tuple[NDArray[np.int64], int]],
        units: NDArray[np.int64],
        k: int,
        event: DiscreteGaussian,
    ) -> list[NDArray[np.int64]]:
        del k
        held = [
            (unit, column, cell)
            for column, (cells, _) in enumerate(looked)
            for unit, cell in zip(units.tolist(), cells.tolist(), strict=True)
            if cell >= 0
        ]
        held = sorted(set(held)) if distinct else held
        counts = [np.zeros(size, dtype=np.int64) for _, size in looked]
        for unit, column, cell in held:
            touched = len({each for each in held if each[0] == unit})
            counts[column][cell] += counts_of(event.l2_squared, touched)
        return counts

    return spread


SPREADS = {
    "the whole weight on each": spread_as(lambda squared, _: math.isqrt(squared)),
    "shares rounded up": spread_as(lambda squared, c: math.isqrt((squared - 1) // c) + 1),
    "shares that add up to the weight": spread_as(lambda squared, c: 2 * math.isqrt(squared) // c),
    "rows, not units": spread_as(lambda squared, c: math.isqrt(squared // c), distinct=False),
}


def test_the_twins_of_the_spread_differ_in_what_they_say_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_discover, "spread", spread_as(lambda squared, c: math.isqrt(squared // c)))
    assert violations(CITIES, PERSON, share=0.0, schema=OPEN) == []
    assert violations(TWO, PERSON, share=0.0, schema=OPEN) == []


@pytest.mark.parametrize("name", SPREADS)
def test_a_weight_that_is_spread_wrongly_is_flagged(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_discover, "spread", SPREADS[name])
    found = violations(CITIES, PERSON, share=0.0, schema=OPEN)
    assert "Discover: an answer" in found + violations(TWO, PERSON, share=0.0, schema=OPEN)
