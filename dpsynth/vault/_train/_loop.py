"""DP-SGD: noisy sums of clipped gradients, each over a fresh Poisson sample of privacy units.

Abadi et al. (2016), "Deep learning with differential privacy", Algorithm 1. Here units are sampled,
and clipped, as a whole; every random bit comes from the vault's stream; and the noise is exact: the
sum is rounded to a grid and gets discrete Gaussian integers. Proof: docs/explanation/dp-sgd.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as unpacked
from safetensors.torch import save as packed
from torch import Tensor, nn

from dpsynth.domain import Domain
from dpsynth.vault import _noise
from dpsynth.vault._stream import Stream
from dpsynth.vault._train._draws import own_draws
from dpsynth.vault._train._gradients import CLIPS, clipped_sum
from dpsynth.vault._train._separate import MOST, require_defined, require_separate
from dpsynth_accounting import InvalidRequest, rational_up

MOST_PARAMETERS = 1 << 28
"""Greatest number of trained parameters."""

_FINE = 10  # binary digits by which the grid's rounding, all parameters together, is below the clip
_TRIED = 8  # made-up records on which a loss is tried for what it mixes
_SMOOTH = 8  # by which the noise's variance exceeds its claim: more than discrete noise lacks
_WHOLE = 1 << 60  # no sum on the grid comes near it
_LARGEST = {1: 1 << 20, 2: 1 << 17}  # expected rows of a batch, half of what the proof allows


class Learner(Protocol):
    """What is trained: outside code, which sees records in ``loss`` and noisy gradients alone.

    Attributes:
        module: The module whose parameters are trained.
    """

    module: nn.Module

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        """Return the loss of each record, float (batch,), each from its own record alone.

        Args:
            module: The module.
            records: int64 (batch, columns): codes, in the order of the domain's names.
        """

    def update(self, gradients: list[Tensor]) -> None:
        """Take one step, given the noisy mean gradient of each trainable parameter."""

    def state(self) -> dict[str, Tensor]:
        """Return all that is needed to go on from here: parameters, moments, number of the step."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""


@dataclass(frozen=True)
class Steps:
    """Parameters of the private steps, all public and fixed before a row is read.

    Attributes:
        rate: Probability with which a unit joins a step, rounded down to 64 bits.
        sigma: Noise multiplier that was charged.
        clip: Greatest L2 norm of a unit's gradient.
        divisor: What each noisy sum is divided by: the expected number of rows in a batch.
        shapes: Those of the trained parameters, by which samples are counted; None: any.
    """

    rate: Fraction
    sigma: Fraction
    clip: float
    divisor: float
    shapes: tuple[tuple[int, ...], ...] | None = None


def parameters(learner: Learner) -> list[nn.Parameter]:
    """Return the trainable parameters."""
    return [each for each in learner.module.parameters() if each.requires_grad]


def shapes(learner: Learner) -> tuple[tuple[int, ...], ...]:
    """Return the shape of each trainable parameter."""
    return tuple(tuple(each.shape) for each in parameters(learner))


def require(learner: Learner, steps: Steps, domain: Domain, k: int = 1) -> None:
    """Refuse what cannot be trained privately, on made-up records, before any is read.

    Args:
        learner: What is to be trained.
        steps: The parameters.
        domain: What records are made up of.
        k: Greatest number of rows of a unit.

    Raises:
        InvalidRequest: The clip, the noise or the number of rows is impossible, there is nothing
            to train, or the loss does not treat each record by itself.
    """
    count = sum(each.numel() for each in parameters(learner))
    possible = CLIPS[0] <= steps.clip <= CLIPS[1] and math.isfinite(steps.divisor)
    if not (possible and steps.divisor > 0 and 1 <= count <= MOST_PARAMETERS):
        raise InvalidRequest(
            f"Training was asked for of {count} parameters, with a clip of {steps.clip:g}.",
            f"It takes 1 to {MOST_PARAMETERS} parameters, a clip from {CLIPS[0]:g} to "
            f"{CLIPS[1]:g}, and a positive number of rows.",
            "Leave them at their defaults.",
        )
    most = _LARGEST[min(k, 2)]
    if steps.divisor > most or _sigma2(steps, count) > _noise.LARGEST_SCALE**2:
        raise InvalidRequest(
            f"Training was asked for with {steps.divisor:g} expected rows a batch, and noise of "
            f"{float(steps.sigma):g} times the clip.",
            f"Exact sums take at most {most} rows, and noise at most 2**50 steps of its grid.",
            "Lower the rate, or give the step more of the budget.",
        )
    sizes = [domain.size(name) for name in domain.names]
    if max(sizes) > 1:
        # Any two records beside each other differ; after these, every code is used somewhere.
        made = [[(i * (j + 1) + i) % size for j, size in enumerate(sizes)] for i in range(_TRIED)]
        last = [[size - 1 for size in sizes], [0 for _ in sizes]]
        device = parameters(learner)[0].device
        require_separate(learner.module, learner.loss, torch.tensor(made + last, device=device))
        every = torch.arange(max(sizes)).unsqueeze(1) % torch.tensor(sizes)
        for start in range(0, len(every), MOST):
            codes = every[start : start + MOST].to(device)
            require_defined(learner.module, learner.loss, codes)


def run(
    learner: Learner,
    records: NDArray[np.int32],
    units: NDArray[np.int64],
    steps: Steps,
    count: int,
    stream: Stream,
    told: Callable[[int, float], None],
) -> bytes:
    """Take ``count`` private steps and return the learner's state.

    Args:
        learner: What is trained.
        records: (rows, columns), private.
        units: int64 (rows,), the unit of each row, numbered from 0.
        steps: The parameters.
        count: How many steps.
        stream: Where all randomness of sampling and noise comes from.
        told: After each step gets how many are done, and the norm of the noisy mean gradient:
            both may be shown to anyone.

    Raises:
        InvalidRequest: The learner failed on a batch; its own message may hold values, and is
            withheld.
    """
    whole = torch.from_numpy(records.astype(np.int64))
    numbers = np.unique(units, return_inverse=True)[1]
    device = parameters(learner)[0].device
    before = shapes(learner) if steps.shapes is None else steps.shapes
    samples = _samples(int(numbers.max(initial=-1)) + 1, steps.rate, count, stream)
    for done, chosen in enumerate(samples, 1):
        if shapes(learner) != before:
            raise InvalidRequest(
                "A step of DP-SGD was asked for of other parameters than the training began with.",
                "The noise of each is counted beforehand.",
                "Make all parameters, and choose which are trained, before the training.",
                touched=True,
            )
        rows = np.flatnonzero(chosen[numbers])
        local = (np.cumsum(chosen) - 1)[numbers[rows]]
        batch = whole[torch.from_numpy(rows)].to(device)
        sums: list[Tensor] | None = None
        try:
            with own_draws(stream, device):
                sums = clipped_sum(
                    learner.module,
                    learner.loss,
                    batch,
                    torch.from_numpy(local).to(device),
                    int(chosen.sum()),
                    steps.clip,
                )
        except InvalidRequest:
            raise
        except Exception:
            sums = None
        if sums is None:  # raised out here: the learner's own error could hold a record
            raise InvalidRequest(
                "A step of DP-SGD was asked for.",
                "The learner's loss failed on a batch of records.",
                "Try it on made-up records with every code of the domain.",
                touched=True,
            )
        means = noisy(sums, steps, stream)
        pairs = zip(means, parameters(learner), strict=True)
        learner.update([mean.to(p.dtype) for mean, p in pairs])
        told(done, math.sqrt(math.fsum(float(mean.square().sum()) for mean in means)))
    return packed({name: each.contiguous() for name, each in learner.state().items()})


def resume(learner: Learner, state: bytes) -> None:
    """Let the learner go on from a state that :func:`run` returned."""
    learner.load(unpacked(state))


def noisy(sums: list[Tensor], steps: Steps, stream: Stream) -> list[Tensor]:
    """Return the sums with exact noise, divided.

    The sums are rounded to multiples of clip / 2**bits. Rounding moves two of them apart by at most
    sqrt(parameters) of these, a 2**-10 part of the clip; the sums' own rounding in float64 is
    given as much. The noise is wider by both.

    Raises:
        InvalidRequest: A sum is beyond what any number of clipped gradients adds up to.
    """
    sizes = [each.shape for each in sums]
    flat = np.concatenate([each.detach().cpu().numpy().ravel().astype(np.float64) for each in sums])
    grid = steps.clip / 2 ** _bits(flat.size)
    flat /= grid
    if not bool((np.abs(flat) < _WHOLE).all()):
        raise InvalidRequest(
            "Noise was to be added to a sum of gradients.",
            "The sum is no number, or beyond all that clipped gradients add up to.",
            "Report this: no module should bring it about.",
            touched=True,
        )
    whole = np.rint(flat).astype(np.int64)
    sigma2 = _sigma2(steps, flat.size)
    whole += _noise.discrete_gaussian(sigma2, whole.shape, stream)
    mean = whole * (grid / steps.divisor)
    parts = np.split(mean, np.cumsum([shape.numel() for shape in sizes])[:-1])
    return [
        torch.from_numpy(part.reshape(shape)).to(device=each.device, dtype=each.dtype)
        for part, shape, each in zip(parts, sizes, sums, strict=True)
    ]


def _bits(count: int) -> int:
    """Return how many binary digits of the clip the grid has, for so many parameters."""
    return _FINE + -(-(count - 1).bit_length() // 2)


def _sigma2(steps: Steps, count: int) -> Fraction:
    """Return the variance of the integer noise of each of so many parameters."""
    scale = steps.sigma * (1 << _bits(count)) * (1 + Fraction(2, 1 << _FINE))
    return rational_up(scale * scale) + _SMOOTH


def _samples(units: int, rate: Fraction, count: int, stream: Stream) -> Iterator[NDArray[np.bool_]]:
    """Yield which units join each step, independently of each other and of the other steps."""
    threshold = int(rate * (1 << 64))  # rounded down: no unit joins more often than was charged
    for _ in range(count):
        if threshold >= 1 << 64:
            yield np.ones(units, dtype=np.bool_)
        else:
            yield stream.words(units) < np.uint64(threshold)
