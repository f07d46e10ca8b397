from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpsynth_accounting import (
    Budget,
    InvalidRequest,
    checked_delta,
    checked_epsilon,
    require_delta_below,
    show,
)


def test_twenty_twentieths_make_the_whole() -> None:
    parts = [checked_epsilon(0.05)] * 20
    assert sum(parts) == Budget(1.0, 1e-6).epsilon
    assert sum([checked_delta(5e-8)] * 20) == Budget(1.0, 1e-6).delta


@pytest.mark.parametrize(
    ("given_as", "read"),
    [
        (0.1, Fraction(1, 10)),
        ("0.1", Fraction(1, 10)),
        ("1/3", Fraction(1, 3)),
        (Decimal("0.10"), Fraction(1, 10)),
        (np.float64(0.1), Fraction(1, 10)),
        (np.float32(0.1), Fraction(1, 10)),
        (3, Fraction(3)),
        (Fraction(2, 3), Fraction(2, 3)),
    ],
)
def test_numbers_are_read_as_they_print(given_as: Any, read: Fraction) -> None:
    assert checked_epsilon(given_as) == read


BAD: list[Any] = [
    float("nan"),
    float("inf"),
    -float("inf"),
    "nan",
    "Infinity",
    0,
    0.0,
    -1,
    -0.1,
    True,
    False,
    None,
    "",
    "much",
    "1/0",
    [1],
    1e400,
    "1e999999999",
    "1e-999999999",
    Decimal("1e-999999999"),
    Decimal("1e999999999"),
    10**400,
]


@pytest.mark.parametrize("value", [*BAD, 65, "64.0001", 1e300])
def test_an_epsilon_without_meaning_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Budget(value, 1e-6)
    assert not refused.value.touched
    assert "nothing was spent" in str(refused.value)


@pytest.mark.parametrize("value", [*BAD, 1, 1.0, 1.5])
def test_a_delta_without_meaning_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest):
        Budget(1.0, value)


def test_a_budget_survives_json() -> None:
    budget = Budget("1/3", 1e-9)
    assert Budget.from_json(budget.to_json()) == budget


def test_another_adjacency_is_refused() -> None:
    data = Budget(1, 1e-6).to_json() | {"adjacency": "replace_one"}
    with pytest.raises(InvalidRequest, match="adjacency"):
        Budget.from_json(data)


@given(st.fractions(Fraction(1, 1000), 3))
def test_the_share_of_delta_is_in_proportion(epsilon: Fraction) -> None:
    budget = Budget(2, 1e-6)
    share = budget.delta_share(epsilon)
    assert share == min(epsilon / 2, Fraction(1)) * Fraction(1, 10**6)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8))
def test_shares_of_delta_add_up_to_delta(weights: list[int]) -> None:
    budget = Budget(2, 1e-6)
    shares = [budget.delta_share(Fraction(2 * w, sum(weights))) for w in weights]
    assert sum(shares) == budget.delta


def test_a_delta_that_could_publish_someone_is_refused() -> None:
    require_delta_below(Fraction(1, 10**6), 1000)
    for delta, units in ((Fraction(1, 1000), 1000), (Fraction(1, 2), 2), (Fraction(1, 10), 100)):
        with pytest.raises(InvalidRequest, match="declared units"):
            require_delta_below(delta, units)


@given(st.fractions(Fraction(1, 10**12), 64))
def test_what_is_shown_never_understates_a_claim(value: Fraction) -> None:
    assert exact_text(show(value, up=False)) <= value <= exact_text(show(value))
    assert exact_text(show(value)) - value <= value / 10**5


def exact_text(text: str) -> Fraction:
    return Fraction(text)
