"""The ledger's file: opening it, its secret, its transactions and its errors."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from dpsynth_accounting._errors import LedgerCorrupt, LedgerError
from dpsynth_accounting._files import filesystem_type, write_secret
from dpsynth_accounting.extract import FORMAT_VERSION

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
CREATE INDEX entries_of_reservation ON entries(
  json_extract(payload, '$.reservation'), json_extract(payload, '$.kind'),
  json_extract(payload, '$.step')
);
CREATE INDEX entries_of_plan ON entries(json_extract(payload, '$.plan_digest'));
"""
_APPEND_ONLY = tuple(
    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
    for table in ("entries", "answers")
    for verb in ("UPDATE", "DELETE")
)

_ATTEMPTS = 1000  # of ten milliseconds each, while another process makes the same file

_inherited: list[sqlite3.Connection] = []
"""Connections that came through a fork: SQLite allows a child neither to use nor to close them."""


class Store:
    """The SQLite file of a ledger and, beside it, its secret."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).resolve()
        self._local = threading.local()
        self._refuse_unsafe_place()
        with self._guarded("A ledger was to be opened."):
            if not self._tables():
                self._create()
            self._check_format()
        self._secret = self._read_secret()

    # -- opening ---------------------------------------------------------------------------------

    def _refuse_unsafe_place(self) -> None:
        parent = self.path.parent
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

    def _tables(self) -> set[str]:
        rows = self._connection().execute("SELECT name FROM sqlite_master WHERE type='table'")
        return {row[0] for row in rows}

    def _create(self) -> None:
        """Make the tables and the secret, unless another process has done so meanwhile."""
        self._use_write_ahead_log()
        with self._transaction() as db:
            if self._tables():
                return
            for statement in (*_TABLES.split(";\n"), *_APPEND_ONLY):
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES('format_version', ?)", (str(FORMAT_VERSION),))
            # A whole secret may be left from a ledger that was moved away or never finished:
            # it is kept, since writing another would lose what keys the one that was moved.
            if not self._secret_path.exists() or len(self._secret_path.read_bytes()) != 32:
                write_secret(self._secret_path, secrets.token_bytes(32))

    def _use_write_ahead_log(self) -> None:
        # SQLite does not wait for its busy timeout here, so two first openers collide.
        for attempt in range(_ATTEMPTS):
            try:
                self._connection().execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.01)
            else:
                return

    def _check_format(self) -> None:
        if not {"meta", "accounts", "entries", "answers"} <= self._tables():
            raise LedgerError(
                f"A ledger was to be opened at {self.path}.",
                "The file is a database of something else.",
                "Give the path of a ledger, or of a file that does not exist yet.",
            )
        found = (
            self._connection()
            .execute("SELECT value FROM meta WHERE key='format_version'")
            .fetchone()
        )
        if found is None or found[0] != str(FORMAT_VERSION):
            raise LedgerError(
                f"A ledger was to be opened at {self.path}.",
                f"Its format is not version {FORMAT_VERSION}, the one this dpsynth knows.",
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
        held = self._held()
        if held is not None:
            return held
        db = sqlite3.connect(self.path, isolation_level=None, timeout=60.0)
        db.execute("PRAGMA synchronous=FULL")
        self._local.held = (os.getpid(), db)
        return db

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        held = self._held()
        self._local.held = None
        if held is not None:
            held.close()

    def _held(self) -> sqlite3.Connection | None:
        held: tuple[int, sqlite3.Connection] | None = getattr(self._local, "held", None)
        if held is None:
            return None
        process, db = held
        if process == os.getpid():
            return db
        _inherited.append(db)
        self._local.held = None
        return None

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
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose reads all see the file at one moment."""
        db = self._connection()
        db.execute("BEGIN")
        try:
            yield db
        finally:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _guarded(self, asked: str, *, touched: bool = False) -> Iterator[None]:
        """Turn SQLite's errors into ours, saying what they mean for the charge."""
        try:
            yield
        except sqlite3.Error as error:
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
