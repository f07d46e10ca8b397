"""Two layers whose clipped gradients have a closed form: masked, and fed with integer codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpsynth_accounting import InvalidRequest


class MaskedLinear(nn.Module):
    """An affine map some of whose weights are held at zero.

    Args:
        inputs: How many inputs.
        outputs: How many outputs.
        mask: (outputs, inputs), of zeros and ones: which weights there are. It is part of the
            architecture, so no state holds it and loading a state cannot change it.
        bias: Whether outputs have a bias.

    Raises:
        InvalidRequest: The mask has another shape, or something but zeros and ones.
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, mask: Tensor, bias: bool = True) -> None:
        super().__init__()
        _require_mask(mask, (outputs, inputs))
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)
        _spread(self.weight, self.bias, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (..., inputs) to float (..., outputs)."""
        return functional.linear(x, self.weight * self.mask, self.bias)


class CodesLinear(nn.Module):
    """The affine map of the one-hot encodings of integer codes, which it never writes out.

    Args:
        sizes: How many codes each column has: 0..size-1.
        outputs: How many outputs.
        mask: (columns, outputs), of zeros and ones: which outputs may see a column, so that this
            can be the first layer of a masked autoregressive network. None for all.
        bias: Whether outputs have a bias.

    Raises:
        InvalidRequest: There are no columns, or the mask has another shape, or something but zeros
            and ones.
    """

    sizes: Tensor
    offsets: Tensor
    mask: Tensor | None
    wide_mask: Tensor | None

    def __init__(
        self, sizes: Sequence[int], outputs: int, mask: Tensor | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1:
            raise InvalidRequest(
                "A layer of codes was asked for with no columns, or an empty one.",
                "It sums a row of weights for each column.",
                "Give the size of each column, at least 1.",
            )
        counts = torch.tensor(list(sizes))
        self.weight = nn.Parameter(torch.empty(sum(sizes), outputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.register_buffer("sizes", counts, persistent=False)
        self.register_buffer("offsets", counts.cumsum(0) - counts, persistent=False)
        wide = None
        if mask is not None:
            _require_mask(mask, (len(sizes), outputs))
            mask = mask.to(self.weight.dtype)
            wide = mask.repeat_interleave(counts, 0)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("wide_mask", wide, persistent=False)
        _spread(self.weight, self.bias, len(sizes))

    def forward(self, codes: Tensor) -> Tensor:
        """Map int64 (batch, columns) to float (batch, outputs)."""
        weight = self.weight if self.wide_mask is None else self.weight * self.wide_mask
        rows = codes + self.offsets
        if len(rows) == 1:  # also the form in which torch.func can batch it
            found = functional.embedding(rows, weight).sum(1)
        else:
            found = functional.embedding_bag(rows, weight, mode="sum")
        return found if self.bias is None else found + self.bias


def _require_mask(mask: Tensor, shape: tuple[int, int]) -> None:
    if mask.shape != shape or not bool(((mask == 0) | (mask == 1)).all()):
        raise InvalidRequest(
            f"A mask of shape {tuple(mask.shape)} was asked for.",
            f"A mask of this layer has the shape {shape} and holds zeros and ones.",
            "Give such a mask.",
        )


def _spread(weight: Tensor, bias: Tensor | None, inputs: int) -> None:
    """Draw weights as torch draws those of a linear layer with that many inputs that count."""
    bound = max(inputs, 1) ** -0.5
    nn.init.uniform_(weight, -bound, bound)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound)
