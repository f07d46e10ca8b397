"""Reading an account's chain back: by its own ledger, or by a stranger from an extract."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from dpsynth_accounting import events
from dpsynth_accounting._errors import DpsynthError
from dpsynth_accounting.budget import Budget, show
from dpsynth_accounting.curves import curve

GENESIS = "0" * 64


def chain_hash(previous: str, payload: Mapping[str, Any]) -> str:
    """Return the hash of an entry: SHA-256 of the previous hash and the canonical payload."""
    return hashlib.sha256(previous.encode() + b"\n" + events.canonical(payload)).hexdigest()


@dataclass
class Replay:
    """What a chain of entries adds up to, and what is wrong with it.

    Attributes:
        faults: What does not hold, each as a sentence; empty if all does.
        charges: Reservation to (epsilon, delta), without those that were voided.
        plans: Reservation to its plan, as written.
        answers: (reservation, step, part) to the SHA-256 of the stored answer.
        releases: The release entries' payloads.
        inspections: How many inspections were recorded.
    """

    faults: list[str] = field(default_factory=list)
    budget: Budget | None = None
    length: int = 0
    head: str = GENESIS
    charges: dict[str, tuple[Fraction, Fraction]] = field(default_factory=dict)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[tuple[str, int, int], str] = field(default_factory=dict)
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


def replay(entries: Iterable[Mapping[str, Any]]) -> Replay:
    """Walk a chain: hashes, order, and that no charge ever exceeded the budget."""
    state = Replay()
    begun: set[str] = set()
    for position, entry in enumerate(entries):
        payload = entry["payload"]
        expected = chain_hash(state.head, payload)
        if entry["hash"] != expected:
            state.faults.append(f"entry {position} was altered, removed or moved")
        if payload.get("seq") != position:
            state.faults.append(f"entry {position} carries another number")
        state.head, state.length = entry["hash"], position + 1
        try:
            _apply(state, payload, begun)
        except (KeyError, TypeError, ValueError, DpsynthError):
            state.faults.append(f"entry {position} cannot be read")
    return state


def _apply(state: Replay, payload: Mapping[str, Any], begun: set[str]) -> None:
    identity = payload.get("reservation", "")
    match payload["kind"]:
        case "open":
            state.budget = Budget.from_json(payload["budget"])
        case "reserve":
            plan = payload["plan"]
            if events.digest(plan) != payload["plan_digest"]:
                state.faults.append(f"reservation {identity} names another plan")
            charge = plan["charge"]
            state.plans[identity] = plan
            state.charges[identity] = Fraction(charge["epsilon"]), Fraction(charge["delta"])
            budget = state.budget
            if budget is None or (
                state.spent_epsilon > budget.epsilon or state.spent_delta > budget.delta
            ):
                state.faults.append(f"reservation {identity} exceeds the budget")
        case "begin":
            begun.add(identity)
        case "answer":
            key = identity, int(payload["step"]), int(payload["part"])
            state.answers[key] = payload["sha256"]
        case "void":
            if identity in begun:
                state.faults.append(f"reservation {identity} was handed back after a read")
            else:
                state.charges.pop(identity, None)
        case "commit":
            pass
        case "inspect":
            state.inspections += 1
        case "release":
            state.releases.append(dict(payload))
        case other:
            state.faults.append(f"an entry is of the unknown kind {other!r}")


def verify_extract(extract: Mapping[str, Any]) -> Replay:
    """Check an extract without the data: chain, head, totals, and the price of every plan.

    Returns:
        What the chain adds up to; ``faults`` is empty if everything holds.
    """
    state = replay(extract["entries"])
    if extract["head"] != state.head:
        state.faults.append("the extract's head is not the hash of its last entry")
    for identity, plan in state.plans.items():
        charged = Fraction(plan["charge"]["epsilon"])
        at = float(Fraction(plan["charge"]["delta"]))
        price = curve(events.from_json(plan["event"])).epsilon(at)
        if price > float(charged) * (1 + 1e-6):
            state.faults.append(
                f"reservation {identity} was charged epsilon {show(charged)} but costs {price:.6g}"
            )
    return state
