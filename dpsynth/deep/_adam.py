"""Adam with a falling rate and an average of its path: what a learner does with noisy gradients.

Kingma and Ba (2015), "Adam: a method for stochastic optimization", Algorithm 1. All of it is
post-processing: it sees what the vault has made private, and nothing else.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_FIRST, _SECOND = 0.9, 0.999  # decay of the two moments
_LEAST = 1e-8  # added to the root of the second
_LAST = 0.05  # of the rate, at the end of its cosine


class Adam:
    """A learner whose module gives the loss of each record.

    Args:
        module: Maps records (batch, ...) to losses, float (batch,).
        learning_rate: Of the first step; it falls along half a cosine to a twentieth.
        iterations: After how many steps it gets there.
        average: Decay of the average of the parameters, at least 0 and below 1.
    """

    def __init__(
        self, module: nn.Module, *, learning_rate: float, iterations: int, average: float
    ) -> None:
        self.module = module
        self._rate = learning_rate
        self._iterations = iterations
        self._average = average
        self._parameters = [each for each in module.parameters() if each.requires_grad]
        self._step = 0
        self._moments = [[torch.zeros_like(each) for each in self._parameters] for _ in range(3)]

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        """Return the loss of each record, float (batch,)."""
        found: Tensor = module(records)
        return found

    @torch.no_grad()
    def update(self, gradients: list[Tensor]) -> None:
        """Take one step, given the noisy mean gradient of each trainable parameter."""
        done = min(self._step / self._iterations, 1.0)
        self._step += 1
        rate = self._rate * (_LAST + (1 - _LAST) * (1 + math.cos(math.pi * done)) / 2)
        rate /= 1 - _FIRST**self._step
        unbias = math.sqrt(1 - _SECOND**self._step)
        for p, gradient, first, second, path in zip(
            self._parameters, gradients, *self._moments, strict=True
        ):
            first.lerp_(gradient, 1 - _FIRST)
            second.mul_(_SECOND).addcmul_(gradient, gradient, value=1 - _SECOND)
            p.addcdiv_(first, second.sqrt().div_(unbias).add_(_LEAST), value=-rate)
            path.lerp_(p, 1 - self._average)

    def averaged(self) -> dict[nn.Parameter, Tensor]:
        """Return the average of each parameter over the steps, late ones counting more."""
        if not self._step:
            return {p: p.detach() for p in self._parameters}
        # The average began at zero; this takes that part out.
        whole = 1 - self._average**self._step
        return {p: path / whole for p, path in zip(self._parameters, self._moments[2], strict=True)}

    def state(self) -> dict[str, Tensor]:
        """Return copies of all that is needed to go on from here."""
        found = {"step": torch.tensor(self._step)}
        for name, tensors in self._named().items():
            found |= {f"{name}.{i}": each.detach().clone() for i, each in enumerate(tensors)}
        return found

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a state that :meth:`state` returned."""
        self._step = int(state["step"])
        for name, tensors in self._named().items():
            for i, each in enumerate(tensors):
                each.copy_(state[f"{name}.{i}"])

    def _named(self) -> dict[str, list[Tensor]]:
        first, second, path = self._moments
        return {
            "parameter": [*self._parameters],
            "first": first,
            "second": second,
            "average": path,
        }
