"""The flagship: what it asks and chooses, and that it beats a tree where none is enough."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import dpsynth as dp
from dpsynth.domain import Clique, Domain
from dpsynth.marginal import MST, CliqueTree, MarginalModel
from dpsynth.marginal.choose import ALLOCATION, Bounds, choose, triples
from dpsynth.marginal.junction import JunctionTree, triangulate
from dpsynth.vault import Divide, Measure
from dpsynth_accounting import InvalidRequest
from tests.marginal.conftest import MakeBlock
from tests.marginal.test_mechanisms import distance

Data = dict[str, NDArray[np.int64]]


def loop(n: int = 6000, size: int = 5) -> tuple[Data, Domain]:
    """Four columns in a ring, each close to both of its neighbours: no tree holds them all."""
    rng = np.random.default_rng(1)
    base = rng.integers(0, size, n)
    data = {"a": base}
    for name in "bcd":
        data[name] = (base + rng.integers(0, 2, n) * rng.integers(0, 2, n)) % size
    data["e"] = (data["a"] + data["c"]) % 2  # shows in a triple alone
    return data, Domain.integers(dict.fromkeys("abcd", size) | {"e": 2}, ordered=tuple("abcd"))


# -- the choice ----------------------------------------------------------------------------------

SIZES = {"a": 4, "b": 4, "c": 4, "d": 4}


def total_error(scores: Mapping[Clique, float], chosen: tuple[Clique, ...], p: float) -> float:
    """Return the error that is expected to be left: of what is not measured, and noise."""
    noise = 0.0
    if chosen:
        weights = {c: math.prod(SIZES[name] for name in c) ** ALLOCATION for c in chosen}
        whole = sum(weights.values())
        for clique, weight in weights.items():
            cells = math.prod(SIZES[name] for name in clique)
            noise += math.sqrt(2 / math.pi) * cells / math.sqrt(p * weight / whole)
    return noise + sum(score for clique, score in scores.items() if clique not in chosen)


def pick(
    scores: Mapping[Clique, float],
    sizes: Mapping[str, int],
    most: int,
    precision: float = 1.0,
    weights: Mapping[Clique, float] | None = None,
) -> dict[Clique, float]:
    alike = dict.fromkeys(scores, 1.0)
    return choose(scores, Bounds(sizes, most), [], precision=precision, weights=weights or alike)


def test_a_full_tree_still_takes_what_joins_its_parts() -> None:
    """Many strong pairs that have no room come first; the weak ones that connect are not lost."""
    names = [f"c{j}" for j in range(12)]
    scores = dict.fromkeys(itertools.combinations(names[:9], 2), 1000.0)
    scores |= {(names[j - 1], names[j]): 50.0 for j in range(9, 12)}
    found = pick(scores, dict.fromkeys(names, 5), 100, precision=100.0)
    assert {(names[j - 1], names[j]) for j in range(9, 12)} <= set(found)
    assert len(found) == 11  # a spanning tree: cliques of 100 cells are pairs


@pytest.mark.parametrize("seed", range(12))
def test_of_equal_candidates_the_best_subset_is_chosen(seed: int) -> None:
    """Against all subsets: marginals of one size, where greedy is exact."""
    rng = np.random.default_rng(seed)
    scores = {c: float(rng.exponential(300)) for c in itertools.combinations(SIZES, 2)}
    found = pick(scores, SIZES, 10**6, precision=0.01)
    subsets = [s for n in range(7) for s in itertools.combinations(scores, n)]
    best = min(subsets, key=lambda s: total_error(scores, s, 0.01))
    assert set(found) == set(best)
    assert math.fsum(found.values()) == pytest.approx(1 if found else 0)


def test_shares_follow_the_cells() -> None:
    sizes = {"a": 2, "b": 4, "c": 16}
    scores = {("a", "b"): 1e6, ("b", "c"): 1e6}
    found = pick(scores, sizes, 10**6)
    ratio = found["b", "c"] / found["a", "b"]
    assert ratio == pytest.approx((64 / 8) ** (2 / 3))
    # Of all divisions this one leaves the least noise.
    cells = np.array([8.0, 64.0])

    def noise(share: float) -> float:
        return float((cells / np.sqrt([share, 1 - share])).sum())

    assert noise(found["a", "b"]) <= min(noise(s) for s in np.linspace(0.01, 0.99, 99)) + 1e-9


def test_weights_matter_as_more_error_and_more_noise_would() -> None:
    scores = dict.fromkeys(itertools.combinations("abc", 2), 900.0)
    sizes = dict.fromkeys("abc", 4)
    weights = {("a", "b"): 1.0, ("a", "c"): 0.5, ("b", "c"): 0.001}
    found = pick(scores, sizes, 10**6, precision=0.001, weights=weights)
    assert found["a", "b"] / found["a", "c"] == pytest.approx(2 ** (2 / 3))
    # By one factor for all nothing changes.
    tenfold = {clique: 10 * weight for clique, weight in weights.items()}
    again = pick(scores, sizes, 10**6, precision=0.001, weights=tenfold)
    assert again == pytest.approx(found)
    # Of all divisions this one leaves the least weighted noise.
    kept = np.array([weights[clique] * 16 for clique in found])

    def noise(shares: NDArray[np.float64]) -> float:
        return float((kept / np.sqrt(shares)).sum())

    rng = np.random.default_rng(0)
    others = rng.dirichlet(np.ones(len(kept)), 2000)
    assert noise(np.array(list(found.values()))) <= min(map(noise, others)) + 1e-9


def test_the_junction_tree_stays_within_its_bounds() -> None:
    names = [f"c{i}" for i in range(9)]
    sizes = dict.fromkeys(names, 5)
    scores = dict.fromkeys(itertools.combinations(names, 2), 1e5)
    for most in (25, 125, 625):
        found = pick(scores, sizes, most)
        cliques = triangulate(found, sizes)
        cells = [5 ** len(clique) for clique in cliques]
        assert max(cells) <= most
        assert sum(cells) <= 4 * most
        assert found


def test_nothing_is_chosen_where_all_is_noise() -> None:
    scores = {("a", "b"): 3.0, ("b", "c"): -50.0}
    assert pick(scores, SIZES, 99, precision=1e-4) == {}


def test_triples_lie_in_cliques() -> None:
    tree = JunctionTree.build([("a", "b"), ("b", "c"), ("a", "c")], SIZES)
    assert triples(tree) == [("a", "b", "c")]


# -- the mechanism -------------------------------------------------------------------------------


def test_its_plan_is_public() -> None:
    assert CliqueTree().steps(["a"]) == (Measure(1, 1.0),)
    plan = CliqueTree(one_way=0.2, scoring=0.1, passes=3).steps(list("abcd"))
    assert plan == (Measure(4, 0.2), Divide(6 * (6 + 4) + 4, 0.8))
    with pytest.raises(InvalidRequest, match="one column or more"):
        CliqueTree().steps([])


@pytest.mark.parametrize(
    "wrong",
    [
        {"one_way": 0},
        {"scoring": math.nan},
        {"one_way": 0.9, "scoring": 0.1},
        {"passes": 0},
        {"bins": 1},
        {"most_cells": 3},
    ],
)
def test_impossible_parameters_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match=r"at its default|at their default"):
        CliqueTree(**wrong)  # type: ignore[arg-type]


def fitted(make_block: MakeBlock, method: CliqueTree | MST, **how: float) -> MarginalModel:
    data, domain = loop()
    return method.run(make_block(method, data, domain, **how))


def test_a_ring_is_fitted_better_than_by_a_tree(make_block: MakeBlock) -> None:
    data, _ = loop()
    ours = fitted(make_block, CliqueTree(), mu=1.0)
    tree = fitted(make_block, MST(), mu=1.0)
    assert distance(ours, data) < 0.75 * distance(tree, data)


def test_a_triple_is_found_in_the_second_pass(make_block: MakeBlock) -> None:
    data, domain = loop()
    method = CliqueTree()
    block = make_block(method, data, domain, mu=5.0)
    model = method.run(block)
    (first, second) = (asked for kind, asked in block.log if kind == "divided")
    assert all(len(clique) == 2 for clique in first)
    assert ("a", "c", "e") in second
    assert model.rows == pytest.approx(6000, rel=0.01)


def test_it_spends_all_it_declared_and_no_more(make_block: MakeBlock) -> None:
    data, domain = loop()
    method = CliqueTree()
    block = make_block(method, data, domain, mu=2.0)
    left: list[float] = []
    divide = block.divide

    def watched() -> object:
        shared = divide()
        left.append(shared)  # type: ignore[arg-type]
        return shared

    block.divide = watched  # type: ignore[method-assign,assignment]
    method.run(block)
    assert 0 <= left[0].left < 1e-6  # type: ignore[attr-defined]


def test_one_column_and_columns_of_one_code(make_block: MakeBlock) -> None:
    method = CliqueTree()
    one = Domain.integers({"a": 3})
    model = method.run(make_block(method, {"a": np.arange(300) % 3}, one, mu=5.0))
    assert len(model.sample_codes(10, rng=np.random.default_rng(0))["a"]) == 10
    two = Domain.integers({"a": 3, "f": 1})
    data = {"a": np.arange(300) % 3, "f": np.zeros(300, dtype=np.int64)}
    assert method.run(make_block(method, data, two, mu=5.0)).marginal(("a", "f")).shape == (3, 1)


def test_a_run_through_the_vault(tmp_path: pytest.TempPathFactory) -> None:
    data, _ = loop(2000)
    table = pd.DataFrame(data)
    schema = dp.Schema({n: dp.Integer(0, 4) for n in "abcd"} | {"e": dp.Integer(0, 1)})
    account = dp.Ledger(f"{tmp_path}/ledger.db").account("ring", dp.Budget(4.0, 1e-6))
    vault = dp.Vault(table, schema, account, unit=dp.Row(), audit_share=0.0)
    model = dp.CliqueTree().fit(vault, epsilon=4)
    assert float(account.remaining()[0]) == 0
    assert model.rows == pytest.approx(2000, rel=0.05)
    drawn = model.sample(rng=np.random.default_rng(0))
    assert (abs(drawn["a"] - drawn["b"]) % 4 <= 1).mean() > 0.8


@pytest.mark.parametrize("method", [CliqueTree, dp.AIM, dp.MWEM, dp.PrivBayes, MST])
@pytest.mark.parametrize(("size", "epsilon"), [(5, 0.3), (5, 10.0), (120, 1.0), (120, 10.0)])
def test_two_columns_ask_no_more_than_was_declared(
    method: Any, size: int, epsilon: float, tmp_path: Path
) -> None:
    """A pair is scored, measured, scored again and left alone; what is left measures the columns.

    The vault counts the answers, and refuses one too many.
    """
    first = np.random.default_rng(5).integers(0, size, 150)
    table = pd.DataFrame({"a": first, "b": first % 2 == 1})
    schema = dp.Schema({"a": dp.Integer(0, size - 1), "b": dp.Boolean()})
    account = dp.Ledger(tmp_path / "ledger.db").account("two", dp.Budget(epsilon, 1e-6))
    vault = dp.Vault(table, schema, account, unit=dp.Row(), audit_share=0.0)
    method().fit(vault, epsilon=epsilon)


def test_what_no_pair_is_worth_goes_to_the_columns(make_block: MakeBlock) -> None:
    """Of independent columns nothing is picked, and nothing is left unused."""
    rng = np.random.default_rng(4)
    data = {name: rng.integers(0, 40, 3000) for name in "abc"}
    domain = Domain.integers(dict.fromkeys("abc", 40))
    block = make_block(CliqueTree(), data, domain, mu=0.3)
    CliqueTree().run(block)
    divided = [asked for kind, asked in block.log if kind == "divided"]
    assert divided == [(("a",), ("b",), ("c",))]
