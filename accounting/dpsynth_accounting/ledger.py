"""The durable account: reserve, then touch; nothing is forgotten and nothing is handed back.

One database holds the accounts of a team: a local SQLite file, or PostgreSQL for several machines.
Each account is an append-only chain of entries, each hashed together with its predecessor. A
reservation is charged in the transaction that grants it; noisy answers are stored before anyone
sees them, so that a run which was killed can replay what it paid for and never draws it twice.
"""

from __future__ import annotations

import contextlib
import hmac
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dpsynth_accounting._canonical import canonical
from dpsynth_accounting._chain import FORMAT_VERSION
from dpsynth_accounting._errors import InvalidRequest, LedgerError
from dpsynth_accounting._sqlite import SQLiteStore
from dpsynth_accounting._standing import (
    Standing,
    append,
    insert_entry,
    read_entries,
    read_standing,
    require_home,
    write_standing,
)
from dpsynth_accounting._store import Database, Store
from dpsynth_accounting._verify import verify
from dpsynth_accounting.account import Account as Account
from dpsynth_accounting.budget import Budget, show
from dpsynth_accounting.extract import verify_extract
from dpsynth_accounting.policy import Policy, require_name
from dpsynth_accounting.reservation import Reservation as Reservation


class Ledger:
    """The accounts of a team.

    Args:
        path: The SQLite file, made if there is none; or ``postgresql+psycopg://...``, a database
            for the ledger alone, in which the tables are made if there are none.
        secret: The file of mode 0600 that keys audit coins and contribution bounding. It stays
            outside the database, by default beside the SQLite file as ``<path>.secret``. Keep
            both, and keep the secret secret.

    Raises:
        LedgerError: The database is no ledger, of a newer format, cannot be written, lies on a
            network file system, or its secret is missing or another's.
        LedgerCorrupt: SQLite finds the file damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, secret: Path | None = None) -> None:
        self._opened = path, secret
        self._store = _store(path, secret)
        self._secret = self._store.secret
        if isinstance(self._store, SQLiteStore):
            # A process that changes its folder, or is handed the ledger, finds the same file.
            self._opened = self._store.path, secret and secret.resolve()

    @property
    def path(self) -> Path:
        """Return the SQLite file.

        Raises:
            AttributeError: The ledger is no file.
        """
        if isinstance(self._store, SQLiteStore):
            return self._store.path
        raise AttributeError("a ledger in PostgreSQL has no path")

    @property
    def identity(self) -> str:
        """Random, made with the ledger: copies share it, no two ledgers do."""
        return self._store.identity

    def __repr__(self) -> str:
        """Name the database and nothing else."""
        return f"Ledger({self._store.where!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as the path: connections and keys are opened afresh there."""
        return _reopened, self._opened

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        self._store.close()

    # -- accounts --------------------------------------------------------------------------------

    def account(self, name: str, policy: Budget | Policy) -> Account:
        """Return the account of a population, opened at its first use.

        Args:
            name: Names the people, not a file: every table about them shares the account.
            policy: What it allows for ever, fixed when it is opened. A bare budget opens it with
                that budget and the additive filter; for an account that is open it only has to
                be the account's budget, while a policy has to be the account's whole policy.

        Raises:
            InvalidRequest: The account was opened with another budget or policy, or the name is
                empty.
        """
        require_name(name, "An account")
        wanted = Policy(policy) if isinstance(policy, Budget) else policy
        with self._writing(f"Account {name!r} was to be opened.", home=False) as db:
            standing = read_standing(db, name)
            if standing is None:
                require_home(self._store, db, touched=False)
                standing = Standing(name, wanted, _unit_text(wanted))
                write_standing(db, standing, new=True)
                facts = {"kind": "open", "format_version": FORMAT_VERSION, **wanted.to_json()}
                self._append(db, standing, {**facts, **self._whereabouts(db)})
        held = standing.policy
        if held.budget != wanted.budget:
            raise InvalidRequest(
                f"Account {name!r} was asked for with epsilon {show(wanted.budget.epsilon)}, delta "
                f"{show(wanted.budget.delta)}.",
                f"It was opened with epsilon {show(held.budget.epsilon)}, delta "
                f"{show(held.budget.delta)}, and a budget is fixed when it is opened.",
                "Ask for it with the budget it has.",
            )
        if isinstance(policy, Policy) and policy != held:
            raise InvalidRequest(
                f"Account {name!r} was asked for with another policy than it has.",
                f"It was opened with {canonical(held.to_json()).decode()}, and a policy is fixed "
                "when the account is opened.",
                "Ask for it with the policy it has, or with its budget alone.",
            )
        return Account(self, name, held)

    def accounts(self) -> list[str]:
        """Return the names of the accounts, sorted."""
        with self._reading("The accounts were to be listed.") as db:
            return sorted(row[0] for row in db.rows("SELECT name FROM accounts"))

    def existing(self, name: str) -> Account:
        """Return an account that is already open.

        Raises:
            InvalidRequest: There is no such account.
        """
        with self._reading(f"Account {name!r} was to be read.") as db:
            standing = read_standing(db, name)
        if standing is None:
            raise InvalidRequest(
                f"Account {name!r} was asked for.",
                "The ledger has no account of that name.",
                f"It has: {', '.join(self.accounts()) or 'none yet'}.",
            )
        return Account(self, name, standing.policy)

    def entries(self, account: str) -> list[dict[str, Any]]:
        """Return an account's entries, oldest first, each as ``{"payload", "hash"}``."""
        with self._reading(f"The entries of account {account!r} were to be read.") as db:
            return read_entries(db, account)

    def verify(self, account: str, manifest: Mapping[str, Any] | None = None) -> list[str]:
        """Return the faults of an account's chain, totals and stored answers; empty if none.

        By itself it shows integrity, not authenticity: who can rewrite the whole database can
        rewrite its chain. The head in a manifest, kept elsewhere, shows that too.

        Args:
            account: The account's name.
            manifest: A release's manifest, whose ``"ledger"`` is :meth:`Account.head` at sealing.
        """
        with self._reading(f"Account {account!r} was to be verified.") as db:
            return verify(self._store, db, account, manifest)

    # -- place -----------------------------------------------------------------------------------

    def adopt(self, reason: str, by: str) -> None:
        """Accept that the ledger is elsewhere than it was, and say so in every account.

        What the original granted since the copy was made is missing here and is spent again if
        this copy is used. Reservations of before are never continued, since the original may have
        answered them.

        Args:
            reason: Why, in public terms: a disk was replaced, a backup restored.
            by: Who vouches that the original is not used any more.

        Raises:
            InvalidRequest: The ledger is where it was, or no reason is given.
        """
        asked = f"The ledger {self._store.where} was to be adopted where it is."
        require_name(by, "An adoption")
        with self._writing(asked, home=False) as db:
            place = self._store.place(db)
            if not reason.strip() or db.rows("SELECT value FROM meta WHERE key='place'") == [
                (place,)
            ]:
                raise InvalidRequest(
                    asked,
                    "That takes a reason, and a ledger that was copied, restored or moved.",
                    "There is nothing to do for a ledger that is where it was.",
                )
            facts = {"kind": "adopt", "place": place, "reason": reason, "by": by}
            for (name,) in db.rows("SELECT name FROM accounts WHERE moved=0"):
                standing = read_standing(db, name)
                if standing is not None:
                    self._append(db, replace(standing, since=standing.entries), facts)
            db.run("UPDATE meta SET value=:place WHERE key='place'", place=place)

    def take_in(self, extract: Mapping[str, Any]) -> Account:
        """Take in an account that another ledger moved out to this one.

        The chain goes on here, from the same balance. An account that was moved out from here
        before comes back.

        Args:
            extract: What :meth:`Account.move_out` returned.

        Raises:
            InvalidRequest: The extract does not verify, does not end with a move to this ledger,
                or the account is here already.
        """
        asked = "An account was to be taken in from an extract."
        state = verify_extract(extract)
        last = extract["entries"][-1]["payload"] if not state.faults else {}
        if state.faults or state.policy is None:
            raise InvalidRequest(
                asked, f"It does not verify: {state.faults[0]}.", "Ask for another extract."
            )
        if last["kind"] != "move" or last["to"] != self.identity:
            raise InvalidRequest(
                asked,
                "It does not end with a move to this ledger, and a budget is in one ledger only.",
                f"Move the account out to {self.identity}.",
            )
        name = require_name(extract["account"], "An account")
        unit = None if state.unit is None else canonical(state.unit).decode()
        with self._writing(asked) as db:
            before = read_standing(db, name)
            known = 0 if before is None else before.entries
            if before is not None and not _continues(before, extract["entries"]):
                raise InvalidRequest(
                    asked,
                    f"The ledger has an account {name!r} already, which this one does not "
                    "continue.",
                    "An account keeps its name and is taken in once.",
                )
            standing = Standing(
                name, state.policy, unit, state.length, state.head, last["time"], state.spent
            )
            standing = replace(standing, since=state.length)
            write_standing(db, standing, new=before is None)
            for entry in extract["entries"][known:]:
                insert_entry(db, entry["payload"], entry["hash"])
            kept = last["keys"] == Account(self, name, state.policy).key("moving").hex()
            keys = {"keys": "kept" if kept else "new"}
            self._append(db, standing, {"kind": "arrive", **keys, **self._whereabouts(db)})
        return Account(self, name, state.policy)

    def _whereabouts(self, db: Database) -> dict[str, str]:
        return {"ledger": self.identity, "place": self._store.place(db)}

    # -- keys and sketches -----------------------------------------------------------------------

    def key(self, purpose: str) -> bytes:
        """Return a 32-byte key for one purpose over all accounts; see also :meth:`Account.key`."""
        return hmac.digest(self._secret, canonical({"ledger": purpose}), "sha256")

    def put_sketch(self, account: str, table: str, sketch: bytes) -> None:
        """Keep a keyed sketch of who is in a table, in place of any earlier one of that table.

        It depends on rows, so it is outside the chain and in no extract.
        """
        with self._writing(f"A sketch for account {account!r} was to be kept.", home=False) as db:
            if read_standing(db, account) is None:
                raise LedgerError(
                    f"A sketch for account {account!r} was to be kept.",
                    "The ledger has no account of that name.",
                    "Open the account first.",
                )
            mine = {"account": account, "source": table}
            db.run("DELETE FROM sketches WHERE account=:account AND source=:source", **mine)
            db.run("INSERT INTO sketches VALUES(:account, :source, :sketch)", sketch=sketch, **mine)

    def sketches(self) -> dict[tuple[str, str], bytes]:
        """Return the sketches, by account and table. They are private to the ledger's keeper."""
        with self._reading("The sketches were to be read.") as db:
            rows = db.rows("SELECT account, source, value FROM sketches")
        return {(account, table): bytes(sketch) for account, table, sketch in rows}

    # -- plumbing --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reading(self, asked: str, *, touched: bool = False) -> Iterator[Database]:
        with self._store.guarded(asked, touched=touched), self._store.reading() as db:
            yield db

    @contextlib.contextmanager
    def _writing(
        self, asked: str, *, touched: bool = False, home: bool = True
    ) -> Iterator[Database]:
        """Yield the writer's transaction, refused where the ledger is not at home."""
        with self._store.guarded(asked, touched=touched), self._store.writing() as db:
            if home:
                require_home(self._store, db, touched=touched)
            yield db

    def _append(self, db: Database, standing: Standing, payload: Mapping[str, Any]) -> Standing:
        """Append an entry to an account's chain, inside the caller's transaction."""
        return append(db, standing, payload)


def _store(path: str | os.PathLike[str], secret: Path | None) -> Store:
    if isinstance(path, str) and path.partition(":")[0].startswith("postgresql"):
        from dpsynth_accounting._postgres import PostgresStore

        return PostgresStore(path, secret)
    return SQLiteStore(path, secret)


def _reopened(path: str | os.PathLike[str], secret: Path | None) -> Ledger:
    return Ledger(path, secret=secret)


def _unit_text(policy: Policy) -> str | None:
    return None if policy.unit is None else canonical(policy.unit).decode()


def _continues(before: Standing, entries: list[Mapping[str, Any]]) -> bool:
    """Say whether a chain goes on from the account as it was moved out from here."""
    return (
        before.moved
        and len(entries) > before.entries
        and bool(entries[before.entries - 1]["hash"] == before.head)
    )
