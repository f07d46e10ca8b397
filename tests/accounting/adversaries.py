"""Attacks that exist, found by search and priced exactly: lower bounds on any honest price.

Nothing here imports the package under test.

* Choices of bounded range: policies found backwards, then replayed forwards.
* Exponential mechanisms over real score vectors, every transcript enumerated.
* Gaussian noise divided adaptively.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from tests.accounting.oracles import Array, Finite, gaussian_deltas

# -- choices of bounded range: adversaries that exist ----------------------------------------------


@dataclass(frozen=True)
class Adversary:
    """Whoever answers choices of bounded range as badly as a grid of offsets allows.

    A choice of range epsilon and offset t has the loss t with probability
    (e^epsilon - e^t) / (e^epsilon - 1), and t - epsilon otherwise. Ranges and offsets are
    multiples of ``step``, so after any history the sum of losses is one too: the best policy on
    that grid is found exactly, with no interpolation, and it is a mechanism that exists. What it
    gains is a *lower* bound on delta.

    Before the choices a Gaussian with shift ``mu`` may be seen, which can only help the adversary
    (it may be ignored). It is seen through ``bins`` intervals: a post-processing, so still lower.

    Attributes:
        widths: Ranges of the choices, in the order in which they come, in multiples of ``step``.
        step: Distance of the offsets.
    """

    widths: tuple[int, ...]
    step: float
    mu: float = 0.0
    bins: int = 1

    @staticmethod
    def alike(
        epsilon: float, count: int, parts: int = 16, mu: float = 0.0, bins: int = 1
    ) -> Adversary:
        """Return the adversary of ``count`` choices of one range."""
        return Adversary((parts,) * count, epsilon / parts, mu, bins)

    def _odds(self, width: int) -> tuple[Array, Array]:
        second = np.expm1(np.arange(width + 1) * self.step) / np.expm1(width * self.step)
        return 1 - second, second

    def seen(self) -> tuple[Array, Array]:
        """Return the masses and the losses of what is seen of the Gaussian, drawn with the shift.

        Cut at equal distances around the middle of the two laws: both tails are resolved.
        """
        if self.mu == 0:
            return np.ones(1), np.zeros(1)
        reach = 8.0 + self.mu
        cuts = np.concatenate([[-np.inf], np.linspace(-reach, reach, self.bins - 1), [np.inf]])
        mass = _interval(cuts - self.mu / 2)
        other = _interval(cuts + self.mu / 2)
        return mass, np.log(mass) - np.log(other)

    def backwards(self, at: float) -> tuple[Array, list[NDArray[np.intp]]]:
        """Return the best gain from each start, and the best offset of each round and state.

        States are (what was seen, sum of losses), the sum on a grid around what was seen.
        """
        far = sum(self.widths)
        sums = self.seen()[1][:, None] + np.arange(-far, far + 1)[None, :] * self.step
        value = np.maximum(0.0, -np.expm1(np.minimum(at - sums, 700.0)))
        policy: list[NDArray[np.intp]] = []
        inner = far
        for width in reversed(self.widths):
            first, second = self._odds(width)
            inner -= width
            core = np.arange(far - inner, far + inner + 1)
            gains = np.stack(
                [
                    first[t] * value[:, core + t] + second[t] * value[:, core + t - width]
                    for t in range(width + 1)
                ]
            )
            best = gains.argmax(axis=0)
            value = np.full_like(value, np.nan)
            value[:, core] = np.take_along_axis(gains, best[None], axis=0)[0]
            policy.append(best)
        return value[:, far], policy[::-1]

    def delta(self, at: float) -> float:
        """Return the best gain: a lower bound on delta at ``at``."""
        return float((self.seen()[0] * self.backwards(at)[0]).sum())

    def replayed(self, at: float) -> float:
        """Return what the same policy gains, by following its histories forwards.

        P and Q are carried side by side as two laws over histories' sums, so nothing of the
        recursion (and not even the rule that Q = P e^-loss) is used again.
        """
        policy = self.backwards(at)[1]
        mass, losses = self.seen()
        far = sum(self.widths)
        p = np.zeros((len(mass), 2 * far + 1))
        q = np.zeros_like(p)
        p[:, far], q[:, far] = mass, mass * np.exp(-losses)
        inner = 0
        for width, best in zip(self.widths, policy, strict=True):
            first, second = self._odds(width)
            core = np.arange(far - inner, far + inner + 1)
            new_p, new_q = np.zeros_like(p), np.zeros_like(q)
            for t in range(width + 1):
                one, two = np.exp(-t * self.step), np.exp((width - t) * self.step)
                now_p, now_q = (
                    np.where(best == t, p[:, core], 0),
                    np.where(best == t, q[:, core], 0),
                )
                new_p[:, core + t] += now_p * first[t]
                new_q[:, core + t] += now_q * first[t] * one
                new_p[:, core + t - width] += now_p * second[t]
                new_q[:, core + t - width] += now_q * second[t] * two
            p, q = new_p, new_q
            inner += width
        assert abs(float(p.sum()) - 1) < 1e-9
        assert abs(float(q.sum()) - 1) < 1e-9
        return float(np.maximum(p - math.exp(at) * q, 0.0).sum())


def _interval(cuts: Array) -> Array:
    """Return normal masses between cuts, each from the nearer tail."""
    low, high = cuts[:-1], cuts[1:]
    return np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))


def every_offset(epsilons: Sequence[float], at: float, parts: int) -> float:
    """Return the best adversary of a few choices, by trying every offset after every history.

    For up to 4 choices: the tree has (2 * parts + 2)^choices leaves.
    """

    def gain(p: float, q: float, left: Sequence[float]) -> float:
        if not left:
            return max(p - math.exp(at) * q, 0.0)
        epsilon, best = left[0], 0.0
        for t in np.linspace(0.0, epsilon, parts + 1):
            first = (math.exp(epsilon) - math.exp(t)) / math.expm1(epsilon)
            one = gain(p * first, q * first * math.exp(-t), left[1:])
            two = gain(p * (1 - first), q * (1 - first) * math.exp(epsilon - t), left[1:])
            best = max(best, one + two)
        return best

    return gain(1.0, 1.0, epsilons)


# -- exponential mechanisms over score vectors -----------------------------------------------------


def choice_laws(
    rng: np.random.Generator, epsilon: float, candidates: int, moves: int = 1
) -> tuple[Array, Array]:
    """Return the laws of one choice on two neighbours, for random scores of sensitivity 1.

    Scores move by at most ``moves``: the number of units in which the two data sets differ.
    """
    scores = rng.normal(scale=rng.choice([0.0, 1.0, 5.0]), size=candidates)
    change = rng.choice([-1.0, 1.0, rng.uniform(-1, 1)], size=candidates) * moves
    return _softmax(epsilon / 2 * (scores + change)), _softmax(epsilon / 2 * scores)


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def normal_laws(mu: float, bins: int) -> tuple[Array, Array]:
    """Return the laws of a Gaussian answer seen through intervals, on two neighbours."""
    cuts = np.concatenate([[-np.inf], mu / 2 + ndtri(np.linspace(0, 1, bins + 1)[1:-1]), [np.inf]])
    return _interval(cuts - mu), _interval(cuts)


Step = Callable[[np.random.Generator], tuple[Array, Array]]
"""Draws the laws of one step, anew for each history: scores may depend on all that was seen."""


def transcripts(rng: np.random.Generator, steps: Sequence[Step]) -> Finite:
    """Return the two laws over every transcript of the steps, one after another."""
    p, q = np.ones(1), np.ones(1)
    for step in steps:
        laws = [step(rng) for _ in p]
        p = np.concatenate([mass * law[0] for mass, law in zip(p, laws, strict=True)])
        q = np.concatenate([mass * law[1] for mass, law in zip(q, laws, strict=True)])
    return Finite(p, q)


# -- noise that is divided adaptively --------------------------------------------------------------


def divided_gaussian(total: float, parts: int, rounds: int, bins: int, at: float) -> float:
    """Return the best gain of an adversary who divides ``total`` (mu squared) as answers come in.

    In each round any number of ``parts``-ths of what was granted in all may be used, and the answer
    is seen through intervals. Each history is tried: a lower bound on delta of the best division.
    """
    laws: dict[int, tuple[Array, Array]] = {}
    for used in range(1, parts + 1):
        mass, base = normal_laws(math.sqrt(total * used / parts), bins)
        laws[used] = mass, np.log(mass) - np.log(base)

    def gain(losses: Array, left: int, more: int) -> Array:
        stop = np.maximum(0.0, -np.expm1(np.minimum(at - losses, 700.0)))
        if not left or not more:
            return stop
        best = stop
        for used in range(1, left + 1):
            if more == 1:
                # The last answer in full, for any number of histories: no intervals are needed.
                value = gaussian_deltas(math.sqrt(total * used / parts), at - losses)
            else:
                mass, added = laws[used]
                after = gain((losses[:, None] + added[None, :]).ravel(), left - used, more - 1)
                value = (after.reshape(len(losses), -1) * mass).sum(axis=1)
            best = np.maximum(best, value)
        return best

    return float(gain(np.zeros(1), parts, rounds)[0])
