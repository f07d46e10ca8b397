"""What a block will ask of the vault, declared before a row is read, and what that costs.

A *step* is public: its fields say how many answers it gives and what share of the block's
precision it takes. The steps of a block are priced together, as one plan whose parameters are
fixed and whose queries may adapt. The noise a step draws takes its scale from the event made here.

Sensitivities (``k`` = rows of a unit): one marginal moves by at most k in L2, in at most k cells;
the L1 distance of a marginal to fixed integers moves by at most k; counts of units move by 1.
Proofs: ``docs/explanation/sensitivity.md``; brute force: ``tests/vault/test_sensitivity.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dpsynth_accounting as accounting
from dpsynth.columns import Open
from dpsynth.schema import Schema
from dpsynth.vault import _discover
from dpsynth.vault._bound import Unit
from dpsynth.vault._noise import SAMPLE_DISTANCE
from dpsynth_accounting import (
    ADDITIVE,
    ApproxDP,
    Budget,
    DiscreteGaussian,
    Event,
    Exponential,
    Filter,
    GaussianBlock,
    InvalidRequest,
    Repeat,
    RepeatAndSelect,
    SubsampledGaussian,
    rational_down,
    rational_up,
)

SAMPLES = 1 << 40
"""Greatest number of noise samples a block may draw: a measurement beyond it is refused, and no
table in memory has so many distinct categories."""

DISCOVERY_WEIGHT = 0.25
"""Weight of a discovery beside a fit of weight 1, if the schema leaves every column open."""

LEAST_SIGMA2 = Fraction(4)
"""No answer of a Divide step has less noise: above 3, a Gaussian block has a closed form."""


@dataclass(frozen=True)
class Discover:
    """Categories of ``categories`` open columns, and ranges or cells of ``ranges`` numbers."""

    categories: int
    ranges: int
    weight: float


@dataclass(frozen=True)
class Measure:
    """Noisy counts of ``marginals`` marginals, all at one noise scale.

    Attributes:
        marginals: How many marginals the step measures.
        weight: Share of the block's precision (any positive number, relative to its siblings).
    """

    marginals: int
    weight: float


@dataclass(frozen=True)
class Select:
    """``rounds`` choices by the exponential mechanism, each of one marginal among candidates."""

    rounds: int
    weight: float


@dataclass(frozen=True)
class Audit:
    """Attacks and utility on a finished table.

    For each of ``statistics`` scores, noisy counts of audit-in and of held-out units above its
    threshold: a unit is on one side only, so it moves at most ``statistics`` of the counts. And one
    noisy number, the L1 distance between ``marginals`` real marginals and given ones.
    """

    statistics: int
    marginals: int
    weight: float


@dataclass(frozen=True)
class Divide:
    """Scores and marginals that share one precision, divided as the answers so far suggest.

    Attributes:
        answers: Greatest number of scores and marginals in all.
        weight: Share of the block's precision, as for the other steps.
    """

    answers: int
    weight: float


@dataclass(frozen=True)
class Train:
    """DP-SGD: noisy sums of clipped gradients, each over its own Poisson sample of units.

    Attributes:
        rate: Probability with which each unit joins a step, above 0 and at most 1.
        steps: How many there are.
        weight: Share of the block's precision, as for the other steps.
    """

    rate: float
    steps: int
    weight: float


@dataclass(frozen=True)
class Tune:
    """Runs of candidates, as many as a secret coin says, of which the best alone is shown.

    Attributes:
        candidates: What a run asks, for each candidate; a uniform draw says which one a run is.
        runs: Mean of their number, which is geometric: each run is the last with probability
            1 / ``runs``.
        weight: Share of the block's precision that each run has, as for the other steps.
    """

    candidates: tuple[tuple[Step, ...], ...]
    runs: int
    weight: float


@dataclass(frozen=True)
class Choose:
    """One of ``candidates`` finished tables, by the exponential mechanism.

    The score is minus the L1 distance over ``marginals`` marginals, of which a unit moves each by
    at most its rows; or, if there are none, minus the audited units that an attack finds more
    often among those that were in than among those held out, which a unit moves by at most 1.
    """

    candidates: int
    marginals: int
    weight: float


Step = Discover | Measure | Select | Divide | Train | Audit | Tune | Choose
"""The closed union of steps."""


@dataclass(frozen=True)
class Measurement:
    """A noisy marginal: exact counts plus discrete Gaussian noise.

    Attributes:
        clique: The columns, in the order of the axes.
        values: int64 array, one axis a column, axis lengths the columns' domain sizes.
        sigma: Standard deviation of the noise on each cell, in rows.
    """

    clique: tuple[str, ...]
    values: NDArray[np.int64]
    sigma: float


@dataclass(frozen=True)
class Plan:
    """Steps with their events, calibrated to a budget.

    Attributes:
        steps: What will be asked, in order.
        events: What each step does to the rows, one for one.
        epsilon: The budget the plan was calibrated to.
        delta: The budget the plan was calibrated to.
        event: The whole plan, including the numerical slack of the samplers.
    """

    steps: tuple[Step, ...]
    events: tuple[Event, ...]
    epsilon: Fraction
    delta: Fraction
    event: Event

    def describe(self) -> list[dict[str, Any]]:
        """Return one public line a step: its name, how many answers, and the noise on each."""
        return [_describe(s, e) for s, e in zip(self.steps, self.events, strict=True)]


def scaled(steps: Sequence[Step], share: float) -> tuple[Step, ...]:
    """Return the steps with weights rescaled to sum to ``share``."""
    total = sum(step.weight for step in steps)
    return tuple(replace(step, weight=step.weight / total * share) for step in steps)


def make_plan(
    steps: Sequence[Step],
    unit: Unit,
    epsilon: Fraction,
    delta: Fraction,
    *,
    filter: Filter = ADDITIVE,  # noqa: A002
    budget: Budget | None = None,
) -> Plan:
    """Return the most precise plan of these steps within (epsilon, delta).

    Args:
        steps: What will be asked, in order.
        unit: The unit of privacy.
        epsilon: What the plan may spend, at ``delta``.
        delta: What the plan may spend, with ``epsilon``.
        filter: The account's; the plan is calibrated so that the account grants it.
        budget: The account's; needed under any filter but the additive.

    Raises:
        InvalidRequest: A step or weight is impossible, or the budget allows no such plan.
    """
    _check(steps)
    blocks = 1 + sum(step.runs for step in steps if isinstance(step, Tune))  # each run is one
    slack = blocks * SAMPLES * SAMPLE_DISTANCE * (1 + math.ceil(math.exp(float(epsilon))))
    total = sum(step.weight for step in steps)

    def events_at(scale: float) -> tuple[Event, ...]:
        return tuple(_event(step, unit.rows, scale * step.weight / total, delta) for step in steps)

    def whole(scale: float) -> Event:
        return accounting.Sequence((*events_at(scale), ApproxDP(Fraction(0), slack)))

    event = accounting.calibrate(whole, epsilon, delta, filter=filter, budget=budget)
    if not isinstance(event, accounting.Sequence):
        raise TypeError("a plan is a sequence")
    return Plan(tuple(steps), event.events[:-1], epsilon, delta, event)


def _check(steps: Sequence[Step]) -> None:
    for step in steps:
        if isinstance(step, Tune):
            _check_runs(step)
        other = ("weight", "rate", *(["candidates"] if isinstance(step, Tune) else []))
        counts = [v for k, v in vars(step).items() if k not in other]
        weight = step.weight
        whole = all(isinstance(c, int) and c >= 0 for c in counts) and sum(counts) > 0
        possible = not isinstance(step, Train) or 0 < step.rate <= 1
        possible &= not isinstance(step, Choose) or step.candidates > 0
        if not whole or not possible or not (math.isfinite(weight) and weight > 0):
            raise InvalidRequest(
                f"A {type(step).__name__} step was declared with impossible numbers.",
                "A step gives at least one answer, its weight is above 0, a rate at most 1.",
                "Leave the step out if it asks nothing.",
            )
    if not steps:
        raise InvalidRequest(
            "A plan without steps was to be reserved.",
            "A block asks at least one question.",
            "Declare what will be measured.",
        )


def _check_runs(tune: Tune) -> None:
    inner = [step for steps in tune.candidates for step in steps]
    if not tune.candidates or any(isinstance(step, Discover | Tune) for step in inner):
        raise InvalidRequest(
            f"A Tune step was declared with {len(tune.candidates)} candidates.",
            "There is at least one, and a run neither discovers the domain nor tunes in turn.",
            "Declare the discovery before it.",
        )
    for steps in tune.candidates:
        _check(steps)


def _event(step: Step, k: int, precision: float, delta: Fraction) -> Event:
    """Return what a step does, when it may take ``precision`` of squared signal to noise."""
    match step:
        case Measure(marginals, _):
            return Repeat(_gaussian(k * k, k, precision / marginals), marginals)
        case Select(rounds, _):
            return Repeat(Exponential(rational_down(2 * math.sqrt(precision / rounds))), rounds)
        case Choose():
            return Exponential(rational_down(2 * math.sqrt(precision)))
        case Divide(answers, _):
            return GaussianBlock(rational_down(precision), LEAST_SIGMA2, k * answers)
        case Train(rate, steps, _):
            # The noise at which so many steps are about as precise as one Gaussian answer (Dong,
            # Roth, Su 2022, Corollary 5.4). It only says how a plan is split: the price is exact.
            share = precision / (rate * rate * steps)
            sigma = rational_up(1 / math.sqrt(math.log1p(share)))
            return SubsampledGaussian(Fraction(rate), sigma, steps)
        case Audit(statistics, marginals, _):
            shares = (0.8, 0.2) if statistics and marginals else (1.0, 1.0)
            asked: list[Event] = []
            if statistics:
                asked.append(_gaussian(statistics, statistics, precision * shares[0]))
            if marginals:
                asked.append(_gaussian((k * marginals) ** 2, 1, precision * shares[1]))
            return accounting.Sequence(tuple(asked))
        case Tune(candidates, runs, _):
            found = [_run(steps, k, precision, delta) for steps in candidates]
            return RepeatAndSelect(tuple(found), Fraction(1, runs))
        case Discover(categories, ranges, _):
            return _discover.event_of(categories, ranges, k, precision, delta)


def _run(steps: Sequence[Step], k: int, precision: float, delta: Fraction) -> Event:
    total = sum(step.weight for step in steps)
    return accounting.Sequence(
        tuple(_event(step, k, precision * step.weight / total, delta) for step in steps)
    )


def _gaussian(l2_squared: int, shifts: int, precision: float) -> DiscreteGaussian:
    return DiscreteGaussian(rational_up(l2_squared / precision), l2_squared, shifts)


def noise_of(event: Event) -> Fraction:
    """Return the sigma squared of a step's discrete Gaussian."""
    found = [leaf for leaf in leaves(event) if isinstance(leaf, DiscreteGaussian)]
    if len(found) != 1:
        raise TypeError("the event has not one noise scale")
    return found[0].sigma2


def epsilon_of(event: Event) -> Fraction:
    """Return the epsilon of each choice of a Select step."""
    found = [leaf for leaf in leaves(event) if isinstance(leaf, Exponential)]
    if len(found) != 1:
        raise TypeError("the event makes not one kind of choice")
    return found[0].epsilon


def leaves(event: Event) -> list[Event]:
    """Return the distinct leaves of an event."""
    return [leaf for leaf, _ in accounting.flatten(event)]


def _describe(step: Step, event: Event) -> dict[str, Any]:
    if isinstance(step, Tune) and isinstance(event, RepeatAndSelect):
        return {
            "step": "tune",
            "runs": step.runs,
            "candidates": [
                [_describe(each, its) for each, its in zip(steps, run.events, strict=True)]
                for steps, run in zip(step.candidates, event.events, strict=True)
                if isinstance(run, accounting.Sequence)
            ],
        }
    counts = {k: v for k, v in vars(step).items() if k != "weight"}
    scales = {
        round(math.sqrt(float(leaf.sigma2)), 2)
        for leaf in leaves(event)
        if isinstance(leaf, DiscreteGaussian)
    }
    choices = {float(leaf.epsilon) for leaf in leaves(event) if isinstance(leaf, Exponential)}
    line: dict[str, Any] = {"step": type(step).__name__.lower(), **counts}
    if isinstance(step, Divide) and isinstance(event, GaussianBlock):
        k = event.shifts // step.answers  # the noise if one marginal took all
        scales = {round(k / math.sqrt(event.precision), 2)}
    if isinstance(step, Discover):
        line |= _discover.describe(event)
    elif isinstance(event, SubsampledGaussian):
        line["noise_multiplier"] = round(float(event.sigma), 4)
    elif scales:
        line["noise_sd"] = sorted(scales)
    if choices:
        line["epsilon_each"] = round(choices.pop(), 6)
    return line


def discovery_step(schema: Schema, weight: float) -> tuple[Discover, ...]:
    """Return the Discover step that a schema needs: one, or none if all is declared."""
    open_ = [isinstance(schema.columns[name], Open) for name in schema.undeclared]
    return (Discover(sum(open_), len(open_) - sum(open_), weight),) if open_ else ()


def discovery_weight(schema: Schema) -> float:
    """Return the weight of a discovery beside a fit of weight 1, by a rule that reads no data.

    It grows with the share of the columns that a schema leaves open.
    """
    return DISCOVERY_WEIGHT * len(schema.undeclared) / max(len(schema.modelled), 1)
