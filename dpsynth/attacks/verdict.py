"""The public verdict: what paid noisy counts say about membership, and what they cannot say.

Each audited unit was put in or held out by a fair coin. If the release says nothing about the
coins, then of ``T`` units whose score passes a threshold, the number ``a`` that were in is
Binomial(T, 1/2), whatever the rows, the score and the threshold. With ``h`` held out,
``a - h`` has mean 0 and variance ``T``; noise of standard deviation ``sigma`` on each count adds
``2 sigma**2``. So

    z = (a - h - 1) / sqrt(max(a + h + sqrt(2) sigma, 0) + 2 sigma**2)

is compared with a standard normal. Two terms keep it honest. ``T`` is known only as a noisy
``a + h``: one standard deviation of that noise is added, as too small a variance would raise
alarms and too large a one only costs a little power. The 1 is the correction for continuity:
``a - h`` moves in steps of 2, and without it six of six would pass as p = 0.007 when it is 1/64.

With a holdout of the custodian's own no coin was tossed and the sides differ in size. If the
release says nothing about who is in, and the holdout was drawn like the table, a unit passes the
threshold on either side with one probability p. With ``x`` and ``y`` units on the sides,
``y a - x h`` then has mean 0 and variance at most ``x y (x + y) p``, also if ``x`` and ``y`` are
noisy counts. Divided by ``(x + y) / 2`` it is ``a - h`` on sides of equal size, and is tested
alike, with all the noise in the variance:

    2 (y a - x h) / (x + y)    of variance
    4 (x y max(a + h + sqrt(2) sigma, 0) + sigma**2 (x**2 + y**2 + a**2 + h**2) + 2 sigma**4)
    / (x + y)**2

If the holdout is the larger side, few hits are skewed towards alarms: a gamma law of the same three
moments takes the normal one's place (Pearson's type III).

All of this is post-processing of counts that were paid for, so it may be published.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dpsynth.attacks.statistics import holm, smallest_excess
from dpsynth_accounting import InvalidRequest

Outcome = Literal["not detected", "review", "fail", "not tested"]

FAIL_BELOW = 0.001
"""A release fails below this Holm-corrected p-value, if the excess is above the floor too."""

REVIEW_BELOW = 0.05
"""A person should look at it below this Holm-corrected p-value."""

FLOOR = 0.005
"""Least excess, as a share of units, that can fail a release."""

_POWER = 0.8

_SYMMETRIC = 1e-3  # a skewness below it changes no digit that is shown


@dataclass(frozen=True)
class AttackCounts:
    """What one attack found: noisy numbers of audited units on either side of the coin.

    Attributes:
        name: The attack.
        audit_in_over: Units that were in and reach the threshold.
        held_out_over: Units that were held out and reach it.
        audit_in_total: All units that were in and audited.
        held_out_total: All units that were held out.
        sigma: Standard deviation of the noise on each of the four, in units; 0 for exact counts.
        own_holdout: Whether the units held out are a table of the custodian's own, not by coins.
    """

    name: str
    audit_in_over: float
    held_out_over: float
    audit_in_total: float
    held_out_total: float
    sigma: float
    own_holdout: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that no audit gives."""
        counts = (
            self.audit_in_over,
            self.held_out_over,
            self.audit_in_total,
            self.held_out_total,
            self.sigma,
        )
        if not all(math.isfinite(each) for each in counts) or self.sigma < 0:
            raise InvalidRequest(
                f"A verdict on the attack {self.name!r} was asked for.",
                "Counts and the noise on them must be finite, and sigma not negative.",
                "Pass the noisy counts as the audit gave them; they may be negative.",
            )

    @property
    def sides(self) -> tuple[float, float]:
        """Units that were in and held out: one is the least that a rate can be of."""
        return max(self.audit_in_total, 1.0), max(self.held_out_total, 1.0)

    @property
    def units(self) -> float:
        """Units on a side: what an excess rate is multiplied with to give an excess of hits."""
        x, y = self.sides
        return 2 * x * y / (x + y) if self.own_holdout else (x + y) / 2

    @property
    def difference(self) -> float:
        """Hits of units that were in, less hits of as many units held out."""
        a, h, (x, y) = self.audit_in_over, self.held_out_over, self.sides
        return 2 * (y * a - x * h) / (x + y) if self.own_holdout else a - h

    @property
    def variance(self) -> float:
        """Variance of the difference if nothing leaks, erring upwards."""
        a, h, (x, y), noise = self.audit_in_over, self.held_out_over, self.sides, self.sigma**2
        if not self.own_holdout:
            return self._hits + 2 * noise
        of_noise = noise * (x * x + y * y + a * a + h * h) + 2 * noise * noise
        return 4 * (x * y * self._hits + of_noise) / (x + y) ** 2

    @property
    def _hits(self) -> float:
        return max(self.audit_in_over + self.held_out_over + math.sqrt(2) * self.sigma, 0.0)

    @property
    def z(self) -> float:
        """The test statistic; 0 if there is nothing to compare."""
        return (self.difference - 1) / math.sqrt(self.variance) if self.variance > 0 else 0.0

    @property
    def p_value(self) -> float:
        """One-sided: small if units that were in pass the threshold more often."""
        if self.variance <= 0:
            return 1.0
        x, y = self.sides
        third = 8 * x * y * self._hits * (y - x) / (x + y) ** 3
        skewness = third / self.variance**1.5 if self.own_holdout else 0.0
        if skewness < _SYMMETRIC:
            return math.erfc(self.z / math.sqrt(2)) / 2
        from scipy import special

        shape = 4 / skewness**2
        return float(special.gammaincc(shape, max(shape + self.z * math.sqrt(shape), 0.0)))


@dataclass(frozen=True)
class AttackFinding:
    """What is concluded of one attack.

    Attributes:
        name: The attack.
        outcome: Of this attack by itself, at the level corrected for all.
        rate_in: Share of audited units that were in and reach the threshold, from noisy counts.
        rate_out: The same share of units held out: what the attack finds without any leak.
        excess: Their difference.
        excess_low: Lower end of its 95 % interval, noise included.
        excess_high: Upper end.
        p_value: One-sided.
        adjusted_p_value: After Holm's correction for the number of attacks.
        smallest_detectable: The excess that would have been sent to review with probability 0.8.
        sentence: The finding in plain English.
    """

    name: str
    outcome: Outcome
    rate_in: float
    rate_out: float
    excess: float
    excess_low: float
    excess_high: float
    p_value: float
    adjusted_p_value: float
    smallest_detectable: float
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """The public verdict on a release.

    Attributes:
        outcome: ``fail`` if any attack fails, else ``review`` if any needs it, else
            ``not detected``; ``not tested`` without counts.
        findings: One an attack, in the order given.
        sentence: The verdict in plain English.
    """

    outcome: Outcome
    findings: tuple[AttackFinding, ...]
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON data."""
        return {
            "outcome": self.outcome,
            "sentence": self.sentence,
            "findings": [finding.to_json() for finding in self.findings],
        }


def public_verdict(counts: Sequence[AttackCounts], *, floor: float = FLOOR) -> Verdict:
    """Judge a release by paid noisy counts alone.

    It fails if some attack's Holm-corrected one-sided p-value is below 0.001 and its excess rate
    above ``floor``; below 0.05 it is for review. A verdict that finds nothing says how large an
    excess it would have found: it can refute a release, never vouch for one.

    Args:
        counts: One entry an attack; empty if no units were held out.
        floor: Least excess, as a share of units, that can fail a release.

    Raises:
        InvalidRequest: The floor is not within 0..1.

    Charges: nothing; it is post-processing.
    """
    if not 0 <= floor <= 1:
        raise InvalidRequest(
            f"A verdict with a floor of {floor} was asked for.",
            "The floor is a share of units, within 0..1.",
            f"Use {FLOOR}.",
        )
    if not counts:
        return Verdict("not tested", (), _NOT_TESTED)
    adjusted = holm([each.p_value for each in counts])
    findings = tuple(
        _finding(each, p, len(counts), floor) for each, p in zip(counts, adjusted, strict=True)
    )
    return _overall(findings, own_holdout=any(each.own_holdout for each in counts))


_NOT_TESTED = (
    "Not tested: no unit was held out, so no attack could be compared with units that were "
    "not in the data. Nothing is known of what this release gives away beyond its statement."
)


def _finding(counts: AttackCounts, adjusted: float, attacks: int, floor: float) -> AttackFinding:
    units_in, units_out = counts.sides
    rate_in = _rate(counts.audit_in_over, units_in)
    rate_out = _rate(counts.held_out_over, units_out)
    excess = rate_in - rate_out
    outcome: Outcome = "not detected"
    if adjusted < REVIEW_BELOW:
        outcome = "fail" if adjusted < FAIL_BELOW and excess > floor else "review"
    half = 1.96 * math.sqrt(counts.variance) / counts.units
    low, high = max(excess - half, -1.0), min(excess + half, 1.0)
    level = REVIEW_BELOW / attacks
    least = smallest_excess(counts.variance, counts.units, alpha=level, power=_POWER)
    return AttackFinding(
        counts.name,
        outcome,
        rate_in,
        rate_out,
        excess,
        low,
        high,
        counts.p_value,
        adjusted,
        least,
        f"{counts.name.capitalize()}: {_percent(rate_in)} of the audited units that were in the "
        f"data reach the attack's threshold, and {_percent(rate_out)} of those that were not: "
        f"an excess of {100 * excess:.2f} points (95 % interval {100 * low:.2f} to "
        f"{100 * high:.2f}). {_conclusion(outcome, adjusted, least, excess, floor)}",
    )


def _conclusion(
    outcome: Outcome, adjusted: float, least: float, excess: float, floor: float
) -> str:
    chance = f"corrected p {'below 0.0001' if adjusted < 1e-4 else f'= {adjusted:.4f}'}"
    if outcome == "fail":
        return f"Chance does not explain it ({chance}), and it is above the floor: fail."
    if outcome == "review":
        why = " though below the floor for a failure" if excess <= floor else ""
        return f"Chance is an unlikely explanation ({chance}){why}: a person should review it."
    if least >= 1:
        return f"No excess was detected ({chance}); so few units could have shown none."
    return (
        f"No excess was detected ({chance}); one of {100 * least:.2f} points would have been "
        "found four times in five."
    )


_OWN = (
    " The holdout is the custodian's own, and no coin decided who is in it: the comparison is "
    "valid if it was drawn like the table, and no lower bound on epsilon follows from one run."
)


def _overall(findings: tuple[AttackFinding, ...], *, own_holdout: bool) -> Verdict:
    others = "units of the holdout" if own_holdout else "units held out"
    outcome, sentence = _judged(findings, others)
    return Verdict(outcome, findings, sentence + _OWN if own_holdout else sentence)


def _judged(findings: tuple[AttackFinding, ...], others: str) -> tuple[Outcome, str]:
    outcomes = {finding.outcome for finding in findings}
    named = ", ".join(f.name for f in findings if f.outcome in ("fail", "review"))
    if "fail" in outcomes:
        return "fail", (
            "Fail: units that were in the data stand out from units that were held out, by "
            f"{named}. Chance does not explain it."
        )
    if "review" in outcomes:
        return "review", (
            f"Review: {named} found an excess that chance rarely gives or that is small. A person "
            "should look at it before anything is published."
        )
    least = max(finding.smallest_detectable for finding in findings)
    found = (
        "with so few units hardly any excess could have been found"
        if least >= 1
        else f"each would have found an excess of {100 * least:.2f} points of the units "
        "four times in five"
    )
    return "not detected", (
        f"Not detected: {len(findings)} attack{'s' * (len(findings) > 1)} could not tell units "
        f"that were in the data from {others}; {found}. An attack can refute a release; "
        "it cannot vouch for one."
    )


def _rate(hits: float, units: float) -> float:
    return min(max(hits / units, 0.0), 1.0)


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"
