"""The mechanisms of rounds, AIM, MWEM and PrivBayes: what they ask, and that they learn."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth.domain import Clique, Domain
from dpsynth.marginal import AIM, MWEM, Independent, MarginalModel, PrivBayes
from dpsynth.marginal.junction import triangulate
from dpsynth.synthesizer import named
from dpsynth.vault import Divide, Measure
from dpsynth.workload import Workload
from dpsynth_accounting import InvalidRequest
from tests.marginal.conftest import MakeBlock
from tests.marginal.fake_block import FakeBlock
from tests.marginal.test_clique_tree import Data, loop
from tests.marginal.test_mechanisms import distance

Method = AIM | MWEM | PrivBayes
METHODS = pytest.mark.parametrize(
    "method", [AIM(), MWEM(), PrivBayes()], ids=lambda method: method.name
)


def chosen(block: FakeBlock) -> list[Clique]:
    return [asked[0] for kind, asked in block.log if kind == "chosen"]


def offered(block: FakeBlock) -> list[set[Clique]]:
    return [set(asked[1]) for kind, asked in block.log if kind == "chosen"]


def sizes_of(block: FakeBlock) -> dict[str, int]:
    return {name: block.domain.size(name) for name in block.domain.names}


def test_their_plans_are_public() -> None:
    names = list("abcd")
    assert AIM().steps(names) == (Measure(4, 0.3), Divide(64, 0.7))
    assert AIM(rounds=5, one_way=0.5).steps(names) == (Measure(4, 0.5), Divide(5, 0.5))
    assert MWEM().steps(names) == (Measure(4, 0.3), Divide(8, 0.7))
    assert PrivBayes().steps(names) == (Measure(4, 0.3), Divide(3, 0.7))
    assert [m.steps(["a"]) for m in (AIM(), MWEM(), PrivBayes())] == [(Measure(1, 1.0),)] * 3


@METHODS
def test_impossible_parameters_are_refused(method: Method) -> None:
    kind: Any = type(method)
    wrong: list[dict[str, Any]] = [
        {"one_way": 0}, {"one_way": 1.0}, {"selection": math.nan}, {"selection": 1},
        {"bins": 1}, {"most_cells": 3},
    ]  # fmt: skip
    wrong += [{"degree": 0}, {"useful": -1.0}] if kind is PrivBayes else [{"rounds": 0}]
    for each in wrong:
        with pytest.raises(InvalidRequest, match=r"at its default|at their defaults"):
            kind(**each)
    with pytest.raises(InvalidRequest, match="one column or more"):
        method.steps([])


@METHODS
def test_more_is_learned_than_by_columns_alone(method: Method, make_block: MakeBlock) -> None:
    data, domain = loop()
    model = method.run(make_block(method, data, domain, mu=2.0))
    alone = Independent().run(make_block(Independent(), data, domain, mu=2.0))
    assert distance(model, data) < 0.5 * distance(alone, data)
    assert model.rows == pytest.approx(6000, rel=0.01)


@METHODS
def test_all_that_was_declared_is_spent_and_no_more(method: Method, make_block: MakeBlock) -> None:
    data, domain = loop(2000)
    block = make_block(method, data, domain, mu=1.0)
    shared = []
    divide = block.divide

    def watched() -> Any:
        shared.append(divide())
        return shared[0]

    block.divide = watched  # type: ignore[method-assign]
    method.run(block)
    assert 0 <= shared[0].left < 1e-5


@METHODS
def test_one_column_and_columns_of_one_code(method: Method, make_block: MakeBlock) -> None:
    one = Domain.integers({"a": 3})
    model = method.run(make_block(method, {"a": np.arange(300) % 3}, one, mu=5.0))
    assert model.marginal(("a",)) == pytest.approx([100, 100, 100], abs=5)
    two = Domain.integers({"a": 3, "f": 1})
    data = {"a": np.arange(300) % 3, "f": np.zeros(300, dtype=np.int64)}
    assert method.run(make_block(method, data, two, mu=5.0)).marginal(("a", "f")).shape == (3, 1)


@METHODS
def test_through_the_vault(method: Method, tmp_path: Path) -> None:
    data, _ = loop(2000)
    schema = dp.Schema({n: dp.Integer(0, 4) for n in "abcd"} | {"e": dp.Integer(0, 1)})
    account = dp.Ledger(tmp_path / "ledger.db").account("ring", dp.Budget(4.0, 1e-6))
    vault = dp.Vault(pd.DataFrame(data), schema, account, unit=dp.Row(), audit_share=0.0)
    model = named(method.name, {}).fit(vault, epsilon=4)
    assert float(account.remaining()[0]) == 0
    assert isinstance(model, MarginalModel)
    drawn = model.sample(rng=np.random.default_rng(0))
    assert (abs(drawn["a"] - drawn["b"]) % 4 <= 1).mean() > 0.75


# -- rounds --------------------------------------------------------------------------------------


def test_a_round_that_teaches_nothing_makes_the_next_more_precise(make_block: MakeBlock) -> None:
    """Of independent columns: four times the share each time, so few of 80 rounds are left."""
    rng = np.random.default_rng(0)
    data = {name: rng.integers(0, 4, 3000) for name in "abcde"}
    domain = Domain.integers(dict.fromkeys("abcde", 4))
    blocks = [make_block(kind(rounds=80), data, domain, mu=0.3) for kind in (AIM, MWEM)]
    AIM(rounds=80).run(blocks[0])
    MWEM(rounds=80).run(blocks[1])
    assert len(chosen(blocks[0])) < 12
    assert len(chosen(blocks[1])) == 80


@pytest.mark.parametrize("most", [30, 300])
def test_the_junction_tree_stays_within_the_part_that_was_spent(
    make_block: MakeBlock, most: int
) -> None:
    data, domain = loop()
    method = MWEM(rounds=12, most_cells=most)
    block = make_block(method, data, domain, mu=4.0)
    model = method.run(block)
    cells = [math.prod(table.values.shape) for table in model.marginals]
    assert max(cells) <= most
    sizes = {name: int(codes.max()) + 1 for name, codes in model.maps.items()}
    for done, asked in enumerate(offered(block)):
        spent = 0.3 + 0.7 * done / 12
        before = chosen(block)[:done]
        held = triangulate(before, sizes)
        for clique in asked:
            inside = any(set(clique) <= set(each) for each in held)
            grown = triangulate([*before, clique], sizes)
            largest = max(math.prod(sizes[c] for c in each) for each in grown)
            assert inside or largest <= round(most * spent * (1 + 1e-6))


@pytest.mark.parametrize("kind", [AIM, MWEM])
def test_only_what_matters_is_a_candidate(make_block: MakeBlock, kind: Any) -> None:
    data, domain = loop()
    method = kind(workload=Workload.of(("a", "c", "e")) + Workload.of(("b",)))
    block = make_block(method, data, domain, mu=2.0)
    model = method.run(block)
    wanted = {c for n in (1, 2, 3) for c in itertools.combinations("ace", n)} | {("b",)}
    assert set().union(*offered(block)) == wanted
    exact = np.zeros((5, 5, 2))
    np.add.at(exact, (data["a"], data["c"], data["e"]), 1)
    assert np.abs(model.marginal(("a", "c", "e")) - exact).sum() / 12000 < 0.1


def test_a_column_that_is_not_there_is_refused_before_it_is_charged(tmp_path: Path) -> None:
    account = dp.Ledger(tmp_path / "ledger.db").account("two", dp.Budget(1.0, 1e-6))
    table = pd.DataFrame({"a": [0, 1], "b": [1, 0]})
    schema = dp.Schema({"a": dp.Integer(0, 1), "b": dp.Integer(0, 1)})
    vault = dp.Vault(table, schema, account, unit=dp.Row(), audit_share=0.0)
    for method in (AIM, MWEM, dp.CliqueTree):
        with pytest.raises(InvalidRequest, match="income") as error:
            method(workload=Workload.about("income")).fit(vault, epsilon=1)
        assert "nothing was spent" in str(error.value)
    assert float(account.remaining()[0]) == 1


def test_a_workload_makes_its_marginals_better(make_block: MakeBlock) -> None:
    """Three dear pairs among many, at little precision: they gain what the others lose."""
    rng = np.random.default_rng(3)
    base = rng.integers(0, 8, 4000)
    data: Data = {
        f"c{i}": np.where(rng.random(4000) < 0.6, base, rng.integers(0, 8, 4000)) for i in range(8)
    }
    domain = Domain.integers(dict.fromkeys(data, 8), ordered=())
    dear = [("c0", "c1"), ("c0", "c2"), ("c1", "c2")]

    def error(method: Any) -> float:
        found = []
        for seed in range(3):
            model = method.run(make_block(method, data, domain, mu=0.5, seed=seed))
            for pair in dear:
                exact = np.zeros((8, 8))
                np.add.at(exact, (data[pair[0]], data[pair[1]]), 1)
                found.append(np.abs(model.marginal(pair) / model.rows - exact / 4000).sum() / 2)
        return float(np.mean(found))

    for kind in (AIM, MWEM, dp.CliqueTree):
        assert error(kind(workload=Workload.of(*dear))) < 0.9 * error(kind())


# -- families ------------------------------------------------------------------------------------


def test_parents_lie_in_one_family_and_no_family_is_too_large(make_block: MakeBlock) -> None:
    data, domain = loop()
    method = PrivBayes(degree=2, most_cells=60)
    block = make_block(method, data, domain, mu=5.0)
    model = method.run(block)
    known: list[set[str]] = [{"a"}]
    for family in chosen(block):
        *parents, new = family
        assert len(parents) <= 2
        assert all(new not in each for each in known)
        assert any(set(parents) <= each for each in known)
        known.append(set(family))
    sizes = {name: int(codes.max()) + 1 for name, codes in model.maps.items()}
    assert all(math.prod(sizes[c] for c in family) <= 60 for family in chosen(block))
    assert set(map(frozenset, model.tree.cliques)) <= set(map(frozenset, chosen(block)))


def test_parents_that_drown_in_noise_are_not_offered(make_block: MakeBlock) -> None:
    data, domain = loop(500)
    for useful, width in ((0.0, 4), (10**6, 1)):
        method = PrivBayes(useful=useful)
        block = make_block(method, data, domain, mu=1.0)
        method.run(block)
        assert max(len(c) for each in offered(block) for c in each) == width


def test_the_score_is_the_distance_from_independence_of_the_parents(
    make_block: MakeBlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two copies as parents tell no more than one: what they tell of each other does not count."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 5000)
    data = {"a": a, "b": a.copy(), "c": rng.integers(0, 3, 5000)}
    domain = Domain.integers(dict.fromkeys("abc", 3))
    method = PrivBayes()
    block = make_block(method, data, domain, mu=20.0)
    told: list[dict[Clique, float]] = []
    choose = type(block.divide.__self__).divide

    def watched() -> Any:
        shared = choose(block)
        plain = shared.choose

        def look(candidates: Any, share: Any, **how: Any) -> Any:
            maps = how["coarse"]
            told.append({c: block.distance(c, m, maps) / 5000 for c, m in candidates.items()})
            return plain(candidates, share, **how)

        shared.choose = look
        return shared

    monkeypatch.setattr(block, "divide", watched)
    method.run(block)
    assert told[0]["a", "b"] == pytest.approx(4 / 3, abs=0.05)
    ((family, far),) = told[1].items()
    assert set(family[:2]) == {"a", "b"}
    assert far < 0.1
