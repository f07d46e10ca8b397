"""A network that starts from what another mechanism of the same plan has learnt, for free.

The other mechanism's model is made of answers that were paid for, so rows drawn from it are
post-processing, and so is plain training on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dpsynth.deep._adam import Adam
from dpsynth.deep._chain import smoothed
from dpsynth.deep._network import Network
from dpsynth.domain import Domain
from dpsynth.synthesizer import Model

_MADE = 60_000  # rows drawn of the other model
_BATCH = 512
_ITERATIONS = 1200
_AVERAGE = 0.99


@dataclass(frozen=True, eq=False)
class Made:
    """Rows drawn from the other mechanism's model.

    Attributes:
        codes: For each column, int32 (rows,).
        rows: Noisy number of rows of the table that model was fitted to.
    """

    codes: Mapping[str, NDArray[np.int32]]
    rows: float

    @classmethod
    def by(cls, model: Model) -> Made:
        """Draw them."""
        drawn = model.sample_codes(_MADE, rng=np.random.default_rng(0))
        return cls(drawn, max(model.rows, 1.0))

    def shares(self, domain: Domain, order: Sequence[str]) -> list[NDArray[np.float64]]:
        """Return the distribution of each column, float64 (size,); nothing is impossible."""
        counts = [np.bincount(self.codes[name], minlength=domain.size(name)) for name in order]
        return smoothed([each.astype(np.int64) for each in counts], [1.0] * len(counts))[0]

    def teach(self, network: Network, domain: Domain, learning_rate: float) -> None:
        """Train a network on them."""
        columns = [self.codes[name].astype(np.int64) for name in domain.names]
        records = torch.from_numpy(np.column_stack(columns))
        learner = Adam(
            network, learning_rate=learning_rate, iterations=_ITERATIONS, average=_AVERAGE
        )
        parameters = [each for each in network.parameters() if each.requires_grad]
        rng = np.random.default_rng(1)
        for _ in range(_ITERATIONS):
            chosen = torch.from_numpy(rng.integers(0, len(records), _BATCH))
            loss = network(records[chosen]).mean()
            learner.update(list(torch.autograd.grad(loss, parameters)))
        with torch.no_grad():
            for parameter, value in learner.averaged().items():
                parameter.copy_(value)
