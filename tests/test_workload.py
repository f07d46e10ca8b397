"""Workloads: what they cover, how much each column matters, and what is refused."""

from __future__ import annotations

import itertools
import math

import pytest

from dpsynth.domain import Clique
from dpsynth.workload import Workload
from dpsynth_accounting import InvalidRequest

NAMES = ["a", "b", "c", "d", "e"]
MIXED = Workload.all(2) + 3 * Workload.about("b", 3) + 0.5 * Workload.of(("d", "e", "a", "c"), "e")


def spelled_out(workload: Workload) -> dict[frozenset[str], float]:
    """Return the weight of each marginal of a workload, by enumeration."""
    found: dict[frozenset[str], float] = {}
    for term in workload.terms:
        for clique in itertools.combinations(NAMES, min(term.width, len(NAMES))):
            if set(term.clique) <= set(clique):
                key = frozenset(clique)
                found[key] = found.get(key, 0.0) + term.weight
    return found


@pytest.mark.parametrize(
    "workload", [Workload.all(1), Workload.all(3), Workload.all(9), Workload.about("c"), MIXED]
)
def test_weights_and_candidates_are_those_of_the_marginals_one_by_one(workload: Workload) -> None:
    whole = spelled_out(workload)
    every = [c for n in range(1, 6) for c in itertools.combinations(NAMES, n)]
    covered = [c for c in every if any(set(c) <= each for each in whole)]
    assert [c for c in every if workload.covers(c)] == covered

    def weight(clique: Clique) -> float:
        shared = (value * len(each & set(clique)) for each, value in whole.items())
        return math.fsum(shared) / len(clique)

    found = workload.weights(covered, NAMES)
    most = max(map(weight, covered))
    assert found == pytest.approx({clique: weight(clique) / most for clique in covered})
    named = {c for c in covered if set(c) <= {"d", "e", "a", "c"}} if workload is MIXED else set()
    assert workload.candidates(NAMES, 3) == [c for c in covered if len(c) <= 3 or c in named]


def test_a_target_matters_more_than_what_is_beside_it() -> None:
    found = Workload.about("b", 3).weights([("a", "b"), ("a", "c")], NAMES)
    assert found["a", "b"] == 1
    assert found["a", "c"] == pytest.approx(3 / ((6 + 3) / 2))


def test_recipes_can_say_it() -> None:
    text = "all:2 + 3*about:b:3 + 0.5 * of:d,e, a ,c + 0.5*of:e"
    assert Workload.parse(text) == MIXED
    assert Workload.parse(" all:3") == Workload.all()
    assert Workload.parse("2 * ranges:a,b") == 2 * Workload.ranges("a", "b")


def test_a_range_is_of_its_first_column() -> None:
    asked = Workload.ranges("d", "a") + Workload.of(("e", "b"))
    assert asked.ranged(NAMES) == ["d"]
    assert asked.covers(("a", "d"))
    assert Workload.all(2).ranged(NAMES) == []


@pytest.mark.parametrize(
    "text",
    ["", "all", "all:x", "all:2+", "x*all:2", "about:3:", "about:a:x", "every:2", "2*2*all:2"],
)
def test_what_is_no_term_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="workload"):
        Workload.parse(text)


def test_impossible_workloads_are_refused() -> None:
    for width in (0, -1):
        with pytest.raises(InvalidRequest, match="one column or more"):
            Workload.all(width)
        with pytest.raises(InvalidRequest, match="one column or more"):
            Workload.about("a", width)
    for cliques in ((), ((),), (("a", "a"),)):
        with pytest.raises(InvalidRequest, match="none of them twice"):
            Workload.of(*cliques)
    for weight in (0, -1.0, math.inf, math.nan):
        with pytest.raises(InvalidRequest, match="positive number"):
            weight * Workload.all(2)


def test_columns_that_are_not_modelled_are_refused() -> None:
    MIXED.require(NAMES)
    with pytest.raises(InvalidRequest, match=r"column\(s\) b, e") as error:
        MIXED.require(["a", "c", "d"])
    assert "No private row was read" in str(error.value)
