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
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from dpsynth_accounting import events
from dpsynth_accounting._errors import BudgetExceeded, InvalidRequest, LedgerCorrupt, LedgerError
from dpsynth_accounting._files import filesystem_type, write_secret
from dpsynth_accounting.budget import Budget, Number, checked_delta, checked_epsilon, show
from dpsynth_accounting.extract import GENESIS, chain_hash, replay

FORMAT_VERSION = 1

_UNSAFE = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "ceph", "glusterfs", "9p"}
    | {"lustre", "gpfs", "ncpfs", "beegfs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "davfs"}
)

_TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE accounts(
  name TEXT PRIMARY KEY, entries INTEGER NOT NULL, head TEXT NOT NULL,
  budget TEXT NOT NULL, unit TEXT, spent_epsilon TEXT NOT NULL, spent_delta TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE entries(
  account TEXT NOT NULL, seq INTEGER NOT NULL, payload TEXT NOT NULL, hash TEXT NOT NULL,
  PRIMARY KEY(account, seq)
) WITHOUT ROWID;
CREATE TABLE answers(
  reservation TEXT NOT NULL, step INTEGER NOT NULL, part INTEGER NOT NULL,
  request TEXT NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY(reservation, step, part)
) WITHOUT ROWID;
"""
_APPEND_ONLY = "".join(
    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END;\n"
    for table in ("entries", "answers")
    for verb in ("UPDATE", "DELETE")
)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Ledger:
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

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._local = threading.local()
        self._refuse_unsafe_place()
        with self._guarded("A ledger was to be opened."):
            self._create_or_check()
        self._secret = self._read_secret()

    def __repr__(self) -> str:
        """Name the file and nothing else."""
        return f"Ledger({str(self.path)!r})"

    def __reduce__(self) -> tuple[type[Ledger], tuple[Path]]:
        """Travel to another process as the path: connections and keys are opened afresh there."""
        return Ledger, (self.path,)

    # -- opening ---------------------------------------------------------------------------------

    def _refuse_unsafe_place(self) -> None:
        parent = self.path.resolve().parent
        if not parent.is_dir():
            raise LedgerError(
                f"A ledger was to be opened at {self.path}.",
                "Its folder does not exist.",
                "Make the folder first, or give another path.",
            )
        kind = filesystem_type(parent)
        if kind in _UNSAFE:
            raise LedgerError(
                f"A ledger was to be opened at {self.path}.",
                f"It lies on a network file system ({kind}), where SQLite's write-ahead log can "
                "lose or duplicate charges.",
                "Put the ledger on a local disk of the machine that runs dpsynth.",
            )

    def _create_or_check(self) -> None:
        with self._transaction() as db:
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
            if not tables:
                for statement in _TABLES.split(";\n"):
                    if statement.strip():
                        db.execute(statement)
                for statement in _APPEND_ONLY.splitlines():
                    db.execute(statement)
                db.execute("INSERT INTO meta VALUES('format_version', ?)", (str(FORMAT_VERSION),))
                write_secret(self._secret_path, secrets.token_bytes(32))
                return
            if "meta" not in tables:
                raise LedgerError(
                    f"A ledger was to be opened at {self.path}.",
                    "The file is a database of something else.",
                    "Give the path of a ledger, or of a file that does not exist yet.",
                )
            found = db.execute("SELECT value FROM meta WHERE key='format_version'").fetchone()
            if found is None or int(found[0]) > FORMAT_VERSION:
                raise LedgerError(
                    f"A ledger was to be opened at {self.path}.",
                    f"Its format is newer than version {FORMAT_VERSION}, which this dpsynth knows.",
                    "Use a newer dpsynth.",
                )

    @property
    def _secret_path(self) -> Path:
        return self.path.with_name(self.path.name + ".secret")

    def _read_secret(self) -> bytes:
        try:
            secret = self._secret_path.read_bytes()
        except OSError as error:
            raise LedgerError(
                f"The secret of the ledger {self.path} was to be read.",
                "It keys the audit coins and the choice of rows; without it a second run would "
                "draw them anew.",
                f"Restore {self._secret_path} from where it was kept.",
            ) from error
        if len(secret) != 32:
            raise LedgerError(
                f"The secret of the ledger {self.path} was to be read.",
                "It is not the 32 bytes that were written.",
                f"Restore {self._secret_path} from where it was kept.",
            )
        return secret

    # -- database plumbing -----------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection, never one inherited through a fork."""
        held: tuple[int, sqlite3.Connection] | None = getattr(self._local, "held", None)
        if held is not None and held[0] == os.getpid():
            return held[1]
        db = sqlite3.connect(self.path, isolation_level=None, timeout=60.0)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        self._local.held = (os.getpid(), db)
        return db

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        held = getattr(self._local, "held", None)
        if held is not None and held[0] == os.getpid():
            held[1].close()
        self._local.held = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection inside one immediate transaction: all of it lands, or none."""
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    @contextlib.contextmanager
    def _guarded(self, asked: str, *, touched: bool = False) -> Iterator[None]:
        """Turn SQLite's errors into ours, saying what they mean for the charge."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            self.close()
            text = str(error)
            if "malformed" in text or "not a database" in text or "corrupt" in text:
                raise LedgerCorrupt(
                    asked,
                    f"The file {self.path} is damaged or is no ledger.",
                    "Restore it from a copy and compare its head with the last manifest.",
                    touched=touched,
                ) from error
            raise LedgerError(
                asked,
                f"The ledger {self.path} could not be written ({text}).",
                "Make the file and its folder writable, with free space, and run again.",
                touched=touched,
            ) from error
        except OSError as error:
            raise LedgerError(
                asked,
                f"The ledger {self.path} could not be used ({error.strerror}).",
                "Make the file and its folder writable, with free space, and run again.",
                touched=touched,
            ) from error

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
        payload = {"account": account, "seq": seq, "time": _now(), **payload}
        digest = chain_hash(head, payload)
        text = events.canonical(payload).decode()
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
        with self._guarded(f"Account {account!r} was to be verified."):
            db = self._connection()
            row = db.execute(
                "SELECT entries, head, budget, unit, spent_epsilon, spent_delta "
                "FROM accounts WHERE name=?",
                (account,),
            ).fetchone()
            stored = {
                (reservation, step, part): hashlib.sha256(value).hexdigest()
                for reservation, step, part, value in db.execute(
                    "SELECT reservation, step, part, value FROM answers"
                )
            }
        if row is None:
            return [f"there is no account {account!r}"]
        state = replay(self.entries(account))
        faults = list(state.faults)
        if (state.length, state.head) != (row[0], row[1]):
            faults.append("the chain ends elsewhere than the account says")
        if state.budget is not None and state.budget.to_json() != json.loads(row[2]):
            faults.append("the budget is not the one the account was opened with")
        if (str(state.spent_epsilon), str(state.spent_delta)) != (row[4], row[5]):
            faults.append("the total spent is not the sum of the charges")
        for key, digest in state.answers.items():
            if stored.get(key) != digest:
                faults.append(f"stored answer {key} is missing or was altered")
        return faults


@dataclass(frozen=True)
class Account:
    """The account of one population in a ledger."""

    ledger: Ledger
    name: str
    budget: Budget

    def remaining(self) -> tuple[Fraction, Fraction]:
        """Return the (epsilon, delta) that no charge has taken yet."""
        with self.ledger._guarded(f"The balance of account {self.name!r} was to be read."):
            row = (
                self.ledger._connection()
                .execute(
                    "SELECT spent_epsilon, spent_delta FROM accounts WHERE name=?", (self.name,)
                )
                .fetchone()
            )
        return self.budget.epsilon - Fraction(row[0]), self.budget.delta - Fraction(row[1])

    def require(self, epsilon: Number, delta: Number) -> None:
        """Refuse a charge that would not be granted now; it may still be refused later.

        Raises:
            BudgetExceeded: The account has less left.
        """
        self._refuse_overspend(
            checked_epsilon(epsilon), checked_delta(delta), *self.remaining()
        )

    def _refuse_overspend(
        self, epsilon: Fraction, delta: Fraction, left_epsilon: Fraction, left_delta: Fraction
    ) -> None:
        if epsilon > left_epsilon or delta > left_delta:
            raise BudgetExceeded(
                f"Account {self.name!r} was asked for epsilon {show(epsilon)}, delta "
                f"{show(delta)}.",
                f"It has epsilon {show(max(left_epsilon, Fraction(0)))}, delta "
                f"{show(max(left_delta, Fraction(0)))} left of {show(self.budget.epsilon)}, "
                f"{show(self.budget.delta)}.",
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
        unit_text = events.canonical(dict(unit)).decode()
        identity = secrets.token_hex(8)
        plan = {"event": events.to_json(event), "unit": dict(unit), "label": label}
        plan["charge"] = {"epsilon": str(epsilon), "delta": str(delta)}
        payload = {
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
            held, spent_epsilon, spent_delta = db.execute(
                "SELECT unit, spent_epsilon, spent_delta FROM accounts WHERE name=?", (self.name,)
            ).fetchone()
            if held is not None and held != unit_text:
                raise InvalidRequest(
                    f"Account {self.name!r} was asked for under the unit of privacy {unit_text}.",
                    f"It is kept under {held}; charges under two units do not add up.",
                    "Use the unit of the account, or open another account.",
                )
            total = Fraction(spent_epsilon) + epsilon, Fraction(spent_delta) + delta
            self._refuse_overspend(
                epsilon,
                delta,
                self.budget.epsilon - Fraction(spent_epsilon),
                self.budget.delta - Fraction(spent_delta),
            )
            db.execute(
                "UPDATE accounts SET unit=?, spent_epsilon=?, spent_delta=? WHERE name=?",
                (unit_text, str(total[0]), str(total[1]), self.name),
            )
            self.ledger._append(db, self.name, payload)
        return Reservation(self, identity, payload["meta"])

    def unfinished(self, event: events.Event, epsilon: Number, delta: Number, *,
                   unit: Mapping[str, Any], label: str) -> Reservation | None:
        """Return the latest reservation of this very plan, to replay what it paid for."""
        plan = {"event": events.to_json(event), "unit": dict(unit), "label": label}
        plan["charge"] = {
            "epsilon": str(checked_epsilon(epsilon)),
            "delta": str(checked_delta(delta)),
        }
        wanted, found = events.digest(plan), None
        for entry in self.ledger.entries(self.name):
            payload = entry["payload"]
            if payload["kind"] == "reserve" and payload["plan_digest"] == wanted:
                found = Reservation(self, payload["reservation"], payload["meta"])
            if payload["kind"] == "void" and found is not None:
                found = None if payload["reservation"] == found.identity else found
        return found

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
            self.ledger._append(db, self.name, {"kind": kind, **facts})

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
            "head": entries[-1]["hash"],
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
                    "SELECT request, value FROM answers "
                    "WHERE reservation=? AND step=? AND part=?",
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
            )
        return bytes(row[1])

    def begin(self, step: int, request: str) -> None:
        """Note, durably, that a step is about to read rows."""
        self._write({"kind": "begin", "step": step, "request": request})

    def store(self, step: int, part: int, request: str, value: bytes) -> None:
        """Store a noisy answer, durably, before it is shown to anyone."""
        ledger = self.account.ledger
        digest = hashlib.sha256(value).hexdigest()
        facts = {"kind": "answer", "step": step, "part": part, "sha256": digest}
        with (
            ledger._guarded("A paid answer was to be stored.", touched=True),
            ledger._transaction() as db,
        ):
            db.execute(
                "INSERT INTO answers VALUES(?, ?, ?, ?, ?)",
                (self.identity, step, part, request, value),
            )
            ledger._append(db, self.account.name, {"reservation": self.identity, **facts})

    def commit(self) -> None:
        """Note that the plan has been carried out."""
        if not self._ended():
            self._write({"kind": "commit"})

    def void(self) -> bool:
        """Hand the charge back if, and only if, no step has begun; say whether it was.

        Once a step has begun its rows may have been read, and the charge stands for ever.
        """
        ledger = self.account.ledger
        with (
            ledger._guarded("An unused charge was to be handed back."),
            ledger._transaction() as db,
        ):
            rows = db.execute(
                "SELECT payload FROM entries WHERE account=?", (self.account.name,)
            ).fetchall()
            own = [p for p in map(json.loads, (r[0] for r in rows))
                   if p.get("reservation") == self.identity]
            if {p["kind"] for p in own} != {"reserve"}:
                return False
            charge = own[0]["plan"]["charge"]
            spent = db.execute(
                "SELECT spent_epsilon, spent_delta FROM accounts WHERE name=?",
                (self.account.name,),
            ).fetchone()
            db.execute(
                "UPDATE accounts SET spent_epsilon=?, spent_delta=? WHERE name=?",
                (
                    str(Fraction(spent[0]) - Fraction(charge["epsilon"])),
                    str(Fraction(spent[1]) - Fraction(charge["delta"])),
                    self.account.name,
                ),
            )
            ledger._append(
                db, self.account.name, {"kind": "void", "reservation": self.identity}
            )
        return True

    def _ended(self) -> bool:
        return any(
            entry["payload"]["kind"] == "commit"
            and entry["payload"]["reservation"] == self.identity
            for entry in self.account.ledger.entries(self.account.name)
        )

    def _write(self, facts: Mapping[str, Any]) -> None:
        ledger = self.account.ledger
        with (
            ledger._guarded("A step was to be noted in the ledger.", touched=True),
            ledger._transaction() as db,
        ):
            ledger._append(db, self.account.name, {"reservation": self.identity, **facts})
