"""A run under a policy: who prepares, how much at a time, until when, and who approves."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpsynth_accounting import Ledger
from tests.cli.conftest import Runner
from tests.end_to_end.conftest import Project, make_project

UNTOUCHED = "No private row was read and nothing was spent."


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path)
    with made.recipe.open("a") as file:
        file.write('\n[method]\nname = "independent"\n')
    return made


def rules(project: Project, *lines: str) -> None:
    project.edit("delta = 1e-6", "\n".join(("delta = 1e-6", *lines)))


def run(project: Project, dpsynth: Runner) -> tuple[int, str, str]:
    return dpsynth("run", project.recipe, project.table, "--out", project.out)


def test_a_release_is_prepared_by_one_and_approved_by_another(
    project: Project, dpsynth: Runner
) -> None:
    rules(project, 'preparers = ["ada"]', 'approvers = ["bo"]', 'filter = "zcdp"')
    code, _, error = run(project, dpsynth)
    assert code == 2
    assert "without saying who prepares it" in error
    assert UNTOUCHED in error
    project.edit('target = "sex"', 'target = "sex"\nprepared_by = "ada"')
    code, _, error = run(project, dpsynth)
    assert code == 0, error
    code, out, _ = dpsynth("verify", project.out)
    assert code == 0
    assert "rho " in out
    assert "not approved yet (may approve: bo)" in out
    words = ("ledger", "approve", project.out, "--ledger", project.ledger, "--by")
    assert dpsynth(*words, "ada")[0] == 2
    code, _, error = dpsynth(*words, "bo")
    assert code == 0, error
    assert "approved by bo" in dpsynth("verify", project.out)[1]
    assert Ledger(project.ledger).verify("people") == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("per_release = 0.5", "0.5 at a time"),
        ("expires = 2001-01-01", "ended with 2001-01-01"),
        ('preparers = ["cy"]', "lets prepare: cy"),
    ],
)
def test_what_the_policy_forbids_is_refused_before_the_table_is_opened(
    project: Project, dpsynth: Runner, line: str, told: str
) -> None:
    rules(project, line)
    project.edit('target = "sex"', 'target = "sex"\nprepared_by = "ada"')
    project.table.unlink()
    code, _, error = run(project, dpsynth)
    assert code == 2
    assert told in error
    assert UNTOUCHED in error
