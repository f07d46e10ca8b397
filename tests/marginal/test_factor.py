from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpsynth.marginal.factor import Factor, logsumexp, spaced, summed, union
from dpsynth_accounting import InvalidRequest


@pytest.fixture
def factor() -> Factor:
    return Factor(("a", "b", "c"), np.arange(24.0).reshape(2, 3, 4))


def test_project_sums_out_and_orders_the_axes(factor: Factor) -> None:
    got = factor.project(("c", "a"))
    assert got.clique == ("c", "a")
    assert got.values.shape == (4, 2)
    np.testing.assert_array_equal(got.values, factor.values.sum(axis=1).T)


def test_project_to_nothing_is_the_sum(factor: Factor) -> None:
    assert factor.project(()).values == pytest.approx(276.0)


def test_transpose_there_and_back(factor: Factor) -> None:
    back = factor.transpose(("c", "a", "b")).transpose(("a", "b", "c"))
    np.testing.assert_array_equal(back.values, factor.values)


def test_logsumexp_is_the_logarithm_of_project(factor: Factor) -> None:
    logs = Factor(factor.clique, np.log(factor.values + 1))
    direct = np.log(Factor(factor.clique, factor.values + 1).project(("b",)).values)
    np.testing.assert_allclose(logs.logsumexp(("b",)).values, direct, rtol=1e-13)


def test_logsumexp_keeps_what_is_forbidden_and_does_not_overflow() -> None:
    values = np.array([[-np.inf, -np.inf], [-np.inf, 1000.0], [1000.0, 1000.0]])
    got = logsumexp(values, (1,))
    np.testing.assert_allclose(got, [-np.inf, 1000.0, 1000.0 + np.log(2)])


def test_expand_repeats_without_copying(factor: Factor) -> None:
    small = factor.project(("b",))
    wide = small.expand(("a", "b"), (2, 3))
    assert not wide.values.flags.writeable
    np.testing.assert_array_equal(wide.values, np.stack([small.values] * 2))


@pytest.mark.parametrize("sign", ["+", "*"])
def test_operators_align_by_name(sign: str) -> None:
    left = Factor(("a", "b"), np.arange(6.0).reshape(2, 3))
    right = Factor(("c", "b"), np.arange(12.0).reshape(4, 3))
    got = {"+": left + right, "*": left * right}[sign]
    assert got.clique == ("a", "b", "c")
    for a in range(2):
        for b in range(3):
            for c in range(4):
                x, y = left.values[a, b], right.values[c, b]
                assert got.values[a, b, c] == {"+": x + y, "*": x * y}[sign]


def test_refuses_axes_that_do_not_match_the_names() -> None:
    with pytest.raises(InvalidRequest, match="one axis for each"):
        Factor(("a",), np.zeros((2, 2)))
    with pytest.raises(InvalidRequest, match="distinct"):
        Factor(("a", "a"), np.zeros((2, 2)))


def test_refuses_columns_it_lacks(factor: Factor) -> None:
    with pytest.raises(InvalidRequest):
        factor.project(("z",))
    with pytest.raises(InvalidRequest):
        factor.expand(("a", "b"), (2, 3))
    with pytest.raises(InvalidRequest):
        factor.transpose(("a", "b"))


def test_union_keeps_the_first_order() -> None:
    assert union([("b", "a"), ("c", "a")]) == ("b", "a", "c")


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    goes=st.lists(st.booleans(), min_size=5, max_size=5),
    seed=st.integers(0, 99),
)
def test_sums_are_those_of_numpy(shape: list[int], goes: list[bool], seed: int) -> None:
    values = np.random.default_rng(seed).random(shape)
    axes = tuple(i for i in range(len(shape)) if goes[i])
    for each in (values, values.T.copy().T):  # also where the axes lie the other way round
        found = summed(each, axes)
        np.testing.assert_allclose(found, values.sum(axis=axes), rtol=1e-12)
        assert found.shape == values.sum(axis=axes).shape


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    kept=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_what_is_spaced_broadcasts_as_before(shape: list[int], kept: list[bool]) -> None:
    narrow = tuple(n if keep else 1 for n, keep in zip(shape, kept, strict=False))
    values = np.arange(float(np.prod(narrow))).reshape(narrow)
    found = spaced(values, tuple(shape))
    assert found.ndim == len(shape)
    np.testing.assert_array_equal(np.broadcast_to(found, shape), np.broadcast_to(values, shape))
    assert found.size <= values.size * 9 * 63  # no more than the last axes, up to a long loop
