"""The statement as a page: complete, escaped, self-contained, and robust to what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from dpsynth.report import statement_html
from tests.report.report_page import HOSTILE, Page, faults, paths, sample_facts, without

CHECKED = ("Every file is the one of the manifest.", "No approval is recorded.")


def page(promise: dict[str, Any] | None = None, account: str = "clinic-2026") -> Page:
    wanted = sample_facts()["statement"] if promise is None else promise
    return Page(statement_html(wanted, account=account, made="2026-02-03", checked=CHECKED))


def test_page_is_sound() -> None:
    assert faults(page()) == []


@pytest.mark.parametrize(
    "words",
    [
        *("1.25", "1e-06", "one person, with at most 5 rows of theirs", "unbounded", "central"),
        *("0.32 %", "3.21 %", "13.57 %", "24.68 %", "35.79 %", "26.22 %", "26.29 %"),
        *("Declared, not enforced", "the 2019 survey", "B. Clerk", "0.4375", "2.0625", "11.19 %"),
        *("age, weight", "code book", "A. Steward"),
        *("Prepared by", "ada", "Approved by", "grace", "2027-01-31"),
        *("NIST SP 800-226", "Side channels of the machine.", "Other accounts."),
        *sample_facts()["statement"]["sentences"],
        *CHECKED,
    ],
)
def test_everything_is_on_it(words: str) -> None:
    assert words in page().text


@pytest.mark.parametrize("path", paths(sample_facts()["statement"]), ids="-".join)
def test_what_is_missing_is_not_made_up(path: tuple[str, ...]) -> None:
    found = page(without(sample_facts()["statement"], path))
    assert faults(found) == []
    assert "None" not in found.text
    assert "nan" not in found.text.lower().split()


def test_names_are_escaped() -> None:
    promise = sample_facts()["statement"]
    promise["declared_public"][0]["source"] = HOSTILE
    promise["so_far"]["declared"][0]["by"] = HOSTILE
    promise["oversight"]["Prepared by"] = HOSTILE
    found = page(promise, account=HOSTILE)
    assert faults(found) == []
    assert found.text.count("<script>alert") == 4


def test_an_empty_statement_says_so() -> None:
    found = page({})
    assert faults(found) == []
    assert "No statement was given." in found.text
