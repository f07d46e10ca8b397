"""What was promised, in numbers and in words a lawyer can quote.

Terms follow NIST SP 800-226 (2025): unit of privacy, adjacency, trust model, hazards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from dpsynth_accounting.budget import ADJACENCY, show
from dpsynth_accounting.curves import curve
from dpsynth_accounting.events import Event

NOT_COVERED = (
    "People whose data appear in other releases under other accounts: epsilons add up.",
    "Conclusions about a group that hold whether or not any one person took part.",
    "Timing, memory use and other side channels of the machine that ran the release.",
    "Malice inside the process that held the data: the trust model is a central, honest custodian.",
    "Facts declared public in the schema: if they were read from the data, the promise is void.",
)
"""What no epsilon covers; repeated with every statement."""


@dataclass(frozen=True)
class Statement:
    """A promise about one plan.

    Attributes:
        epsilon: The charged epsilon.
        delta: The charged delta.
        unit: The unit of privacy, as the ledger holds it.
        rates: False-positive rate to the greatest true-positive rate of any attacker.
    """

    epsilon: Fraction
    delta: Fraction
    unit: Mapping[str, Any]
    rates: Mapping[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return the statement as plain JSON data."""
        return {
            "epsilon": float(self.epsilon),
            "delta": float(self.delta),
            "adjacency": ADJACENCY,
            "unit": dict(self.unit),
            "attacker": [
                {"false_positive_rate": fpr, "true_positive_rate_at_most": tpr}
                for fpr, tpr in self.rates.items()
            ],
            "trust_model": "central",
            "sentences": self.sentences(),
            "not_covered": list(NOT_COVERED),
        }

    def sentences(self) -> list[str]:
        """Return the promise in plain language."""
        if self.unit.get("unit") == "person":
            rows = self.unit["rows"]
            whom = f"one person, with at most {rows} of their rows,"
        else:
            whom = "one row (not a person: someone with several rows is less protected)"
        lines = [
            f"The release is ({show(self.epsilon)}, {show(self.delta)})-differentially private: "
            f"whether {whom} took part changes the odds of any outcome by a factor of at most "
            f"e^{show(self.epsilon)}, except with probability {show(self.delta)}.",
        ]
        lines.extend(
            f"An attacker who knows everything else and accuses {fpr:.1%} of those who did not "
            f"take part can recognise at most {math.ceil(tpr * 1e4) / 1e4:.2%} of those who did."
            for fpr, tpr in self.rates.items()
        )
        return lines


def statement(
    event: Event, epsilon: Fraction, delta: Fraction, unit: Mapping[str, Any]
) -> Statement:
    """Return the statement about a charged plan, its attacker's rates from the plan's own curve."""
    price = curve(event)
    rates = {fpr: price.true_positive_rate(fpr) for fpr in (0.001, 0.01)}
    return Statement(epsilon, delta, unit, rates)
