"""Clipped sums of gradients beside the slow loop, and what must never exceed the clip."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from dpsynth.deep import CodesLinear, MaskedLinear
from dpsynth.vault._train import _closed, _general, clipped_sum, require_separate
from dpsynth_accounting import InvalidRequest

Loss = Callable[[nn.Module, Tensor], Tensor]
SIZES = (3, 5, 2, 7)
BATCH = 23


# -- modules, losses and records -------------------------------------------------------------------


def squares(module: nn.Module, x: Tensor) -> Tensor:
    return module(x).square().sum(1)


def first_code(module: nn.Module, x: Tensor) -> Tensor:
    return functional.cross_entropy(module(x), x[:, 0], reduction="none")


def label(module: nn.Module, x: Tensor) -> Tensor:
    """A loss with bounded derivatives, however large the inputs."""
    return functional.cross_entropy(module(x), torch.arange(len(x)) * 0, reduction="none")


def floats(batch: int) -> Tensor:
    return torch.randn(batch, 6)


def codes(batch: int) -> Tensor:
    return torch.stack([torch.randint(0, size, (batch,)) for size in SIZES], 1)


def mlp(in_place: bool = False) -> nn.Module:
    first, second = nn.Linear(6, 8), nn.Linear(8, 8, bias=False)
    return nn.Sequential(first, nn.ReLU(in_place), second, nn.Tanh(), nn.Linear(8, 3))


def made() -> nn.Module:
    first = torch.randint(0, 2, (len(SIZES), 9))
    second = torch.randint(0, 2, (7, 9))
    return nn.Sequential(CodesLinear(SIZES, 9, first), nn.Tanh(), MaskedLinear(9, 7, second))


def coded() -> nn.Module:
    return nn.Sequential(CodesLinear(SIZES, 9, bias=False), nn.Tanh(), nn.Linear(9, 4))


class Skip(nn.Module):
    """The gradients of both layers are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 4), MaskedLinear(6, 4, torch.ones(4, 6), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.two(x)


def embedded() -> nn.Module:
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))


def frozen() -> nn.Module:
    module = mlp()
    module[0].weight.requires_grad_(False)
    module[4].bias.requires_grad_(False)
    return module


CASES = {
    "mlp": (mlp, squares, floats),
    "in place": (lambda: mlp(in_place=True), squares, floats),
    "made": (made, first_code, codes),
    "coded": (coded, squares, codes),
    "skip": (Skip, squares, floats),
    "embedded": (embedded, squares, lambda batch: torch.randint(0, 5, (batch,))),
    "frozen": (frozen, squares, floats),
    "double": (lambda: mlp().double(), squares, lambda batch: floats(batch).double()),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20261124)


def several(batch: int, most: int = 4) -> tuple[Tensor, int]:
    """Units of 0 to ``most`` records, in no order."""
    sizes: list[int] = []
    while sum(sizes) < batch:
        sizes.append(min(int(torch.randint(0, most + 1, ())), batch - sum(sizes)))
    units = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.int64))
    return units[torch.randperm(batch)], len(sizes)


# -- the slow, obvious version ---------------------------------------------------------------------


def unit_gradients(
    module: nn.Module, loss: Loss, records: Tensor, units: Tensor, count: int
) -> list[list[Tensor]]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    found = []
    for unit in range(count):
        own = records[units == unit]
        total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        for record in own:
            value = loss(module, record.unsqueeze(0)).sum()
            gradients = torch.autograd.grad(value, parameters, allow_unused=True)
            for t, g in zip(total, gradients, strict=True):
                t += 0 if g is None else g.double()
        found.append(total)
    return found


def norm(parts: list[Tensor]) -> float:
    return math.sqrt(sum(float(part.double().square().sum()) for part in parts))


def loop(
    module: nn.Module, loss: Loss, records: Tensor, units: Tensor, count: int, clip: float
) -> list[Tensor]:
    """Sum the units' gradients, clipped one at a time."""
    total = [
        torch.zeros_like(p, dtype=torch.float64) for p in module.parameters() if p.requires_grad
    ]
    for gradient in unit_gradients(module, loss, records, units, count):
        length = norm(gradient)
        if not math.isfinite(length):
            continue
        for t, g in zip(total, gradient, strict=True):
            t += g * min(1.0, clip / length if length else 1.0)
    return total


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    return norm([x.double() - y.double() for x, y in zip(one, other, strict=True)])


def is_closed(module: nn.Module, loss: Loss, records: Tensor) -> bool:
    rules = _closed.layers(module)
    return rules is not None and _closed.trace(module, loss, records, rules) is not None


@pytest.fixture
def general(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Leave only one of the ways."""

    def only(way: str) -> None:
        monkeypatch.setattr(_closed, "layers", lambda _: None)
        if way == "opacus":
            monkeypatch.setattr(_general, "_by_torch", _general._by_opacus)

    return only


# -- equality --------------------------------------------------------------------------------------


@pytest.mark.parametrize("physical", [1, 7, BATCH])
@pytest.mark.parametrize("clip", [0.05, 1.0, 1e4])
@pytest.mark.parametrize("many", [False, True], ids=["rows", "several"])
@pytest.mark.parametrize("case", CASES)
def test_the_closed_form_is_the_loop(case: str, many: bool, clip: float, physical: int) -> None:
    make, loss, draw = CASES[case]
    module, records = make(), draw(BATCH)
    units, count = several(BATCH) if many else (torch.randperm(BATCH), BATCH)
    assert is_closed(module, loss, records)
    found = clipped_sum(module, loss, records, units, count, clip, physical)
    expected = loop(module, loss, records, units, count, clip)
    assert all(x.dtype == torch.float64 for x in found)
    assert distance(found, expected) < 5e-5 * norm(expected)


@pytest.mark.parametrize("way", ["torch", "opacus"])
@pytest.mark.parametrize("many", [False, True], ids=["rows", "several"])
@pytest.mark.parametrize("case", ["mlp", "made", "coded", "embedded"])
def test_the_slow_ways_are_the_loop(
    case: str, many: bool, way: str, general: Callable[[str], None]
) -> None:
    make, loss, draw = CASES[case]
    module, records = make(), draw(BATCH)
    units, count = several(BATCH) if many else (torch.randperm(BATCH), BATCH)
    fast = clipped_sum(module, loss, records, units, count, 0.5, 7)
    general(way)
    if way == "opacus" and case in ("made", "coded"):
        with pytest.raises(InvalidRequest, match="Sequential"):
            clipped_sum(module, loss, records, units, count, 0.5, 7)
        return
    slow = clipped_sum(module, loss, records, units, count, 0.5, 7)
    expected = loop(module, loss, records, units, count, 0.5)
    assert distance(slow, expected) < 5e-5 * norm(expected)
    assert distance(slow, fast) < 5e-5 * norm(expected)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    batch=st.integers(0, 12),
    most=st.integers(1, 5),
    physical=st.integers(1, 14),
    masked=st.booleans(),
    clip=st.sampled_from([0.01, 1.0, 100.0]),
)
def test_any_shape(
    widths: list[int], batch: int, most: int, physical: int, masked: bool, clip: float
) -> None:
    def layer(n: int, m: int) -> nn.Module:
        return MaskedLinear(n, m, torch.randint(0, 2, (m, n))) if masked else nn.Linear(n, m)

    pairs = pairwise(widths)
    module = nn.Sequential(*[part for n, m in pairs for part in (layer(n, m), nn.Tanh())])
    records = torch.randn(batch, widths[0])
    units, count = several(batch, most)
    found = clipped_sum(module, squares, records, units, count, clip, physical)
    expected = loop(module, squares, records, units, count, clip)
    assert distance(found, expected) <= 5e-5 * norm(expected) + 1e-9


@pytest.mark.parametrize("physical", [1, 2, 3, 5, 100])
def test_a_physical_batch_is_bounded_and_holds_whole_units(physical: int) -> None:
    units, count = several(40)
    records = torch.arange(40.0).unsqueeze(1)
    calls: list[list[int]] = []

    def watching(module: nn.Module, x: Tensor) -> Tensor:
        calls.append([int(units[int(r)]) for r in x[:, 0]])
        return squares(module, x)

    clipped_sum(nn.Linear(1, 1), watching, records, units, count, 1.0, physical)
    assert sorted(unit for call in calls for unit in call) == sorted(units.tolist())
    whole = [set(call) for call in calls]
    assert sum(map(len, whole)) == len(set(units.tolist()))
    assert all(
        len(call) <= physical or len(own) == 1 for call, own in zip(calls, whole, strict=True)
    )


# -- edges -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_an_empty_batch_gives_zeros(case: str) -> None:
    make, loss, draw = CASES[case]
    module = make()
    units = torch.empty(0, dtype=torch.int64)
    for count in (0, 5):
        found = clipped_sum(module, loss, draw(3)[:0], units, count, 1.0)
        trainable = [p for p in module.parameters() if p.requires_grad]
        assert [x.shape for x in found] == [p.shape for p in trainable]
        assert norm(found) == 0


def test_parameters_that_take_no_part_get_zeros() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.dropped, self.uncalled = (nn.Linear(6, 2) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            self.dropped(x)
            return self.used(x)

    module, records = Idle(), floats(5)
    found = clipped_sum(module, squares, records, torch.arange(5), 5, 1.0)
    assert norm(found[2:]) == 0 < norm(found[:2])
    assert distance(found, loop(module, squares, records, torch.arange(5), 5, 1.0)) < 1e-4
    nothing = clipped_sum(module, lambda _, x: x.sum(1), records, torch.arange(5), 5, 1.0)
    assert norm(nothing) == 0
    module.requires_grad_(False)
    assert clipped_sum(module, squares, records, torch.arange(5), 5, 1.0) == []


@pytest.mark.parametrize("way", ["closed", "torch", "opacus"])
def test_the_module_is_left_as_it_was(way: str, general: Callable[[str], None]) -> None:
    module = mlp()
    module[3].eval()
    kept = torch.randn(8, 8)
    module[2].weight.grad = kept
    before = {name: value.clone() for name, value in module.state_dict().items()}
    names = [set(vars(part)) for part in (*module.modules(), *module.parameters())]
    if way != "closed":
        general(way)
    clipped_sum(module, squares, floats(4), torch.arange(4), 4, 1.0)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert [p.grad for p in module.parameters()] == [None, None, kept, None, None]
    assert [part.training for part in module.modules()] == [True, True, True, True, False, True]
    assert [set(vars(part)) for part in (*module.modules(), *module.parameters())] == names
    for part in module.modules():
        assert not any((part._forward_hooks, part._forward_pre_hooks, part._backward_hooks))
    assert not any(hasattr(p, "grad_sample") for p in module.parameters())


def test_hooks_go_even_if_the_loss_fails() -> None:
    def failing(module: nn.Module, x: Tensor) -> Tensor:
        module(x)
        raise KeyError

    module = mlp()
    with pytest.raises(KeyError):
        clipped_sum(module, failing, floats(4), torch.arange(4), 4, 1.0)
    assert not any(part._forward_hooks for part in module.modules())


# -- sensitivity -----------------------------------------------------------------------------------

Summed = Callable[..., list[Tensor]]
CLIP = 0.75


def adversarial(kind: str, batch: int) -> Tensor:
    records = floats(batch)
    match kind:
        case "moderate":
            return records * 5
        case "1e6":
            records[::2] *= 1e6
        case "1e30":
            records[::2] *= 1e30
        case "zeros":
            records[::2] = 0
        case "opposite":  # large gradients that cancel within a unit, but for a little
            records = records[:1] * 1e4 + 1e-3 * records
        case "tiny":
            records[::2] *= 1e-30
        case "nan":
            records[1], records[4, 0], records[6, 2] = torch.nan, torch.inf, -torch.inf
    return records


KINDS = ("moderate", "1e6", "1e30", "zeros", "opposite", "tiny", "nan")


def odd(module: nn.Module, x: Tensor) -> Tensor:
    """A loss whose gradients in bias and weights cancel between close records."""
    sign = torch.sign((x[:, 0] * 1e6).remainder(2) - 1)
    return sign * module(x).sum(1)


def excess(summed: Summed, module: nn.Module, loss: Loss, records: Tensor, most: int) -> float:
    """Return by how much, at worst, leaving one unit out moves the sum, as a part of the clip."""
    units, count = several(len(records), most)
    whole = summed(module, loss, records, units, count, CLIP)
    worst = 0.0
    for unit in range(count):
        rest = units != unit
        less = summed(module, loss, records[rest], units[rest], count, CLIP)
        worst = max(worst, distance(whole, less) / CLIP)
    return worst


@pytest.mark.parametrize("loss", [squares, label, odd])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("make", [mlp, Skip])
def test_no_unit_moves_the_sum_by_more_than_the_clip(
    make: Callable[[], nn.Module], most: int, kind: str, loss: Loss
) -> None:
    # The rounding of the sum over units stays: each adds at most a few of the last bits.
    assert excess(clipped_sum, make(), loss, adversarial(kind, 12), most) <= 1 + 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_slow_way_holds_too(kind: str, general: Callable[[str], None]) -> None:
    general("torch")
    assert excess(clipped_sum, mlp(), squares, adversarial(kind, 12), 4) <= 1 + 1e-5


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("most", [1, 4])
def test_what_is_not_finite_adds_nothing_and_spoils_nothing(
    most: int, closed: bool, general: Callable[[str], None]
) -> None:
    if not closed:
        general("torch")
    module, records = mlp(), adversarial("nan", 12)
    units, count = several(12, most)
    found = clipped_sum(module, squares, records, units, count, CLIP)
    expected = loop(module, squares, records, units, count, CLIP)
    assert norm(expected) > 0
    assert distance(found, expected) < 1e-4


@pytest.mark.parametrize("scale", [1e6, 1e18, 1e30])
@pytest.mark.parametrize("most", [1, 4])
def test_huge_inputs_are_clipped_not_lost(scale: float, most: int) -> None:
    module, records = nn.Linear(6, 3), floats(12)
    records[::3] *= scale
    units, count = several(12, most)
    found = clipped_sum(module, label, records, units, count, CLIP)
    expected = loop(module, label, records, units, count, CLIP)
    assert distance(found, expected) < 1e-4 * norm(expected)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_losses_that_are_not_finite_add_nothing(value: float) -> None:
    def broken(module: nn.Module, x: Tensor) -> Tensor:
        return squares(module, x) * torch.where(x[:, 0] > 0, value, 1.0)

    module, records = mlp(), floats(12)
    kept = records[:, 0] <= 0
    found = clipped_sum(module, broken, records, torch.arange(12), 12, CLIP)
    expected = loop(module, squares, records[kept], torch.arange(int(kept.sum())), 12, CLIP)
    assert distance(found, expected) < 1e-4


@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize("make", [made, coded])
def test_equal_records_of_codes_hold_too(make: Callable[[], nn.Module], most: int) -> None:
    records = codes(1).expand(12, -1)
    assert excess(clipped_sum, make(), lambda m, x: 50 * m(x).sum(1), records, most) <= 1 + 1e-5


def test_a_huge_unit_moves_no_other_units_factor() -> None:
    """Each factor is rounded up by a part of itself: 2,000 such parts, were they to go, add up."""
    module, records = nn.Linear(512, 4), torch.randn(1, 512).repeat(2001, 1)
    units = torch.arange(2001)
    for value in (torch.nan, 1e25):
        records[-1] = value
        whole = clipped_sum(module, squares, records, units, 2001, CLIP, 4096)
        less = clipped_sum(module, squares, records[:-1], units[:-1], 2000, CLIP, 4096)
        assert distance(whole, less) < 1e-3 * CLIP


@pytest.mark.parametrize("most", [1, 2])
def test_squares_lost_below_the_smallest_number_are_counted(most: int) -> None:
    """The greatest derivative meets an input of zero; beside it the square of another vanishes."""
    module = MaskedLinear(2, 2, torch.eye(2), bias=False)
    weights = torch.tensor([1e30, 1e4])
    records = torch.tensor([[0.0, 1.0]] * most)
    units = torch.zeros(most, dtype=torch.int64)
    found = clipped_sum(module, lambda m, x: (m(x) * weights).sum(1), records, units, 1, CLIP)
    assert norm(found) <= CLIP


@pytest.mark.parametrize("trial", range(5))
def test_rounding_of_large_gradients_that_cancel_is_within_the_clip(trial: int) -> None:
    torch.manual_seed(trial)
    near = 1e6 + 8 * torch.rand(2, 6)
    records = torch.cat((near, torch.tensor([[1.0], [-1.0]])), 1)
    found = clipped_sum(
        nn.Linear(6, 1, bias=False),
        lambda m, x: m(x[:, :6]).squeeze(1) * x[:, 6],
        records,
        torch.zeros(2, dtype=torch.int64),
        1,
        CLIP,
    )
    assert norm(found) <= CLIP


class _Narrow:
    """The twin: a sum in float32, as training without privacy takes it."""

    def __init__(self, rule: _closed.Rule) -> None:
        self.fits, self.gram = rule.fits, rule.gram

    def add(self, layer: nn.Module, a: Tensor, g: Tensor, sums: _closed.Sums) -> None:
        (p,) = layer.parameters()
        sums[p].copy_(sums[p].float().index_add_(0, a[:, 0], g))


@pytest.mark.parametrize("narrow", [False, True], ids=["float64", "float32"])
def test_rounding_of_a_sum_over_many_units_is_far_below_the_clip(
    narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256 units at the clip lift the sum over a power of two, where digits are twice as wide.

    In float32, each of the small gradients after them is rounded up there; without one of the
    great ones, down. So one unit moves the sum by its own gradient and all those digits.
    """
    if narrow:
        monkeypatch.setitem(_closed._RULES, CodesLinear, _Narrow(_closed._RULES[CodesLinear]))
    scales = torch.tensor([0.99998, 1.25 * 2.0**-16])
    module = CodesLinear((1,), 1, bias=False)

    def scaled(module: nn.Module, x: Tensor) -> Tensor:
        return module(x[:, :1]).squeeze(1) * scales[x[:, 1]]

    worst = 0.0
    for great in (256, 257, 258):
        records = torch.zeros(great + 2000, 2, dtype=torch.int64)
        records[great:, 1] = 1
        units = torch.arange(len(records))
        whole = clipped_sum(module, scaled, records, units, len(units), 1.0)
        less = clipped_sum(module, scaled, records[1:], units[:-1], len(units) - 1, 1.0)
        worst = max(worst, distance(whole, less))
    assert worst > 1.01 if narrow else worst <= 1


@pytest.mark.parametrize("general_way", [False, True], ids=["closed", "general"])
def test_the_other_ways_sum_in_float64_too(
    general_way: bool, general: Callable[[str], None]
) -> None:
    """A small gradient after a great one of another unit is not lost."""
    if general_way:
        general("torch")
    for make in (lambda: nn.Linear(1, 1, bias=False), lambda: MaskedLinear(1, 1, torch.ones(1, 1))):
        records = torch.tensor([[1.0], [1e-9]])
        found = clipped_sum(
            make(),
            lambda m, x: m(torch.ones_like(x))[:, 0] * x[:, 0],
            records,
            torch.arange(2),
            2,
            1.0,
        )
        less = clipped_sum(
            make(),
            lambda m, x: m(torch.ones_like(x))[:, 0] * x[:, 0],
            records[:1],
            torch.arange(1),
            1,
            1.0,
        )
        assert float(found[0] - less[0]) == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize("code", [-1, 3])
def test_a_code_beyond_its_column_is_clipped_by_its_true_norm(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shares a row of weights with the other column's code, which the formula does not see."""
    module = CodesLinear((3, 3), 1, bias=False)
    row = torch.tensor([[code, 0]]) if code == 3 else torch.tensor([[2, code]])
    records = torch.cat((row, torch.tensor([[1, 1]])))

    def loss(module: nn.Module, x: Tensor) -> Tensor:
        return 9 * module(x).squeeze(1)

    def moved() -> float:
        whole = clipped_sum(module, loss, records, torch.arange(2), 2, 1.0)
        return distance(whole, clipped_sum(module, loss, records[1:], torch.arange(1), 1, 1.0))

    assert moved() <= 1 + 1e-6
    monkeypatch.setattr(_closed._Codes, "fits", lambda *_: True)
    assert moved() > 1.4


class _Multiplied:
    """The twin: what is masked is multiplied by zero, as in float32 it was."""

    def __init__(self, rule: _closed.Rule) -> None:
        self.fits, self.gram = rule.fits, rule.gram

    def add(self, layer: nn.Module, a: Tensor, g: Tensor, sums: _closed.Sums) -> None:
        (p,) = layer.parameters()
        narrow = sums[p].float()
        narrow = narrow.addmm_(g.t(), a) if a.is_floating_point() else narrow
        if not a.is_floating_point():
            narrow.index_add_(0, a[:, 0], g)
        mask = layer.mask if a.is_floating_point() else layer.wide_mask
        sums[p].copy_(narrow * cast(Tensor, mask))


@pytest.mark.parametrize("coded", [False, True], ids=["masked", "codes"])
@pytest.mark.parametrize("twin", [False, True], ids=["filled", "multiplied"])
def test_what_is_masked_overflows_into_nothing(
    coded: bool, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of masked weights are in no norm, so they may be as great as any number."""
    kind: type[nn.Module] = CodesLinear if coded else MaskedLinear
    if twin:
        monkeypatch.setitem(_closed._RULES, kind, _Multiplied(_closed._RULES[kind]))
    mask = torch.tensor([[0.0, 1.0]])
    module = CodesLinear((1,), 2, mask, False) if coded else MaskedLinear(2, 1, mask, False)
    scales = torch.tensor([3e38, 1e-9]) if coded else torch.tensor([1e10])
    one = torch.zeros(1, 1, dtype=torch.int64) if coded else torch.tensor([[1e30, 0.0]])
    records = one.expand(2, -1)
    found = clipped_sum(
        module, lambda m, x: (m(x) * scales).sum(1), records, torch.arange(2), 2, 1.0
    )
    assert bool(found[0].isfinite().all()) != twin
    if not twin:
        assert norm(found) <= 2


def clips_each_record(
    module: nn.Module, loss: Loss, records: Tensor, units: Tensor, count: int, clip: float
) -> list[Tensor]:
    return clipped_sum(module, loss, records, torch.arange(len(records)), len(records), clip)


def clips_nothing(
    module: nn.Module, loss: Loss, records: Tensor, units: Tensor, count: int, clip: float
) -> list[Tensor]:
    return loop(module, loss, records, units, count, 1e30)


def clips_the_mean(
    module: nn.Module, loss: Loss, records: Tensor, units: Tensor, count: int, clip: float
) -> list[Tensor]:
    """One clip of the mean over units, times their number: right in size, wrong in sensitivity."""
    mean = [x / max(count, 1) for x in loop(module, loss, records, units, count, 1e30)]
    factor = min(1.0, clip / max(norm(mean), 1e-30)) * len(set(units.tolist()))
    return [x * factor for x in mean]


def clips_by_layer(
    module: nn.Module, loss: Loss, records: Tensor, units: Tensor, count: int, clip: float
) -> list[Tensor]:
    """Each layer to the clip, the whole to more than that."""
    total: list[Tensor] = []
    for gradient in unit_gradients(module, loss, records, units, count):
        parts = [g * min(1.0, clip / max(norm([g]), 1e-30)) for g in gradient]
        total = parts if not total else [t + part for t, part in zip(total, parts, strict=True)]
    return total


@pytest.mark.parametrize("twin", [clips_each_record, clips_nothing, clips_the_mean, clips_by_layer])
def test_the_sensitivity_test_flags_broken_twins(twin: Summed) -> None:
    assert excess(twin, mlp(), squares, adversarial("moderate", 12), 4) > 1.01


# -- when the closed form does not hold ------------------------------------------------------------


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


class Sequence(nn.Module):
    """A linear layer on three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(-1, 3, 2)).flatten(1)


class Rows(Sequence):
    """The same on two dimensions, with three rows for each record."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(-1, 2)).view(-1, 9)


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


class Functional(nn.Module):
    """Uses a weight once by its layer, once without it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(torch.tanh(self.layer(x)), self.layer.weight.t())


class Spoiled(nn.Module):
    """Changes what went into a layer after it was used."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2
        return self.layer(x.detach()) + x.detach().mul_(3)


class Own(nn.Module):
    """Has a parameter outside any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(6, 6), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.layer(x)


def hooked() -> nn.Module:
    module = mlp()
    module[0].register_forward_hook(lambda _, given, output: 2 * output)
    return module


def patched() -> nn.Module:
    module = mlp()
    layer = module[4]
    layer.forward = lambda x: 2 * functional.linear(x, layer.weight, layer.bias)
    return module


def parametrized() -> nn.Module:
    module = mlp()
    nn.utils.parametrizations.weight_norm(module[0])
    return module


OTHERS = {
    "twice": Twice,
    "three dimensions": Sequence,
    "rows": Rows,
    "subclass": lambda: nn.Sequential(Scaled(6, 4)),
    "tied": Tied,
    "functional": Functional,
    "own": Own,
    "hook": hooked,
    "patched": patched,
    "parametrized": parametrized,
    "norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2)),
}


@pytest.mark.parametrize("many", [False, True], ids=["rows", "several"])
@pytest.mark.parametrize("case", OTHERS)
def test_other_modules_take_the_slow_way(case: str, many: bool) -> None:
    module, records = OTHERS[case](), floats(BATCH)
    units, count = several(BATCH) if many else (torch.randperm(BATCH), BATCH)
    assert not is_closed(module, squares, records)
    found = clipped_sum(module, squares, records, units, count, 2.0, 7)
    expected = loop(module, squares, records, units, count, 2.0)
    assert distance(found, expected) < 5e-5 * norm(expected)


def test_an_input_changed_after_its_use_is_seen() -> None:
    assert not is_closed(Spoiled(), squares, floats(3))


@pytest.mark.parametrize("option", [{"padding_idx": 0}, {"max_norm": 1.0}])
def test_an_embedding_with_options_has_no_closed_form(option: dict[str, float]) -> None:
    module = nn.Sequential(nn.Embedding(5, 4, **option), nn.Linear(4, 3))
    assert not is_closed(module, squares, torch.tensor([1, 2, 0]))


def test_recurrent_layers_of_opacus_are_supported() -> None:
    from opacus.layers import DPGRU

    class Recurrent(nn.Module):
        def __init__(self, kind: type[nn.Module]) -> None:
            super().__init__()
            self.cell, self.out = kind(2, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.cell(x.view(-1, 3, 2))[0][:, -1])

    module, records = Recurrent(DPGRU), floats(6)
    units = torch.tensor([0, 1, 1, 0, 2, 2])
    require_separate(module, squares, records)
    found = clipped_sum(module, squares, records, units, 3, 0.3)
    assert distance(found, loop(module, squares, records, units, 3, 0.3)) < 1e-5
    with pytest.raises(InvalidRequest, match=r"of a Recurrent\.") as refusal:
        require_separate(Recurrent(nn.GRU), squares, records)
    assert not refusal.value.touched
    with pytest.raises(InvalidRequest, match="DPGRU") as refusal:
        clipped_sum(Recurrent(nn.GRU), squares, records, units, 3, 0.3)
    assert refusal.value.touched
