"""Attempts: how they are counted and capped, what a false count shows, what a choice can tell."""

from __future__ import annotations

import itertools
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpsynth_accounting import (
    Account,
    ApproxDP,
    Attempt,
    Attempts,
    Budget,
    InvalidRequest,
    Ledger,
    LedgerError,
    odometer,
    verify_extract,
)
from dpsynth_accounting._chain import GENESIS, chain_hash
from dpsynth_accounting.attempts import TABLE_ALONE

A, B, C, D = (letter * 64 for letter in "abcd")
Extract = dict[str, Any]


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Ledger(tmp_path / "ledger.db").account("people", Budget(1, 1e-6))


def inspect(account: Account, candidate: str | None) -> None:
    account.record("inspect", {"purpose": "exact results", "candidate": candidate})


def release(account: Account, candidate: str, **facts: Any) -> dict[str, Any]:
    """Record a release and return the attempt that its entry holds."""
    account.record("release", {"manifest": "ab" * 32, "candidate": candidate, **facts})
    return account.ledger.entries(account.name)[-1]["payload"]["attempt"]  # type: ignore[no-any-return]


# -- the definition ------------------------------------------------------------------------------


def test_the_first_release_of_an_account_was_chosen_without_exact_results(account: Account) -> None:
    assert release(account, A) == {
        "number": 1,
        "most": 3,
        "own": False,
        "checks": 0,
        "bounded": True,
    }
    found = Attempt.from_entry(release(account, B))
    assert (found.number, found.informed, found.bits) == (1, False, 0.0)
    assert found.sentences()[0].startswith("No exact result had been read when")


def test_other_candidates_that_were_looked_at_count_and_each_once(account: Account) -> None:
    inspect(account, A)
    inspect(account, A)
    inspect(account, B)
    found = Attempt.from_entry(release(account, B))
    assert (found.number, found.own) == (2, True)
    found = Attempt.from_entry(release(account, C))
    assert (found.number, found.own) == (3, False)
    assert found.sentences()[0].startswith("This release is attempt 3 of at most 3: exact results")
    assert "2 other candidate(s) were read" in found.sentences()[0]
    assert "3.17 bits" in found.sentences()[0]


def test_what_shows_no_candidate_is_told_apart(account: Account) -> None:
    account.record("inspect", {"purpose": TABLE_ALONE})
    account.record("inspect", {"purpose": "population sketch", "for": "ab"})
    found = Attempt.from_entry(release(account, A))
    assert (found.number, found.checks) == (1, 1)
    assert "checked against its schema" in found.sentences()[1]
    inspect(account, None)  # nobody knows of what
    account.record("inspect", {"purpose": "exact results of a release"})  # as it once was
    account.record("inspect", {"purpose": TABLE_ALONE, "candidate": None})  # a name is no excuse
    assert account.attempts().unnamed == 3


def test_the_count_is_that_of_a_slow_one() -> None:
    """Over random chains, the number is recounted from the entries before, by the definition."""
    rng = random.Random(1)
    for _ in range(300):
        chain: list[dict[str, Any]] = []
        found = Attempts()
        for _ in range(rng.randrange(12)):
            kind = rng.choice(["inspect"] * 4 + ["attempts", "reserve"])
            facts: dict[str, Any] = {"kind": kind, "most": rng.randrange(1, 6), "purpose": "x"}
            if rng.random() < 0.8:
                facts["candidate"] = rng.choice([A, B, C, None])
            elif rng.random() < 0.5:
                facts["purpose"] = TABLE_ALONE
            elif rng.random() < 0.5:
                facts["for"] = "ab"
            chain.append(facts)
            found = found.after(facts)
        for candidate in (A, B, D):
            assert found.of(candidate) == slow(chain, candidate)


def slow(chain: list[dict[str, Any]], candidate: str) -> Attempt:
    number, most, own, checks, bounded = 1, 3, False, 0, True
    seen = []
    for each in chain:
        if each["kind"] == "attempts":
            most = each["most"]
            bounded = bounded and number == 1 and not own
        if each["kind"] != "inspect":
            continue
        named = each.get("candidate")
        if "candidate" not in each and each["purpose"] == TABLE_ALONE:
            checks += 1
        elif "candidate" not in each and "for" in each:
            continue
        elif named is None:
            number, bounded = number + 1, False
        elif named == candidate:
            own = True
        elif named not in seen:
            seen.append(named)
            number += 1
    return Attempt(number, most, own, checks, bounded)


# -- the cap -------------------------------------------------------------------------------------


def test_beyond_the_cap_nothing_is_inspected_or_released(account: Account) -> None:
    for each in (A, B, C):
        inspect(account, each)
    before = account.head()
    for act in (lambda: inspect(account, D), lambda: inspect(account, None)):
        with pytest.raises(InvalidRequest, match="Attempt 4 at a release") as refused:
            act()
        assert "No private row was read" in str(refused.value)
    with pytest.raises(InvalidRequest, match="allows 3 attempts"):
        release(account, D)
    assert account.head() == before
    inspect(account, B)  # one of them, again
    assert release(account, C)["number"] == 3


def test_a_cap_is_raised_for_all_to_see(account: Account) -> None:
    for each in (A, B, C):
        inspect(account, each)
    account.allow_attempts(4, "a fourth table was asked for by the board", "ada")
    fourth = release(account, D)
    assert fourth == {"number": 4, "most": 4, "own": False, "checks": 0, "bounded": False}
    assert "has no bound here" in Attempt.from_entry(fourth).sentences()[0]
    extract = account.extract()
    assert "asked for by the board" in json.dumps(extract)
    assert verify_extract(extract).faults == []
    assert account.ledger.verify("people") == []
    assert odometer(extract).attempts == (3, 4)
    assert "in view of exact results: 3 of 4" in odometer(extract).text()
    account.allow_attempts(1, "no further one", "ada")
    with pytest.raises(InvalidRequest, match="allows 1 attempts"):
        release(account, C)


def test_a_cap_that_was_set_before_anything_was_read_keeps_the_bound(account: Account) -> None:
    account.allow_attempts(5, "five methods are compared", "ada")
    inspect(account, A)
    assert Attempt.from_entry(release(account, A)).bits == pytest.approx(np.log2(20))
    account.allow_attempts(1, "lowered in view of what was read", "ada")  # the twin
    assert Attempt.from_entry(release(account, A)).bits == np.inf


def test_an_inspection_of_nobody_knows_what_leaves_no_bound(account: Account) -> None:
    """It may have been of fifty samples of a model."""
    inspect(account, None)
    assert Attempt.from_entry(release(account, A)).to_json()["bits_at_most"] is None


@pytest.mark.parametrize("name", ["my table", "", "AB" * 32, "ab" * 31])
def test_a_candidate_is_named_by_a_hash(account: Account, name: str) -> None:
    """Another name could stand for many tables, one after the other."""
    for act in (inspect, release):
        with pytest.raises(InvalidRequest, match="SHA-256 of its table"):
            act(account, name)
    (fault,) = verify_extract(chained(account, [{**LOOK, "candidate": name}])).faults
    assert "by no hash of a table" in fault


def test_a_release_that_states_an_attempt_names_its_candidate(account: Account) -> None:
    for _ in range(9):  # of before they were counted
        account.record("inspect", {"purpose": "exact results of a release"})
    stated = {"number": 1, "most": 3, "own": False, "checks": 0, "bounded": True}
    with pytest.raises(InvalidRequest, match="without its candidate"):
        account.record("release", {"manifest": "ab" * 32, "attempt": stated})
    (fault,) = verify_extract(chained(account, [{**DONE, "attempt": stated}])).faults
    assert "hides which attempt it is" in fault


@pytest.mark.parametrize("most", [0, -1, 1001, 2.5, True, "3"])
def test_a_cap_that_nobody_means_is_refused(account: Account, most: Any) -> None:
    with pytest.raises(InvalidRequest, match="whole number from 1 to 1000"):
        account.allow_attempts(most, "why", "ada")
    with pytest.raises(InvalidRequest, match="ask why"):
        account.allow_attempts(2, "  ", "ada")
    with pytest.raises(InvalidRequest, match="usable name"):
        account.allow_attempts(2, "why", "")


def test_of_many_that_race_for_the_last_attempt_one_is_granted(account: Account) -> None:
    for each in (A, B):
        inspect(account, each)

    def attempt(number: int) -> bool:
        mine = Ledger(account.ledger.path).existing("people")
        try:
            inspect(mine, f"{number:064d}")
        except InvalidRequest:
            return False
        finally:
            mine.ledger.close()
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(6))) == 1
    assert account.attempts().made == 3


def test_a_release_states_the_attempt_that_it_is_or_is_not_recorded(account: Account) -> None:
    """Exact results of another candidate were read after the statement was written."""
    stated = account.attempts().of(A)
    inspect(account, B)
    with pytest.raises(LedgerError, match="since its statement was made"):
        release(account, A, attempt=stated.entry())
    assert release(account, A, attempt=account.attempts().of(A).entry())["number"] == 2


# -- what a chain shows --------------------------------------------------------------------------


def chained(account: Account, payloads: list[dict[str, Any]]) -> Extract:
    """Return an extract of an account with these entries more, its hashes in order."""
    extract = account.extract()
    for facts in payloads:
        last = extract["entries"][-1]["payload"]
        place = {"account": last["account"], "seq": last["seq"] + 1, "time": last["time"]}
        payload = {**facts, **place}
        digest = chain_hash(extract["head"] or GENESIS, payload)
        extract["entries"].append({"payload": payload, "hash": digest})
        extract["head"] = digest
    return extract


LOOK = {"kind": "inspect", "purpose": "exact results"}
DONE = {"kind": "release", "manifest": "ab" * 32, "reservations": []}


def test_a_chain_of_before_attempts_were_counted_verifies_for_ever(account: Account) -> None:
    old = [*[LOOK] * 9, DONE, {**LOOK, "purpose": TABLE_ALONE}, DONE]
    assert verify_extract(chained(account, old)).faults == []
    for _ in range(9):
        account.record("inspect", {"purpose": "exact results of a release"})
    account.record("release", {"manifest": "ab"})
    assert account.ledger.verify("people") == []
    with pytest.raises(InvalidRequest, match="Attempt 10"):  # its next release is counted
        release(account, A)
    account.allow_attempts(12, "nine were made before they were counted", "ada")
    assert release(account, A)["number"] == 10


RIGHT = {"number": 2, "most": 3, "own": False, "checks": 0, "bounded": True}
FALSE = [
    {**RIGHT, "number": 1},
    {**RIGHT, "number": 3},
    {**RIGHT, "most": 2},
    {**RIGHT, "own": True},
    {**RIGHT, "checks": 1},
    None,
    {},
    "2 of 3",
]


def test_the_right_count_verifies(account: Account) -> None:
    seen = {**LOOK, "candidate": B}
    assert (
        verify_extract(chained(account, [seen, {**DONE, "candidate": A, "attempt": RIGHT}])).faults
        == []
    )


@pytest.mark.parametrize("stated", FALSE)
def test_a_false_count_is_found(account: Account, stated: object) -> None:
    """The twins: every figure falsified in turn, under a chain whose hashes are good."""
    entries = [{**LOOK, "candidate": B}, {**DONE, "candidate": A, "attempt": stated}]
    (fault,) = verify_extract(chained(account, entries)).faults
    assert "states another attempt than it is" in fault


def test_an_attempt_beyond_the_cap_is_found(account: Account) -> None:
    looks = [{**LOOK, "candidate": each} for each in (A, B, C)]
    fourth = {"number": 4, "most": 3, "own": False, "checks": 0, "bounded": True}
    for more in ({**LOOK, "candidate": D}, {**DONE, "candidate": D, "attempt": fourth}):
        (fault,) = verify_extract(chained(account, [*looks, more])).faults
        assert "an attempt beyond the cap of 3" in fault
    # The twin: a cap that was raised behind the chain's back is an entry without a reason.
    raised = {"kind": "attempts", "most": 9, "reason": "", "by": "ada"}
    assert verify_extract(chained(account, [raised])).faults
    nobody = {"kind": "attempts", "most": 9, "reason": "why"}
    assert verify_extract(chained(account, [nobody])).faults
    assert verify_extract(chained(account, [{**raised, "reason": "why"}])).faults == []


def test_a_look_that_was_removed_breaks_the_chain(account: Account) -> None:
    inspect(account, B)
    account.record("release", {"manifest": "ab" * 32, "candidate": A})
    extract = account.extract()
    del extract["entries"][1]
    assert verify_extract(extract).faults


def test_attempts_go_with_an_account_that_moves(account: Account, tmp_path: Path) -> None:
    inspect(account, A)
    other = Ledger(tmp_path / "other.db")
    moved = other.take_in(account.move_out(other.identity))
    assert release(moved, B)["number"] == 2


# -- what a choice can tell ----------------------------------------------------------------------


@pytest.mark.parametrize("most", range(1, 8))
def test_the_ways_to_choose_are_counted_by_listing_them(most: int) -> None:
    """Stop after any number of looks and release what was looked at, or one not looked at, or none.

    The last would be an attempt more than there were looks, so it must be within the cap.
    """
    ways: set[object] = {(j, i) for j in range(1, most + 1) for i in range(1, j + 1)} | {"none"}
    ways |= {(j, "not looked at") for j in range(1, most)}
    assert Attempt(1, most, True, 0).outcomes == len(ways)


def test_no_guess_gains_more_than_the_factor() -> None:
    """Brute force: the best guess of a secret, given what was paid and a choice among k.

    Over random laws, and one in which the choice tells all it can: there the factor is met.
    """
    rng = np.random.default_rng(5)
    for k, trial in itertools.product((2, 9), range(30)):
        secrets, paid = 10, 3
        joint = rng.dirichlet(np.ones(secrets * paid)).reshape(secrets, paid)
        chosen = rng.dirichlet(np.full(k, 0.1), (secrets, paid))
        if trial == 0:
            joint = np.full((secrets, paid), 1 / (secrets * paid))
            chosen = np.eye(k)[np.minimum(np.arange(secrets), k - 1)][:, None].repeat(paid, 1)
        alone = joint.max(axis=0).sum()
        with_choice = (joint[:, :, None] * chosen).max(axis=0).sum()
        assert with_choice <= k * alone * (1 + 1e-12)
        if trial == 0:
            assert with_choice == pytest.approx(k * alone)
            assert with_choice > (k - 1) * alone * 1.05  # the twin: one way fewer is too few


def test_a_charge_is_no_attempt(account: Account) -> None:
    account.reserve(ApproxDP(1, 0), 1, 1e-7, unit={"unit": "row"}, label="fit")  # type: ignore[arg-type]
    assert account.attempts() == Attempts()
