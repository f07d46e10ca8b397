"""Losses that mix records, and modules that remember them, are refused on made-up records."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dpsynth.deep import CodesLinear, MaskedLinear
from dpsynth.vault._train import clipped_sum, require_separate
from dpsynth_accounting import InvalidRequest


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(20261125)


def squares(module: nn.Module, x: Tensor) -> Tensor:
    return module(x).square().sum(1)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 4))


class Noisy(nn.Module):
    """Draws at random for each record, as a variational autoencoder does."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 4), nn.Linear(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        mean, spread = self.encode(x).chunk(2, 1)
        return self.decode(mean + spread.exp() * torch.randn_like(mean))


FINE = {
    "mlp": mlp,
    "dropout": lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 4)),
    "random": Noisy,
    "layer norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8)),
    "quiet batch norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)).eval(),
}


@pytest.mark.parametrize("case", FINE)
def test_what_keeps_records_apart_may_train(case: str) -> None:
    module, records = FINE[case](), torch.randn(6, 6)
    state = torch.get_rng_state()
    require_separate(module, squares, records)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in module.parameters())


def test_coded_layers_may_train() -> None:
    mask = torch.tensor([[0, 0, 1], [0, 1, 1]])
    module = nn.Sequential(CodesLinear((3, 4), 3, mask), MaskedLinear(3, 2, torch.ones(2, 3)))
    require_separate(module, squares, torch.tensor([[0, 1], [2, 3], [1, 1]]))


def centred(module: nn.Module, x: Tensor) -> Tensor:
    loss = squares(module, x)
    return loss - loss.mean()


def averaged(module: nn.Module, x: Tensor) -> Tensor:
    return squares(module, x) / len(x)


def turned(module: nn.Module, x: Tensor) -> Tensor:
    """Each loss is that of its record, but layers see the records in another order."""
    return squares(module, x.flip(0)).flip(0)


def shuffled(module: nn.Module, x: Tensor) -> Tensor:
    return squares(module, x[torch.randperm(len(x))])


def gradient_only(module: nn.Module, x: Tensor) -> Tensor:
    """The losses stay apart, their gradients do not."""
    scores = squares(module, x)
    mixed = scores.sum() - scores
    return scores + mixed - mixed.detach()


def neighbours(module: nn.Module, x: Tensor) -> Tensor:
    return squares(module, x - x.roll(1, 0))


@pytest.mark.parametrize("make", [mlp, lambda: nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8))])
@pytest.mark.parametrize("loss", [centred, averaged, turned, shuffled, gradient_only, neighbours])
def test_a_loss_that_mixes_records_is_refused(
    make: Callable[[], nn.Module], loss: Callable[[nn.Module, Tensor], Tensor]
) -> None:
    # Where gradients are computed for each record alone, an order inside a pass does no harm.
    if loss is turned and make is not mlp:
        require_separate(make(), loss, torch.randn(6, 6))
        return
    with pytest.raises(InvalidRequest) as refusal:
        require_separate(make(), loss, torch.randn(6, 6))
    assert not refusal.value.touched


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.SyncBatchNorm])
def test_batch_norm_is_refused_before_anything_is_read(kind: type[nn.Module]) -> None:
    module = nn.Sequential(nn.Linear(6, 6), kind(6))

    def unread(module: nn.Module, x: Tensor) -> Tensor:
        raise AssertionError

    for call in (
        lambda: require_separate(module, unread, torch.randn(6, 6)),
        lambda: clipped_sum(module, unread, torch.randn(6, 6), torch.arange(6), 6, 1.0),
    ):
        with pytest.raises(InvalidRequest, match="BatchNorm"):
            call()


class Remembering(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how, self.seen = nn.Linear(6, 6), how, []
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        match self.how:
            case "attribute":
                self.last = x
            case "list":
                self.seen.append(x)
            case "buffer":
                self.mean += x.mean(0)
            case "new buffer":
                self.mean = x.mean(0)
            case "weight":
                self.layer.weight.data.add_(x.mean())
            case _:
                pass
        return self.layer(x)


@pytest.mark.parametrize("how", ["attribute", "list", "buffer", "new buffer"])
def test_a_module_that_remembers_records_is_refused(how: str) -> None:
    require_separate(Remembering("nothing"), squares, torch.randn(6, 6))
    with pytest.raises(InvalidRequest, match="remember"):
        require_separate(Remembering(how), squares, torch.randn(6, 6))


@pytest.mark.parametrize("how", ["nothing", "list", "count", "last"])
def test_a_learner_that_remembers_records_is_refused(how: str) -> None:
    class Learner:
        def __init__(self) -> None:
            self.seen: list[Tensor] = []
            self.count, self.last = 1000, torch.zeros(0)

        def loss(self, module: nn.Module, x: Tensor) -> Tensor:
            match how:
                case "list":
                    self.seen.append(x)
                case "count":
                    self.count += len(x)
                case "last":
                    self.last = x
            return squares(module, x)

    if how == "nothing":
        require_separate(mlp(), Learner().loss, torch.randn(6, 6))
        return
    with pytest.raises(InvalidRequest, match="remember"):
        require_separate(mlp(), Learner().loss, torch.randn(6, 6))


@pytest.mark.parametrize("make", [mlp, lambda: nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8))])
def test_a_loss_that_fails_on_one_record_is_refused(make: Callable[[], nn.Module]) -> None:
    """It is fine on any two: whether a private batch held one would show in an exception."""

    def squeezed(module: nn.Module, x: Tensor) -> Tensor:
        return squares(module, x).squeeze()

    module = make()
    assert squeezed(module, torch.randn(2, 6)).shape == (2,)
    with pytest.raises(InvalidRequest, match="one number for each record"):
        require_separate(module, squeezed, torch.randn(6, 6))


def test_gradients_that_layers_do_not_explain_are_refused() -> None:
    module = mlp()
    own, other = module[2], nn.Linear(8, 4)

    class Swapped(nn.Module):
        """Calls a layer for nothing, and uses its weight without it."""

        def __init__(self) -> None:
            super().__init__()
            self.own, self.other = own, other

        def forward(self, x: Tensor) -> Tensor:
            h = torch.cat((x, x[:, :2]), 1)
            self.own(h)
            return h @ self.own.weight.t() + self.other(h)

    with pytest.raises(InvalidRequest, match="layers alone"):
        require_separate(Swapped(), squares, torch.randn(6, 6))


@pytest.mark.parametrize("records", [torch.ones(4, 6), torch.randn(1, 6), torch.randn(0, 6)])
def test_records_that_show_nothing_are_refused(records: Tensor) -> None:
    with pytest.raises(InvalidRequest, match="made-up"):
        require_separate(mlp(), squares, records)


@pytest.mark.parametrize(
    "loss", [lambda m, x: squares(m, x).mean(), lambda m, x: m(x), lambda m, x: x[:, 0].long()]
)
def test_a_loss_gives_one_number_for_each_record(
    loss: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    with pytest.raises(InvalidRequest):
        require_separate(mlp(), loss, torch.randn(6, 6))


def test_coarse_numbers_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="single precision"):
        require_separate(mlp().bfloat16(), squares, torch.randn(6, 6).bfloat16())
    with torch.autocast("cpu"), pytest.raises(InvalidRequest, match="single precision"):
        clipped_sum(mlp(), squares, torch.randn(6, 6), torch.arange(6), 6, 1.0)
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(InvalidRequest, match="single precision"):
            require_separate(mlp(), squares, torch.randn(6, 6))
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("units", "options"),
    [
        (torch.arange(5), {}),
        (torch.arange(6).int(), {}),
        (torch.arange(6) - 1, {}),
        (torch.arange(6) + 1, {}),
        (torch.arange(6), {"clip": 0.0}),
        (torch.arange(6), {"clip": float("nan")}),
        (torch.arange(6), {"clip": 1e30}),
        (torch.arange(6), {"physical": 0}),
    ],
)
def test_impossible_arguments_are_refused(units: Tensor, options: dict[str, float]) -> None:
    given = {"count": 6, "clip": 1.0, **options}
    with pytest.raises(InvalidRequest):
        clipped_sum(mlp(), squares, torch.randn(6, 6), units, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaskedLinear(3, 2, torch.ones(3, 2)),
        lambda: MaskedLinear(3, 2, torch.full((2, 3), 0.5)),
        lambda: CodesLinear((), 2),
        lambda: CodesLinear((3, 0), 2),
        lambda: CodesLinear((3, 4), 2, torch.ones(3, 2)),
    ],
)
def test_impossible_layers_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(InvalidRequest):
        make()


def test_codes_are_one_hot_encodings() -> None:
    mask = torch.randint(0, 2, (3, 5))
    layer, codes = CodesLinear((2, 4, 3), 5, mask), torch.tensor([[0, 3, 2], [1, 0, 0]])
    sizes = torch.tensor([2, 4, 3])
    hot = torch.cat(
        [nn.functional.one_hot(codes[:, i], n) for i, n in enumerate(sizes.tolist())], 1
    ).float()
    expected = hot @ (layer.weight * mask.repeat_interleave(sizes, 0)) + layer.bias
    assert torch.allclose(layer(codes), expected, atol=1e-6)
    assert torch.allclose(layer(codes[:1]), expected[:1], atol=1e-6)
    assert set(layer.state_dict()) == {"weight", "bias"}
