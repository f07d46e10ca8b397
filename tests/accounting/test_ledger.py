from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import dpsynth_accounting
from dpsynth_accounting import (
    Account,
    Budget,
    BudgetExceeded,
    DpsynthError,
    Exponential,
    InvalidRequest,
    Ledger,
    LedgerCorrupt,
    LedgerError,
    Reservation,
    _files,
    _store,
)

PACKAGE = str(Path(dpsynth_accounting.__file__).parents[1])
UNIT = {"unit": "person", "rows": 2}
PLAN = Exponential(Fraction(1, 20))
UNTOUCHED = "No private row was read and nothing was spent."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def account(path: Path) -> Account:
    return Ledger(path).account("patients", Budget(1, 1e-6))


def reserve(account: Account, epsilon: Any = 0.05, delta: Any = 5e-8) -> Reservation:
    return account.reserve(PLAN, epsilon, delta, unit=UNIT, label="a test")


def answered(account: Account) -> Reservation:
    """Reserve, read, store two answers and commit, as a block does."""
    reservation = reserve(account)
    reservation.begin(0, "first question")
    reservation.store(0, 0, "first question", b"[1,2]")
    reservation.store(0, 1, "second question", b"[3]")
    reservation.commit()
    return reservation


def child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process; ``ledger`` is imported first, with all it needs."""
    head = """
        import os, signal, sys
        from fractions import Fraction
        import dpsynth_accounting._pld
        from dpsynth_accounting import *
        UNIT = {"unit": "person", "rows": 2}
        PLAN = Exponential(Fraction(1, 20))
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


# -- charging --------------------------------------------------------------------------------------


def test_a_reservation_is_charged_at_once(account: Account) -> None:
    reserve(account, 0.25, 1e-7)
    assert account.remaining() == (Fraction(3, 4), Fraction(9, 10**7))
    assert account.ledger.verify("patients") == []


def test_twenty_twentieths_are_all_granted_and_no_more(account: Account) -> None:
    for _ in range(20):
        reserve(account)
    assert account.remaining() == (Fraction(0), Fraction(0))
    with pytest.raises(BudgetExceeded):
        reserve(account, "1e-12", "1e-30")
    assert account.ledger.verify("patients") == []


@pytest.mark.parametrize(("epsilon", "delta"), [("1.0000001", 1e-7), (0.1, "1.0000001e-6")])
def test_an_overspend_is_refused_and_says_so(account: Account, epsilon: Any, delta: Any) -> None:
    before = account.ledger.entries("patients")
    for ask in (lambda: reserve(account, epsilon, delta), lambda: account.require(epsilon, delta)):
        with pytest.raises(BudgetExceeded) as refused:
            ask()
        assert UNTOUCHED in str(refused.value)
        assert not refused.value.touched
    assert account.ledger.entries("patients") == before
    assert account.remaining() == (Fraction(1), Fraction(1, 10**6))


@pytest.mark.parametrize("epsilon", [0, -0.1, float("nan"), float("inf"), True, 65])
def test_a_charge_without_meaning_is_refused(account: Account, epsilon: Any) -> None:
    with pytest.raises(InvalidRequest):
        reserve(account, epsilon)
    assert account.remaining()[0] == 1


def test_a_budget_is_fixed_when_the_account_is_opened(account: Account) -> None:
    with pytest.raises(InvalidRequest, match="fixed when it is opened") as refused:
        account.ledger.account("patients", Budget(2, 1e-6))
    assert UNTOUCHED in str(refused.value)
    assert account.ledger.account("patients", Budget("1.0", "1e-6")) == account
    assert account.ledger.existing("patients") == account


def test_a_budget_in_memory_buys_nothing(account: Account) -> None:
    rich = Account(account.ledger, "patients", Budget(60, 0.5))
    with pytest.raises(BudgetExceeded):
        reserve(rich, 2, 1e-7)
    assert rich.remaining() == (Fraction(1), Fraction(1, 10**6))


def test_an_account_that_was_never_opened_is_refused(account: Account) -> None:
    stray = Account(account.ledger, "nobody", Budget(1, 1e-6))
    for use in (stray.remaining, lambda: reserve(stray), lambda: stray.require(0.1, 1e-9)):
        with pytest.raises(LedgerError) as refused:
            use()
        assert not refused.value.touched
    with pytest.raises(InvalidRequest, match="It has: patients"):
        account.ledger.existing("nobody")
    with pytest.raises(InvalidRequest):
        account.ledger.account("  ", Budget(1, 1e-6))
    assert account.ledger.accounts() == ["patients"]
    assert account.ledger.verify("nobody") != []


def test_units_do_not_mix(account: Account) -> None:
    reserve(account)
    with pytest.raises(InvalidRequest, match="unit of privacy") as refused:
        account.reserve(PLAN, 0.1, 1e-8, unit={"unit": "row"}, label="a test")
    assert not refused.value.touched
    assert account.remaining()[0] == Fraction(19, 20)


def test_accounts_of_one_ledger_are_separate(account: Account) -> None:
    other = account.ledger.account("staff", Budget(2, 1e-6))
    reserve(account)
    assert other.remaining()[0] == 2
    assert account.key("coins") != other.key("coins")
    assert account.key("coins") != account.key("rows")
    assert account.key("coins") == Ledger(account.ledger.path).existing("patients").key("coins")


def test_only_inspections_and_releases_are_free(account: Account) -> None:
    account.record("inspect", {"purpose": "check"})
    account.record("release", {"manifest": "ab", "kind": "void", "seq": 77})
    assert account.ledger.entries("patients")[-1]["payload"]["kind"] == "release"
    assert account.ledger.verify("patients") == []
    with pytest.raises(InvalidRequest):
        account.record("reserve", {})


# -- answers, resuming, handing back ---------------------------------------------------------------


def test_a_stored_answer_is_replayed(account: Account) -> None:
    reservation = answered(account)
    assert reservation.answer(0, 0, "first question") == b"[1,2]"
    assert reservation.answer(0, 2, "third question") is None
    with pytest.raises(InvalidRequest, match="different question") as refused:
        reservation.answer(0, 0, "another question")
    assert refused.value.touched


def test_an_answer_is_stored_once(account: Account) -> None:
    reservation = answered(account)
    with pytest.raises(LedgerError, match="stored that answer first") as refused:
        reservation.store(0, 0, "first question", b"[9,9]")
    assert refused.value.touched
    assert reservation.answer(0, 0, "first question") == b"[1,2]"
    assert account.ledger.verify("patients") == []


def test_an_answer_needs_a_step_that_began(account: Account) -> None:
    reservation = reserve(account)
    reservation.begin(0, "question")
    with pytest.raises(InvalidRequest, match="never noted"):
        reservation.store(1, 0, "question", b"[1]")
    assert account.ledger.verify("patients") == []


def find(account: Account, label: str = "a test") -> Reservation | None:
    return account.unfinished(PLAN, 0.05, 5e-8, unit=UNIT, label=label)


def test_a_plan_is_found_again_unless_handed_back(account: Account) -> None:
    assert find(account) is None
    first, second = reserve(account), reserve(account)
    assert find(account) == second
    assert second.void()
    assert find(account) == first
    assert find(account, "another label") is None
    assert account.unfinished(PLAN, 0.06, 5e-8, unit=UNIT, label="a test") is None


def test_a_charge_is_handed_back_only_before_a_step_began(account: Account) -> None:
    unused, used = reserve(account), reserve(account)
    used.begin(0, "question")
    assert not used.void()
    assert unused.void()
    assert not unused.void()
    assert account.remaining()[0] == Fraction(19, 20)
    assert not answered(account).void()
    finished = reserve(account)
    finished.commit()
    assert not finished.void()
    assert account.ledger.verify("patients") == []


def test_a_charge_handed_back_pays_for_nothing(account: Account) -> None:
    """Another process may have handed back what this one is about to use."""
    mine = reserve(account)
    other = find(Ledger(account.ledger.path).existing("patients"))
    assert other is not None
    assert other.void()
    with pytest.raises(InvalidRequest, match="handed back") as refused:
        mine.begin(0, "question")
    assert not refused.value.touched
    assert account.ledger.verify("patients") == []


def test_a_reservation_that_was_never_made_pays_for_nothing(account: Account) -> None:
    with pytest.raises(InvalidRequest):
        Reservation(account, "0" * 16, {}).begin(0, "question")


def test_a_commit_is_noted_once(account: Account) -> None:
    reservation = answered(account)
    reservation.commit()
    kinds = [entry["payload"]["kind"] for entry in account.ledger.entries("patients")]
    assert kinds == ["open", "reserve", "begin", "answer", "answer", "commit"]


def test_no_step_of_a_plan_reads_the_whole_chain(account: Account) -> None:
    answered(account)
    reservation = reserve(account)
    db = account.ledger._connection()
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


# -- verification ----------------------------------------------------------------------------------


def test_entries_and_answers_are_append_only(account: Account) -> None:
    answered(account)
    with sqlite3.connect(account.ledger.path) as db:
        for statement in (
            "UPDATE entries SET hash='0'",
            "DELETE FROM entries",
            "UPDATE answers SET value=x'00'",
            "DELETE FROM answers",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute(statement)
    assert account.ledger.verify("patients") == []


def forced(path: Path) -> sqlite3.Connection:
    """Return a connection of someone who has removed the guards."""
    db = sqlite3.connect(path)
    for table in ("entries", "answers"):
        for verb in ("update", "delete"):
            db.execute(f"DROP TRIGGER {table}_no_{verb}")
    return db


SMALLER = "UPDATE entries SET payload=replace(payload, '1/20', '1/30') WHERE seq=1"
TAMPERINGS = {
    "altered entry": [SMALLER],
    "altered time": ["UPDATE entries SET payload=replace(payload, '-', '/') WHERE seq=2"],
    "other spelling": ["UPDATE entries SET payload=replace(payload, ',', ', ') WHERE seq=1"],
    "removed tail": ["DELETE FROM entries WHERE seq=5"],
    "removed all": ["DELETE FROM entries"],
    "removed middle": [
        "DELETE FROM entries WHERE seq=2",
        "UPDATE entries SET seq=seq-1 WHERE seq>2",
    ],
    "swapped order": [
        "UPDATE entries SET seq=99 WHERE seq=3",
        "UPDATE entries SET seq=3 WHERE seq=4",
        "UPDATE entries SET seq=4 WHERE seq=99",
    ],
    "altered answer": ["UPDATE answers SET value=x'5b395d' WHERE part=1"],
    "altered question": ["UPDATE answers SET request='other' WHERE part=1"],
    "removed answer": ["DELETE FROM answers WHERE part=0"],
    "added answer": [
        "INSERT INTO answers SELECT reservation, step, 7, request, value FROM answers LIMIT 1"
    ],
    "lowered total": ["UPDATE accounts SET spent_epsilon='0'"],
    "lowered delta": ["UPDATE accounts SET spent_delta='0'"],
    "raised budget": ["UPDATE accounts SET budget=replace(budget, '\"1\"', '\"9\"')"],
    "other unit": ['UPDATE accounts SET unit=\'{"unit":"row"}\''],
    "other head": ["UPDATE accounts SET head='" + "0" * 64 + "'"],
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_detected(account: Account, name: str) -> None:
    answered(account)
    assert account.ledger.verify("patients") == []
    account.ledger.close()
    db = forced(account.ledger.path)
    for statement in TAMPERINGS[name]:
        assert db.execute(statement).rowcount != 0
    db.commit()
    db.close()
    assert Ledger(account.ledger.path).verify("patients") != []


def test_an_entry_that_is_not_json_is_a_fault_not_a_crash(account: Account) -> None:
    answered(account)
    db = forced(account.ledger.path)
    for index in ("entries_of_reservation", "entries_of_plan"):
        db.execute(f"DROP INDEX {index}")
    db.execute("UPDATE entries SET payload='{' WHERE seq=1")
    db.commit()
    db.close()
    assert any("cannot be read" in fault for fault in account.ledger.verify("patients"))


def test_a_chain_swapped_with_another_accounts_is_detected(account: Account) -> None:
    account.ledger.account("staff", Budget(1, 1e-6))
    answered(account)
    db = forced(account.ledger.path)
    for new, old in (("x", "staff"), ("staff", "patients"), ("patients", "x")):
        db.execute("UPDATE entries SET account=? WHERE account=?", (new, old))
        db.execute("UPDATE accounts SET name=? WHERE name=?", (new, old))
    db.commit()
    db.close()
    assert account.ledger.verify("patients") != []
    assert account.ledger.verify("staff") != []


# -- opening ---------------------------------------------------------------------------------------


def test_the_secret_is_its_owners_alone(account: Account) -> None:
    secret = account.ledger.path.with_name("ledger.db.secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_bytes()) == 32
    assert secret.read_bytes() not in account.ledger.path.read_bytes()


def test_neither_text_nor_pickle_of_a_ledger_holds_its_secret(account: Account) -> None:
    secret = account.ledger.path.with_name("ledger.db.secret").read_bytes()
    shown = [repr(account), repr(account.ledger), repr(reserve(account))]
    assert all(secret.hex() not in text and repr(secret) not in text for text in shown)
    for held in (account, account.ledger):
        assert secret not in pickle.dumps(held)
    for twin in (pickle.loads(pickle.dumps(account)), copy.deepcopy(account)):
        assert twin.key("coins") == account.key("coins")
        assert twin.remaining() == account.remaining()


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
        monkeypatch.setattr(_store, "filesystem_type", lambda _, kind=kind: kind)
        with pytest.raises(LedgerError, match=kind) as refused:
            Ledger(path)
        assert not refused.value.touched
    assert list(path.parent.iterdir()) == []
    monkeypatch.setattr(_store, "filesystem_type", lambda _: "ext4")
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


def test_an_exception_inside_a_transaction_leaves_no_trace(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reserve(account)
    assert account.remaining()[0] == 1
    reserve(account)
    assert account.ledger.verify("patients") == []


def test_no_error_of_a_charge_names_what_an_answer_held(account: Account) -> None:
    reservation = answered(account)
    texts = []
    acts: list[Callable[[], object]] = [
        lambda: reservation.store(0, 0, "first question", b"Ada Lovelace"),
        lambda: reservation.answer(0, 0, "Ada Lovelace"),
        lambda: reservation.store(5, 0, "q", b"Ada Lovelace"),
    ]
    for act in acts:
        with pytest.raises(DpsynthError) as refused:
            act()
        texts.append(str(refused.value))
    assert all("Ada" not in text and "[1,2]" not in text for text in texts)


def test_facts_outside_json_do_not_break_the_chain(account: Account) -> None:
    unit = {"unit": "person", "rows": 2, "also": (1, 2)}
    meta = {"steps": ({2: "b", 10: "a"},), "rate": 0.1}
    account.reserve(PLAN, 0.1, 1e-8, unit=unit, label="é", meta=meta)
    assert account.ledger.verify("patients") == []
    found = account.unfinished(PLAN, 0.1, 1e-8, unit=unit, label="é")
    assert found is not None
    assert json.loads(json.dumps(found.meta)) == {
        "steps": [{"2": "b", "10": "a"}],
        "rate": 0.1,
    }
