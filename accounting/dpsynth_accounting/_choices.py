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

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from dpsynth_accounting._loss import Array

_WORK = 5e7
"""Evaluations of one value iteration: bounds its time to a second or two."""

Kinds: TypeAlias = tuple[tuple[float, int], ...]
"""(epsilon, count) of each kind of choice."""

_FEWEST, _MOST = 4, 256  # cells in the width of the narrowest choice
_ALONE = 4096  # the same for a single choice, which needs no iteration
_CHORD = 0.34
"""What chords are taken to add to each squared epsilon, in squared cells, where a grid is chosen.

It is about 1 (measured: 0.85 to 1.03): for speed, what choices add may err by three times the
accuracy asked for.
"""
_TOGETHER = 8192  # points of V worked on at once: enough for speed, few enough for the cache


@dataclass(frozen=True, eq=False)
class Choices:
    """What choices do to the curve of everything else.

    Attributes:
        shifts: float64 (points,): additions to epsilon.
        weights: float64 (points,): non-negative, of sum 1.
    """

    shifts: Array
    weights: Array

    def deltas(self, others: Callable[[Array], Array], epsilon: Array) -> Array:
        """Return deltas of choices and everything else, whose own curve is ``others``."""
        return np.array([float((self.weights * others(e + self.shifts)).sum()) for e in epsilon])


def grid_of(choices: Kinds, accuracy: float) -> tuple[Kinds, int] | None:
    """Return kinds to iterate over and how many cells the narrowest is wide; None if too long.

    Where kinds as they are would take too long, or get too coarse a grid, some are widened to the
    next wider one, which only adds to what they can do.

    Args:
        choices: (epsilon, count) of each kind of choice.
        accuracy: Relative error wanted in what choices add to the variance.
    """
    exact = math.fsum(count * epsilon * epsilon for epsilon, count in choices)
    found: list[tuple[float, Kinds, int]] = []
    while True:
        for cells in _possible(choices, accuracy):
            excess = _squares(choices, cells) / exact - 1
            if excess <= accuracy:
                return choices, cells
            found.append((excess, choices, cells))
        if len(choices) == 1:
            break
        choices = _fewer_kinds(choices)
    return min(found)[1:] if found else None


def _possible(choices: Kinds, accuracy: float) -> range:
    """Return the numbers of cells worth trying, from what chords alone ask for to twice that."""
    if sum(count for _, count in choices) == 1:
        return range(_ALONE, _ALONE + 1)
    narrowest = min(epsilon for epsilon, _ in choices)
    states = math.prod(count + 1 for _, count in choices)
    reach = math.fsum(count * epsilon / narrowest for epsilon, count in choices)
    moves = math.fsum(
        states * count / (count + 1) * epsilon / narrowest for epsilon, count in choices
    )
    most = math.floor(min(math.sqrt(_WORK / (2 * reach * moves)), _MOST))
    wanted = min(max(math.ceil(math.sqrt(_CHORD / accuracy)), _FEWEST), most)
    return range(max(wanted, _FEWEST), min(2 * wanted, most) + 1)


def _squares(choices: Kinds, cells: int) -> float:
    """Return the sum of squared epsilons as it is on a grid: widths rounded up, and chords."""
    interval = min(epsilon for epsilon, _ in choices) / cells
    return interval**2 * math.fsum(
        count * (_width(epsilon, interval) ** 2 + _CHORD) for epsilon, count in choices
    )


def _width(epsilon: float, interval: float) -> int:
    """Return the width of a choice in whole cells, rounded up but for floating point."""
    return math.ceil(epsilon / interval * (1 - 1e-12))


def _fewer_kinds(choices: Kinds) -> Kinds:
    """Widen one kind of choice to the next wider, the closest there is."""
    kinds = sorted(choices)
    ratios = [after / before for (before, _), (after, _) in itertools.pairwise(kinds)]
    i = ratios.index(min(ratios))
    merged = (kinds[i + 1][0], kinds[i][1] + kinds[i + 1][1])
    return (*kinds[:i], merged, *kinds[i + 2 :])


@lru_cache(maxsize=32)
def worst_choices(choices: Kinds, cells: int) -> Choices:
    """Return the worst that choices can do, in whatever order they come.

    Args:
        choices: (epsilon, count) of each kind of choice.
        cells: Grid cells in the width of the narrowest kind. The others are widened to whole
            cells, which only adds to what they can do.
    """
    interval = min(epsilon for epsilon, _ in choices) / cells
    widths = [_width(epsilon, interval) for epsilon, _ in choices]
    reach = sum(width * count for width, (_, count) in zip(widths, choices, strict=True))
    # Beyond the reach V is known: 0 where no loss can suffice any more, 1 - x where all do.
    pad = max(widths)
    loss = np.arange(-reach - pad, reach + pad + 1, dtype=np.float64) * interval
    inside = slice(pad, pad + 2 * reach + 1)
    together = _TOGETHER // len(loss) + 1
    # V for each number of choices of each kind still to come; the adversary picks the next kind.
    layer = {(0,) * len(widths): np.maximum(0.0, -np.expm1(-loss))}
    for played in range(sum(count for _, count in choices)):
        following: dict[tuple[int, ...], Array] = {}
        for kind, width in enumerate(widths):
            states = [state for state in layer if state[kind] < choices[kind][1]]
            for start in range(0, len(states), together):
                some = states[start : start + together]
                found = np.stack([layer[state] for state in some])
                found[:, inside] = (
                    _round(found, pad, width, interval)
                    if played
                    else _first(loss[inside], width * interval)
                )
                for state, value in zip(some, found, strict=True):
                    more = (*state[:kind], state[kind] + 1, *state[kind + 1 :])
                    known = following.get(more)
                    following[more] = value if known is None else np.maximum(value, known)
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


def _round(values: Array, pad: int, width: int, interval: float) -> Array:
    """Return V one choice earlier: float64 (states, points without the ``pad`` at both ends)."""
    scale = math.exp(width * interval)
    ends = np.exp(-np.arange(width + 1) * interval)  # a / x at the ends of each cell
    points = values.shape[1] - 2 * pad
    # In the cell from point i on, p V(a) + (1 - p) V(E a) is (c0 / a + c1 + c2 a) / (E - 1). Both
    # chords' parts in c0 and, times a at the cell's upper end, in c2 depend on i alone.
    share = -math.expm1(-interval)
    falls = (values[:, :-1] - values[:, 1:]) / share
    starts = values[:, :-1] - falls
    c0 = starts[:, :-width] - starts[:, width:]
    c2 = scale * falls[:, width:] - falls[:, :-width]
    inner = (c0 < 0) & (c2 < 0)
    # It is greatest at sqrt(c0 / c2) if both are negative, else at an end of the cell.
    peaks = np.sqrt(np.divide(c0, c2, out=np.full(c0.shape, np.inf), where=inner))
    best = np.zeros((len(values), points))
    for cell in range(width):
        high, low = float(ends[cell]), float(ends[cell + 1])
        at = pad + cell
        v0, w0 = values[:, at : at + points], values[:, at - width : at - width + points]
        v1 = values[:, at + 1 : at + 1 + points]
        w1 = values[:, at + 1 - width : at + 1 - width + points]
        a = np.clip(peaks[:, at - width : at - width + points] * math.sqrt(high), low, high)
        # Evaluated as means of values, so that small ones keep their digits.
        across = (high - a) / (high - low)
        w = w0 + across * (w1 - w0)
        p = (scale - 1 / a) / (scale - 1)
        np.maximum(best, w + p * (v0 + across * (v1 - v0) - w), out=best)
        at_high = (scale - 1 / high) / (scale - 1)
        np.maximum(best, w0 + at_high * (v0 - w0), out=best)
    # At the lowest end p is 0.
    return np.asarray(np.maximum(best, w1))
