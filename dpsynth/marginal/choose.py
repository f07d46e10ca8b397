"""Which marginals to measure, from noisy scores: the most error removed for the noise it adds.

Measuring a marginal replaces the model's error on it, its score, by noise. With a total precision P
(squared sensitivity over variance) divided as w = (weight * cells)^(2/3), which is the division of
least total weighted error, the expected weighted L1 noise of one marginal is
sqrt(2 / pi) * w * sqrt(W / P), where W is the sum of all w; of all of them it is
sqrt(2 / pi) * W^(3/2) / sqrt(P). See ``docs/explanation/clique-tree.md``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dpsynth.domain import Clique
from dpsynth.marginal.junction import JunctionTree, triangulate

ALLOCATION = 2 / 3
"""Exponent of the cells in a marginal's share of the precision."""

MOST_IN_ALL = 4
"""Cells of all cliques of a junction tree together, in units of the greatest that one may have."""

_REFUSALS = 2  # after which only separate parts are joined, in units of the columns
_MEAN = math.sqrt(2 / math.pi)  # of the absolute value of a standard normal


@dataclass(frozen=True)
class Bounds:
    """How large a junction tree may become.

    Attributes:
        sizes: Number of codes of each column.
        most_cells: Greatest number of cells of a clique; all together may have ``MOST_IN_ALL``
            times as many.
    """

    sizes: Mapping[str, int]
    most_cells: int

    def grown(self, graph: Sequence[Clique]) -> list[frozenset[str]] | None:
        """Return the cliques of the triangulated graph, or None if they are too large."""
        cliques = triangulate(graph, self.sizes)
        cells = [_cells(clique, self.sizes) for clique in cliques]
        if max(cells) > self.most_cells or sum(cells) > MOST_IN_ALL * self.most_cells:
            return None
        return [frozenset(clique) for clique in cliques]


def choose(
    scores: Mapping[Clique, float],
    bounds: Bounds,
    measured: Sequence[Clique],
    *,
    precision: float,
    weights: Mapping[Clique, float],
) -> dict[Clique, float]:
    """Choose marginals one by one, each the greatest gain, while the junction tree stays small.

    Args:
        scores: Of each candidate the noisy L1 distance between the rows and the model, in rows.
        bounds: How large the junction tree may become.
        measured: Marginals that the junction tree holds already.
        precision: What may be spent on the chosen ones, in 1 / rows^2.
        weights: How much an error of each candidate matters.

    Returns:
        The chosen marginals, each with its share of the precision; the shares add up to 1.
    """
    sizes = bounds.sizes
    names = [clique for clique, score in scores.items() if score > 0]
    worth = np.array([weights[clique] * scores[clique] for clique in names])
    costs = np.array([(weights[c] * _cells(c, sizes)) ** ALLOCATION for c in names])
    left = np.ones(len(names), dtype=np.bool_)
    chosen: list[int] = []
    graph, whole = list(measured), 0.0
    refused = 0
    cliques = [frozenset(clique) for clique in triangulate(graph, sizes)]
    while left.any():
        noise = _MEAN / math.sqrt(precision) * ((whole + costs) ** 1.5 - whole**1.5)
        gains = np.where(left, worth - noise, -np.inf)
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        left[best] = False
        within = any(set(names[best]) <= held for held in cliques)
        grown = cliques if within else bounds.grown([*graph, names[best]])
        if grown is None:
            refused += 1
        else:
            cliques = grown
            chosen.append(best)
            graph.append(names[best])
            whole += float(costs[best])
        if refused > _REFUSALS * len(sizes):
            # Full: what joins two parts of the graph still fits, since it makes no clique larger.
            part = _parts(cliques)
            left &= np.array([len({part[name] for name in clique}) > 1 for clique in names])
    return {names[i]: float(costs[i]) / whole for i in chosen}


def _parts(cliques: Sequence[frozenset[str]]) -> dict[str, int]:
    """Return for each column the connected part of the graph that it is in."""
    part: dict[str, int] = {}
    for label, clique in enumerate(cliques):
        met = {part[name] for name in clique if name in part}
        part = {name: label if old in met else old for name, old in part.items()}
        part.update(dict.fromkeys(clique, label))
    return part


def pairs(sizes: Iterable[str]) -> list[Clique]:
    """Return all pairs of columns."""
    return list(itertools.combinations(sizes, 2))


def triples(tree: JunctionTree) -> list[Clique]:
    """Return the triples inside cliques of a junction tree: measuring them makes it no larger."""
    found = {each for clique in tree.cliques for each in itertools.combinations(clique, 3)}
    return sorted(found)


def _cells(clique: Clique, sizes: Mapping[str, int]) -> int:
    return math.prod(sizes[name] for name in clique)
