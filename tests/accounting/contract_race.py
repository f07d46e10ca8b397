"""Several processes at one ledger: the database decides, and it decides once.

Inherited by the tests of each back end, like the contract of one process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import pytest

import dpsynth_accounting
from dpsynth_accounting import Account, ApproxDP, Budget, BudgetExceeded
from tests.accounting.contract_ledger import Site

PACKAGE = str(Path(dpsynth_accounting.__file__).parents[1])
UNIT = {"unit": "row"}
PLAN = ApproxDP(Fraction(0), Fraction(0))

HEAD = """
    import sys
    from fractions import Fraction
    from pathlib import Path
    from dpsynth_accounting import *
    address, secret = sys.argv[1], Path(sys.argv[2])
    UNIT, PLAN = {"unit": "row"}, ApproxDP(Fraction(0), Fraction(0))
    print("ready", flush=True)
    sys.stdin.readline()
    ledger = Ledger(address, secret=secret)
"""


def start(code: str, site: Site, *more: object) -> subprocess.Popen[str]:
    """Start a process that waits for a line before it opens the ledger and runs the code."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(HEAD) + textwrap.dedent(code),
            site.address,
            str(site.secret),
            *map(str, more),
        ],
        env={**os.environ, "PYTHONPATH": PACKAGE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def race(code: str, site: Site, runners: int) -> list[str]:
    """Run the code in several processes, let go together once all have imported; its outputs."""
    processes = [start(code, site) for _ in range(runners)]
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


KILLED = """
    import itertools, os, random, signal, time
    ledger.close()
    workers, kills, plans = int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[6])
    logs = Path(sys.argv[5])

    def shown(slot):
        log = logs / str(slot)
        return log.read_text().count("\\n") if log.exists() else 0

    def work(slot):
        # Resumes what an earlier process of this slot left, then reserves plan after plan.
        account = ledger.existing("people")
        for at in itertools.count(shown(slot)):
            asked = dict(unit=UNIT, label=f"slot {slot} plan {at}")
            paid = account.unfinished(PLAN, "1/1000", "1e-9", **asked)
            try:
                paid = paid or account.reserve(PLAN, "1/1000", "1e-9", **asked)
            except BudgetExceeded:
                return
            if paid.answer(0, 0, "q") is None:
                paid.begin(0, "q")
                paid.store(0, 0, "q", os.urandom(8).hex().encode())
            with (logs / str(slot)).open("a") as log:
                log.write(f"{paid.identity} {paid.answer(0, 0, 'q').decode()}\\n")
            paid.commit()

    def fork(slot):
        process = os.fork()
        if process == 0:
            try:
                work(slot)
                os._exit(0)
            except BaseException as error:
                print(type(error).__name__, error, file=sys.stderr, flush=True)
                os._exit(1)
        return process

    # Kills keep step with the plans, not with a clock: as many on a machine of any speed.
    draw = random.Random(plans)
    running, replaced, killed = {fork(slot): slot for slot in range(workers)}, 0, 0
    while running:
        time.sleep(draw.uniform(0, 0.02))
        if killed * plans < kills * sum(map(shown, range(workers))):
            victim = draw.choice(list(running))
            killed += 1
            os.kill(victim, signal.SIGKILL)
        while running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                break
            slot = running.pop(process)
            if os.WIFSIGNALED(status):
                running[fork(slot)] = slot
                replaced += 1
            elif status:
                sys.exit(1)
    print(replaced)
"""


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


class RaceContract:
    """Inherited by the tests of each back end."""

    SMALLER = 300, 20
    """Plans and kills of the race that always runs."""

    @pytest.fixture
    def site(self) -> Site:
        raise NotImplementedError

    @pytest.fixture
    def account(self, site: Site) -> Account:
        return site.open().account("people", Budget(1, 1e-6))

    def test_two_processes_race_for_the_last_epsilon(self, account: Account, site: Site) -> None:
        account.reserve(PLAN, 0.5, 5e-7, unit=UNIT, label="before")
        code = """
            account = ledger.existing("people")
            try:
                account.reserve(PLAN, 0.5, 5e-7, unit=UNIT, label="race")
                print("granted")
            except BudgetExceeded as error:
                print("refused", error.touched)
        """
        assert sorted(race(code, site, 2)) == ["granted", "refused False"]
        assert account.remaining() == (Fraction(0), Fraction(0))
        assert account.ledger.verify("people") == []

    def test_six_processes_are_granted_exactly_the_budget(self, site: Site) -> None:
        """They also make the ledger together, from nothing."""
        code = """
            account = ledger.account("people", Budget("0.6", "6e-7"))
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
        said = [line.split() for line in race(code, site, 6)]
        assert sum(int(granted) for granted, _ in said) == 60
        assert len({key for _, key in said}) == 1
        ledger = site.open()
        account = ledger.existing("people")
        assert account.remaining() == (Fraction(0), Fraction(0))
        assert len(ledger.entries("people")) == 1 + 60 * 4
        assert ledger.verify("people") == []
        assert account.key("coins").hex() == said[0][1]

    def test_one_answer_is_kept_of_two_runs_that_resume_one_plan(
        self, account: Account, site: Site
    ) -> None:
        reservation = account.reserve(PLAN, 0.5, 5e-7, unit=UNIT, label="both")
        code = """
            import os
            account = ledger.existing("people")
            paid = account.unfinished(PLAN, 0.5, 5e-7, unit=UNIT, label="both")
            paid.begin(0, "q")
            try:
                paid.store(0, 0, "q", str(os.getpid()).encode())
                print("kept", os.getpid())
            except LedgerError as error:
                print("lost", error.touched)
        """
        kept, lost = sorted(race(code, site, 2))
        assert lost == "lost True"
        assert reservation.answer(0, 0, "q") == kept.removeprefix("kept ").encode()
        assert account.ledger.verify("people") == []

    def test_a_charge_is_either_used_or_handed_back(self, account: Account, site: Site) -> None:
        """One process begins what the other hands back: never both."""
        for i in range(20):
            account.reserve(PLAN, 0.05, 5e-8, unit=UNIT, label=f"plan {i}")
        code = """
            import os
            account = ledger.existing("people")
            for i in range(20):
                paid = account.unfinished(PLAN, 0.05, 5e-8, unit=UNIT, label=f"plan {i}")
                if paid is None:
                    continue
                if (os.getpid() + i) % 2:
                    try:
                        paid.begin(0, "q")
                    except InvalidRequest:
                        pass
                else:
                    paid.void()
        """
        race(code, site, 2)
        payloads = [entry["payload"] for entry in account.ledger.entries("people")]
        kinds = [payload["kind"] for payload in payloads]
        used = {each["reservation"] for each in payloads if each["kind"] == "begin"}
        assert kinds.count("void") + len(used) == 20
        assert account.remaining()[0] == Fraction(kinds.count("void"), 20)
        assert account.ledger.verify("people") == []

    @needs_fork
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_forked_child_charges_through_its_own_connection(self, account: Account) -> None:
        account.reserve(PLAN, 0.25, 1e-7, unit=UNIT, label="parent")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                account.reserve(PLAN, 0.25, 1e-7, unit=UNIT, label="child")
                account.ledger.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        account.reserve(PLAN, 0.5, 1e-7, unit=UNIT, label="parent")
        with pytest.raises(BudgetExceeded):
            account.reserve(PLAN, 0.01, 1e-9, unit=UNIT, label="parent")
        assert account.ledger.verify("people") == []

    @needs_fork
    def test_eight_processes_killed_at_random_spend_exactly_the_budget(
        self, site: Site, tmp_path: Path
    ) -> None:
        """Each has plans of its own; who replaces a killed one resumes, and draws nothing twice."""
        self.spend_all(site, tmp_path, *self.SMALLER)

    @needs_fork
    @pytest.mark.slow
    def test_a_thousand_plans_of_processes_killed_at_random(
        self, site: Site, tmp_path: Path
    ) -> None:
        self.spend_all(site, tmp_path, 1000, 100)

    def spend_all(self, site: Site, tmp_path: Path, plans: int, kills: int) -> None:
        budget = Budget(Fraction(plans, 1000), Fraction(plans, 10**9))
        account = site.open().account("people", budget)
        logs = tmp_path / "shown"
        logs.mkdir()
        process = start(KILLED, site, 8, kills, logs, plans)
        out, error = process.communicate("go\n", timeout=600)
        assert (process.returncode, error) == (0, "")
        assert int(out.split()[-1]) > kills // 2
        assert account.remaining() == (Fraction(0), Fraction(0))
        assert account.ledger.verify("people") == []
        payloads = [entry["payload"] for entry in account.ledger.entries("people")]
        reserved = [each["plan"]["label"] for each in payloads if each["kind"] == "reserve"]
        assert len(reserved) == len(set(reserved)) == plans
        assert sum(each["kind"] == "answer" for each in payloads) == plans
        shown: dict[str, set[str]] = {}
        for log in logs.iterdir():
            for line in log.read_text().splitlines():
                identity, value = line.split()
                shown.setdefault(identity, set()).add(value)
        assert len(shown) == plans
        assert all(len(values) == 1 for values in shown.values())
