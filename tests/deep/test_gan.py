from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import dpsynth as dp
from dpsynth import deep
from dpsynth.deep import GAN, ConditionalGAN, ConditionalModel, LatentModel
from dpsynth.deep._critic import PairCritic, merged_codes
from dpsynth.deep._game import Game
from dpsynth.deep._generator import Fakes, Generator
from dpsynth.domain import Domain
from dpsynth.standalone import sample_release
from dpsynth.synthesizer import Model, Synthesizer, named
from dpsynth.vault import Measure, Train
from dpsynth.vault._train import Learner, _gradients, clipped_sum, require_separate
from dpsynth_accounting import InvalidRequest
from tests.deep.fake_block import FakeBlock

SIZES = {"a": 4, "b": 4, "c": 30}
DOMAIN = Domain.integers(SIZES, ordered=("c",))
RECORDS = torch.tensor([[0, 1, 2], [3, 3, 29], [2, 1, 0], [1, 0, 7], [3, 3, 29]])
KINDS = (GAN, ConditionalGAN)


def data(rows: int = 4000) -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    a = rng.choice(4, rows, p=[0.5, 0.3, 0.15, 0.05])
    return {"a": a, "b": (a + (rng.random(rows) < 0.1)) % 4, "c": 7 * a + rng.integers(0, 5, rows)}


def maps() -> list[NDArray[np.int64]]:
    return [np.arange(4), np.arange(4), np.arange(30) // 3]


def critic(seed: int | None = None) -> PairCritic:
    found = PairCritic(maps())
    if seed is not None:
        weights = np.random.default_rng(seed).normal(0, 1, (18, 18))
        with torch.no_grad():
            found.layer.weight.copy_(torch.from_numpy(weights))
    return found


def generator(conditional: bool = False) -> Generator:
    shares = [np.array([0.5, 0.3, 0.15, 0.05]), np.full(4, 0.25), np.full(10, 0.1)]
    return Generator(shares, 4000.0, latent=3, hidden=12, conditional=conditional)


def game(kind: type[Game] = Game, conditional: bool = False) -> Game:
    return kind(
        critic(),
        generator(conditional),
        iterations=6,
        critic_steps=2,
        generator_steps=3,
        fakes=40,
        learning_rate=0.01,
        average=0.9,
    )


def gradients(step: int) -> list[Tensor]:
    draws = np.random.default_rng(step).normal(0, 0.01, (18, 18))
    return [torch.from_numpy(draws).float()]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@cache
def fitted(kind: type[GAN], noise: float = 0.0) -> Any:
    method = kind(iterations=4, generator_steps=120, rate=0.5, learning_rate=0.01, fakes=256)
    return method.run(FakeBlock(DOMAIN, data(), method, noise=noise))  # type: ignore[arg-type]


def test_steps_are_declared_and_the_protocols_hold() -> None:
    assert GAN(one_way=0.2).steps("abc") == (Measure(3, 0.2), Train(0.5, 20, 0.8))
    assert ConditionalGAN().steps("abc") == GAN().steps("abc")
    assert GAN().steps("a") == (Measure(1, 1.0),)
    for name in ("gan", "conditional-gan"):
        found = named(name, {"iterations": 7})
        assert isinstance(found, Synthesizer)
        assert found.name == name
    with pytest.raises(InvalidRequest, match="no columns"):
        GAN().steps([])


# -- the critic ------------------------------------------------------------------------------------


def test_a_score_is_the_sum_of_the_weights_of_all_pairs() -> None:
    found = critic(0)
    weight, starts = found.layer.weight.detach().numpy(), [0, 4, 8]
    for record, loss in zip(RECORDS.numpy(), found(RECORDS).detach().numpy(), strict=True):
        places = [
            start + map_[code] for start, map_, code in zip(starts, maps(), record, strict=True)
        ]
        score = sum(weight[i, j] for i, j in itertools.combinations(places, 2))
        assert loss == pytest.approx(-score / 3**0.5, rel=1e-5)


def test_its_loss_is_one_a_record_and_its_clipping_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = critic(0)
    learner: Learner = game()
    require_separate(network, learner.loss, RECORDS)
    monkeypatch.setattr(_gradients, "_general", None)  # the slow way is not there
    (found,) = clipped_sum(network, learner.loss, RECORDS, torch.arange(5), 5, 1.0)
    plain = torch.autograd.grad(network(RECORDS).sum(), network.layer.weight)[0].double()
    assert torch.allclose(found, plain * (1 - 1e-5), rtol=1e-5)  # every norm is 1: none is clipped
    (lone,) = clipped_sum(network, learner.loss, RECORDS[:1], torch.arange(1), 1, 1e3)
    assert float(lone.norm()) == pytest.approx(1, rel=1e-4)


def test_a_critic_that_looks_at_the_other_records_is_flagged() -> None:
    def centred(module: nn.Module, records: Tensor) -> Tensor:
        found: Tensor = module(records)
        return found - found.mean()

    with pytest.raises(InvalidRequest, match="mixes records"):
        require_separate(critic(0), centred, RECORDS)


def test_codes_are_merged_by_order_or_by_rarity() -> None:
    shares = np.array([0.05, 0.4, 0.05, 0.3, 0.2])
    assert merged_codes(shares, 0, 3).tolist() == [2, 0, 2, 1, 2]
    assert merged_codes(shares, 0, 5).tolist() == [0, 1, 2, 3, 4]
    numbers = merged_codes(np.full(100, 0.01), 100, 10)
    assert np.bincount(numbers).tolist() == [10] * 10
    assert (np.diff(numbers) >= 0).all()


# -- fakes -----------------------------------------------------------------------------------------


def test_pairs_of_fakes_are_what_a_loop_finds() -> None:
    fakes = generator(conditional=True).fakes(7, (3,))
    shares, weights = fakes.shares.detach().numpy(), fakes.weights.numpy()
    assert fakes.codes is not None
    pairs, conditional = np.zeros((18, 18)), np.zeros((18, 18))
    for share, weight, code in zip(shares, weights, fakes.codes.tolist(), strict=True):
        pairs += weight * np.outer(share, share) / 7
        conditional[code] += 3 * weight * share / 7
        assert share[code] == 1  # the row has the code it was made for
        assert [share[:4].sum(), share[4:8].sum(), share[8:].sum()] == pytest.approx([1, 1, 1])
    assert np.allclose(fakes.pairs().detach().numpy(), pairs, atol=1e-6)
    assert np.allclose(fakes.pairs_with_condition(3).detach().numpy(), conditional, atol=1e-6)


def test_codes_are_drawn_by_log_counts_and_weighed_back() -> None:
    """40,000 draws: 6 standard errors of a share of a twelfth are below 0.01."""
    fakes = generator(conditional=True).fakes(40_000, (0,))
    assert fakes.codes is not None
    drawn = np.bincount(fakes.codes.numpy(), minlength=18) / 40_000
    logs = np.log1p(4000 * np.array([0.5, 0.3, 0.15, 0.05]))
    assert np.allclose(drawn[:4], logs / logs.sum() / 3, atol=0.01)
    weighed = np.bincount(fakes.codes.numpy(), weights=fakes.weights.numpy(), minlength=18) / 40_000
    assert np.allclose(weighed[:4] * 3, [0.5, 0.3, 0.15, 0.05], atol=0.03)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_calibrated_generator_has_the_one_way_distributions(conditional: bool) -> None:
    found = generator(conditional)
    with torch.no_grad():
        found.decoder.outer.weight.mul_(20)
        found.decoder.outer.bias.add_(torch.linspace(-1, 1, 18))
        before = (found.fakes(20_000, (5,)).one_way() - found.target).abs().sum()
        found.calibrate()
        after = (found.fakes(20_000, (5,)).one_way() - found.target).abs().sum()
    assert before > 0.3
    assert after < 0.05


# -- the game --------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [False, True])
def test_a_resumed_game_goes_on_as_it_would_have(conditional: bool) -> None:
    def after(broken: bool) -> dict[str, Tensor]:
        first = game(conditional=conditional)
        for step in range(3):
            first.update(gradients(step))
        state = {name: each.clone() for name, each in first.state().items()}
        if broken:
            state["real"] = torch.zeros(18, 18)
        second = game(conditional=conditional)
        second.load(state)
        for step in range(3, 6):
            second.update(gradients(step))
        return second.state()

    whole = game(conditional=conditional)
    for step in range(6):
        whole.update(gradients(step))
    assert same(whole.state(), after(broken=False))
    assert not same(whole.state(), after(broken=True))


class _Peeking(Game):
    """The twin: its generator is also trained on the records that the critic's loss saw."""

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        self.kept = records
        return super().loss(module, records)

    def update(self, gradients: list[Tensor]) -> None:
        seen = self._critic.lookup[self.kept + self._critic.starts]
        self.generator.target[seen[:, 0]] += 0.01
        super().update(gradients)


def _tainted(make: Callable[[], Game]) -> bool:
    """Say whether records move anything but through the gradients that the vault gives."""
    states = []
    for records in (RECORDS[:2], RECORDS[2:4]):
        found = make()
        for step in range(4):
            found.loss(found.module, records)
            found.update(gradients(step))
        found.finish()
        states.append(found.state())
    return not same(*states)


def test_records_reach_the_generator_through_noisy_gradients_alone() -> None:
    assert not _tainted(game)
    assert _tainted(lambda: game(_Peeking))


def test_torchs_generator_has_no_say_in_what_follows_the_noise() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found = game(conditional=True)
        found.update(gradients(0))
        found.update(gradients(1))
        states.append(found.state())
    assert same(*states)


def test_the_generator_moves_after_so_many_steps_of_the_critic() -> None:
    found = game()
    before = found.generator.decoder.inner.weight.clone()
    found.update(gradients(0))
    assert torch.equal(found.generator.decoder.inner.weight, before)
    found.update(gradients(1))
    assert not torch.equal(found.generator.decoder.inner.weight, before)


def test_pairs_that_are_noise_alone_are_taken_for_independent() -> None:
    found = game()
    independent = torch.outer(found.generator.target, found.generator.target)
    later = found._later
    signal = independent.clone()
    signal[:4, 4:8] = torch.diag(found.generator.target[:4])
    for noise, close in ((0.0, signal), (0.02, signal), (10.0, independent)):
        draws = torch.from_numpy(np.random.default_rng(1).normal(0, noise, (18, 18))).float()
        found._real = signal * later + draws
        apart = (found._trusted() - close * later).norm()
        assert apart <= 0.7 * (found._real * later - close * later).norm() + 1e-6


# -- fits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_learns_a_strong_dependence(kind: type[GAN]) -> None:
    drawn = fitted(kind).sample_codes(20_000, rng=np.random.default_rng(0))
    assert (drawn["b"] == drawn["a"]).mean() > 0.75  # independent: 0.35
    assert (abs(drawn["c"] - 7 * drawn["a"] - 2) <= 2).mean() > 0.7
    shares = np.bincount(drawn["a"], minlength=4) / 20_000
    assert abs(shares - [0.5, 0.3, 0.15, 0.05]).sum() < 0.06


@pytest.mark.parametrize("kind", KINDS)
def test_noise_leaves_the_one_way_distributions_as_they_are(kind: type[GAN]) -> None:
    found = fitted(kind, noise=300.0)
    drawn = found.sample_codes(20_000, rng=np.random.default_rng(0))
    for name, share in found.shares.items():
        shares = np.bincount(drawn[name], minlength=share.size) / 20_000
        assert abs(shares - share).sum() < 0.1


def test_a_given_code_is_decoded_for() -> None:
    found = fitted(ConditionalGAN)
    rng = np.random.default_rng(0)
    rare = found.sample_codes(5000, rng=rng, given={"a": "3"})
    assert (rare["a"] == 3).all()
    assert (rare["b"] == 3).mean() > 0.6
    assert (rare["c"] >= 21).mean() > 0.6
    both = found.sample_codes(5000, rng=rng, given={"a": "2", "c": "15"})
    assert (both["a"] == 2).all()
    assert (both["c"] == 15).all()
    assert (both["b"] == 2).mean() > 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_comes_back_from_its_file(kind: type[GAN], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    found = fitted(kind)
    assert isinstance(found, Model)
    found.save(path)
    again = deep.load(path)
    assert type(again) is (ConditionalModel if kind is ConditionalGAN else LatentModel)
    again.save(tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()
    drawn = found.sample(50, rng=np.random.default_rng(0))
    assert drawn.equals(again.sample(50, rng=np.random.default_rng(0)))
    assert sample_release(tmp_path, 50, 0).equals(drawn)


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    found = fitted(ConditionalGAN)
    arrays = dict(found.arrays)
    arrays["condition"] = arrays["condition"][:-1]
    ConditionalModel(DOMAIN, 100.0, found.shares, arrays).save(tmp_path / "wrong")
    with pytest.raises(InvalidRequest, match="read as a model"):
        deep.load(tmp_path / "wrong")
    found.save(tmp_path / "right")
    with pytest.raises(InvalidRequest, match="not a model of this kind"):
        LatentModel.load(tmp_path / "right")


def test_a_single_column_is_its_marginal() -> None:
    domain = Domain.integers({"a": 4})
    for kind in KINDS:
        method = kind()
        block = FakeBlock(domain, {"a": data()["a"]}, method)
        found = method.run(block)  # type: ignore[arg-type]
        assert block.asked == ["1 marginals"]
        drawn = found.sample_codes(20_000, rng=np.random.default_rng(0))["a"]
        assert abs(np.bincount(drawn) / 20_000 - [0.5, 0.3, 0.15, 0.05]).sum() < 0.06


@pytest.mark.parametrize(
    "wrong",
    [
        {"latent": 0},
        {"hidden": 0},
        {"codes": 1},
        {"fakes": 1},
        {"critic_steps": 0},
        {"critic_steps": 21},
        {"generator_steps": 0},
        {"one_way": 1.0},
        {"rate": 0.0},
        {"average": 1},
        {"learning_rate": -1.0},
        {"iterations": 0},
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_impossible_parameters_are_refused(kind: type[GAN], wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=kind.__name__):
        kind(**wrong)


@pytest.mark.parametrize("name", ["gan", "conditional-gan"])
def test_a_fit_to_a_vault_makes_a_release(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.choice(["x", "y"], 400), "b": rng.integers(0, 5, 400)})
    schema = dp.Schema({"a": dp.Categorical(("x", "y")), "b": dp.Integer(0, 4)})
    account = dp.Ledger(tmp_path / "ledger.db").account("t", dp.Budget(6.0, 1e-6))
    vault = dp.Vault(table, schema, account, unit=dp.Row())
    parameters = {"iterations": 15, "generator_steps": 2}
    found = named(name, parameters).fit(vault, epsilon=4)
    made = found.sample(300, rng=np.random.default_rng(1))
    dp.Release.assemble(vault, found, made, epsilon=1).write(tmp_path / "release")
    assert (tmp_path / "release" / "model.safetensors").is_file()
    assert "Trained in 15 steps" in (tmp_path / "release" / "report.html").read_text()
    assert len(sample_release(tmp_path / "release", 20, 0)) == 20


def test_the_shares_of_fakes_carry_gradients() -> None:
    fakes: Fakes = generator().fakes(5, (1,))
    assert fakes.shares.requires_grad
    assert fakes.codes is None
    assert not fakes.pairs_with_condition(3).any()
