"""White-box games of DP-SGD: a canary of the greatest gradient, and all noisy gradients to see.

The adversary knows that the table is empty or holds the canary, sees every noisy mean, and scores
by the likelihood ratio, which no other score beats (Nasr et al. 2021, "Adversary instantiation").
Of the real loop the lower bound on epsilon stays below the claim; of sabotaged ones it does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor, nn

from dpsynth.attacks.statistics import clopper_pearson
from dpsynth.vault._stream import SYSTEM
from dpsynth.vault._train import CodesLinear, Steps, _loop, run
from dpsynth_accounting import SubsampledGaussian, least_epsilon

RATE, SIGMA, CLIP = Fraction(1, 10), Fraction(6, 5), 0.5
DELTA = Fraction(1, 100)
LEVEL = 0.999


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


def score(inside: bool, steps: int) -> float:
    """Play one game; return the log-likelihood ratio of what was seen."""
    canary = Canary()
    table = np.ones((int(inside), 1), dtype=np.int32)
    units = np.zeros(int(inside), dtype=np.int64)
    run(canary, table, units, Steps(RATE, SIGMA, CLIP, 7.0), steps, SYSTEM)
    y, q, s2 = np.array(canary.seen) * 7.0 / CLIP, float(RATE), float(SIGMA) ** 2
    return float(np.logaddexp(math.log(1 - q), math.log(q) + (y - 0.5) / s2).sum())


def least(steps: int, games: int) -> float:
    """Return a lower bound on epsilon: half of the games choose a threshold, the rest try it."""
    inside = np.array([score(True, steps) for _ in range(games)])
    outside = np.array([score(False, steps) for _ in range(games)])
    half = games // 2

    def bound(threshold: float, a: NDArray[Any], b: NDArray[Any], level: float) -> float:
        hit = clopper_pearson(int((a > threshold).sum()), len(a), level)
        false = clopper_pearson(int((b > threshold).sum()), len(b), level)
        ratio = (hit.low - float(DELTA)) / false.high
        return math.log(ratio) if ratio > 0 else 0.0

    tried = np.quantile(np.concatenate([inside[:half], outside[:half]]), np.linspace(0.3, 1, 60))
    best = max(tried, key=lambda t: bound(t, inside[:half], outside[:half], 0.9))
    return bound(best, inside[half:], outside[half:], LEVEL)


def claim(steps: int) -> float:
    return float(least_epsilon(SubsampledGaussian(RATE, SIGMA, steps), DELTA))


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
def test_the_loop_tells_no_more_than_it_claims_in_many_games() -> None:
    found = least(36, 2400)
    assert found <= claim(36)


@pytest.mark.slow
def test_batches_used_again_are_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    with_batches_used_again(monkeypatch)
    assert least(36, 2400) > claim(36)
