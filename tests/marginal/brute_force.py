"""The slow obvious versions: the joint distribution over all cells, written out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from dpsynth.domain import Clique
from dpsynth.marginal.estimate import Observation

Array = NDArray[np.float64]

SIZES = {"a": 2, "b": 3, "c": 1, "d": 2}
"""Four columns, one of them with a single code."""


def clique_sets(largest: int = 4) -> Iterator[tuple[Clique, ...]]:
    """Every set of pairs of four columns, and every set of up to ``largest`` triples and pairs."""
    pairs = list(itertools.combinations(SIZES, 2))
    triples = list(itertools.combinations(SIZES, 3))
    for count in range(len(pairs) + 1):
        yield from itertools.combinations(pairs, count)
    for triple in triples:
        for count in range(2):
            yield from ((triple, *rest) for rest in itertools.combinations(pairs, count))
    for count in range(2, largest + 1):
        yield from itertools.combinations(triples, count)


def project(joint: Array, names: Sequence[str], clique: Clique) -> Array:
    """Sum a joint array over the columns that a clique lacks, axes in the clique's order."""
    kept = [names.index(c) for c in clique]
    away = tuple(i for i in range(len(names)) if i not in kept)
    left = [i for i in range(len(names)) if i in kept]
    return np.asarray(joint.sum(axis=away)).transpose([left.index(i) for i in kept])


def explicit(potentials: Mapping[Clique, Array], sizes: Mapping[str, int], total: float) -> Array:
    """Every cell of the joint distribution of these log-potentials."""
    names = list(sizes)
    joint = np.zeros(tuple(sizes.values()))
    for cell in itertools.product(*(range(n) for n in sizes.values())):
        at = dict(zip(names, cell, strict=True))
        joint[cell] = math.fsum(
            float(table[tuple(at[c] for c in clique)]) for clique, table in potentials.items()
        )
    weights = np.exp(joint - joint.max())
    return np.asarray(total * weights / weights.sum())


def least_loss(
    observations: Sequence[Observation], sizes: Mapping[str, int], total: float
) -> tuple[float, Array]:
    """The least weighted squared error over all joint arrays, by non-negative least squares."""
    names = list(sizes)
    shape = tuple(sizes.values())
    units = np.eye(math.prod(shape))
    rows, targets = [], []
    for seen in observations:
        spread = np.sqrt(seen.variance).ravel()
        columns = [project(u.reshape(shape), names, seen.clique).ravel() / spread for u in units]
        rows.append(np.stack(columns, axis=1))
        targets.append(seen.values.ravel() / spread)
    matrix, target = np.concatenate(rows), np.concatenate(targets)
    # The sum is imposed by a weight so great that what it gives away is below what we compare.
    heavy = 1e6 * max(float(np.abs(matrix).max()), 1e-12)
    matrix = np.vstack([matrix, np.full((1, matrix.shape[1]), heavy)])
    solution, _ = nnls(matrix, np.append(target, heavy * total), maxiter=100 * matrix.shape[1])
    solution *= total / solution.sum()
    joint = solution.reshape(shape)
    return loss(joint, names, observations), joint


def loss(joint: Array, names: Sequence[str], observations: Sequence[Observation]) -> float:
    """Half the weighted squared error of a joint array."""
    return 0.5 * sum(
        float(((project(joint, names, o.clique) - o.values) ** 2 / o.variance).sum())
        for o in observations
    )
