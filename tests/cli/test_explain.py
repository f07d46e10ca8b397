"""`dpsynth explain` and `dpsynth ledger odometer`: what was promised, what was spent."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path

import pytest

from dpsynth import bundle, cli
from dpsynth._explain import approval, explain
from dpsynth.bundle import ReleaseError
from dpsynth_accounting import ApproxDP, Budget, Ledger, Policy, replay
from tests.cli.conftest import Runner
from tests.end_to_end.conftest import Project, make_project

ROW = {"unit": "row"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with two releases of the same people."""
    project = make_project(tmp_path_factory.mktemp("project"))
    project.edit("epsilon = 2.0\ntarget", "epsilon = 0.75\ntarget")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("first", "second"):
            words = ["dpsynth", "run", project.recipe, project.table, "--out"]
            patch.setattr("sys.argv", [*map(str, words), str(project.folder / name)])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert stop.value.code == 0
    return project


@pytest.fixture
def release(done: Project, tmp_path: Path) -> Path:
    """A copy of the second release: it is explained where nothing else of the project is."""
    return Path(shutil.copytree(done.folder / "second", tmp_path / "release"))


def test_it_prints_the_page_that_the_release_holds(release: Path, dpsynth: Runner) -> None:
    code, page, _ = dpsynth("explain", release)
    assert code == 0
    assert page.startswith((release / "statement.txt").read_text(encoding="utf-8"))
    words = " ".join(page.split())
    assert "epsilon 0.75 at delta 3.75e-07" in words
    assert "one person, with at most 3 rows of theirs" in words
    assert "has paid for 2 releases: together (1.5, 7.5e-07), of (2, 1e-06)" in words
    assert (
        "age: integer, bounds declared (source: general knowledge; attested by: the data" in words
    )
    assert "city" not in page  # it was discovered, for a price, so nobody declared it
    assert "not signed, so not who wrote it" in words


def test_json_is_the_statement_of_the_report(release: Path, dpsynth: Runner) -> None:
    code, told, _ = dpsynth("explain", release, "--json")
    assert code == 0
    reported = json.loads((release / "report.json").read_bytes())["statement"]
    assert json.loads(told)["statement"] == reported


def test_html_is_written_once(release: Path, dpsynth: Runner, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, told, _ = dpsynth("explain", release, "--html", page)
    assert (code, told) == (0, "")
    text = page.read_text(encoding="utf-8")
    assert "Statement of differential privacy" in text
    assert "http" not in text.replace("http-equiv", "")
    code, _, error = dpsynth("explain", release, "--html", page)
    assert code == 2
    assert "The file exists." in error
    assert page.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("table.csv", "table.csv was altered"),
        ("report.json", "report.json was altered"),
        ("ledger.json", "ledger: entry 0 was altered, removed or moved"),
        ("manifest.json", "the ledger does not record this manifest"),
    ],
)
def test_an_altered_folder_is_refused_and_the_fault_named(
    release: Path, dpsynth: Runner, name: str, fault: str
) -> None:
    raw = (release / name).read_bytes()
    (release / name).write_bytes(raw.replace(b"0", b"1", 1))
    code, told, error = dpsynth("explain", release)
    assert (code, told) == (1, "")
    assert "It does not verify:" in error
    assert fault in error


@pytest.mark.parametrize(
    ("key", "value"),
    [("epsilon", 0.1), ("delta", 1e-9), ("adjacency", "replace_one"), ("unit", {"unit": "row"})],
)
def test_a_report_that_promises_more_than_its_ledger_charged_is_refused(
    done: Project, tmp_path: Path, key: str, value: object
) -> None:
    """Whoever holds the ledger can seal any report: only the plans say what was promised."""
    ledger = shutil.copytree(done.folder, tmp_path / "copy") / "ledger.db"
    forged = tmp_path / "copy" / "second"
    facts = json.loads((forged / bundle.FACTS).read_bytes())
    facts["statement"][key] = value
    reservations = json.loads((forged / bundle.MANIFEST).read_bytes())["reservations"]
    for part in (bundle.MANIFEST, bundle.EXTRACT, bundle.HEAD):
        (forged / part).unlink()
    account = Ledger(ledger)
    account.adopt("a test", "ada")
    people = account.existing("people")
    attempt = people.attempts().of(bundle.sha256(forged / bundle.TABLE))
    facts["statement"] |= {"attempt": attempt.to_json(), "sentences": attempt.sentences()}
    bundle.write_json(forged / bundle.FACTS, facts)
    for part in (bundle.STATEMENT, bundle.PAGE):
        (forged / part).write_text("\n".join(attempt.sentences()))
    bundle.seal(forged, people, {"reservations": reservations}, attempt=attempt)
    assert bundle.verify(forged).ok
    with pytest.raises(ReleaseError, match=f"states another {key} than its ledger"):
        explain(forged)


def test_approvals_are_told_as_what_they_are(tmp_path: Path) -> None:
    policy = Policy(Budget(1, 1e-6), approvers=("grace", "bo"))
    account = Ledger(tmp_path / "ledger.db").account("people", policy)
    account.reserve(ApproxDP(Fraction(1), Fraction(0)), 1, 1e-7, unit=ROW, label="x", by="bo")
    manifest = "ab" * 32
    account.record("release", {"manifest": manifest})

    def told() -> str:
        return approval(replay(account.extract()["entries"], "people"), manifest)

    assert told() == "The folder records no approval; the account's policy asks for one."
    account.approve(manifest, "grace")
    assert told() == "Approved by grace (a name, not authenticated)."


def test_what_is_no_release_is_refused(tmp_path: Path, dpsynth: Runner) -> None:
    code, _, error = dpsynth("explain", tmp_path)
    assert code == 1
    assert "There is no manifest in it." in error


def test_odometer_reads_the_life_of_an_account(
    done: Project, dpsynth: Runner, tmp_path: Path
) -> None:
    drawing = tmp_path / "odometer.svg"
    code, told, _ = dpsynth("ledger", "odometer", done.ledger, "--plot", drawing)
    assert code == 0
    assert "Enforced  epsilon 1.5, delta 7.5e-07, in 2 charge(s)." in told
    assert "release 2 (" in told
    assert "discrete Gaussian noise" in told
    ET.parse(drawing)
    code, told, _ = dpsynth("ledger", "odometer", done.ledger, "--json")
    assert code == 0
    found = json.loads(told)
    assert [each["epsilon"] for each in found["by_release"]] == [0.75, 0.75]
    assert found["left"]["epsilon"] == 0.5


def test_odometer_needs_a_ledger_and_an_account(
    dpsynth: Runner, tmp_path: Path, done: Project
) -> None:
    code, _, error = dpsynth("ledger", "odometer", tmp_path / "none.db")
    assert code == 2
    assert "There is no such file." in error
    assert not (tmp_path / "none.db").exists()
    code, _, error = dpsynth("ledger", "odometer", done.ledger, "nobody")
    assert code == 2
    assert "people" in error
