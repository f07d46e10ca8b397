"""A recipe and the ledger commands on a team's ledger in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounting.postgres import PostgresSite, server
from tests.cli.conftest import Runner
from tests.end_to_end.conftest import make_project


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with server() as found:
        yield found


@pytest.fixture
def site(address: str, tmp_path: Path) -> Iterator[PostgresSite]:
    found = PostgresSite(address, tmp_path)
    yield found
    found.close()


def test_a_run_on_a_database_and_the_same_people_under_another_account(
    site: PostgresSite, tmp_path: Path, dpsynth: Runner
) -> None:
    project = make_project(tmp_path)
    rules = f'ledger = "{site.address}"\nsecret = "{site.secret.name}"'
    project.edit('ledger = "ledger.db"', rules)
    with project.recipe.open("a") as file:
        file.write('\n[method]\nname = "independent"\n')
    code, _, error = dpsynth("run", project.recipe, project.table, "--out", project.out)
    assert code == 0, error
    where = (site.address, "--secret", site.secret)
    code, out, error = dpsynth("ledger", "show", *where, "--json")
    assert code == 0, error
    assert [facts["epsilon_left"] for facts in json.loads(out)] == [0.0]
    manifest = project.out / "manifest.json"
    code, out, error = dpsynth("ledger", "verify", *where, "--manifest", manifest)
    assert (code, out) == (0, "people: ok (integrity, and history since the manifest)\n"), error
    project.edit('name = "people"', 'name = "others"')
    code, _, error = dpsynth("run", project.recipe, project.table, "--out", tmp_path / "second")
    assert code == 2
    assert "account 'people'" in error
