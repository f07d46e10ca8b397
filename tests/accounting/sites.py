"""Places for a ledger, as the contract tests use them: a SQLite file, a PostgreSQL database."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path

from dpsynth_accounting import Ledger


class SQLiteSite:
    """A SQLite file, in a folder with its secret."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = str(path)
        self.secret = path.with_name(f"{path.name}.secret")

    def open(self) -> Ledger:
        return Ledger(self.path)

    def run(self, sql: str, **values: object) -> int:
        db = sqlite3.connect(self.path)
        with contextlib.closing(db), db:
            return db.execute(sql, values).rowcount

    def force(self, sql: str, **values: object) -> int:
        for table in ("entries", "answers"):
            for verb in ("update", "delete"):
                self.run(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
        return self.run(sql, **values)

    def copy(self) -> SQLiteSite:
        folder = Path(tempfile.mkdtemp(dir=self.path.parent))
        other = SQLiteSite(folder / self.path.name)
        self.run("VACUUM INTO :path", path=str(other.path))
        shutil.copy(self.secret, other.secret)
        return other
