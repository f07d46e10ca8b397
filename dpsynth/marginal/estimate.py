"""The distribution that best explains noisy marginals, by exact inference on a junction tree.

Private-PGM (McKenna, Sheldon, Miklau 2019, "Graphical-model based estimation and inference for
differential privacy", sections 3 and 4): minimise a weighted squared error over the marginal
polytope. Three ways, from the quickest: a closed form for one-way marginals, Newton's method where
every clique of the junction tree was measured whole (every tree of pairs), mirror descent for the
rest.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique
from dpsynth.marginal import decomposable
from dpsynth.marginal.descent import Descent, Loss
from dpsynth.marginal.elimination import joint
from dpsynth.marginal.factor import Factor
from dpsynth.marginal.junction import JunctionTree
from dpsynth.marginal.propagation import Propagation, slots
from dpsynth.vault import Measurement
from dpsynth_accounting import InvalidRequest

Array = NDArray[np.float64]

_CERTAIN = 1e-4  # relative gap that Newton's method must reach to be believed
_PART = 0.1  # of independence, in the start near an earlier fit


@dataclass(frozen=True, eq=False)
class Observation:
    """What is known of one marginal: unbiased values and how far off each may be.

    Attributes:
        clique: The columns, in the order of the axes.
        values: float64 array of estimated counts, one axis a column.
        variance: float64 array of the same shape, in rows squared, positive.
    """

    clique: Clique
    values: Array
    variance: Array

    @classmethod
    def of(cls, measurement: Measurement) -> Observation:
        """The observation that a vault's answer is."""
        values = measurement.values.astype(np.float64)
        return cls(measurement.clique, values, np.full(values.shape, measurement.sigma**2))

    def joined(self, other: Observation) -> Observation:
        """One observation of two of the same clique, by inverse-variance weighting."""
        precision = 1.0 / self.variance + 1.0 / other.variance
        values = (self.values / self.variance + other.values / other.variance) / precision
        return Observation(self.clique, values, 1.0 / precision)

    def transpose(self, clique: Clique) -> Observation:
        """The same observation with its axes in the order of ``clique``."""
        values = Factor(self.clique, self.values).transpose(clique).values
        return Observation(
            clique, values, Factor(self.clique, self.variance).transpose(clique).values
        )


@dataclass(frozen=True, eq=False)
class Fit:
    """Consistent clique marginals of a fitted model.

    Attributes:
        tree: The junction tree.
        marginals: One factor of expected counts for each clique of the tree; any two agree on the
            columns they share, and each sums to ``total``.
        total: Number of rows the marginals are scaled to.
        loss: The weighted squared error reached, half a chi-squared statistic.
        gap: How far ``loss`` can be above the least possible, at most.
        iterations: Steps taken; 0 for a closed form.
    """

    tree: JunctionTree
    marginals: tuple[Factor, ...]
    total: float
    loss: float
    gap: float
    iterations: int

    def answers(self, cliques: Iterable[Clique]) -> Iterator[tuple[Clique, NDArray[np.int64]]]:
        """Yield what the fit says of marginals, in whole rows; none that no memory holds."""
        if self.tree.independent:
            ones = {each.clique[0]: each.values / self.total for each in self.marginals}
            for clique in cliques:
                product = reduce(np.multiply.outer, [ones[name] for name in clique])
                yield clique, np.rint(self.total * product).astype(np.int64)
            return
        for clique in cliques:
            with contextlib.suppress(InvalidRequest):
                table = joint(self.tree, self.marginals, clique).transpose(clique).values
                yield clique, np.rint(table).astype(np.int64)


def estimate(
    observations: Sequence[Observation],
    sizes: Mapping[str, int],
    *,
    total: float | None = None,
    tolerance: float = 1e-2,
    iterations: int = 2000,
    enough: float = 0.0,
    start: Fit | None = None,
    impossible: Mapping[Clique, NDArray[np.bool_]] | None = None,
) -> Fit:
    """Fit the model of least weighted squared error to noisy marginals.

    Minimises the sum over observations of (model - value)^2 / (2 variance) over all
    distributions of ``total`` rows. The closed form and Newton's method go as far as float64 does;
    mirror descent stops when the loss is certified to lie within ``tolerance * max(loss, 1)`` of
    the least possible.

    Args:
        observations: Noisy marginals. A column that none of them names is fitted as uniform.
        sizes: Every column of the model with its number of codes.
        total: Number of rows; by default ``estimate_total(observations)``.
        tolerance: Relative gap at which mirror descent stops.
        iterations: Steps after which it stops in any case; ``Fit.gap`` then says how far it got.
        enough: A loss, as a share of that which noise alone would give the true counts, at which
            mirror descent stops: below, it would learn the noise (Morozov's discrepancy principle).
        start: A fit of the same columns, to some of the same observations, which mirror descent
            begins near; by default it begins at independence.
        impossible: Structural zeros: of some sets of columns the cells that no row can be in, true
            there. They have probability 0, exactly, in whatever the model is asked.

    Raises:
        InvalidRequest: If a marginal does not fit ``sizes``, ``total`` is not positive, or the
            structural zeros leave no cell.
    """
    rows = estimate_total(observations) if total is None else float(total)
    if not (math.isfinite(rows) and rows > 0):
        raise InvalidRequest(
            f"A fit was asked for with a total of {rows} rows.",
            "Marginals are scaled to a positive number of rows.",
            "Leave the total to be estimated: it is 1 at least.",
        )
    merged = _merge(observations, sizes)
    zeros = {} if impossible is None else impossible
    for clique, cells in zeros.items():
        _check_shape(clique, cells.shape, sizes)
    tree = JunctionTree.build([*merged, *zeros], sizes)
    for clique in tree.cliques:
        if len(clique) == 1 and clique not in merged:  # Nobody measured the column: uniform.
            size = sizes[clique[0]]
            merged[clique] = Observation(clique, np.full(size, rows / size), np.ones(size))
    # Half a chi-squared of as many cells is half their number.
    count = sum(each.values.size for each in merged.values())
    limits = (tolerance, iterations, enough * count / 2)
    if zeros:
        return _general(tree, merged, sizes, rows, limits, start, zeros)
    if tree.independent:
        return _independent(tree, merged, sizes, rows)
    if all(clique in merged for clique in tree.cliques):
        fit = _decomposable(tree, merged, sizes, rows)
        if fit.gap <= _CERTAIN * max(fit.loss, 1.0):
            return fit
        # Newton's method did not end: as for any tree, then.
        limits = (min(tolerance, _CERTAIN), iterations, limits[2])
    return _general(tree, merged, sizes, rows, limits, start)


def estimate_total(observations: Sequence[Observation]) -> float:
    """Number of rows by inverse-variance weighting of the observations' sums, at least 1."""
    weights = [1.0 / float(o.variance.sum()) for o in observations]
    sums = [float(o.values.sum()) for o in observations]
    if not weights:
        return 1.0
    return max(
        math.fsum(w * s for w, s in zip(weights, sums, strict=True)) / math.fsum(weights), 1.0
    )


def project_simplex(values: Array, total: float, variance: Array | None = None) -> Array:
    """The non-negative array of sum ``total`` that is nearest to ``values``.

    Nearest in squared distance weighted by 1 / variance: the solution is
    max(0, values - multiplier * variance), its multiplier found exactly by sorting.

    Args:
        values: One-dimensional float64 array.
        total: What the result sums to, at least 0.
        variance: Positive float64 array; all ones by default.

    >>> project_simplex(np.array([3.0, 1.0, -2.0]), 3.0)
    array([2.5, 0.5, 0. ])
    """
    spread = np.ones_like(values) if variance is None else variance
    # Codes leave the support in increasing order of value / variance.
    order = np.argsort(-values / spread, kind="stable")
    multipliers = (np.cumsum(values[order]) - total) / np.cumsum(spread[order])
    inside = values[order] > multipliers * spread[order]
    last = int(np.flatnonzero(inside)[-1]) if inside.any() else 0
    result = np.maximum(values - multipliers[last] * spread, 0.0)
    mass = float(result.sum())
    return result * (total / mass) if mass > 0 else np.full_like(values, total / values.size)


def _merge(
    observations: Sequence[Observation], sizes: Mapping[str, int]
) -> dict[Clique, Observation]:
    """One observation a set of columns, in domain order, by inverse-variance weighting."""
    place = {name: i for i, name in enumerate(sizes)}
    merged: dict[Clique, Observation] = {}
    for observation in observations:
        _check_shape(observation.clique, observation.values.shape, sizes)
        clique = tuple(sorted(observation.clique, key=place.__getitem__))
        new = observation.transpose(clique)
        if (old := merged.get(clique)) is not None:
            new = old.joined(new)
        merged[clique] = new
    return merged


def _check_shape(clique: Clique, found: tuple[int, ...], sizes: Mapping[str, int]) -> None:
    shape = tuple(sizes.get(c, 0) for c in clique)
    if not clique or found != shape:
        raise InvalidRequest(
            f"A fit was asked for with a marginal over {clique}.",
            "Its axes must be the sizes of columns of the model.",
            "Give every column of the marginal, and its size, to the fit.",
        )


def _independent(
    tree: JunctionTree, merged: Mapping[Clique, Observation], sizes: Mapping[str, int], rows: float
) -> Fit:
    observed = [merged[clique] for clique in tree.cliques]
    tables = [project_simplex(o.values, rows, o.variance) for o in observed]
    loss = Loss(tree, merged, sizes)
    value = loss.of(loss.residuals(tables))
    return _fit(tree, tables, rows, value, value, 0)


def _start(
    propagation: Propagation,
    tree: JunctionTree,
    merged: Mapping[Clique, Observation],
    sizes: Mapping[str, int],
    rows: float,
) -> list[Array]:
    """Independence, as far as one-way observations tell: much of the way for nothing."""
    potentials = [np.zeros(shape) for shape in propagation.shapes]
    for clique, seen in merged.items():
        holder = tree.holder(clique)
        if len(clique) == 1 and holder is not None:
            mass = project_simplex(seen.values, rows, seen.variance)
            # A code clipped to 0 must be able to come back: from about its noise.
            floor = 0.1 * np.minimum(np.sqrt(seen.variance), rows / mass.size)
            logs = np.log(np.maximum(mass, floor) / rows)
            potentials[holder] += logs.reshape(slots(tree.cliques[holder], clique, sizes))
    return potentials


def _general(
    tree: JunctionTree,
    merged: Mapping[Clique, Observation],
    sizes: Mapping[str, int],
    rows: float,
    limits: tuple[float, int, float],
    before: Fit | None,
    zeros: Mapping[Clique, NDArray[np.bool_]] | None = None,
) -> Fit:
    forbidden = _forbidden(tree, zeros or {}, sizes)
    propagation, loss = Propagation(tree, sizes, forbidden), Loss(tree, merged, sizes)
    if not math.isfinite(propagation.highest([np.zeros(shape) for shape in propagation.shapes])):
        raise InvalidRequest(
            "A fit was asked for with structural zeros.",
            "Together they leave no cell that a row could be in.",
            "Name only what no row can have.",
        )
    start = _start(propagation, tree, merged, sizes, rows)
    if before is not None:
        start = _near(before, start, propagation, tree)
    tolerance, steps, enough = limits
    descent = Descent(propagation, loss, rows)
    end = descent.run(start, tolerance=tolerance, steps=steps, enough=enough)
    return _fit(tree, end.tables, rows, end.loss, end.bound, end.steps)


def _forbidden(
    tree: JunctionTree, zeros: Mapping[Clique, NDArray[np.bool_]], sizes: Mapping[str, int]
) -> dict[int, NDArray[np.bool_]]:
    """Return the structural zeros as cells of the tree's cliques."""
    found: dict[int, NDArray[np.bool_]] = {}
    for clique, cells in zeros.items():
        holder = tree.holder(clique)
        if holder is not None:  # always: the tree was built of them too
            whole = tree.cliques[holder]
            ordered = tuple(name for name in whole if name in clique)
            wide = np.moveaxis(cells, range(len(clique)), [ordered.index(c) for c in clique])
            wide = wide.reshape(slots(whole, ordered, sizes))
            shape = tuple(sizes[name] for name in whole)
            found[holder] = found.get(holder, np.zeros(shape, dtype=np.bool_)) | wide
    return found


def _near(
    before: Fit, start: Sequence[Array], propagation: Propagation, tree: JunctionTree
) -> list[Array]:
    """Most of an earlier fit and a part of independence, or independence where that is too large.

    What the earlier fit holds for impossible must be able to come back, hence the part.
    """
    alone, _ = propagation.marginals([table.copy() for table in start], before.total)
    try:
        known = [joint(before.tree, before.marginals, clique) for clique in tree.cliques]
    except InvalidRequest:
        return list(start)
    mixed = [
        (1 - _PART) * table.transpose(clique).values + _PART * other
        for table, clique, other in zip(known, tree.cliques, alone, strict=True)
    ]
    return propagation.potentials(mixed, 1e-12 * before.total)


def _decomposable(
    tree: JunctionTree, merged: Mapping[Clique, Observation], sizes: Mapping[str, int], rows: float
) -> Fit:
    solution = decomposable.solve(tree, merged, rows)
    tables = Propagation(tree, sizes).reconcile(solution.tables, rows)
    loss = Loss(tree, merged, sizes)
    value = loss.of(loss.residuals(tables))
    return _fit(tree, tables, rows, value, solution.bound, solution.steps)


def _fit(
    tree: JunctionTree, tables: Sequence[Array], rows: float, loss: float, bound: float, steps: int
) -> Fit:
    factors = (Factor(c, table) for c, table in zip(tree.cliques, tables, strict=True))
    return Fit(tree, tuple(factors), rows, loss, max(loss - bound, 0.0), steps)
