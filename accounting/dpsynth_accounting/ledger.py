"""The durable account: reserve, then touch; nothing is forgotten and nothing is handed back.

One SQLite file holds the accounts of a team. Each account is an append-only chain of entries, each
hashed together with its predecessor. A reservation is charged in the transaction that grants it;
noisy answers are stored before anyone sees them, so that a run which was killed can replay what
it paid for and never draws it twice.

The file is local: SQLite's write-ahead log is unsafe on network file systems, which are refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from dpsynth_accounting import events
from dpsynth_accounting._errors import BudgetExceeded, InvalidRequest, LedgerError
from dpsynth_accounting._store import Store
from dpsynth_accounting.budget import Budget, Number, checked_delta, checked_epsilon, show
from dpsynth_accounting.extract import FORMAT_VERSION, GENESIS, chain_hash, replay


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Ledger(Store):
    """A file of accounts.

    Args:
        path: The SQLite file; it is made if there is none, beside a file ``<path>.secret`` of
            mode 0600 that keys audit coins and contribution bounding. Keep both, and keep the
            secret secret.

    Raises:
        LedgerError: The file is no ledger, of a newer format, cannot be written, lies on a network
            file system, or its secret is missing.
        LedgerCorrupt: SQLite finds the file damaged.
    """

    def __repr__(self) -> str:
        """Name the file and nothing else."""
        return f"Ledger({str(self.path)!r})"

    def __reduce__(self) -> tuple[type[Ledger], tuple[Path]]:
        """Travel to another process as the path: connections and keys are opened afresh there."""
        return Ledger, (self.path,)

    # -- accounts --------------------------------------------------------------------------------

    def account(self, name: str, budget: Budget) -> Account:
        """Return the account of a population, opened with ``budget`` at its first use.

        Args:
            name: Names the people, not a file: every table about them shares the account.
            budget: What may ever be spent on them. It is fixed when the account is opened.

        Raises:
            InvalidRequest: The account was opened with another budget, or the name is empty.
        """
        if not name.strip():
            raise InvalidRequest(
                "An account without a name was asked for.",
                "An account names the population it protects.",
                "Give a name such as 'patients-2026'.",
            )
        wanted = events.canonical(budget.to_json()).decode()
        with self._guarded(f"Account {name!r} was to be opened."), self._transaction() as db:
            row = db.execute("SELECT budget FROM accounts WHERE name=?", (name,)).fetchone()
            if row is None:
                db.execute(
                    "INSERT INTO accounts VALUES(?, 0, ?, ?, NULL, '0', '0')",
                    (name, GENESIS, wanted),
                )
                self._append(
                    db,
                    name,
                    {
                        "kind": "open",
                        "format_version": FORMAT_VERSION,
                        "budget": budget.to_json(),
                        "filter": "additive",
                    },
                )
            elif row[0] != wanted:
                held = Budget.from_json(json.loads(row[0]))
                raise InvalidRequest(
                    f"Account {name!r} was asked for with epsilon {show(budget.epsilon)}, delta "
                    f"{show(budget.delta)}.",
                    f"It was opened with epsilon {show(held.epsilon)}, delta {show(held.delta)}, "
                    "and a budget is fixed when it is opened.",
                    "Ask for it with the budget it has.",
                )
        return Account(self, name, budget)

    def accounts(self) -> list[str]:
        """Return the names of the accounts, sorted."""
        with self._guarded("The accounts were to be listed."):
            rows = self._connection().execute("SELECT name FROM accounts ORDER BY name").fetchall()
        return [row[0] for row in rows]

    def existing(self, name: str) -> Account:
        """Return an account that is already open.

        Raises:
            InvalidRequest: There is no such account.
        """
        with self._guarded(f"Account {name!r} was to be read."):
            row = (
                self._connection()
                .execute("SELECT budget FROM accounts WHERE name=?", (name,))
                .fetchone()
            )
        if row is None:
            raise InvalidRequest(
                f"Account {name!r} was asked for.",
                "The ledger has no account of that name.",
                f"It has: {', '.join(self.accounts()) or 'none yet'}.",
            )
        return Account(self, name, Budget.from_json(json.loads(row[0])))

    def _append(self, db: sqlite3.Connection, account: str, payload: dict[str, Any]) -> None:
        """Append an entry to an account's chain, inside the caller's transaction."""
        seq, head = db.execute(
            "SELECT entries, head FROM accounts WHERE name=?", (account,)
        ).fetchone()
        facts = _as_read({**payload, "account": account, "seq": seq, "time": _now()})
        text = events.canonical(facts).decode()
        digest = chain_hash(head, facts)
        db.execute("INSERT INTO entries VALUES(?, ?, ?, ?)", (account, seq, text, digest))
        db.execute("UPDATE accounts SET entries=?, head=? WHERE name=?", (seq + 1, digest, account))

    def entries(self, account: str) -> list[dict[str, Any]]:
        """Return an account's entries, oldest first, each as ``{"payload", "hash"}``."""
        with self._guarded(f"The entries of account {account!r} were to be read."):
            rows = (
                self._connection()
                .execute(
                    "SELECT payload, hash FROM entries WHERE account=? ORDER BY seq", (account,)
                )
                .fetchall()
            )
        return [{"payload": json.loads(text), "hash": digest} for text, digest in rows]

    def verify(self, account: str) -> list[str]:
        """Return the faults of an account's chain, totals and stored answers; empty if none.

        It shows integrity, not authenticity: who can rewrite the whole file can rewrite its chain.
        Compare the head with one printed in a manifest to detect that.
        """
        with (
            self._guarded(f"Account {account!r} was to be verified."),
            self._reading() as db,
        ):
            row = db.execute(
                "SELECT entries, head, budget, unit, spent_epsilon, spent_delta "
                "FROM accounts WHERE name=?",
                (account,),
            ).fetchone()
            written = db.execute(
                "SELECT payload, hash FROM entries WHERE account=? ORDER BY seq", (account,)
            ).fetchall()
            stored = {
                (reservation, step, part): (_sha256(request.encode()), _sha256(value))
                for reservation, step, part, request, value in db.execute(
                    "SELECT reservation, step, part, request, value FROM answers"
                )
            }
        if row is None:
            return [f"there is no account {account!r}"]
        state = replay([_parsed(*entry) for entry in written], account)
        faults = list(state.faults)
        if (state.length, state.head) != row[:2]:
            faults.append("the chain ends elsewhere than the account says")
        if state.budget is None or events.canonical(state.budget.to_json()).decode() != row[2]:
            faults.append("the budget is not the one the account was opened with")
        if (str(state.spent_epsilon), str(state.spent_delta)) != row[4:]:
            faults.append("the total spent is not the sum of the charges")
        unit = next((events.canonical(p["unit"]).decode() for p in state.plans.values()), None)
        if unit != row[3]:
            faults.append("the unit of privacy is not the one of the first reservation")
        for key in state.answers.keys() | {key for key in stored if key[0] in state.plans}:
            if stored.get(key) != state.answers.get(key):
                faults.append(f"stored answer {key} is missing, was altered or was put in")
        return faults


def _as_read(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as JSON gives them back: what is hashed must be what is later read."""
    read: dict[str, Any] = json.loads(events.canonical(facts))
    return read


def _sha256(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def _parsed(text: str, digest: str) -> dict[str, Any]:
    """Return an entry as read, its payload None where the text is not what an append writes."""
    try:
        payload = json.loads(text)
        canonical = events.canonical(payload).decode() == text
    except (ValueError, RecursionError):
        canonical = False
    return {"payload": payload if canonical else None, "hash": digest}


@dataclass(frozen=True)
class _Standing:
    """An account as its row in the file has it."""

    budget: Budget
    unit: str | None
    spent_epsilon: Fraction
    spent_delta: Fraction

    @property
    def left(self) -> tuple[Fraction, Fraction]:
        return self.budget.epsilon - self.spent_epsilon, self.budget.delta - self.spent_delta


def _plan_facts(
    event: events.Event, epsilon: Fraction, delta: Fraction, unit: Mapping[str, Any], label: str
) -> dict[str, Any]:
    """Return what identifies a plan: two of the same facts are the same plan."""
    charge = {"epsilon": str(epsilon), "delta": str(delta)}
    facts = {
        "event": events.event_to_json(event),
        "unit": dict(unit),
        "label": label,
        "charge": charge,
    }
    return _as_read(facts)


@dataclass(frozen=True)
class Account:
    """The account of one population in a ledger."""

    ledger: Ledger
    name: str
    budget: Budget

    def remaining(self) -> tuple[Fraction, Fraction]:
        """Return the (epsilon, delta) that no charge has taken yet."""
        with self.ledger._guarded(f"The balance of account {self.name!r} was to be read."):
            standing = self._standing(self.ledger._connection())
        return standing.left

    def _standing(self, db: sqlite3.Connection) -> _Standing:
        """Return what the file says of the account; a budget in memory is never relied on."""
        row = db.execute(
            "SELECT budget, unit, spent_epsilon, spent_delta FROM accounts WHERE name=?",
            (self.name,),
        ).fetchone()
        if row is None:
            raise LedgerError(
                f"Account {self.name!r} was to be used.",
                "The ledger has no account of that name.",
                "Open it with Ledger.account, which fixes its budget.",
            )
        budget = Budget.from_json(json.loads(row[0]))
        return _Standing(budget, row[1], Fraction(row[2]), Fraction(row[3]))

    def require(self, epsilon: Number, delta: Number) -> None:
        """Refuse a charge that would not be granted now; it may still be refused later.

        Raises:
            BudgetExceeded: The account has less left.
        """
        with self.ledger._guarded(f"The balance of account {self.name!r} was to be read."):
            standing = self._standing(self.ledger._connection())
        self._refuse_overspend(checked_epsilon(epsilon), checked_delta(delta), standing)

    def _refuse_overspend(self, epsilon: Fraction, delta: Fraction, standing: _Standing) -> None:
        left_epsilon, left_delta = standing.left
        if epsilon > left_epsilon or delta > left_delta:
            budget = standing.budget
            raise BudgetExceeded(
                f"Account {self.name!r} was asked for epsilon {show(epsilon)}, delta "
                f"{show(delta)}.",
                f"It has epsilon {show(left_epsilon, up=False)}, delta "
                f"{show(left_delta, up=False)} left of {show(budget.epsilon)}, "
                f"{show(budget.delta)}.",
                "Ask for no more than what is left; `dpsynth ledger show` lists what was spent. "
                "A run that was interrupted continues with --resume at no further charge.",
            )

    def reserve(
        self,
        event: events.Event,
        epsilon: Number,
        delta: Number,
        *,
        unit: Mapping[str, Any],
        label: str,
        meta: Mapping[str, Any] | None = None,
    ) -> Reservation:
        """Charge the account for a plan, before anything is read.

        Args:
            event: The whole plan. The caller has made sure that its price at ``delta`` is at most
                ``epsilon``; extracts are re-priced by whoever verifies them.
            epsilon: What is charged, with ``delta``. Charges add up (the additive filter).
            delta: What is charged, with ``epsilon``.
            unit: The unit of privacy; an account keeps the one of its first reservation.
            label: What the charge is for, in public terms.
            meta: Further public facts about the plan.

        Returns:
            The reservation, already charged.

        Raises:
            BudgetExceeded: The account has less left. Nothing is charged.
            InvalidRequest: The account is used under another unit.
        """
        epsilon, delta = checked_epsilon(epsilon), checked_delta(delta)
        identity = secrets.token_hex(8)
        plan = _plan_facts(event, epsilon, delta, unit, label)
        unit_text = events.canonical(plan["unit"]).decode()
        payload: dict[str, Any] = {
            "kind": "reserve",
            "reservation": identity,
            "plan": plan,
            "plan_digest": events.digest(plan),
            "meta": dict(meta or {}),
        }
        with (
            self.ledger._guarded(f"A charge on account {self.name!r} was to be written."),
            self.ledger._transaction() as db,
        ):
            standing = self._standing(db)
            if standing.unit is not None and standing.unit != unit_text:
                raise InvalidRequest(
                    f"Account {self.name!r} was asked for under the unit of privacy {unit_text}.",
                    f"It is kept under {standing.unit}; charges under two units do not add up.",
                    "Use the unit of the account, or open another account.",
                )
            self._refuse_overspend(epsilon, delta, standing)
            self._set_spent(db, standing, epsilon, delta, unit_text)
            self.ledger._append(db, self.name, payload)
        return Reservation(self, identity, _as_read(payload["meta"]))

    def _set_spent(
        self,
        db: sqlite3.Connection,
        standing: _Standing,
        epsilon: Fraction,
        delta: Fraction,
        unit: str | None,
    ) -> None:
        """Add a charge (or, with negative numbers, hand one back) to the account's totals."""
        db.execute(
            "UPDATE accounts SET unit=?, spent_epsilon=?, spent_delta=? WHERE name=?",
            (
                unit,
                str(standing.spent_epsilon + epsilon),
                str(standing.spent_delta + delta),
                self.name,
            ),
        )

    def unfinished(
        self,
        event: events.Event,
        epsilon: Number,
        delta: Number,
        *,
        unit: Mapping[str, Any],
        label: str,
    ) -> Reservation | None:
        """Return the latest reservation of this very plan, to replay what it paid for."""
        plan = _plan_facts(event, checked_epsilon(epsilon), checked_delta(delta), unit, label)
        with (
            self.ledger._guarded(f"Account {self.name!r} was to be read."),
            self.ledger._reading() as db,
        ):
            rows = db.execute(
                "SELECT payload FROM entries INDEXED BY entries_of_plan WHERE account=? "
                "AND json_extract(payload, '$.plan_digest')=? ORDER BY seq DESC",
                (self.name, events.digest(plan)),
            )
            for payload in (json.loads(row[0]) for row in rows):
                found = Reservation(self, payload["reservation"], payload["meta"])
                if not found._has(db, "void"):
                    return found
        return None

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Append an entry that charges nothing: an inspection or a release."""
        if kind not in ("inspect", "release"):
            raise InvalidRequest(
                f"An entry of kind {kind!r} was to be recorded.",
                "Only inspections and releases are recorded without a charge.",
                "Reserve what reads rows.",
            )
        with (
            self.ledger._guarded(f"An entry on account {self.name!r} was to be written."),
            self.ledger._transaction() as db,
        ):
            self.ledger._append(db, self.name, {**facts, "kind": kind})

    def key(self, purpose: str) -> bytes:
        """Return a 32-byte key for one purpose, stable for the account and known to it alone."""
        message = events.canonical({"account": self.name, "purpose": purpose})
        return hmac.new(self.ledger._secret, message, hashlib.sha256).digest()

    def extract(self) -> dict[str, Any]:
        """Return the account's chain as JSON data that verifies without the ledger or the rows."""
        entries = self.ledger.entries(self.name)
        return {
            "format_version": FORMAT_VERSION,
            "account": self.name,
            "entries": entries,
            "head": entries[-1]["hash"] if entries else GENESIS,
        }


@dataclass(frozen=True)
class Reservation:
    """A charged plan, with the answers it has given so far."""

    account: Account
    identity: str
    meta: Mapping[str, Any]

    def answer(self, step: int, part: int, request: str) -> bytes | None:
        """Return the stored answer of a step, or None if it was never stored.

        Raises:
            InvalidRequest: The stored answer belongs to another request.
        """
        ledger = self.account.ledger
        with ledger._guarded("A stored answer was to be read.", touched=True):
            row = (
                ledger._connection()
                .execute(
                    "SELECT request, value FROM answers WHERE reservation=? AND step=? AND part=?",
                    (self.identity, step, part),
                )
                .fetchone()
            )
        if row is None:
            return None
        if row[0] != request:
            raise InvalidRequest(
                "A paid answer was to be replayed for a different question.",
                "An answer belongs to the request it was drawn for.",
                "Resume with the same recipe, schema and version, or start a new run.",
                touched=True,
            )
        return bytes(row[1])

    def begin(self, step: int, request: str) -> None:
        """Note, durably, that a step is about to read rows.

        Raises:
            InvalidRequest: The charge was handed back, by this process or by another.
        """
        with self._writing("A step was to be noted in the ledger.") as (db, append):
            if self._has(db, "void") or not self._has(db, "reserve"):
                raise InvalidRequest(
                    "A step of a plan was to begin.",
                    "The plan's charge was handed back, so nothing pays for the step.",
                    "Reserve the plan again.",
                )
            append({"kind": "begin", "step": step, "request": request})

    def store(self, step: int, part: int, request: str, value: bytes) -> None:
        """Store a noisy answer, durably, before it is shown to anyone."""
        facts = {"kind": "answer", "step": step, "part": part, "sha256": _sha256(value)}
        with self._writing("A paid answer was to be stored.") as (db, append):
            if not self._has(db, "begin", step):
                raise InvalidRequest(
                    "An answer of a step was to be stored.",
                    "The step was never noted in the ledger before it read rows.",
                    "Call begin before reading.",
                    touched=True,
                )
            try:
                db.execute(
                    "INSERT INTO answers VALUES(?, ?, ?, ?, ?)",
                    (self.identity, step, part, request, value),
                )
            except sqlite3.IntegrityError as error:
                raise LedgerError(
                    "A paid answer was to be stored.",
                    "Another run of the same plan stored that answer first, and only one is kept.",
                    "Run again with --resume, alone: it replays what is stored.",
                    touched=True,
                ) from error
            append({"request_sha256": _sha256(request.encode()), **facts})

    def commit(self) -> None:
        """Note that the plan has been carried out."""
        with self._writing("A plan was to be noted as carried out.") as (db, append):
            if not self._has(db, "commit"):
                append({"kind": "commit"})

    def void(self) -> bool:
        """Hand the charge back if, and only if, no step has begun; say whether it was.

        Once a step has begun its rows may have been read, and the charge stands for ever.
        """
        account = self.account
        with self._writing("An unused charge was to be handed back.") as (db, append):
            if any(self._has(db, kind) for kind in ("begin", "answer", "commit", "void")):
                return False
            row = db.execute(
                "SELECT payload FROM entries INDEXED BY entries_of_reservation "
                "WHERE account=? AND json_extract(payload, '$.reservation')=? "
                "AND json_extract(payload, '$.kind')='reserve'",
                (account.name, self.identity),
            ).fetchone()
            charge = json.loads(row[0])["plan"]["charge"]
            back = -Fraction(charge["epsilon"]), -Fraction(charge["delta"])
            standing = account._standing(db)
            account._set_spent(db, standing, *back, standing.unit)
            append({"kind": "void"})
        return True

    def _has(self, db: sqlite3.Connection, kind: str, step: int | None = None) -> bool:
        """Say whether the chain holds an entry of a kind (and step) of this reservation."""
        wanted = "" if step is None else "AND json_extract(payload, '$.step')=?"
        query = (
            "SELECT 1 FROM entries INDEXED BY entries_of_reservation "
            "WHERE account=? AND json_extract(payload, '$.reservation')=? "
            f"AND json_extract(payload, '$.kind')=? {wanted} LIMIT 1"
        )
        values = (self.account.name, self.identity, kind, *(() if step is None else (step,)))
        return db.execute(query, values).fetchone() is not None

    @contextlib.contextmanager
    def _writing(
        self, asked: str
    ) -> Iterator[tuple[sqlite3.Connection, Callable[[dict[str, Any]], None]]]:
        """Yield a transaction and what appends to the account's chain inside it.

        The charge stands whatever fails here, hence ``touched``.
        """
        ledger = self.account.ledger
        with ledger._guarded(asked, touched=True), ledger._transaction() as db:
            yield (
                db,
                lambda facts: ledger._append(
                    db, self.account.name, {**facts, "reservation": self.identity}
                ),
            )
