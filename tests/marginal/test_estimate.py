from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpsynth.domain import Clique
from dpsynth.marginal.estimate import (
    Fit,
    Observation,
    estimate,
    estimate_total,
    project_simplex,
)
from dpsynth.marginal.factor import Factor
from dpsynth.vault import Measurement
from dpsynth_accounting import InvalidRequest
from tests.marginal.brute_force import SIZES, Array, clique_sets, least_loss, project


def observe(
    cliques: tuple[Clique, ...], *, sigma: float, seed: int, ones: bool = True
) -> list[Observation]:
    """Noisy marginals of a random joint table of 40 rows."""
    rng = np.random.default_rng(seed)
    joint = rng.multinomial(40, rng.dirichlet(np.full(12, 0.5))).reshape(tuple(SIZES.values()))
    singles = tuple((name,) for name in SIZES) if ones else ()
    found = []
    for clique in singles + cliques:
        exact = project(joint.astype(np.float64), list(SIZES), clique)
        scale = sigma * rng.uniform(0.5, 2.0)
        noisy = np.rint(exact + rng.normal(0.0, scale, exact.shape)).astype(np.int64)
        found.append(Observation.of(Measurement(clique, noisy, scale)))
    return found


def require_consistent(fit: Fit) -> None:
    for factor in fit.marginals:
        assert (factor.values >= 0).all()
        assert factor.values.sum() == pytest.approx(fit.total)
    for edge in fit.tree.edges:
        child = fit.marginals[edge.child].project(edge.separator)
        parent = fit.marginals[edge.parent].project(edge.separator)
        np.testing.assert_allclose(child.values, parent.values, atol=1e-7)


@pytest.mark.parametrize("cliques", list(clique_sets(largest=2)))
def test_reaches_the_optimum_over_all_joint_tables(cliques: tuple[Clique, ...]) -> None:
    observations = observe(cliques, sigma=4.0, seed=len(cliques))
    least, joint = least_loss(observations, SIZES, 40.0)
    fit = estimate(observations, SIZES, total=40.0, tolerance=1e-3, iterations=2000)
    require_consistent(fit)
    assert fit.gap <= 1e-3 * max(fit.loss, 1.0)
    assert least - 1e-6 <= fit.loss <= least + fit.gap + 1e-6
    for seen in observations:
        # The loss is quadratic, so the gap bounds the distance to the optimum's marginals.
        holder = fit.marginals[fit.tree.holder(seen.clique) or 0]
        want = project(joint, list(SIZES), seen.clique)
        distance = (holder.project(seen.clique).values - want) ** 2 / (2 * seen.variance)
        assert distance.sum() <= fit.gap + 1e-6


@pytest.mark.parametrize("sigma", [0.1, 4.0, 100.0])
@pytest.mark.parametrize("pairs", [(), (("a", "b"),), (("a", "b"), ("b", "d"), ("c", "d"))])
def test_trees_are_solved_to_rounding(pairs: tuple[Clique, ...], sigma: float) -> None:
    observations = observe(pairs, sigma=sigma, seed=4)
    least, joint = least_loss(observations, SIZES, 31.5)
    fit = estimate(observations, SIZES, total=31.5)
    require_consistent(fit)
    assert fit.loss == pytest.approx(least, rel=1e-7)
    assert fit.gap <= 1e-7 * fit.loss
    for clique in pairs:
        holder = fit.marginals[fit.tree.holder(clique) or 0]
        want = project(joint, list(SIZES), clique)
        np.testing.assert_allclose(holder.project(clique).values, want, atol=1e-4)


def test_where_newton_does_not_end_mirror_descent_does() -> None:
    """One row, and noise of thousands in cells next to ones of none."""
    spread = np.array([[0.03125, 3451.56422, 0.03125], [4298.0, 8315.0, 0.796875]])
    observations = [
        Observation(("a",), np.zeros(2), np.full(2, 0.03125)),
        Observation(("a", "b"), np.full((2, 3), 914.0), spread),
        Observation(("b", "d"), np.zeros((3, 2)), np.full((3, 2), 9300.0)),
        Observation(("d",), np.zeros(2), np.full(2, 0.5)),
    ]
    fit = estimate(observations, SIZES, total=1.0)
    require_consistent(fit)
    assert fit.gap <= 1e-4 * fit.loss


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_newton_copes_with_any_noise(data: st.DataObject) -> None:
    counts = st.integers(-1000, 1000)
    spreads = st.floats(1e-2, 1e4)
    observations = []
    for clique in (("a",), ("a", "b"), ("b", "d"), ("d",)):
        shape = tuple(SIZES[c] for c in clique)
        values = data.draw(arrays(np.int64, shape, elements=counts)).astype(np.float64)
        variance = data.draw(arrays(np.float64, shape, elements=spreads))
        observations.append(Observation(clique, values, variance))
    total = data.draw(st.floats(1.0, 1e4))
    fit = estimate(observations, SIZES, total=total)
    require_consistent(fit)
    # The gap is a certificate: the dual value bounds the loss of every table from below.
    assert fit.gap <= 1e-3 * max(fit.loss, 1.0)


def test_mirror_descent_says_how_far_it_got() -> None:
    square = (("a", "b"), ("b", "d"), ("c", "d"), ("a", "c"), ("a", "d"), ("b", "c"))
    observations = observe(square, sigma=2.0, seed=9)
    short = estimate(observations, SIZES, total=40.0, tolerance=0.0, iterations=3)
    least, _ = least_loss(observations, SIZES, 40.0)
    assert short.iterations == 3
    assert short.loss > least
    assert short.loss - short.gap <= least + 1e-6


LOOP: tuple[Clique, ...] = (("a", "b"), ("b", "d"), ("a", "d"))


def test_a_start_near_an_earlier_fit_ends_at_the_same_optimum_sooner() -> None:
    observations = observe(LOOP, sigma=1.0, seed=3)
    earlier = estimate(observations[:-1], SIZES, total=40.0)
    least, _ = least_loss(observations, SIZES, 40.0)
    warm = estimate(observations, SIZES, total=40.0, tolerance=1e-3, start=earlier)
    require_consistent(warm)
    assert warm.loss <= least + 1e-3 * max(warm.loss, 1.0)
    losses = [
        estimate(observations, SIZES, total=40.0, tolerance=0.0, iterations=5, start=start).loss
        for start in (earlier, None)
    ]
    assert losses[0] < losses[1]


def test_exact_measurements_are_reproduced() -> None:
    rng = np.random.default_rng(1)
    joint = rng.integers(1, 20, (3, 4, 2)).astype(np.float64)
    names = ["a", "b", "c"]
    sizes = dict(zip(names, joint.shape, strict=True))
    pairs = [("a", "b"), ("b", "c")]
    seen = [Observation(p, project(joint, names, p), np.full(1, 1.0)) for p in pairs]
    seen = [Observation(o.clique, o.values, np.ones_like(o.values)) for o in seen]
    fit = estimate(seen, sizes)
    assert fit.total == pytest.approx(joint.sum())
    for factor in fit.marginals:
        np.testing.assert_allclose(factor.values, project(joint, names, factor.clique), rtol=1e-8)


def test_repeated_marginals_are_averaged_by_precision() -> None:
    first = Observation(("a",), np.array([10.0, 30.0]), np.array([1.0, 1.0]))
    second = Observation(("a",), np.array([20.0, 20.0]), np.array([3.0, 3.0]))
    fit = estimate([first, second], {"a": 2}, total=40.0)
    np.testing.assert_allclose(fit.marginals[0].values, [12.5, 27.5])


def test_axes_may_come_in_any_order() -> None:
    values = np.arange(6.0).reshape(2, 3)
    one = Observation(("a", "b"), values, np.ones((2, 3)))
    other = Observation(("b", "a"), values.T, np.ones((3, 2)))
    sizes = {"a": 2, "b": 3}
    left, right = estimate([one], sizes), estimate([other], sizes)
    np.testing.assert_array_equal(left.marginals[0].values, right.marginals[0].values)


def test_a_column_nobody_measured_is_uniform() -> None:
    seen = Observation(("a",), np.array([2.0, 2.0]), np.ones(2))
    pair = Observation(("a", "b"), np.full((2, 2), 1.0), np.ones((2, 2)))
    alone = estimate([seen], {"a": 2, "b": 4})
    np.testing.assert_allclose(alone.marginals[1].values, np.full(4, 1.0))
    beside = estimate([pair], {"a": 2, "b": 2, "c": 4})
    (table,) = (f for f in beside.marginals if f.clique == ("c",))
    np.testing.assert_allclose(table.values, np.full(4, 1.0), rtol=1e-6)


def test_columns_of_one_code_and_a_single_column() -> None:
    seen = [
        Observation(("a",), np.array([7.0]), np.ones(1)),
        Observation(("a", "b"), np.array([[3.0, 5.0]]), np.ones((1, 2))),
    ]
    fit = estimate(seen, {"a": 1, "b": 2}, total=8.0)
    np.testing.assert_allclose(fit.marginals[0].values, [[3.0, 5.0]])
    single = estimate(seen[:1], {"a": 1})
    assert single.total == 7.0
    np.testing.assert_allclose(single.marginals[0].values, [7.0])


@pytest.mark.parametrize(
    "pairs", [(), (("a", "b"), ("b", "d")), (("a", "b"), ("b", "d"), ("a", "d"))]
)
def test_an_empty_table_gives_one_row_and_no_error(pairs: tuple[Clique, ...]) -> None:
    zeros = [
        Observation(c, np.zeros(tuple(SIZES[n] for n in c)), np.ones(tuple(SIZES[n] for n in c)))
        for c in (("a",), ("b",), ("c",), ("d",), *pairs)
    ]
    fit = estimate(zeros, SIZES)
    assert fit.total == 1.0
    require_consistent(fit)
    for factor in fit.marginals:
        np.testing.assert_allclose(factor.values, 1.0 / factor.values.size, atol=0.03)


def test_total_weighs_sums_by_their_variance() -> None:
    good = Observation(("a",), np.array([60.0, 40.0]), np.full(2, 1.0))
    poor = Observation(("b",), np.array([30.0] * 5), np.full(5, 4.0))
    want = (100 / 2 + 150 / 20) / (1 / 2 + 1 / 20)
    assert estimate_total([good, poor]) == pytest.approx(want)
    assert estimate_total([Observation(("a",), np.array([-5.0]), np.ones(1))]) == 1.0
    assert estimate_total([]) == 1.0


finite = st.floats(-1e3, 1e3)


@given(
    arrays(np.float64, st.integers(1, 8), elements=finite),
    st.floats(0.0, 1e3),
    st.integers(0, 1000),
)
def test_simplex_projection_meets_its_conditions(values: Array, total: float, seed: int) -> None:
    variance = np.random.default_rng(seed).uniform(0.1, 10.0, values.size)
    got = project_simplex(values, total, variance)
    assert (got >= 0).all()
    assert got.sum() == pytest.approx(total, abs=1e-9)
    # Karush, Kuhn, Tucker: one price for the codes inside, no better price for those at zero.
    prices = (values - got) / variance
    inside = got > 1e-9
    if inside.any():
        price = prices[inside].max()
        np.testing.assert_allclose(prices[inside], price, atol=1e-6)
        assert (prices[~inside] <= price + 1e-6).all()


def test_refuses_a_marginal_of_another_shape() -> None:
    with pytest.raises(InvalidRequest, match="sizes of columns"):
        estimate([Observation(("a",), np.zeros(3), np.ones(3))], {"a": 2})
    with pytest.raises(InvalidRequest):
        estimate([Observation(("z",), np.zeros(3), np.ones(3))], {"a": 2})


@pytest.mark.parametrize("total", [0.0, -1.0, float("nan")])
def test_refuses_a_total_that_is_not_positive(total: float) -> None:
    with pytest.raises(InvalidRequest, match="positive number of rows"):
        estimate([Observation(("a",), np.ones(2), np.ones(2))], {"a": 2}, total=total)


def test_the_same_measurements_give_the_same_bits() -> None:
    triangle = tuple(itertools.combinations("abd", 2))
    first = estimate(observe(triangle, sigma=2.0, seed=2), SIZES, iterations=50)
    second = estimate(observe(triangle, sigma=2.0, seed=2), SIZES, iterations=50)
    for one, other in zip(first.marginals, second.marginals, strict=True):
        assert isinstance(one, Factor)
        assert one.values.tobytes() == other.values.tobytes()


@pytest.mark.parametrize("seed", range(6))
def test_structural_zeros_against_least_squares_without_those_cells(seed: int) -> None:
    """One measured marginal over all columns: the possible cells are a simplex of their own."""
    rng = np.random.default_rng(seed)
    sizes = {"a": 3, "b": 4, "c": 2}
    clique: Clique = ("c", "a", "b")
    zeros = {("b", "a"): rng.random((4, 3)) < 0.4, ("c",): np.array([False, False])}
    values = rng.uniform(-5, 40, (2, 3, 4))
    seen = Observation(clique, values, np.full(values.shape, 4.0))
    fit = estimate([seen], sizes, total=200.0, tolerance=1e-8, impossible=zeros)
    (table,) = (each.transpose(clique).values for each in fit.marginals)
    possible = np.broadcast_to(~zeros["b", "a"].T, values.shape)
    want = np.zeros_like(values)
    want[possible] = project_simplex(values[possible], 200.0)
    assert (table[~possible] == 0).all()
    np.testing.assert_allclose(table, want, atol=0.05)


def test_structural_zeros_between_cliques_reach_every_marginal() -> None:
    """A chain in which one code of the middle column has no neighbour that is possible."""
    rng = np.random.default_rng(3)
    sizes = {"a": 3, "b": 4, "c": 3}
    zeros = {("a", "b"): np.zeros((3, 4), dtype=bool)}
    zeros["a", "b"][:, 2] = True
    pairs: list[Clique] = [("a", "b"), ("b", "c")]
    seen = [
        Observation(
            pair,
            rng.uniform(5, 30, [sizes[c] for c in pair]),
            np.full([sizes[c] for c in pair], 4.0),
        )
        for pair in pairs
    ]
    for start in (None, estimate(seen, sizes, total=150.0)):
        fit = estimate(seen, sizes, total=150.0, tolerance=1e-6, start=start, impossible=zeros)
        tables = {each.clique: each.values for each in fit.marginals}
        assert (tables["a", "b"][:, 2] == 0).all()
        assert (tables["b", "c"][2] == 0).all()
        assert tables["b", "c"].sum() == pytest.approx(150.0)


def test_zeros_everywhere_are_refused() -> None:
    seen = [Observation(("a",), np.full(3, 9.0), np.ones(3))]
    zeros = {("a",): np.ones(3, dtype=bool)}
    with pytest.raises(InvalidRequest, match="no cell"):
        estimate(seen, {"a": 3, "b": 2}, impossible=zeros)
    with pytest.raises(InvalidRequest, match="sizes"):
        estimate(seen, {"a": 3, "b": 2}, impossible={("b",): np.ones(3, dtype=bool)})
