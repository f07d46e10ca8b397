"""The internal report: marked on its face, complete, and unmoved by what it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsynth.attacks import Claim, internal_results
from dpsynth.domain import Domain
from dpsynth.report import internal_html
from dpsynth.report.internal import BANNER, MOST_ROWS, section, text
from tests.report.report_page import HOSTILE, Page, faults, sample_facts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


def page(internal: dict[str, Any]) -> Page:
    return Page(internal_html(sample_facts(), internal))


def results() -> dict[str, Any]:
    """Return the results of attacking codes without any meaning."""
    rng = np.random.default_rng(3)
    domain = Domain.integers({"a": 9, "b": 4, "c": 7}, ordered=("a",))

    def rows(n: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        return np.column_stack([rng.integers(0, s, n) for s in (9, 4, 7)]).astype(np.int32)

    return internal_results(
        domain=domain,
        release=rows(80),
        train=rows(200),
        audit_in=rows(60),
        audit_in_units=np.arange(60),
        held_out=rows(50),
        held_out_units=np.arange(50),
        rng=rng,
        claim=Claim(((1.5, 1e-6),)),
    ).to_json()


def leaves(data: Any) -> list[Any]:
    """Return the single figures of nested data."""
    if isinstance(data, dict):
        return [leaf for value in data.values() for leaf in leaves(value)]
    if isinstance(data, list | tuple):
        return [leaf for value in data for leaf in leaves(value)]
    return [data]


def test_banner_is_on_its_face_and_repeated() -> None:
    shown = page({})
    assert shown.text.startswith(f"Internal report: do not distribute {BANNER}")
    assert shown.text.count(BANNER) == 3
    assert BANNER == (
        "Derived from personal data without differential privacy. "
        "For the custodian only: do not distribute."
    )


def test_top_is_that_of_the_public_report() -> None:
    shown = page({}).text
    for each in ("What was promised", "1.25", "For review", "0.0341", "82.31 %", "not tested"):
        assert each in shown
    assert "Sign-off" not in shown


def test_real_results_are_all_shown() -> None:
    internal = {"attacks": results()}
    shown = page(internal)
    assert faults(shown) == []
    assert "Membership attacks on the most isolated units" in shown.text
    for leaf in leaves(internal):
        if isinstance(leaf, float) and leaf not in (0.95, float("inf")):
            assert f"{leaf:.6g}" in shown.text


def test_results_that_could_not_be_computed_are_named() -> None:
    assert "Copy detector not computed" in page({"attacks": {"copies": None}}).text


def test_likes_stand_in_one_table() -> None:
    data = {
        name: {"rate_in": low, "rate_out": 2 * low} for name, low in (("x", 0.125), ("y", 0.25))
    }
    found = section("t", "", {**data, "n": 3})
    assert found.grid is not None
    assert found.grid.header == ("", "Rate of units that were in", "Rate of units held out")
    assert found.grid.rows == (("X", "0.125", "0.25"), ("Y", "0.25", "0.5"))
    assert found.values == (("N", "3"),)
    assert found.parts == ()


def test_records_with_other_keys_stand_in_one_table() -> None:
    (part,) = section("t", "", {"rows": [{"a": 1}, {"b": [1, 2]}]}).parts
    assert part.grid is not None
    assert part.grid.header == ("A", "B")
    assert part.grid.rows == (("1", ""), ("", "1, 2"))


def test_long_tables_and_lists_are_cut_with_a_note() -> None:
    shown = page({"many": [{"i": i} for i in range(MOST_ROWS + 7)]}).text
    assert "7 further rows are in report.json" in shown
    assert text(list(range(MOST_ROWS + 7))).endswith(", 199, and 7 more")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "not computed"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.125, "0.125"),
        (float("inf"), "inf"),
        ([], "none"),
        ({}, "none"),
        ({"low": 0.1, "high": 0.2, "level": 0.9}, "0.1 to 0.2 (90\u00a0% interval)"),
        ({"value": 0.5, "interval": {"low": 0.1, "high": 0.9}}, "0.5; 0.1 to 0.9 (interval)"),
        ({"low": 0.1, "high": 0.2, "why": "x"}, '{"low": 0.1, "high": 0.2, "why": "x"}'),
    ],
)
def test_figures_as_text(value: Any, shown: str) -> None:
    assert text(value) == shown


def test_deep_nesting_ends() -> None:
    data: dict[str, Any] = {"leaf": 0.4375}
    for _ in range(50):
        data = {"inner": data}
    shown = page(data)
    assert faults(shown) == []
    assert "0.4375" in shown.text


def test_hostile_names_and_values_are_text() -> None:
    data = {HOSTILE: {HOSTILE: HOSTILE, "x": [{HOSTILE: HOSTILE}], "y": [HOSTILE]}}
    shown = page(data)
    assert faults(shown) == []
    assert "<script" not in shown.source.lower()


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_nested_data_make_a_sound_page(data: dict[str, Any]) -> None:
    shown = page(data)
    assert faults(shown) == []
    shown.source.encode("utf-8")
