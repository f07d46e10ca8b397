from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import dpsynth as dp
from dpsynth import deep
from dpsynth.deep import MERF, LatentModel
from dpsynth.deep._embedding import Embedding, Features, column_signs, column_vectors
from dpsynth.domain import Domain
from dpsynth.synthesizer import Model, Synthesizer, named
from dpsynth.vault import Measure, Train, Vault, make_plan
from dpsynth.vault._train import Learner, _gradients, clipped_sum, require_separate
from dpsynth_accounting import (
    DiscreteGaussian,
    Gaussian,
    InvalidRequest,
    Repeat,
    SubsampledGaussian,
    least_epsilon,
)
from dpsynth_accounting import Sequence as Composed
from tests.deep.fake_block import FakeBlock

SIZES = {"a": 4, "b": 4, "c": 40, "d": 2}
DOMAIN = Domain.integers(SIZES, ordered=("c",))
DELTA = Fraction(1, 10**5)


def data(rows: int = 4000) -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    a = rng.choice(4, rows, p=[0.5, 0.3, 0.15, 0.05])
    b = (a + (rng.random(rows) < 0.1)) % 4
    return {"a": a, "b": b, "c": 9 * a + rng.integers(0, 5, rows), "d": rng.integers(0, 2, rows)}


def features(sizes: tuple[int, ...] = (3, 2, 3), triples: int = 5, weight: float = 0.3) -> Features:
    shares = [np.arange(1, size + 1) / (size * (size + 1) / 2) for size in sizes]
    return Features(shares, [0] * len(sizes), triples, weight)


def every(sizes: tuple[int, ...]) -> Tensor:
    """Return every record there is."""
    return torch.tensor(list(itertools.product(*map(range, sizes))))


def sums_of(learner: Learner, records: Tensor, units: list[int], clip: float) -> Tensor:
    count = max(units, default=-1) + 1
    found = clipped_sum(learner.module, learner.loss, records, torch.tensor(units), count, clip)
    return torch.cat([each.flatten() for each in found])


# -- the plan ------------------------------------------------------------------------------------


def test_steps_are_declared_and_the_protocols_hold() -> None:
    assert MERF(one_way=0.2).steps("abc") == (Measure(3, 0.2), Train(1.0, 1, 0.8))
    assert MERF().steps("a") == (Measure(1, 1.0),)
    assert isinstance(named("merf", {"iterations": 7}), Synthesizer)
    with pytest.raises(InvalidRequest):
        MERF().steps("")


@pytest.mark.parametrize("epsilon", [1, 8])
def test_its_price_is_that_of_gaussian_answers(epsilon: int) -> None:
    """One draw of everybody is no sampling: a plain Gaussian has the same curve."""
    plan = make_plan(MERF().steps("abcd"), dp.Row(), Fraction(epsilon), DELTA)
    ones, one = plan.events
    assert isinstance(one, SubsampledGaussian)
    assert (one.rate, one.steps, one.group) == (1, 1, 1)
    assert isinstance(ones, Repeat)
    assert isinstance(ones.event, DiscreteGaussian)
    plain = Gaussian(one.sigma)
    exact = float(least_epsilon(plain, DELTA))
    assert exact * 0.9999 <= float(least_epsilon(one, DELTA)) < exact * 1.01
    whole = float(least_epsilon(Composed((ones, plain)), DELTA))
    assert whole * 0.9999 <= float(least_epsilon(Composed((ones, one)), DELTA)) < whole * 1.01
    assert whole > 0.97 * epsilon  # the twin: with a tenth less noise, the same is refused
    less = Composed((ones, Gaussian(one.sigma * Fraction(9, 10))))
    assert float(least_epsilon(less, DELTA)) > epsilon


# -- the features: norm 1, by brute force ----------------------------------------------------------


@pytest.mark.parametrize("sizes", [(2, 2), (3, 2, 3), (1, 4, 2), (2, 3, 2, 2)])
@pytest.mark.parametrize("triples", [0, 1, 7])
def test_the_features_of_every_record_have_norm_one(sizes: tuple[int, ...], triples: int) -> None:
    learner = Embedding(features(sizes, triples))
    for record in every(sizes).split(1):
        norm = float(sums_of(learner, record, [0], 1e6).norm())  # with a clip that does nothing
        assert norm == pytest.approx(1.0, abs=1e-12)


def test_features_that_are_not_normalised_are_seen_to_exceed_the_bound() -> None:
    """The twin of the test above, and what clipping does with it."""
    learner = Embedding(features())
    learner.module.features.of_pairs = 1.0  # type: ignore[union-attr]
    record = every((3, 2, 3))[:1]
    assert float(sums_of(learner, record, [0], 1e6).norm()) > 1.5
    assert float(sums_of(learner, record, [0], 1.0).norm()) <= 1.0


def test_one_unit_moves_the_sum_by_at_most_its_rows() -> None:
    """Over all tables of three rows beside one more unit of one or two rows."""
    records = every((3, 2, 3))
    learner = Embedding(features())
    rng = np.random.default_rng(0)
    for k in (1, 2):
        for _ in range(40):
            rest = records[rng.integers(0, len(records), 3)]
            mine = records[rng.integers(0, len(records), k)]
            without = sums_of(learner, rest, [0, 1, 2], float(k))
            with_ = sums_of(learner, torch.cat([rest, mine]), [0, 1, 2] + [3] * k, float(k))
            assert float((with_ - without).norm()) <= k
    same = torch.cat([rest, records[:1], records[:1]])
    alone = sums_of(learner, rest, [0, 1, 2], 1.0)
    # Clipped once for the unit; as two units its rows would move the sum by 2.
    assert float((sums_of(learner, same, [0, 1, 2, 3, 3], 1.0) - alone).norm()) <= 1
    assert float((sums_of(learner, same, [0, 1, 2, 3, 4], 1.0) - alone).norm()) > 1.9


def test_its_sum_is_that_of_the_features_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against products written out, column by column, pair by pair."""
    monkeypatch.setattr(_gradients, "_general", None)  # the slow way is not there
    sizes = (3, 2, 3)
    mine, records = features(sizes, 5, 0.3), every(sizes)
    learner = Embedding(mine)
    require_separate(learner.module, learner.loss, records)
    found = sums_of(learner, records, list(range(len(records))), 1.0).numpy()
    shares = [np.arange(1, size + 1) / (size * (size + 1) / 2) for size in sizes]
    vectors = [column_vectors(share, 0) for share in shares]
    slow = np.zeros((8, 8))
    starts = [0, 3, 5]
    for record in records.tolist():
        for i, j in itertools.combinations(range(3), 2):
            block = np.outer(vectors[i][record[i]], vectors[j][record[j]])
            rows, columns = block.shape
            slow[starts[i] : starts[i] + rows, starts[j] : starts[j] + columns] += block
    slow *= (0.7 / 3) ** 0.5
    assert np.allclose(found[:64].reshape(8, 8), slow, atol=2e-5 * len(records))
    tables = [mine.table(i).numpy()[:, width:] for i, width in enumerate(mine.widths)]
    products = sum(
        np.prod([table[code] for table, code in zip(tables, record, strict=True)], axis=0)
        for record in records.tolist()
    )
    assert np.allclose(found[64:], products * (0.3 / 5) ** 0.5, atol=2e-5 * len(records))


def test_what_is_expected_of_shares_is_the_mean_over_records() -> None:
    sizes = (3, 2, 3)
    mine = features(sizes)
    rng = np.random.default_rng(0)
    shares = [torch.from_numpy(rng.dirichlet(np.ones(size))) for size in sizes]
    records = every(sizes)
    weights = torch.stack([s[c] for s, c in zip(shares, records.unbind(1), strict=True)]).prod(0)
    vectors, products = mine.of_records(records)
    means, signs = mine.of_shares([share.unsqueeze(0) for share in shares])
    assert torch.allclose((weights[:, None] * products).sum(0), signs[0])
    pairs = torch.einsum("r,ri,rj->ij", weights, vectors, vectors)
    assert torch.allclose(pairs * mine.mask, torch.outer(means[0], means[0]) * mine.mask)


def test_signs_halve_a_column_and_parts_share_a_vector() -> None:
    share = np.full(100, 0.01)
    signs = column_signs(share, 100, 20, np.random.default_rng(0))
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert (abs(share @ signs) < 0.03).all()
    assert (np.count_nonzero(np.diff(signs, axis=0), axis=0) <= 2).all()
    vectors = column_vectors(share, 100)
    assert vectors.shape == (100, 32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)


# -- the fit ---------------------------------------------------------------------------------------


def test_a_fit_learns_a_strong_dependence() -> None:
    method = MERF(iterations=400, hidden=48, triples=20)
    block = FakeBlock(DOMAIN, data(), method)
    found = method.run(block)  # type: ignore[arg-type]
    assert isinstance(found, Model)
    assert block.asked == ["4 marginals", "training"]
    drawn = found.sample_codes(20_000, rng=np.random.default_rng(0))
    assert (drawn["b"] == drawn["a"]).mean() > 0.7  # independent: 0.35
    assert (abs(drawn["c"] - 9 * drawn["a"] - 2) <= 3).mean() > 0.7
    shares = np.bincount(drawn["a"], minlength=4) / 20_000
    assert abs(shares - [0.5, 0.3, 0.15, 0.05]).sum() < 0.15


def test_a_fit_learns_a_parity_that_no_pair_shows() -> None:
    rng = np.random.default_rng(0)
    table = {name: rng.integers(0, 2, 4000) for name in "abcd"}
    table["c"] = (table["a"] + table["d"]) % 2
    domain = Domain.integers(dict.fromkeys("abcd", 2))

    def right(triples: int) -> float:
        method = MERF(iterations=600, hidden=64, triples=triples)
        found = method.run(FakeBlock(domain, table, method))  # type: ignore[arg-type]
        drawn = found.sample_codes(10_000, rng=np.random.default_rng(0))
        return float((drawn["c"] == (drawn["a"] + drawn["d"]) % 2).mean())

    assert right(triples=4) > 0.7
    assert right(triples=0) < 0.6


def test_rows_reach_the_model_through_the_answers_alone() -> None:
    """Two tables with equal answers give equal models; with others, others."""

    class Replayed(FakeBlock):
        def train(self, learner: Learner, *, clip: float, rows: float) -> None:
            rng = np.random.default_rng(rows_seed)
            learner.update(
                [
                    torch.from_numpy(rng.normal(0, 0.01, p.shape))
                    for p in learner.module.parameters()
                ]
            )

        def measure(self, cliques: Any) -> Any:
            self.data = data()
            return super().measure(cliques)

    def weights(table: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        torch.manual_seed(len(table["a"]))  # nor does torch's own generator matter
        method = MERF(iterations=5, triples=9)
        found = method.run(Replayed(DOMAIN, table, method))  # type: ignore[arg-type]
        return found.arrays["outer"]

    rows_seed = 1
    first = weights(data())
    other = {name: values[::-1][:50] for name, values in data().items()}
    assert np.array_equal(first, weights(other))
    rows_seed = 2
    assert not np.array_equal(first, weights(data()))


def test_a_resumed_fit_takes_what_was_stored() -> None:
    learner, again = Embedding(features()), Embedding(features())
    learner.update([torch.rand(8, 8).double(), torch.rand(1, 5).double()])
    again.load(learner.state())
    assert torch.equal(learner.pairs, again.pairs)
    assert torch.equal(learner.triples, again.triples)


@pytest.mark.parametrize("unit", [dp.Row(), dp.Person("p", rows=3)])
def test_a_fit_to_a_vault_makes_a_model_that_comes_back(
    unit: dp.Row | dp.Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    train: Callable[..., None] = dp.vault.Block.train

    def noted(block: Any, learner: Learner, *, clip: float, rows: float) -> None:
        asked.append(clip)
        train(block, learner, clip=clip, rows=rows)

    monkeypatch.setattr(dp.vault.Block, "train", noted)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"a": rng.choice(["x", "y"], 600), "b": rng.integers(0, 5, 600), "p": range(600)}
    )
    columns: dict[str, Any] = {"a": dp.Categorical(("x", "y")), "b": dp.Integer(0, 4)}
    schema = dp.Schema(columns | {"p": dp.Key() if isinstance(unit, dp.Person) else dp.Drop()})
    account = dp.Ledger(tmp_path / "ledger.db").account("t", dp.Budget(6.0, 1e-6))
    vault: Vault = dp.Vault(table, schema, account, unit=unit, audit_share=0.0)
    found = named("merf", {"iterations": 20}).fit(vault, epsilon=4)
    assert asked == [float(unit.rows)]
    assert isinstance(found, LatentModel)
    found.save(tmp_path / "model.safetensors")
    again = deep.load(tmp_path / "model.safetensors")
    drawn = [each.sample(50, rng=np.random.default_rng(0)) for each in (found, again)]
    assert drawn[0].equals(drawn[1])


def test_one_column_needs_no_training() -> None:
    domain = Domain.integers({"a": 4})
    method = MERF()
    block = FakeBlock(domain, {"a": data()["a"]}, method)
    drawn = method.run(block).sample_codes(5000, rng=np.random.default_rng(0))  # type: ignore[arg-type]
    assert block.asked == ["1 marginals"]
    assert abs(np.bincount(drawn["a"], minlength=4) / 5000 - [0.5, 0.3, 0.15, 0.05]).sum() < 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {"one_way": 0.0},
        {"triples": -1},
        {"triples_weight": 1.0},
        {"latent": 0},
        {"hidden": 0},
        {"iterations": 0},
        {"batch": 1},
        {"learning_rate": float("inf")},
    ],
)
def test_impossible_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        MERF(**wrong)
