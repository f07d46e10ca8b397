"""The network of the autoregressive generator: log-linear in the codes before, and hidden units.

Masked as in Germain, Gregor, Murray, Larochelle (2015), "MADE: masked autoencoder for distribution
estimation", section 3, but in one layer a group of columns, so that there are few masked weights:
private training adds noise to every one. Each layer is called once, so clipping has closed forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dpsynth.deep._layout import Group, Layout
from dpsynth.vault._train import CodesLinear, MaskedLinear

Floats = NDArray[np.float32]


class Network(nn.Module):
    """Maps records to minus their log-likelihood.

    Args:
        layout: What there is.
        places: For each column in the layout's order, its place in a record.
        log_shares: For each column in that order, float (size,): what its logits start at.
        maps: For each column in that order, int64 (size,): the coarse code it is read by.
    """

    places: Tensor
    starts: Tensor
    coarse: Tensor

    def __init__(
        self,
        layout: Layout,
        places: Sequence[int],
        log_shares: Sequence[NDArray[np.float64]],
        maps: Sequence[NDArray[np.int64]],
    ) -> None:
        super().__init__()
        self.layout = layout
        self.register_buffer("places", torch.tensor(list(places)), persistent=False)
        self.register_buffer("starts", torch.tensor(layout.starts[:-1]), persistent=False)
        self.register_buffer("coarse", torch.from_numpy(np.concatenate(maps)), persistent=False)
        self.heads = nn.ModuleList(_head(layout, group) for group in layout.groups)
        self.inner: CodesLinear | None = None
        self.outers = nn.ModuleDict()
        if layout.hidden:
            self.inner = _inner(layout)
            for i, group in enumerate(layout.groups):
                if layout.units(group.stop - 1):
                    self.outers[str(i)] = _outer(layout, group)
        self._start(log_shares)

    @torch.no_grad()
    def _start(self, log_shares: Sequence[NDArray[np.float64]]) -> None:
        """Begin as independent columns, whatever the state of torch's own generator."""
        for head, group in zip(self.heads, self.layout.groups, strict=True):
            nn.init.zeros_(_weight(head))
            bias = np.concatenate(log_shares[group.start : group.stop])
            _weight(head)[0] = torch.from_numpy(bias)
        for outer in self.outers.values():
            nn.init.zeros_(_weight(outer))
        if self.inner is not None and self.inner.bias is not None:
            # A unit sees one weight of each of its columns, so their sum is about 1 in size.
            spread = (3 / self.layout.degrees) ** 0.5
            draws = np.random.default_rng(0).uniform(-1, 1, tuple(self.inner.weight.shape))
            self.inner.weight.copy_(torch.from_numpy(draws * spread))
            nn.init.zeros_(self.inner.bias)

    def forward(self, records: Tensor) -> Tensor:
        """Return minus the natural logarithm of each record's probability, float (batch,).

        Args:
            records: int64 (batch, columns): codes, in the order of the domain's names.
        """
        codes = records[:, self.places]
        read = self.coarse[codes + self.starts]
        seen = functional.pad(read, (1, 0))  # the constant is a column of one code
        units = None if self.inner is None else torch.relu(self.inner(read[:, :-1]))
        total = records.new_zeros(len(records), dtype=torch.float32)
        for i, (head, group) in enumerate(zip(self.heads, self.layout.groups, strict=True)):
            logits = head(seen[:, : group.stop])
            if units is not None and str(i) in self.outers:
                outer = self.outers[str(i)]
                logits = logits + outer(units[:, : self.layout.units(group.stop - 1)])
            parts = logits.split(self.layout.sizes[group.start : group.stop], 1)
            for part, code in zip(parts, codes[:, group.start : group.stop].unbind(1), strict=True):
                total = total + functional.cross_entropy(part, code, reduction="none")
        return total

    def arrays(self, values: Mapping[nn.Parameter, Tensor]) -> dict[str, Floats]:
        """Return values of the parameters as arrays of the layout's names and shapes.

        Args:
            values: For each parameter, a tensor of its shape.
        """
        named = {f"head_{i}": _weight(head) for i, head in enumerate(self.heads)}
        named |= {f"outer_{i}": _weight(outer) for i, outer in self.outers.items()}
        if self.inner is not None and self.inner.bias is not None:
            named |= {"inner": self.inner.weight, "inner_bias": self.inner.bias}
        return {
            name: values[named[name]].detach().cpu().numpy().astype(np.float32)
            for name in self.layout.shapes
        }


def _weight(layer: nn.Module) -> nn.Parameter:
    weight = layer.weight
    if not isinstance(weight, nn.Parameter):
        raise TypeError("a network is made of layers that have a weight")
    return weight


def _head(layout: Layout, group: Group) -> CodesLinear:
    seen = (1, *layout.inputs[: group.stop - 1])
    mask = None
    if group.stop - group.start > 1:
        column = np.arange(len(seen))[:, None]  # 0 is the constant, then the columns in order
        mask = torch.from_numpy(column <= _of_logits(layout, group)[None, :])
    return CodesLinear(seen, group.width, mask, bias=False)


def _inner(layout: Layout) -> CodesLinear:
    column = np.arange(len(layout.sizes) - 1)[:, None]
    mask = torch.from_numpy(column < layout.degrees[None, :])
    return CodesLinear(layout.inputs[:-1], layout.hidden, mask)


def _outer(layout: Layout, group: Group) -> nn.Module:
    units = layout.units(group.stop - 1)
    if group.stop - group.start == 1:
        return nn.Linear(units, group.width, bias=False)
    allowed = layout.degrees[None, :units] <= _of_logits(layout, group)[:, None]
    return MaskedLinear(units, group.width, torch.from_numpy(allowed), bias=False)


def _of_logits(layout: Layout, group: Group) -> NDArray[np.int64]:
    """Return the place of the column that each logit of a group is of, int64 (width,)."""
    return np.repeat(np.arange(group.start, group.stop), layout.sizes[group.start : group.stop])
