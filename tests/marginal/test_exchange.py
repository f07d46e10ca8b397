"""Exchanges between rows: what they keep, what they bring nearer, and what they cost at most."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dpsynth.domain import Clique
from dpsynth.marginal import exchange
from dpsynth.marginal.elimination import joint
from dpsynth.marginal.exchange import exchanged, moves_of
from dpsynth.marginal.factor import Factor
from dpsynth.marginal.junction import JunctionTree
from dpsynth.marginal.sampling import sample_codes

COARSE = {"a": 5, "b": 3, "c": 4, "d": 6, "e": 2}
CLIQUES = [("a", "b"), ("b", "c", "d"), ("d", "e")]
Codes = dict[str, np.ndarray]


class Case:
    """A model of three cliques, two of its columns with finer codes, and rows drawn from it."""

    def __init__(self, n: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.tree = JunctionTree.build(CLIQUES, COARSE)
        cells = rng.gamma(0.5, size=tuple(COARSE.values()))
        # Of the exponential family of the tree: a product of one table a clique.
        names = list(COARSE)
        whole = np.ones_like(cells)
        for clique in CLIQUES:
            away = tuple(i for i, name in enumerate(names) if name not in clique)
            whole = whole * cells.sum(axis=away, keepdims=True)
        whole /= whole.sum()
        self.tables = tuple(Factor(tuple(names), whole).project(c) for c in self.tree.cliques)
        self.maps: Codes = {name: np.arange(size) for name, size in COARSE.items()}
        self.maps["a"] = np.repeat(np.arange(5), [1, 4, 2, 3, 5])
        self.maps["d"] = np.repeat(np.arange(6), 3)
        self.shares = {}
        for name, codes in self.maps.items():
            parts = rng.random(codes.size) + 0.1
            self.shares[name] = parts / np.bincount(codes, weights=parts)[codes]
        self.rows = sample_codes(self.tree, self.tables, self.maps, self.shares, n, rng=rng)

    def expected(self, pair: Clique) -> np.ndarray:
        coarse = joint(self.tree, self.tables, pair).values
        fine = coarse[np.ix_(*(self.maps[name] for name in pair))]
        return fine * np.multiply.outer(*(self.shares[name] for name in pair))

    def exchanged(self, seed: int = 1) -> Codes:
        rng = np.random.default_rng(seed)
        return exchanged(self.rows, self.tree, self.maps, self.expected, rng=rng)

    def coarse(self, rows: Codes, clique: Clique) -> np.ndarray:
        shape = [COARSE[name] for name in clique]
        cell = np.ravel_multi_index([self.maps[name][rows[name]] for name in clique], shape)
        return np.bincount(cell, minlength=int(np.prod(shape)))

    def off(self, rows: Codes) -> float:
        """The L1 distance of all pairs of columns together, in rows."""
        total = 0.0
        for pair in itertools.combinations(COARSE, 2):
            want = self.expected(pair).ravel()
            width = self.maps[pair[1]].size
            got = np.bincount(rows[pair[0]] * width + rows[pair[1]], minlength=want.size)
            total += float(np.abs(got - want * got.sum()).sum())
        return total


def test_cliques_and_single_columns_stay_and_pairs_come_nearer() -> None:
    case = Case(4000)
    found = case.exchanged()
    for clique in case.tree.cliques:
        np.testing.assert_array_equal(case.coarse(found, clique), case.coarse(case.rows, clique))
    for name, column in case.rows.items():
        assert found[name].dtype == np.int32
        size = case.maps[name].size
        np.testing.assert_array_equal(
            np.bincount(found[name], minlength=size), np.bincount(column, minlength=size)
        )
    assert case.off(found) < 0.75 * case.off(case.rows)


def test_equal_generators_give_equal_rows_and_the_rows_given_stay() -> None:
    case = Case(500)
    before = {name: column.copy() for name, column in case.rows.items()}
    one, two, other = case.exchanged(1), case.exchanged(1), case.exchanged(2)
    assert all((one[name] == two[name]).all() for name in COARSE)
    assert any((one[name] != other[name]).any() for name in COARSE)
    assert all((before[name] == case.rows[name]).all() for name in COARSE)


@pytest.mark.parametrize("seed", range(5))
def test_one_exchange_at_a_time_always_gains_more_than_a_row(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gain that is worked out is the change of the distance, counted anew."""
    case = Case(60, seed)
    monkeypatch.setattr(exchange, "_PARTS", 1 << 30)
    monkeypatch.setattr(exchange, "_LEAST", 1)
    seen: list[tuple[float, int]] = []
    whole = np.bincount

    def counted(rows: Codes) -> None:
        moved = sum(int((rows[name] != case.rows[name]).sum()) for name in COARSE)
        seen.append((case.off(rows), moved))

    sweep = exchange._sweep

    def watched(rows: Codes, move: exchange.Move, maps: Codes, excess: object, rng: object) -> None:
        sweep(rows, move, maps, excess, rng)  # type: ignore[arg-type]
        counted(rows)
        for pair, table in excess.items():  # type: ignore[attr-defined]
            got = whole(rows[pair[0]] * maps[pair[1]].size + rows[pair[1]], minlength=table.size)
            want = case.expected(pair).ravel()
            np.testing.assert_allclose(table, got - want * (60 / want.sum()), atol=1e-9)

    monkeypatch.setattr(exchange, "_sweep", watched)
    case.exchanged(seed)
    distances = [case.off(case.rows), *(far for far, _ in seen)]
    assert all(after <= before for before, after in itertools.pairwise(distances))
    assert distances[-1] < distances[0] - 1
    assert seen[-1][1] > 0


def test_rows_that_nobody_could_be_do_not_come_up() -> None:
    case = Case(40)
    zero = case.coarse(case.rows, ("b", "c", "d")) == 0
    assert zero.any()
    assert (case.coarse(case.exchanged(), ("b", "c", "d"))[zero] == 0).all()


def test_moves_split_the_columns_at_each_edge_and_free_each_fine_code() -> None:
    case = Case(0)
    moves = moves_of(case.tree, case.maps)
    assert len(moves) == len(case.tree.edges) + 2
    for move in moves:
        assert move.inside
        assert not set(move.inside) & set(move.outside)
        assert set(move.alike) | set(move.inside) | set(move.outside) == set(COARSE)
        for clique in case.tree.cliques:
            held = set(clique) - set(move.alike)
            assert (
                len(move.alike) == len(move.inside)
                or held <= set(move.inside)
                or not (held & set(move.inside))
            )


def test_a_move_that_splits_a_clique_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: rows that need not be alike in the separator."""
    case = Case(4000)
    honest = moves_of(case.tree, case.maps)
    loose = [exchange.Move((), move.inside, move.outside) for move in honest]
    monkeypatch.setattr(exchange, "moves_of", lambda *_: loose)
    found = case.exchanged()
    same = [
        (case.coarse(found, clique) == case.coarse(case.rows, clique)).all()
        for clique in case.tree.cliques
    ]
    assert not all(same)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_rows(n: int) -> None:
    assert all(column.size == n for column in Case(n).exchanged().values())


def test_no_more_work_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(1000)
    # A pair that one move crosses takes one more.
    monkeypatch.setattr(exchange, "MOST_LOOKUPS", 2000 + exchange._OVERHEAD - 1)
    found = case.exchanged()
    assert all((found[name] == case.rows[name]).all() for name in COARSE)


def test_pairs_that_the_model_cannot_answer_are_left_as_they_are() -> None:
    case = Case(1000)

    def refused(pair: Clique) -> np.ndarray:
        raise exchange.InvalidRequest("asked", "limit", "instead")

    found = exchanged(case.rows, case.tree, case.maps, refused, rng=np.random.default_rng(0))
    assert all((found[name] == case.rows[name]).all() for name in COARSE)
