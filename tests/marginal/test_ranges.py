"""Counts at several resolutions: one estimate, least squares, and ranges of little noise."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from dpsynth.domain import Domain
from dpsynth.marginal import AIM, MWEM, CliqueTree
from dpsynth.marginal.estimate import Observation
from dpsynth.marginal.ranges import MOST_LEVELS, consistent, levels
from dpsynth.vault import Divide
from dpsynth.workload import Workload
from tests.marginal.conftest import MakeBlock


def test_levels_are_nested_and_what_has_no_order_stays_alone() -> None:
    found = levels(603, 600)
    assert [int(level.max()) + 1 for level in found] == [38 + 3, 3 + 3]
    for below, above in itertools.pairwise(found):
        for block in range(int(below.max()) + 1):
            assert np.unique(above[below == block]).size == 1
    for level in found:
        assert [(level == code).sum() for code in level[600:]] == [1, 1, 1]
    assert levels(16, 16) == []
    assert levels(500, 0) == []
    assert len(levels(1 << 27, 1 << 27)) <= MOST_LEVELS


@pytest.mark.parametrize(("size", "ordered"), [(40, 40), (301, 300), (20, 18)])
def test_it_is_the_least_squares_estimate(size: int, ordered: int) -> None:
    rng = np.random.default_rng(size)
    coarse = np.sort(rng.integers(0, 5, size))
    coarse = np.unique(coarse, return_inverse=True)[1].astype(np.int64)
    fine = Observation(("a",), rng.normal(50, 9, size), rng.uniform(1, 9, size))
    above = []
    for codes in levels(size, ordered):
        blocks = int(codes.max()) + 1
        above.append(
            (
                codes,
                Observation(("a",), rng.normal(500, 30, blocks), rng.uniform(1, 9, blocks)),
            )
        )
    rows = [np.eye(size), *(np.eye(int(codes.max()) + 1)[codes].T for codes, _ in above)]
    design = np.vstack(rows)
    seen = [fine, *(each for _, each in above)]
    weight = np.diag(1 / np.concatenate([each.variance for each in seen]))
    covariance = np.linalg.inv(design.T @ weight @ design)
    expected = covariance @ design.T @ weight @ np.concatenate([each.values for each in seen])
    sums = np.eye(int(coarse.max()) + 1)[coarse]

    codes, groups = consistent(fine, above, coarse)

    assert codes.values == pytest.approx(expected)
    assert codes.variance == pytest.approx(np.diag(covariance))
    assert groups.values == pytest.approx(sums.T @ expected)
    assert groups.variance == pytest.approx(np.diag(sums.T @ covariance @ sums))
    assert (groups.variance <= sums.T @ fine.variance + 1e-9).all()


@pytest.mark.parametrize("kind", [CliqueTree, AIM, MWEM])
def test_long_ranges_of_many_codes_lose_most_of_their_noise(
    make_block: MakeBlock, kind: Any
) -> None:
    """Where no pair is measured: the coarse codes of a pair, or of a round, are such blocks."""
    rng = np.random.default_rng(1)
    size = 5000
    data = {
        "pay": np.clip(rng.normal(2500, 700, 20_000), 0, size - 1).astype(np.int64),
        **{name: rng.integers(0, 2, 20_000) for name in "abcd"},
    }
    domain = Domain.integers({name: int(v.max()) + 1 for name, v in data.items()}, ordered=["pay"])
    exact = np.cumsum(np.bincount(data["pay"], minlength=domain.size("pay")))

    def error(method: Any) -> float:
        found = []
        for seed in range(4):
            model = method.run(make_block(method, data, domain, mu=0.2, seed=seed))
            found.append(np.abs(np.cumsum(model.marginal(("pay",))) - exact).mean())
        return float(np.mean(found))

    plain = error(CliqueTree(workload=Workload.of(("pay",))))
    assert error(kind(workload=Workload.ranges("pay"))) < 0.4 * plain


def test_levels_are_declared_and_ask_for_no_more_than_a_fifth(make_block: MakeBlock) -> None:
    names = ["a", "b", "c"]
    alone, asked = (
        CliqueTree(workload=Workload.all(2) + extra).steps(names)[1]
        for extra in (Workload.of(("a", "b")), Workload.ranges("a", "b"))
    )
    assert isinstance(alone, Divide)
    assert isinstance(asked, Divide)
    assert asked.answers == alone.answers + MOST_LEVELS
    data = {name: np.arange(4000) % 700 for name in names}
    domain = Domain.integers(dict.fromkeys(names, 700), ordered=names)
    every = CliqueTree(
        workload=Workload.ranges("a") + Workload.ranges("b") + Workload.ranges("c"), one_way=0.8
    )
    block = make_block(every, data, domain, mu=1.0)
    shared: list[Any] = []
    divide = block.divide

    def watched() -> Any:
        shared.append(divide())
        return shared[0]

    block.divide = watched  # type: ignore[method-assign]
    every.run(block)
    assert 0 <= shared[0].left < 1e-5
