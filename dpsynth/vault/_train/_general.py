"""Per-record gradients of any module that torch or Opacus can take apart, written out.

``torch.func`` comes first: it computes the loss of each record alone, whatever the module does.
Opacus has its own formulas for layers that torch cannot batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from dpsynth.vault._train._closed import Loss
from dpsynth_accounting import InvalidRequest

Gradients = dict[nn.Parameter, Tensor]
"""The gradient of each record with respect to each trainable parameter, (batch, *shape)."""

_REFUSED = (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError, IndexError)


def per_record(
    module: nn.Module, loss: Loss, records: Tensor, *, touched: bool = True
) -> Gradients:
    """Return the gradient of each record's loss.

    Args:
        module: What is trained; it is left as it was.
        loss: Maps the module and records (batch, ...) to the loss of each, float (batch,).
        records: (batch, ...), at least one.
        touched: Whether they are private, as an error has to say.

    Raises:
        InvalidRequest: Neither torch nor Opacus can take the module apart.
    """
    for way in (_by_torch, _by_opacus):
        try:
            return way(module, loss, records)
        except torch.OutOfMemoryError:
            raise
        except _REFUSED:  # its text may hold a value of a record, so it goes no further
            continue
    raise InvalidRequest(
        f"The gradients of single records were asked for, of a {type(module).__name__}.",
        "Neither torch.func.vmap nor Opacus can compute them.",
        "Use layers that one of them supports: nn.Linear, nn.Embedding, nn.Conv*, nn.LayerNorm, "
        "nn.GroupNorm, MaskedLinear, CodesLinear, or Opacus' DPGRU, DPLSTM and DPRNN.",
        touched=touched,
    )


class _Total(nn.Module):
    """A module and its loss as one module, whose parameters torch.func can replace."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, records: Tensor) -> Tensor:
        return self.loss(self.module, records).sum()


def _by_torch(module: nn.Module, loss: Loss, records: Tensor) -> Gradients:
    total = _Total(module, loss)
    named = {name: p for name, p in total.named_parameters() if p.requires_grad}

    def of_one(values: dict[str, Tensor], record: Tensor) -> Tensor:
        found = torch.func.functional_call(total, values, (record.unsqueeze(0),))
        return cast(Tensor, found)

    each = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0), randomness="different")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        found = each({name: p.detach() for name, p in named.items()}, records)
    return {p: found[name] for name, p in named.items()}


def _by_opacus(module: nn.Module, loss: Loss, records: Tensor) -> Gradients:
    with warnings.catch_warnings():
        # Opacus' hooks on the first layer, whose input needs no gradient; old calls inside it.
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="opacus")
        warnings.filterwarnings("ignore", category=FutureWarning, module="opacus")
        from opacus import GradSampleModule

        parameters = [p for p in module.parameters() if p.requires_grad]
        with _kept(module):
            hooked = GradSampleModule(module, loss_reduction="sum", strict=True)
            try:
                losses = loss(module, records)
                if losses.requires_grad:
                    losses.sum().backward()  # type: ignore[no-untyped-call]
                return {p: _sample(p, len(records)) for p in parameters}
            finally:
                hooked.to_standard_module()


def _sample(p: nn.Parameter, batch: int) -> Tensor:
    """Take what Opacus left for one parameter.

    Raises:
        ValueError: It left something else than one gradient for each record.
    """
    found = getattr(p, "grad_sample", None)
    if found is None and p.grad is None:
        return p.new_zeros(batch, *p.shape)
    if not isinstance(found, Tensor) or found.shape != (batch, *p.shape):
        raise ValueError
    return found.detach()


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Put back every attribute, hook and ``grad``: what Opacus leaves may hold records."""
    layers, parameters = list(module.modules()), list(module.parameters())
    attributes = [dict(vars(each)) for each in (*layers, *parameters)]
    hooks = [(layer._forward_hooks, layer._backward_hooks) for layer in layers]
    hooked = [[dict(each) for each in pair] for pair in hooks]
    grads = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    try:
        yield
    finally:
        for owner, own in zip((*layers, *parameters), attributes, strict=True):
            vars(owner).clear()
            vars(owner).update(own)
        for pair, before in zip(hooks, hooked, strict=True):
            for now, old in zip(pair, before, strict=True):
                for added in now.keys() - old.keys():
                    del now[added]
        for p, grad in zip(parameters, grads, strict=True):
            p.grad = grad
