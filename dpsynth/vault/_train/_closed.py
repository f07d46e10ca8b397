"""Inner products and sums of per-record gradients of a few layers, never written out.

In a layer that is called once, with one row for each record, the gradient of record r is fixed by
the row a_r that went in and the gradient g_r of its loss with respect to the row that came out: for
a linear layer it is the outer product of the two. So norms follow from products of rows, and a
weighted sum over records is one matrix product. All norms are taken in float64, where no finite
float32 row overflows or vanishes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from dpsynth.vault._train._layers import CodesLinear, MaskedLinear

Loss = Callable[[nn.Module, Tensor], Tensor]
"""Maps a module and records (batch, ...) to the loss of each, float (batch,)."""

Sums = dict[Tensor, Tensor]
"""The running sum of clipped gradients of each trainable parameter, float64 whatever it is."""

_LARGEST = {torch.float32: 1e18, torch.float64: 1e66}
"""Greatest squared norm of a row that goes into a layer, by the precision of the formulas. In
float32, what rounding adds to the other factor would matter beyond it; beyond the second, factors
that are float32 again are not exact enough whatever the norm."""


class Rule(Protocol):
    """What is known of the gradients of one type of layer."""

    def fits(self, layer: nn.Module, a: Tensor, batch: int) -> bool:
        """Say whether the formulas hold for this layer and what went into it."""
        ...

    def gram(self, layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
        """Return the inner products of the gradients of the records of each unit.

        Args:
            layer: The layer, some of whose parameters are trainable.
            a: (units, records, ...), what went in.
            g: (units, records, outputs), gradients with respect to what came out.

        Returns:
            float64 (units, records, records), rounded up. In float32, what is too large for the
            formulas is not finite: it is to be asked for again in float64.
        """
        ...

    def add(self, layer: nn.Module, a: Tensor, g: Tensor, sums: Sums) -> None:
        """Add the sum of the gradients of all records, for a and g of shape (records, ...).

        In float64: no product of float32 is rounded, and a sum of n is off by n * 2**-53 of it.
        """
        ...


class _Linear:
    def fits(self, layer: nn.Module, a: Tensor, batch: int) -> bool:
        return a.dim() == 2 and len(a) == batch and a.dtype == cast(nn.Linear, layer).weight.dtype

    def gram(self, layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
        linear = cast(nn.Linear, layer)
        out = _products(g)
        if not linear.weight.requires_grad:
            return out
        return out.mul_(_tamed(_products(a), a.dtype).add_(_trains(linear.bias)))

    def add(self, layer: nn.Module, a: Tensor, g: Tensor, sums: Sums) -> None:
        linear = cast(nn.Linear, layer)
        if linear.weight.requires_grad:
            sums[linear.weight].addmm_(g.double().t(), a.double())
        _add_bias(linear.bias, g, sums)


class _Masked(_Linear):
    """As linear, but the mask stands between the two rows, so norms take a matrix product."""

    def gram(self, layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
        masked = cast(MaskedLinear, layer)
        units, records, outputs = g.shape
        if not masked.weight.requires_grad:
            return _products(g)
        # Rows scaled to 1 at most do not overflow in the one product that is not in float64.
        scale = g.abs().amax(2, keepdim=True).clamp_(min=torch.finfo(g.dtype).tiny)
        g, wide, scales = g / scale, a.double(), scale.squeeze(2).double()
        found = wide.new_empty(units, records, records)
        for r in range(records):
            pairs = (g[:, r : r + 1] * g[:, r:]).flatten(0, 1)
            seen = (pairs @ masked.mask.to(pairs.dtype)).view(units, records - r, -1)
            products = (wide[:, r : r + 1] * wide[:, r:]).mul_(seen).sum(2)
            if masked.bias is not None and masked.bias.requires_grad:
                products.add_(pairs.sum(1, dtype=torch.float64).view(units, -1))
            products.mul_(scales[:, r : r + 1] * scales[:, r:])
            found[:, r, r:] = products
            found[:, r:, r] = products
        # Each entry may be wrong by (outputs * rounding) times the product of two norms, and by
        # products below the smallest normal number: the diagonal takes the sum of all such errors,
        # so what follows is never less than the truth.
        kind = torch.finfo(g.dtype)
        sizes: Tensor = torch.linalg.vector_norm(a, dim=2).double().square_()
        diagonal = found.diagonal(dim1=1, dim2=2)
        diagonal.mul_(1 + 2 * records * (outputs + 4) * kind.eps)
        diagonal.addcmul_(sizes, scales.square(), value=2 * records * outputs * kind.tiny)
        diagonal.masked_fill_(_tamed(sizes, a.dtype).isinf(), torch.inf)
        return found

    def add(self, layer: nn.Module, a: Tensor, g: Tensor, sums: Sums) -> None:
        super().add(layer, a, g, sums)
        masked = cast(MaskedLinear, layer)
        if masked.weight.requires_grad:
            # Filled, not multiplied: zero times what is not finite is not zero.
            sums[masked.weight].masked_fill_(masked.mask == 0, 0.0)


class _Embedding:
    def fits(self, layer: nn.Module, a: Tensor, batch: int) -> bool:
        table = cast(nn.Embedding, layer)
        plain = table.padding_idx is None and table.max_norm is None
        return plain and not table.scale_grad_by_freq and a.shape == (batch,)

    def gram(self, layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
        return _products(g).mul_(a.unsqueeze(2) == a.unsqueeze(1))

    def add(self, layer: nn.Module, a: Tensor, g: Tensor, sums: Sums) -> None:
        sums[cast(nn.Embedding, layer).weight].index_add_(0, a, g.double())


class _Codes:
    """Two records share a row of weights in each column where their codes are equal."""

    def fits(self, layer: nn.Module, a: Tensor, batch: int) -> bool:
        # A code beyond its column's would share a row of weights with another column's.
        sizes = cast(CodesLinear, layer).sizes
        return a.shape == (batch, len(sizes)) and bool(((a >= 0) & (a < sizes)).all())

    def gram(self, layer: nn.Module, a: Tensor, g: Tensor) -> Tensor:
        codes, records = cast(CodesLinear, layer), a.shape[1]
        bias = _trains(codes.bias)
        if not codes.weight.requires_grad:
            return _products(g)
        if codes.mask is None:
            equal = (a.unsqueeze(2) == a.unsqueeze(1)).sum(3)
            return _products(g).mul_(equal + bias)
        wide, mask = g.double(), codes.mask.double()
        if records == 1:
            return (wide.square() @ mask.sum(0).add_(bias)).unsqueeze(2)
        found = wide.new_empty(len(g), records, records)
        for r in range(records):
            equal = (a[:, r : r + 1] == a[:, r:]).double() @ mask
            products = (wide[:, r : r + 1] * wide[:, r:]).mul_(equal.add_(bias)).sum(2)
            found[:, r, r:] = products
            found[:, r:, r] = products
        return found

    def add(self, layer: nn.Module, a: Tensor, g: Tensor, sums: Sums) -> None:
        codes = cast(CodesLinear, layer)
        if codes.weight.requires_grad:
            total, wide = sums[codes.weight], g.double()
            for column in (a + codes.offsets).unbind(1):
                total.index_add_(0, column, wide)
            if codes.wide_mask is not None:
                total.masked_fill_(codes.wide_mask == 0, 0.0)
        _add_bias(codes.bias, g, sums)


_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _Linear(),
    MaskedLinear: _Masked(),
    nn.Embedding: _Embedding(),
    CodesLinear: _Codes(),
}


@dataclass(frozen=True, eq=False)
class Traced:
    """One layer in one pass: its rule, what went in, and the gradient of what came out."""

    layer: nn.Module
    rule: Rule
    a: Tensor
    g: Tensor


def layers(module: nn.Module) -> dict[nn.Module, Rule] | None:
    """Return the layers that hold trainable parameters, or None if one has no closed form."""
    found: dict[nn.Module, Rule] = {}
    owned: set[nn.Parameter] = set()
    for layer in module.modules():
        own = {
            name: p for name, p in layer._parameters.items() if p is not None and p.requires_grad
        }
        if not own:
            continue
        rule = _RULES.get(type(layer))  # exact: a subclass may compute anything
        plain = own.keys() <= {"weight", "bias"} and owned.isdisjoint(own.values())
        if rule is None or not plain or _is_touched(layer, own.values()):
            return None
        owned.update(own.values())
        found[layer] = rule
    return found


def trace(
    module: nn.Module, loss: Loss, records: Tensor, rules: dict[nn.Module, Rule]
) -> tuple[Tensor, list[Traced]] | None:
    """Run one pass forward and one back, and return the losses and what each layer saw.

    Returns:
        The losses and each layer that took part; None if a layer was used in a way for which its
        formulas do not hold.
    """
    seen: dict[nn.Module, tuple[Tensor, int, GradientEdge]] = {}
    fits = True

    def keep(layer: nn.Module, given: tuple[object, ...], output: object) -> None:
        nonlocal fits
        a = given[0] if len(given) == 1 else None
        usable = isinstance(a, Tensor) and isinstance(output, Tensor) and output.requires_grad
        if not usable or layer in seen or not rules[layer].fits(layer, cast(Tensor, a), batch):
            fits = False
            return
        a, z = cast(Tensor, a).detach(), cast(Tensor, output)
        # The edge, not the tensor: what changes z in place, such as a ReLU, comes after it.
        seen[layer] = a, a._version, get_gradient_edge(z)

    batch = len(records)
    handles = [layer.register_forward_hook(keep) for layer in rules]
    try:
        losses = loss(module, records)
    finally:
        for handle in handles:
            handle.remove()
    if not fits or any(a._version != version for a, version, _ in seen.values()):
        return None
    if not losses.requires_grad:
        return losses, []
    uses = _uses(losses.grad_fn)
    for layer in rules:
        most = 1 if layer in seen else 0
        if any(uses.get(p, 0) > most for p in layer._parameters.values() if p is not None):
            return None
    if not seen:
        return losses, []
    edges = [edge for _, _, edge in seen.values()]
    gradients = torch.autograd.grad(losses.sum(), edges, allow_unused=True)
    return losses, [
        Traced(layer, rules[layer], a, g)
        for (layer, (a, _, _)), g in zip(seen.items(), gradients, strict=True)
        if g is not None
    ]


def _is_touched(layer: nn.Module, own: Iterable[nn.Parameter]) -> bool:
    """Say whether something but the layer's class has a say in what it computes."""
    hooks = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
    )
    return any(hooks) or "forward" in vars(layer) or any(p._backward_hooks for p in own)


def _uses(start: Node | None) -> dict[Tensor, int]:
    """Count how often each parameter enters the graph that ends in ``start``."""
    uses: dict[Tensor, int] = {}
    stack, met = [start], {start}
    while stack:
        node = stack.pop()
        for after, _ in node.next_functions if node is not None else ():
            if after is None:
                continue
            variable = getattr(after, "variable", None)
            if isinstance(variable, Tensor):
                uses[variable] = uses.get(variable, 0) + 1
            elif after not in met:
                met.add(after)
                stack.append(after)
    return uses


def _products(x: Tensor) -> Tensor:
    """Return the float64 (units, records, records) inner products of the rows of each unit.

    Those of single float32 rows are rounded up: by the rounding of a sum of squares in any order,
    and by what squares below the smallest normal number lose.
    """
    if x.shape[1] > 1:
        wide = x.double()
        return torch.bmm(wide, wide.transpose(1, 2))
    if x.dtype == torch.float64:
        return x.square().sum(2, keepdim=True)
    columns, kind = x.shape[2], torch.finfo(x.dtype)
    norms: Tensor = torch.linalg.vector_norm(x, dim=2, keepdim=True).double()
    return (
        norms.mul_(1 + (columns + 4) * kind.eps / 2).add_(math.sqrt(columns * kind.tiny)).square_()
    )


def _tamed(products: Tensor, dtype: torch.dtype) -> Tensor:
    """Replace what is too large for formulas in this precision by infinity."""
    return products.masked_fill_(~(products <= _LARGEST[dtype]), torch.inf)


def _trains(bias: Tensor | None) -> int:
    return int(bias is not None and bias.requires_grad)


def _add_bias(bias: nn.Parameter | None, g: Tensor, sums: Sums) -> None:
    if bias is not None and bias.requires_grad:
        sums[bias].add_(g.sum(0, dtype=torch.float64))
