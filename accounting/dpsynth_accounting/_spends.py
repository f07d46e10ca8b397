"""One charge of an account, and what several come to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from dpsynth_accounting._event_json import event_from_json
from dpsynth_accounting._page import share
from dpsynth_accounting.budget import Budget, exact, show
from dpsynth_accounting.curves import curve
from dpsynth_accounting.events import (
    ApproxDP,
    Concentrated,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Exponential,
    Gaussian,
    GaussianBlock,
    Laplace,
    Parallel,
    Repeat,
    RepeatAndSelect,
    Sequence,
    SubsampledGaussian,
)
from dpsynth_accounting.extract import cost_of
from dpsynth_accounting.filters import Charge

RATES = (0.001, 0.01)
"""The false-positive rates at which attackers are stated."""

MECHANISMS: dict[type[Event], str] = {
    Gaussian: "Gaussian noise",
    DiscreteGaussian: "discrete Gaussian noise",
    Laplace: "Laplace noise",
    DiscreteLaplace: "discrete Laplace noise",
    SubsampledGaussian: "DP-SGD steps",
    GaussianBlock: "divided Gaussian noise",
    Exponential: "selections",
    ApproxDP: "stated (epsilon, delta)",
    Concentrated: "stated zCDP",
    RepeatAndSelect: "best of secret runs",
}
"""Names of what answers were protected by."""


@dataclass(frozen=True)
class Spend:
    """One charge that stands.

    Attributes:
        seq: Its place in the account's chain.
        time: When it was written, as the chain says.
        label: What it was for.
        epsilon: What it claims, with ``delta``.
        delta: What it claims, with ``epsilon``.
        cost: What it took of the account, in the measure of the account's filter.
        enforced: Whether the ledger granted it before rows were read; else it was declared.
        source: Where a declared spend was made.
        by: Who prepared or declared it.
        event: What was done.
        answers: Mechanism to the number of its answers.
        shares: Mechanism to its share of the epsilon, in proportion to what its answers would
            cost by themselves.
    """

    seq: int
    time: str
    label: str
    epsilon: Fraction
    delta: Fraction
    cost: Charge
    enforced: bool
    source: str | None
    by: str | None
    event: Event
    answers: Mapping[str, int]
    shares: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the charge as plain JSON data."""
        return {
            "seq": self.seq,
            "time": self.time,
            "label": self.label,
            "epsilon": float(self.epsilon),
            "delta": float(self.delta),
            "cost": float(self.cost.cost),
            "enforced": self.enforced,
            "source": self.source,
            "by": self.by,
            "answers": dict(self.answers),
        }


@dataclass(frozen=True)
class Part:
    """What belongs together: a release, a mechanism or a label.

    Attributes:
        name: What it is.
        charges: How many charges.
        epsilon: Their epsilons added up; apportioned, by mechanism.
        delta: Their deltas added up; None by mechanism, as nothing apportions them.
        answers: How many answers; None unless by mechanism.
        time: When the release was recorded; None unless by release.
    """

    name: str
    charges: int
    epsilon: float
    delta: float | None = None
    answers: int | None = None
    time: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the part as plain JSON data, without what does not apply."""
        found = {
            "name": self.name,
            "charges": self.charges,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "answers": self.answers,
            "time": self.time,
        }
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True)
class SoFar:
    """What the releases of an account add up to.

    Attributes:
        account: The account.
        releases: How many releases.
        charges: How many enforced charges, whether released or not.
        epsilon: What these add up to, at ``delta``.
        delta: What these add up to, at ``epsilon``.
        budget: The account's budget.
        declared: What was spent elsewhere by declaration.
        alone: What was done, if that was a single plan; several are known by their sum only.
    """

    account: str
    releases: int
    charges: int
    epsilon: Fraction
    delta: Fraction
    budget: Budget
    declared: tuple[Spend, ...] = ()
    alone: Event | None = None

    @property
    def declared_epsilon(self) -> Fraction:
        """Return the sum of the declared epsilons."""
        return sum((each.epsilon for each in self.declared), Fraction(0))

    @property
    def declared_delta(self) -> Fraction:
        """Return the sum of the declared deltas."""
        return sum((each.delta for each in self.declared), Fraction(0))

    def rates(self) -> dict[float, float]:
        """Return an attacker's greatest true-positive rates against everything, declared or not."""
        epsilon, delta = self.epsilon + self.declared_epsilon, self.delta + self.declared_delta
        if delta >= 1:
            return dict.fromkeys(RATES, 1.0)
        price = curve(self.alone or ApproxDP(epsilon, delta))
        return {fpr: price.true_positive_rate(fpr) for fpr in RATES}

    def to_json(self) -> dict[str, Any]:
        """Return the sums as plain JSON data."""
        return {
            "account": self.account,
            "releases": self.releases,
            "charges": self.charges,
            "enforced": {"epsilon": float(self.epsilon), "delta": float(self.delta)},
            "budget": {"epsilon": float(self.budget.epsilon), "delta": float(self.budget.delta)},
            "declared": [
                {
                    "epsilon": float(each.epsilon),
                    "delta": float(each.delta),
                    "source": each.source,
                    "by": each.by,
                    "enforced": False,
                }
                for each in self.declared
            ],
            "attacker": [
                {"false_positive_rate": fpr, "true_positive_rate_at_most": tpr}
                for fpr, tpr in self.rates().items()
            ],
        }

    def sentences(self) -> list[str]:
        """Return the sums in plain language."""
        many = "1 release" if self.releases == 1 else f"{self.releases} releases"
        lines = [
            f"So far account {self.account!r} has paid for {many}: together ({show(self.epsilon)}, "
            f"{show(self.delta)}), of ({show(self.budget.epsilon)}, {show(self.budget.delta)}) "
            "that it ever grants."
        ]
        if self.declared:
            lines.append(
                f"A further ({show(self.declared_epsilon)}, {show(self.declared_delta)}) was spent "
                "elsewhere: declared, not enforced, and to be added."
            )
        return lines

    def lines(self) -> list[tuple[str, str]]:
        """Return the sums as (name, value) for a page of text."""
        found = [
            ("Account", self.account),
            ("Releases", f"{self.releases}, this one included; {self.charges} charges"),
            (
                "Enforced",
                f"epsilon {show(self.epsilon)} of {show(self.budget.epsilon)}, "
                f"delta {show(self.delta)} of {show(self.budget.delta)}",
            ),
        ]
        found += [
            (
                "Declared",
                f"epsilon {show(each.epsilon)}, delta {show(each.delta)} by {each.by or 'nobody'} "
                f"from {each.source or 'no source given'}; not enforced",
            )
            for each in self.declared
        ]
        reached = (
            f"{share(tpr)} at {fpr:.1%} accused wrongly" for fpr, tpr in self.rates().items()
        )
        found.append(
            ("Best attacker", f"against all of it recognises at most {', '.join(reached)}")
        )
        return found


def read_spend(payload: Mapping[str, Any], *, enforced: bool) -> Spend:
    """Return one charge as its entry has it."""
    plan = payload["plan"]
    epsilon, delta = exact(plan["charge"]["epsilon"]), exact(plan["charge"]["delta"])
    event = event_from_json(plan["event"])
    answers, shares = _mechanisms(event, delta)
    return Spend(
        int(payload["seq"]),
        str(payload["time"]),
        str(plan.get("label") or payload.get("source") or "declared"),
        epsilon,
        delta,
        cost_of(payload),
        enforced,
        payload.get("source"),
        payload.get("by"),
        event,
        answers,
        shares,
    )


def _mechanisms(event: Event, delta: Fraction) -> tuple[dict[str, int], dict[str, float]]:
    """Return how many answers each mechanism gave, and its share of what the plan cost."""
    leaves: dict[str, list[Event]] = {}
    answers: dict[str, int] = {}

    def walk(node: Event, times: int) -> None:
        match node:
            case Repeat(inner, count):
                walk(inner, times * count)
            case Sequence(events) | Parallel(events):
                for each in events:
                    walk(each, times)
            case ApproxDP(epsilon, _) if epsilon == 0:
                pass  # the distance of a sampler, say: no answer of its own
            case _:
                name = MECHANISMS[type(node)]
                steps = node.steps if isinstance(node, SubsampledGaussian) else 1
                leaves.setdefault(name, []).append(Repeat(node, times))
                answers[name] = answers.get(name, 0) + times * steps

    walk(event, 1)
    alone = {
        name: curve(Sequence(tuple(nodes))).epsilon(delta) if len(leaves) > 1 else 1.0
        for name, nodes in leaves.items()
    }
    # A part with a delta of its own may have no price at the plan's: then nothing apportions.
    if not all(math.isfinite(price) for price in alone.values()) or sum(alone.values()) == 0:
        alone = dict.fromkeys(alone, 1.0)
    whole = sum(alone.values())
    return answers, {name: price / whole for name, price in alone.items()}
