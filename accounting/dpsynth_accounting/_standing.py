"""An account's row, and the one way in which an entry is appended to its chain."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

from dpsynth_accounting._canonical import canonical
from dpsynth_accounting._chain import GENESIS, as_read, chain_hash, moment
from dpsynth_accounting._errors import BudgetExceeded, LedgerError
from dpsynth_accounting._store import Database, Store
from dpsynth_accounting.attempts import Attempts
from dpsynth_accounting.budget import show
from dpsynth_accounting.filters import NOTHING, Charge
from dpsynth_accounting.policy import Policy

_COLUMNS = "name, policy, unit, entries, head, time, spent_cost, spent_delta, since, moved"

_GRAIN = 2**256


@dataclass(frozen=True)
class Standing:
    """An account as its row in the ledger has it, read in the transaction that relies on it.

    Attributes:
        name: The account's.
        policy: What it was opened with.
        unit: Canonical JSON of the unit of privacy it is kept under; None before the first charge.
        entries: How many entries its chain has.
        head: The hash of the last one.
        time: When that was written; empty before the first.
        spent: All charges and declared spends.
        since: Reservations of before this entry were made elsewhere and are never continued here.
        moved: Whether the account went to another ledger.
    """

    name: str
    policy: Policy
    unit: str | None = None
    entries: int = 0
    head: str = GENESIS
    time: str = ""
    spent: Charge = NOTHING
    since: int = 0
    moved: bool = False

    @property
    def left(self) -> Charge:
        """What no charge has taken yet; below 0 where declared spends overdraw the account."""
        return self.policy.capacity - self.spent

    @property
    def room(self) -> tuple[Fraction, Fraction]:
        """The greatest epsilon that one further plan may claim, and at which delta.

        Where charges add up that is the delta left. Under another filter a plan's claim is at the
        delta of the whole budget: what it takes is not its claim.
        """
        if self.policy.filter.name == "additive":
            return self.claimable(self.left.delta), max(self.left.delta, Fraction(0))
        return self.claimable(self.policy.budget.delta), self.policy.budget.delta

    def claimable(self, delta: Fraction) -> Fraction:
        """Return the greatest epsilon that one further plan may claim at ``delta``."""
        return max(self.policy.filter.epsilon(self.left, delta), Fraction(0))

    @property
    def today(self) -> date:
        """The day as the chain will have it: a clock that went back extends nothing."""
        return datetime.fromisoformat(moment(self.time)).astimezone(UTC).date()

    def overspend(
        self, epsilon: Fraction, delta: Fraction, charge: Charge | None = None
    ) -> BudgetExceeded:
        """Return the refusal of a claim; with what the filter would take for it, if that is known.

        Only the additive filter takes the claim itself.
        """
        budget, how, capacity = self.policy.budget, self.policy.filter, self.policy.capacity
        if charge is None or how.name == "additive":
            left_epsilon, left_delta = self.room
            limit = (
                f"It has epsilon {show(left_epsilon, up=False)}, delta "
                f"{show(left_delta, up=False)} left of {show(budget.epsilon)}, "
                f"{show(budget.delta)}."
            )
        else:
            left = Charge(max(self.left.cost, Fraction(0)), max(self.left.delta, Fraction(0)))
            limit = (
                f"The plan takes {how.measure} {show(charge.cost)} and delta "
                f"{show(charge.delta)} of its own; the account has {show(left.cost, up=False)} of "
                f"{show(capacity.cost)} and {show(left.delta, up=False)} of "
                f"{show(capacity.delta)} left."
            )
        return BudgetExceeded(
            f"Account {self.name!r} was asked for epsilon {show(epsilon)}, delta {show(delta)}.",
            limit,
            "Ask for no more than what is left; `dpsynth ledger show` lists what was spent. "
            "A run that was interrupted continues with --resume at no further charge.",
        )


def total(spent: Charge) -> Charge:
    """Return a sum of charges with a denominator that stays writable, rounded up if need be.

    Decimals and small fractions add up exactly. Costs with large denominators that share no factor
    would grow by those digits with every charge.
    """
    return Charge(_written(spent.cost), _written(spent.delta))


def _written(value: Fraction) -> Fraction:
    if value.denominator <= _GRAIN:
        return value
    return Fraction(math.ceil(value * _GRAIN), _GRAIN)


def read_standing(db: Database, name: str) -> Standing | None:
    """Return an account as its row has it, or None if there is no such account."""
    rows = db.rows(f"SELECT {_COLUMNS} FROM accounts WHERE name=:name", name=name)
    if not rows:
        return None
    _, policy, unit, entries, head, time, cost, delta, since, moved = rows[0]
    spent = Charge(Fraction(cost), Fraction(delta))
    policy = Policy.from_json(json.loads(policy))
    return Standing(name, policy, unit, entries, head, time, spent, since, bool(moved))


def write_standing(db: Database, standing: Standing, *, new: bool = False) -> None:
    """Write an account's row."""
    changing = ("unit", "entries", "head", "time", "spent_cost", "spent_delta", "since", "moved")
    values: dict[str, object] = {
        "name": standing.name,
        "unit": standing.unit,
        "entries": standing.entries,
        "head": standing.head,
        "time": standing.time,
        "spent_cost": str(standing.spent.cost),
        "spent_delta": str(standing.spent.delta),
        "since": standing.since,
        "moved": int(standing.moved),
    }
    if new:
        values["policy"] = canonical(standing.policy.to_json()).decode()
        names = _COLUMNS.split(", ")
        db.run(f"INSERT INTO accounts VALUES({', '.join(f':{n}' for n in names)})", **values)
    else:
        changes = ", ".join(f"{name}=:{name}" for name in changing)
        db.run(f"UPDATE accounts SET {changes} WHERE name=:name", **values)


def append(db: Database, standing: Standing, payload: Mapping[str, Any]) -> Standing:
    """Append an entry and write the account's row, inside the caller's transaction.

    From the first selection on, an account's entries tell the day alone: how long one took would
    tell how many runs it had, which is secret, and so would the time of whatever comes next.

    Args:
        db: The writer's transaction, in which ``standing`` was read.
        standing: The account, with whatever else the entry changes about it.
        payload: What the entry says, besides account, number and time.

    Returns:
        The account as it now stands.
    """
    text = canonical(as_read(payload)).decode()
    day = _SELECTION in text or _has_selection(db, standing.name)
    seq, time = standing.entries, moment(standing.time, day=day)
    facts = as_read({**payload, "account": standing.name, "seq": seq, "time": time})
    digest = chain_hash(standing.head, facts)
    insert_entry(db, facts, digest)
    after = replace(standing, entries=seq + 1, head=digest, time=time)
    write_standing(db, after)
    return after


_SELECTION = '"event":"repeat_and_select"'


def _has_selection(db: Database, name: str) -> bool:
    """Say whether an account has reserved a plan that keeps the best of a secret number of runs."""
    found = db.rows(
        "SELECT 1 FROM entries WHERE account=:account AND kind='reserve' "
        "AND payload LIKE :selection LIMIT 1",
        account=name,
        selection=f"%{_SELECTION}%",
    )
    return bool(found)


def insert_entry(db: Database, facts: Mapping[str, Any], digest: str) -> None:
    """Insert an entry, with the columns that are looked up."""
    columns = columns_of(facts)
    db.run(
        "INSERT INTO entries VALUES(:account, :seq, :kind, :reservation, :step, :subject, "
        ":payload, :hash)",
        payload=canonical(facts).decode(),
        hash=digest,
        **columns,
    )


def read_entries(db: Database, name: str) -> list[dict[str, Any]]:
    """Return an account's entries, oldest first, each as ``{"payload", "hash"}``."""
    rows = db.rows(
        "SELECT payload, hash FROM entries WHERE account=:account ORDER BY seq", account=name
    )
    return [{"payload": json.loads(text), "hash": digest} for text, digest in rows]


def read_attempts(db: Database, name: str) -> Attempts:
    """Return the attempts of an account, read in the transaction that relies on them."""
    rows = db.rows(
        "SELECT payload FROM entries WHERE account=:account AND kind IN ('inspect', 'attempts') "
        "ORDER BY seq",
        account=name,
    )
    found = Attempts()
    for (text,) in rows:
        found = found.after(json.loads(text))
    return found


def columns_of(facts: Mapping[str, Any]) -> dict[str, object]:
    """Return the columns in which an entry is looked up, all taken from its payload."""
    kind = facts["kind"]
    subject = {"reserve": "plan_digest", "override": "other"}.get(kind)
    of_reservation = kind in ("reserve", "begin", "answer", "commit", "void")
    return {
        "account": facts["account"],
        "seq": facts["seq"],
        "kind": kind,
        "reservation": facts["reservation"] if of_reservation else None,
        "step": facts.get("step") if of_reservation else None,
        "subject": facts[subject] if subject else None,
    }


def require_home(store: Store, db: Database, *, touched: bool) -> None:
    """Refuse to write to a ledger that is not where it was: a copy, or a restored backup.

    Raises:
        LedgerError: The ledger is elsewhere than its meta table says.
    """
    if db.rows("SELECT value FROM meta WHERE key='place'") != [(store.place(db),)]:
        raise LedgerError(
            f"The ledger {store.where} was to be written.",
            "It was copied, restored from a backup or moved to another disk: charges made since "
            "then in the original would be missing here.",
            "Use the original. If it is gone for good, run `dpsynth ledger adopt` and say why.",
            touched=touched,
        )


def require_open(standing: Standing, *, touched: bool) -> None:
    """Refuse to write to an account that went to another ledger.

    Raises:
        LedgerError: It was moved out.
    """
    if standing.moved:
        raise LedgerError(
            f"Account {standing.name!r} was to be written.",
            "It was moved to another ledger and is closed here.",
            "Use the ledger that took it in, or take it back from there.",
            touched=touched,
        )
