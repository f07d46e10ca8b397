from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpsynth.marginal.factor import Factor
from dpsynth.marginal.junction import JunctionTree
from dpsynth.marginal.sampling import assign, refine, rounded_counts, sample_codes, sample_tree
from tests.marginal.brute_force import project


@given(
    arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(0, 1)),
    st.integers(0, 1000),
    st.integers(0, 99),
)
def test_each_count_is_a_floor_or_a_ceiling(shares: np.ndarray, n: int, seed: int) -> None:
    rows = np.full(shares.shape[0], n)
    counts = rounded_counts(shares, rows, rng=np.random.default_rng(seed))
    whole = shares.sum(axis=1, keepdims=True)
    exact = n * np.where(whole > 0, shares / np.where(whole > 0, whole, 1), 1 / shares.shape[1])
    assert (counts.sum(axis=1) == n).all()
    assert (counts >= np.floor(exact - 1e-6)).all()
    assert (counts <= np.ceil(exact + 1e-6)).all()


def test_counts_are_right_on_average() -> None:
    rng = np.random.default_rng(0)
    shares = np.array([[0.07, 0.11, 0.5, 0.32]])
    draws = [rounded_counts(shares, np.array([3]), rng=rng)[0] for _ in range(4000)]
    # Each count is one of two neighbours: a standard error of at most 0.5 / sqrt(4000) = 0.008.
    np.testing.assert_allclose(np.mean(draws, axis=0), 3 * shares[0], atol=0.04)


def test_a_cell_without_mass_is_never_drawn() -> None:
    rng = np.random.default_rng(1)
    shares = np.array([[0.0, 0.3, 0.0, 0.7, 0.0]])
    for n in range(1, 60):
        counts = rounded_counts(shares, np.array([n]), rng=rng)[0]
        assert counts[[0, 2, 4]].sum() == 0


def test_order_within_a_group_is_random() -> None:
    """Two columns drawn for the same group must not march in step."""
    groups = np.zeros(4000, dtype=np.int64)
    rng = np.random.default_rng(2)
    half = np.array([[0.5, 0.5]])
    first, second = assign(groups, half, rng=rng), assign(groups, half, rng=rng)
    table = np.bincount(first * 2 + second, minlength=4)
    # Each cell expects 1000, with a standard deviation of about 16.
    np.testing.assert_allclose(table, 1000, atol=100)


@pytest.fixture
def chain() -> tuple[JunctionTree, tuple[Factor, ...], np.ndarray]:
    rng = np.random.default_rng(3)
    first, second = rng.random((3, 4)), rng.random((4, 2))
    joint = np.einsum("ab,bc->abc", first, second)
    joint /= joint.sum()
    tree = JunctionTree.build([("a", "b"), ("b", "c")], {"a": 3, "b": 4, "c": 2})
    tables = tuple(Factor(k, project(joint, ["a", "b", "c"], k)) for k in tree.cliques)
    return tree, tables, joint


def test_tree_samples_have_the_models_marginals(
    chain: tuple[JunctionTree, tuple[Factor, ...], np.ndarray],
) -> None:
    tree, tables, joint = chain
    n = 50_000
    codes = sample_tree(tree, tables, n, rng=np.random.default_rng(4))
    for pair in itertools.combinations("abc", 2):
        shape = tuple({"a": 3, "b": 4, "c": 2}[c] for c in pair)
        index = np.ravel_multi_index([codes[c] for c in pair], shape)
        got = np.bincount(index, minlength=int(np.prod(shape))) / n
        want = project(joint, ["a", "b", "c"], pair).ravel()
        tolerance = 1e-4 if pair != ("a", "c") else 0.01
        np.testing.assert_allclose(got, want, atol=tolerance)


def test_rows_come_shuffled_and_repeat_with_the_seed(
    chain: tuple[JunctionTree, tuple[Factor, ...], np.ndarray],
) -> None:
    tree, tables, _ = chain
    one = sample_tree(tree, tables, 999, rng=np.random.default_rng(5))
    two = sample_tree(tree, tables, 999, rng=np.random.default_rng(5))
    assert all((one[c] == two[c]).all() for c in "abc")
    halves = one["a"][:500].mean(), one["a"][500:].mean()
    assert abs(halves[0] - halves[1]) < 0.2


def test_no_row_and_one_row(chain: tuple[JunctionTree, tuple[Factor, ...], np.ndarray]) -> None:
    tree, tables, _ = chain
    for n in (0, 1):
        codes = sample_tree(tree, tables, n, rng=np.random.default_rng(6))
        assert set(codes) == {"a", "b", "c"}
        assert all(column.shape == (n,) for column in codes.values())


def test_refine_gives_fine_codes_of_the_right_coarse_code() -> None:
    maps = np.array([0, 1, 1, 0, 2])
    shares = np.array([0.25, 1.0, 0.0, 0.75, 1.0])
    coarse = np.repeat([0, 1, 2], [40, 5, 3])
    fine = refine(coarse, maps, shares, rng=np.random.default_rng(7))
    np.testing.assert_array_equal(maps[fine], coarse)
    np.testing.assert_array_equal(np.bincount(fine, minlength=5), [10, 5, 0, 30, 3])


def test_sample_codes_refines_every_column(
    chain: tuple[JunctionTree, tuple[Factor, ...], np.ndarray],
) -> None:
    tree, tables, _ = chain
    maps = {"a": np.array([0, 1, 2, 2]), "b": np.arange(4), "c": np.arange(2)}
    shares = {"a": np.array([1, 1, 0.5, 0.5]), "b": np.ones(4), "c": np.ones(2)}
    codes = sample_codes(tree, tables, maps, shares, 100, rng=np.random.default_rng(8))
    assert list(codes) == ["a", "b", "c"]
    assert codes["a"].dtype == np.int32
    assert codes["a"].max() == 3
