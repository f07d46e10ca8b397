from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import dpsynth_accounting
from dpsynth_accounting import (
    Account,
    Budget,
    Ledger,
    LedgerCorrupt,
    LedgerError,
    _files,
    _sqlite,
)
from tests.accounting.contract_ledger import (
    PLAN,
    UNIT,
    UNTOUCHED,
    LedgerContract,
    answered,
    find,
    reserve,
)
from tests.accounting.sites import SQLiteSite

PACKAGE = str(Path(dpsynth_accounting.__file__).parents[1])


class TestSQLite(LedgerContract):
    @pytest.fixture
    def site(self, tmp_path: Path) -> SQLiteSite:
        return SQLiteSite(tmp_path / "ledger.db")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def account(path: Path) -> Account:
    return Ledger(path).account("patients", Budget(1, 1e-6))


def child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process; ``ledger`` is imported first, with all it needs."""
    head = """
        import os, signal, sys
        from fractions import Fraction
        from dpsynth_accounting import *
        UNIT = {"unit": "person", "rows": 2}
        PLAN = ApproxDP(Fraction(0), Fraction(0))
    """
    return subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(head) + textwrap.dedent(code),
            *map(str, arguments),
        ],
        env={**os.environ, "PYTHONPATH": PACKAGE},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_no_step_of_a_plan_reads_the_whole_chain(account: Account) -> None:
    answered(account)
    reservation = reserve(account)
    db = account.ledger._store._connection()
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    reservation.begin(0, "q")
    reservation.store(0, 0, "q", b"[1]")
    reservation.commit()
    assert reserve(account).void()
    assert find(account) == reservation
    db.set_trace_callback(None)
    queries = [text for text in asked if text.startswith("SELECT") and "FROM entries" in text]
    assert len(queries) >= 8
    for query in queries:
        plan = db.execute("EXPLAIN QUERY PLAN " + query).fetchall()
        assert any("entries_of" in line[3] for line in plan), query


# -- opening ---------------------------------------------------------------------------------------


def test_the_secret_is_its_owners_alone(account: Account) -> None:
    secret = account.ledger.path.with_name("ledger.db.secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_bytes()) == 32
    assert secret.read_bytes() not in account.ledger.path.read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_a_missing_or_broken_secret_is_refused_not_redrawn(
    account: Account, content: bytes | None
) -> None:
    secret = account.ledger.path.with_name("ledger.db.secret")
    secret.unlink()
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(LedgerError, match="secret") as refused:
        Ledger(account.ledger.path)
    assert not refused.value.touched
    assert secret.exists() == (content is not None)


def test_a_secret_without_its_ledger_is_kept(account: Account) -> None:
    """The ledger may have been moved away, or its folder not been mounted yet."""
    key = account.key("coins")
    account.ledger.close()
    account.ledger.path.rename(account.ledger.path.with_name("away.db"))
    again = Ledger(account.ledger.path).account("patients", Budget(1, 1e-6))
    assert again.key("coins") == key


def test_a_foreign_database_is_refused_and_left_as_it_was(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE meta(name TEXT)")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="something else") as refused:
        Ledger(path)
    assert not refused.value.touched
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["ledger.db"]


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(path: Path) -> None:
    path.write_bytes(b"name,age\nAda,36\n" * 100)
    before = path.read_bytes()
    with pytest.raises(LedgerCorrupt, match="is no ledger") as refused:
        Ledger(path)
    assert not refused.value.touched
    assert "Ada" not in str(refused.value)
    assert path.read_bytes() == before


def test_a_damaged_ledger_is_refused(account: Account) -> None:
    answered(account)
    account.ledger.close()
    size = account.ledger.path.stat().st_size
    with account.ledger.path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (size - 100))
    with pytest.raises(LedgerCorrupt):
        Ledger(account.ledger.path)


def test_a_newer_format_is_refused(account: Account) -> None:
    with sqlite3.connect(account.ledger.path) as db:
        db.execute("UPDATE meta SET value='2'")
    with pytest.raises(LedgerError, match="format"):
        Ledger(account.ledger.path)
    with sqlite3.connect(account.ledger.path) as db:
        db.execute("DELETE FROM meta")
    with pytest.raises(LedgerError, match="format"):
        Ledger(account.ledger.path)


def test_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("nfs4", "cifs", "9p", "fuse.sshfs"):
        monkeypatch.setattr(_sqlite, "filesystem_type", lambda _, kind=kind: kind)
        with pytest.raises(LedgerError, match=kind) as refused:
            Ledger(path)
        assert not refused.value.touched
    assert list(path.parent.iterdir()) == []
    monkeypatch.setattr(_sqlite, "filesystem_type", lambda _: "ext4")
    Ledger(path)


def test_the_file_system_is_read_from_the_longest_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    table = (
        "1 0 0:1 / / rw - ext4 /dev/a rw\n"
        "2 1 0:2 / /data rw shared:1 - nfs4 server:/x rw\n"
        "3 2 0:3 / /data/my\\040disk rw - xfs /dev/b rw\n"
    )
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: table)
    kinds = {p: _files.filesystem_type(Path(p)) for p in ("/d", "/data", "/database", "/data/x")}
    assert kinds == {"/d": "ext4", "/data": "nfs4", "/database": "ext4", "/data/x": "nfs4"}
    assert _files.filesystem_type(Path("/data/my disk/y")) == "xfs"


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="does not exist"):
        Ledger(tmp_path / "none" / "ledger.db")
    with pytest.raises(LedgerError):
        Ledger(tmp_path)


def test_a_ledger_follows_links_and_stays_when_the_process_moves(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(account.ledger.path)
    assert Ledger(link).existing("patients").key("coins") == account.key("coins")
    monkeypatch.chdir(tmp_path)
    relative = Ledger("ledger.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    seen: list[list[str]] = []
    thread = threading.Thread(target=lambda: seen.append(relative.accounts()))
    thread.start()
    thread.join()
    assert seen == [["patients"]]


# -- place -----------------------------------------------------------------------------------------


def test_a_ledger_may_be_renamed(account: Account, tmp_path: Path) -> None:
    reserve(account)
    account.ledger.close()
    (tmp_path / "new").mkdir()
    for name in ("ledger.db", "ledger.db.secret"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    moved = Ledger(tmp_path / "new" / "ledger.db").existing("patients")
    reserve(moved)
    assert moved.ledger.verify("patients") == []


def test_a_backup_put_in_the_place_of_a_ledger_charges_nothing(account: Account) -> None:
    """Even to a process that still has the lost file open."""
    site = SQLiteSite(account.ledger.path)
    backup = site.copy()
    reserve(account, 0.5)
    backup.path.replace(site.path)
    for each in (account, site.open().existing("patients")):
        with pytest.raises(LedgerError, match="restored from a backup"):
            reserve(each)
    site.open().adopt("the ledger was deleted by mistake", "ada")
    restored = site.open().existing("patients")
    reserve(restored)
    assert restored.ledger.verify("patients") == []


def test_a_process_with_a_lost_file_open_charges_the_one_in_its_place(account: Account) -> None:
    site = SQLiteSite(account.ledger.path)
    backup = site.copy()
    backup.path.replace(site.path)
    site.open().adopt("the ledger was deleted by mistake", "ada")
    reserve(account)
    account.ledger.close()
    kinds = [entry["payload"]["kind"] for entry in site.open().entries("patients")]
    assert kinds == ["open", "adopt", "reserve"]
    assert site.open().verify("patients") == []


def test_a_ledger_that_was_deleted_is_not_made_anew(account: Account) -> None:
    account.ledger.path.unlink()
    for _ in range(2):
        with pytest.raises(LedgerError) as refused:
            reserve(account)
        assert not refused.value.touched
        account.ledger.close()
    assert not account.ledger.path.exists()


def test_the_keys_of_an_account_move_with_the_secret(account: Account, tmp_path: Path) -> None:
    own = account.ledger.path.with_name("ledger.db.secret")
    same = Ledger(tmp_path / "same.db", secret=own)
    key = account.key("coins")
    arrived = same.take_in(account.move_out(same.identity))
    assert arrived.key("coins") == key
    assert arrived.ledger.entries("patients")[-1]["payload"]["keys"] == "kept"
    other = Ledger(tmp_path / "other.db")
    arrived = other.take_in(arrived.move_out(other.identity))
    assert arrived.key("coins") != key
    assert arrived.ledger.entries("patients")[-1]["payload"]["keys"] == "new"


# -- what goes wrong around it ---------------------------------------------------------------------


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that another user may read: pytest's own are closed to everyone else."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


READ_ONLY = """
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        account = Ledger(sys.argv[1]).account("patients", Budget(1, 1e-6))
        account.reserve(PLAN, 0.1, 1e-8, unit=UNIT, label="x")
    except LedgerError as error:
        print(error.touched, error)
"""


@pytest.mark.parametrize("what", ["file", "folder", "new file in the folder"])
def test_what_cannot_be_written_is_refused(public_folder: Path, what: str) -> None:
    path = public_folder / "ledger.db"
    if what != "new file in the folder":
        account = Ledger(path).account("patients", Budget(1, 1e-6))
        account.ledger.close()
        path.with_name("ledger.db.secret").chmod(0o644)
        path.chmod(0o444 if what == "file" else 0o666)
    public_folder.chmod(0o777 if what == "file" else 0o555)
    done = child(READ_ONLY, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("False")
    assert "writable" in done.stdout
    assert UNTOUCHED in done.stdout
    public_folder.chmod(0o755)
    if what != "new file in the folder":
        assert Ledger(path).existing("patients").remaining()[0] == 1
        assert Ledger(path).verify("patients") == []


FULL = """
    import resource
    ledger = Ledger(sys.argv[1])
    account = ledger.account("patients", Budget(1, 1e-6))
    paid = account.reserve(PLAN, 0.1, 1e-8, unit=UNIT, label="x")
    paid.begin(0, "q")
    size = os.path.getsize(sys.argv[1] + "-wal") + 4096
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for act in (
        lambda: paid.store(0, 0, "q", bytes(200_000)),
        lambda: account.reserve(
            PLAN, 0.1, 1e-8, unit=UNIT, label="x", meta={"long": "x" * 200_000}
        ),
    ):
        try:
            act()
        except LedgerError as error:
            print(error.touched, error)
    print(account.remaining()[0], ledger.verify("patients"))
"""


def test_a_full_disk_is_named_and_leaves_the_ledger_whole(path: Path) -> None:
    done = child(FULL, path)
    assert done.returncode == 0, done.stderr
    store, charge, left = done.stdout.splitlines()
    assert store.startswith("True A paid answer was to be stored.")
    assert "The charge stands" in store
    assert charge.startswith("False A charge on account 'patients' was to be written.")
    assert UNTOUCHED in charge
    assert all(
        "free space" in text and ("full" in text or "I/O" in text) for text in (store, charge)
    )
    assert left == "9/10 []"
    account = Ledger(path).existing("patients")
    assert account.remaining()[0] == Fraction(9, 10)
    assert account.ledger.verify("patients") == []
    reserve(account)


KILLED = """
    from dpsynth_accounting import _store, ledger as ledger_module
    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)
    place = sys.argv[2]
    if place == "opening":
        _store.write_secret = die
    if place == "secret":
        write = _store.write_secret
        _store.write_secret = lambda *a: (write(*a), die())
    ledger = Ledger(sys.argv[1])
    account = ledger.account("patients", Budget(1, 1e-6))
    if place == "reserving":
        Ledger._append = die
    paid = account.reserve(PLAN, 0.1, 1e-8, unit=UNIT, label="x")
    if place == "reserved":
        die()
    if place == "handing back":
        Ledger._append = die
        paid.void()
    paid.begin(0, "q")
    if place == "begun":
        die()
    if place == "storing":
        Ledger._append = die
    paid.store(0, 0, "q", b"[1]")
    if place == "stored":
        die()
    if place == "committing":
        Ledger._append = die
    paid.commit()
    die()
"""


@pytest.mark.parametrize(
    ("place", "left", "stored", "returnable"),
    [
        ("opening", 1, None, None),
        ("secret", 1, None, None),
        ("reserving", 1, None, None),
        ("reserved", Fraction(9, 10), None, True),
        ("handing back", Fraction(9, 10), None, True),
        ("begun", Fraction(9, 10), None, False),
        ("storing", Fraction(9, 10), None, False),
        ("stored", Fraction(9, 10), b"[1]", False),
        ("committing", Fraction(9, 10), b"[1]", False),
        ("committed", Fraction(9, 10), b"[1]", False),
    ],
)
def test_a_kill_between_any_two_statements_keeps_what_was_paid(
    path: Path, place: str, left: Any, stored: bytes | None, returnable: bool | None
) -> None:
    done = child(KILLED, path, place)
    assert done.returncode == -signal.SIGKILL, done.stderr
    account = Ledger(path).account("patients", Budget(1, 1e-6))
    assert account.remaining()[0] == left
    assert account.ledger.verify("patients") == []
    found = account.unfinished(PLAN, 0.1, 1e-8, unit=UNIT, label="x")
    assert (found is None) == (returnable is None)
    if found is not None:
        assert found.answer(0, 0, "q") == stored
        assert found.void() == returnable
        assert account.remaining()[0] == (1 if returnable else left)
    assert account.ledger.verify("patients") == []
