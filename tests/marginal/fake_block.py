"""A stand-in for the vault's block: exact counts over codes plus rounded Gaussian noise.

Its noise is neither discrete nor from the system's entropy: for tests of post-processing only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Domain
from dpsynth.vault import Measure, Measurement, Select, Step

Clique = tuple[str, ...]
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
            if answer.dtype != np.int64:
                raise TypeError("answers must be rounded to integers")
            scores[clique] = float(np.abs(self.exact(clique, coarse) - answer).sum())
        chosen: tuple[Clique, ...] = ()
        for _ in range(step.rounds):
            open_ = sorted(eligible(chosen))
            noisy = np.array([epsilon * scores[c] / 2 for c in open_])
            noisy += self.rng.gumbel(size=len(open_))
            chosen += (open_[int(np.argmax(noisy))],)
        self.log.append(("select", chosen))
        return chosen

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

    @property
    def _weight(self) -> float:
        return sum(step.weight for step in self.steps)

    def _next(self, kind: type[Any]) -> Any:
        step = self.steps[self.taken] if self.taken < len(self.steps) else None
        if not isinstance(step, kind):
            raise ValueError("the block was asked for something the plan does not declare next")
        self.taken += 1
        return step
