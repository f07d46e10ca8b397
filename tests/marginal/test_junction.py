from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpsynth.domain import Clique
from dpsynth.marginal.junction import JunctionTree, subtree, triangulate
from tests.marginal.brute_force import SIZES, clique_sets

NAMES = tuple("abcdefg")
some_cliques = st.lists(
    st.sets(st.sampled_from(NAMES), min_size=1, max_size=4).map(lambda s: tuple(sorted(s))),
    max_size=8,
)


def require_junction_tree(tree: JunctionTree, cliques: list[Clique], names: set[str]) -> None:
    assert all(any(set(c) <= set(t) for t in tree.cliques) for c in cliques)
    assert {c for clique in tree.cliques for c in clique} == names
    assert not any(set(a) < set(b) for a, b in itertools.permutations(tree.cliques, 2))
    assert len(tree.edges) == len(tree.cliques) - 1
    # Inward: a clique has heard from every child before it speaks.
    spoken: set[int] = set()
    for edge in tree.edges:
        assert edge.child not in spoken
        assert edge.parent not in spoken
        spoken.add(edge.child)
    assert 0 not in spoken
    for edge in tree.edges:
        shared = set(tree.cliques[edge.child]) & set(tree.cliques[edge.parent])
        assert set(edge.separator) == shared
    # Running intersection: the cliques that hold a column are connected by edges that hold it.
    for name in names:
        holders = [i for i, clique in enumerate(tree.cliques) if name in clique]
        carrying = [edge for edge in tree.edges if name in edge.separator]
        assert len(carrying) == len(holders) - 1


@pytest.mark.parametrize("cliques", list(clique_sets()))
def test_every_small_set_of_cliques(cliques: tuple[Clique, ...]) -> None:
    require_junction_tree(JunctionTree.build(cliques, SIZES), list(cliques), set(SIZES))


@given(some_cliques)
def test_any_set_of_cliques(cliques: list[Clique]) -> None:
    sizes = {name: 2 + i % 3 for i, name in enumerate(NAMES)}
    require_junction_tree(JunctionTree.build(cliques, sizes), cliques, set(NAMES))


@given(some_cliques)
def test_the_order_of_the_cliques_does_not_matter(cliques: list[Clique]) -> None:
    sizes = dict.fromkeys(NAMES, 2)
    assert JunctionTree.build(cliques, sizes) == JunctionTree.build(cliques[::-1], sizes)


def test_a_square_takes_one_chord() -> None:
    square = [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")]
    found = triangulate(square, dict.fromkeys("abcd", 2))
    assert sorted(len(clique) for clique in found) == [3, 3]


def test_the_chord_goes_where_cells_are_few() -> None:
    square = [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")]
    found = triangulate(square, {"a": 9, "b": 2, "c": 9, "d": 2})
    assert found == (("a", "b", "d"), ("b", "c", "d"))


def test_a_tree_of_pairs_stays_as_it_is() -> None:
    pairs = (("a", "b"), ("a", "c"), ("c", "d"))
    assert triangulate(pairs, dict.fromkeys("abcd", 3)) == pairs


def test_holder_is_the_shortest_clique() -> None:
    tree = JunctionTree.build([("a", "b", "c"), ("c", "d")], {"a": 2, "b": 3, "c": 4, "d": 5})
    assert tree.holder(("c",)) == 1
    assert tree.holder(("b", "c")) == 0
    assert tree.holder(("a", "d")) is None


def test_subtree_is_the_path_between() -> None:
    chain = [(a, b) for a, b in itertools.pairwise("abcdef")]
    tree = JunctionTree.build(chain, dict.fromkeys("abcdef", 2))
    assert [tree.cliques[i] for i in subtree(tree, ("b", "d"))] == [("b", "c"), ("c", "d")]
    assert len(subtree(tree, ("a", "f"))) == 5
    assert len(subtree(tree, ("c",))) == 1
