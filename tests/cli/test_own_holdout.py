"""A run with rows of the custodian's own that were kept out, from the command line to the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rich.console import Console

import dpsynth as dp
from dpsynth.bundle import verify
from dpsynth.recipe import Recipe
from dpsynth.run import run_recipe
from dpsynth.vault import Block, Step
from dpsynth_accounting import Ledger
from tests.cli.conftest import Runner
from tests.end_to_end.conftest import Project, make_project, people


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make_project(tmp_path_factory.mktemp("project"))
    table = people(2000, 1)
    cut = table["person"] < "P01500"
    table[cut].to_csv(made.table, index=False)
    # Fifty persons of the table are in the holdout again.
    again = table["person"] >= "P01450"
    table[again].to_parquet(made.folder / "kept out.parquet", index=False)
    return made


def holdout(project: Project) -> Path:
    return project.folder / "kept out.parquet"


def test_a_run_with_an_own_holdout(project: Project, dpsynth: Runner) -> None:
    command = ("run", project.recipe, project.table, "--out", project.out)
    code, told, error = dpsynth(*command, "--holdout", holdout(project))
    assert code == 0, error
    assert "the custodian's own" in told
    assert verify(project.out).ok
    page = (project.out / "statement.txt").read_text()
    words = " ".join(page.split())
    assert "in the table or in the custodian's own holdout" in words
    assert "no lower bound on epsilon follows from one run" in words
    report = (project.out / "report.html").read_text()
    assert "units that the custodian held out" in report
    assert "a fair coin" not in report
    facts = json.loads((project.out / "report.json").read_text())
    assert facts["unit"]["holdout"] == "own"
    exact = json.loads((Path(f"{project.out}-internal") / "report.json").read_text())["attacks"]
    assert exact["units_out"] == 500
    assert 200 < exact["units_in"] < 400
    public = b"".join(path.read_bytes() for path in project.out.iterdir())
    assert b"kept out" not in public
    account = Ledger(project.ledger).existing("people")
    assert float(account.remaining()[0]) == 0.0


@dataclass
class Copied:
    """A broken model: it gives the rows back that it was fitted to."""

    inner: Any
    codes: dict[str, NDArray[np.int32]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def sample_codes(self, n: int, *, rng: np.random.Generator) -> dict[str, NDArray[np.int32]]:
        rows = rng.integers(0, len(next(iter(self.codes.values()))), n)
        return {name: values[rows] for name, values in self.codes.items()}

    def sample(self, n: int | None = None, *, rng: np.random.Generator) -> pd.DataFrame:
        del n
        return cast(pd.DataFrame, self.inner.domain.decode(self.codes, rng=rng))


class Copying:
    """The synthesizer of such a model; it reaches for what no plug-in is given."""

    name = "copying"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        return dp.Independent().steps(columns)

    def run(self, block: Block) -> Any:
        return Copied(dp.Independent().run(block), block._vault._training())


def test_a_leak_is_found_against_an_own_holdout(tmp_path: Path) -> None:
    made = make_project(tmp_path)
    people(3000, 5).query("person >= 'P02000'").to_csv(tmp_path / "out.csv", index=False)
    shares = (10.0, 30.0, 60.0)
    for synthesizer, released in ((Copying(), False), (dp.Independent(), True)):
        recipe = replace(
            Recipe.load(made.recipe),
            synthesizer=cast(dp.Independent, synthesizer),
            account=synthesizer.name,
            ledger=tmp_path / f"{synthesizer.name}.db",
            audit_share=0.5,
            shares=shares,
        )
        out = tmp_path / synthesizer.name
        console = Console(stderr=True, quiet=True)
        found = run_recipe(recipe, made.table, out, holdout=tmp_path / "out.csv", console=console)
        assert found.released is released, found.facts["verdict"]["sentence"]


def test_a_holdout_is_refused_like_a_table(
    project: Project, dpsynth: Runner, tmp_path: Path
) -> None:
    fresh = make_project(tmp_path)
    people(20, 2).drop(columns="age").to_csv(tmp_path / "short.csv", index=False)
    for name, why in (("short.csv", "'age'"), ("absent.csv", "no such file")):
        code, _, error = dpsynth(
            *("run", fresh.recipe, fresh.table, "--out", fresh.out, "--holdout", tmp_path / name)
        )
        assert code == 2
        assert why in error
        assert "No private row was read and nothing was spent." in error
    fresh.edit('target = "sex"', 'target = "sex"\naudit_share = 0.0')
    code, _, error = dpsynth(
        *("run", fresh.recipe, fresh.table, "--out", fresh.out, "--holdout", fresh.table)
    )
    assert code == 2
    assert "audit share of 0" in error
    assert Ledger(fresh.ledger).existing("people").remaining()[0] == 2
    assert pd.read_parquet(holdout(project)).shape[0] > 500
