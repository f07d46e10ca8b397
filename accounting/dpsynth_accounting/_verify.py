"""Holding a ledger's account against its own chain, and the chain against a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dpsynth_accounting._canonical import canonical
from dpsynth_accounting._chain import parsed, sha256
from dpsynth_accounting._standing import Standing, columns_of, read_standing
from dpsynth_accounting._store import Database, Store
from dpsynth_accounting.extract import Replay, replay

_LOOKED_UP = ("account", "seq", "kind", "reservation", "step", "subject")


def verify(
    store: Store, db: Database, account: str, manifest: Mapping[str, Any] | None
) -> list[str]:
    """Return the faults of an account; see :meth:`Ledger.verify`."""
    standing = read_standing(db, account)
    if standing is None:
        return [f"there is no account {account!r}"]
    rows = db.rows(
        f"SELECT payload, hash, {', '.join(_LOOKED_UP)} FROM entries WHERE account=:account "
        "ORDER BY seq",
        account=account,
    )
    entries = [parsed(row[0], row[1]) for row in rows]
    state = replay(entries, account)
    faults = list(state.faults)
    for entry, row in zip(entries, rows, strict=True):
        payload = entry["payload"]
        if payload is not None and tuple(columns_of(payload).values()) != tuple(row[2:]):
            faults.append(f"entry {row[3]} is filed under other words than it holds")
    faults += _against_row(state, standing)
    faults += _against_answers(state, db)
    faults += _against_place(state, store, db)
    if manifest is not None:
        here = store.identity, store.place(db)
        faults += _against_head(state, entries, manifest, account, here)
    return faults


def _against_row(state: Replay, standing: Standing) -> list[str]:
    """Compare the account's row, which decides what is granted, with what the chain adds up to."""
    unit = None if state.unit is None else canonical(state.unit).decode()
    time = datetime.fromisoformat(standing.time)
    wrong = {
        "the chain ends elsewhere than the account says": (state.length, state.head, state.time)
        != (standing.entries, standing.head, time),
        "the policy or budget is not the one the account was opened with": state.policy
        != standing.policy,
        "the total spent is not the sum of the charges": state.spent != standing.spent,
        "the unit of privacy is not the one of the first reservation": unit != standing.unit,
        "the account is moved away or here, and its chain says otherwise": (
            state.moved,
            state.since,
        )
        != (standing.moved, standing.since),
    }
    return [fault for fault, found in wrong.items() if found]


def _against_answers(state: Replay, db: Database) -> list[str]:
    """Compare the stored answers with their hashes; those of before a move lie elsewhere."""
    stored = {
        (reservation, step, part): (sha256(request.encode()), sha256(bytes(value)))
        for reservation, step, part, request, value in db.rows(
            "SELECT reservation, step, part, request, value FROM answers"
        )
        if reservation in state.plans
    }
    faults = []
    for key in state.answers.keys() | stored.keys():
        elsewhere = key not in stored and state.made_elsewhere(key[0])
        if not elsewhere and stored.get(key) != state.answers.get(key):
            faults.append(f"stored answer {key} is missing, was altered or was put in")
    return faults


def _against_place(state: Replay, store: Store, db: Database) -> list[str]:
    noted = db.rows("SELECT value FROM meta WHERE key='place'")
    if state.moved:
        return []
    if noted != [(store.place(db),)]:
        return ["the ledger is a copy, or was restored or moved, and nobody adopted it"]
    if (state.ledger, state.place) != (store.identity, store.place(db)):
        return ["the chain was begun in another ledger or place and does not say how it came here"]
    return []


def _against_head(
    state: Replay,
    entries: list[dict[str, Any]],
    manifest: Mapping[str, Any],
    account: str,
    here: tuple[str, str],
) -> list[str]:
    """Compare with what a manifest noted when it was sealed, of the account it names."""
    try:
        head = manifest["ledger"]
        seq, time = int(head["seq"]), datetime.fromisoformat(head["time"])
        sealed = head["account"], head["head"], head["ledger"], head["place"]
    except (KeyError, TypeError, ValueError):
        return ["the manifest does not quote the ledger's head"]
    if sealed[0] != account:
        return [f"the manifest is of account {sealed[0]!r}"]
    if seq >= len(entries) or seq < 0:
        return [f"the tail was removed: the manifest was sealed at entry {seq}, which is not there"]
    faults = []
    if entries[seq]["hash"] != sealed[1]:
        faults.append(f"history was rewritten: entry {seq} is not the one the manifest quotes")
    if sealed[2:] != here and state.since <= seq:
        faults.append("the manifest was sealed in another copy of this ledger, or in another one")
    for entry in entries[seq + 1 :]:
        try:
            early = datetime.fromisoformat(entry["payload"]["time"]) < time
        except (KeyError, TypeError, ValueError):
            continue  # the replay has said that it cannot be read
        if early:
            faults.append(f"entry {entry['payload']['seq']} is dated before the manifest's head")
    return faults
