"""A PostgreSQL server of the tests' own: a temporary folder, a Unix socket, no network."""

from __future__ import annotations

import contextlib
import copy
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dpsynth_accounting import Ledger


def binaries() -> Path | None:
    """Return the folder of the newest server there is: Debian keeps each version's apart."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
    named = shutil.which("initdb")
    return next(
        (
            folder
            for folder in (*reversed(found), *([Path(named).parent] if named else []))
            if (folder / "initdb").exists() and (folder / "postgres").exists()
        ),
        None,
    )


def _user() -> dict[str, Any]:
    """Return how to start a process as someone else than root, whom PostgreSQL refuses."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Yield the address of a server, without a database, or skip and say why."""
    pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    folder = binaries()
    if folder is None:
        pytest.skip(
            "there is no PostgreSQL server on this machine (Debian: apt install postgresql)"
        )
    # Not pytest's own folder: it is closed to other users, and too long for a socket's path.
    home = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    try:
        if os.getuid() == 0:
            os.chown(home, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
        subprocess.run(
            [folder / "initdb", "-D", home / "data", "-A", "trust", "-U", "tester", "-N"],
            check=True,
            capture_output=True,
            cwd=home,
            **_user(),
        )
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [folder / "postgres", "-D", home / "data", "-k", home, "-h", ""],
                stdout=log,
                stderr=log,
                cwd=home,
                **_user(),
            )
        try:
            _wait(process, home)
            yield f"postgresql+psycopg://tester@/{{}}?host={home}"
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            process.wait(60)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], home: Path) -> None:
    import psycopg

    for _ in range(600):
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(f"host={home} user=tester dbname=postgres").close()
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    pytest.fail(f"PostgreSQL did not start: {(home / 'log').read_text()[-2000:]}")


class PostgresSite:
    """A schema of its own, which is far quicker to make than a database, and its secret."""

    count = 0

    def __init__(self, server: str, folder: Path) -> None:
        PostgresSite.count += 1
        self.schema = f"test_{PostgresSite.count}"
        self._place(server, folder, "postgres")
        self.run(f"CREATE SCHEMA {self.schema}")

    def _place(self, server: str, folder: Path, database: str) -> None:
        self.server, self.folder, self.database = server, folder, database
        self.address = f"{server.format(database)}&options=-csearch_path%3D{self.schema}"
        self.secret = folder / f"{database}_{self.schema}.secret"
        self._opened: list[Ledger] = []

    def open(self) -> Ledger:
        self._opened.append(Ledger(self.address, secret=self.secret))
        return self._opened[-1]

    def run(self, sql: str, **values: object) -> int:
        return _execute(self.address, sql, **values)

    def force(self, sql: str, **values: object) -> int:
        for table in ("entries", "answers"):
            self.run(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        return self.run(sql, **values)

    def copy(self) -> PostgresSite:
        self.close()
        other = copy.copy(self)
        other._place(self.server, self.folder, f"{self.database}_{self.schema}")
        # From another database: a template must not be in use.
        _execute(
            self.server.format("template1"),
            f"CREATE DATABASE {other.database} TEMPLATE {self.database}",
        )
        shutil.copy(self.secret, other.secret)
        return other

    def close(self) -> None:
        for ledger in self._opened:
            ledger.close()


def _execute(address: str, sql: str, **values: object) -> int:
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    engine = create_engine(address, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        return int(connection.execute(text(sql), values).rowcount)
