"""Every kind of event has a page with its proof, in the documentation's table of contents."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path

import pytest

from dpsynth_accounting import (
    ApproxDP,
    Concentrated,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Exponential,
    Gaussian,
    GaussianBlock,
    Laplace,
    Parallel,
    Repeat,
    RepeatAndSelect,
    Sequence,
    SubsampledGaussian,
    events,
)

ROOT = Path(__file__).parents[2]
PAGES = {
    Gaussian: "discrete-gaussian",
    DiscreteGaussian: "discrete-gaussian",
    Laplace: "laplace",
    DiscreteLaplace: "laplace",
    SubsampledGaussian: "subsampled-gaussian",
    GaussianBlock: "filters",
    Exponential: "exponential-mechanism",
    ApproxDP: "approx-dp",
    Concentrated: "approx-dp",
    Repeat: "composition",
    Sequence: "composition",
    Parallel: "parallel",
    RepeatAndSelect: "tuning",
}


def test_every_kind_of_event_is_listed_with_its_page() -> None:
    assert set(PAGES) == set(typing.get_args(Event))


def test_the_list_is_of_all_classes_that_are_events() -> None:
    """A new event class that was left out of the union would be found here."""
    declared = {
        kind
        for _, kind in inspect.getmembers(events, inspect.isclass)
        if kind.__module__ == events.__name__
    }
    assert declared == set(PAGES)


@pytest.mark.parametrize("kind", list(PAGES), ids=lambda kind: kind.__name__)
def test_its_page_exists_and_is_in_the_contents(kind: type) -> None:
    page = f"explanation/{PAGES[kind]}.md"
    assert (ROOT / "docs" / page).is_file()
    assert page in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "kind",
    [
        Laplace,
        DiscreteLaplace,
        SubsampledGaussian,
        ApproxDP,
        Concentrated,
        Parallel,
        GaussianBlock,
        RepeatAndSelect,
    ],
)
def test_its_page_calls_it_by_name_and_cites_a_proof(kind: type) -> None:
    text = (ROOT / "docs" / "explanation" / f"{PAGES[kind]}.md").read_text(encoding="utf-8")
    assert f"`{kind.__name__}(" in text
    assert "Proof" in text or "Theorem" in text or "Proposition" in text or "Neyman" in text


@pytest.mark.parametrize("kind", list(PAGES), ids=lambda kind: kind.__name__)
def test_the_group_page_says_what_becomes_of_it(kind: type) -> None:
    text = (ROOT / "docs" / "explanation" / "group-privacy.md").read_text(encoding="utf-8")
    assert f"`{kind.__name__}`" in text
