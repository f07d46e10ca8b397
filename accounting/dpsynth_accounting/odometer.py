"""What has been spent on a population over its life: by release, by mechanism, charge by charge.

It reads an account's chain and nothing else, so that a stranger with an extract sees what the
custodian sees. Charges of the ledger are *enforced*; declared ones are counted and were spent
elsewhere. A charge that was handed back before any read is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting._page import table
from dpsynth_accounting._spends import RATES as RATES
from dpsynth_accounting._spends import Part as Part
from dpsynth_accounting._spends import SoFar as SoFar
from dpsynth_accounting._spends import Spend as Spend
from dpsynth_accounting._spends import read_spend
from dpsynth_accounting.budget import Budget, exact, show
from dpsynth_accounting.extract import Replay, replay
from dpsynth_accounting.filters import NOTHING, Charge, Filter
from dpsynth_accounting.policy import Policy


@dataclass(frozen=True)
class Odometer:
    """What was spent on a population, and what is left.

    Attributes:
        account: The account.
        policy: What it was opened with: its budget, and the filter by which charges add up.
        spends: The charges that stand, oldest first.
        releases: For each release, its time, the first letters of its manifest's hash, and how
            many charges had been made by then.
        left: The epsilon and delta that one further plan may claim.
        spent: The epsilon that the enforced charges come to, and its delta.
        inspections: Exact results that the custodian has seen, which no epsilon covers.
        attempts: How many candidates for a release these were about, and how many are allowed.
        faults: What does not hold in the chain; then no figure here can be relied on.
    """

    account: str
    policy: Policy
    spends: tuple[Spend, ...]
    releases: tuple[tuple[str, str, int], ...]
    left: tuple[Fraction, Fraction]
    spent: tuple[Fraction, Fraction]
    inspections: int
    attempts: tuple[int, int]
    faults: tuple[str, ...]

    @property
    def budget(self) -> Budget:
        """Return the account's budget."""
        return self.policy.budget

    @property
    def filter(self) -> Filter:
        """Return the rule by which charges add up, in a measure of its own."""
        return self.policy.filter

    def total(self, *, enforced: bool) -> Charge:
        """Return what the enforced, or the declared, charges took."""
        costs = (each.cost for each in self.spends if each.enforced == enforced)
        return sum(costs, NOTHING)

    def cumulative(self) -> list[tuple[Fraction, Fraction]]:
        """Return what had been spent after each charge: enforced and declared, in the measure."""
        enforced = declared = Fraction(0)
        found = []
        for each in self.spends:
            if each.enforced:
                enforced += each.cost.cost
            else:
                declared += each.cost.cost
            found.append((enforced, declared))
        return found

    def by_release(self) -> list[Part]:
        """Return the charges made for each release, in order, and those since the last one."""
        found, start = [], 0
        for number, (time, manifest, stop) in enumerate(self.releases, 1):
            name = f"release {number} ({manifest})"
            found.append(_part(name, self.spends[start:stop], time))
            start = stop
        if start < len(self.spends):
            found.append(_part("not released", self.spends[start:], None))
        return found

    def by_label(self) -> list[Part]:
        """Return the charges by what they were for, the dearest first."""
        groups: dict[str, list[Spend]] = {}
        for each in self.spends:
            groups.setdefault(each.label, []).append(each)
        parts = [_part(name, spends, None) for name, spends in groups.items()]
        return sorted(parts, key=lambda part: -part.epsilon)

    def by_mechanism(self) -> list[Part]:
        """Return the charges by mechanism, epsilons apportioned, the dearest first."""
        charges: dict[str, int] = {}
        epsilon: dict[str, float] = {}
        answers: dict[str, int] = {}
        for each in self.spends:
            for name, count in each.answers.items():
                charges[name] = charges.get(name, 0) + 1
                answers[name] = answers.get(name, 0) + count
                share = each.shares[name] * float(each.epsilon)
                epsilon[name] = epsilon.get(name, 0.0) + share
        parts = [Part(name, charges[name], epsilon[name], None, answers[name]) for name in charges]
        return sorted(parts, key=lambda part: -part.epsilon)

    def so_far(self, *, releasing: bool = False) -> SoFar:
        """Return the sums for a statement.

        Args:
            releasing: Whether a release is being made that the chain does not record yet.
        """
        return SoFar(
            self.account,
            len(self.releases) + releasing,
            sum(each.enforced for each in self.spends),
            *self.spent,
            self.budget,
            tuple(each for each in self.spends if not each.enforced),
            self.spends[0].event if len(self.spends) == 1 else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the odometer as plain JSON data."""
        enforced, declared = self.total(enforced=True), self.total(enforced=False)
        charges = [
            {**spend.to_json(), "enforced_so_far": float(one), "declared_so_far": float(other)}
            for spend, (one, other) in zip(self.spends, self.cumulative(), strict=True)
        ]
        return {
            "account": self.account,
            "budget": {"epsilon": float(self.budget.epsilon), "delta": float(self.budget.delta)},
            "filter": self.filter.name,
            "measure": self.filter.measure,
            "capacity": float(self.policy.capacity.cost),
            "enforced": {
                "cost": float(enforced.cost),
                "epsilon": float(self.spent[0]),
                "delta": float(self.spent[1]),
            },
            "declared": {"cost": float(declared.cost), "delta": float(declared.delta)},
            "left": {"epsilon": float(self.left[0]), "delta": float(self.left[1])},
            "charges": charges,
            "by_release": [each.to_json() for each in self.by_release()],
            "by_label": [each.to_json() for each in self.by_label()],
            "by_mechanism": [each.to_json() for each in self.by_mechanism()],
            "inspections": self.inspections,
            "attempts": dict(zip(("made", "most"), self.attempts, strict=True)),
            "faults": list(self.faults),
        }

    def text(self) -> str:
        """Return the odometer as plain text."""
        budget, left = self.budget, self.left
        declared = [each for each in self.spends if not each.enforced]
        lines = [f"FAULT: {fault}; no figure below can be relied on." for fault in self.faults]
        lines += [
            f"Account {self.account!r}: epsilon {show(budget.epsilon)} at delta "
            f"{show(budget.delta)}, filter {self.filter.name}.",
            f"Enforced  epsilon {show(self.spent[0])}, delta {show(self.spent[1])}, in "
            f"{len(self.spends) - len(declared)} charge(s).",
        ]
        if declared:
            epsilon = sum((each.epsilon for each in declared), Fraction(0))
            delta = sum((each.delta for each in declared), Fraction(0))
            lines.append(
                f"Declared  epsilon {show(epsilon)}, delta {show(delta)}, in {len(declared)} "
                "spend(s) made elsewhere: counted, not enforced."
            )
        lines.append(
            f"Left      epsilon {show(left[0], up=False)} for one further plan, delta "
            f"{show(left[1], up=False)}."
        )
        if self.filter.name != "additive":
            used = sum((each.cost.cost for each in self.spends), Fraction(0))
            whole = show(self.policy.capacity.cost, up=False)
            lines.append(
                f"Charges add up in {self.filter.measure}: {show(used)} of {whole}. Epsilons of "
                "single charges do not add up."
            )
        if self.inspections:
            lines.append(
                f"Inspections by the custodian, which no epsilon covers: {self.inspections}."
            )
            made, most = self.attempts
            lines.append(f"Attempts at a release, in view of exact results: {made} of {most}.")
        lines += _section("By release", self.by_release())
        lines += _section("By label", self.by_label())
        lines += _section("By mechanism (a plan's epsilon apportioned)", self.by_mechanism())
        return "\n".join([*lines, *self._history()])

    def _history(self) -> list[str]:
        if not self.spends:
            return []
        rows = [("time", "label", "", "epsilon", "delta", "so far")]
        rows += [
            (
                each.time,
                each.label,
                "enforced" if each.enforced else "declared",
                show(each.epsilon),
                show(each.delta),
                show(one + other),
            )
            for each, (one, other) in zip(self.spends, self.cumulative(), strict=True)
        ]
        title = "Charge by charge" + (
            "" if self.filter.name == "additive" else f" ({self.filter.measure})"
        )
        return ["", title, *(f"  {line}" for line in table(rows, left=3))]


def odometer(extract: Mapping[str, Any]) -> Odometer:
    """Return what an account has spent, from its extract.

    Args:
        extract: From :meth:`Account.extract`. Its chain is checked, its prices are not:
            :func:`~dpsynth_accounting.verify_extract` does that too.

    Raises:
        InvalidRequest: The extract opens no account.
    """
    account, entries = str(extract.get("account")), list(extract.get("entries", ()))
    state = replay(entries, account)
    if state.policy is None:
        raise InvalidRequest(
            f"The odometer of account {account!r} was asked for.",
            "Its chain opens no account with a budget.",
            "Give the extract of an account that dpsynth opened.",
        )
    faults = list(state.faults)
    spends: list[Spend] = []
    releases: list[tuple[str, str, int]] = []
    for entry in entries:
        try:
            payload = entry["payload"]
            match payload["kind"]:
                case "reserve" if payload["reservation"] in state.charges:
                    spends.append(read_spend(payload, enforced=True))
                case "declare":
                    spends.append(read_spend(payload, enforced=False))
                case "release":
                    manifest = str(payload.get("manifest", ""))[:12]
                    releases.append((str(payload["time"]), manifest, len(spends)))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            faults.append("an entry cannot be read")
    return _summed(
        account, state.policy, state, tuple(spends), tuple(releases), tuple(dict.fromkeys(faults))
    )


def _summed(
    account: str,
    policy: Policy,
    state: Replay,
    spends: tuple[Spend, ...],
    releases: tuple[tuple[str, str, int], ...],
    faults: tuple[str, ...],
) -> Odometer:
    rule, budget = policy.filter, policy.budget
    enforced = sum((each.cost for each in spends if each.enforced), NOTHING)
    left = policy.capacity - sum((each.cost for each in spends), NOTHING)
    return Odometer(
        account,
        policy,
        spends,
        releases,
        _claim(rule, left, budget),
        _rounded_up(_claim(rule, enforced, budget), enforced, rule),
        state.inspections,
        (state.attempts.made, state.attempts.most),
        faults,
    )


def _claim(rule: Filter, cost: Charge, budget: Budget) -> tuple[Fraction, Fraction]:
    """Return the (epsilon, delta) that a charge comes to, rounded down; what is below 0 is 0."""
    if rule.name == "additive":
        return max(cost.cost, Fraction(0)), max(cost.delta, Fraction(0))
    return rule.epsilon(cost, budget.delta), budget.delta


def _rounded_up(
    claim: tuple[Fraction, Fraction], cost: Charge, rule: Filter
) -> tuple[Fraction, Fraction]:
    """Return a claim rounded up: a filter's own rounding down is by less than this."""
    if rule.name == "additive" or not cost.cost:
        return claim
    return claim[0] * Fraction(10**8 + 1, 10**8) + Fraction(1, 1 << 39), claim[1]


def _part(name: str, spends: Iterable[Spend], time: str | None) -> Part:
    spends = list(spends)
    epsilon = sum((each.epsilon for each in spends), Fraction(0))
    delta = sum((each.delta for each in spends), Fraction(0))
    return Part(name, len(spends), float(epsilon), float(delta), None, time)


def _section(title: str, parts: list[Part]) -> list[str]:
    if not parts:
        return []
    rows = [("", "charges", "answers", "epsilon", "delta")]
    rows += [
        (
            each.name if each.time is None else f"{each.name}, {each.time}",
            str(each.charges),
            "" if each.answers is None else f"{each.answers:,}",
            show(exact(each.epsilon)),
            "" if each.delta is None else show(exact(each.delta)),
        )
        for each in parts
    ]
    keep = [j for j in range(5) if j == 0 or any(row[j] for row in rows[1:])]
    return ["", title, *(f"  {line}" for line in table([[row[j] for j in keep] for row in rows]))]
