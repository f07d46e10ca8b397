"""Junction trees: the order in which exact inference passes its messages.

Koller and Friedman, *Probabilistic Graphical Models* (2009), sections 9.4 and 10.4. Everything is
deterministic: ties go to the column that comes first, so one set of cliques gives one tree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dpsynth.domain import Clique


@dataclass(frozen=True)
class Edge:
    """One edge of a junction tree, pointing to the root.

    Attributes:
        child: Index of the clique further from the root.
        parent: Index of the clique nearer to the root.
        separator: Columns the two share; empty between disconnected parts.
    """

    child: int
    parent: int
    separator: Clique


@dataclass(frozen=True)
class JunctionTree:
    """A tree of maximal cliques with the running-intersection property, rooted at clique 0.

    Attributes:
        cliques: Maximal cliques of the triangulated graph, columns in domain order.
        edges: One less than the cliques, leaves first: the order of the inward messages. The
            outward messages take it backwards.
    """

    cliques: tuple[Clique, ...]
    edges: tuple[Edge, ...]

    @classmethod
    def build(cls, cliques: Iterable[Clique], sizes: Mapping[str, int]) -> JunctionTree:
        """The junction tree of a model with these cliques.

        Args:
            cliques: Sets of columns that must lie together in a clique of the tree.
            sizes: Every column of the model with its number of codes; a column that no clique
                names becomes a clique of its own.

        >>> tree = JunctionTree.build([("a", "b"), ("b", "c")], {"a": 2, "b": 2, "c": 2})
        >>> tree.cliques, tree.edges[0].separator
        ((('a', 'b'), ('b', 'c')), ('b',))
        """
        maximal = triangulate(cliques, sizes)
        return cls(maximal, _span(maximal))

    @property
    def independent(self) -> bool:
        """Whether each clique is a single column."""
        return all(len(clique) == 1 for clique in self.cliques)

    @property
    def outward(self) -> tuple[Edge, ...]:
        """Edges from the root to the leaves: every parent before its children."""
        return self.edges[::-1]

    def holder(self, clique: Clique) -> int | None:
        """Index of the shortest tree clique that holds these columns, or None."""
        wanted = set(clique)
        held = [i for i, c in enumerate(self.cliques) if wanted <= set(c)]
        return min(held, key=lambda i: (len(self.cliques[i]), i), default=None)


def triangulate(cliques: Iterable[Clique], sizes: Mapping[str, int]) -> tuple[Clique, ...]:
    """Maximal cliques of a chordal graph that covers the given cliques, by greedy min-fill.

    Each step eliminates the column that adds the fewest edges, then the one whose clique has the
    fewest cells, then the first in ``sizes``.
    """
    names = list(sizes)
    logs = [math.log(size) for size in sizes.values()]
    near = _graph(cliques, names)
    left = set(range(len(names)))
    costs = [_cost(i, near, logs) for i in left]
    found: list[int] = []
    while left:
        first = min(left, key=lambda i: (costs[i], i))
        left.remove(first)
        around, alone = near[first], 1 << first
        group = around | alone
        if not any(group & ~other == 0 for other in found):
            found.append(group)
        touched = around
        for i in _members(around):
            near[i] = (near[i] | around) & ~(alone | 1 << i)
            touched |= near[i]
        # A new edge changes the fill-in of both ends and of the neighbours they share.
        for i in _members(touched):
            costs[i] = _cost(i, near, logs)
    return tuple(tuple(names[i] for i in each) for each in sorted(map(_members, found)))


def _graph(cliques: Iterable[Clique], names: Sequence[str]) -> list[int]:
    """Return the neighbours of each column, as bits."""
    place = {name: i for i, name in enumerate(names)}
    near = [0] * len(names)
    for clique in cliques:
        group = sum(1 << place[name] for name in clique)
        for name in clique:
            near[place[name]] |= group
    return [each & ~(1 << i) for i, each in enumerate(near)]


def _members(bits: int) -> list[int]:
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits &= bits - 1
    return found


def _cost(at: int, near: Sequence[int], logs: Sequence[float]) -> tuple[int, float]:
    """Return how many edges eliminating a column adds, and the logarithm of its clique's cells."""
    around = near[at]
    missing, cells = 0, logs[at]
    for i in _members(around):
        missing += (around & ~near[i]).bit_count() - 1
        cells += logs[i]
    return missing // 2, cells


def _span(cliques: Sequence[Clique]) -> tuple[Edge, ...]:
    """Maximum-weight spanning tree over the separators (Jensen and Jensen 1994), by Prim."""
    members = [frozenset(clique) for clique in cliques]
    best = {i: (len(members[i] & members[0]), 0) for i in range(1, len(members))}
    edges: list[Edge] = []
    while best:
        child = min(best, key=lambda i: (-best[i][0], best[i][1], i))
        parent = best.pop(child)[1]
        separator = tuple(c for c in cliques[child] if c in members[parent])
        edges.append(Edge(child, parent, separator))
        for i, (weight, _) in best.items():
            shared = len(members[i] & members[child])
            if shared > weight:
                best[i] = (shared, child)
    return tuple(reversed(edges))


def subtree(tree: JunctionTree, clique: Clique) -> tuple[int, ...]:
    """Indices of the smallest connected part of the tree that holds these columns."""
    kept = set(range(len(tree.cliques)))
    links: dict[int, set[int]] = {i: set() for i in kept}
    separators: dict[frozenset[int], Clique] = {}
    for edge in tree.edges:
        links[edge.child].add(edge.parent)
        links[edge.parent].add(edge.child)
        separators[frozenset((edge.child, edge.parent))] = edge.separator
    wanted = set(clique)
    pending = sorted(kept)
    while pending:
        i = pending.pop()
        if i not in kept or len(kept) == 1 or len(links[i]) != 1:
            continue
        (near,) = links[i]
        # A leaf is needed only for a wanted column that its only neighbour does not have.
        if wanted & set(tree.cliques[i]) <= set(separators[frozenset((i, near))]):
            kept.remove(i)
            links[near].remove(i)
            pending.append(near)
    return tuple(sorted(kept))
