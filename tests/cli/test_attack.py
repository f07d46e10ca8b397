"""``dpsynth attack`` and ``dpsynth selftest``, on tables that nobody is in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpsynth import selftest, standalone
from dpsynth.selftest import SelfTest, attacked, self_test, survey
from dpsynth_accounting import InvalidRequest
from tests.cli.conftest import Runner


def people(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    age = rng.integers(18, 95, rows)
    return pd.DataFrame(
        {
            "id": np.arange(rows) + 10**6,
            "age": age,
            "income": np.round(rng.gamma(2, 300 + age), 1),
            "town": rng.choice(["Springfield", "Shelbyville", "Ogdenville"], rows),
            "visits": rng.poisson(4, rows),
        }
    )


@pytest.fixture
def tables(tmp_path: Path) -> list[object]:
    rng = np.random.default_rng(0)
    train, holdout, fresh = people(600, rng), people(300, rng), people(600, rng)
    copied = fresh.copy()
    copied.iloc[:200] = train.iloc[:200]
    for name, table in (("train", train), ("holdout", holdout), ("fresh", fresh), ("c", copied)):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    return ["attack", "--train", tmp_path / "train.csv", "--holdout", tmp_path / "holdout.csv"]


def test_without_a_schema_columns_are_guessed_and_it_is_said(
    tables: list[object], tmp_path: Path, dpsynth: Runner
) -> None:
    code, out, error = dpsynth(*tables, "--synthetic", tmp_path / "fresh.csv", "--no-classifier")
    assert code == 0, error
    assert "guessed from all three tables" in error
    assert "Not compared, as keys or free text: id." in error
    assert out.startswith("Not detected")
    code, out, _ = dpsynth(
        *tables, "--synthetic", tmp_path / "c.csv", "--claimed-epsilon", 0.5, "--json"
    )
    assert code == 2
    found = json.loads(out)
    assert found["outcome"] == "fail"
    assert found["exact"]["epsilon"]["points"][0]["claim"] == 0.5
    assert found["exact"]["epsilon"]["points"][0]["hard_bound"] > 0.5
    assert "0.50 is claimed" in found["sentences"][0]
    assert found["validity"]["valid"] == 1.0
    assert {"all columns", "group 1"} <= found["exact"]["copies"]["nearest"].keys()


def test_an_impossible_claim_is_refused_before_a_file_is_read(
    tables: list[object], dpsynth: Runner
) -> None:
    code, _, error = dpsynth(*tables, "--synthetic", "none.csv", "--claimed-epsilon", -1)
    assert code == 2
    assert "a claim is 0 or above" in error


def test_an_unknown_tool_is_refused_before_a_file_is_read(
    tables: list[object], dpsynth: Runner
) -> None:
    code, _, error = dpsynth(*tables, "--synthetic", "none.csv", "--peer", "other")
    assert code == 2
    assert "anonymeter and sdmetrics" in error


def test_a_broken_rule_is_said_with_its_count(
    tables: list[object], tmp_path: Path, dpsynth: Runner
) -> None:
    schema = tmp_path / "schema.toml"
    schema.write_text(
        "format_version = 1\n[columns.age]\ntype = 'integer'\nlower = 0\nupper = 110\n"
        "[columns.income]\ntype = 'real'\nlower = 0.0\nupper = 1e6\nstep = 1000.0\n"
    )
    made = pd.read_csv(tmp_path / "fresh.csv")
    made.loc[:4, "age"] = 200
    made["income"] = 2000.0
    made.loc[2:3, "income"] = 2000.1
    made.to_csv(tmp_path / "made.csv", index=False)
    words = ("--synthetic", tmp_path / "made.csv", "--schema", schema, "--no-classifier")
    _, _, error = dpsynth(*tables, *words)
    told = " ".join(error.split())
    assert "0.83 % of the synthetic rows break a rule of the schema" in told
    assert "age (domain: 5 rows), income (step: 2 rows)" in told


def test_tables_of_keys_alone_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="No column is left"):
        standalone.drafted(pd.DataFrame({"id": [f"a long enough key {i}" for i in range(90)]}))


@pytest.mark.parametrize(
    ("expected", "outcome", "ok"),
    [
        ("fail", "fail", True),
        ("fail", "review", False),
        ("fail", "not detected", False),
        ("not detected", "not detected", True),
        ("not detected", "fail", False),
        (None, "fail", True),
    ],
)
def test_what_a_self_test_accepts(expected: str | None, outcome: str, ok: bool) -> None:
    table = "tree without noise" if expected is None else "leak10"
    found = SelfTest(table, "", expected, outcome, (), None)
    assert found.ok is ok
    assert ("WRONG" in found.text()) is not ok


def test_selftest_says_no_with_its_exit_code(
    dpsynth: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin is a suite that is blind: every table comes out alike."""

    def blind(**_: object) -> list[SelfTest]:
        return [
            SelfTest(name, "", expected, "not detected", (), None)
            for name, expected in selftest.EXPECTED.items()
        ]

    monkeypatch.setattr(selftest, "self_test", blind)
    code, out, _ = dpsynth("selftest")
    assert code == 2
    assert out.count("WRONG") == len(selftest.EXPECTED) - 1


def test_safe_and_copied_tables_are_told_apart() -> None:
    """A sample of ``dpsynth selftest``; the draws are fixed."""
    outcomes = []
    for leak in ("safe", "leak10", "outlier1"):
        rng = np.random.default_rng(1)
        found = attacked(selftest.DOMAIN, survey(8_000, rng), leak, rng, classifier=False)
        outcomes.append(found.verdict.outcome)
    assert outcomes == ["not detected", "fail", "fail"]


@pytest.mark.slow
def test_the_whole_self_test() -> None:
    assert all(each.ok for each in self_test(seed=3))


@pytest.mark.slow
def test_false_alarms_are_rare() -> None:
    """60 fresh samples: at 1 % each, five failures have probability below 1e-3; draws are fixed."""
    failed = 0
    for seed in range(60):
        rng = np.random.default_rng([11, seed])
        found = attacked(selftest.DOMAIN, survey(8_000, rng), "safe", rng, classifier=False)
        failed += found.verdict.outcome == "fail"
    assert failed <= 4
