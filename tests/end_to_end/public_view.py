"""Everything that an outsider could see of a run, as bytes, with clock, names and seeds frozen."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import logging
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from rich.progress import Progress

import dpsynth as dp
from dpsynth import cli, run
from dpsynth.vault import _vault
from dpsynth.vault._stream import SeededStream
from dpsynth_accounting import Account, Ledger, _chain, _store
from tests.end_to_end.conftest import SCHEMA, Project
from tests.vault.replay import Tape

View = dict[str, object]
"""What was seen, by what it was seen in."""

SEED = 11
"""Of the sampling and the noise, in all runs."""


class _Noon(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> _Noon:
        return cls(2031, 5, 17, 12, 0, 0, tzinfo=tz)


class _Frames(Progress):
    """A progress bar that draws each change at once and notes what it was told."""

    told: list[str]

    def __init__(self, *columns: Any, **options: Any) -> None:
        super().__init__(*columns, **options, auto_refresh=False, get_time=lambda: 0.0)

    def add_task(self, *words: Any, **facts: Any) -> Any:
        self.told.append(f"add {words} {facts}")
        return super().add_task(*words, **facts)

    def update(self, *words: Any, **facts: Any) -> None:
        self.told.append(f"update {words} {facts}")
        super().update(*words, **{**facts, "refresh": True})


@contextlib.contextmanager
def frozen() -> Iterator[pytest.MonkeyPatch]:
    """Stop the clock, number the reservations, fix the ledger's secret, noise and sampling."""
    count = itertools.count()

    def numbered(size: int = 32) -> bytes:
        return hashlib.shake_256(f"number {next(count)}".encode()).digest(size)

    reserve = Account.reserve

    def seeded(self: Account, *plan: Any, meta: Mapping[str, Any], **facts: Any) -> Any:
        return reserve(self, *plan, meta={**meta, "sampling_seed": SEED}, **facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chain, "datetime", _Noon)
        patch.setattr(_vault, "datetime", _Noon)
        patch.setattr(secrets, "token_bytes", numbered)
        patch.setattr(secrets, "token_hex", lambda size=32: numbered(size).hex())
        patch.setattr(_store.Store, "place", lambda *_: "here")
        patch.setattr(Account, "reserve", seeded)
        patch.setattr(_vault, "SYSTEM", SeededStream(SEED))  # no verdict fails by chance
        yield patch


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[View]:
    """Watch what happens meanwhile in a project's folder: prints, logs, progress, files.

    The folder of exact results is left out, and so are the ledger's own file and the table: they
    are the custodian's.
    """
    seen: View = {}
    screen, out, err, log = io.StringIO(), io.StringIO(), io.StringIO(), io.StringIO()
    terminal = functools.partial(Console, force_terminal=True, highlight=False, soft_wrap=True)
    handler = logging.StreamHandler(log)
    root, level = logging.getLogger(), logging.getLogger().level
    frames = type("Frames", (_Frames,), {"told": []})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(cli, "_err", terminal(file=screen, width=100))
        patch.setattr(run, "Progress", frames)
        root.addHandler(handler)
        root.setLevel(logging.NOTSET)
        try:
            yield seen
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
    seen |= {"screen": screen.getvalue(), "progress": frames.told}
    seen |= {"stdout": out.getvalue(), "stderr": err.getvalue(), "log": log.getvalue()}
    seen["names"] = sorted(path.name for path in folder.iterdir())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "release" in path.relative_to(folder).parts:
            seen[path.relative_to(folder).as_posix()] = path.read_bytes()
    if (folder / "ledger.db").exists():
        ledger = Ledger(folder / "ledger.db")
        seen["extracts"] = [ledger.existing(name).extract() for name in ledger.accounts()]
        ledger.close()


def command(project: Project, *words: str) -> View:
    """Return what is seen of one command line, which runs in the project's folder."""
    with watched(project.folder) as seen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dpsynth", *words])
        seen["exit code"] = cli._exit_code()
    return seen


def run_project(project: Project, *more: str) -> View:
    """Return what is seen of ``dpsynth run`` on the project's table."""
    return command(project, "run", "release.toml", project.table.name, "--out", "release", *more)


def run_frame(folder: Path, frame: pd.DataFrame) -> View:
    """Return what is seen of a release of a table in memory, through the library."""
    (folder / "schema.toml").write_text(SCHEMA)
    schema, unit = dp.Schema.load(folder / "schema.toml"), dp.Person("person", rows=3)
    with watched(folder) as seen:
        account = dp.Ledger("ledger.db").account("people", dp.Budget(2.0, 1e-6))
        vault = dp.Vault(frame, schema, account, unit=unit)
        model = dp.MST().fit(vault, epsilon=1.5)
        table = model.sample(rng=np.random.default_rng(SEED))
        seen["types"] = {name: str(kind) for name, kind in table.dtypes.items()}
        release = dp.Release.assemble(vault, model, table, epsilon=0.5, target="sex")
        seen["shown"] = [repr(each) for each in (vault, model.domain)]
        release.write("release")
        account.ledger.close()
    return seen


def record(tape: Tape, do: Callable[[], View]) -> View:
    """Do something, keeping its charged answers, and return what is seen of it."""
    with frozen(), tape.recording():
        return do() | {"asked": tape.asked}


def play(tape: Tape, do: Callable[[], View]) -> View:
    """Do something with the charged answers of a tape, and return what is seen of it."""
    with frozen(), tape.playing() as seen:
        return do() | {"asked": seen.asked}


def differences(one: View, other: View) -> list[str]:
    """Return where two views differ: nowhere, if the rows reached the public only when paid for."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
