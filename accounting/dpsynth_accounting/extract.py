"""Reading an account's chain back: by its own ledger, or by a stranger from an extract."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from dpsynth_accounting import events
from dpsynth_accounting.budget import Budget, checked_delta, checked_epsilon, exact, show
from dpsynth_accounting.curves import curve

FORMAT_VERSION = 1
GENESIS = "0" * 64

_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a stranger's JSON can raise (our InvalidRequest is a ValueError)."""


def chain_hash(previous: str, payload: Mapping[str, Any]) -> str:
    """Return the hash of an entry: SHA-256 of the previous hash and the canonical payload."""
    return hashlib.sha256(previous.encode() + b"\n" + events.canonical(payload)).hexdigest()


@dataclass
class Replay:
    """What a chain of entries adds up to, and what is wrong with it.

    Attributes:
        faults: What does not hold, each as a sentence; empty if all does.
        budget: The one the account was opened with.
        length: How many entries there are.
        head: The hash of the last one.
        charges: Reservation to (epsilon, delta), without those that were voided.
        plans: Reservation to its plan, as written.
        answers: (reservation, step, part) to the SHA-256 of the request and of the stored answer.
        releases: The release entries' payloads.
        inspections: How many inspections were recorded.
    """

    faults: list[str] = field(default_factory=list)
    budget: Budget | None = None
    length: int = 0
    head: str = GENESIS
    charges: dict[str, tuple[Fraction, Fraction]] = field(default_factory=dict)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[tuple[str, int, int], tuple[str, str]] = field(default_factory=dict)
    releases: list[dict[str, Any]] = field(default_factory=list)
    inspections: int = 0

    @property
    def spent_epsilon(self) -> Fraction:
        """Return the sum of the epsilons charged."""
        return sum((charge[0] for charge in self.charges.values()), Fraction(0))

    @property
    def spent_delta(self) -> Fraction:
        """Return the sum of the deltas charged."""
        return sum((charge[1] for charge in self.charges.values()), Fraction(0))


def replay(entries: Iterable[Mapping[str, Any]], account: str) -> Replay:
    """Walk a chain: hashes, order, and that no charge ever exceeded the budget.

    Args:
        entries: Each as ``{"payload", "hash"}``, oldest first.
        account: The account that every entry must be of.
    """
    state = Replay()
    kinds: dict[str, set[str]] = {}
    for position, entry in enumerate(entries):
        try:
            payload = entry["payload"]
            if entry["hash"] != chain_hash(state.head, payload):
                state.faults.append(f"entry {position} was altered, removed or moved")
            if (payload["seq"], payload["account"]) != (position, account):
                state.faults.append(f"entry {position} carries another number or account")
            state.head, state.length = str(entry["hash"]), position + 1
            _apply(state, payload, kinds)
        except _UNREADABLE:
            state.faults.append(f"entry {position} cannot be read")
    return state


def _apply(state: Replay, payload: Mapping[str, Any], kinds: dict[str, set[str]]) -> None:
    kind = payload["kind"]
    if (kind == "open") != (state.length == 1):
        state.faults.append(f"entry {payload['seq']} is out of place: the first opens the account")
        return
    match kind:
        case "open":
            state.budget = Budget.from_json(payload["budget"])
        case "inspect":
            state.inspections += 1
        case "release":
            state.releases.append(dict(payload))
        case "reserve" | "begin" | "answer" | "commit" | "void":
            identity = payload["reservation"]
            before = kinds.setdefault(identity, set())
            # A reservation is made once; it is handed back only before all else, and for good.
            if (kind == "reserve") == bool(before) or "void" in before:
                state.faults.append(f"reservation {identity} has a {kind} out of order")
            elif kind == "void" and before != {"reserve"}:
                state.faults.append(f"reservation {identity} was handed back after a read")
            else:
                _apply_to_reservation(state, payload, identity, before)
            before.add(kind)
        case _:
            state.faults.append(f"entry {payload['seq']} is of an unknown kind")


def _apply_to_reservation(
    state: Replay, payload: Mapping[str, Any], identity: str, before: set[str]
) -> None:
    match payload["kind"]:
        case "reserve":
            _reserve(state, identity, payload["plan"], payload["plan_digest"])
        case "answer":
            if "begin" not in before:
                state.faults.append(f"reservation {identity} answered before it began")
            key = identity, int(payload["step"]), int(payload["part"])
            state.answers[key] = str(payload["request_sha256"]), str(payload["sha256"])
        case "void":
            del state.charges[identity]


def _reserve(state: Replay, identity: str, plan: dict[str, Any], digest: str) -> None:
    if events.digest(plan) != digest:
        state.faults.append(f"reservation {identity} names another plan")
    if any(plan["unit"] != other["unit"] for other in state.plans.values()):
        state.faults.append(f"reservation {identity} is under another unit of privacy")
    charge = plan["charge"]
    state.plans[identity] = plan
    state.charges[identity] = (
        checked_epsilon(charge["epsilon"]),
        checked_delta(charge["delta"]),
    )
    budget = state.budget
    if budget is None or (state.spent_epsilon > budget.epsilon or state.spent_delta > budget.delta):
        state.faults.append(f"reservation {identity} exceeds the budget")


def verify_extract(extract: Mapping[str, Any]) -> Replay:
    """Check an extract without the data: chain, head, totals, and the price of every plan.

    A price may exceed its charge by a millionth, for the rounding of another machine.

    Returns:
        What the chain adds up to; ``faults`` is empty if everything holds.
    """
    try:
        state = replay(extract["entries"], extract["account"])
        if extract["format_version"] != FORMAT_VERSION:
            state.faults.append("the extract is of another format than this dpsynth knows")
        if not state.length or extract["head"] != state.head:
            state.faults.append("the extract's head is not the hash of its last entry")
    except _UNREADABLE:
        return Replay(faults=["the extract cannot be read"])
    for identity, plan in state.plans.items():
        try:
            charged = exact(plan["charge"]["epsilon"])
            event = events.event_from_json(plan["event"])
            price = curve(event).epsilon(plan["charge"]["delta"])
        except _UNREADABLE:
            state.faults.append(f"the plan of reservation {identity} cannot be read")
            continue
        if price > float(charged) * (1 + 1e-6):
            state.faults.append(
                f"reservation {identity} was charged epsilon {show(charged)} but costs {price:.6g}"
            )
    return state
