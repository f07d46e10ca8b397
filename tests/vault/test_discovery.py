"""Private discovery: how much what is shown may tell, by its exact law; and what is found."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import dpsynth as dp
from dpsynth.vault import Discover, _discover, discovery_weight, make_plan
from dpsynth.vault._discover import event_of, rounds_of
from dpsynth_accounting import Event, InvalidRequest, curve
from tests.vault.conftest import MakeVault
from tests.vault.exact import with_threshold

# -- the law of what is shown, in full -----------------------------------------------------------

Held = dict[str, frozenset[str]]
"""The categories that each unit holds, as "column value"."""
Law = dict[tuple[frozenset[str], ...], float]
"""The probability of what is shown, round by round."""


@functools.cache
def reaches(sigma2: Fraction, least: int) -> float:
    """Return P(N_Z(0, sigma2) >= least), by adding up its mass."""
    reach = math.ceil(14 * math.sqrt(sigma2)) + abs(least)
    x = np.arange(-reach, reach + 1)
    mass = np.exp(-(x.astype(np.float64) ** 2) / (2 * float(sigma2)))
    return float(mass[x >= least].sum() / mass.sum())


def law_of(held: Held, event: Event, k: int) -> Law:
    """Return the exact law of what the rounds of a discovery show of categories, in one column."""
    names = sorted(frozenset().union(*held.values()))
    law: Law = {(): 1.0}
    for round_ in rounds_of(event):
        assert round_.categories is not None
        more: Law = {}
        for before, chance in law.items():
            shown = frozenset().union(*before)
            left = [name for name in names if name not in shown]
            rows = [
                (unit, left.index(c)) for unit, own in enumerate(held.values()) for c in own - shown
            ]
            units, cells = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
            (counts,) = _discover.spread([(cells, len(left))], units, k, round_.categories)
            chances = [reaches(round_.categories.sigma2, round_.least - int(c)) for c in counts]
            for seen in product((False, True), repeat=len(left)):
                new = frozenset(name for name, yes in zip(left, seen, strict=True) if yes)
                p = math.prod(c if yes else 1 - c for c, yes in zip(chances, seen, strict=True))
                more[*before, new] = chance * p
        law = more
    return law


def excess(one: Law, two: Law, epsilon: float) -> float:
    """Return the greatest excess of one law over e^epsilon times the other, either way round."""

    def above(p: Law, q: Law) -> float:
        return sum(
            max(0.0, each - math.exp(epsilon) * q.get(what, 0.0)) for what, each in p.items()
        )

    return max(above(one, two), above(two, one))


K = 3
EPSILON, DELTA = Fraction(1), Fraction(1, 100)
MANY = {f"unit {i}": frozenset("a" if i % 3 else "ab") for i in range(40)}
"""Units with a frequent category, and a third of them with a rarer one."""
OF_ONE: dict[str, frozenset[str]] = {
    "nothing new": frozenset("ab"),
    "one that nobody has": frozenset("c"),
    "a known and a new one": frozenset("ac"),
    "three that nobody has": frozenset("cde"),
}


EPSILONS = (0.0, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0)
"""The last ones leave no more than the delta of the thresholds."""


def told(extra: frozenset[str], units: int = 40) -> float:
    """Return by how much what one unit more changes exceeds what is charged, at any epsilon."""
    plan = make_plan((Discover(1, 0, 1.0),), dp.Person("p", rows=K), EPSILON, DELTA)
    fewer = dict(list(MANY.items())[:units])
    laws = [law_of(held, plan.events[0], K) for held in (fewer, {**fewer, "one more": extra})]
    charged = curve(plan.events[0])
    return max(excess(*laws, epsilon) - float(charged.delta(epsilon)) for epsilon in EPSILONS)


@pytest.mark.parametrize("units", [1, 12, 40])
@pytest.mark.parametrize("name", OF_ONE)
def test_what_is_shown_tells_no_more_than_is_charged(name: str, units: int) -> None:
    assert told(OF_ONE[name], units) <= 1e-12


def test_a_unit_whose_categories_weigh_full_each_is_flagged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unspread(
        looked: Sequence[tuple[NDArray[np.int64], int]], *words: Any
    ) -> list[NDArray[np.int64]]:
        weight = math.isqrt(words[-1].l2_squared)
        return [np.bincount(cells[cells >= 0], minlength=size) * weight for cells, size in looked]

    monkeypatch.setattr(_discover, "spread", unspread)
    assert told(OF_ONE["three that nobody has"]) > 1e-4


def test_a_threshold_for_one_new_category_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the weight to be spread over all the categories that a unit can bring."""
    honest = _discover.threshold
    with_threshold(monkeypatch, lambda s, d, w, c: honest(s, d, math.isqrt(w**2 // c), 1))
    assert told(OF_ONE["one that nobody has"]) > 1e-4
    assert told(OF_ONE["three that nobody has"]) > 1e-4


# -- what is found -------------------------------------------------------------------------------


def wide(rows: int = 6000) -> pd.DataFrame:
    """Return rows of which nothing is declared: categories, amounts, codes, days, a spike."""
    rng = np.random.default_rng(4)
    return pd.DataFrame(
        {
            "person": np.repeat(np.arange(rows // 2), 2),
            "city": rng.choice([f"city {i}" for i in range(60)], rows, p=zipf(60)),
            "code": rng.choice(list("ABC"), rows),
            "pay": np.where(rng.random(rows) < 0.3, 0.0, rng.lognormal(8, 1, rows).round(2)),
            "age": rng.integers(18, 91, rows),
            "seen": pd.Timestamp("2021-01-01") + pd.to_timedelta(rng.integers(0, 700, rows), "D"),
        }
    )


def zipf(size: int) -> NDArray[np.float64]:
    weights = 1 / np.arange(1, size + 1)
    return np.asarray(weights / weights.sum())


TYPES = dp.Schema(
    {"city": dp.Open(), "code": dp.Open(), "pay": dp.Real(), "age": dp.Integer(), "seen": dp.Date()}
)


def test_types_alone_are_enough(make_vault: MakeVault) -> None:
    table = wide()
    vault = make_vault(table, TYPES, unit=dp.Person("person", rows=2), epsilon=20.0)
    domain = vault.discover(epsilon=1)
    facts = {fact["name"]: fact for fact in domain.public_facts()}
    assert {fact["declared"] for fact in facts.values()} == {"discovered (paid)"}
    cities = set(domain.codecs["city"].texts)  # type: ignore[union-attr]
    frequent = table["city"].value_counts()
    assert set(frequent.index[:8]) <= cities
    assert set(domain.codecs["code"].texts) >= set("ABC")  # type: ignore[union-attr]
    pay, age = domain.codecs["pay"], domain.codecs["age"]
    assert pay.starts[0] == 0  # type: ignore[union-attr]
    codes = pay.encode(table["pay"])
    assert (codes == pay.encode(pd.Series([0.0]))[0]).mean() < 0.35  # the spike is alone
    assert (age.starts[0], age.upper) == (10, 99) or age.starts[0] <= 18  # type: ignore[union-attr]
    drawn = dp.MST().fit(vault, epsilon=2).sample(2000, rng=np.random.default_rng(0))
    assert abs((drawn["pay"] == 0).mean() - 0.3) < 0.05
    assert abs(drawn["age"].mean() - table["age"].mean()) < 4


def test_rarer_categories_are_shown_once_the_frequent_ones_weigh_nothing(
    make_vault: MakeVault,
) -> None:
    """A person holds three frequent categories and one rarer one; only the last round shows it."""
    rows = 4000
    table = pd.DataFrame({name: ["yes"] * rows for name in "abc"})
    table["d"] = ["rare"] * 110 + ["usual"] * (rows - 110)
    schema = dp.Schema({name: dp.Open() for name in "abcd"})
    seen: list[int] = []
    for _ in range(5):
        codec = make_vault(table, schema, epsilon=20.0).discover(epsilon=1).codecs["d"]
        seen.append("rare" in codec.texts)  # type: ignore[union-attr]
    assert sum(seen) >= 4
    event = event_of(4, 0, 1, 0.1, Fraction(1, 10**6))
    first = rounds_of(event)[0]
    assert first.categories is not None
    assert first.least > 110 * 32  # spread over four columns it would have stayed hidden


def test_the_price_of_a_discovery_grows_with_what_is_left_open() -> None:
    none = dp.Schema({"a": dp.Boolean()})
    half = dp.Schema({"a": dp.Boolean(), "b": dp.Open()})
    whole = dp.Schema({"a": dp.Integer(), "b": dp.Open()})
    weights = [discovery_weight(schema) for schema in (none, half, whole)]
    assert weights[0] == 0
    assert 0 < weights[1] < weights[2] < 1


def test_next_to_no_delta_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="declare the categories"):
        _discover.threshold(Fraction(100), Fraction(1, 10**310), 64, 1)


def test_many_rows_and_columns_take_no_time_to_price() -> None:
    (round_, *_) = rounds_of(event_of(1000, 0, 1000, 0.1, Fraction(1, 10**6)))
    assert round_.least > 0
