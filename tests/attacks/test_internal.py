from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from dpsynth.attacks import InternalResults, internal_results
from dpsynth.domain import Domain
from tests.attacks.recipes import DOMAIN, Case, Rows, case, population


def results(found: Case, seed: int = 0) -> InternalResults:
    return internal_results(
        domain=DOMAIN,
        release=found.release,
        train=found.train,
        audit_in=found.audit_in,
        audit_in_units=np.arange(len(found.audit_in)),
        held_out=found.held_out,
        held_out_units=np.arange(len(found.held_out)) + 10**6,
        rng=np.random.default_rng(seed),
    )


def test_a_fresh_sample_shows_nothing() -> None:
    found = results(case("safe", seed=21))
    assert found.exact.p_value > 0.01
    assert found.nearest is not None
    assert found.ratio is not None
    assert found.nearest.interval.low - 0.01 < 0.5 < found.nearest.interval.high + 0.01
    assert found.ratio.auc.interval.low < 0.5 < found.ratio.auc.interval.high
    assert found.ratio.at_1_percent.tpr < found.ratio.smallest_detectable


def test_copied_rows_show_in_every_figure() -> None:
    found = results(case("leak10", seed=21))
    assert found.exact.p_value < 1e-6
    assert found.nearest is not None
    assert found.ratio is not None
    assert found.isolated is not None
    assert found.nearest.interval.low > 0.5
    assert found.ratio.auc.interval.low > 0.5
    assert found.ratio.at_1_percent.interval.low > 0.02
    assert found.ratio.at_1_percent.tpr > found.ratio.smallest_detectable
    assert found.isolated.at_1_percent.tpr > 0.02


def test_near_copies_show_at_low_false_positive_rates() -> None:
    found = results(case("near10", seed=21))
    assert found.ratio is not None
    assert found.ratio.at_1_percent.interval.low > 0.01


def test_null_p_values_of_exact_matches_are_honest() -> None:
    """And the twin: rows counted one by one, though rows of a unit share a coin, are not."""
    rng = np.random.default_rng(5)
    domain = Domain.integers({"a": 40, "b": 40})
    honest, by_rows = [], []
    for _ in range(150):
        units = np.repeat(np.arange(120), 6)
        rows = np.repeat(rng.integers(0, 40, (120, 2)), 6, axis=0).astype(np.int32)
        inside = rng.random(120)[units] < 0.5
        release = rng.integers(0, 40, (300, 2)).astype(np.int32)

        def p_value(
            numbers: np.ndarray,
            rows: Rows = rows,
            inside: np.ndarray = inside,
            release: Rows = release,
        ) -> float:
            return internal_results(
                domain=domain,
                release=release,
                train=rows[:0],
                audit_in=rows[inside],
                audit_in_units=numbers[inside],
                held_out=rows[~inside],
                held_out_units=numbers[~inside],
                rng=np.random.default_rng(0),
            ).exact.p_value

        honest.append(p_value(units))
        by_rows.append(p_value(np.arange(len(rows))))
    assert np.mean(np.array(honest) < 0.05) <= 0.1
    assert np.mean(np.array(by_rows) < 0.05) > 0.15


def test_exact_matches_by_hand() -> None:
    domain = Domain.integers({"a": 10})
    found = internal_results(
        domain=domain,
        release=np.array([[1], [2], [3]], dtype=np.int32),
        train=np.array([[0]], dtype=np.int32),
        audit_in=np.array([[1], [2], [2], [9], [3]], dtype=np.int32),
        audit_in_units=np.array([7, 7, 8, 8, 5]),
        held_out=np.array([[3], [8]], dtype=np.int32),
        held_out_units=np.array([1, 2]),
        rng=np.random.default_rng(0),
    )
    assert (found.units_in, found.units_out) == (3, 2)
    assert (found.exact.audit_in, found.exact.held_out) == (3, 1)
    assert found.exact.p_value == pytest.approx(stats.binom.sf(2, 4, 0.5))


def test_nearest_share_by_hand() -> None:
    """Synthetic 1 and 2 are nearer to 0 than to 9, 8 is not, and a row half way is a tie."""
    domain = Domain.integers({"a": 11}, ordered=("a",))
    found = internal_results(
        domain=domain,
        release=np.array([[1], [2], [8], [5]], dtype=np.int32),
        train=np.array([[4]], dtype=np.int32),
        audit_in=np.array([[0]], dtype=np.int32),
        audit_in_units=np.array([0]),
        held_out=np.array([[10]], dtype=np.int32),
        held_out_units=np.array([1]),
        rng=np.random.default_rng(0),
    ).nearest
    assert found is not None
    assert (found.share, found.tied, found.rows, found.units) == (2.5 / 4, 0.25, 4, 1)


def test_nearest_share_is_balanced_when_the_sides_are_not() -> None:
    found = case("safe", seed=3)
    lopsided = Case(found.release, found.train, found.audit_in, found.held_out[:150], found.fresh)
    nearest = results(lopsided).nearest
    assert nearest is not None
    assert nearest.units == 150
    assert abs(nearest.share - 0.5) < 0.06


def test_missing_parts_give_none() -> None:
    found = case("safe", rows=200)
    empty = population(0, np.random.default_rng(0))
    no_release = results(Case(empty, found.train, found.audit_in, found.held_out, empty))
    assert (no_release.nearest, no_release.ratio, no_release.isolated) == (None, None, None)
    assert no_release.exact.audit_in == 0
    no_side = results(Case(found.release, found.train, found.audit_in, empty, empty))
    assert (no_side.nearest, no_side.ratio) == (None, None)
    assert no_side.exact.rate_out.high == 1.0
    no_reference = results(Case(found.release, empty, found.audit_in, found.held_out, empty))
    assert no_reference.nearest is not None
    assert no_reference.ratio is None


def test_results_are_plain_json_and_repeat() -> None:
    found = case("leak10", rows=300)
    first, second = results(found).to_json(), results(found).to_json()
    assert json.loads(json.dumps(first, allow_nan=False)) == second
    assert first["ratio"]["at_1_percent"]["interval"]["level"] == 0.95


def test_large_sides_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpsynth.attacks.internal.MOST_UNITS", 40)
    found = results(case("safe", rows=400))
    assert found.units_in > 40
    assert found.ratio is not None
    assert (found.ratio.units_in, found.ratio.units_out) == (40, 40)
