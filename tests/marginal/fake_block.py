"""A stand-in for the vault's block: exact counts over codes plus rounded Gaussian noise.

Its noise is neither discrete nor from the system's entropy: for tests of post-processing only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique, Domain
from dpsynth.vault import Divide, Measure, Measurement, Scores, Select, Step
from dpsynth_accounting import choice_within

Coarse = Mapping[str, NDArray[np.int64]]


@dataclass
class FakeBlock:
    """Answers a declared plan from integer codes, splitting ``mu`` squared by weight."""

    domain: Domain
    data: Mapping[str, NDArray[np.int64]]
    steps: tuple[Step, ...]
    mu: float
    rng: np.random.Generator
    log: list[tuple[str, Any]] = field(default_factory=list)
    taken: int = 0

    def measure(self, cliques: Sequence[Clique], coarse: Coarse | None = None) -> list[Measurement]:
        step = self._next(Measure)
        if len(cliques) != step.marginals:
            raise ValueError("the step declared another number of marginals")
        sigma = math.sqrt(step.marginals * self._weight / (step.weight * self.mu**2))
        self.log.append(("measure", tuple(cliques)))
        answers = []
        for clique in cliques:
            exact = self.exact(clique, coarse)
            noise = np.rint(self.rng.normal(0.0, sigma, exact.shape)).astype(np.int64)
            answers.append(Measurement(clique, exact + noise, sigma))
        return answers

    def select(
        self,
        candidates: Mapping[Clique, NDArray[np.int64]],
        eligible: Callable[[tuple[Clique, ...]], Collection[Clique]],
        coarse: Coarse | None = None,
    ) -> tuple[Clique, ...]:
        step = self._next(Select)
        epsilon = 2.0 * math.sqrt(self.mu**2 * step.weight / (self._weight * step.rounds))
        scores = {}
        for clique, answer in candidates.items():
            scores[clique] = float(self.distance(clique, answer, coarse))
        chosen: tuple[Clique, ...] = ()
        for _ in range(step.rounds):
            open_ = sorted(eligible(chosen))
            noisy = np.array([epsilon * scores[c] / 2 for c in open_])
            noisy += self.rng.gumbel(size=len(open_))
            chosen += (open_[int(np.argmax(noisy))],)
        self.log.append(("select", chosen))
        return chosen

    def divide(self) -> FakeDividing:
        step = self._next(Divide)
        return FakeDividing(self, self.mu**2 * step.weight / self._weight)

    def exact(self, clique: Clique, coarse: Coarse | None = None) -> NDArray[np.int64]:
        coarse = coarse or {}
        codes, shape = [], []
        for name in clique:
            mapping = coarse.get(name)
            column = np.asarray(self.data[name], dtype=np.int64)
            codes.append(column if mapping is None else mapping[column])
            shape.append(self.domain.size(name) if mapping is None else int(mapping.max()) + 1)
        index = np.ravel_multi_index(codes, shape) if len(codes[0]) else np.zeros(0, np.int64)
        return np.bincount(index, minlength=math.prod(shape)).reshape(shape).astype(np.int64)

    def distance(self, clique: Clique, model: NDArray[np.int64], coarse: Coarse | None) -> int:
        if model.dtype != np.int64:
            raise TypeError("answers must be rounded to integers")
        return int(np.abs(self.exact(clique, coarse) - model).sum())

    @property
    def _weight(self) -> float:
        return sum(step.weight for step in self.steps)

    def _next(self, kind: type[Any]) -> Any:
        step = self.steps[self.taken] if self.taken < len(self.steps) else None
        if not isinstance(step, kind):
            raise ValueError("the block was asked for something the plan does not declare next")
        self.taken += 1
        return step


@dataclass
class FakeDividing:
    """Divides a precision, like a Divide step."""

    block: FakeBlock
    precision: float
    left: Fraction = Fraction(1)

    def score(
        self,
        candidates: Mapping[Clique, NDArray[np.int64]],
        share: Fraction,
        coarse: Coarse | None = None,
    ) -> Scores:
        sigma = self._take(share, len(candidates))
        self.block.log.append(("score", tuple(candidates)))
        exact = [self.block.distance(c, model, coarse) for c, model in candidates.items()]
        noise = np.rint(self.block.rng.normal(0.0, sigma, len(exact))).astype(np.int64)
        return Scores(np.array(exact, dtype=np.int64) + noise, sigma)

    def choose(
        self,
        candidates: Mapping[Clique, NDArray[np.int64]],
        share: Fraction,
        *,
        weights: Mapping[Clique, int],
        offsets: Mapping[Clique, int],
        coarse: Coarse | None = None,
    ) -> Clique:
        self.left -= share
        epsilon = float(choice_within(share * Fraction(self.precision)).epsilon)
        scores = [
            weights[clique] * (self.block.distance(clique, model, coarse) - offsets[clique])
            for clique, model in candidates.items()
        ]
        noisy = epsilon * np.array(scores) / (2 * max(weights[clique] for clique in candidates))
        noisy += self.block.rng.gumbel(size=len(scores))
        chosen = list(candidates)[int(np.argmax(noisy))]
        self.block.log.append(("chosen", (chosen, tuple(candidates))))
        return chosen

    @property
    def answers_left(self) -> int:
        return 10**6

    def measure(
        self, cliques: Sequence[Clique], shares: Sequence[Fraction], coarse: Coarse | None = None
    ) -> list[Measurement]:
        self.block.log.append(("divided", tuple(cliques)))
        answers = []
        for clique, share in zip(cliques, shares, strict=True):
            sigma, exact = self._take(share, 1), self.block.exact(clique, coarse)
            noise = np.rint(self.block.rng.normal(0.0, sigma, exact.shape)).astype(np.int64)
            answers.append(Measurement(clique, exact + noise, sigma))
        return answers

    def _take(self, share: Fraction, many: int) -> float:
        self.left -= share
        if self.left < 0:
            raise ValueError("more than the whole was divided")
        return math.sqrt(many / (float(share) * self.precision))
