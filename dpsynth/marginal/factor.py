"""Factors: dense tables over named columns, with the few verbs inference needs.

Koller and Friedman, *Probabilistic Graphical Models* (2009), section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique
from dpsynth_accounting import InvalidRequest

_SMALL = 256  # cells below which a plain sum is as quick as any
_LONG = 64  # cells from which an innermost loop is worth its start


@dataclass(frozen=True, eq=False)
class Factor:
    """A float64 table over the columns of a clique.

    A factor does not know whether it holds counts, probabilities or logarithms: ``project`` and
    ``*`` belong to linear space, ``logsumexp`` and ``+`` to log space.

    Attributes:
        clique: Distinct column names, in the order of the axes.
        values: float64 array with one axis a column.

    Raises:
        InvalidRequest: If the axes do not match the names.

    >>> joint = Factor(("a", "b"), np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> joint.project(("b",)).values
    array([4., 6.])
    """

    clique: Clique
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse names that do not match the axes."""
        if self.values.ndim != len(self.clique) or len(set(self.clique)) != len(self.clique):
            raise InvalidRequest(
                f"A factor over {self.clique} was given an array of {self.values.ndim} axes.",
                "A factor has one axis for each of its distinct columns.",
                "Give one distinct name per axis.",
            )

    @property
    def sizes(self) -> dict[str, int]:
        """Axis length of each column."""
        return dict(zip(self.clique, self.values.shape, strict=True))

    def transpose(self, clique: Clique) -> Factor:
        """The same table with its axes in the order of ``clique``."""
        if clique == self.clique:
            return self
        if set(clique) != set(self.clique) or len(clique) != len(self.clique):
            raise _not_within(clique, self.clique)
        return Factor(clique, self.values.transpose([self.clique.index(c) for c in clique]))

    def project(self, clique: Clique) -> Factor:
        """Sum out every column that is not in ``clique``; axes in its order."""
        return self._reduce(clique, summed)

    def logsumexp(self, clique: Clique) -> Factor:
        """Sum out in log space every column that is not in ``clique``; axes in its order."""
        return self._reduce(clique, logsumexp)

    def expand(self, clique: Clique, shape: tuple[int, ...]) -> Factor:
        """The table repeated along the columns it lacks, as a read-only view.

        Args:
            clique: A superset of this factor's columns.
            shape: Axis lengths of the result.
        """
        if not set(self.clique) <= set(clique):
            raise _not_within(self.clique, clique)
        ordered = self.transpose(tuple(c for c in clique if c in self.clique))
        kept = tuple(n if c in self.clique else 1 for c, n in zip(clique, shape, strict=True))
        return Factor(clique, np.broadcast_to(ordered.values.reshape(kept), shape))

    def __add__(self, other: Factor) -> Factor:
        """Sum over the union of the columns: a product of factors in log space."""
        return self._combine(other, np.add)

    def __mul__(self, other: Factor) -> Factor:
        """Product over the union of the columns."""
        return self._combine(other, np.multiply)

    def _reduce(
        self,
        clique: Clique,
        verb: Callable[[NDArray[np.float64], tuple[int, ...]], NDArray[np.float64]],
    ) -> Factor:
        if not set(clique) <= set(self.clique):
            raise _not_within(clique, self.clique)
        axes = tuple(i for i, c in enumerate(self.clique) if c not in clique)
        kept = tuple(c for c in self.clique if c in clique)
        values = np.asarray(verb(self.values, axes)) if axes else self.values
        return Factor(kept, values).transpose(clique)

    def _combine(self, other: Factor, verb: np.ufunc) -> Factor:
        clique = union((self.clique, other.clique))
        sizes = other.sizes | self.sizes
        shape = tuple(sizes[c] for c in clique)
        left, right = self.expand(clique, shape), other.expand(clique, shape)
        return Factor(clique, verb(left.values, right.values))


def summed(values: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """What ``values.sum(axis=axes)`` is, by products with ones: along short axes ten times as fast.

    Args:
        values: float64 array.
        axes: Distinct axes, each at least 0.
    """
    if values.size < _SMALL or not axes:
        return np.asarray(values.sum(axis=axes))
    kept = tuple(n for i, n in enumerate(values.shape) if i not in axes)
    # Neighbouring axes of one fate are one axis; the longest that goes, goes first.
    runs: list[tuple[int, bool]] = []
    for i, length in enumerate(values.shape):
        goes = i in axes
        if runs and runs[-1][1] == goes:
            length *= runs.pop()[0]
        runs.append((length, goes))
    while going := [i for i, (_, goes) in enumerate(runs) if goes]:
        at = max(going, key=lambda i: runs[i][0])
        length, _ = runs.pop(at)
        before = math.prod(n for n, _ in runs[:at])
        after = math.prod(n for n, _ in runs[at:])
        ones = np.ones(length)
        if after == 1:
            values = values.reshape(before, length) @ ones
        elif before == 1:
            values = ones @ values.reshape(length, after)
        else:
            values = ones @ values.reshape(before, length, after)
    return values.reshape(kept)


def spaced(values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """An array that broadcasts to ``shape`` as ``values`` does, and is quicker to combine with it.

    Repeated along the last axes, so that the innermost loop is a long one; along the others it
    stays as short as it was.

    Args:
        values: Array of as many axes as ``shape``, each of the same length or 1.
        shape: What it is broadcast to.
    """
    cells, fates = 1, set[bool]()
    for axis in range(len(shape) - 1, -1, -1):
        if shape[axis] > 1:
            fates.add(values.shape[axis] == 1)
        cells *= shape[axis]
        if cells >= _LONG:
            if len(fates) == 1:  # one loop already
                break
            return np.ascontiguousarray(
                np.broadcast_to(values, (*values.shape[:axis], *shape[axis:]))
            )
    return values


def logsumexp(values: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float64]:
    """Logarithm of the sum of exponentials along ``axes``; minus infinity where all are."""
    if not axes:
        return values
    peak = values.max(axis=axes, keepdims=True)
    if not np.isfinite(peak).all():
        peak = np.where(np.isfinite(peak), peak, 0.0)
    total = np.exp(values - peak).sum(axis=axes)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(total) + peak.reshape(total.shape))


def union(cliques: Iterable[Clique]) -> Clique:
    """Every column once, in order of first appearance."""
    return tuple(dict.fromkeys(c for clique in cliques for c in clique))


def _not_within(inner: Clique, outer: Clique) -> InvalidRequest:
    return InvalidRequest(
        f"The columns {inner} were asked of a factor over {outer}.",
        "A factor can only be reduced to columns it has, and expanded to a superset of them.",
        "Name a subset of the factor's columns.",
    )
