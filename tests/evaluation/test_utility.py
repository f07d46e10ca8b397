from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from dpsynth.columns import Categorical, Integer
from dpsynth.domain import Domain, resolve
from dpsynth.evaluation import TargetClassifier, utility
from dpsynth.schema import Schema
from dpsynth_accounting import InvalidRequest

DOMAIN = Domain.integers(
    {"age": 40, "job": 6, "noise": 5, "income": 2, "score": 30}, ordered=("age", "score")
)


def table(count: int, seed: int) -> np.ndarray:
    """Income follows from age and job, score from age; a tenth of incomes are turned."""
    rng = np.random.default_rng(seed)
    age, job = rng.integers(0, 40, count), rng.integers(0, 6, count)
    income = ((age > 20) ^ (job == 3)) ^ (rng.random(count) < 0.1)
    score = np.clip(age * 3 // 4 + rng.integers(-3, 4, count), 0, 29)
    return np.column_stack([age, job, rng.integers(0, 5, count), income, score]).astype(np.int32)


def built(release: np.ndarray, target: str, domain: Domain = DOMAIN) -> TargetClassifier:
    return TargetClassifier.build(domain, release, target=target, rng=np.random.default_rng(0))


def test_learns_what_the_release_holds() -> None:
    real = table(1500, 1)
    found = built(table(2000, 0), "income")
    assert found.score(real).mean() > 0.85
    assert found.baseline_score(real).mean() < 0.6


def test_a_release_without_the_relation_is_no_better_than_the_baseline() -> None:
    """The twin: the same columns, each shuffled."""
    release = np.random.default_rng(2).permuted(table(2000, 0), axis=0)
    real = table(1500, 1)
    found = built(release, "income")
    assert found.score(real).mean() < 0.6


def test_targets_of_many_codes_are_above_or_below_the_median() -> None:
    release, real = table(2000, 0), table(1000, 1)
    found = built(release, "score")
    assert found.target.median == int(np.sort(release[:, 4])[999])
    assert set(found.target.classes(real)) == {0, 1}
    assert found.score(real).mean() > 0.85
    expected = (real[:, 4] > found.target.median).astype(float)
    guess = found.baseline.guess
    assert np.array_equal(found.baseline_score(real), expected == guess)


def test_more_than_two_classes() -> None:
    release = table(1500, 0)
    release[:, 2] = release[:, 0] // 8
    real = table(500, 1)
    real[:, 2] = real[:, 0] // 8
    assert built(release, "noise").score(real).mean() > 0.95


def test_score_depends_on_the_record_alone() -> None:
    found = built(table(800, 0), "income")
    records = table(400, 3)
    rng = np.random.default_rng(0)
    for score in (found.score, found.baseline.score):
        whole = score(records)
        assert whole.dtype == np.float64
        assert set(whole) <= {0.0, 1.0}
        order = rng.permutation(len(records))
        assert np.array_equal(score(records[order]), whole[order])
        assert np.array_equal(score(records[::9]), whole[::9])
        assert [score(records[i : i + 1])[0] for i in range(20)] == whole[:20].tolist()
        assert score(records[:0]).shape == (0,)


def test_same_release_gives_the_same_classifier() -> None:
    release, records = table(600, 0), table(500, 1)
    assert np.array_equal(
        built(release, "income").score(records), built(release, "income").score(records)
    )


def test_statistics_have_public_names_and_thresholds() -> None:
    found = built(table(100, 0), "income")
    assert (found.name, found.baseline.name) == ("income predicted", "income guessed")
    assert found.threshold == found.baseline.threshold == 0.5


@pytest.mark.parametrize("target", ["income", "score"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_tiny_releases(target: str, count: int) -> None:
    release, records = table(count, 0), table(50, 1)
    scores = built(release, target).score(records)
    assert scores.shape == (50,)
    assert set(scores) <= {0.0, 1.0}


def test_release_of_one_class_guesses_it() -> None:
    release = table(200, 0)
    release[:, 3] = 1
    records = table(100, 1)
    assert np.array_equal(built(release, "income").score(records), records[:, 3] == 1)


def test_missing_codes_and_wide_nominal_columns() -> None:
    """Missing codes are no large numbers, and 300 categories are no error."""
    domain = resolve(
        Schema(
            {
                "wide": Categorical(tuple(f"v{i}" for i in range(300))),
                "level": Integer(0, 9, missing=True),
                "label": Categorical(("no", "yes")),
            }
        ),
        categories={},
        bounds={},
    )
    rng = np.random.default_rng(0)
    level = rng.integers(0, 11, 1500)
    label = np.where(level == 10, 0, level >= 5)
    rows = np.column_stack([rng.integers(0, 300, 1500), level, label]).astype(np.int32)
    assert domain.ordered("level") == 10
    found = built(rows[:1000], "label", domain)
    assert found.score(rows[1000:]).mean() > 0.95


def test_training_rows_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utility, "MOST_ROWS", 300)
    found = built(table(2000, 0), "income")
    assert found.score(table(500, 1)).mean() > 0.7


def test_release_is_not_changed() -> None:
    release = table(300, 0)
    kept = release.copy()
    built(release, "income").score(release)
    assert np.array_equal(release, kept)


def test_impossible_targets_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="absent"):
        built(table(50, 0), "absent")
    with pytest.raises(InvalidRequest):
        built(table(50, 0)[:, :1], "age", Domain.integers({"age": 40}))


def test_importing_the_module_does_not_import_scikit_learn() -> None:
    code = (
        "import sys, dpsynth.evaluation.utility; "
        "sys.exit(any(name.split('.')[0] == 'sklearn' for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env={"PYTHONPATH": ":".join(path or "." for path in sys.path)},
    )
    assert done.returncode == 0
