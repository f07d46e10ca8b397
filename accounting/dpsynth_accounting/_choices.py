"""The worst an adversary can do with choices of bounded range, by value iteration.

A choice of epsilon-bounded range has all its losses in [t - epsilon, t] for some offset t. An
adversary picks each t after seeing all losses so far (Dong, Durfee, Rogers 2020, section 4, for
choices alone). With x = e^-(loss so far), the greatest delta still to come is a function V(x) that
is convex, so in each round the worst law of given t sits on the two ends of its interval:

    V_k(x) = max over a in [x / E, x] of  p V_(k-1)(a) + (1 - p) V_(k-1)(E a),    E = e^epsilon,
    p = (E a - x) / ((E - 1) a),    V_0(x) = (1 - x)_+ .

Between grid points V is replaced by its chord, which is above it; then the maximum over each cell
has a closed form. A convex, falling V is a mixture of the functions (1 - x / X)_+, which are
hockey sticks: so the choices turn any curve delta(epsilon) of everything else into a mixture of
shifts of it. Answers of everything else are revealed to the adversary first, which covers every
order in which they come. Proof: ``docs/explanation/exponential-mechanism.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dpsynth_accounting._loss import Array

_WORK = 3e7
"""Evaluations of one value iteration: bounds its time to a second or two."""

Kinds: TypeAlias = tuple[tuple[float, int], ...]
"""(epsilon, count) of each kind of choice."""

_FEWEST, _MOST = 4, 256  # cells in the width of the narrowest choice
_ALONE = 4096  # the same for a single choice, which needs no iteration


@dataclass(frozen=True, eq=False)
class Choices:
    """What choices do to the curve of everything else.

    Attributes:
        shifts: float64 (points,): additions to epsilon.
        weights: float64 (points,): non-negative, of sum 1.
    """

    shifts: Array
    weights: Array

    def delta(self, others: Callable[[Array], Array], epsilon: float) -> float:
        """Return delta of choices and everything else, whose own curve is ``others``."""
        return float((self.weights * others(epsilon + self.shifts)).sum())


def fineness(choices: Kinds, accuracy: float) -> int | None:
    """Return how many cells the narrowest choice is wide, or None where all would take too long.

    A chord adds at most h^2 / 4 to the variance of a loss, typically h^2 / 6, of epsilon^2 / 4.

    Args:
        choices: (epsilon, count) of each kind of choice.
        accuracy: Relative error allowed in what choices add to the variance.
    """
    narrowest = min(epsilon for epsilon, _ in choices)
    if sum(count for _, count in choices) == 1:
        return _ALONE
    states = math.prod(count + 1 for _, count in choices)
    reach = math.fsum(count * epsilon / narrowest for epsilon, count in choices)
    moves = math.fsum(
        states * count / (count + 1) * epsilon / narrowest for epsilon, count in choices
    )
    possible = math.sqrt(_WORK / (2 * reach * moves))
    if possible < _FEWEST:
        return None
    wanted = math.ceil(math.sqrt(0.34 / accuracy))
    return max(_FEWEST, min(wanted, math.floor(possible), _MOST))


@lru_cache(maxsize=32)
def worst_choices(choices: Kinds, cells: int) -> Choices:
    """Return the worst that choices can do, in whatever order they come.

    Args:
        choices: (epsilon, count) of each kind of choice.
        cells: Grid cells in the width of the narrowest kind. The others are widened to whole
            cells, which only adds to what they can do.
    """
    interval = min(epsilon for epsilon, _ in choices) / cells
    widths = [math.ceil(epsilon / interval * (1 - 1e-12)) for epsilon, _ in choices]
    reach = sum(width * count for width, (_, count) in zip(widths, choices, strict=True))
    # Beyond the reach V is known: 0 where no loss can suffice any more, 1 - x where all do.
    pad = max(widths)
    loss = np.arange(-reach - pad, reach + pad + 1, dtype=np.float64) * interval
    inside = np.arange(pad, pad + 2 * reach + 1)
    # V for each number of choices of each kind still to come; the adversary picks the next kind.
    layer = {(0,) * len(widths): np.maximum(0.0, -np.expm1(-loss))}
    for played in range(sum(count for _, count in choices)):
        following: dict[tuple[int, ...], Array] = {}
        for state, value in layer.items():
            for kind, width in enumerate(widths):
                if state[kind] == choices[kind][1]:
                    continue
                found = value.copy()
                found[inside] = (
                    _round(value, inside, width, interval)
                    if played
                    else _first(loss[inside], width * interval)
                )
                more = (*state[:kind], state[kind] + 1, *state[kind + 1 :])
                if more in following:
                    found = np.maximum(found, following[more])
                following[more] = found
        layer = following
    (value,) = layer.values()
    # A convex function of x is a mixture of hockey sticks, weighted by its changes of slope.
    x = np.exp(-loss)
    slopes = np.concatenate([[0.0], np.diff(value) / np.diff(x), [-1.0]])
    weights = np.maximum(0.0, slopes[:-1] - slopes[1:]) * x
    kept = weights > 0
    return Choices(loss[kept], weights[kept])


def _first(loss: Array, epsilon: float) -> Array:
    """Return V_1 in closed form: the profile of one choice, (sqrt(E) - sqrt(x))^2 / (E - 1)."""
    half = np.exp((np.clip(-loss, -epsilon, epsilon) - epsilon) / 2)
    profile = (1 - half) ** 2 / -math.expm1(-epsilon)
    return np.where(loss >= epsilon, -np.expm1(-loss), profile)


def _round(value: Array, inside: NDArray[np.intp], width: int, interval: float) -> Array:
    """Return V one choice earlier, at the grid points ``inside``."""
    scale = math.exp(width * interval)
    ends = np.exp(-np.arange(width + 1) * interval)  # a / x at the ends of each cell
    best = np.zeros(len(inside))
    for cell in range(width):
        high, low = ends[cell], ends[cell + 1]
        at = inside + cell
        v0, v1 = value[at], value[at + 1]  # V at a = high, low
        w0, w1 = value[at - width], value[at + 1 - width]  # V at E a
        slope_v, slope_w = (v0 - v1) / (high - low), (w0 - w1) / (high - low)
        # p V + (1 - p) W is (c0 / a + c1 + c2 a) / (E - 1): greatest at an end or at sqrt(c0 / c2).
        c0 = (w0 - slope_w * high) - (v0 - slope_v * high)
        c2 = scale * slope_v - slope_w
        with np.errstate(divide="ignore", invalid="ignore"):
            a = np.sqrt(c0 / c2)
        a = np.where((c0 < 0) & (c2 < 0), np.clip(a, low, high), high)
        # Evaluated as means of values, so that small ones keep their digits.
        share = (high - a) / (high - low)
        best = np.maximum(best, _mean(a, scale, v0 + share * (v1 - v0), w0 + share * (w1 - w0)))
        best = np.maximum(best, _mean(np.float64(high), scale, v0, w0))
    return np.asarray(np.maximum(best, _mean(np.float64(ends[-1]), scale, v1, w1)))


def _mean(a: Array | np.float64, scale: float, v: Array, w: Array) -> Array:
    p = (scale * a - 1) / ((scale - 1) * a)
    return np.asarray(p * v + (1 - p) * w)
