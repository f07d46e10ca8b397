"""A learner that is watched: what training shows a white-box attacker, and canaries to be told.

It is a learner like any other: outside code, shown records in its loss and noisy gradients. What it
hands on follows from the noisy gradients and from the attacker's own rows. The loss of the canaries
is made steep, which a learner may do: then a canary's gradient has the greatest norm that clipping
allows, and one that is not clipped stands out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpsynth.vault._stream import SYSTEM
from dpsynth.vault._train import _general
from dpsynth.vault._train._closed import Loss
from dpsynth.vault._train._draws import own_draws
from dpsynth.vault._train._gradients import _factors, clipped_sum
from dpsynth.vault._train._loop import Learner, parameters
from dpsynth_accounting import InvalidRequest

Floats = NDArray[np.float64]

Told = Callable[[NDArray[np.floating[Any]], Floats, Floats], None]
"""Gets, of a step, clipped gradients (units, parameters), of the canaries first and then of some of
the known units; what share of its own a canary's gradient has along it when drawn anew,
(canaries,), 1 unless the loss draws random numbers; and the noisy sum less what is expected of all
known units, (parameters,)."""

STEEP = 1024.0
"""What the losses of canaries are multiplied by."""

_KEPT = 0.9  # of the mean over steps of a canary's gradient, where the loss draws random numbers

MOST_KNOWN = 100
"""Of how many known units gradients are handed on, at most."""


def unit_gradients(
    module: nn.Module, loss: Loss, records: Tensor, units: Tensor, count: int, clip: float
) -> Tensor:
    """Return the gradient of each unit, clipped, (units, parameters).

    Written out, and computed in another way than sums are, where torch can take the module apart.

    Args:
        module: What is trained.
        loss: Maps the module and records (batch, ...) to the loss of each, float (batch,).
        records: (batch, ...), of the attacker.
        units: int64 (batch,), the unit of each record, 0..count-1.
        count: How many units there are.
        clip: Greatest L2 norm of one unit's gradient.

    Raises:
        InvalidRequest: The module cannot be trained.
    """
    try:
        found = _general.per_record(module, loss, records, touched=False)
    except InvalidRequest:
        alone = [
            clipped_sum(module, loss, rows, torch.zeros_like(units[: len(rows)]), 1, clip)
            for rows in (records[units == i] for i in range(count))
        ]
        return torch.stack([torch.cat([part.flatten() for part in each]) for each in alone])
    total = torch.cat([each.flatten(1) for each in found.values()], 1)
    if len(units) > count:
        total = total.new_zeros(count, total.shape[1]).index_add_(0, units, total)
    squares = torch.linalg.vector_norm(total, dim=1, dtype=torch.float64).square()
    factors = _factors(squares, clip).to(total.dtype).unsqueeze(1)
    return (total * factors).nan_to_num_(0.0, 0.0, 0.0)


class WatchedLearner:
    """A learner whose noisy gradients are handed on, with those of the canaries beside them.

    Args:
        learner: What is trained.
        canaries: int64 (canaries, columns): one record of each.
        copies: How many such records a canary that is in has.
        known: int64 (rows, columns): records that are in for certain.
        units: int64 (rows,): the unit of each of them, numbered from 0.
        rate: Probability with which a unit joins a step.
        clip: Greatest L2 norm of a unit's gradient.
        divisor: What noisy sums are divided by.
        told: Is told of each step, unless numbers in it are not finite.

    Attributes:
        module: The module whose parameters are trained.
        some: Of how many known units gradients are told.
    """

    def __init__(
        self,
        learner: Learner,
        *,
        canaries: NDArray[np.int64],
        copies: int,
        known: NDArray[np.int64],
        units: NDArray[np.int64],
        rate: float,
        clip: float,
        divisor: float,
        told: Told,
    ) -> None:
        device = parameters(learner)[0].device if parameters(learner) else None
        self.module = learner.module
        self._learner, self._told = learner, told
        self._rate, self._clip, self._divisor = rate, clip, divisor
        self._canaries = torch.from_numpy(canaries).to(device)
        self._known = torch.from_numpy(known).to(device)
        self._units = torch.from_numpy(units).to(device)
        self._count = int(units.max(initial=-1)) + 1
        self.some = min(self._count, MOST_KNOWN)
        spread = np.linspace(0, self._count - 1, self.some).round().astype(np.int64)
        place = np.full(self._count, -1)
        place[spread] = np.arange(self.some) + len(canaries)
        shown = place[units] >= 0
        made = np.repeat(np.arange(len(canaries)), copies)
        self._random = self._is_random()
        self._mean: Tensor | None = None
        self._share: Tensor | None = None
        self._shown = torch.from_numpy(np.concatenate([canaries[made], known[shown]])).to(device)
        self._numbers = torch.from_numpy(np.append(made, place[units[shown]])).to(device)

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        """Return the learner's loss of each record, made steep where it is a canary's."""
        losses = self._learner.loss(module, records)
        canary = (records.unsqueeze(1) == self._canaries).all(2).any(1)
        return torch.where(canary, STEEP * losses, losses)

    def update(self, gradients: list[Tensor]) -> None:
        """Tell what the step shows, and let the learner take it."""
        with own_draws(SYSTEM, self._canaries.device):
            mine = unit_gradients(
                self.module,
                self.loss,
                self._shown,
                self._numbers,
                len(self._canaries) + self.some,
                self._clip,
            )
            known = clipped_sum(
                self.module, self.loss, self._known, self._units, self._count, self._clip
            )
        mean, share = self._averaged(mine)
        shown = _flat(gradients) * self._divisor - self._rate * _flat(known)
        if share is not None and bool(shown.isfinite().all()):
            self._told(mean.cpu().numpy(), share.cpu().numpy(), shown.cpu().numpy())
        self._learner.update(gradients)

    def state(self) -> dict[str, Tensor]:
        """Return the learner's state."""
        return self._learner.state()

    def load(self, state: dict[str, Tensor]) -> None:
        """Let the learner go on from a state."""
        self._learner.load(state)

    def _averaged(self, drawn: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the mean of the canaries' gradients over steps, and the share along it.

        A loss that draws random numbers has another gradient each time: weights move slowly, so the
        mean over the latest steps is what the draws have in common. Others keep that of the step.
        """
        count = len(self._canaries)
        if not self._random:
            return drawn, drawn.new_ones(count, dtype=torch.float64)
        new, old = drawn[:count], self._mean
        if old is None:  # nothing to compare a draw with
            self._mean = new.clone()
            return drawn, None
        along = (new * old).sum(1, dtype=torch.float64)
        along /= old.square().sum(1, dtype=torch.float64).clamp(min=1e-30)
        self._share = along if self._share is None else self._share.lerp(along, 1 - _KEPT)
        self._mean = old.lerp(new, 1 - _KEPT)
        return torch.cat([old, drawn[count:]]), self._share.clamp(0.0, 1.0)

    @torch.no_grad()
    def _is_random(self) -> bool:
        with own_draws(SYSTEM, self._canaries.device):
            once, again = (self._learner.loss(self.module, self._canaries) for _ in range(2))
        return not torch.equal(once, again)

    def __getattr__(self, name: str) -> Any:
        """Return what else the learner has of that name."""
        return getattr(self._learner, name)


def _flat(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.detach().double().flatten() for part in parts])
