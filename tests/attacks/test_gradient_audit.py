"""Canary audits of training: what has its noise and clip is not refuted, and its twins are.

The coins and the noise are the system's, so a test of a sound mechanism asserts what a sound one
breaks at most once in a million. Of the broken twins all but a few of 50 coins of each run are
told: to pass, a twin would have to hide a third of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dpsynth as dp
from dpsynth.attacks import CanaryAudit, canary_audit
from dpsynth.attacks._gradients import GradientScores
from dpsynth.deep import GAN, VAE, Autoregressive, CodesLinear
from dpsynth.vault import Block, Step, Train, _noise
from dpsynth.vault._train import WatchedLearner, clipped_sum
from dpsynth.vault._train._watched import STEEP, unit_gradients

SCHEMA = dp.Schema({name: dp.Categorical(tuple("abcdefgh")) for name in "uvwx"})

CHANCE = 1e-6
"""A correct mechanism has a lower p-value than this in at most one of so many audits."""

QUICK = Autoregressive(iterations=40, rate=0.2)


def audited(method: Any = QUICK, epsilon: float = 1.0, **words: Any) -> CanaryAudit:
    words = {"unit": dp.Row(), "surrogate": 120, "canaries": 50, "runs": 2, **words}
    return canary_audit(
        method, SCHEMA, epsilon=epsilon, delta=1e-6, rng=np.random.default_rng(3), **words
    )


def no_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        _noise, "discrete_gaussian", lambda _, shape, *rest: np.zeros(shape, dtype=np.int64)
    )


def a_twentieth_of_the_noise(patch: pytest.MonkeyPatch) -> None:
    drawn = _noise.discrete_gaussian
    patch.setattr(_noise, "discrete_gaussian", lambda s2, *rest: drawn(s2 / 400, *rest))


def no_clipping(patch: pytest.MonkeyPatch) -> None:
    def whole(module: Any, loss: Any, records: Tensor, units: Tensor, count: int, _: float) -> Any:
        return clipped_sum(module, loss, records, units, count, 1e6)

    patch.setattr("dpsynth.vault._train._loop.clipped_sum", whole)


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_correct_training_is_not_refuted(epsilon: float) -> None:
    found = audited(epsilon=epsilon, runs=1)
    assert found.p_value > CHANCE
    assert found.method == "autoregressive"


@pytest.mark.parametrize("broken", [no_noise, a_twentieth_of_the_noise, no_clipping])
def test_broken_training_is_refuted(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    found = audited()
    assert found.failed
    assert found.area > 0.9
    assert found.epsilon_at_least > 0.5


def test_a_person_is_one_canary_with_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = dp.Person("id", rows=4)
    assert audited(unit=unit, runs=1).p_value > CHANCE
    a_twentieth_of_the_noise(monkeypatch)
    assert audited(unit=unit).failed


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [VAE(iterations=80, rate=0.2, hidden=32), GAN(generator_steps=10)]
)
def test_other_generators_are_audited_alike(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audited(method, runs=1).p_value > CHANCE
    no_noise(monkeypatch)
    # Two runs of the autoencoder, whose loss draws random numbers, have p near 0.01.
    found = audited(method, runs=10)
    assert found.failed
    assert found.p_value < CHANCE


class Trainer:
    """A mechanism that measures nothing, and trains one layer."""

    name = "trainer"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        del columns
        return (Train(0.2, 60, 1.0),)

    def run(self, block: Block) -> Any:
        block.train(Layer([block.domain.size(n) for n in block.domain.names]), clip=1.0, rows=200.0)

    def fit(self, vault: dp.Vault, *, epsilon: Any, delta: Any = None) -> Any:
        return vault.fit(self, epsilon=epsilon, delta=delta)


class Layer:
    """A learner of one layer; ``kept`` is what it was shown."""

    def __init__(self, sizes: Sequence[int], outputs: int = 30) -> None:
        self.module: nn.Module = CodesLinear(sizes, outputs)
        self.kept: list[list[Tensor]] = []

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        found: Tensor = module(records).square().sum(1)
        return found

    def update(self, gradients: list[Tensor]) -> None:
        self.kept.append(gradients)

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        raise NotImplementedError


def test_a_mechanism_that_only_trains_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert audited(Trainer(), runs=1).p_value > CHANCE
    no_noise(monkeypatch)
    assert audited(Trainer(), canaries=20, runs=6).failed


class Odd(nn.Module):
    """A module that neither torch nor Opacus takes apart when it is not itself called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = CodesLinear((4, 4), 3)

    def forward(self, records: Tensor) -> Tensor:
        if not isinstance(self.layer.weight, nn.Parameter):
            raise TypeError("replaced")
        found: Tensor = self.layer(records)
        return found


@pytest.mark.parametrize("module", [CodesLinear((4, 4), 3), Odd()])
def test_gradients_of_units_add_up_to_the_clipped_sum(module: nn.Module) -> None:
    """Written out one by one, they are those whose sum the training takes."""
    records = torch.tensor([[0, 1], [2, 3], [1, 1], [3, 0], [2, 2]])
    units = torch.tensor([0, 1, 0, 2, 1])
    loss = Layer((4, 4), 3).loss
    each = unit_gradients(module, loss, records, units, 3, 0.7)
    whole = clipped_sum(module, loss, records, units, 3, 0.7)
    flat = torch.cat([part.flatten() for part in whole]).double()
    assert torch.allclose(each.double().sum(0), flat, atol=1e-6)
    assert bool((each.norm(dim=1) <= 0.7 + 1e-6).all())
    alone = clipped_sum(module, loss, records[units == 1], units[:2] * 0, 1, 0.7)
    assert torch.allclose(each[1].double(), torch.cat([p.flatten() for p in alone]), atol=1e-6)


def watched(learner: Layer, told: Any) -> WatchedLearner:
    return WatchedLearner(
        learner,
        canaries=np.array([[0, 1], [2, 3]]),
        copies=2,
        known=np.array([[1, 1], [3, 0], [3, 1]]),
        units=np.array([0, 1, 1]),
        rate=0.5,
        clip=1.0,
        divisor=4.0,
        told=told,
    )


def test_what_is_told_follows_from_the_noisy_gradients_alone() -> None:
    """Two trainings on different records, with the same noisy gradients, tell the same."""
    seen: list[list[np.ndarray]] = [[], []]
    weights = CodesLinear((4, 4), 3).state_dict()
    for place, records in enumerate(([[0, 1]], [[1, 1], [3, 3]])):
        learner = Layer((4, 4), 3)
        learner.module.load_state_dict(weights)
        both = watched(learner, lambda *given, place=place: seen[place].extend(given))
        both.loss(both.module, torch.tensor(records))
        shapes = [p.shape for p in both.module.parameters()]
        both.update([torch.full(shape, 0.25) for shape in shapes])
        assert len(learner.kept) == 1
    for one, other in zip(*seen, strict=True):
        assert np.array_equal(one, other)
    gradients, share, shown = seen[0]
    assert gradients.shape[0] == 2 + 2  # canaries and known units
    assert np.array_equal(share, [1.0, 1.0])
    assert np.allclose(shown, 0.25 * 4 - 0.5 * gradients[2:].sum(0), atol=1e-5)
    bad = watched(Layer((4, 4), 3), lambda *_: pytest.fail("told of what is no number"))
    bad.update([torch.full(shape, math.nan) for shape in shapes])


def test_losses_of_canaries_alone_are_steep() -> None:
    learner = Layer((4, 4), 3)
    both = watched(learner, lambda *_: None)
    records = torch.tensor([[0, 1], [0, 2], [2, 3], [2, 1]])
    ratio = both.loss(both.module, records) / learner.loss(learner.module, records)
    assert torch.allclose(ratio, torch.tensor([STEEP, 1.0, STEEP, 1.0]))


def test_scores_by_hand() -> None:
    """One canary of gradient (1, 0), noise of variance 4 on each coordinate."""
    gradients, share, shown = np.array([[1.0, 0.0]]), np.ones(1), np.array([0.9, -4.0])

    def odds(rate: float, known: int = 0) -> float:
        scores = GradientScores(1, known, rate, 2.0)
        scores.add(gradients, share, shown)
        return float(scores.odds[0])

    assert odds(1.0) == pytest.approx((0.9 - 0.5) / 4)
    assert odds(0.3) == pytest.approx(math.log(0.7 + 0.3 * math.exp((0.9 - 0.5) / 4)))


def test_known_units_in_the_way_and_gradients_too_long_are_reckoned_with() -> None:
    rng = np.random.default_rng(0)
    gradients = np.eye(30, 40)
    coins = rng.random(20) < 0.5
    scores = GradientScores(20, 10, 0.5, 1.0)
    for _ in range(60):
        sampled = np.append(coins & (rng.random(20) < 0.5), rng.random(10) < 0.5)
        shown = 100 * sampled @ gradients - 50 * np.append(np.zeros(20), np.ones(10)) @ gradients
        scores.add(gradients, np.ones(20), shown + rng.normal(size=40))
    assert ((scores.odds > 0) == coins).all()
