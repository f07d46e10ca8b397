"""Exact results reach nothing public: neither a figure, nor a decision that was made on one.

The same run is made twice with the same charged answers, on two data sets that differ only in what
exact tests see: the second time the units that were in are rows of the release, so that each exact
result is another, the exact verdict a failure and the bound on epsilon far above 0. Every byte that
an outsider could see must be the same. Twins that let one exact figure out, into each public
place, and of each family of results, are flagged by the same comparison.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dpsynth import _facts, bundle, cli, release, run
from dpsynth._audit import coded
from dpsynth._check import check_table
from dpsynth.attacks import suite
from dpsynth.choosing import Gate
from dpsynth.recipe import Recipe
from dpsynth.vault import Exposed, Vault, _vault
from dpsynth.vault._bound import AUDIT_IN, HELD_OUT, TRAIN
from dpsynth_accounting import Ledger
from tests.end_to_end.conftest import RECIPE, SCHEMA, Project, people
from tests.end_to_end.public_view import View, command, differences, play, record, run_project
from tests.end_to_end.test_non_interference import PLANS, stated
from tests.vault.replay import Tape

FEW = people(700, 1)
CHEAP = RECIPE.replace('target = "sex"', "").replace("epsilon = 2.0\ndelta", "epsilon = 4.0\ndelta")
CHEAP = CHEAP.replace("[release]", "[release]\naudit_share = 0.4")
CHEAP += '\n[method]\nname = "independent"\n'

FAMILIES: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "numbers of units": lambda exact: exact["attacks"]["units_in"],
    "verdict": lambda exact: exact["attacks"]["verdict"],
    "bound on epsilon from one run": lambda exact: exact["attacks"]["epsilon"],
    "exact matches": lambda exact: exact["attacks"]["matches"],
    "exact counts of the audit's attacks": lambda exact: exact["attacks"]["records"],
    "nearest distances": lambda exact: exact["attacks"]["copies"],
    "membership": lambda exact: exact["attacks"]["membership"],
    "most isolated units": lambda exact: exact["attacks"]["isolated"],
    "singling out, linkability, inference": lambda exact: exact["attacks"]["disclosure"],
    "a plug-in's attack on records": lambda exact: exact["attacks"]["records"]["exact match"],
    "a plug-in's attack with a reference": lambda exact: exact["attacks"]["membership"][
        "classifier"
    ],
    "fidelity": lambda exact: exact["fidelity"],
}
"""Every kind of exact result. Attacks of plug-ins come by the door through which these two came."""


@pytest.fixture(autouse=True)
def priced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_vault, "make_plan", PLANS)
    monkeypatch.setattr(_facts, "statement", stated)
    monkeypatch.setattr(suite, "FEWEST_ISOLATED", 1)  # so that so few units have such results too


class Pair:
    """Two projects of the same table, and the charged answers of a run on the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def project(self) -> Project:
        self.made += 1
        made = Project(self.folder / str(self.made))
        made.folder.mkdir()
        FEW.to_csv(made.table, index=False)
        (made.folder / "schema.toml").write_text(SCHEMA)
        made.recipe.write_text(CHEAP)
        return made

    def run(
        self, do: Callable[[Project], View] = run_project
    ) -> tuple[View, View, Project, Project]:
        """Return what is seen of both, and their folders; the second sees other rows exactly."""
        tape, one, two = Tape(), self.project(), self.project()
        first = record(tape, lambda: do(one))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_vault, "Exposed", copied(released(one)))
            second = play(tape, lambda: do(two))
        return first, second, one, two


def copied(table: pd.DataFrame) -> Callable[..., Exposed]:
    """Return what an inspection sees of other rows: those that were in are copied in a release."""

    def seen(*rows: Any) -> Exposed:
        found = Exposed(*rows)
        copies = np.resize(coded(found.domain, table), found.audit_in.shape)
        fewer = len(copies) - 5
        return Exposed(
            found.domain,
            found.train[::2],
            copies[:fewer],
            found.audit_in_units[:fewer],
            found.held_out,
            found.held_out_units,
        )

    return seen


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def released(project: Project) -> pd.DataFrame:
    """Return the table that a run released; the ordinary one where a twin held it back."""
    path = project.out / "table.csv"
    return pd.read_csv(path, dtype=str) if path.exists() else FEW


def exact(project: Project) -> dict[str, Any]:
    """Return the exact results that a run left for the custodian."""
    path = project.folder / "release-internal" / "report.json"
    return json.loads(path.read_text())  # type: ignore[no-any-return]


# -- the rule ------------------------------------------------------------------------------------


def test_no_exact_result_reaches_anything_public(pair: Pair) -> None:
    one, two, first, second = pair.run()
    assert differences(one, two) == []
    assert one["exit code"] == 0
    for name, family in FAMILIES.items():
        assert family(exact(first)) != family(exact(second)), name
    assert exact(second)["attacks"]["verdict"]["outcome"] == "fail"
    assert exact(first)["attacks"]["epsilon"] != exact(second)["attacks"]["epsilon"]
    assert exact(first)["attacks"]["verdict"]["outcome"] != "fail"


def test_nor_in_the_next_runs_of_the_account(pair: Pair) -> None:
    """The count of attempts is public: it says that exact results were read, and not what."""

    def twice(project: Project) -> View:
        project.edit("audit_share = 0.4\nepsilon = 2.0", "audit_share = 0.4\nepsilon = 1.0")
        run_project(project)
        seen = command(project, "run", "release.toml", "table.csv", "--out", "release2")
        return seen | {"shown": command(project, "ledger", "show", "ledger.db", "--json")["stdout"]}

    one, two, first, _ = pair.run(twice)
    assert differences(one, two) == []
    statement = (first.folder / "release2" / "statement.txt").read_text()
    assert "attempt 2 of at most 3" in statement
    assert one["exit code"] == 0


def test_a_refusal_for_too_many_attempts_says_nothing_of_them(pair: Pair) -> None:
    def late(project: Project) -> View:
        run_project(project)
        Ledger(project.ledger).existing("people").allow_attempts(1, "one is enough", "ada")
        return command(project, "run", "release.toml", "table.csv", "--out", "release2")

    one, two, *_ = pair.run(late)
    assert differences(one, two) == []
    assert one["exit code"] == 2
    assert "Attempt 2 at a release" in str(one["screen"])


def test_a_check_of_the_table_is_noted_by_its_purpose_alone(tmp_path: Path) -> None:
    """The one exact look that is at no candidate; its figures are for who asked."""
    project = Pair(tmp_path).project()
    recipe = Recipe.load(project.recipe)
    account = recipe.open_account()
    check_table(recipe, project.table)
    entry = account.extract()["entries"][-1]["payload"]
    assert set(entry) == {"account", "kind", "purpose", "seq", "time"}


# -- the broken twins ----------------------------------------------------------------------------


def looked_at(vault: Vault, made: release.Release) -> dict[str, Any]:
    """Return exact results, read past the ledger: what a twin must not do."""
    rows, domain = vault._coded(), vault.domain
    exposed = _vault.Exposed(
        domain,
        rows.records(domain, TRAIN)[0],
        *rows.records(domain, AUDIT_IN),
        *rows.records(domain, HELD_OUT),
    )
    codes = coded(made.model.domain, made.table)
    claim = _facts.claim_of(vault.account.extract(), made.facts["reservations"])
    return json.loads(  # type: ignore[no-any-return]
        json.dumps(release.internal_of(exposed, codes, made.table, 1, claim))
    )


Tell = Callable[[dict[str, Any], release.Release], object]


def telling(patch: pytest.MonkeyPatch, tell: Tell) -> None:
    """Have a run tell exact results as soon as its table was audited."""
    from_block = release.Release.from_block

    def leaking(block: Any, vault: Vault, *words: Any, **facts: Any) -> release.Release:
        made = from_block(block, vault, *words, **facts)
        tell(looked_at(vault, made), made)
        return made

    patch.setattr(release.Release, "from_block", leaking)


FILES = (
    "domain.json",
    "model.npz",
    "report.html",
    "report.json",
    "schema.toml",
    "statement.txt",
    "table.csv",
)


def test_a_figure_in_any_file_or_on_any_screen_is_flagged(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One figure in each place; each place is compared by itself."""
    kept: list[str] = []

    def tell(found: dict[str, Any], _: release.Release) -> None:
        kept.append(repr(found["fidelity"]["one_way"]))
        cli._err.print(kept[-1])
        logging.getLogger("dpsynth").info(kept[-1])
        with run.Progress(console=cli._err) as bar:
            bar.add_task(kept[-1])

    public_html, page = release.public_html, release.page
    telling(monkeypatch, tell)
    monkeypatch.setattr(run.RunResult, "text", lambda _: kept[-1])
    monkeypatch.setattr(release, "public_html", lambda *w: public_html(*w) + kept[-1])
    monkeypatch.setattr(release, "page", lambda *w: page(*w) + kept[-1])
    seal, write_csv = bundle.seal, release.write_csv

    def sealed(folder: Path, *words: Any, **facts: Any) -> None:
        for name in ("domain.json", "model.npz", "report.json", "schema.toml"):
            with (folder / name).open("ab") as file:
                file.write(kept[-1].encode())
        seal(folder, *words, **facts)

    def written(table: Any, path: Path) -> None:
        write_csv(table, path)
        with path.open("ab") as file:
            file.write(kept[-1].encode())

    monkeypatch.setattr(bundle, "seal", sealed)
    monkeypatch.setattr(release, "write_csv", written)
    one, two, *_ = pair.run()
    places = {"stdout", "screen", "log", "progress", *(f"release/{name}" for name in FILES)}
    assert places <= set(differences(one, two))
    written_ = {Path(name).name for name in one if name.startswith("release/")}
    assert written_ == {*FILES, "manifest.json", "ledger.json", "head.json"}  # below


@pytest.mark.parametrize("place", ["manifest.json", "ledger.json", "head.json"])
def test_a_figure_in_what_seals_the_files_is_flagged(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    kept: list[str] = []
    telling(monkeypatch, lambda found, _: kept.append(repr(found["attacks"]["units_in"])))
    seal = bundle.seal

    def sealed(folder: Path, account: Any, facts: Any, *words: Any, **more: Any) -> None:
        if place == "manifest.json":
            facts = {**facts, "note": kept[-1]}
        if place == "ledger.json":
            account.record("inspect", {"purpose": kept[-1], "for": "a twin"})
        seal(folder, account, facts, *words, **more)
        if place == "head.json":
            with (folder / place).open("ab") as file:
                file.write(kept[-1].encode())

    monkeypatch.setattr(bundle, "seal", sealed)
    one, two, *_ = pair.run()
    found = differences(one, two)
    assert f"release/{place}" in found
    assert "release/report.json" not in found


def test_a_figure_of_every_family_is_flagged(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def tell(found: dict[str, Any], made: release.Release) -> None:
        leak = {name: str(family(found)) for name, family in FAMILIES.items()}
        made.facts["leak"] = leak  # type: ignore[index]

    telling(monkeypatch, tell)
    one, two, *_ = pair.run()
    assert "release/report.json" in differences(one, two)
    leaks = [json.loads(each["release/report.json"])["leak"] for each in (one, two)]  # type: ignore[arg-type]
    assert [name for name in FAMILIES if leaks[0][name] == leaks[1][name]] == []


@pytest.mark.parametrize("family", ["verdict", "bound on epsilon from one run"])
def test_a_decision_by_an_exact_result_is_flagged(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """A release that is withheld if an exact result is bad: by its exit code and its lack."""
    failed: list[bool] = []

    def tell(found: dict[str, Any], _: release.Release) -> None:
        verdict, bound = found["attacks"]["verdict"], found["attacks"]["epsilon"]
        by_bound = bound is not None and sum(bound["right"]) > 0.75 * sum(bound["guesses"])
        failed.append(verdict["outcome"] == "fail" if family == "verdict" else by_bound)

    telling(monkeypatch, tell)
    monkeypatch.setattr(Gate, "against", lambda *_: ["it failed"] if failed[-1] else [])
    one, two, *_ = pair.run()
    assert {"exit code", "names", "stdout", "release/table.csv"} <= set(differences(one, two))
