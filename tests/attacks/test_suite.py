from __future__ import annotations

import json

import numpy as np
import pytest

from dpsynth.attacks import Claim, InternalResults, internal_results
from dpsynth.attacks.copies import copies
from dpsynth.attacks.disclosure import linkability
from dpsynth.attacks.matches import matches
from dpsynth.attacks.targets import Side, Targets
from dpsynth.domain import Domain
from tests.attacks.recipes import DOMAIN, Case, Rows, case, population


def results(found: Case, seed: int = 0, *, classifier: bool = False) -> InternalResults:
    return internal_results(
        domain=DOMAIN,
        release=found.release,
        train=found.train,
        audit_in=found.audit_in,
        audit_in_units=np.arange(len(found.audit_in)),
        held_out=found.held_out,
        held_out_units=np.arange(len(found.held_out)) + 10**6,
        rng=np.random.default_rng(seed),
        claim=Claim(((1.0, 0.0),)),
        classifier=classifier,
    )


def sides(inside: list[list[int]], outside: list[list[int]]) -> Targets:
    one, other = (np.array(rows, dtype=np.int32) for rows in (inside, outside))
    return Targets(Side(one, np.arange(len(one))), Side(other, np.arange(len(other))))


def test_a_fresh_sample_shows_nothing_and_says_what_would_have_shown() -> None:
    found = results(case("safe", seed=21), classifier=True)
    assert found.verdict.outcome == "not detected"
    assert found.matches is not None
    assert found.matches.exact.p_value > 0.01
    assert found.epsilon is not None
    assert (found.epsilon.points[0].bound, found.epsilon.refuted) == (0.0, False)
    assert found.epsilon.points[0].possible > 3
    assert "classifier" in found.membership
    assert "would have been found" in found.verdict.findings[0].sentence


@pytest.mark.parametrize("leak", ["leak10", "near10"])
def test_leaks_fail(leak: str) -> None:
    found = results(case(leak, seed=21))
    assert found.verdict.outcome == "fail"
    failed = {each.test for each in found.verdict.findings if each.outcome == "fail"}
    assert "distance ratio" in failed
    for each in found.verdict.findings:
        if each.outcome == "fail":
            assert each.adjusted_p_value < 0.01
            assert each.effect > each.floor


def test_a_release_of_the_rows_themselves_refutes_its_claim() -> None:
    found = case("safe", seed=3)
    rows = np.concatenate([found.train, found.audit_in])
    exact = results(Case(rows, found.train, found.audit_in, found.held_out, found.fresh))
    assert exact.epsilon is not None
    assert exact.epsilon.refuted
    assert "is claimed" in exact.verdict.sentence
    assert exact.disclosure["linkability"].risk.value > 0.9
    assert all(
        risk.comparison.p_value < 0.05
        for risk in exact.disclosure.values()
        if risk.risk.value > 0.3
    )


def test_null_p_values_are_honest_by_units_and_not_by_rows() -> None:
    """And the twin: rows counted one by one, though rows of a unit share a coin, are not."""
    rng = np.random.default_rng(5)
    honest, by_rows = [], []
    for _ in range(200):
        units = np.repeat(np.arange(120), 6)
        rows = np.repeat(rng.integers(0, 40, (120, 2)), 6, axis=0).astype(np.int32)
        inside = rng.random(120)[units] < 0.5
        release = rng.integers(0, 40, (300, 2)).astype(np.int32)
        for numbers, found in ((units, honest), (np.arange(len(rows)), by_rows)):
            targets = Targets(
                Side(rows[inside], numbers[inside]), Side(rows[~inside], numbers[~inside])
            )
            found.append(matches(release, rows[:0], targets).exact.p_value)
    assert np.mean(np.array(honest) < 0.05) <= 0.1
    assert np.mean(np.array(by_rows) < 0.05) > 0.15


def test_exact_matches_by_hand() -> None:
    """Of three units in, 1, 2 and 3 match, 2 by either of two rows; of two held out, one."""
    targets = Targets(
        Side(np.array([[1], [2], [2], [9], [3]], np.int32), np.array([7, 7, 8, 8, 5])),
        Side(np.array([[4], [8]], np.int32), np.array([1, 2])),
    )
    released = np.array([[1], [2], [3], [4]], dtype=np.int32)
    found = matches(released, np.array([[3]], dtype=np.int32), targets)
    assert (found.exact.units_in, found.exact.hits_in) == (3, 3)
    assert (found.exact.units_out, found.exact.hits_out) == (2, 1)
    # 2 and 3 occur twice among private rows: unique are 1 of unit 7, 9 of unit 8, 4 and 8.
    assert (found.unique.units_in, found.unique.hits_in) == (2, 1)
    assert (found.unique.units_out, found.unique.hits_out) == (2, 1)


def test_nearest_share_by_hand() -> None:
    """Synthetic 1 and 2 are nearer to 0 than to 10, 8 is not, and a row half way is a tie."""
    domain = Domain.integers({"a": 11}, ordered=("a",))
    release = np.array([[1], [2], [8], [5]], dtype=np.int32)
    rng = np.random.default_rng(0)
    found = copies(domain, release, sides([[0]], [[10]]), most_rows=99, rng=rng).share
    assert (found.share, found.tied, found.rows, found.units) == (2.5 / 4, 0.25, 4, 1)


def test_linkability_is_one_row_nearest_in_both_halves() -> None:
    """Against comparing every pair, on a domain with rounded and missing parts."""
    rng = np.random.default_rng(0)
    release, inside, outside = (population(n, rng) for n in (60, 90, 80))
    found = linkability(
        DOMAIN,
        release,
        sides(inside.tolist(), outside.tolist()),
        rng=np.random.default_rng(7),
    )
    assert found is not None
    order = np.random.default_rng(7).permutation(len(DOMAIN.names))
    middle = len(order) // 2
    for rows, hits in (
        (inside, found.comparison.hits_in),
        (outside, found.comparison.hits_out),
    ):
        best = []
        for half in (order[:middle], order[middle:]):
            far = np.zeros((len(rows), len(release)))
            for j in half:
                name = DOMAIN.names[j]
                gap = np.abs(rows[:, j][:, None] - release[:, j][None])
                size = DOMAIN.ordered(name)
                far += gap / (size - 1) if size else gap > 0
            best.append(np.abs(far - far.min(axis=1, keepdims=True)) < 1e-9)
        assert hits == int((best[0] & best[1]).any(axis=1).sum())


def test_missing_parts_are_left_out() -> None:
    found = case("safe", rows=200)
    empty = population(0, np.random.default_rng(0))
    no_release = results(Case(empty, found.train, found.audit_in, found.held_out, empty))
    assert (no_release.verdict.outcome, no_release.copies) == ("not tested", None)
    no_side = results(Case(found.release, found.train, found.audit_in, empty, empty))
    assert (no_side.verdict.outcome, no_side.epsilon) == ("not tested", None)
    no_reference = results(Case(found.release, empty, found.audit_in, found.held_out, empty))
    assert no_reference.copies is not None
    assert (no_reference.membership, no_reference.epsilon) == ({}, None)


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_tables_of_few_columns_and_rows(columns: int) -> None:
    rng = np.random.default_rng(0)
    domain = Domain.integers({f"c{j}": 3 for j in range(columns)}, ordered=("c0",))

    def rows(n: int) -> Rows:
        return rng.integers(0, 3, (n, columns)).astype(np.int32)

    for sizes in ((1, 1, 1, 1), (30, 30, 30, 30)):
        release, train, one, other = map(rows, sizes)
        found = internal_results(
            domain=domain,
            release=release,
            train=train,
            audit_in=one,
            audit_in_units=np.arange(len(one)),
            held_out=other,
            held_out_units=np.arange(len(other)),
            rng=rng,
            claim=Claim(((1.0, 1e-6),)),
        )
        assert found.verdict.outcome == "not detected"
        json.dumps(found.to_json(), allow_nan=False)


def test_results_are_plain_json_and_repeat() -> None:
    found = case("leak10", rows=300)
    first, second = results(found).to_json(), results(found).to_json()
    text = json.dumps(first, allow_nan=False)
    assert text == json.dumps(second)
    assert json.loads(text)["membership"]["distance ratio"]["auc"]["interval"]["level"] == 0.95


def test_large_sides_are_cut_blind_to_the_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpsynth.attacks.suite.MOST_UNITS", 80)
    found = results(case("safe", rows=400))
    assert found.units_in > 80
    attacked = found.membership["distance ratio"]
    assert attacked.units_in + attacked.units_out == 80
