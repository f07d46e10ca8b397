"""A ledger in one SQLite file, in write-ahead mode, on a local disk."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpsynth_accounting._errors import LedgerError
from dpsynth_accounting._files import filesystem_type
from dpsynth_accounting._store import Damaged, Database, Store

_UNSAFE = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "ceph", "glusterfs", "9p"}
    | {"lustre", "gpfs", "ncpfs", "beegfs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "davfs"}
)

_ATTEMPTS = 1000  # of ten milliseconds each, while another process makes the same file

_inherited: list[sqlite3.Connection] = []
"""Connections that came through a fork: SQLite allows a child neither to use nor to close them."""


class SQLiteStore(Store):
    """The SQLite file of a ledger and, beside it, its secret."""

    BYTES = "BLOB"
    LISTING = "SELECT name FROM sqlite_master WHERE type='table'"
    REMEDY = "Make the file and its folder writable, with free space, and run again."

    def __init__(self, path: str | os.PathLike[str], secret: Path | None = None) -> None:
        self.path = Path(path).resolve()
        self.where = str(self.path)
        self._local, self._opened = threading.local(), False
        self._refuse_unsafe_place()
        super().__init__(secret or self.path.with_name(self.path.name + ".secret"))
        self._opened = True

    def _refuse_unsafe_place(self) -> None:
        asked = f"A ledger was to be opened at {self.path}."
        if not self.path.parent.is_dir():
            raise LedgerError(
                asked,
                "Its folder does not exist.",
                "Make the folder first, or give another path.",
            )
        kind = filesystem_type(self.path.parent)
        if kind in _UNSAFE:
            raise LedgerError(
                asked,
                f"It lies on a network file system ({kind}), where SQLite's write-ahead log can "
                "lose or duplicate charges.",
                "Put the ledger on a local disk of the machine that runs dpsynth, or in "
                "PostgreSQL.",
            )

    def _create(self) -> None:
        self._use_write_ahead_log()
        super()._create()

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

    def guards(self, table: str) -> tuple[str, ...]:
        """Return the triggers that make a table append-only."""
        return tuple(
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
            for verb in ("UPDATE", "DELETE")
        )

    def location(self, db: Database) -> str:
        """Return the file's number on its file system: a copy has another, a renamed file not."""
        # The file system's own identifier outlives a reboot, where it has one; st_dev need not.
        system = os.statvfs(self.path).f_fsid
        found = self.path.stat()
        return f"sqlite {system or found.st_dev} {found.st_ino}"

    # -- connections -----------------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        """Return this thread's connection to the file that is there now.

        Never one inherited through a fork, nor one to a file that another has taken the place of.
        """
        held = self._held()
        if held is not None:
            if self._local.file == self._file():
                return held
            self.close()
        # Once opened, a ledger that is gone is an error and never a new, empty one.
        mode = "rw" if self._opened else "rwc"
        address = f"{self.path.as_uri()}?mode={mode}"
        db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=60.0)
        try:
            db.execute("PRAGMA synchronous=FULL")
            db.execute("SELECT count(*) FROM sqlite_master")  # opens the file; connecting does not
            self._local.held, self._local.file = (os.getpid(), db), self._file()
        except BaseException:
            db.close()
            raise
        return db

    def _file(self) -> tuple[int, int]:
        found = self.path.stat()
        return found.st_dev, found.st_ino

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

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        held = self._held()
        self._local.held = None
        if held is not None:
            held.close()

    def writing(self) -> contextlib.AbstractContextManager[Database]:
        """Yield the only writer's transaction: all of it lands, or none."""
        return self._transaction("BEGIN IMMEDIATE", "COMMIT")

    def reading(self) -> contextlib.AbstractContextManager[Database]:
        """Yield a transaction whose reads all see the file at one moment."""
        return self._transaction("BEGIN", "ROLLBACK")

    @contextlib.contextmanager
    def _transaction(self, begin: str, end: str) -> Iterator[Database]:
        db = self._connection()
        db.execute(begin)
        try:
            yield _Connection(db)
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        db.execute(end)

    def explain(self, error: Exception) -> str | None:
        """Return what SQLite or the file system says."""
        if isinstance(error, OSError):
            return error.strerror or type(error).__name__
        if not isinstance(error, sqlite3.Error):
            return None
        text = str(error)
        if "malformed" in text or "not a database" in text or "corrupt" in text:
            raise Damaged
        return text


class _Connection:
    """A connection of SQLite's, in the words of :class:`Database`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def rows(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, values).fetchall()

    def run(self, sql: str, **values: object) -> None:
        self._db.execute(sql, values)
