"""A model and a release keep nothing of the rows: neither in memory nor on disk.

Everything that can be reached from them is looked through for an array with one entry a row or a
person, and for values that only single rows hold; so are the bytes of every file that is written.
Twins that keep something are flagged.
"""

from __future__ import annotations

import functools
import gc
import json
import shutil
import sqlite3
import subprocess
import sys
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import dpsynth as dp
from dpsynth.marginal import MarginalModel
from dpsynth.vault import Measure, Vault, _block
from tests.end_to_end.conftest import SCHEMA, people
from tests.end_to_end.public_view import frozen
from tests.end_to_end.retained import Rows, kept_in, kept_in_files, loaded

RARE = {
    "city": ["Zaphodville", "Trillian-on-Sea"],
    "answer": ["Beeblebrox was here"],
    "income": [48151.62342108, 7333331313.0],
    "sex": ["betelgeusian"],
}
"""Values of single rows: no declaration names them, and nothing rare is discovered."""


def with_rare(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    for name, values in RARE.items():
        table[name] = [*values, *table[name].iloc[len(values) :]]
    return table


TABLE = with_rare(people(2986, 1))  # no round number, where cells of amounts would start


SENTINELS = Rows(
    frozenset(),
    ("Zaphodville", "Trillian-on-Sea", "Beeblebrox", "betelgeusian", "P00007", "P01999"),
    (48151.62342108, 7333331313.0),
)


@dataclass(frozen=True)
class Made:
    """What is left once the vault and its table are gone."""

    model: MarginalModel
    release: dp.Release
    folder: Path
    rows: Rows
    vault: weakref.ref[Vault]
    later: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Release a table, then delete it; the noise is fixed, so that no length is met by chance."""
    folder = tmp_path_factory.mktemp("kept")
    table = folder / "table.csv"
    TABLE.to_csv(table, index=False)
    (folder / "schema.toml").write_text(SCHEMA)
    with frozen():
        account = dp.Ledger(folder / "ledger.db").account("people", dp.Budget(4.0, 1e-6))
        schema, unit = dp.Schema.load(folder / "schema.toml"), dp.Person("person", rows=2)
        vault = dp.Vault(table, schema, account, unit=unit, audit_share=0.5)
        model = dp.MST().fit(vault, epsilon=2)
        drawn = model.sample(333, rng=np.random.default_rng(1))
        release = dp.Release.assemble(vault, model, drawn, epsilon=1, target="sex")
        release.write(folder / "release")
    rows = replace(SENTINELS, counts=lengths(vault))
    table.unlink()
    later = model.sample(40, rng=np.random.default_rng(3)).to_csv(index=False)
    found = Made(model, release, folder, rows, weakref.ref(vault), later)
    del vault
    gc.collect()
    return found


def lengths(vault: Vault) -> frozenset[int]:
    """Return every number of rows and of units that something in a vault could have."""
    coded = vault._coded()
    found = {len(TABLE), TABLE["person"].nunique()}
    for used in ((0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)):
        chosen = np.isin(coded.roles, used)
        found |= {int(chosen.sum()), len(np.unique(coded.units[chosen]))}
    return frozenset(found)


def test_nothing_in_memory_leads_to_a_row(made: Made) -> None:
    assert made.vault() is None
    assert kept_in({"model": made.model, "release": made.release} | loaded(), made.rows) == []


def test_nothing_on_disk_holds_a_row(made: Made) -> None:
    """Not the release, not the exact report, and not the ledger with its answers and sketches."""
    assert kept_in_files(written(made), made.rows) == []


def test_no_exact_size_is_in_the_model_or_the_public_facts(made: Made) -> None:
    sizes = replace(made.rows, numbers=tuple(map(float, made.rows.counts)))
    assert kept_in({"model": made.model, "facts": made.release.facts}, sizes) == []
    object.__setattr__(made.release.model, "size", len(TABLE))  # the twin
    try:
        assert kept_in({"model": made.model}, sizes) != []
    finally:
        object.__delattr__(made.release.model, "size")


def test_another_process_samples_once_the_table_is_gone(made: Made, tmp_path: Path) -> None:
    """With nothing but the release folder: no table, no ledger, no schema."""
    alone = tmp_path / "alone"
    shutil.copytree(made.folder / "release", alone)
    command = [sys.executable, "-m", "dpsynth", "sample", alone, "-n", "40", "--seed", "3"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, made.later)


def written(made: Made) -> list[Path]:
    return [path for path in made.folder.rglob("*") if path.is_file() and path.suffix != ".toml"]


# -- the broken twins ----------------------------------------------------------------------------


@dataclass
class Keeper:
    """A model that keeps something more."""

    inner: MarginalModel
    more: object


def codes(rows: int = len(TABLE)) -> NDArray[np.int32]:
    return np.zeros(rows, dtype=np.int32)


def closure() -> Callable[[], object]:
    kept = codes()
    return lambda: kept


def default() -> Callable[[], object]:
    def sample(_: object = codes()) -> None:
        """Keep rows in an argument that nobody gives."""

    return sample


def cached() -> Callable[..., object]:
    @functools.lru_cache
    def encode(column: str) -> NDArray[np.int32]:
        return codes()

    encode("age")
    return encode


def bound() -> Callable[..., object]:
    return functools.partial(print, TABLE["income"].tolist())


def paused() -> Iterator[object]:
    def each() -> Iterator[object]:
        kept = codes()
        yield kept[0]
        yield kept[1]

    steps = each()
    next(steps)
    return steps


def block(folder: Path) -> object:
    ledger = dp.Ledger(folder / "ledger.db")
    account = ledger.account("people", dp.Budget(4.0, 1e-6))
    schema = dp.Schema({"sex": dp.Categorical(("F", "M"))})
    vault = dp.Vault(TABLE, schema, account, unit=dp.Row(), audit_share=0.0)
    with vault.reserve((Measure(1, 1.0),), epsilon=1, label="test") as paid:
        paid.measure([("sex",)])
    return paid


KEPT: dict[str, Callable[[], object]] = {
    "the table": lambda: TABLE,
    "a column of it": lambda: TABLE["age"],
    "a column in Arrow": lambda: pd.array(TABLE["city"], dtype="string[pyarrow]"),
    "a closure": closure,
    "a default argument": default,
    "a cache": cached,
    "an argument bound beforehand": bound,
    "a generator that is not done": paused,
    "a small view of all rows": lambda: codes()[:3],
    "the bytes of the codes": lambda: codes().tobytes(),
    "a frame's own notes": lambda: pd.DataFrame().assign().pipe(noted),
    "one rare value": lambda: ("Zaphodville", "other"),
    "one rare number": lambda: np.array([0.0, 48151.62342108]),
    "one rare integer": lambda: {"top": [7333331313]},
    "the persons, as a set": lambda: set(TABLE["person"].map(hash)),
}


def noted(frame: pd.DataFrame) -> pd.DataFrame:
    frame.attrs["from"] = TABLE["city"].tolist()
    return frame


@pytest.mark.parametrize("name", KEPT)
def test_a_model_that_keeps_something_is_flagged(name: str, made: Made) -> None:
    assert kept_in({"model": Keeper(made.model, KEPT[name]())}, made.rows) != []


def test_a_model_that_keeps_its_block_is_flagged(made: Made, tmp_path: Path) -> None:
    assert kept_in({"model": Keeper(made.model, block(tmp_path))}, made.rows) != []


def test_a_global_that_keeps_something_is_flagged(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_block, "LAST", {"codes": codes()}, raising=False)
    assert kept_in(loaded(), made.rows) != []


def npz(path: Path) -> None:
    np.savez(path, table=np.zeros((4, 4)), rows=codes())


def packed_npz(path: Path) -> None:
    np.savez_compressed(path, rows=np.zeros((len(TABLE), 3), dtype=np.int8))


def said_in_npz(path: Path) -> None:
    np.savez_compressed(path, header=np.frombuffer(b'{"note": "Beeblebrox"}', dtype=np.uint8))


def ledger(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE answers(value BLOB)")
        db.execute(
            "INSERT INTO answers VALUES(?)", [zlib.compress(codes(2 * len(TABLE)).tobytes())]
        )
    db.close()


def report(path: Path) -> None:
    path.write_text(json.dumps({"scores": [0] * len(TABLE)}))


def quote(path: Path) -> None:
    path.write_text("The most isolated is betelgeusian.")


def numbers(path: Path) -> None:
    path.write_bytes(b"head" + np.array([1.0, 48151.62342108]).tobytes())


FILES: dict[str, Callable[[Path], None]] = {
    "model.npz": npz,
    "packed.npz": packed_npz,
    "header.npz": said_in_npz,
    "ledger.db": ledger,
    "report.json": report,
    "report.html": quote,
    "model.bin": numbers,
    "table.csv": lambda path: TABLE[["smoker"]].to_csv(path, index=False),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_keeps_something_is_flagged(name: str, made: Made, tmp_path: Path) -> None:
    FILES[name](tmp_path / name)
    assert kept_in_files([tmp_path / name], made.rows) != []
