"""Private selection: a secret number of secret runs, of which the answers of the best are kept.

Liu and Talwar (2019), "Private selection from private candidates", Algorithm 2 without a limit on
the number of runs. What leaves is the best run's answers; all else of the runs is memory of this
process alone, in no ledger. Price and proof: docs/explanation/tuning.md.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

import dpsynth_accounting as accounting
from dpsynth.vault._block import Block
from dpsynth.vault._plan import Plan, Step, Tune
from dpsynth.vault._stream import Stream
from dpsynth_accounting import (
    Event,
    InvalidRequest,
    RepeatAndSelect,
    canonical,
    rational_up,
)

T = TypeVar("T")

Candidate = Callable[[Block], tuple[float, T]]
"""Carries out one run, asking its steps of the block, and returns a score and what it made."""

_Answers = dict[tuple[int, int], tuple[str, bytes]]


@dataclass(frozen=True)
class Tuned(Generic[T]):
    """The best run.

    Attributes:
        candidate: The name of what was run.
        score: Its score, from the run's noisy answers.
        made: What it made of them.
    """

    candidate: str
    score: float
    made: T


class Run(Block):
    """One run of a candidate: a plan within the outer block's charge, with answers of its own.

    Args:
        outer: The block whose step this run is part of.
        plan: What the candidate declared.
        answers: Those of a finished run, to replay them: then no row is read.
    """

    def __init__(self, outer: Block, plan: Plan, answers: _Answers | None = None) -> None:
        super().__init__(outer._vault, outer._reservation, plan)
        self._replaying = answers is not None
        self._begun.add(-1)  # rows may have been read, whatever this run itself has asked
        self.answers: _Answers = {} if answers is None else answers

    def end(self) -> None:
        """Drop what was kept, and answer nothing new: whoever kept the run gets no more of it."""
        super().end()
        self._replaying = True

    def _answer(
        self, index: int, part: int, request: str, draw: Callable[[], bytes], **_: object
    ) -> bytes:
        """Draw an answer and keep it here, never in the ledger; or replay it."""
        if (index, part) not in self.answers:
            if self._replaying:
                raise self._refused("A selected run was to be replayed with a further question.")
            self.answers[index, part] = request, draw()
        asked, value = self.answers[index, part]
        if asked != request:
            raise self._refused("A selected run was to be replayed with another question.")
        return value


def select_best(
    block: Block,
    step: Tune,
    event: Event,
    candidates: Mapping[str, Candidate[T]],
    failures: list[Exception],
) -> bytes:
    """Run candidates until a secret coin says stop; return the answers of the best run.

    A run that fails ends this as the best of all would. That it did is stored too: were it tried
    again on resuming, the failure and what came after would be two answers for one price.

    Args:
        block: The outer block.
        step: Its step.
        event: What was charged for it.
        candidates: By name, in the order of the step.
        failures: Where the error of a run that fails is put.
    """
    stream, names = block._vault.stream, list(candidates)
    best: tuple[float, str, _Answers] | None = None
    while True:
        name = names[stream.below(len(names))]
        run = Run(block, _plan(block, step, event, names.index(name)))
        try:
            with _fresh_draws(stream):
                score, _ = _scored(run, candidates[name])
        except Exception as error:
            best = None  # the frames of a traceback hold what was found so far
            failures.append(error.with_traceback(None))
            return _packed("", {})
        # The first of equal scores: runs are alike, so this is one of them by lot.
        if best is None or score > best[0]:
            best = score, name, run.answers
        if stream.below(step.runs) == 0:
            break
    return _packed(best[1], best[2])


def replay(
    block: Block, step: Tune, event: Event, candidates: Mapping[str, Candidate[T]], stored: bytes
) -> Tuned[T]:
    """Return what the best run made, from its answers alone."""
    name, answers = _unpacked(stored)
    if not name:
        raise InvalidRequest(
            "A tuning was to be carried out.",
            "One of its runs failed, which is its outcome: it is not tried again.",
            "Mend the candidate, try it on made-up rows, and reserve the tuning anew.",
            touched=True,
        )
    plan = _plan(block, step, event, list(candidates).index(name))
    with _fresh_draws(block._vault.stream):
        score, made = _scored(Run(block, plan, answers), candidates[name])
    return Tuned(name, score, made)


@contextlib.contextmanager
def _fresh_draws(stream: Stream) -> Iterator[None]:
    """Let what a run draws by torch follow from the stream, and leave torch's generator as it was.

    With a seed set outside, runs would not be alike, and how far the generator has gone afterwards
    would tell how many there were.
    """
    if "torch" in sys.modules:
        from dpsynth.vault._train import own_draws

        with own_draws(stream):
            yield
        return
    try:
        yield
    finally:
        if "torch" in sys.modules:  # the run brought it
            from dpsynth.vault._train import seed

            seed(stream)


def _plan(block: Block, step: Tune, event: Event, place: int) -> Plan:
    """Return the plan of one run of a candidate, at the budget that a run has by itself."""
    if not isinstance(event, RepeatAndSelect):
        raise TypeError("a Tune step repeats and selects")
    whole, delta = event.events[place], block.plan.delta
    if not isinstance(whole, accounting.Sequence):
        raise TypeError("a run is a sequence")
    steps: tuple[Step, ...] = step.candidates[place]
    epsilon: Fraction = rational_up(accounting.curve(whole).epsilon(delta))
    return Plan(steps, whole.events, epsilon, delta, whole)


def _scored(run: Run, candidate: Candidate[T]) -> tuple[float, T]:
    try:
        score, made = candidate(run)
    finally:
        run.end()
    if not math.isfinite(score):
        raise InvalidRequest(
            "A run was to be scored with what is no number.",
            "The run of the greatest score is selected, so each score is finite.",
            "Compute the score from the run's noisy answers, and bound it.",
            touched=True,
        )
    return float(score), made


def _packed(name: str, answers: _Answers) -> bytes:
    lines = [
        [*place, request, base64.b64encode(value).decode()]
        for place, (request, value) in answers.items()
    ]
    return canonical({"candidate": name, "answers": lines})


def _unpacked(stored: bytes) -> tuple[str, _Answers]:
    found = json.loads(stored)
    return found["candidate"], {
        (step, part): (request, base64.b64decode(value))
        for step, part, request, value in found["answers"]
    }
