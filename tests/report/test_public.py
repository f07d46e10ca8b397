"""The public report: complete, escaped, self-contained, and never without its limits."""

from __future__ import annotations

import re
import warnings
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dpsynth.report import public_html
from dpsynth.report.columns import BINS, MOST_CATEGORIES, MOST_FIGURES, Figure, figure
from tests.report.report_page import HOSTILE, Page, faults, paths, sample_facts, without

PROMISED_NOWHERE = re.compile(r"\b(safe|safely|anonym\w*|100\s*% private|gdpr)\b", re.IGNORECASE)


def small_table() -> pd.DataFrame:
    return pd.DataFrame({"age": [30, 31, 31, 99], "town": ["Ulm", "Ulm", "Bonn", None]})


def page(facts: dict[str, Any] | None = None, table: pd.DataFrame | None = None) -> Page:
    return Page(public_html(facts or sample_facts(), small_table() if table is None else table))


def test_page_is_sound() -> None:
    assert faults(page()) == []


def test_faults_can_be_found() -> None:
    bad = "<div><script>x</script><p id=a></p><p id=a></p><a href='http://x'></a><svg></svg>"
    found = faults(Page(bad))
    for fault in ("unbalanced div", "element script", "two elements", "attribute href", "http:"):
        assert any(fault in each for each in found), fault
    assert "a drawing without a name" in found
    assert "not one main heading" in found


NUMBERS = [
    *("1.25", "1e-06", "0.1 %", "1 %", "0.32 %", "3.21 %"),  # the promise
    *("13.57 %", "24.68 %", "35.79 %", "26.22 %", "26.29 %"),  # with prior knowledge
    *("0.4375", "3e-07", "the 2019 survey", "B. Clerk", "11.19 %"),  # so far, declared too
    *("ada", "grace", "2027-01-31"),  # who answers for it
    *("2.0625", "3.5", "1.7e-06", "4e-06", "0.8125", "1.4375"),  # spent; elsewhere; left
    *("33.1", "17", "20.5", "13", "0.0525", "8.15", "214.6", "91", "20 %"),  # steps
    *("at most 1,234 marginal tables", "6.125 or more"),  # a divided step
    *("111", "43", "30,123", "48,838"),  # columns and rows
    *("0.0341", "0.0021", "92", "0.03 to 0.0382"),  # fidelity: 0.0341 -+ 1.96 * 0.0021
    *("82.31 %", "76.07 %", "0.78 %", "80.78 % to 83.84 %"),  # utility
    *("2.02 %", "1.85 %", "0.17", "-0.88 to 1.23", "0.3779", "0.7559", "1.78"),  # first attack
    *("4.44 %", "1.11 %", "3.33", "2.22 to 5.55", "0.0161", "0.0323", "1.63"),  # second
]


@pytest.mark.parametrize("number", NUMBERS)
def test_number_is_shown(number: str) -> None:
    assert number in page().text


@pytest.mark.parametrize(
    ("epsilon", "odds"), [(0.0, "1.0"), (1.0, "2.72"), (1.25, "3.50"), (10.0, "22,100")]
)
def test_odds_are_rounded_up(epsilon: float, odds: str) -> None:
    facts = sample_facts()
    facts["statement"]["epsilon"] = epsilon
    assert f"at most {odds}-fold, delta aside" in page(facts).text


def test_limits_are_rounded_up() -> None:
    facts = sample_facts()
    facts["statement"]["attacker"][1]["true_positive_rate_at_most"] = 0.02706101
    shown = page(facts)
    assert shown.text.count("2.707 %") == 4  # card, drawing and its tooltip, table
    assert "2.706 %" not in shown.text


def test_texts_are_shown() -> None:
    shown = page().text
    for each in (
        *("dpsynth 0.1.7", "2026-02-03T04:05:06Z", "clinic-2026", "res-77aa", "res-88bb"),
        *sample_facts()["statement"]["sentences"],
        *sample_facts()["statement"]["not_covered"],
        *("one person, with at most 5 rows of theirs", "by patient", "add or remove one unit"),
        *("bounds declared", "discovered (paid)", "code book", "A. Steward"),
        *("Over 92 pairs the tables differ in 3.4%.", "A classifier is right in 82.3%."),
        *("For review", "Distance ratio found an excess.", "Name", "Role", "Date"),
        "Exact match: an excess of 0.17 points.",
        "Excesses below 1.78 points",
        "An audit can refute a claim, not prove it",
    ):
        assert each in shown


def test_wording_promises_no_more_than_was_proved() -> None:
    assert not PROMISED_NOWHERE.search(page().source)
    assert PROMISED_NOWHERE.search("It is Anonymous.")


@pytest.mark.parametrize("path", paths(sample_facts()), ids="/".join)
def test_any_fact_may_be_missing(path: tuple[str, ...]) -> None:
    assert faults(page(without(sample_facts(), path))) == []


@pytest.mark.parametrize("path", paths(sample_facts()), ids="/".join)
@pytest.mark.parametrize(
    "value", [None, float("nan"), "?", [], {}, -1, 10**400, True], ids=lambda v: repr(v)[:8]
)
def test_any_fact_may_be_odd(path: tuple[str, ...], value: Any) -> None:
    facts = sample_facts()
    inner = facts
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert faults(page(facts)) == []


def test_no_facts_at_all() -> None:
    empty = page({"format_version": 1}, pd.DataFrame())
    assert faults(empty) == []
    assert "not given" in empty.text
    assert "Undefined" not in empty.source


def test_findings_under_other_names() -> None:
    found = {
        "attack": "exact match",
        "audit_in": 1234,
        "held_out": 1233,
        "rate_in": 0.5,
        "rate_out": 0.25,
        "p_value": 0.125,
        "p_holm": 0.375,
        "smallest_effect": 0.0625,
    }
    facts = sample_facts(verdict={"outcome": "fail", "sentence": "Fail: x.", "findings": [found]})
    shown = page(facts).text
    for each in ("Exact match", "1,234 units", "1,233 units", "25.00", "0.1250", "0.3750", "6.25"):
        assert each in shown


@pytest.mark.parametrize(
    ("outcome", "label"),
    [
        ("not detected", "Not detected"),
        ("review", "For review"),
        ("fail", "Fail"),
        ("not tested", "Not tested"),
    ],
)
def test_outcome_is_said_in_words(outcome: str, label: str) -> None:
    facts = sample_facts(
        verdict={"outcome": outcome, "sentence": f"{outcome}: why.", "findings": []}
    )
    assert f"Membership attacks {label} Why." in page(facts).text


def test_untested_release_says_so() -> None:
    facts = sample_facts(
        verdict={"outcome": "not tested", "sentence": "Not tested: no.", "findings": []}
    )
    assert "no attack was compared with units held out" in page(facts).text


def test_unit_of_a_row_is_not_called_a_person() -> None:
    shown = page(sample_facts(unit={"unit": "row", "rows": 1, "audit_share": 0})).text
    assert "one row, not one person" in shown
    assert "accuses rows of being in the data" in shown
    assert "set aside for the audit" not in shown


def test_no_utility() -> None:
    assert "No column was named" in page(sample_facts(utility=None)).text


# -- hostile strings -----------------------------------------------------------------------------


def hostile(data: Any) -> Any:
    """Return the data with every text replaced by an attack."""
    if isinstance(data, dict):
        return {key: hostile(value) for key, value in data.items()}
    if isinstance(data, list):
        return [hostile(each) for each in data]
    return HOSTILE if isinstance(data, str) else data


def test_hostile_facts_and_values_are_text() -> None:
    table = pd.DataFrame({HOSTILE: [HOSTILE, "b", None], "n": [1, 2, 3]})
    shown = page(hostile(sample_facts()), table)
    assert faults(shown) == []
    assert "<script" not in shown.source.lower()
    assert HOSTILE[:40] in shown.text


def test_hostile_category_is_text_within_a_drawing() -> None:
    value = "</svg><script>x"
    shown = page(table=pd.DataFrame({"a": [value]}))
    assert faults(shown) == []
    (label,) = [each["aria-label"] for each in shown.all("svg") if value in str(each["aria-label"])]
    assert label == f"a: 1 distinct values; most frequent is {value}: 100\u00a0%."


@pytest.mark.parametrize("text", ["\u202egpj", "a\u2066b", "a\x00b", "a\x1bb"])
def test_characters_that_mislead_are_replaced(text: str) -> None:
    shown = public_html(sample_facts(account=text, columns=[]), pd.DataFrame({text: [text]}))
    assert not set(text) & set("\u202e\u2066\x00\x1b") & set(shown)
    assert "\N{REPLACEMENT CHARACTER}" in shown


def test_lone_surrogate_can_be_written() -> None:
    table = pd.DataFrame({"a": pd.Series(["\udfff", "x"], dtype=object)})
    table.columns = pd.Index(["a\ud800"], dtype=object)
    facts = sample_facts(account="\ud800")
    assert faults(Page(public_html(facts, table).encode("utf-8").decode())) == []


def test_language_joiners_are_kept() -> None:
    assert "می\u200cخواهم" in page(table=pd.DataFrame({"a": ["می\u200cخواهم"]})).source


# -- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame(),
        pd.DataFrame({"a": []}),
        pd.DataFrame({"a": [1]}),
        pd.DataFrame({"a": [None, None]}),
        pd.DataFrame({"a": [np.nan, np.nan], "b": pd.Series([pd.NaT, pd.NaT])}),
        pd.DataFrame({"a": pd.Series([True, False, None], dtype="boolean")}),
        pd.DataFrame({"a": pd.Series([1, None], dtype="Int64")}),
        pd.DataFrame({"a": pd.Categorical(["x", None, "x"], categories=["x", "unused"])}),
        pd.DataFrame({"a": [np.inf, -np.inf, np.nan, 1.0]}),
        pd.DataFrame({"a": [-1.7e308, 1.7e308]}),
        pd.DataFrame({"a": [1.0, np.nextafter(1.0, 2)]}),
        pd.DataFrame({"a": [-(2**63), 2**63 - 1]}),
        pd.DataFrame({"a": [1j, 2j]}),
        pd.DataFrame({"a": [[1], [2], [1]]}),
        pd.DataFrame({"a": pd.to_timedelta([1, 2], unit="h")}),
        pd.DataFrame({"a": pd.to_datetime(["2020-01-01", None])}),
        pd.DataFrame({"a": pd.to_datetime(["2020-01-01", "2021-01-01"]).tz_localize("Asia/Tokyo")}),
        pd.DataFrame({"a": [date(1, 1, 1), date(9999, 12, 31), None]}),
        pd.DataFrame([[1, 2], [3, 4]], columns=["same", "same"]),
        pd.DataFrame({0: [1], ("a", "b"): [2]}),
        pd.DataFrame({"x" * 100_000: ["y" * 1_000_000]}),
    ],
)
def test_any_table(table: pd.DataFrame) -> None:
    before = table.copy(deep=True)
    source = public_html(sample_facts(), table)
    assert faults(Page(source)) == []
    assert len(source) < 60_000
    pd.testing.assert_frame_equal(table, before)


def test_twenty_columns_are_small() -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            **{f"number {i}": rng.normal(size=1000) for i in range(10)},
            **{f"name {i}": rng.integers(0, 500, 1000).astype(str) for i in range(10)},
        }
    )
    columns = [{"name": str(c), "type": "real", "declared": "bounds"} for c in table]
    assert len(public_html(sample_facts(columns=columns), table).encode()) < 150_000


def test_many_columns_are_cut_with_a_note() -> None:
    table = pd.DataFrame({f"c{i}": [i] for i in range(500)})
    shown = page(sample_facts(columns=[{"name": str(c)} for c in table]), table)
    assert len(shown.all("figure")) == MOST_FIGURES
    assert "has 500 columns; only the first 60 are drawn" in shown.text
    assert "c499" in shown.text  # what was declared is listed in full
    assert "are drawn" not in page().text


def test_keys_are_not_drawn() -> None:
    facts = sample_facts(columns=[{"name": "id", "type": "key"}])
    shown = page(facts, pd.DataFrame({"id": ["secret-1", "secret-2"]}))
    assert "made up for this table" in shown.text
    assert "secret-1" not in shown.source


# -- drawings of columns -------------------------------------------------------------------------


def shares(drawn: Figure) -> list[float]:
    """Return the shares that a drawing's titles tell."""
    return [float(bar.title.rpartition(": ")[2].rstrip("\u00a0%")) / 100 for bar in drawn.bars]


def test_bins_agree_with_counting() -> None:
    values = np.random.default_rng(2).normal(size=2000)
    drawn = figure("a", pd.Series(values))
    expected = np.histogram(values, bins=BINS)[0] / 2000
    assert shares(drawn) == pytest.approx(expected, abs=1e-5)
    assert drawn.missing == 0


def test_bins_of_whole_numbers_are_whole() -> None:
    # 0..47, each once: 24 bins of two. Bins of equal real width would do worse for 0..48.
    assert shares(figure("a", pd.Series(range(48)))) == pytest.approx([2 / 48] * 24, abs=1e-5)
    wide = figure("a", pd.Series(range(49)))
    assert shares(wide) == pytest.approx([3 / 49] * 16 + [1 / 49], abs=1e-4)
    assert [bar.title.partition(":")[0] for bar in wide.bars[-2:]] == ["45 to 47", "48"]


def test_categories_by_hand() -> None:
    values = [f"v{i:02}" for i in range(20) for _ in range(20 - i)] + [None] * 40
    drawn = figure("a", pd.Series(values, dtype=object))
    assert drawn.labels == (*(f"v{i:02}" for i in range(MOST_CATEGORIES)), "8 others")
    assert shares(drawn) == pytest.approx(
        [(20 - i) / 250 for i in range(MOST_CATEGORIES)] + [36 / 250]
    )
    assert drawn.missing == pytest.approx(40 / 250)


def test_missing_and_infinite_values_are_missing() -> None:
    drawn = figure("a", pd.Series([1.0, 2.0, np.nan, np.inf]))
    assert drawn.missing == 0.5
    assert drawn.labels == ("1", "2")
    assert figure("a", pd.Series([None, None])).missing == 1.0


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (pd.to_datetime(["2020-02-01", "2021-03-04"]), ("2020-02-01", "2021-03-04")),
        (
            pd.to_datetime(["2020-02-01 10:00", "2020-02-01 11:30"]),
            ("2020-02-01 10:00:00", "2020-02-01 11:30:00"),
        ),
        ([date(2020, 2, 1), date(2021, 3, 4)], ("2020-02-01", "2021-03-04")),
        (pd.to_datetime(["1960-02-01", "2021-03-04"]), ("1960-02-01", "2021-03-04")),
        ([12285, 1484705], ("12285", "1484705")),
        ([0.25, 0.75], ("0.25", "0.75")),
    ],
)
def test_ends_of_the_axis(values: Any, labels: tuple[str, str]) -> None:
    assert figure("a", pd.Series(values)).labels == labels


def test_datetimes_as_objects_are_dates() -> None:
    column = pd.Series([datetime(2020, 1, 1, 5), datetime(2020, 1, 3)], dtype=object)
    assert figure("a", column).labels == ("2020-01-01", "2020-01-03")


def test_truth_values_are_categories() -> None:
    assert figure("a", pd.Series([True, True, False])).labels == ("True", "False")


def test_nothing_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        public_html(sample_facts(), pd.DataFrame({"a": [np.nan, 1e308, -1e308]}))


FOUND = [
    *("epsilon 0.3117 at delta 1e-06", "11.25 and 13.75 units", "57 to 142 units"),
    *("town 0, town 1,", "town 11 and 31 more", "200 to 4999"),
]


@pytest.mark.parametrize("said", FOUND)
def test_what_was_found_and_for_how_much(said: str) -> None:
    assert said in page().text
    assert said not in page({**sample_facts(), "discovery": None}).text
