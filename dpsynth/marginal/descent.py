"""The fit of any set of marginals, by accelerated mirror descent over the marginal polytope.

Private-PGM (McKenna, Sheldon, Miklau 2019, "Graphical-model based estimation and inference for
differential privacy", sections 3 and 4) with the accelerated step of Auslender and Teboulle (2006)
in the form of Tseng (2008, algorithm 1), backtracking, restarts (O'Donoghue and Candes 2015) and a
lower bound that certifies the gap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique
from dpsynth.marginal.decomposable import Observed
from dpsynth.marginal.junction import JunctionTree
from dpsynth.marginal.projections import Projections
from dpsynth.marginal.propagation import Propagation

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
        held: list[list[Clique]] = [[] for _ in tree.cliques]
        for clique in observed:
            holder = tree.holder(clique)
            if holder is not None:
                held[holder].append(clique)
        self._projections = [
            Projections(clique, wanted, sizes)
            for clique, wanted in zip(tree.cliques, held, strict=True)
        ]
        self._ends = np.cumsum([0, *map(len, held)]).tolist()
        seen = [observed[clique] for wanted in held for clique in wanted]
        self.values = [np.asarray(each.values, dtype=np.float64) for each in seen]
        self.precisions = [1.0 / each.variance for each in seen]

    def residuals(self, tables: Sequence[Array]) -> list[Array]:
        """Prediction minus value of each observation."""
        predicted = [
            each
            for table, projections in zip(tables, self._projections, strict=True)
            for each in projections.of(table)
        ]
        return [each - value for each, value in zip(predicted, self.values, strict=True)]

    def of(self, residuals: Sequence[Array]) -> float:
        """The loss at these residuals."""
        pairs = zip(residuals, self.precisions, strict=True)
        return 0.5 * sum(float(np.vdot(r * precision, r)) for r, precision in pairs)

    def slopes(self, residuals: Sequence[Array]) -> list[Array]:
        """Gradient with respect to each prediction."""
        return [r * precision for r, precision in zip(residuals, self.precisions, strict=True)]

    def spread(self, slopes: Sequence[Array]) -> list[Array]:
        """What slopes of the predictions are as slopes of the clique tables."""
        ends = itertools.pairwise(self._ends)
        return [
            projections.spread(slopes[a:b])
            for (a, b), projections in zip(ends, self._projections, strict=True)
        ]

    def intercept(self, residuals: Sequence[Array]) -> float:
        """Value at all-zero tables of the plane that touches the loss at these residuals."""
        parts = zip(residuals, self.precisions, self.values, strict=True)
        return -sum(float(np.vdot(r * precision, r / 2 + v)) for r, precision, v in parts)


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
    """A distribution of the exponential family.

    Attributes:
        weights: Of each observation, what is taken from the potentials that the descent began at.
        tables: The expected counts of the cliques.
        residuals: Prediction minus value of each observation.
        log_partition: Of the potentials.
    """

    weights: list[Array]
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

    def run(
        self, start: Sequence[Array], *, tolerance: float, steps: int, enough: float = 0.0
    ) -> Descended:
        """Step until the loss is within ``tolerance * max(loss, 1)`` of the least possible.

        Args:
            start: Log-potentials of the first distribution.
            tolerance: Relative gap to stop at.
            steps: When to stop in any case.
            enough: A loss that is low enough to stop at.
        """
        nothing = [np.zeros_like(value) for value in self._loss.values]
        base = list(start)
        mirror = self._point(base, nothing)
        tables, residuals = mirror.tables, mirror.residuals
        value, bound, curvature = self._loss.of(residuals), 0.0, 1.0
        # The tangent planes met since the last restart, summed: their slopes and their level.
        weight, level = 0.0, 0.0
        for step in range(1, steps + 1):
            length, curvature, between, new = self._move(base, mirror, residuals, weight, curvature)
            share = length / (weight + length)
            mixed = _mix(residuals, new.residuals, share)
            if weight > 0.0 and self._loss.of(mixed) > value:
                base = self._propagation.potentials(tables, 1e-12 * self._total)
                mirror = self._point(base, nothing)
                weight, level = 0.0, 0.0
                continue
            tables, residuals, mirror = _mix(tables, new.tables, share), mixed, new
            value = self._loss.of(residuals)
            weight += length
            level += length * self._loss.intercept(between)
            curvature *= 0.8
            if value <= enough:
                return Descended(tables, value, max(bound, self._tangent(residuals)), step)
            if step % CHECK_EVERY == 0 or step == steps:
                planes = (level - self._total * self._highest(mirror.weights)) / weight
                bound = max(bound, planes, self._tangent(residuals))
                if value - bound <= tolerance * max(value, 1.0):
                    return Descended(tables, value, bound, step)
        return Descended(tables, value, max(bound, self._tangent(residuals)), steps)

    def _point(self, base: Sequence[Array], weights: list[Array]) -> _Point:
        moved = self._loss.spread(weights)
        potentials = [np.subtract(b, m, out=m) for b, m in zip(base, moved, strict=True)]
        tables, log_partition = self._propagation.marginals(potentials, self._total)
        return _Point(weights, tables, self._loss.residuals(tables), log_partition)

    def _move(
        self,
        base: Sequence[Array],
        mirror: _Point,
        residuals: Sequence[Array],
        weight: float,
        curvature: float,
    ) -> tuple[float, float, list[Array], _Point]:
        """One step of the mirror sequence, with the least curvature that covers the loss's bend.

        Returns:
            The step's length, the curvature, the residuals the slope was taken at, the new point.
        """
        while True:
            length = (1.0 + math.sqrt(1.0 + 4.0 * weight * curvature)) / (2.0 * curvature)
            between = _mix(residuals, mirror.residuals, length / (weight + length))
            slopes = self._loss.slopes(between)
            new = self._point(
                base, [w + length * s for w, s in zip(mirror.weights, slopes, strict=True)]
            )
            moved = [a - b for a, b in zip(new.residuals, mirror.residuals, strict=True)]
            bend = self._loss.of(moved)
            # The divergence of the two joint distributions follows from their potentials.
            parts = zip(slopes, new.residuals, self._loss.values, strict=True)
            inner = sum(float(np.vdot(s, r + v)) for s, r, v in parts)
            change = new.log_partition - mirror.log_partition
            divergence = -length * inner - self._total * change
            rounding = 1e-13 * (1.0 + self._loss.of(between))
            if bend <= max(curvature * divergence, rounding):
                return length, curvature, between, new
            curvature *= 2.0

    def _highest(self, slopes: Sequence[Array]) -> float:
        """The greatest sum of what is taken from the potentials, sign turned, over joint cells."""
        return self._propagation.highest([-table for table in self._loss.spread(slopes)])

    def _tangent(self, residuals: Sequence[Array]) -> float:
        """The least value, over all distributions, of the tangent plane at these residuals."""
        least = self._highest(self._loss.slopes(residuals))
        return self._loss.intercept(residuals) - self._total * least


def _mix(first: Sequence[Array], second: Sequence[Array], share: float) -> list[Array]:
    """A convex combination: ``1 - share`` of the first, ``share`` of the second."""
    return [a + share * (b - a) for a, b in zip(first, second, strict=True)]
