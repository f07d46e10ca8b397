"""What was promised, in numbers and in words a lawyer can quote.

Terms follow NIST SP 800-226 (2025): unit of privacy, neighbouring tables, trust model, hazards.
Proofs of every number: ``docs/explanation/statement.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from dpsynth_accounting import _page
from dpsynth_accounting._curve import Curve
from dpsynth_accounting.budget import ADJACENCY, show
from dpsynth_accounting.curves import curve
from dpsynth_accounting.events import Event
from dpsynth_accounting.odometer import RATES, SoFar

if TYPE_CHECKING:
    from dpsynth_accounting.attempts import Attempt
    from dpsynth_accounting.policy import Policy

NOT_COVERED = (
    "People whose data appear in other releases under other accounts: epsilons add up.",
    "Conclusions about a group that hold whether or not any one person took part.",
    "Timing, memory use and other side channels of the machine that ran the release.",
    "Malice inside the process that held the data: the trust model is a central, honest custodian.",
    "Facts declared public in the schema: if they were read from the data, the promise is void.",
)
"""The hazards that no epsilon covers; repeated with every statement."""

NOT_PRIVATE = (
    "NOT PRIVATE: the noise follows from a seed that is known, so nothing below is promised. For "
    "tests and teaching only: do not publish."
)
"""The first sentence about an account whose vaults draw their noise from a seed."""

TERMS = "NIST SP 800-226 (2025), Guidelines for Evaluating Differential Privacy Guarantees"
NEIGHBOURS = "unbounded: two tables are neighbours if one has one unit more than the other"
TRUST_MODEL = "central: an honest custodian holds the rows and runs the mechanism"

PRIORS = (Fraction(1, 100), Fraction(1, 10), Fraction(1, 2))
"""The beliefs before the release for which the belief after it is stated."""

RARELY = Fraction(1, 1000)
"""Share of releases that may move a belief further than the first of the stated limits."""

_STEPS = 90  # points of a plan's own curve from which its limits are read


@dataclass(frozen=True)
class PublicFact:
    """A fact that cost nothing, since somebody vouches that it is public.

    Attributes:
        name: What the fact is about, for instance a column.
        fact: What was declared about it, in words.
        source: Where it was taken from.
        attested_by: Who vouches for it.
    """

    name: str
    fact: str
    source: str | None = None
    attested_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fact as plain JSON data."""
        return {
            "name": self.name,
            "fact": self.fact,
            "source": self.source,
            "attested_by": self.attested_by,
        }


@dataclass(frozen=True)
class Belief:
    """How far a release can move someone who already believes that a unit took part.

    Attributes:
        prior: The probability they gave it before they saw the release.
        posteriors: Probability of an unlucky release to the greatest probability that they can
            give it after any other release.
        accused: False-positive rate to the greatest share of the accused who took part, if at
            least that share of those who did not is accused.
    """

    prior: Fraction
    posteriors: Mapping[Fraction, float]
    accused: Mapping[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return the belief as plain JSON data."""
        return {
            "prior": float(self.prior),
            "posterior": [
                {"at_most": most, "except_with_probability": float(rarely)}
                for rarely, most in self.posteriors.items()
            ],
            "accused_who_took_part": [
                {"false_positive_rate": fpr, "share_at_most": share}
                for fpr, share in self.accused.items()
            ],
        }


@dataclass(frozen=True)
class Statement:
    """A promise about one plan, and what it adds to.

    Attributes:
        epsilon: The charged epsilon.
        delta: The charged delta.
        unit: The unit of privacy, as the ledger holds it.
        rates: False-positive rate to the greatest true-positive rate of any attacker.
        advantage: Greatest difference of the two rates, over all attackers.
        beliefs: What attackers with prior knowledge can come to believe.
        public: What was declared public.
        spent: What all releases of the account add up to, this one included.
        policy: Who prepares and approves releases, and until when.
        attempt: What exact results had been read when the release was chosen.
    """

    epsilon: Fraction
    delta: Fraction
    unit: Mapping[str, Any]
    rates: Mapping[float, float]
    advantage: float
    beliefs: tuple[Belief, ...]
    public: tuple[PublicFact, ...] = ()
    spent: SoFar | None = None
    policy: Policy | None = None
    attempt: Attempt | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the statement as plain JSON data."""
        return {
            "terms": TERMS,
            "epsilon": float(self.epsilon),
            "delta": float(self.delta),
            "adjacency": ADJACENCY,
            "neighbours": NEIGHBOURS,
            "unit": dict(self.unit),
            "attacker": [
                {"false_positive_rate": fpr, "true_positive_rate_at_most": tpr}
                for fpr, tpr in self.rates.items()
            ],
            "membership_advantage_at_most": self.advantage,
            "prior_knowledge": [each.to_json() for each in self.beliefs],
            "trust_model": "central",
            "declared_public": [each.to_json() for each in self.public],
            "so_far": self.spent.to_json() if self.spent else None,
            "policy": self.policy.to_json() if self.policy else None,
            "attempt": self.attempt.to_json() if self.attempt else None,
            "oversight": _page.policy_in_words(self.policy),
            "sentences": self.sentences(),
            "not_covered": list(NOT_COVERED),
        }

    def sentences(self) -> list[str]:
        """Return the promise in plain language, a sentence a fact."""
        if self.unit.get("unit") == "person":
            rows = self.unit["rows"]
            whom = f"one person, with at most {rows} of their rows,"
        else:
            whom = "one row (not a person: someone with several rows is less protected)"
        lines = [NOT_PRIVATE] if self.unit.get("not_private") else []
        lines += [
            f"The release is ({show(self.epsilon)}, {show(self.delta)})-differentially private: "
            f"whether {whom} took part changes the odds of any outcome by a factor of at most "
            f"e^{show(self.epsilon)}, except with probability {show(self.delta)}.",
        ]
        lines.extend(
            f"An attacker who knows everything else and accuses {fpr:.1%} of those who did not "
            f"take part can recognise at most {_page.share(tpr)} of those who did."
            for fpr, tpr in self.rates.items()
        )
        lines.extend(self._of_belief())
        if self.spent is not None:
            lines.extend(self.spent.sentences())
        if self.attempt is not None:
            lines.extend(self.attempt.sentences())
        return lines

    def _of_belief(self) -> list[str]:
        """Return one sentence about prior knowledge: the middle of the stated beliefs."""
        if not self.beliefs:
            return []
        belief = self.beliefs[len(self.beliefs) // 2]
        rarely, most = next(iter(belief.posteriors.items()))
        return [
            f"A belief of {float(belief.prior):.0%} that a given unit took part can grow to "
            f"at most {_page.share(most)}, except with probability {show(rarely)}."
        ]

    def text(self) -> str:
        """Return the statement as one page of plain text."""
        return _page.text(self)


def statement(
    event: Event,
    epsilon: Fraction,
    delta: Fraction,
    unit: Mapping[str, Any],
    *,
    spent: SoFar | None = None,
    public: Several[PublicFact] = (),
    policy: Policy | None = None,
    attempt: Attempt | None = None,
) -> Statement:
    """Return the statement about a charged plan, its attacker's rates from the plan's own curve.

    Args:
        event: The plan, whose price at ``delta`` is at most ``epsilon``.
        epsilon: What was charged, with ``delta``.
        delta: What was charged, with ``epsilon``.
        unit: The unit of privacy, as the ledger holds it.
        spent: What the account's releases add up to, this one included.
        public: What was declared public, by whom and from what source.
        policy: The account's policy.
        attempt: What exact results had been read when the release was chosen.
    """
    price = curve(event)
    points = _frontier(price, epsilon, delta)
    rates = {fpr: price.true_positive_rate(fpr) for fpr in RATES}
    losses = {each: _loss(points, each) for each in _exceptions(delta)}
    return Statement(
        epsilon,
        delta,
        unit,
        rates,
        min(_advantage(points), price.advantage()),
        tuple(_belief(prior, losses, rates) for prior in PRIORS),
        tuple(public),
        spent,
        policy,
        attempt,
    )


def posterior(prior: Fraction, loss: float) -> float:
    """Return the greatest belief after evidence whose likelihood ratio is at most ``e^loss``.

    >>> round(posterior(Fraction(1, 2), 0.0), 6), round(posterior(Fraction(1, 10), 1.0), 6)
    (0.5, 0.231969)
    """
    if loss > 700:
        return 1.0
    odds = math.exp(loss) * float(prior / (1 - prior))
    return min(1.0, odds / (1 + odds) * (1 + 1e-12))


def _exceptions(delta: Fraction) -> tuple[Fraction, ...]:
    """Return the probabilities of an unlucky release: a common one, and one near delta.

    At 2 delta there is always a finite limit: epsilon + log 2.
    """
    near = min(2 * delta, Fraction(1))
    return (RARELY, near) if near < RARELY else (near,)


def _frontier(price: Curve, epsilon: Fraction, delta: Fraction) -> list[tuple[float, float]]:
    """Return (e, delta(e)) that the plan certainly satisfies: the claim, and its own curve.

    The points are spaced by their delta, since a tail bound is best a little before its quantile.
    """
    least = math.log(float(delta)) - 9.2
    grid = {Fraction(0)}
    for step in range(_STEPS + 1):
        e = price.epsilon(math.exp(least * step / _STEPS - 2.3 * (1 - step / _STEPS)))
        if math.isfinite(e):
            grid.add(Fraction(e))
    found = [(float(e), price.delta(e)) for e in sorted(grid)]
    return [(float(epsilon), float(delta)), *found]


def _loss(points: Several[tuple[float, float]], rarely: Fraction) -> float:
    """Return a privacy loss that is exceeded with probability at most ``rarely``.

    For every e, P(loss > t) <= delta(e) / (1 - e^(e - t)), so t = e - log(1 - delta(e) / rarely)
    is such a loss; the least over the points is taken, each of which is valid.
    """
    target = float(rarely) * (1 - 1e-12)
    return min((e - math.log1p(-d / target) for e, d in points if d < target), default=math.inf)


def _belief(
    prior: Fraction, losses: Mapping[Fraction, float], rates: Mapping[float, float]
) -> Belief:
    p = float(prior)
    accused = {
        fpr: min(1.0, p * tpr / (p * tpr + (1 - p) * fpr) * (1 + 1e-12))
        for fpr, tpr in rates.items()
    }
    return Belief(prior, {each: posterior(prior, loss) for each, loss in losses.items()}, accused)


def _advantage(points: Several[tuple[float, float]]) -> float:
    """Return the least bound on the total variation distance of neighbours.

    (e, d)-differential privacy allows (e^e - 1 + 2 d) / (e^e + 1) (Kairouz, Oh, Viswanath 2015).
    """
    allowed = (math.tanh(e / 2) + 2 * d / (1 + math.exp(min(e, 700.0))) for e, d in points)
    return min(1.0, min(allowed) * (1 + 1e-12))
