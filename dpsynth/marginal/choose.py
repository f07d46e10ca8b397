"""Which marginals to measure, from noisy scores: the most error removed for the noise it adds.

Measuring a marginal replaces the model's error on it, its score, by noise. With a total precision P
(squared sensitivity over variance) divided as w = cells^(2/3), which is the division of least total
error, the expected L1 noise of one marginal is sqrt(2 / pi) * w * sqrt(W / P), where W is the sum
of all w; of all of them it is sqrt(2 / pi) * W^(3/2) / sqrt(P). See
``docs/explanation/clique-tree.md``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from dpsynth.marginal.factor import Clique
from dpsynth.marginal.junction import JunctionTree, triangulate

ALLOCATION = 2 / 3
"""Exponent of the cells in a marginal's share of the precision."""

_REFUSALS = 2  # that end the search, in units of the columns: the tree is full
_MEAN = math.sqrt(2 / math.pi)  # of the absolute value of a standard normal


def choose(
    scores: Mapping[Clique, float],
    sizes: Mapping[str, int],
    measured: Sequence[Clique],
    *,
    precision: float,
    most_cells: int,
    most_in_all: int,
) -> dict[Clique, float]:
    """Choose marginals one by one, each the greatest gain, while the junction tree stays small.

    Args:
        scores: Of each candidate the noisy L1 distance between the rows and the model, in rows.
        sizes: Number of codes of each column.
        measured: Marginals that the junction tree holds already.
        precision: What may be spent on the chosen ones, in 1 / rows^2.
        most_cells: Greatest number of cells of a clique of the junction tree.
        most_in_all: Greatest number of cells of all its cliques together.

    Returns:
        The chosen marginals, each with its share of the precision; the shares add up to 1.
    """
    open_ = {clique: score for clique, score in scores.items() if score > 0}
    names = list(open_)
    worth = np.array([open_[clique] for clique in names])
    weights = np.array([_cells(clique, sizes) ** ALLOCATION for clique in names])
    left = np.ones(len(names), dtype=np.bool_)
    chosen: list[int] = []
    graph, whole = list(measured), 0.0
    refused = 0
    cliques = [frozenset(clique) for clique in triangulate(graph, sizes)]
    while left.any():
        noise = _MEAN / math.sqrt(precision) * ((whole + weights) ** 1.5 - whole**1.5)
        gains = np.where(left, worth - noise, -np.inf)
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        left[best] = False
        within = any(set(names[best]) <= held for held in cliques)
        grown = cliques if within else _grown([*graph, names[best]], sizes, most_cells, most_in_all)
        if grown is None:
            refused += 1
            if refused > _REFUSALS * len(sizes):
                break
        else:
            cliques = grown
            chosen.append(best)
            graph.append(names[best])
            whole += float(weights[best])
    return {names[i]: float(weights[i]) / whole for i in chosen}


def pairs(sizes: Mapping[str, int]) -> list[Clique]:
    """Return all pairs of columns."""
    return list(itertools.combinations(sizes, 2))


def triples(tree: JunctionTree) -> list[Clique]:
    """Return the triples inside cliques of a junction tree: measuring them makes it no larger."""
    found = {each for clique in tree.cliques for each in itertools.combinations(clique, 3)}
    return sorted(found)


def _grown(
    graph: Sequence[Clique], sizes: Mapping[str, int], most_cells: int, most_in_all: int
) -> list[frozenset[str]] | None:
    """Return the cliques of the triangulated graph, or None if they are too large."""
    cliques = triangulate(graph, sizes)
    cells = [_cells(clique, sizes) for clique in cliques]
    if max(cells) > most_cells or sum(cells) > most_in_all:
        return None
    return [frozenset(clique) for clique in cliques]


def _cells(clique: Clique, sizes: Mapping[str, int]) -> int:
    return math.prod(sizes[name] for name in clique)
