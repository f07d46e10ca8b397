"""White-box games of DP-SGD: a canary of the greatest gradient, and all noisy gradients to see.

The adversary knows that the table is empty or holds the canary, sees every noisy mean, and scores
by the likelihood ratio, which no other score beats (Nasr et al. 2021, "Adversary instantiation").
Of the real loop the lower bound on epsilon stays below the claim; of sabotaged ones it does not.

Two adversaries: the worst case, a table that is empty or holds the canary alone; and a canary in a
whole training, among rows whose gradients change from step to step, where the canary's gradient is
one coordinate that no other row has (a Dirac canary: Nasr et al. 2023, "Tight auditing").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpsynth.attacks.statistics import clopper_pearson
from dpsynth.vault._stream import SYSTEM
from dpsynth.vault._train import CodesLinear, Steps, _loop, run
from dpsynth_accounting import SubsampledGaussian, least_epsilon

RATE, SIGMA, CLIP = Fraction(1, 10), Fraction(6, 5), 0.5
DELTA = Fraction(1, 100)
LEVEL = 0.999


def _silent(done: int, norm: float) -> None:
    """Tell nobody how far a training is."""


class Canary:
    """A loss whose gradient is the same in every step, and far above the clip."""

    def __init__(self) -> None:
        self.module: nn.Module = CodesLinear((2,), 1)
        self.seen: list[float] = []

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        found: Tensor = 100.0 * module(records)[:, 0]
        return found

    def update(self, gradients: list[Tensor]) -> None:
        """Keep the part along the canary's gradient: that of its code's weight and of the bias."""
        weight, bias = gradients
        self.seen.append((float(weight[1, 0]) + float(bias[0])) / math.sqrt(2))

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        raise NotImplementedError


def ratio(seen: list[float], sigma: Fraction) -> float:
    """Return the log-likelihood ratio of noisy means along the canary's gradient."""
    y, q, s2 = np.array(seen) * 7.0 / CLIP, float(RATE), float(sigma) ** 2
    return float(np.logaddexp(math.log(1 - q), math.log(q) + (y - 0.5) / s2).sum())


def score(inside: bool, steps: int, sigma: Fraction = SIGMA) -> float:
    """Play one game on a table of the canary or of nothing; return the score."""
    canary = Canary()
    table = np.ones((int(inside), 1), dtype=np.int32)
    units = np.zeros(int(inside), dtype=np.int64)
    run(canary, table, units, Steps(RATE, sigma, CLIP, 7.0), steps, SYSTEM, _silent)
    return ratio(canary.seen, sigma)


class InTraining:
    """Logistic regression of ten codes, trained; the eleventh code's weight is the canary's.

    Rows have bounded losses and small gradients that depend on the weights. The canary's loss is a
    steep line in its own weight, which no row moves; its norm is clipped to the clip.
    """

    def __init__(self) -> None:
        self.module: nn.Module = CodesLinear((11,), 1, bias=False)
        with torch.no_grad():
            next(self.module.parameters()).zero_()
        self.seen: list[float] = []

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        logits = module(records)[:, 0]
        found: Tensor = torch.where(
            records[:, 0] == 10, 100.0 * logits, nn.functional.softplus(0.3 * (1 - logits))
        )
        return found

    def update(self, gradients: list[Tensor]) -> None:
        self.seen.append(float(gradients[0][10, 0]))
        with torch.no_grad():
            next(self.module.parameters()).sub_(0.5 * gradients[0])

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        raise NotImplementedError


def score_in_training(inside: bool, steps: int, sigma: Fraction = SIGMA) -> float:
    """Play one game on a table of forty rows, with the canary or without it."""
    learner = InTraining()
    table = np.append(np.arange(40) % 10, [10] * inside).astype(np.int32)[:, None]
    units = np.arange(len(table), dtype=np.int64)
    run(learner, table, units, Steps(RATE, sigma, CLIP, 7.0), steps, SYSTEM, _silent)
    return ratio(learner.seen, sigma)


Game = Callable[[bool, int, Fraction], float]


def least(steps: int, games: int, sigma: Fraction = SIGMA, play: Game = score) -> float:
    """Return a lower bound on epsilon: half of the games choose a threshold, the rest try it."""
    inside = np.array([play(True, steps, sigma) for _ in range(games)])
    outside = np.array([play(False, steps, sigma) for _ in range(games)])
    half = games // 2

    def bound(threshold: float, a: NDArray[Any], b: NDArray[Any], level: float) -> float:
        hit = clopper_pearson(int((a > threshold).sum()), len(a), level)
        false = clopper_pearson(int((b > threshold).sum()), len(b), level)
        odds = (hit.low - float(DELTA)) / false.high
        return math.log(odds) if odds > 0 else 0.0

    tried = np.quantile(np.concatenate([inside[:half], outside[:half]]), np.linspace(0.3, 1, 60))
    best = max(tried, key=lambda t: bound(t, inside[:half], outside[:half], 0.9))
    return bound(best, inside[half:], outside[half:], LEVEL)


def claim(steps: int, sigma: Fraction = SIGMA) -> float:
    return float(least_epsilon(SubsampledGaussian(RATE, sigma, steps), DELTA))


def without_noise(patch: pytest.MonkeyPatch) -> None:
    def none(_: Fraction, shape: tuple[int, ...], *rest: Any) -> NDArray[np.int64]:
        del rest
        return np.zeros(shape, dtype=np.int64)

    patch.setattr(_loop._noise, "discrete_gaussian", none)


def without_clipping(patch: pytest.MonkeyPatch) -> None:
    real = _loop.clipped_sum

    def whole(module: Any, loss: Any, records: Any, units: Any, count: int, _: float) -> Any:
        return real(module, loss, records, units, count, 1e6)

    patch.setattr(_loop, "clipped_sum", whole)


def with_batches_used_again(patch: pytest.MonkeyPatch) -> None:
    real = _loop._samples

    def again(units: int, rate: Any, count: int, stream: Any) -> Iterator[NDArray[np.bool_]]:
        (batch,) = real(units, rate, 1, stream)
        for _ in range(count):
            yield batch

    patch.setattr(_loop, "_samples", again)


def test_the_loop_tells_no_more_than_it_claims() -> None:
    assert least(20, 150) <= claim(20)


@pytest.mark.parametrize("sabotage", [without_noise, without_clipping])
def test_a_sabotaged_loop_is_flagged(sabotage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch)
    assert least(20, 150) > claim(20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("play", "sigma"),
    [(score, Fraction(3, 5)), (score, Fraction(3)), (score_in_training, SIGMA)],
)
def test_the_loop_tells_no_more_than_it_claims_in_many_games(play: Game, sigma: Fraction) -> None:
    """A thousand games at each claim.

    A bound above the claim needs true rates outside intervals of 99.9 %, and the odds at any one
    threshold lie below the claim besides.
    """
    assert least(8, 500, sigma, play) <= claim(8, sigma)


@pytest.mark.slow
@pytest.mark.parametrize("sabotage", [without_noise, without_clipping])
def test_a_sabotaged_training_is_flagged(sabotage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch)
    assert least(20, 150, SIGMA, score_in_training) > claim(20)


@pytest.mark.slow
def test_batches_used_again_are_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    with_batches_used_again(monkeypatch)
    assert least(36, 2400) > claim(36)
