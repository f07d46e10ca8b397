"""A stand-in for the vault's block: Gaussian noise from a seed, or none; for tests only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpsynth.domain import Clique, Domain
from dpsynth.vault import Measurement, Row, Train
from dpsynth.vault._train import Learner, clipped_sum


@dataclass(frozen=True)
class FakePlan:
    epsilon: float


@dataclass
class FakeBlock:
    """Answers the two questions of a fit from integer codes."""

    domain: Domain
    data: Mapping[str, NDArray[np.int64]]
    method: Any
    sigma: float = 1.0
    noise: float = 0.0
    plan: FakePlan = FakePlan(10.0)
    unit: Row = field(default_factory=Row)
    asked: list[str] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def measure(self, cliques: Sequence[Clique]) -> list[Measurement]:
        self.asked.append(f"{len(cliques)} marginals")
        answers = []
        for (name,) in cliques:
            counts = np.bincount(self.data[name], minlength=self.domain.size(name))
            answers.append(Measurement((name,), counts.astype(np.int64), self.sigma))
        return answers

    def train(self, learner: Learner, *, clip: float, rows: float) -> None:
        self.asked.append("training")
        records = torch.from_numpy(np.column_stack([self.data[n] for n in self.domain.names]))
        trained = [each for each in learner.module.parameters() if each.requires_grad]
        step = next(each for each in self.method.steps(self.domain.names) if type(each) is Train)
        for _ in range(step.steps):
            batch = records[np.flatnonzero(self.rng.random(len(records)) < step.rate)]
            units = torch.arange(len(batch))
            sums = clipped_sum(learner.module, learner.loss, batch, units, len(batch), clip)
            noisy = [
                each + torch.from_numpy(self.rng.normal(0, clip, each.shape) * self.noise)
                for each in sums
            ]
            pairs = zip(noisy, trained, strict=True)
            learner.update([(each / (step.rate * rows)).to(p.dtype) for each, p in pairs])
