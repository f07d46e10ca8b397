"""The fit of any set of marginals, by accelerated mirror descent over the marginal polytope.

Private-PGM (McKenna, Sheldon, Miklau 2019, "Graphical-model based estimation and inference for
differential privacy", sections 3 and 4) with the accelerated step of Auslender and Teboulle (2006)
in the form of Tseng (2008, algorithm 1), backtracking, restarts (O'Donoghue and Candes 2015) and a
lower bound that certifies the gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.marginal.decomposable import Observed
from dpsynth.marginal.factor import Clique
from dpsynth.marginal.junction import JunctionTree
from dpsynth.marginal.propagation import Propagation, axes_outside, slots

Array = NDArray[np.float64]

CHECK_EVERY = 10
"""Steps between two looks at the gap, which costs as much as a step."""


class Loss:
    """Half the squared error of the observations, weighted by precision, as clique tables move.

    Args:
        tree: A junction tree with a clique that holds each observation.
        observed: One observation a clique, columns in the tree's order.
        sizes: Number of codes of each column.
    """

    def __init__(
        self, tree: JunctionTree, observed: Mapping[Clique, Observed], sizes: Mapping[str, int]
    ) -> None:
        self._shapes = [tuple(sizes[c] for c in clique) for clique in tree.cliques]
        self._parts = []
        for clique, seen in observed.items():
            holder = tree.holder(clique)
            if holder is not None:
                away = axes_outside(tree.cliques[holder], clique)
                there = slots(tree.cliques[holder], clique, sizes)
                self._parts.append((holder, away, there, seen.values, 1.0 / seen.variance))

    def residuals(self, tables: Sequence[Array]) -> list[Array]:
        """Prediction minus value of each observation."""
        return [
            (tables[holder].sum(axis=away) if away else tables[holder]) - values
            for holder, away, _, values, _ in self._parts
        ]

    def of(self, residuals: Sequence[Array]) -> float:
        """The loss at these residuals."""
        pairs = zip(residuals, self._parts, strict=True)
        return 0.5 * sum(float(np.vdot(r * part[4], r)) for r, part in pairs)

    def gradient(self, residuals: Sequence[Array]) -> list[Array]:
        """Gradient with respect to the clique tables."""
        slopes = [np.zeros(shape) for shape in self._shapes]
        for residual, (holder, _, there, _, precision) in zip(residuals, self._parts, strict=True):
            slopes[holder] += (residual * precision).reshape(there)
        return slopes

    def intercept(self, residuals: Sequence[Array]) -> float:
        """Value at all-zero tables of the plane that touches the loss at these residuals."""
        pairs = zip(residuals, self._parts, strict=True)
        return -sum(float(np.vdot(r * part[4], r / 2 + part[3])) for r, part in pairs)


@dataclass(frozen=True, eq=False)
class Descended:
    """Where mirror descent stopped.

    Attributes:
        tables: Consistent tables of the tree's cliques.
        loss: The loss there.
        bound: No consistent tables have a lower loss.
        steps: Steps taken.
    """

    tables: list[Array]
    loss: float
    bound: float
    steps: int


@dataclass(frozen=True, eq=False)
class _Point:
    """A distribution of the exponential family: its potentials and what follows from them."""

    potentials: list[Array]
    tables: list[Array]
    residuals: list[Array]
    log_partition: float


class Descent:
    """One minimisation over the distributions of ``total`` rows.

    Args:
        propagation: Inference on the junction tree.
        loss: What to minimise.
        total: What every table sums to.
    """

    def __init__(self, propagation: Propagation, loss: Loss, total: float) -> None:
        self._propagation, self._loss, self._total = propagation, loss, total

    def run(self, start: Sequence[Array], *, tolerance: float, steps: int) -> Descended:
        """Step until the loss is within ``tolerance * max(loss, 1)`` of the least possible.

        Args:
            start: Log-potentials of the first distribution.
            tolerance: Relative gap to stop at.
            steps: When to stop in any case.
        """
        mirror = self._point(list(start))
        tables, residuals = mirror.tables, mirror.residuals
        value, bound, curvature = self._loss.of(residuals), 0.0, 1.0
        # The tangent planes met since the last restart, summed: origin - potentials, and a level.
        origin, weight, level = mirror.potentials, 0.0, 0.0
        for step in range(1, steps + 1):
            length, curvature, between, new = self._move(mirror, residuals, weight, curvature)
            share = length / (weight + length)
            mixed = _mix(residuals, new.residuals, share)
            if weight > 0.0 and self._loss.of(mixed) > value:
                mirror = self._point(self._propagation.potentials(tables, 1e-12 * self._total))
                origin, weight, level = mirror.potentials, 0.0, 0.0
                continue
            tables, residuals, mirror = _mix(tables, new.tables, share), mixed, new
            value = self._loss.of(residuals)
            weight += length
            level += length * self._loss.intercept(between)
            curvature *= 0.8
            if step % CHECK_EVERY == 0 or step == steps:
                met = [p - o for p, o in zip(mirror.potentials, origin, strict=True)]
                planes = (level - self._total * self._propagation.highest(met)) / weight
                bound = max(bound, planes, self._tangent(residuals))
                if value - bound <= tolerance * max(value, 1.0):
                    return Descended(tables, value, bound, step)
        return Descended(tables, value, max(bound, self._tangent(residuals)), steps)

    def _point(self, potentials: list[Array]) -> _Point:
        tables, log_partition = self._propagation.marginals(potentials, self._total)
        return _Point(potentials, tables, self._loss.residuals(tables), log_partition)

    def _move(
        self, mirror: _Point, residuals: Sequence[Array], weight: float, curvature: float
    ) -> tuple[float, float, list[Array], _Point]:
        """One step of the mirror sequence, with the least curvature that covers the loss's bend.

        Returns:
            The step's length, the curvature, the residuals the slope was taken at, the new point.
        """
        while True:
            length = (1.0 + math.sqrt(1.0 + 4.0 * weight * curvature)) / (2.0 * curvature)
            between = _mix(residuals, mirror.residuals, length / (weight + length))
            slope = self._loss.gradient(between)
            new = self._point(
                [p - length * s for p, s in zip(mirror.potentials, slope, strict=True)]
            )
            moved = [a - b for a, b in zip(new.residuals, mirror.residuals, strict=True)]
            bend = self._loss.of(moved)
            # The divergence of the two joint distributions follows from their potentials.
            inner = sum(float(np.vdot(s, t)) for s, t in zip(slope, new.tables, strict=True))
            change = new.log_partition - mirror.log_partition
            divergence = -length * inner - self._total * change
            rounding = 1e-13 * (1.0 + self._loss.of(between))
            if bend <= max(curvature * divergence, rounding):
                return length, curvature, between, new
            curvature *= 2.0

    def _tangent(self, residuals: Sequence[Array]) -> float:
        """The least value, over all distributions, of the tangent plane at these residuals."""
        down = [-slope for slope in self._loss.gradient(residuals)]
        return self._loss.intercept(residuals) - self._total * self._propagation.highest(down)


def _mix(first: Sequence[Array], second: Sequence[Array], share: float) -> list[Array]:
    """A convex combination: ``1 - share`` of the first, ``share`` of the second."""
    return [a + share * (b - a) for a, b in zip(first, second, strict=True)]
