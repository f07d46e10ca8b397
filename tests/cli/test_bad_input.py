"""Bad input through the command line: refused before anything is read or spent, or survived."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from dpsynth_accounting import Ledger
from tests.cli.conftest import Runner
from tests.end_to_end.conftest import Project, make_project, people

UNTOUCHED = "No private row was read and nothing was spent."
CANARY = "Zaphod-Beeblebrox-42"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


def spent(project: Project) -> float:
    if not project.ledger.exists():
        return 0.0
    ledger = Ledger(project.ledger)
    return sum(
        float(account.budget.epsilon - account.remaining()[0])
        for account in map(ledger.existing, ledger.accounts())
    )


def refused(project: Project, dpsynth: Runner, *told: str) -> None:
    """Assert that a run is refused with exit code 2, untouched and unspent, and says why."""
    code, _, error = dpsynth("run", project.recipe, project.table, "--out", project.out)
    assert code == 2, error
    assert UNTOUCHED in error
    for text in told:
        assert text in error
    assert CANARY not in error
    assert not project.out.exists()
    assert spent(project) == 0.0


def test_a_missing_column(project: Project, dpsynth: Runner) -> None:
    people(5, 0).drop(columns="age").assign(note=CANARY).to_csv(project.table, index=False)
    refused(project, dpsynth, "'age'", "note")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (people(5, 0).to_csv(index=False).encode("utf-16"), "UTF-8"),
        ("person,age,sex,city\né,1,F,x\n".encode("latin-1"), "UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00", "UTF-8"),
        (b"", "no header"),
        (b"PAR1 this is not one", "misses"),
    ],
)
def test_a_file_that_is_no_table(project: Project, dpsynth: Runner, raw: bytes, why: str) -> None:
    project.table.write_bytes(raw)
    refused(project, dpsynth, "" if why == "misses" else why)


def test_a_table_that_is_not_there(project: Project, dpsynth: Runner) -> None:
    project.table.unlink()
    refused(project, dpsynth, "no such file")


def test_an_unconfirmed_schema(project: Project, dpsynth: Runner) -> None:
    schema = project.folder / "schema.toml"
    schema.write_text(
        schema.read_text().replace('type = "open"', 'type = "open"\nconfirmed = false')
    )
    refused(project, dpsynth, "'city'", "confirmed")


def test_a_schema_with_many_faults_names_them_all(project: Project, dpsynth: Runner) -> None:
    schema = project.folder / "schema.toml"
    text = schema.read_text().replace("upper = 110", "uper = 110").replace('"F", "M"', '"F", "F"')
    schema.write_text(text)
    refused(project, dpsynth, "'uper'", "did you mean 'upper'", "'F'", "twice")


@pytest.mark.parametrize("epsilon", ["0", "-1.0", "nan", "inf", "1000.0"])
def test_an_impossible_epsilon(project: Project, dpsynth: Runner, epsilon: str) -> None:
    project.edit("[release]\nepsilon = 2.0", f"[release]\nepsilon = {epsilon}")
    refused(project, dpsynth)


@pytest.mark.parametrize("delta", ["0.0", "1.0", "nan"])
def test_an_impossible_delta(project: Project, dpsynth: Runner, delta: str) -> None:
    project.edit("delta = 1e-6", f"delta = {delta}")
    refused(project, dpsynth)


def test_a_delta_too_large_for_the_declared_units(project: Project, dpsynth: Runner) -> None:
    project.edit("delta = 1e-6", "delta = 0.01")
    project.edit('target = "sex"', 'target = "sex"\ndeclared_units = 1500')
    refused(project, dpsynth, "1 / 1500")


def test_a_typo_in_the_recipe_names_the_nearest_key(project: Project, dpsynth: Runner) -> None:
    project.edit("epsilon = 2.0\ntarget", "epsilonn = 2.0\ntarget")
    refused(project, dpsynth, "epsilonn", "did you mean 'epsilon'", "release.epsilon")


def test_an_unknown_method_or_parameter(project: Project, dpsynth: Runner) -> None:
    with project.recipe.open("a") as file:
        file.write('\n[method]\nname = "mist"\n')
    refused(project, dpsynth, "mst", "independent")
    project.edit('name = "mist"', 'name = "mst"\nbinss = 3')
    refused(project, dpsynth, "binss")


def test_a_target_that_is_no_column(project: Project, dpsynth: Runner) -> None:
    project.edit('target = "sex"', 'target = "gender"')
    refused(project, dpsynth, "gender")


def test_a_release_beyond_the_account(project: Project, dpsynth: Runner) -> None:
    project.edit("[release]\nepsilon = 2.0", "[release]\nepsilon = 2.5")
    refused(project, dpsynth, "2.5")


def test_a_corrupt_ledger(project: Project, dpsynth: Runner) -> None:
    project.ledger.write_bytes(b"SQLite format 3\x00" + b"\xff" * 4000)
    code, _, error = dpsynth("run", project.recipe, project.table, "--out", project.out)
    assert code == 1
    assert "damaged or is no ledger" in error
    assert UNTOUCHED in error


def test_a_ledger_on_a_network_file_system(
    project: Project, dpsynth: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpsynth_accounting._sqlite.filesystem_type", lambda _: "nfs4")
    code, _, error = dpsynth("run", project.recipe, project.table, "--out", project.out)
    assert code == 1
    assert "network file system" in error
    assert UNTOUCHED in error
    assert not project.ledger.exists()


def test_an_unforeseen_error_shows_no_value(
    project: Project, dpsynth: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise KeyError(CANARY)

    monkeypatch.setattr("dpsynth.run.run_recipe", explode)
    code, _, error = dpsynth("run", project.recipe, project.table, "--out", project.out)
    assert code == 1
    assert "unexpected KeyError" in error
    assert CANARY not in error


HARD = [
    "",
    "NaN",
    "1e999",
    "-5",
    "abc",
    CANARY,
    "9999-99-99",
    '"',
    "a\nb",
    "NA",
    "no",
    "\ufeff",
    "0x1F",
]


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_tiny_tables_are_released_like_any_other(
    project: Project, dpsynth: Runner, rows: int
) -> None:
    people(max(rows, 1), 0).head(rows).to_csv(project.table, index=False)
    code, out, error = dpsynth("run", project.recipe, project.table, "--out", project.out, "--json")
    assert code == 0, error
    assert json.loads(out)["released"]


def test_any_value_in_any_column_is_encoded(project: Project, dpsynth: Runner) -> None:
    table = people(200, 0).astype(object)
    for offset, name in enumerate(table.columns):
        for row, value in enumerate(HARD):
            table.loc[row * 7 + offset, name] = value
    table.to_csv(project.table, index=False, encoding="utf-8-sig")
    code, _, error = dpsynth("run", project.recipe, project.table, "--out", project.out)
    assert code == 0, error
    assert CANARY not in error
    public = "".join(p.read_text() for p in project.out.iterdir() if p.suffix != ".npz")
    assert CANARY not in public
    assert "NA" in set(pd.read_csv(project.out / "table.csv", keep_default_na=False)["answer"])
    code, out, _ = dpsynth("check", project.recipe, project.table)
    assert code == 2
    assert "outside the declared values" in out


def test_five_hundred_columns(tmp_path: Path, dpsynth: Runner) -> None:
    wide = pd.DataFrame({f"c{i}": [i % 2, 1, 0] * 20 for i in range(500)})
    wide.to_csv(tmp_path / "wide.csv", index=False)
    columns = "".join(f'[columns.c{i}]\ntype = "boolean"\n' for i in range(500))
    (tmp_path / "schema.toml").write_text("format_version = 1\n" + columns)
    (tmp_path / "release.toml").write_text(
        'format_version = 1\nschema = "schema.toml"\n[account]\nledger = "l.db"\nname = "w"\n'
        'epsilon = 1.0\ndelta = 1e-6\n[unit]\nkind = "row"\n[release]\nepsilon = 1.0\n'
        '[method]\nname = "independent"\n'
    )
    code, _, error = dpsynth(
        "run", tmp_path / "release.toml", tmp_path / "wide.csv", "--out", tmp_path / "out"
    )
    assert code == 0, error
    assert len(pd.read_csv(tmp_path / "out" / "table.csv", nrows=0).columns) == 500


def test_plan_reads_no_data(project: Project, dpsynth: Runner) -> None:
    project.table.unlink()
    code, out, error = dpsynth("plan", project.recipe, "--rows", 3000)
    assert code == 0, error
    assert "measure" in out
    assert "divide" in out
    code, out, _ = dpsynth("plan", project.recipe, "--rows", 3000, "--json")
    told = json.loads(out)
    assert [step["step"] for step in told["steps"]] == [
        "discover",
        "measure",
        "divide",
        "audit",
    ]
    assert not project.ledger.exists()


def test_a_draft_is_refused_until_confirmed(project: Project, dpsynth: Runner) -> None:
    code, out, error = dpsynth("schema", "draft", project.table)
    assert code == 0, error
    (project.folder / "schema.toml").write_text(out)
    refused(project, dpsynth, "nobody confirmed")


def test_the_ledger_commands(project: Project, dpsynth: Runner) -> None:
    assert dpsynth("run", project.recipe, project.table, "--out", project.out)[0] == 0
    code, out, _ = dpsynth("ledger", "show", project.ledger)
    assert code == 0
    assert "people: epsilon 0 left of 2" in out
    code, out, _ = dpsynth("ledger", "verify", project.ledger)
    assert (code, out) == (0, "people: ok (integrity)\n")


def test_attack_tells_a_copy_from_a_fresh_table(tmp_path: Path, dpsynth: Runner) -> None:
    (tmp_path / "schema.toml").write_text(
        "format_version = 1\n"
        + "".join(f'[columns.c{i}]\ntype = "integer"\nlower = 0\nupper = 20\n' for i in range(8))
    )
    import numpy as np

    rng = np.random.default_rng(0)
    for name in ("train", "holdout", "fresh"):
        table = pd.DataFrame(rng.integers(0, 21, (1200, 8)), columns=[f"c{i}" for i in range(8)])
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    both = ("--train", tmp_path / "train.csv", "--holdout", tmp_path / "holdout.csv")
    schema = ("--schema", tmp_path / "schema.toml")
    fresh = dpsynth("attack", *both, "--synthetic", tmp_path / "fresh.csv", *schema)
    assert fresh[0] == 0, fresh
    copied = dpsynth("attack", *both, "--synthetic", tmp_path / "train.csv", *schema)
    assert copied[0] == 2, copied
