"""Where a ledger is kept: its tables, its identity, its place, its secret and its errors.

SQLite and PostgreSQL run one SQL text, with ``:name`` parameters; a back end brings connections,
transactions and the few statements that differ.
"""

from __future__ import annotations

import abc
import contextlib
import hmac
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

from dpsynth_accounting._canonical import digest
from dpsynth_accounting._chain import sha256
from dpsynth_accounting._errors import LedgerCorrupt, LedgerError
from dpsynth_accounting._files import write_secret

LAYOUT = "dpsynth ledger, layout 1"

TABLES = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)",
    "CREATE TABLE accounts(name TEXT PRIMARY KEY NOT NULL, policy TEXT NOT NULL, unit TEXT, "
    "entries BIGINT NOT NULL, head TEXT NOT NULL, time TEXT NOT NULL, "
    "spent_cost TEXT NOT NULL, spent_delta TEXT NOT NULL, "
    "since BIGINT NOT NULL, moved BIGINT NOT NULL)",
    # What is looked up has a column of its own; `verify` holds it against the payload.
    "CREATE TABLE entries(account TEXT NOT NULL, seq BIGINT NOT NULL, kind TEXT NOT NULL, "
    "reservation TEXT, step BIGINT, subject TEXT, payload TEXT NOT NULL, hash TEXT NOT NULL, "
    "PRIMARY KEY(account, seq))",
    "CREATE INDEX entries_of_reservation ON entries(account, reservation, kind, step)",
    "CREATE INDEX entries_of_subject ON entries(account, kind, subject, seq)",
    "CREATE TABLE answers(reservation TEXT NOT NULL, step BIGINT NOT NULL, part BIGINT NOT NULL, "
    "request TEXT NOT NULL, value {bytes} NOT NULL, PRIMARY KEY(reservation, step, part))",
    "CREATE TABLE sketches(account TEXT NOT NULL, source TEXT NOT NULL, value {bytes} NOT NULL, "
    "PRIMARY KEY(account, source))",
)
APPEND_ONLY = ("entries", "answers")
_NAMES = frozenset({"meta", "accounts", "entries", "answers", "sketches"})


class Damaged(Exception):  # noqa: N818
    """What a back end raises through :meth:`Store.explain` for a file that is damaged."""


class Database(Protocol):
    """A connection inside one transaction."""

    def rows(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""

    def run(self, sql: str, **values: object) -> None:
        """Carry out a statement."""


class Store(abc.ABC):
    """The database of a ledger and the secret that keys it.

    Attributes:
        where: The database, as errors name it.
        identity: Random, made with the database: two ledgers never share it, copies do.
        secret: 32 bytes that key audit coins and contribution bounding.
    """

    BYTES: ClassVar[str]
    """The database's type for bytes."""

    LISTING: ClassVar[str]
    """The query for the names of the tables there are."""

    REMEDY: ClassVar[str]
    """What helps where the database cannot be used."""

    where: str
    identity: str
    secret: bytes

    def __init__(self, secret: Path) -> None:
        self._secret_path = secret
        with self.guarded("A ledger was to be opened."):
            with self.reading() as db:
                new = not self._tables(db)
            if new:
                self._create()
            with self.reading() as db:
                facts = self._facts(db)
            self.identity = facts["identity"]
            self.secret = self._read_secret(facts["secret"])

    # -- what a back end brings ------------------------------------------------------------------

    @abc.abstractmethod
    def guards(self, table: str) -> tuple[str, ...]:
        """Return the statements that make a table append-only."""

    @abc.abstractmethod
    def location(self, db: Database) -> str:
        """Return what tells the database's present place from that of any copy of it."""

    @abc.abstractmethod
    def writing(self) -> contextlib.AbstractContextManager[Database]:
        """Yield the only writer's transaction: all of it lands, or none."""

    @abc.abstractmethod
    def reading(self) -> contextlib.AbstractContextManager[Database]:
        """Yield a transaction whose reads all see the database at one moment."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close what this process holds open; the next use opens it again."""

    @abc.abstractmethod
    def explain(self, error: Exception) -> str | None:
        """Return a back end's error in a few words free of values, or None for another's error.

        Raises:
            Damaged: The database is damaged or no database.
        """

    # -- opening ---------------------------------------------------------------------------------

    def _create(self) -> None:
        """Make the tables and the secret, unless another process has done so meanwhile."""
        with self.writing() as db:
            if self._tables(db):
                return
            for statement in TABLES:
                db.run(statement.format(bytes=self.BYTES))
            for table in APPEND_ONLY:
                for statement in self.guards(table):
                    db.run(statement)
            # A whole secret may be left from a ledger that was moved away or never finished:
            # it is kept, since writing another would lose what keys the one that was moved.
            if not self._secret_path.exists() or len(self._secret_path.read_bytes()) != 32:
                write_secret(self._secret_path, secrets.token_bytes(32))
            self.identity = secrets.token_hex(16)
            facts = {
                "layout": LAYOUT,
                "identity": self.identity,
                "place": self.place(db),
                "secret": _fingerprint(self._secret_path.read_bytes()),
            }
            for key, value in facts.items():
                db.run("INSERT INTO meta VALUES(:key, :value)", key=key, value=value)

    def _tables(self, db: Database) -> set[str]:
        return {row[0] for row in db.rows(self.LISTING)}

    def _facts(self, db: Database) -> dict[str, str]:
        """Return what the database says of itself, if it is a ledger that this version knows."""
        asked = f"A ledger was to be opened at {self.where}."
        if not self._tables(db) >= _NAMES:
            raise LedgerError(
                asked,
                "It is a database of something else.",
                "Give the place of a ledger, or one where there is nothing yet.",
            )
        facts: dict[str, str] = dict(db.rows("SELECT key, value FROM meta"))
        if facts.get("layout") != LAYOUT or not {"identity", "place", "secret"} <= facts.keys():
            raise LedgerError(
                asked,
                f"Its format is not {LAYOUT!r}, the one this dpsynth knows.",
                "Use the dpsynth that wrote it, or a newer one.",
            )
        return facts

    def _read_secret(self, fingerprint: str) -> bytes:
        asked = f"The secret of the ledger {self.where} was to be read."
        restore = f"Restore {self._secret_path} from where it was kept."
        try:
            secret = self._secret_path.read_bytes()
        except OSError as error:
            raise LedgerError(
                asked,
                "It keys the audit coins and the choice of rows; without it a second run would "
                "draw them anew.",
                restore,
            ) from error
        if len(secret) != 32:
            raise LedgerError(asked, "It is not the 32 bytes that were written.", restore)
        if _fingerprint(secret) != fingerprint:
            raise LedgerError(asked, "It is the secret of another ledger.", restore)
        return secret

    # -- place -----------------------------------------------------------------------------------

    def place(self, db: Database) -> str:
        """Return the place as entries and heads name it: hashed, since paths are nobody's."""
        return digest({"ledger": self.identity, "location": self.location(db)})

    # -- errors ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def guarded(self, asked: str, *, touched: bool = False) -> Iterator[None]:
        """Turn the back end's errors into ours, saying what they mean for the charge."""
        try:
            yield
        except LedgerError:
            raise
        except Exception as error:
            try:
                text = self.explain(error)
            except Damaged:
                self.close()
                raise LedgerCorrupt(
                    asked,
                    f"{self.where} is damaged or is no ledger.",
                    "Restore it from a copy and compare its head with the last manifest.",
                    touched=touched,
                ) from error
            if text is None:
                raise
            self.close()
            raise LedgerError(
                asked,
                f"The ledger {self.where} could not be used ({text}).",
                self.REMEDY,
                touched=touched,
            ) from error


def _fingerprint(secret: bytes) -> str:
    """Return what tells one secret from another and nothing more."""
    return sha256(hmac.digest(secret, b"which secret this is", "sha256"))
