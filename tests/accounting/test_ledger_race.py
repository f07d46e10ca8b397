"""Several processes at one ledger: the file decides, and it decides once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import pytest

import dpsynth_accounting
from dpsynth_accounting import Budget, BudgetExceeded, Exponential, Ledger

PACKAGE = str(Path(dpsynth_accounting.__file__).parents[1])
UNIT = {"unit": "row"}
PLAN = Exponential(Fraction(1, 20))

HEAD = """
    import sys
    from fractions import Fraction
    from dpsynth_accounting import *
    path, UNIT, PLAN = sys.argv[1], {"unit": "row"}, Exponential(Fraction(1, 20))
    print("ready", flush=True)
    sys.stdin.readline()
"""


def race(code: str, path: Path, runners: int) -> list[str]:
    """Run the code in several processes, let go together once all have imported; its outputs."""
    text = textwrap.dedent(HEAD) + textwrap.dedent(code)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", text, str(path)],
            env={**os.environ, "PYTHONPATH": PACKAGE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(runners)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=120) for process in processes]
    assert [error for _, error in ended] == [""] * runners
    return [out.strip() for out, _ in ended]


def test_two_processes_race_for_the_last_epsilon(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    account = Ledger(path).account("people", Budget(1, 1e-6))
    account.reserve(PLAN, 0.5, 5e-7, unit=UNIT, label="before")
    code = """
        account = Ledger(path).existing("people")
        try:
            account.reserve(PLAN, 0.5, 5e-7, unit=UNIT, label="race")
            print("granted")
        except BudgetExceeded as error:
            print("refused", error.touched)
    """
    assert sorted(race(code, path, 2)) == ["granted", "refused False"]
    assert account.remaining() == (Fraction(0), Fraction(0))
    assert account.ledger.verify("people") == []


def test_six_processes_are_granted_exactly_the_budget(tmp_path: Path) -> None:
    """They also make the ledger together, from nothing."""
    path = tmp_path / "ledger.db"
    code = """
        account = Ledger(path).account("people", Budget("0.6", "6e-7"))
        granted = 0
        for i in range(15):
            try:
                paid = account.reserve(PLAN, "0.01", "1e-8", unit=UNIT, label="race")
                paid.begin(0, "q")
                paid.store(0, 0, "q", b"1")
                paid.commit()
                granted += 1
            except BudgetExceeded:
                pass
        print(granted, account.key("coins").hex())
    """
    said = [line.split() for line in race(code, path, 6)]
    assert sum(int(granted) for granted, _ in said) == 60
    assert len({key for _, key in said}) == 1
    ledger = Ledger(path)
    account = ledger.existing("people")
    assert account.remaining() == (Fraction(0), Fraction(0))
    assert len(ledger.entries("people")) == 1 + 60 * 4
    assert ledger.verify("people") == []
    assert account.key("coins").hex() == said[0][1]


def test_one_answer_is_kept_of_two_runs_that_resume_one_plan(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    account = Ledger(path).account("people", Budget(1, 1e-6))
    reservation = account.reserve(PLAN, 0.5, 5e-7, unit=UNIT, label="both")
    code = """
        import os
        account = Ledger(path).existing("people")
        paid = account.unfinished(PLAN, 0.5, 5e-7, unit=UNIT, label="both")
        paid.begin(0, "q")
        try:
            paid.store(0, 0, "q", str(os.getpid()).encode())
            print("kept", os.getpid())
        except LedgerError as error:
            print("lost", error.touched)
    """
    kept, lost = sorted(race(code, path, 2))
    assert lost == "lost True"
    assert reservation.answer(0, 0, "q") == kept.removeprefix("kept ").encode()
    assert account.ledger.verify("people") == []


def test_a_charge_is_either_used_or_handed_back(tmp_path: Path) -> None:
    """One process begins what the other hands back: never both."""
    path = tmp_path / "ledger.db"
    account = Ledger(path).account("people", Budget(1, 1e-6))
    for i in range(20):
        account.reserve(PLAN, 0.05, 5e-8, unit=UNIT, label=f"plan {i}")
    code = """
        import os
        account = Ledger(path).existing("people")
        mine = []
        for i in range(20):
            paid = account.unfinished(PLAN, 0.05, 5e-8, unit=UNIT, label=f"plan {i}")
            if paid is None:
                continue
            if (os.getpid() + i) % 2:
                try:
                    paid.begin(0, "q")
                    mine.append(i)
                except InvalidRequest:
                    pass
            else:
                paid.void()
        print(len(mine))
    """
    race(code, path, 2)
    kinds = [entry["payload"]["kind"] for entry in account.ledger.entries("people")]
    used = {
        entry["payload"]["reservation"]
        for entry in account.ledger.entries("people")
        if entry["payload"]["kind"] == "begin"
    }
    assert kinds.count("void") + len(used) == 20
    assert account.remaining()[0] == Fraction(kinds.count("void"), 20)
    assert account.ledger.verify("people") == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_charges_through_its_own_connection(tmp_path: Path) -> None:
    account = Ledger(tmp_path / "ledger.db").account("people", Budget(1, 1e-6))
    account.reserve(PLAN, 0.25, 1e-7, unit=UNIT, label="parent")
    parents = account.ledger._connection()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            account.reserve(PLAN, 0.25, 1e-7, unit=UNIT, label="child")
            code = 0 if account.ledger._connection() is not parents else 2
            account.ledger.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    account.reserve(PLAN, 0.5, 1e-7, unit=UNIT, label="parent")
    with pytest.raises(BudgetExceeded):
        account.reserve(PLAN, 0.01, 1e-9, unit=UNIT, label="parent")
    assert account.ledger.verify("people") == []
