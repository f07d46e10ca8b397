"""`dpsynth ledger`: what each command shows, writes and refuses."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dpsynth import bundle
from dpsynth_accounting import (
    Account,
    Budget,
    DiscreteGaussian,
    Filter,
    Ledger,
    Policy,
    Repeat,
    verify_extract,
)
from tests.cli.conftest import Runner

UNIT = {"unit": "person", "column": "id", "rows": 1}
PLAN = Repeat(DiscreteGaussian(Fraction(2000), 1, 1), 4)
UNTOUCHED = "No private row was read and nothing was spent."


@dataclass(frozen=True)
class Place:
    """A folder with a ledger of one account, `people`."""

    folder: Path

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.db"

    def open(self, policy: Budget | Policy = Budget(2, 1e-6)) -> Account:  # noqa: B008
        return Ledger(self.ledger).account("people", policy)

    def spend(self, account: Account, by: str | None = None) -> str:
        paid = account.reserve(PLAN, 0.5, 1e-7, unit=UNIT, label="run mst", by=by)
        paid.begin(0, "question")
        paid.store(0, 0, "question", b"[1]")
        paid.commit()
        return paid.identity

    def seal(self, account: Account, by: str | None = None, key: Path | None = None) -> Path:
        """Return a release folder: everything but the table's making is real."""
        folder = self.folder / "release"
        folder.mkdir()
        (folder / "table.csv").write_text("a\n1\n")
        bundle.seal(folder, account, {"reservations": [self.spend(account, by)]}, key)
        return folder

    def run(self, sql: str) -> None:
        """Change the ledger file as someone may who can write it."""
        with closing(sqlite3.connect(self.ledger)) as db, db:
            for table in ("entries", "answers"):
                for verb in ("update", "delete"):
                    db.execute(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
            db.execute(sql)

    def key(self, name: str) -> tuple[Path, str]:
        """Return the file of a new private key, and its public key in hexadecimal."""
        path, private = self.folder / name, Ed25519PrivateKey.generate()
        s = serialization
        path.write_bytes(
            private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
        )
        return path, private.public_key().public_bytes_raw().hex()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def entries(place: Place, kind: str, account: str = "people") -> list[dict[str, object]]:
    found = [entry["payload"] for entry in Ledger(place.ledger).entries(account)]
    return [payload for payload in found if payload["kind"] == kind]


# -- reading -------------------------------------------------------------------------------------


def test_show_tells_the_policy_and_what_happened(place: Place, dpsynth: Runner) -> None:
    account = place.open(
        Policy(
            Budget(2, 1e-6),
            filter=Filter.named("zcdp"),
            per_release=1,
            expires=date(2999, 12, 31),
            preparers=("ada", "bo"),
            approvers=("cy",),
        )
    )
    place.seal(account, by="ada")
    account.attach("2026-03", "visits", by="ada")
    account.override("staff", "some are patients", "cy")
    account.declare(
        PLAN, 1, 1e-7, unit=UNIT, adjacency="add_or_remove_one_unit", source="a paper", by="bo"
    )
    account.reserve(PLAN, 0.5, 1e-7, unit=UNIT, label="handed back", by="bo").void()
    code, out, _ = dpsynth("ledger", "show", place.ledger)
    assert code == 0
    for text in (
        "people: epsilon ",
        "left of 2",
        "add up in rho (filter zcdp)",
        "at most epsilon 1 at a time",
        "until 2999-12-31",
        "prepared by ada, bo",
        "approved by cy",
        "run mst  epsilon 0.5, delta 1e-07  by ada",
        "declared, not enforced: epsilon 1, delta 1e-07  from a paper",
        "table visits of snapshot 2026-03",
        "same people as staff, accepted: some are patients",
        "not approved yet",
    ):
        assert text in out, text
    assert "handed back" not in out
    (told,) = json.loads(dpsynth("ledger", "show", place.ledger, "--json")[1])
    assert told["policy"]["filter"] == "zcdp"
    assert [charge["by"] for charge in told["charges"]] == ["ada"]
    assert told["releases"][0]["approved"] is False
    assert (len(told["declared"]), len(told["attached"]), len(told["overrides"])) == (1, 1, 1)
    assert told["epsilon_left"] == pytest.approx(float(account.remaining()[0]), rel=1e-5)


def test_show_of_a_plain_account_is_one_line_and_its_charges(place: Place, dpsynth: Runner) -> None:
    place.spend(place.open())
    _, out, _ = dpsynth("ledger", "show", place.ledger)
    assert out.splitlines()[0] == "people: epsilon 1.5 left of 2, delta 9e-07 left of 1e-06"
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize("command", ["show", "verify", "identity"])
def test_a_ledger_that_is_not_there_is_not_made(
    place: Place, dpsynth: Runner, command: str
) -> None:
    code, _, error = dpsynth("ledger", command, place.ledger)
    assert code == 2
    assert "no such file" in error
    assert not place.ledger.exists()


def test_verify_finds_what_only_a_manifest_can_show(place: Place, dpsynth: Runner) -> None:
    """A ledger rewritten from the start is whole in itself; the manifest quotes the old one."""
    account = place.open()
    manifest = place.seal(account) / "manifest.json"
    code, out, _ = dpsynth("ledger", "verify", place.ledger, "--manifest", manifest)
    assert (code, out) == (0, "people: ok (integrity, and history since the manifest)\n")
    account.ledger.close()
    for path in place.folder.glob("ledger.db*"):
        if path.suffix != ".secret":
            path.unlink()
    place.spend(place.open())
    assert dpsynth("ledger", "verify", place.ledger)[0] == 0
    code, out, _ = dpsynth("ledger", "verify", place.ledger, "--manifest", manifest)
    assert code == 2
    assert "history was rewritten" in out
    _, out, _ = dpsynth("ledger", "verify", place.ledger, "--manifest", manifest, "--json")
    assert len(json.loads(out)["people"]) >= 1


def test_verify_finds_a_tail_that_was_removed(place: Place, dpsynth: Runner) -> None:
    account = place.open()
    first = Ledger(place.ledger).entries("people")[0]
    manifest = place.seal(account) / "manifest.json"
    account.ledger.close()
    place.run("DELETE FROM entries WHERE seq > 0")
    place.run("DELETE FROM answers")
    place.run(f"UPDATE accounts SET entries=1, head='{first['hash']}'")
    code, out, _ = dpsynth("ledger", "verify", place.ledger, "--manifest", manifest)
    assert code == 2
    assert "tail was removed" in out


def test_verify_finds_an_altered_entry_and_a_copy(place: Place, dpsynth: Runner) -> None:
    account = place.open()
    manifest = place.seal(account) / "manifest.json"
    account.ledger.close()
    copy = Place(place.folder / "copy")
    copy.folder.mkdir()
    for path in place.folder.glob("ledger.db*"):
        shutil.copy(path, copy.folder)
    code, out, _ = dpsynth("ledger", "verify", copy.ledger, "--manifest", manifest)
    assert code == 2
    assert "copy" in out
    place.run("UPDATE entries SET payload=replace(payload, 'run mst', 'run aim')")
    code, out, _ = dpsynth("ledger", "verify", place.ledger, "--manifest", manifest)
    assert code == 2
    assert "altered" in out


def test_verify_against_an_account_that_is_gone(place: Place, dpsynth: Runner) -> None:
    manifest = place.seal(place.open()) / "manifest.json"
    other = Place(place.folder / "other")
    other.folder.mkdir()
    Ledger(other.ledger).account("staff", Budget(1, 1e-6))
    code, out, _ = dpsynth("ledger", "verify", other.ledger, "--manifest", manifest)
    assert code == 2
    assert "there is no account 'people'" in out
    assert "staff: ok (integrity)" in out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ledger": {"account": 3}}'])
def test_what_is_no_manifest_is_refused(place: Place, dpsynth: Runner, text: str) -> None:
    place.open()
    path = place.folder / "manifest.json"
    path.write_text(text)
    code, _, error = dpsynth("ledger", "verify", place.ledger, "--manifest", path)
    assert code == 2
    assert UNTOUCHED in error


def test_head_is_json_and_may_be_signed(place: Place, dpsynth: Runner) -> None:
    account = place.open()
    code, out, _ = dpsynth("ledger", "head", place.ledger, "people")
    assert code == 0
    assert json.loads(out) == account.head()
    key, public = place.key("key.pem")
    code, out, _ = dpsynth("ledger", "head", place.ledger, "people", "--sign", key)
    assert code == 0
    assert json.loads(out)["public_key"] == public


def test_export_gives_an_extract_that_verifies(place: Place, dpsynth: Runner) -> None:
    place.spend(place.open())
    code, out, _ = dpsynth("ledger", "export", place.ledger, "people")
    assert code == 0
    assert verify_extract(json.loads(out)).faults == []
    path = place.folder / "extract.json"
    assert dpsynth("ledger", "export", place.ledger, "people", "--out", path)[0] == 0
    assert json.loads(path.read_text()) == json.loads(out)
    code, _, error = dpsynth("ledger", "export", place.ledger, "people", "--out", path)
    assert code == 2
    assert "exists" in error
    code, _, error = dpsynth("ledger", "export", place.ledger, "nobody")
    assert code == 2
    assert "It has: people" in error


# -- places --------------------------------------------------------------------------------------


def test_an_account_moves_to_another_ledger_and_is_closed_here(
    place: Place, dpsynth: Runner
) -> None:
    place.spend(place.open())
    there = place.folder / "there.db"
    Ledger(there)
    _, identity, _ = dpsynth("ledger", "identity", there)
    out = place.folder / "moving.json"
    move = ("ledger", "move-out", place.ledger, "people", "--to", identity.strip(), "--out", out)
    code, told, error = dpsynth(*move)
    assert code == 0, error
    assert "take-in" in told
    code, told, error = dpsynth("ledger", "take-in", there, out)
    assert code == 0, error
    assert "epsilon 1.5" in told
    assert "moved to another ledger" in dpsynth("ledger", "show", place.ledger)[1]
    assert dpsynth("ledger", "take-in", there, out)[0] == 2
    for path in (place.ledger, there):
        assert dpsynth("ledger", "verify", path)[0] == 0


def test_a_refused_move_leaves_no_file_and_closes_nothing(place: Place, dpsynth: Runner) -> None:
    place.open()
    out = place.folder / "moving.json"
    code, _, error = dpsynth(
        "ledger", "move-out", place.ledger, "people", "--to", "x", "--out", out
    )
    assert code == 2
    assert "identity" in error
    assert not out.exists()
    out.write_text("mine")
    words = ("ledger", "move-out", place.ledger, "people", "--to", "0" * 32, "--out", out)
    assert dpsynth(*words)[0] == 2
    assert out.read_text() == "mine"
    assert entries(place, "move") == []


def test_a_restored_ledger_is_adopted_by_name(place: Place, dpsynth: Runner) -> None:
    account = place.open()
    account.ledger.close()
    backup = place.folder / "backup.db"
    shutil.copy(place.ledger, backup)
    shutil.copy(f"{place.ledger}.secret", f"{backup}.secret")
    assert dpsynth("ledger", "verify", backup)[0] == 2
    words = ("ledger", "adopt", backup, "--reason", "the disk died", "--by", "ada")
    code, out, error = dpsynth(*words)
    assert code == 0, error
    assert "1 account" in out
    assert dpsynth("ledger", "verify", backup)[0] == 0
    assert dpsynth(*words)[0] == 2  # it is at home now


# -- what people write ---------------------------------------------------------------------------


def test_attach_and_override_are_written_down(place: Place, dpsynth: Runner) -> None:
    Ledger(place.ledger).account("staff", Budget(1, 1e-6))
    place.open()
    words = ("ledger", "attach", place.ledger, "people", "2026-03", "visits", "--by", "ada")
    assert dpsynth(*words)[0] == 0
    (note,) = entries(place, "attach")
    assert (note["snapshot"], note["table"], note["by"]) == ("2026-03", "visits", "ada")
    reason = ("--reason", "some of them are patients", "--by", "ada")
    code, _, error = dpsynth("ledger", "override", place.ledger, "people", "staff", *reason)
    assert code == 0, error
    (note,) = entries(place, "override")
    assert (note["other"], note["by"]) == ("staff", "ada")
    for other in ("nobody", "people"):
        code, _, error = dpsynth("ledger", "override", place.ledger, "people", other, *reason)
        assert code == 2
        assert "It has: staff" in error
    assert len(entries(place, "override")) == 1


@pytest.mark.parametrize("command", ["override", "attach", "adopt", "declare", "approve"])
def test_nobody_writes_without_a_name(place: Place, dpsynth: Runner, command: str) -> None:
    place.open()
    code, _, error = dpsynth("ledger", command, place.ledger, "people", "a", "b")
    assert code != 0
    assert entries(place, command) == []
    assert "unexpected" not in error


def test_a_spend_made_elsewhere_is_counted(place: Place, dpsynth: Runner) -> None:
    place.spend(place.open())
    about = ("--source", "the 2024 report", "--by", "ada")
    about = (*about, "--adjacency", "add_or_remove_one_unit")
    words = ("ledger", "declare", place.ledger, "people", *about)
    code, out, error = dpsynth(*words, "--epsilon", "1", "--delta", "1e-7")
    assert code == 0, error
    assert "epsilon 0.5 is left" in out
    (spend,) = entries(place, "declare")
    assert spend["source"] == "the 2024 report"
    history = place.folder / "history.json"
    history.write_text("[[1.1, 0.01, 1000]]")
    code, out, error = dpsynth(*words, "--opacus", history, "--delta", "1e-7")
    assert code == 0, error
    spent = Fraction(str(entries(place, "declare")[1]["plan"]["charge"]["epsilon"]))  # type: ignore[index]
    assert 1 < spent < 5  # what such a training costs; more than was left, and counted all the same
    assert float(Ledger(place.ledger).existing("people").remaining()[0]) <= 0
    assert dpsynth("ledger", "verify", place.ledger)[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--epsilon", "1", "--opacus", "history.json"),
        ("--epsilon", "nan"),
        ("--opacus", "nowhere.json"),
        ("--epsilon", "1", "--adjacency", "replace_one"),
    ],
)
def test_a_spend_without_meaning_is_refused(
    place: Place, dpsynth: Runner, words: tuple[str, ...]
) -> None:
    place.spend(place.open())
    about = ("--source", "x", "--by", "ada", "--delta", "1e-7")
    if "--adjacency" not in words:
        about = (*about, "--adjacency", "add_or_remove_one_unit")
    code, _, error = dpsynth("ledger", "declare", place.ledger, "people", *about, *words)
    assert code == 2
    assert UNTOUCHED in error
    assert entries(place, "declare") == []


def test_a_spend_needs_a_unit_to_be_held_against(place: Place, dpsynth: Runner) -> None:
    place.open()
    words = ("--source", "x", "--by", "ada", "--delta", "1e-7", "--epsilon", "1")
    words = (*words, "--adjacency", "add_or_remove_one_unit")
    code, _, error = dpsynth("ledger", "declare", place.ledger, "people", *words)
    assert code == 2
    assert "unit of privacy is not fixed yet" in error


@pytest.fixture
def sealed(place: Place) -> Path:
    """Return a release that ada prepared and that bo may approve."""
    policy = Policy(Budget(2, 1e-6), preparers=("ada",), approvers=("bo",))
    return place.seal(place.open(policy), by="ada")


def test_a_release_is_approved_by_someone_else(place: Place, dpsynth: Runner, sealed: Path) -> None:
    code, out, _ = dpsynth("verify", sealed)
    assert code == 0  # not approved yet is no fault
    assert "not approved yet (may approve: bo)" in out
    for name in ("ada", "cy"):
        words = ("ledger", "approve", sealed, "--ledger", place.ledger, "--by", name)
        code, _, error = dpsynth(*words)
        assert code == 2, error
    assert "not approved yet" in dpsynth("verify", sealed)[1]
    manifest = (sealed / "manifest.json").read_bytes()
    code, out, error = dpsynth("ledger", "approve", sealed, "--ledger", place.ledger, "--by", "bo")
    assert code == 0, error
    assert "approved by bo (not signed)" in out
    assert "approved by bo (not signed)" in dpsynth("verify", sealed)[1]
    assert (sealed / "manifest.json").read_bytes() == manifest
    assert sorted(path.name for path in place.folder.iterdir() if path.is_dir()) == ["release"]
    assert dpsynth("ledger", "verify", place.ledger, "--manifest", sealed / "manifest.json")[0] == 0


def test_an_approval_that_must_be_signed(place: Place, dpsynth: Runner) -> None:
    key, public = place.key("bo.pem")
    head_key, _ = place.key("head.pem")
    policy = Policy(Budget(2, 1e-6), preparers=("ada",), approvers={"bo": public})
    release = place.seal(place.open(policy), by="ada", key=head_key)
    words = ("ledger", "approve", release, "--ledger", place.ledger, "--by", "bo")
    code, _, error = dpsynth(*words, "--key", key)
    assert code == 2
    assert "--signing-key" in error  # else the release would lose its signature
    code, _, error = dpsynth(*words, "--signing-key", head_key)
    assert code == 2
    assert "not signed with the key" in error
    code, out, error = dpsynth(*words, "--key", key, "--signing-key", head_key)
    assert code == 0, error
    assert "approved by bo (signed)" in out
    assert bundle.verify(release).authenticity == "signed"


def test_a_release_that_was_changed_is_not_approved(
    place: Place, dpsynth: Runner, sealed: Path
) -> None:
    (sealed / "table.csv").write_text("a\n2\n")
    words = ("ledger", "approve", sealed, "--ledger", place.ledger, "--by", "bo")
    code, _, error = dpsynth(*words)
    assert code == 2
    assert "table.csv was altered" in error
    assert entries(place, "approve") == []


def test_a_manifest_that_quotes_another_head_is_a_fault(place: Place) -> None:
    """The quoted head is checked by `verify` too: the release's own extract must hold it."""
    release = place.seal(place.open())
    assert bundle.verify(release).ok
    manifest = json.loads((release / "manifest.json").read_text())
    manifest["ledger"]["head"] = "0" * 64
    bundle.write_json(release / "manifest.json", manifest)
    assert any("manifest quotes" in fault for fault in bundle.verify(release).faults)
