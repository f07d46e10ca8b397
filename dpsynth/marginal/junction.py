"""Junction trees: the order in which exact inference passes its messages.

Koller and Friedman, *Probabilistic Graphical Models* (2009), sections 9.4 and 10.4. Everything is
deterministic: ties go to the column that comes first, so one set of cliques gives one tree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dpsynth.marginal.factor import Clique


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
    place = {name: i for i, name in enumerate(sizes)}
    neighbours = _graph(cliques, sizes)
    costs = {name: _cost(name, neighbours, sizes) for name in sizes}
    found: list[frozenset[str]] = []
    while neighbours:
        name = min(neighbours, key=lambda c: (costs[c], place[c]))
        near = neighbours.pop(name)
        group = frozenset(near | {name})
        if not any(group <= other for other in found):
            found.append(group)
        for other in near:
            neighbours[other] |= near - {other}
            neighbours[other].discard(name)
        # A new edge changes the fill-in of both ends and of the neighbours they share.
        touched = near.union(*(neighbours[other] for other in near))
        costs.update((c, _cost(c, neighbours, sizes)) for c in touched)
    ordered = (tuple(sorted(group, key=place.__getitem__)) for group in found)
    return tuple(sorted(ordered, key=lambda c: [place[name] for name in c]))


def _graph(cliques: Iterable[Clique], sizes: Mapping[str, int]) -> dict[str, set[str]]:
    neighbours: dict[str, set[str]] = {name: set() for name in sizes}
    for clique in cliques:
        for name in clique:
            neighbours[name] |= set(clique) - {name}
    return neighbours


def _cost(
    name: str, neighbours: Mapping[str, set[str]], sizes: Mapping[str, int]
) -> tuple[int, float]:
    near = neighbours[name]
    missing = sum(len(near - neighbours[other]) - 1 for other in near) // 2
    return missing, math.log(sizes[name]) + sum(math.log(sizes[other]) for other in sorted(near))


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
