"""Candidates of a release: each whose exact results were read is counted, stated and verified."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth import _facts, bundle, release
from dpsynth._candidate import candidate_of
from dpsynth._explain import explain
from dpsynth.bundle import ReleaseError
from dpsynth.vault import _vault, make_plan
from dpsynth.vault._stream import SeededStream
from dpsynth_accounting import InvalidRequest, Ledger, LedgerError, replay, statement
from dpsynth_accounting._chain import chain_hash
from tests.vault.exact import with_known_coins

RNG = np.random.default_rng(3)
TABLE = pd.DataFrame({"age": RNG.integers(0, 90, 300), "sex": RNG.choice(["F", "M"], 300)})
SCHEMA = dp.Schema({"age": dp.Integer(0, 110), "sex": dp.Categorical(("F", "M"))})
PLANS = functools.lru_cache(make_plan)
STATED: dict[str, Any] = {}


def stated(*words: Any, attempt: Any = None, **facts: Any) -> Any:
    """Price a statement once for all that differ in the attempt alone."""
    key = repr((words, facts))
    if key not in STATED:
        STATED[key] = statement(*words, **facts)
    return replace(STATED[key], attempt=attempt)


@pytest.fixture(autouse=True)
def priced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Price plans once, and have coins and noise known, so that no verdict fails by chance."""
    monkeypatch.setattr(_vault, "make_plan", PLANS)
    monkeypatch.setattr(_vault, "SYSTEM", SeededStream(11))
    with_known_coins(monkeypatch)
    monkeypatch.setattr(_facts, "statement", stated)
    # What the exact results are is tested elsewhere: here, when they are computed.
    monkeypatch.setattr(release, "internal_of", lambda rows, *_: {"rows": len(rows.train)})


class Place:
    """A vault with a fitted model, and the releases of tables drawn from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.account = dp.Ledger(folder / "ledger.db").account("people", dp.Budget(16, 1e-6))
        self.vault = dp.Vault(TABLE, SCHEMA, self.account, unit=dp.Row(), audit_share=0.3)
        self.model = dp.Independent().fit(self.vault, epsilon=2)

    def drawn(self, seed: int) -> pd.DataFrame:
        return self.model.sample(40, rng=np.random.default_rng(seed))

    def of(self, seed: int, *, exact: bool = True) -> dp.Release:
        table = self.drawn(seed)
        return dp.Release.assemble(self.vault, self.model, table, epsilon=1, exact=exact)

    def attempt_of(self, name: str) -> dict[str, Any]:
        """Return the attempt that a written release states, which must verify."""
        folder = self.folder / name
        assert bundle.verify(folder).faults == ()
        facts = json.loads((folder / bundle.FACTS).read_bytes())
        found: dict[str, Any] = facts["statement"]["attempt"]
        text = " ".join((folder / bundle.STATEMENT).read_text().split())
        for sentence in found["sentences"]:
            assert sentence in text
            assert sentence in facts["statement"]["sentences"]
        assert explain(folder).to_json()["statement"]["attempt"] == found
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# -- what counts ---------------------------------------------------------------------------------


def test_a_release_decided_without_exact_results_says_so(place: Place) -> None:
    made = place.of(1, exact=False)
    assert made.internal is None
    made.write(place.folder / "one")
    found = place.attempt_of("one")
    assert (found["number"], found["informed"], found["bits_at_most"]) == (1, False, 0.0)
    assert not (place.folder / "one-internal").exists()
    with pytest.raises(ReleaseError, match="No exact results were computed"):
        made.write(place.folder / "two", internal=place.folder / "two-internal")
    # Afterwards they may be read: that counts for what comes next, not for what was released.
    seen = made.examined(place.vault)
    seen.write_internal(place.folder / "exact")
    assert (place.folder / "exact" / "report.json").is_file()
    assert place.attempt_of("one") == found
    assert place.of(2, exact=False).statement.attempt.number == 2  # type: ignore[union-attr]


def test_samples_of_one_model_that_were_looked_at_are_attempts(place: Place) -> None:
    """The model is fitted once: drawing again is free, choosing by exact results is not."""
    samples = [place.of(seed) for seed in (1, 2, 3)]
    assert [each.statement.attempt.number for each in samples] == [1, 2, 3]  # type: ignore[union-attr]
    samples[0].write(place.folder / "one")  # chosen in view of all three
    found = place.attempt_of("one")
    assert (found["number"], found["own"], found["bits_at_most"]) == (3, True, 3.17)


def test_a_choice_by_public_criteria_is_free(place: Place) -> None:
    """Ten samples compared with one another, with no private row: nothing is counted."""
    samples = [place.drawn(seed) for seed in range(10)]
    best = max(range(10), key=lambda i: samples[i]["sex"].eq("F").mean())
    assert place.account.attempts().made == 0
    place.of(best, exact=False).write(place.folder / "best")
    assert place.attempt_of("best")["informed"] is False


def test_the_same_table_is_one_attempt_however_often_it_is_looked_at(place: Place) -> None:
    for _ in range(5):
        place.of(1)
    assert place.of(1).statement.attempt.number == 1  # type: ignore[union-attr]


def test_a_look_at_the_rows_for_no_candidate_counts_as_one(place: Place) -> None:
    place.vault.inspect(lambda rows: len(rows.train), purpose="how many")
    assert place.of(1, exact=False).statement.attempt.number == 2  # type: ignore[union-attr]


def test_a_table_that_was_changed_after_the_look_is_another(place: Place) -> None:
    made = place.of(1)
    made.table.loc[0, "age"] = 109
    made.write(place.folder / "changed")
    found = place.attempt_of("changed")
    assert (found["number"], found["own"]) == (2, False)


def test_a_candidate_is_named_by_the_bytes_of_its_file(place: Place) -> None:
    for table in (place.drawn(1), pd.DataFrame({"a": ["x\ry", 'q"', None], "b": [1.5, None, 2]})):
        path = place.folder / "table.csv"
        from dpsynth._csv import write_csv

        write_csv(table, path)
        assert candidate_of(table) == hashlib.sha256(path.read_bytes()).hexdigest()


# -- the cap -------------------------------------------------------------------------------------


def test_beyond_the_cap_nothing_is_read_spent_or_written(place: Place) -> None:
    late = place.of(9, exact=False)
    for seed in (1, 2, 3):
        place.of(seed)
    before, left = place.account.head(), place.account.remaining()
    for act in (
        lambda: place.of(4),
        lambda: place.of(4, exact=False),
        lambda: late.examined(place.vault),
        lambda: place.vault.inspect(len, purpose="x"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidRequest, match="No private row was read and nothing was spent"):
            act()
    with pytest.raises(InvalidRequest, match="Attempt 4 at a release"):
        late.write(place.folder / "late")
    assert not (place.folder / "late").exists()
    assert (place.account.head(), place.account.remaining()) == (before, left)
    place.account.allow_attempts(4, "the board asked for another", "ada")
    late.write(place.folder / "late")
    found = place.attempt_of("late")
    assert (found["number"], found["most"], found["bits_at_most"]) == (4, 4, None)


def test_a_look_between_statement_and_seal_is_noticed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seal = place.of(1), bundle.seal

    def meanwhile(*words: Any, **facts: Any) -> None:
        facts_of = {"purpose": "another process", "candidate": "d" * 64}
        place.account.record("inspect", facts_of)
        monkeypatch.setattr(bundle, "seal", seal)
        seal(*words, **facts)

    monkeypatch.setattr(bundle, "seal", meanwhile)
    with pytest.raises(LedgerError, match="Write the release again"):
        made.write(place.folder / "one")
    assert not (place.folder / "one").exists()
    made.write(place.folder / "one")
    assert place.attempt_of("one")["number"] == 2


KILLED = """
import os, sys
import pandas as pd
import dpsynth as dp
account = dp.Ledger(sys.argv[1]).existing("people")
schema = dp.Schema({"age": dp.Integer(0, 110), "sex": dp.Categorical(("F", "M"))})
vault = dp.Vault(pd.DataFrame({"age": [1, 2], "sex": ["F", "M"]}), schema, account, unit=dp.Row())
vault.inspect(lambda rows: os._exit(9), purpose="killed", candidate="e" * 64)
"""


def test_a_look_counts_though_the_process_was_killed_in_it(place: Place) -> None:
    path = place.folder / "ledger.db"
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False, env=dict(os.environ))
    assert done.returncode == 9
    assert place.account.attempts().candidates == ("e" * 64,)
    assert place.of(1, exact=False).statement.attempt.number == 2  # type: ignore[union-attr]
    assert place.account.ledger.verify("people") == []


# -- falsified ------------------------------------------------------------------------------------


@pytest.fixture
def second(place: Place) -> Place:
    """Return a place whose release "second" is attempt 2."""
    place.of(1)
    place.of(2).write(place.folder / "second")
    assert place.attempt_of("second")["number"] == 2
    return place


Lie = Callable[[dict[str, Any]], object]

LIES: dict[str, Lie] = {
    "number": lambda attempt: attempt.update(number=1),
    "most": lambda attempt: attempt.update(most=30),
    "own": lambda attempt: attempt.update(own=False),
    "bits": lambda attempt: attempt.update(bits_at_most=0.0),
    "sentence": lambda attempt: attempt.update(sentences=["No exact result was read."]),
}


def resealed(place: Place, change: Callable[[Path], object]) -> tuple[str, ...]:
    """Change the files of "second", seal it again with good hashes, and return the faults.

    The forger has the ledger, and so can seal what he likes; he cannot have it count otherwise.
    """
    forged = shutil.copytree(place.folder / "second", place.folder / "forged")
    reservations = json.loads((forged / bundle.MANIFEST).read_bytes())["reservations"]
    change(forged)
    for part in (bundle.MANIFEST, bundle.EXTRACT, bundle.HEAD):
        (forged / part).unlink()
    attempt = place.account.attempts().of(bundle.sha256(forged / bundle.TABLE))
    bundle.seal(forged, place.account, {"reservations": reservations}, attempt=attempt)
    return bundle.verify(forged).faults


def test_a_release_that_is_sealed_again_verifies(second: Place) -> None:
    """The twin of those below: what is flagged in them is the lie alone."""
    assert resealed(second, lambda _: None) == ()


@pytest.mark.parametrize("lie", LIES)
def test_a_report_with_a_false_count_does_not_verify(second: Place, lie: str) -> None:
    def falsify(folder: Path) -> None:
        facts = json.loads((folder / bundle.FACTS).read_bytes())
        LIES[lie](facts["statement"]["attempt"])
        bundle.write_json(folder / bundle.FACTS, facts)

    (fault,) = resealed(second, falsify)
    assert fault == "the report states another attempt than the ledger counts"


def test_a_report_without_the_count_does_not_verify(second: Place) -> None:
    def falsify(folder: Path) -> None:
        facts = json.loads((folder / bundle.FACTS).read_bytes())
        del facts["statement"]["attempt"]
        bundle.write_json(folder / bundle.FACTS, facts)

    assert "the report states another attempt than the ledger counts" in resealed(second, falsify)


def test_a_page_with_a_false_count_does_not_verify(second: Place) -> None:
    def falsify(folder: Path) -> None:
        path = folder / bundle.STATEMENT
        path.write_text(path.read_text().replace("attempt 2 of", "attempt 1 of"))

    (fault,) = resealed(second, falsify)
    assert fault == "statement.txt states another attempt than the ledger counts"


@pytest.mark.parametrize("name", [bundle.FACTS, bundle.STATEMENT, bundle.PAGE])
def test_what_a_person_reads_states_the_count_once_and_truly(second: Place, name: str) -> None:
    """The twins: another number, and a second sentence beside the true one."""
    sentence = second.attempt_of("second")["sentences"][0]
    for lie in (
        sentence.replace("attempt 2 of", "attempt 1 of"),
        f"{sentence} {sentence.replace('attempt 2 of', 'attempt 1 of')}",
    ):

        def falsify(folder: Path, lie: str = lie) -> None:
            path = folder / name
            if name == bundle.FACTS:
                facts = json.loads(path.read_bytes())
                said = facts["statement"]["sentences"]
                said[said.index(sentence)] = lie
                bundle.write_json(path, facts)
                return
            before = path.read_text()
            words = " ".join(before.split()) if name == bundle.STATEMENT else before
            assert words.count(sentence) == 1
            path.write_text(words.replace(sentence, lie))

        (fault,) = resealed(second, falsify)
        assert fault == f"{name} states another attempt than the ledger counts"
        shutil.rmtree(second.folder / "forged")


def test_looks_after_a_release_are_told_by_who_verifies_a_later_extract(place: Place) -> None:
    made = place.of(1, exact=False)
    folder = made.write(place.folder / "one")
    assert "read since" not in bundle.verify(folder).summary
    made.examined(place.vault)
    place.of(2)
    bundle.refresh(folder, place.account)
    found = bundle.verify(folder)
    assert found.faults == ()
    assert "attempt 1 of at most 3, exact results of 2 candidate(s) read since" in found.summary


def test_exact_results_are_never_written_into_a_release(place: Place) -> None:
    made = place.of(1)
    out = place.folder / "one"
    for inside in (out, out / "internal", out / "." / "deep" / "internal"):
        with pytest.raises(ReleaseError, match="part of the release folder"):
            made.write(out, internal=inside)
        assert not out.exists()
    made.write(out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ReleaseError, match="holds a release"):
        made.write_internal(out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_exact_results_count_on_the_account_that_paid_for_the_release(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made, other = place.of(1, exact=False), Place(tmp_path_factory.mktemp("other"))
    with pytest.raises(InvalidRequest, match="another account's vault"):
        made.examined(other.vault)
    assert other.account.attempts().made == place.account.attempts().made == 0


def test_an_entry_with_a_false_count_does_not_verify(second: Place) -> None:
    """Under hashes that are good: every figure is counted again from the entries before."""
    folder = second.folder / "second"
    extract = json.loads((folder / bundle.EXTRACT).read_bytes())
    last = extract["entries"][-1]
    last["payload"]["attempt"]["number"] = 1
    last["hash"] = chain_hash(extract["entries"][-2]["hash"], last["payload"])
    head = json.loads((folder / bundle.HEAD).read_bytes())
    extract["head"] = head["head"] = last["hash"]
    bundle.write_json(folder / bundle.EXTRACT, extract)
    bundle.write_json(folder / bundle.HEAD, head)
    faults = bundle.verify(folder).faults
    assert any("states another attempt than it is" in each for each in faults)
    with pytest.raises(ReleaseError, match="does not verify"):
        explain(folder)


def test_an_entry_for_another_table_does_not_verify(second: Place) -> None:
    folder = second.folder / "second"
    manifest = folder / bundle.MANIFEST
    digest, paid = bundle.sha256(manifest), json.loads(manifest.read_bytes())["reservations"]
    facts = {"manifest": digest, "reservations": paid, "candidate": "c" * 64}
    second.account.allow_attempts(9, "a test", "ada")
    second.account.record("release", facts)
    bundle.refresh(folder, second.account)
    assert "the ledger records this release for another table" in bundle.verify(folder).faults


def test_a_release_of_before_attempts_were_counted_verifies(place: Place) -> None:
    """As it was written then: neither its report, nor its page, nor its entry states one."""
    place.account.record("inspect", {"purpose": "exact results of a release"})
    place.of(2, exact=False).write(place.folder / "second")
    assert place.attempt_of("second")["number"] == 2
    folder = resealed_as_before(place)
    assert bundle.verify(folder).faults == ()
    assert "attempt" not in bundle.verify(folder).summary
    assert explain(folder).statement.attempt is None


def test_nobody_goes_back_to_before_attempts_were_counted(second: Place) -> None:
    """Once exact results are counted, a release that states no attempt is refused, and found."""
    with pytest.raises(InvalidRequest, match="without its candidate"):
        resealed_as_before(second)
    look = {"kind": "inspect", "purpose": "exact results", "candidate": "b" * 64}
    state = replay(chained(second, [look, {"kind": "release", "manifest": "ab" * 32}]), "people")
    (fault,) = state.faults
    assert "hides which attempt it is" in fault


def chained(place: Place, payloads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the account's entries and these after them, under good hashes."""
    entries = place.account.ledger.entries("people")
    for facts in payloads:
        last = entries[-1]
        seq, time = last["payload"]["seq"] + 1, last["payload"]["time"]
        payload = {**facts, "account": "people", "seq": seq, "time": time}
        entries.append({"payload": payload, "hash": chain_hash(last["hash"], payload)})
    return entries


def resealed_as_before(place: Place) -> Path:
    folder = shutil.copytree(place.folder / "second", place.folder / "old")
    facts = json.loads((folder / bundle.FACTS).read_bytes())
    del facts["statement"]["attempt"]
    bundle.write_json(folder / bundle.FACTS, facts)
    manifest = json.loads((folder / bundle.MANIFEST).read_bytes())
    manifest["files"][bundle.FACTS] = bundle.sha256(folder / bundle.FACTS)
    bundle.write_json(folder / bundle.MANIFEST, manifest)
    digest = bundle.sha256(folder / bundle.MANIFEST)
    paid = manifest["reservations"]
    place.account.record("release", {"manifest": digest, "reservations": paid})
    bundle._write_head(folder, place.account, digest, None)
    return folder


def test_the_ledger_says_how_many_there_were(second: Place) -> None:
    from dpsynth._ledger_view import account_facts, account_lines

    facts = account_facts(Ledger(second.folder / "ledger.db").existing("people"))
    assert facts["attempts"] == {"made": 2, "most": 3}
    text = "\n".join(account_lines(facts))
    assert "attempts at a release: 2 of at most 3" in text
    assert "  attempt 2" in text
