"""A ledger in PostgreSQL, for several machines; SQLAlchemy and psycopg are imported lazily."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsynth_accounting._errors import InvalidRequest, LedgerError
from dpsynth_accounting._store import Database, Store

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

_LOCK = 0x64707379_6E746831
"""The advisory lock of a ledger's one writer; PostgreSQL keeps it apart for each database."""

_SETTINGS = (
    "SELECT set_config('synchronous_commit', 'on', true), "  # a server may be set to forget
    "set_config('lock_timeout', '60s', true), "
    # The lock of a machine that vanished in mid-transaction must not stop the team for hours.
    "set_config('idle_in_transaction_session_timeout', '60s', true)"
)


class PostgresStore(Store):
    """A database of PostgreSQL that holds one ledger; its secret is a file on each machine."""

    BYTES = "BYTEA"
    LISTING = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    REMEDY = "See that the server is up, reachable and not read-only, then run again."

    def __init__(self, url: str, secret: Path | None) -> None:
        asked = "A ledger was to be opened in PostgreSQL."
        try:
            from sqlalchemy import create_engine
            from sqlalchemy.engine import make_url
            from sqlalchemy.exc import ArgumentError
        except ImportError as error:
            raise InvalidRequest(
                asked, "SQLAlchemy is not installed.", "Install `dpsynth[postgres]`."
            ) from error
        if secret is None:
            raise InvalidRequest(
                asked,
                "Its secret keys the audit coins and must not lie in the database itself.",
                "Give secret=, a file that every machine of the team has a copy of.",
            )
        try:
            address = make_url(url).set(drivername="postgresql+psycopg")
            # The ping finds a connection that the server dropped while a model trained. Values
            # stay out of errors; prepared statements would not pass through a pooler.
            self._engine = create_engine(
                address,
                pool_pre_ping=True,
                hide_parameters=True,
                connect_args={"prepare_threshold": None, "connect_timeout": 10},
            )
        except (ArgumentError, ImportError, ValueError) as error:
            raise InvalidRequest(
                asked,
                f"Its address cannot be used ({type(error).__name__}).",
                "Give postgresql+psycopg://user@host/database, and install `dpsynth[postgres]`.",
            ) from error
        self.where = address.set(query={}).render_as_string(hide_password=True)
        self._process, self._lock = os.getpid(), threading.Lock()
        weakref.finalize(self, _dispose, self._engine, self._process)
        super().__init__(secret)
        self._require_durable()

    def _require_durable(self) -> None:
        with self.guarded("A ledger was to be opened."), self.reading() as db:
            if db.rows("SHOW fsync") == [("off",)]:
                raise LedgerError(
                    f"A ledger was to be opened at {self.where}.",
                    "The server runs with fsync off: a crash of its machine would forget charges.",
                    "Set fsync = on.",
                )

    def guards(self, table: str) -> tuple[str, ...]:
        """Return the triggers that make a table append-only."""
        return (
            f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{table} are append-only'; END $$",
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()",
        )

    def location(self, db: Database) -> str:
        """Return the server's own number, its timeline and the database's number.

        A dump that is restored elsewhere differs in one of the numbers; a server that was promoted
        or recovered to an earlier moment, and so may lack the last charges, in its timeline.
        """
        query = (
            "SELECT (SELECT system_identifier FROM pg_control_system()), "
            "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return "postgresql {} {} {}".format(*db.rows(query)[0])

    # -- connections -----------------------------------------------------------------------------

    def _connect(self) -> Connection:
        if self._process != os.getpid():
            # Sockets that came through a fork are the parent's: forgotten here, never closed.
            self._lock = threading.Lock()
            self._engine.dispose(close=False)
            self._process = os.getpid()
        with self._lock:
            return self._engine.connect()

    def close(self) -> None:
        """Close this process's connections, unless a thread is using one just now."""
        from sqlalchemy.pool import QueuePool

        with self._lock:
            pool = self._engine.pool
            if (
                self._process == os.getpid()
                and isinstance(pool, QueuePool)
                and not (pool.checkedout())
            ):
                self._engine.dispose()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Database]:
        """Yield the only writer's transaction: all of it lands, or none."""
        with self._connect() as connection:
            # Read committed: every statement after the lock sees what the last writer left.
            connection.execution_options(isolation_level="READ COMMITTED")
            db = _Connection(connection)
            db.rows(_SETTINGS)
            db.rows("SELECT pg_advisory_xact_lock(:lock)", lock=_LOCK)
            yield db
            self._commit(connection)

    def _commit(self, connection: Connection) -> None:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            connection.commit()
        except SQLAlchemyError as error:
            raise LedgerError(
                f"An entry was to be committed to the ledger {self.where}.",
                f"The server did not confirm it ({self.explain(error)}); it may have landed.",
                "See with `dpsynth ledger show`; a run continues with --resume.",
                touched=True,
            ) from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[Database]:
        """Yield a transaction whose reads all see the database at one moment."""
        with self._connect() as connection:
            connection.execution_options(isolation_level="REPEATABLE READ")
            yield _Connection(connection)
            connection.rollback()

    def explain(self, error: Exception) -> str | None:
        """Return what PostgreSQL says, without the rows and values it may quote."""
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        if isinstance(error, DBAPIError):
            # The first line only: PostgreSQL quotes rows in the details that follow.
            said = getattr(getattr(error.orig, "diag", None), "message_primary", None)
            return str(said or str(error.orig).partition("\n")[0])
        if isinstance(error, SQLAlchemyError | OSError):
            return type(error).__name__
        return None


def _dispose(engine: Engine, process: int) -> None:
    """Close the connections of a store that nobody holds any more; never a parent's."""
    if process == os.getpid():
        engine.dispose()


class _Connection:
    """A connection of SQLAlchemy's, in the words of :class:`Database`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        from sqlalchemy import text

        return [tuple(row) for row in self._connection.execute(text(sql), values)]

    def run(self, sql: str, **values: object) -> None:
        from sqlalchemy import text

        self._connection.execute(text(sql), values)
