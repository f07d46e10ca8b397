"""Many marginals by way of tables in between, against one sum each."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsynth.domain import Clique
from dpsynth.marginal.projections import Projections

SIZES = {"a": 3, "b": 2, "c": 4, "d": 1, "e": 2}
SUBSETS = [each for size in range(6) for each in itertools.combinations(SIZES, size)]


@settings(max_examples=60, deadline=None)
@given(wanted=st.lists(st.sampled_from(SUBSETS), unique=True), seed=st.integers(0, 99))
def test_marginals_and_their_adjoint(wanted: list[Clique], seed: int) -> None:
    rng = np.random.default_rng(seed)
    clique = tuple(SIZES)
    table = rng.normal(size=tuple(SIZES.values()))
    projections = Projections(clique, wanted, SIZES)
    found = projections.of(table)
    for each, marginal in zip(wanted, found, strict=True):
        away = tuple(i for i, name in enumerate(clique) if name not in each)
        np.testing.assert_allclose(marginal, table.sum(axis=away), atol=1e-12)
    weights = [rng.normal(size=marginal.shape) for marginal in found]
    whole = projections.spread(weights)
    assert whole.shape == table.shape
    # <P t, w> = <t, P* w> for every table: the adjoint.
    inner = sum(float(np.vdot(m, w)) for m, w in zip(found, weights, strict=True))
    assert float(np.vdot(table, whole)) == pytest.approx(inner, abs=1e-9)


def test_ten_pairs_are_few_sums_over_the_whole_table() -> None:
    pairs = list(itertools.combinations(SIZES, 2))
    projections = Projections(tuple(SIZES), pairs, SIZES)
    assert sum(node.parent == 0 for node in projections._nodes) == 3


def test_what_was_given_is_not_changed() -> None:
    projections = Projections(("a", "b"), [("a", "b"), ("a",)], SIZES)
    weights = [np.ones((3, 2)), np.ones(3)]
    projections.spread(weights)
    assert (weights[0] == 1).all()
    assert (weights[1] == 1).all()
