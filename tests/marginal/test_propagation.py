from __future__ import annotations

import itertools

import numpy as np
import pytest

from dpsynth.domain import Clique
from dpsynth.marginal.junction import JunctionTree
from dpsynth.marginal.propagation import Propagation
from tests.marginal.brute_force import SIZES, Array, clique_sets, explicit, project


def random_potentials(tree: JunctionTree, rng: np.random.Generator) -> dict[Clique, Array]:
    shapes = {clique: tuple(SIZES[c] for c in clique) for clique in tree.cliques}
    return {clique: rng.normal(0.0, 3.0, shape) for clique, shape in shapes.items()}


@pytest.mark.parametrize("cliques", list(clique_sets()))
def test_matches_the_joint_distribution_written_out(cliques: tuple[Clique, ...]) -> None:
    rng = np.random.default_rng(len(cliques))
    tree = JunctionTree.build(cliques, SIZES)
    potentials = random_potentials(tree, rng)
    joint = explicit(potentials, SIZES, 50.0)
    tables, _ = Propagation(tree, SIZES).marginals(list(potentials.values()), 50.0)
    for clique, table in zip(tree.cliques, tables, strict=True):
        np.testing.assert_allclose(table, project(joint, list(SIZES), clique), atol=1e-9)


@pytest.mark.parametrize("cliques", list(clique_sets(largest=2))[::5])
def test_log_partition_and_highest_match_too(cliques: tuple[Clique, ...]) -> None:
    tree = JunctionTree.build(cliques, SIZES)
    potentials = random_potentials(tree, np.random.default_rng(7))
    propagation = Propagation(tree, SIZES)
    sums = []
    for cell in itertools.product(*(range(n) for n in SIZES.values())):
        at = dict(zip(SIZES, cell, strict=True))
        sums.append(sum(float(t[tuple(at[c] for c in k)]) for k, t in potentials.items()))
    _, log_partition = propagation.marginals(list(potentials.values()), 1.0)
    assert log_partition == pytest.approx(np.log(np.exp(sums).sum()), abs=1e-12)
    assert propagation.highest(list(potentials.values())) == pytest.approx(max(sums), abs=1e-12)


def test_forbidden_cells_stay_empty() -> None:
    sizes = {"a": 2, "b": 2, "c": 2}
    tree = JunctionTree.build([("a", "b"), ("b", "c")], sizes)
    never = np.array([[0.0, -np.inf], [0.0, -np.inf]])
    tables, _ = Propagation(tree, sizes).marginals([never, np.zeros((2, 2))], 4.0)
    np.testing.assert_allclose(tables[0], [[2.0, 0.0], [2.0, 0.0]])
    np.testing.assert_allclose(tables[1], [[2.0, 2.0], [0.0, 0.0]])


def test_great_potentials_do_not_overflow() -> None:
    sizes = {"a": 2, "b": 2, "c": 2}
    tree = JunctionTree.build([("a", "b"), ("b", "c")], sizes)
    great = [np.array([[9e4, 0.0], [0.0, 0.0]]), np.array([[-9e4, -9e4], [0.0, 0.0]])]
    tables, log_partition = Propagation(tree, sizes).marginals(great, 1.0)
    assert log_partition == pytest.approx(np.log(2 + 2 + 2))
    np.testing.assert_allclose(tables[0].sum(axis=0), [1 / 3, 2 / 3])


def test_total_of_zero_gives_empty_tables() -> None:
    tree = JunctionTree.build([("a", "b")], {"a": 2, "b": 2})
    tables, _ = Propagation(tree, {"a": 2, "b": 2}).marginals([np.zeros((2, 2))], 0.0)
    np.testing.assert_array_equal(tables[0], np.zeros((2, 2)))


def test_potentials_of_tables_give_the_tables_back() -> None:
    tree = JunctionTree.build([("a", "b"), ("b", "d"), ("d", "c")], SIZES)
    propagation = Propagation(tree, SIZES)
    start = random_potentials(tree, np.random.default_rng(3))
    tables, _ = propagation.marginals(list(start.values()), 10.0)
    again, _ = propagation.marginals(propagation.potentials(tables, 1e-12), 10.0)
    for one, other in zip(tables, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_reconcile_makes_tables_agree_and_keeps_those_that_do() -> None:
    sizes = {"a": 2, "b": 3, "c": 2}
    tree = JunctionTree.build([("a", "b"), ("b", "c")], sizes)
    rng = np.random.default_rng(5)
    propagation = Propagation(tree, sizes)
    rough = [rng.random((2, 3)), rng.random((3, 2))]
    rough[0][:, 2] = 1.0
    rough[1][2] = 0.0  # Nothing to scale: the mass is spread evenly.
    fixed = propagation.reconcile(rough, 12.0)
    assert fixed[0].sum() == pytest.approx(12.0)
    np.testing.assert_allclose(fixed[0].sum(axis=0), fixed[1].sum(axis=1))
    assert fixed[1][2, 0] == fixed[1][2, 1]
    for one, other in zip(propagation.reconcile(fixed, 12.0), fixed, strict=True):
        np.testing.assert_allclose(one, other)


@pytest.mark.parametrize("cliques", list(clique_sets())[::3])
def test_products_agree_with_logarithms(cliques: tuple[Clique, ...]) -> None:
    """The quick way against its oracle."""
    tree = JunctionTree.build(cliques, SIZES)
    propagation = Propagation(tree, SIZES)
    for scale in (1.0, 30.0):
        drawn = random_potentials(tree, np.random.default_rng(9))
        potentials = [scale * each for each in drawn.values()]
        quick = propagation._multiplied(potentials, 70.0)
        assert quick is not None
        tables, log_partition = propagation._in_logarithms(potentials, 70.0)
        assert quick[1] == pytest.approx(log_partition, rel=1e-12)
        for one, two in zip(quick[0], tables, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


def test_what_is_too_small_for_products_is_left_to_logarithms() -> None:
    sizes = {"a": 2, "b": 2, "c": 2}
    tree = JunctionTree.build([("a", "b"), ("b", "c")], sizes)
    propagation = Propagation(tree, sizes)
    apart = [np.array([[900.0, 0.0], [900.0, 0.0]]), np.array([[-900.0, -900.0], [0.0, 0.0]])]
    assert propagation._multiplied(apart, 1.0) is None
    never = np.array([[0.0, -np.inf], [0.0, -np.inf]])  # its separator's second value is forbidden
    assert propagation._multiplied([np.zeros((2, 2)), never.T], 1.0) is None
    tables, _ = propagation.marginals(apart, 1.0)
    np.testing.assert_allclose(tables[0], [[0.25, 0.25], [0.25, 0.25]])


def test_messages_near_the_least_number_are_taken_in_logarithms() -> None:
    """A message of 1e-150 and 1e-310: fine as numbers, but not to divide by."""
    sizes = {"a": 1, "b": 2, "c": 2, "d": 1}
    tree = JunctionTree.build([("a", "b"), ("b", "c"), ("c", "d")], sizes)
    powers = {
        ("a", "b"): np.array([[-170.0, 0.0]]),
        ("b", "c"): np.array([[-150.0, 0.0], [-310.0, -150.0]]),
        ("c", "d"): np.array([[0.0], [-160.0]]),
    }
    steep = [np.log(10.0) * powers[clique] for clique in tree.cliques]
    propagation = Propagation(tree, sizes)
    tables, found = propagation.marginals(steep, 1e5)
    wanted, log_partition = propagation._in_logarithms(steep, 1e5)
    assert found == pytest.approx(log_partition)
    for table, slow in zip(tables, wanted, strict=True):
        np.testing.assert_allclose(table, slow, rtol=1e-9, atol=1e-9)
