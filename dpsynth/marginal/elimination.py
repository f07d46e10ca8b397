"""What a calibrated junction tree says of columns that no one clique of it holds.

Koller and Friedman, *Probabilistic Graphical Models* (2009), section 10.3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dpsynth.domain import Clique
from dpsynth.marginal.factor import Factor
from dpsynth.marginal.junction import JunctionTree, subtree
from dpsynth_accounting import InvalidRequest

MOST_CELLS = 1 << 25
"""Greatest number of cells of any table that answering a marginal may build: 256 MiB."""


def joint(tree: JunctionTree, marginals: Sequence[Factor], clique: Clique) -> Factor:
    """The marginal of any columns of a junction tree, by variable elimination from the leaves.

    Koller and Friedman (2009), section 10.3.3.2: within the smallest part of the tree that holds
    the columns, each clique sends its parent the distribution of what the parent or the answer
    needs, given their separator.

    Raises:
        InvalidRequest: If a table on the way would have more than ``MOST_CELLS`` cells.
    """
    part = set(subtree(tree, clique))
    beliefs = {i: marginals[i] for i in part}
    root = min(part)
    edges = [edge for edge in tree.edges if edge.child in part and edge.parent in part]
    for done, edge in enumerate(edges, 1):
        table = beliefs[edge.child]
        extra = tuple(c for c in table.clique if c in clique and c not in edge.separator)
        message = table.project((*edge.separator, *extra))
        share = _given(message, marginals[edge.child].project(edge.separator))
        sizes = share.sizes | beliefs[edge.parent].sizes
        require_cells(clique, math.prod(sizes.values()))
        product = beliefs[edge.parent] * share
        # What neither the answer nor a later message needs would only make tables larger.
        needed = set(clique).union(
            *(e.separator for e in edges[done:] if edge.parent in (e.child, e.parent))
        )
        kept = tuple(c for c in product.clique if c in needed)
        beliefs[edge.parent] = product.project(kept)
        root = edge.parent
    return beliefs[root].project(clique)


def conditioned(
    tree: JunctionTree, marginals: Sequence[Factor], codes: Mapping[str, int]
) -> list[Factor]:
    """The clique tables of the rows that have these coarse codes, consistent again."""
    beliefs = []
    for table in marginals:
        values = table.values.copy()
        for axis, name in enumerate(table.clique):
            if name in codes:
                others = np.arange(values.shape[axis]) != codes[name]
                values[(slice(None),) * axis + (others,)] = 0.0
        beliefs.append(Factor(table.clique, values))
    for edge in tree.edges:
        before = marginals[edge.child].project(edge.separator)
        kept = _given(beliefs[edge.child].project(edge.separator), before)
        parent = beliefs[edge.parent]
        beliefs[edge.parent] = (parent * kept).transpose(parent.clique)
    for edge in tree.outward:
        child = beliefs[edge.child]
        ordered = child.transpose(
            (*edge.separator, *(c for c in child.clique if c not in edge.separator))
        )
        share = _given(ordered, child.project(edge.separator))
        news = share * beliefs[edge.parent].project(edge.separator)
        beliefs[edge.child] = news.transpose(child.clique)
    return beliefs


def _given(table: Factor, separator: Factor) -> Factor:
    """A table divided by its separator's, 0 where that is 0."""
    shape = separator.values.shape + (1,) * (table.values.ndim - separator.values.ndim)
    whole = separator.values.reshape(shape)
    values = np.divide(table.values, whole, out=np.zeros_like(table.values), where=whole > 0)
    return Factor(table.clique, values)


def require_cells(clique: Clique, cells: int) -> None:
    """Refuse a marginal that needs a table of more than ``MOST_CELLS`` cells."""
    if cells > MOST_CELLS:
        raise InvalidRequest(
            f"A marginal over {clique} was asked of a model.",
            f"It needs a table of more than {MOST_CELLS} cells.",
            "Ask for fewer columns, or count it in a sample of the model.",
        )
