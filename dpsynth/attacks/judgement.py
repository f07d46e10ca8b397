"""What the exact results say, all tests together: for the custodian, never published.

Every test is of the same hypothesis, that the release says nothing about who is in. Holm's method
keeps the chance of any false rejection within 1 %, whatever the dependence. A rejection alone does
not fail a table: with enough units a difference of no account is found too. So each test has a
floor, and a table fails by a test that is rejected *and* above its floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dpsynth.attacks.coins import OneRun
from dpsynth.attacks.comparison import ALPHA, Comparison, ScoreComparison
from dpsynth.attacks.statistics import holm
from dpsynth.attacks.verdict import Outcome

REVIEW = 0.05
"""Below this corrected p-value a person should look at it."""

LEAST_EXCESS = 0.005
"""Least excess of successes, as a share of units, that can fail a table."""

LEAST_RIGHT = 0.6
"""Least share of right guesses above a threshold that can fail a table; 0.5 without a leak."""

LEAST_AUC = 0.54
"""Least area under the ROC curve that can fail a table by the ranks of all units."""


@dataclass(frozen=True)
class ExactFinding:
    """What one test says.

    Attributes:
        test: Its name.
        outcome: Of this test by itself, at the level corrected for all.
        p_value: One-sided.
        adjusted_p_value: After Holm's correction for all tests.
        effect: Excess rate, share of right guesses, or area under the curve.
        kind: Which of the three.
        floor: What the effect must exceed to fail.
        smallest_detectable: See the test.
        sentence: The finding in plain English.
    """

    test: str
    outcome: Outcome
    p_value: float
    adjusted_p_value: float
    effect: float
    kind: str
    floor: float
    smallest_detectable: float
    sentence: str


@dataclass(frozen=True)
class ExactVerdict:
    """What all tests say together.

    Attributes:
        outcome: ``fail`` if a test fails or the claim is refuted, else ``review`` if a test needs
            it, else ``not detected``; ``not tested`` without a test.
        sentence: In plain English.
        findings: One a test, the smallest p-value first.
    """

    outcome: Outcome
    sentence: str
    findings: tuple[ExactFinding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON data."""
        return asdict(self)


def exact_verdict(
    tests: Mapping[str, Comparison | ScoreComparison], bound: OneRun | None = None
) -> ExactVerdict:
    """Judge by all exact tests and by the lower bound on epsilon.

    A test fails if its Holm-corrected p-value is below 0.01 and its effect above the floor: an
    excess of half a point of the units, six right guesses of ten, or an area of 0.54. A lower bound
    on epsilon, at 99.9 %, above the claim fails by itself.

    Args:
        tests: Every test that was made, by name.
        bound: The bound on epsilon, if there is one.

    Charges: nothing; it reads results only. They and it are outside the guarantee.
    """
    if not tests:
        return ExactVerdict("not tested", _NOT_TESTED, ())
    adjusted = holm([test.p_value for test in tests.values()])
    findings = sorted(
        (_finding(name, test, p) for (name, test), p in zip(tests.items(), adjusted, strict=True)),
        key=lambda finding: finding.p_value,
    )
    outcomes = {finding.outcome for finding in findings}
    refuted = bound is not None and bound.refuted
    outcome: Outcome = "not detected"
    if refuted or "fail" in outcomes:
        outcome = "fail"
    elif "review" in outcomes:
        outcome = "review"
    return ExactVerdict(outcome, _sentence(findings, bound, outcome), tuple(findings))


_NOT_TESTED = (
    "Not tested: there are no units on one side, or no synthetic rows. Nothing is known of what "
    "this table gives away."
)


def _finding(name: str, test: Comparison | ScoreComparison, adjusted: float) -> ExactFinding:
    if isinstance(test, Comparison):
        effect, floor, kind = test.excess.value, LEAST_EXCESS, "excess rate"
        shown = (
            f"succeeds on {_percent(test.rate_in.value)} of {test.units_in:,} units that were in "
            f"and on {_percent(test.rate_out.value)} of {test.units_out:,} held out; an excess of "
            f"{100 * effect:.2f} points (95 % interval {100 * test.excess.interval.low:.2f} to "
            f"{100 * test.excess.interval.high:.2f})"
        )
        least = f"{100 * test.smallest_detectable:.2f} points"
    else:
        effect = test.right
        by_rank = test.look == "ranks"
        floor, kind = (LEAST_AUC, "area") if by_rank else (LEAST_RIGHT, "right guesses")
        shown = (
            f"finds {_percent(test.tpr_1_percent.value)} of the units that were in at 1 % false "
            f"positives and {_percent(test.tpr_01_percent.value)} at 0.1 %; area under the curve "
            f"{test.auc.value:.3f} (95 % interval {test.auc.interval.low:.3f} to "
            f"{test.auc.interval.high:.3f})"
        )
        least = f"{_percent(test.smallest_detectable)} at 1 % false positives"
    outcome: Outcome = "not detected"
    if adjusted < REVIEW:
        outcome = "fail" if adjusted < ALPHA and effect > floor else "review"
    chance = f"corrected p {'below 0.0001' if adjusted < 1e-4 else f'= {adjusted:.4f}'}"
    if outcome == "not detected":
        nothing = test.smallest_detectable >= 1
        end = (
            f"not detected ({chance}); so few units could have shown nothing."
            if nothing
            else f"not detected ({chance}); {least} would have been found four times in five."
        )
    elif outcome == "review":
        why = "below the floor of a failure" if effect <= floor else "an unlikely chance"
        end = f"for review ({chance}): {why}."
    else:
        end = f"fail ({chance})."
    return ExactFinding(
        name,
        outcome,
        test.p_value,
        adjusted,
        effect,
        kind,
        floor,
        test.smallest_detectable,
        f"{name[:1].upper()}{name[1:]} {shown}: {end}",
    )


def _sentence(findings: list[ExactFinding], bound: OneRun | None, outcome: Outcome) -> str:
    failed = [finding.test for finding in findings if finding.outcome == "fail"]
    parts = []
    if outcome == "fail":
        if failed:
            parts.append(
                f"Fail: {len(failed)} of {len(findings)} tests tell units that were in from units "
                f"held out, beyond chance and beyond their floor, first of all {failed[0]}."
            )
        for point in bound.points if bound is not None else ():
            if point.refuted:
                parts.append(
                    f"Fail: with confidence 99.9 % epsilon is above {point.hard_bound:.2f} at "
                    f"delta {point.delta:g}, and {point.claim:.2f} is claimed."
                )
    elif outcome == "review":
        named = ", ".join(f.test for f in findings if f.outcome == "review")
        parts.append(f"Review: of {len(findings)} tests, a person should look at: {named}.")
    else:
        parts.append(
            f"Not detected: none of {len(findings)} tests could tell units that were in from units "
            "held out. An attack can refute a release; it cannot vouch for one."
        )
    return " ".join(parts)


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"
