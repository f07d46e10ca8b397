"""The sum of clipped gradients of privacy units: what DP-SGD adds its noise to.

The gradient of a unit is the sum of those of its records. It is scaled down to the clip, or to
nothing if it is not finite, so adding or removing one unit moves the sum by at most the clip in L2
norm. The factor is taken a hundred-thousandth below it, so that rounding of a unit's own gradient
and factor cannot exceed it; what remains is the rounding of the sum over units, which no clip
bounds. It is taken in float64; docs/explanation/dp-sgd.md says up to how many units it is small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpsynth.vault._train import _closed, _general
from dpsynth.vault._train._closed import Loss, Sums, Traced
from dpsynth_accounting import InvalidRequest

CLIPS = (1e-6, 1e6)
"""Least and greatest clip: between them, factors and clipped gradients are normal float32."""

_BELOW = 1 - 1e-5
_LEAST_FACTOR = 1e-36  # smaller ones are not exact in float32: what needs one counts as not finite
_CANCELLED = 2.0**-5

_MIXING = (nn.modules.batchnorm._BatchNorm,)


def clipped_sum(
    module: nn.Module,
    loss: Loss,
    records: Tensor,
    units: Tensor,
    count: int,
    clip: float,
    physical: int = 1024,
) -> list[Tensor]:
    """Return the sum over units of their gradients, each clipped to the same L2 norm.

    Layers of an allow-list, each used once, take closed forms; any other module takes the slow way
    of :mod:`~dpsynth.vault._train._general`, whose memory grows with records times parameters.

    Args:
        module: What is trained. It is left as it was: no hooks, no gradients.
        loss: Maps the module and records (batch, ...) to the loss of each, float (batch,).
        records: (batch, ...), on the module's device. The batch may be empty.
        units: int64 (batch,), the privacy unit of each record, 0..count-1, in any order.
        count: How many units there are; one without records adds nothing.
        clip: Greatest L2 norm of one unit's part in the sum, over all parameters together.
        physical: Greatest number of records in memory at once; a unit that has more is taken
            whole, so the units' bound on records is the other bound on memory.

    Returns:
        A float64 sum for each trainable parameter, in the order of ``module.parameters()``.

    Raises:
        InvalidRequest: The module mixes records, no way takes it apart, its numbers are not
            float32 or float64 at full precision, or an argument is impossible.
    """
    require_plain(module)
    _require(units, len(records), count, clip, physical)
    sums: Sums = empty_sums(module)
    if not sums:
        return []
    rules = _closed.layers(module)
    with torch.enable_grad():
        for batch in _batches(units, physical):
            taken = records[batch.rows]
            traced = None if rules is None else _closed.trace(module, loss, taken, rules)
            if traced is None:
                rules = None
                _add_general(_general.per_record(module, loss, taken), batch.runs, clip, sums)
            else:
                _add_closed(traced, batch.runs, clip, sums)
    return list(sums.values())


def empty_sums(module: nn.Module) -> Sums:
    """Return a sum of nothing for each trainable parameter."""
    each = (p for p in module.parameters() if p.requires_grad)
    return {p: torch.zeros_like(p, dtype=torch.float64) for p in each}


def require_plain(module: nn.Module) -> None:
    """Refuse modules that are known to mix records, and numbers too coarse to bound a norm.

    Raises:
        InvalidRequest: There is one, named by its class.
    """
    for layer in module.modules():
        if isinstance(layer, _MIXING) and (layer.training or layer.running_mean is None):
            raise InvalidRequest(
                f"Training was asked for with a {type(layer).__name__}.",
                "It mixes the records of a batch, so no record's part can be bounded.",
                "Use nn.GroupNorm or nn.LayerNorm.",
            )
    coarse = _is_coarse()
    for p in module.parameters():
        mixed = torch.is_autocast_enabled(p.device.type)
        if p.dtype not in (torch.float32, torch.float64) or coarse or mixed:
            raise InvalidRequest(
                "Training was asked for with numbers of less than single precision.",
                "Their rounding could exceed the clip.",
                "Use float32 without autocast, and matrix products of the highest precision.",
            )


def _is_coarse() -> bool:
    """Say whether matrix products of float32 may round their factors."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # torch's newer switches say something else than its older one
        return True


@dataclass(frozen=True, eq=False)
class _Batch:
    """Records that are in memory at once, whole units, those of equal size side by side.

    Attributes:
        rows: Which records.
        runs: (records per unit, units) of each run of units, in the order of the rows.
    """

    rows: slice | Tensor
    runs: list[tuple[int, int]]


def _batches(units: Tensor, physical: int) -> Iterator[_Batch]:
    """Yield all records, each once, at most so many at a time unless one unit has more."""
    sizes = torch.bincount(units.cpu())
    if int(sizes.amax() if len(sizes) else 0) <= 1:
        for start in range(0, len(units), physical):
            stop = min(start + physical, len(units))
            yield _Batch(slice(start, stop), [(1, stop - start)])
        return
    order = torch.argsort(units)
    order = order[torch.argsort(sizes.to(units.device)[units[order]], stable=True)]
    runs: list[tuple[int, int]] = []
    start = stop = 0
    for size, left in enumerate(torch.bincount(sizes).tolist()[1:], 1):
        while left:
            number = min(left, max(physical - (stop - start), 0) // size)
            if not number and stop > start:
                yield _Batch(order[start:stop], runs)
                start, runs = stop, []
                continue
            number = max(number, 1)
            runs.append((size, number))
            stop, left = stop + size * number, left - number
    if stop > start:
        yield _Batch(order[start:stop], runs)


def _factors(squares: Tensor, clip: float) -> Tensor:
    """Return the factor of each unit from its squared norm, float64 (units,)."""
    norms = squares.sqrt()
    factors = (clip * _BELOW / norms).clamp_(max=1.0)
    return factors.masked_fill_(~(norms.isfinite() & (factors >= _LEAST_FACTOR)), 0.0)


def _add_closed(
    traced: tuple[Tensor, list[Traced]], runs: list[tuple[int, int]], clip: float, sums: Sums
) -> None:
    losses, layers = traced
    _require_losses(losses, sum(size * number for size, number in runs))
    if not layers:
        return
    found, start = [], 0
    for size, number in runs:
        stop = start + size * number
        squares = _squares(_gram(layers, start, size, number))
        sound = squares.isfinite()
        if not bool(sound.all()):
            # Only there: the rest keep their rounding, so that no unit moves another's factor.
            exact = _squares(_gram(layers, start, size, number, torch.float64))
            squares = torch.where(sound, squares, exact)
        found.append(_factors(squares, clip).repeat_interleave(size))
        start = stop
    factors = found[0] if len(found) == 1 else torch.cat(found)
    kept = factors > 0
    whole = bool(kept.all())
    for each in layers:
        a, g = each.a, each.g
        if not whole:  # zero times what is not finite is not zero
            g = g.masked_fill(~kept.unsqueeze(1), 0.0)
            if a.is_floating_point():
                a = a.masked_fill(~kept.unsqueeze(1), 0.0)
        each.rule.add(each.layer, a, g * factors.to(g.dtype).unsqueeze(1), sums)


def _gram(
    layers: list[Traced], start: int, size: int, number: int, dtype: torch.dtype | None = None
) -> Tensor:
    """Return the inner products of the whole gradients of the records of each of some units."""
    total: Tensor | None = None
    for each in layers:
        rows = slice(start, start + size * number)
        a, g = (x[rows].reshape(number, size, *x.shape[1:]) for x in (each.a, each.g))
        if dtype is not None:
            a, g = a.to(dtype) if a.is_floating_point() else a, g.to(dtype)
        part = each.rule.gram(each.layer, a, g)
        total = part if total is None else total.add_(part)
    return total if total is not None else torch.zeros(number, size, size)


def _squares(gram: Tensor) -> Tensor:
    """Return the squared norm of each unit's gradient from the inner products of its records.

    Where large gradients of one unit's records cancel, what is left of them holds their rounding,
    so the norm is taken to be at least a small part of the sum of their norms.
    """
    if gram.shape[1] == 1:
        return gram.view(-1)
    spread = gram.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().sum(1)
    return torch.maximum(gram.sum((1, 2)), (spread * _CANCELLED).square_())


def _add_general(
    gradients: _general.Gradients, runs: list[tuple[int, int]], clip: float, sums: Sums
) -> None:
    start = 0
    for size, number in runs:
        stop = start + size * number
        of_units = {
            p: each[start:stop].reshape(number, size, -1).sum(1) for p, each in gradients.items()
        }
        squares = [x.double().square().sum(1) for x in of_units.values()]
        factors = _factors(torch.stack(squares).sum(0), clip)
        lost = (factors == 0).unsqueeze(1)
        for p, x in of_units.items():
            x = x.masked_fill(lost, 0.0)
            sums[p].add_((factors @ x.double()).view(p.shape))
        start = stop


def _require(units: Tensor, batch: int, count: int, clip: float, physical: int) -> None:
    if units.shape != (batch,) or units.dtype != torch.int64:
        raise _impossible("units of another shape or type", "One int64 for each record.")
    if batch and not (int(units.amin()) >= 0 and int(units.amax()) < count):
        raise _impossible("units outside 0..count-1", "The count of the units.")
    if not (math.isfinite(clip) and CLIPS[0] <= clip <= CLIPS[1]):
        raise _impossible(f"a clip of {clip!r}", f"A clip from {CLIPS[0]:g} to {CLIPS[1]:g}.")
    if physical < 1:
        raise _impossible(f"a physical batch of {physical}", "A batch of at least one record.")


def _require_losses(losses: Tensor, batch: int) -> None:
    if losses.shape != (batch,):
        raise InvalidRequest(
            f"A loss gave a tensor of {losses.dim()} dimensions.",
            "It gives one number for each record.",
            "Sum over what is in a record, never over records.",
            touched=True,
        )


def _impossible(asked: str, instead: str) -> InvalidRequest:
    return InvalidRequest(
        f"A sum of gradients was asked for with {asked}.",
        "It clips the gradient of each unit once.",
        f"Give this: {instead}",
    )
