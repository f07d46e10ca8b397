"""Whether a loss treats each record by itself: tried on made-up records, before any is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dpsynth.vault._train import _closed, _general
from dpsynth.vault._train._closed import Loss, Sums
from dpsynth.vault._train._gradients import empty_sums, require_plain
from dpsynth_accounting import InvalidRequest

MOST = 64
"""Greatest number of made-up records."""

_CLOSE = 1e-5  # of the greatest value: rounding differs with the number of rows in a product
_SEPARATE = "The loss and the gradient of a record are to depend on that record alone."


def require_separate(module: nn.Module, loss: Loss, records: Tensor) -> None:
    """Refuse a loss that mixes records, or a module that remembers them.

    Each record is replaced, and left out, and nothing may change for the others: not their losses,
    nor what the clipping sees of their gradients. The sum of these gradients must also be the one
    that plain differentiation finds. Random draws, as of dropout, are held still meanwhile, and the
    module is left as it was. To be called once before training, in the mode of training.

    Args:
        module: What will be trained.
        loss: Maps the module and records (batch, ...) to the loss of each, float (batch,).
        records: Made-up records, 2 to ``MOST``, at least two of which differ.

    Raises:
        InvalidRequest: Records are mixed, or remembered, or there are none that would show it.
    """
    require_plain(module)
    batch = len(records)
    differing = [_differing(records, i) for i in range(batch)]
    if not 2 <= batch <= MOST or None in differing:
        raise InvalidRequest(
            f"A loss was to be tried on {batch} made-up records.",
            f"It takes 2 to {MOST} records that are not all equal.",
            "Draw them at random from the public domain.",
        )
    before = _state(module, loss)
    with _still(records.device), torch.enable_grad():
        whole = _seen(module, loss, records)
        for i, other in enumerate(differing):
            rest = torch.arange(batch, device=records.device) != i
            replaced = records.clone()
            replaced[i] = records[other]
            _require_equal(whole, _seen(module, loss, replaced), rest, rest)
            _require_equal(whole, _seen(module, loss, records[rest]), rest, slice(None))
            # One alone, as the last physical batch may be. An empty one is never asked for.
            _require_equal(whole, _seen(module, loss, records[~rest]), ~rest, slice(None))
    if not _same(before, _state(module, loss)):
        raise _refused(
            module, "It changes when it is called, so it would remember what it saw.", "attributes"
        )


def require_defined(module: nn.Module, loss: Loss, records: Tensor) -> None:
    """Have a loss tried on made-up records; it raises, or is refused, if it is not made for them.

    Raises:
        InvalidRequest: It gives something else than one number for each record.
    """
    with _still(records.device), torch.enable_grad():
        _seen(module, loss, records)


def _differing(records: Tensor, i: int) -> int | None:
    others = (
        (records != records[i]).flatten(1).any(1) if records.dim() > 1 else records != records[i]
    )
    found = others.nonzero()
    return int(found[0]) if len(found) else None


def _seen(module: nn.Module, loss: Loss, records: Tensor) -> list[Tensor]:
    """Return all that training would take from each record: losses, and what makes gradients."""
    rules = _closed.layers(module)
    traced = None if rules is None else _closed.trace(module, loss, records, rules)
    sums = empty_sums(module)
    losses = loss(module, records)
    if losses.shape != (len(records),) or not losses.is_floating_point():
        raise _refused(module, "It gives something else than one number for each record.", "sums")
    if not sums:
        seen = []
    elif traced is not None:
        seen = [x for each in traced[1] for x in (each.a, each.g)]
        for each in traced[1]:
            each.rule.add(each.layer, each.a, each.g, sums)
    else:
        gradients = _general.per_record(module, loss, records, touched=False)
        seen = [torch.cat([gradient.flatten(1) for gradient in gradients.values()], 1)]
        for p, gradient in gradients.items():
            sums[p] = gradient.sum(0, dtype=torch.float64)
    _require_whole(module, losses, sums)
    return [losses.detach(), *seen]


def _require_whole(module: nn.Module, losses: Tensor, sums: Sums) -> None:
    """Refuse gradients of single records that do not add up to the whole one."""
    if not sums or not losses.requires_grad:
        return
    plain = torch.autograd.grad(losses.sum(), list(sums), allow_unused=True)
    found = [
        torch.zeros_like(p) if g is None else g.double() for p, g in zip(sums, plain, strict=True)
    ]
    one, other = (torch.cat([x.flatten() for x in parts]) for parts in (sums.values(), found))
    if not _close(one, other, 1e-3):
        raise _refused(module, "Its gradients do not follow from its layers alone.", "hooks")


def _require_equal(
    whole: list[Tensor], other: list[Tensor], rows: Tensor, same: Tensor | slice
) -> None:
    if len(whole) != len(other) or not all(
        _close(x[rows], y[same], _CLOSE) for x, y in zip(whole, other, strict=True)
    ):
        raise InvalidRequest(
            "Training was asked for with a loss that mixes records.",
            _SEPARATE,
            "Take nothing over the batch: no mean, no norm, no order, no number of records.",
        )


def _close(x: Tensor, y: Tensor, part: float) -> bool:
    if x.shape != y.shape:
        return False
    if not x.is_floating_point():
        return torch.equal(x, y)
    finite = x[x.isfinite()].abs()
    scale = float(finite.amax()) if len(finite) else 0.0
    return torch.allclose(x, y, rtol=part, atol=part * scale, equal_nan=True)


def _refused(module: nn.Module, limit: str, what: str) -> InvalidRequest:
    instead = {
        "attributes": "Set attributes and buffers when it is made, never in its forward pass.",
        "sums": "Sum over what is in a record, never over records.",
        "hooks": "Use no hooks on parameters, no custom gradients, and layers by calling them.",
    }
    name = type(module).__name__
    return InvalidRequest(f"Training was asked for with a {name}.", limit, instead[what])


# -- what a module remembers -----------------------------------------------------------------------


def _state(module: nn.Module, loss: Loss) -> list[tuple[object, int]]:
    """Return all that hangs on a module, and on whose method the loss is, if it is one.

    With it comes what tells whether it changed in place.
    """
    owner = getattr(loss, "__self__", None)
    return [
        (value, value._version if isinstance(value, Tensor) else _length(value))
        for value in (
            *getattr(owner, "__dict__", {}).values(),
            *(
                value
                for layer in module.modules()
                for value in (
                    *vars(layer).values(),
                    *layer._parameters.values(),
                    *layer._buffers.values(),
                )
            ),
        )
    ]


def _length(value: object) -> int:
    return len(value) if isinstance(value, list | dict | set) else 0


def _same(before: list[tuple[object, int]], after: list[tuple[object, int]]) -> bool:
    return len(before) == len(after) and all(
        x is y and changes == now for (x, changes), (y, now) in zip(before, after, strict=True)
    )


# -- random draws held still -----------------------------------------------------------------------


class _Still(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives every random draw the same value, so that runs on other batches can be compared."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return found
        if isinstance(found, tuple):  # dropout as one kernel: its output and its mask
            return args[0].clone(), torch.ones_like(found[1])
        return found.fill_(1 if found.dtype == torch.bool else 0.5)


@contextmanager
def _still(device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _Still():  # type: ignore[no-untyped-call]
        yield
