"""Reading an account's chain back: by its own ledger, or by a stranger from an extract."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

from dpsynth_accounting._approval import objection
from dpsynth_accounting._canonical import digest
from dpsynth_accounting._chain import FORMAT_VERSION as FORMAT_VERSION
from dpsynth_accounting._chain import GENESIS as GENESIS
from dpsynth_accounting._chain import chain_hash as chain_hash
from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting._event_json import event_from_json
from dpsynth_accounting._standing import total
from dpsynth_accounting.attempts import Attempts, require_cap
from dpsynth_accounting.budget import ADJACENCY, Budget, checked_delta, checked_epsilon, exact, show
from dpsynth_accounting.curves import curve
from dpsynth_accounting.filters import NOTHING, Charge
from dpsynth_accounting.policy import FIELDS, Policy

_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a stranger's JSON can raise (our InvalidRequest is a ValueError)."""

_OPENING = frozenset(
    {"kind", "account", "seq", "time", "format_version", "ledger", "place", *FIELDS}
)

TOLERANCE = Fraction(1, 10**6)
"""By which a price may exceed its charge, relatively: another machine rounds otherwise."""


@dataclass
class Replay:
    """What a chain of entries adds up to, and what is wrong with it.

    Attributes:
        faults: What does not hold, each as a sentence; empty if all does.
        policy: The one the account was opened with.
        length: How many entries there are.
        head: The hash of the last one.
        time: When the last one was written.
        charges: Reservation to (epsilon, delta), without those that were voided.
        plans: Reservation to its plan, as written.
        unit: The unit of privacy of the first of them, and so of all.
        costs: Reservation to what the account's filter took for it.
        preparers: Reservation to who prepared it, None if nobody said.
        answers: (reservation, step, part) to the SHA-256 of the request and of the stored answer.
        spent: All that was charged or declared, in the filter's measure.
        releases: The release entries' payloads; so too for the lists below.
        declared: Spends made elsewhere.
        attached: Snapshots and tables of the population.
        overrides: Other accounts known to be about the same people.
        approvals: Manifest to who approved it, each with whether a signature shows it.
        inspections: How many inspections were recorded.
        attempts: The candidates whose exact results were read, and the cap.
        moved: Whether the account was moved to another ledger and has not arrived.
        ledger: Identity of the ledger the account is in.
        place: Where that ledger was, hashed.
        since: Reservations before this entry are not continued: the ledger has changed since.
    """

    faults: list[str] = field(default_factory=list)
    policy: Policy | None = None
    length: int = 0
    head: str = GENESIS
    time: datetime | None = None
    charges: dict[str, tuple[Fraction, Fraction]] = field(default_factory=dict)
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    unit: dict[str, Any] | None = None
    costs: dict[str, Charge] = field(default_factory=dict)
    preparers: dict[str, str | None] = field(default_factory=dict)
    answers: dict[tuple[str, int, int], tuple[str, str]] = field(default_factory=dict)
    spent: Charge = NOTHING
    releases: list[dict[str, Any]] = field(default_factory=list)
    declared: list[dict[str, Any]] = field(default_factory=list)
    attached: list[dict[str, Any]] = field(default_factory=list)
    overrides: list[dict[str, Any]] = field(default_factory=list)
    approvals: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)
    inspections: int = 0
    attempts: Attempts = field(default_factory=Attempts)
    moved: bool = False
    ledger: str | None = None
    place: str | None = None
    since: int = 0
    _made: dict[str, int] = field(default_factory=dict, repr=False)
    _seen: dict[str, set[str]] = field(default_factory=dict, repr=False)
    _begun: set[tuple[str, int, int]] = field(default_factory=set, repr=False)

    @property
    def budget(self) -> Budget | None:
        """Return the budget that the account was opened with."""
        return None if self.policy is None else self.policy.budget

    @property
    def spent_epsilon(self) -> Fraction:
        """Return the sum of the epsilons claimed, declared spends among them."""
        return sum((claim[0] for claim in self._claims()), Fraction(0))

    @property
    def spent_delta(self) -> Fraction:
        """Return the sum of the deltas claimed, declared spends among them."""
        return sum((claim[1] for claim in self._claims()), Fraction(0))

    def _claims(self) -> list[tuple[Fraction, Fraction]]:
        declared = [each["plan"]["charge"] for each in self.declared]
        return [
            *self.charges.values(),
            *((exact(charge["epsilon"]), exact(charge["delta"])) for charge in declared),
        ]

    def made_elsewhere(self, reservation: str) -> bool:
        """Say whether a reservation is of before the chain came where it is."""
        return self._made[reservation] < self.since

    def prepared_by(self, manifest: str) -> set[str | None]:
        """Return who prepared a release: by the reservations it names, else by all before it."""
        found: set[str | None] = set()
        for release in self.releases:
            if release.get("manifest") == manifest:
                before = [key for key, at in self._made.items() if at < release["seq"]]
                found |= {self.preparers.get(key) for key in release.get("reservations", before)}
                found |= {release["by"]} if "by" in release else set()
        return found

    def approved(self, manifest: str) -> bool:
        """Say whether a recorded release has the approval that the account's policy asks for.

        Where the policy names approvers, one of them who did not prepare the release must have
        approved it. Approvals that the policy does not let count are not among the approvals.
        """
        if self.policy is None or all(each.get("manifest") != manifest for each in self.releases):
            return False
        preparers = self.prepared_by(manifest)
        return not self.policy.approvers or (
            None not in preparers
            and any(by not in preparers for by, _ in self.approvals.get(manifest, []))
        )


def replay(entries: Iterable[Mapping[str, Any]], account: str) -> Replay:
    """Walk a chain: hashes, order, times, and that no charge broke the account's policy.

    Args:
        entries: Each as ``{"payload", "hash"}``, oldest first.
        account: The account that every entry must be of.
    """
    state = Replay()
    for position, entry in enumerate(entries):
        try:
            payload = entry["payload"]
            if entry["hash"] != chain_hash(state.head, payload):
                state.faults.append(f"entry {position} was altered, removed or moved")
            if (payload["seq"], payload["account"]) != (position, account):
                state.faults.append(f"entry {position} carries another number or account")
            state.head, state.length = str(entry["hash"]), position + 1
            _tell_time(state, payload)
            _apply(state, payload)
        except _UNREADABLE:
            state.faults.append(f"entry {position} cannot be read")
    return state


def _tell_time(state: Replay, payload: Mapping[str, Any]) -> None:
    time = datetime.fromisoformat(payload["time"])
    if state.time is not None and time < state.time:
        state.faults.append(
            f"entry {payload['seq']} is back-dated: it is older than the one before"
        )
    state.time = time if state.time is None else max(state.time, time)


def _apply(state: Replay, payload: Mapping[str, Any]) -> None:
    kind, at = payload["kind"], payload["seq"]
    if (kind == "open") != (state.length == 1):
        state.faults.append(f"entry {at} is out of place: the first opens the account")
        return
    if state.moved != (kind == "arrive"):
        state.faults.append(f"entry {at} is out of place: a moved account arrives, then goes on")
    match kind:
        case "open":
            _open(state, payload)
        case "inspect" | "attempts":
            _attempt(state, payload)
        case "release" | "attach" | "override":
            lists = {"release": state.releases, "attach": state.attached}
            lists.get(kind, state.overrides).append(dict(payload))
            _attempt(state, payload)
        case "declare":
            _declare(state, payload)
        case "approve":
            _approve(state, payload)
        case "move" | "arrive" | "adopt":
            _change_place(state, payload)
        case "reserve" | "begin" | "answer" | "commit" | "void":
            _apply_to_reservation(state, payload)
        case _:
            state.faults.append(f"entry {at} is of an unknown kind")


def _open(state: Replay, payload: Mapping[str, Any]) -> None:
    unknown = set(payload) - _OPENING
    if unknown or payload["format_version"] != FORMAT_VERSION:
        state.faults.append("the account was opened under rules this dpsynth does not know")
    state.policy = Policy.from_json({key: payload[key] for key in FIELDS if key in payload})
    state.unit = payload.get("unit")
    state.ledger, state.place = payload.get("ledger"), payload.get("place")


def _attempt(state: Replay, payload: Mapping[str, Any]) -> None:
    fault = state.attempts.fault(payload)
    state.faults += [] if fault is None else [fault]
    if payload["kind"] == "attempts":
        require_cap(payload["most"], payload["reason"], payload["by"])
    state.inspections += payload["kind"] == "inspect"
    state.attempts = state.attempts.after(payload)


def _change_place(state: Replay, payload: Mapping[str, Any]) -> None:
    if payload["kind"] == "move":
        state.moved = True
        return
    if payload["kind"] == "arrive":
        state.moved, state.ledger = False, payload["ledger"]
    state.place, state.since = payload["place"], int(payload["seq"])


def _approve(state: Replay, payload: Mapping[str, Any]) -> None:
    manifest, by = payload["manifest"], payload["by"]
    why = None if state.policy is None else objection(state.policy, payload)
    if why is not None:
        state.faults.append(f"the approval in entry {payload['seq']} does not count: {why}")
    else:
        state.approvals.setdefault(manifest, []).append((by, "signature" in payload))


def _apply_to_reservation(state: Replay, payload: Mapping[str, Any]) -> None:
    kind, identity = payload["kind"], payload["reservation"]
    before = state._seen.setdefault(identity, set())
    # A reservation is made once; it is handed back only before all else, and for good.
    if (kind == "reserve") == bool(before) or "void" in before:
        state.faults.append(f"reservation {identity} has a {kind} out of order")
    elif kind == "void" and before != {"reserve"}:
        state.faults.append(f"reservation {identity} was handed back after a read")
    else:
        if kind not in ("reserve", "commit") and state._made[identity] < state.since:
            state.faults.append(f"reservation {identity} was continued in another ledger or copy")
        match kind:
            case "reserve":
                _reserve(state, payload)
            case "begin" if "part" in payload:
                key = identity, int(payload["step"]), int(payload["part"])
                if key in state._begun:
                    state.faults.append(f"reservation {identity} began a part of a step twice")
                state._begun.add(key)
            case "answer":
                if "begin" not in before:
                    state.faults.append(f"reservation {identity} answered before it began")
                key = identity, int(payload["step"]), int(payload["part"])
                state.answers[key] = str(payload["request_sha256"]), str(payload["sha256"])
            case "void":
                state.spent = total(state.spent - state.costs.pop(identity))
                del state.charges[identity]
    before.add(kind)


def _reserve(state: Replay, payload: Mapping[str, Any]) -> None:
    identity, plan = payload["reservation"], payload["plan"]
    state._made[identity] = payload["seq"]
    if digest(plan) != payload["plan_digest"]:
        state.faults.append(f"reservation {identity} names another plan")
    _require_unit(state, plan, f"reservation {identity}")
    charge = plan["charge"]
    state.plans[identity] = plan
    state.preparers[identity] = payload.get("by")
    epsilon, delta = checked_epsilon(charge["epsilon"]), checked_delta(charge["delta"])
    state.charges[identity] = epsilon, delta
    state.costs[identity] = cost_of(payload)
    state.spent = total(state.spent + state.costs[identity])
    _require_cost(state, state.costs[identity], "cost" in payload, f"reservation {identity}")
    policy = state.policy
    if policy is None or not state.spent.fits(_capacity(policy)):
        state.faults.append(f"reservation {identity} exceeds the budget")
    if policy is not None and state.time is not None:
        try:
            policy.check(epsilon, unit=plan["unit"], by=payload.get("by"), on=state.time.date())
        except InvalidRequest as error:
            state.faults.append(f"reservation {identity} broke the policy: {error.limit}")


def _capacity(policy: Policy) -> Charge:
    """Return what the account holds; where that is found by floats, with another machine's."""
    if policy.filter.name == "additive":
        return policy.capacity
    return _tolerant(policy.capacity)


def _tolerant(charge: Charge) -> Charge:
    return Charge(charge.cost * (1 + TOLERANCE), charge.delta * (1 + TOLERANCE))


def _declare(state: Replay, payload: Mapping[str, Any]) -> None:
    what = f"the declared spend in entry {payload['seq']}"
    _require_unit(state, payload["plan"], what)
    if payload["adjacency"] != ADJACENCY:
        state.faults.append(f"{what} is under another adjacency")
    cost = cost_of(payload)
    _require_cost(state, cost, "cost" in payload, what)
    state.spent = total(state.spent + cost)
    state.declared.append(dict(payload))


def _require_unit(state: Replay, plan: Mapping[str, Any], what: str) -> None:
    if state.unit is None:
        state.unit = plan["unit"]
    if plan["unit"] != state.unit:
        state.faults.append(f"{what} is under another unit of privacy")


def _require_cost(state: Replay, cost: Charge, given: bool, what: str) -> None:
    additive = state.policy is None or state.policy.filter.name == "additive"
    if given == additive or cost.cost < 0 or cost.delta < 0:
        state.faults.append(f"{what} is not counted as the account's filter counts")


def cost_of(payload: Mapping[str, Any]) -> Charge:
    """Return what a charge takes; under the additive filter that is what it claims."""
    claim = payload["plan"]["charge"]
    cost = payload.get("cost", {"cost": claim["epsilon"], "delta": claim["delta"]})
    return Charge(exact(cost["cost"]), exact(cost["delta"]))


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
        cost = state.costs.get(identity)
        state.faults += _pricing(state.policy, f"reservation {identity}", plan, cost)
    for payload in state.declared:
        what = f"the declared spend in entry {payload['seq']}"
        state.faults += _pricing(state.policy, what, payload["plan"], cost_of(payload))
    return state


def _pricing(
    policy: Policy | None, what: str, plan: Mapping[str, Any], cost: Charge | None
) -> Iterator[str]:
    """Yield what is wrong with the price of a plan; ``cost`` is None if it was handed back."""
    try:
        epsilon, delta = exact(plan["charge"]["epsilon"]), exact(plan["charge"]["delta"])
        event = event_from_json(plan["event"])
        price = curve(event).epsilon(delta)
        if price > float(epsilon) * (1 + float(TOLERANCE)):
            yield f"{what} was charged epsilon {show(epsilon)} but costs {price:.6g}"
        if policy is not None and policy.filter.name != "additive" and cost is not None:
            takes = policy.filter.cost(event, policy.budget)
            if not takes.fits(_tolerant(cost)):
                yield (
                    f"{what} was charged {policy.filter.measure} {show(cost.cost)} but costs "
                    f"{show(takes.cost)}"
                )
    except _UNREADABLE:
        yield f"the plan of {what} cannot be read"
