from __future__ import annotations

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsynth.domain import Domain
from dpsynth.evaluation import (
    exact_fidelity,
    mean_tvd,
    pair_cliques,
    synthetic_answers,
    tvd,
    tvd_per_l1,
)
from dpsynth_accounting import InvalidRequest

DOMAIN = Domain.integers({"a": 3, "b": 4, "c": 2}, ordered=("b",))


def rows(count: int, seed: int, domain: Domain = DOMAIN) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.integers(0, domain.size(n), count) for n in domain.names]).astype(
        np.int32
    )


@pytest.mark.parametrize("count", range(2, 13))
def test_all_pairs_once_while_they_fit(count: int) -> None:
    names = [f"c{i}" for i in range(count)]
    found = pair_cliques(names)
    assert sorted(found) == sorted(itertools.combinations(names, 2))
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("count", [26, 40, 41])
def test_more_pairs_are_cut_and_columns_occur_about_equally(count: int) -> None:
    found = pair_cliques([f"c{i:02}" for i in range(count)])
    assert len(set(found)) == 300
    times = Counter(name for pair in found for name in pair)
    assert len(times) == count
    assert max(times.values()) - min(times.values()) <= 2
    assert all(left < right for left, right in found)


def test_few_columns() -> None:
    assert pair_cliques([]) == ()
    assert pair_cliques(["a"]) == (("a",),)


def test_pairs_too_wide_are_left_out_where_sizes_are_known() -> None:
    domain = Domain.integers({"a": 1500, "b": 1500, "c": 3})
    assert pair_cliques(domain.names, domain=domain) == (("b", "c"), ("a", "c"))


def test_answers_are_counts_when_the_rows_agree() -> None:
    table = rows(200, 0)
    answers = synthetic_answers(table, DOMAIN, [("a", "b"), ("c",), ("b", "a")], 200.0)
    expected = np.zeros((3, 4), dtype=np.int64)
    for a, b, _ in table:
        expected[a, b] += 1
    assert np.array_equal(answers["a", "b"], expected)
    assert np.array_equal(answers["b", "a"], expected.T)
    assert answers["c",].dtype == np.int64


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.floats(0, 500), st.integers(0, 1000))
def test_answers_keep_the_total_and_stay_within_one_row(
    count: int, target: float, seed: int
) -> None:
    table = rows(count, seed)
    found = synthetic_answers(table, DOMAIN, [("a", "b")], target)["a", "b"]
    counts = synthetic_answers(table, DOMAIN, [("a", "b")], count)["a", "b"]
    assert found.sum() == round(target)
    assert (np.abs(found - counts * round(target) / count) < 1).all()
    assert (found >= 0).all()


def test_answers_of_nothing_are_zero() -> None:
    table = rows(10, 0)
    assert not synthetic_answers(table[:0], DOMAIN, [("a", "c")], 50)["a", "c"].any()
    assert not synthetic_answers(table, DOMAIN, [("a", "c")], -3.2)["a", "c"].any()


def test_rounding_each_cell_would_lose_rare_cells() -> None:
    """The twin of keeping the total: 1000 synthetic rows of 100 cells for 100 real ones."""
    domain = Domain.integers({"a": 2500})
    table = rows(10_000, 0, domain)
    kept = synthetic_answers(table, domain, [("a",)], 1000)["a",]
    each = np.rint(np.bincount(table[:, 0], minlength=2500) * 0.1)
    assert kept.sum() == 1000
    assert abs(each.sum() - 1000) > 100


def test_mean_tvd_by_hand() -> None:
    assert mean_tvd(40, 10, 4) == 0.5
    assert mean_tvd(-5, 10, 4) == 0.0
    assert mean_tvd(1e9, 10, 4) == 1.0
    assert mean_tvd(0.5, -20.0, 1) == 0.25
    assert tvd_per_l1(100, 5) == pytest.approx(0.001)
    with pytest.raises(InvalidRequest):
        mean_tvd(1, 1, 0)


def test_paid_figure_equals_the_exact_one_without_noise() -> None:
    real, release = rows(500, 1), rows(500, 2)
    cliques = pair_cliques(DOMAIN.names)
    answers = synthetic_answers(release, DOMAIN, cliques, 500)
    truth = synthetic_answers(real, DOMAIN, cliques, 500)
    l1 = sum(int(np.abs(answers[c] - truth[c]).sum()) for c in cliques)
    exact = tvd(real, release, DOMAIN, cliques)
    assert mean_tvd(l1, 500, len(cliques)) == pytest.approx(np.mean(list(exact.values())))


def test_tvd_by_hand() -> None:
    left = np.array([[0, 0, 0], [0, 1, 0], [1, 1, 1], [2, 3, 1]], dtype=np.int32)
    right = np.array([[0, 0, 0], [1, 1, 1]], dtype=np.int32)
    found = tvd(left, right, DOMAIN, [("a",), ("b",), ("c",), ("a", "b")])
    assert found == {("a",): 0.25, ("b",): 0.25, ("c",): 0.0, ("a", "b"): 0.5}
    assert tvd(left, left[::-1], DOMAIN, [("a", "b")])["a", "b"] == 0.0
    assert tvd(left, left[:0], DOMAIN, [("a",)])["a",] == 1.0
    assert tvd(left[:0], left[:0], DOMAIN, [("a",)])["a",] == 0.0


def test_exact_fidelity_sees_a_broken_pair_that_single_columns_hide() -> None:
    rng = np.random.default_rng(0)
    domain = Domain.integers({"a": 4, "b": 4, "c": 4})

    def tied(count: int) -> np.ndarray:
        a = rng.integers(0, 4, count)
        return np.column_stack([a, a, rng.integers(0, 4, count)]).astype(np.int32)

    real, good = tied(4000), tied(4000)
    broken = good.copy()
    broken[:, 1] = rng.permutation(broken[:, 1])
    fine = exact_fidelity(real, good, domain, held_out=tied(4000))
    bad = exact_fidelity(real, broken, domain)
    assert fine.two_way < 0.05
    assert fine.two_way_reference == pytest.approx(fine.two_way, abs=0.03)
    assert bad.one_way < 0.05
    assert bad.two_way > 0.2
    assert bad.worst[0][0] == ("a", "b")
    assert bad.one_way_reference is None
    assert json.loads(json.dumps(bad.to_json()))["worst"][0]["columns"] == ["a", "b"]


def test_tables_are_not_changed_and_one_column_works() -> None:
    domain = Domain.integers({"a": 5})
    real, release = rows(20, 0, domain), rows(30, 1, domain)
    kept = real.copy(), release.copy()
    found = exact_fidelity(real, release, domain)
    assert np.array_equal(real, kept[0])
    assert np.array_equal(release, kept[1])
    assert found.one_way == found.two_way
    assert math.isfinite(found.one_way)
