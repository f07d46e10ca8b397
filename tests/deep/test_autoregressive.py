from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import dpsynth as dp
from dpsynth.deep import Autoregressive, AutoregressiveModel
from dpsynth.deep._adam import Adam
from dpsynth.deep._layout import Layout, coarse_codes, layout_of, ordered_columns
from dpsynth.deep._network import Network
from dpsynth.deep._one_way import smoothed
from dpsynth.domain import Domain
from dpsynth.synthesizer import Model, Synthesizer
from dpsynth.vault._train import Learner, clipped_sum, require_separate
from dpsynth.vault._train import _gradients as gradients
from dpsynth_accounting import BudgetExceeded, InvalidRequest
from tests.deep.fake_block import FakeBlock, FakePlan

TINY = {"b": 3, "a": 2, "d": 4, "c": 2}
WIDE = {"e": 70, "b": 3, "a": 2, "d": 66, "c": 5}


def maps_of(sizes: dict[str, int]) -> list[NDArray[np.int64]]:
    """In the order of the chain: codes of columns of 4 or more are read in pairs."""
    order = ordered_columns(Domain.integers(sizes))
    return [np.arange(sizes[name]) // (2 if sizes[name] >= 4 else 1) for name in order]


def random_network(sizes: dict[str, int], hidden: int, seed: int = 0) -> Network:
    """A network whose weights are all random, masked ones too."""
    domain = Domain.integers(sizes)
    order = ordered_columns(domain)
    maps = maps_of(sizes)
    layout = layout_of(maps, hidden)
    shares = [np.log(np.full(size, 1 / size)) for size in layout.sizes]
    network = Network(layout, [domain.names.index(name) for name in order], shares, maps)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for each in network.parameters():
            each.copy_(torch.from_numpy(rng.normal(0, 1, tuple(each.shape))))
    return network


def model_of(network: Network, sizes: dict[str, int]) -> AutoregressiveModel:
    domain = Domain.integers(sizes)
    arrays = network.arrays({p: p for p in network.parameters()})
    shares = {name: np.full(size, 1 / size) for name, size in sizes.items()}
    order = ordered_columns(domain)
    maps = dict(zip(order, maps_of(sizes), strict=True))
    return AutoregressiveModel(domain, 100.0, shares, order, network.layout.hidden, maps, arrays)


def random_model(sizes: dict[str, int], hidden: int, seed: int = 0) -> AutoregressiveModel:
    return model_of(random_network(sizes, hidden, seed), sizes)


def every(sizes: dict[str, int]) -> NDArray[np.int64]:
    """Every record there can be, int64 (records, columns)."""
    return np.array(list(itertools.product(*(range(size) for size in sizes.values()))))


def frame_of(records: NDArray[np.int64], sizes: dict[str, int]) -> pd.DataFrame:
    return pd.DataFrame(records.astype(str), columns=list(sizes))


def probabilities(model: AutoregressiveModel, sizes: dict[str, int]) -> NDArray[np.float64]:
    return np.exp(model.log_probability(frame_of(every(sizes), sizes)))


# -- the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 1, 2, 16])
def test_probabilities_sum_to_one_and_both_sides_agree(hidden: int) -> None:
    network = random_network(TINY, hidden)
    with torch.no_grad():
        found = network(torch.from_numpy(every(TINY))).numpy()
    assert np.exp(-found.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    other = model_of(network, TINY).log_probability(frame_of(every(TINY), TINY))
    np.testing.assert_allclose(-found, other, atol=1e-4)


@pytest.mark.parametrize("hidden", [0, 7])
def test_network_and_model_agree_over_several_layers(hidden: int) -> None:
    network = random_network(WIDE, hidden)
    assert len(network.layout.groups) > 1
    rng = np.random.default_rng(1)
    records = np.column_stack([rng.integers(0, size, 50) for size in WIDE.values()])
    with torch.no_grad():
        found = network(torch.from_numpy(records)).numpy()
    other = model_of(network, WIDE).log_probability(frame_of(records, WIDE))
    np.testing.assert_allclose(-found, other, rtol=1e-5)


@pytest.mark.parametrize("sizes", [TINY, WIDE])
def test_logits_of_a_column_see_only_columns_before_it(sizes: dict[str, int]) -> None:
    network = random_network(sizes, 9)
    layout = network.layout
    seen: list[torch.Tensor] = []

    def logits(codes: NDArray[np.int64]) -> list[torch.Tensor]:
        """Of each column in order, from the split before the cross-entropies."""
        seen.clear()
        plain = torch.nn.functional.cross_entropy

        def spy(part: torch.Tensor, code: torch.Tensor, **named: Any) -> torch.Tensor:
            seen.append(part.clone())
            return plain(part, code, **named)

        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr("dpsynth.deep._network.functional.cross_entropy", spy)
            records = np.empty_like(codes)
            records[:, network.places.numpy()] = codes
            network(torch.from_numpy(records))
        return list(seen)

    rng = np.random.default_rng(0)
    codes = np.column_stack([rng.integers(0, size, 30) for size in layout.sizes])
    before = logits(codes)
    for place, size in enumerate(layout.sizes):
        changed = codes.copy()
        changed[:, place] = (changed[:, place] + 2) % size if size > 2 else 1 - changed[:, place]
        after = logits(changed)
        moved = [not torch.equal(x, y) for x, y in zip(before, after, strict=True)]
        assert moved == [other > place for other in range(len(layout.sizes))]


def test_layout_holds_no_more_than_a_chain_needs() -> None:
    layout = Layout((2, 3, 70, 80), (2, 3, 35, 80), 6)
    assert [(g.start, g.stop) for g in layout.groups] == [(0, 3), (3, 4)]
    assert layout.starts == (0, 2, 5, 75, 155)
    assert layout.reads == (0, 2, 5, 40, 120)
    assert layout.degrees.tolist() == [1, 1, 2, 2, 3, 3]
    assert [layout.units(place) for place in range(4)] == [0, 2, 4, 6]
    assert layout.shapes == {
        "head_0": (1 + 5, 75),
        "head_1": (1 + 40, 80),
        "inner": (40, 6),
        "inner_bias": (6,),
        "outer_0": (75, 4),
        "outer_1": (80, 6),
    }


def test_many_ordered_codes_are_read_in_parts_of_like_weight() -> None:
    few = np.full(64, 1 / 64)
    assert coarse_codes(few, 64).tolist() == list(range(64))
    many = np.full(300, 1 / 300)
    assert coarse_codes(many, 0).tolist() == list(range(300))  # names
    shares = np.concatenate([[0.5], np.full(400, 0.45 / 400), [0.02, 0.03]])
    found = coarse_codes(shares, 401)  # zero, amounts, and two codes without order
    assert found[0] == 0
    assert (found[1:401] > 0).all()
    assert (np.diff(found) >= 0).all()
    assert np.unique(found).tolist() == list(range(found[-1] + 1))
    assert found[-1] < 66
    assert len({*found[-2:], found[400]}) == 3
    assert np.bincount(found, weights=shares)[1:-2].max() < 0.02


def test_columns_are_ordered_by_size_and_then_as_they_come() -> None:
    assert ordered_columns(Domain.integers({"z": 2, "a": 9, "b": 2})) == ("z", "b", "a")


def test_network_begins_as_independent_columns_whatever_the_global_seed() -> None:
    maps = maps_of(TINY)
    layout = layout_of(maps, 4)
    shares = [np.arange(1.0, size + 1) / sum(range(size + 1)) for size in layout.sizes]
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        logs = [np.log(each) for each in shares]
        made.append(Network(layout, [1, 3, 0, 2], logs, maps))
    for x, y in zip(made[0].parameters(), made[1].parameters(), strict=True):
        assert torch.equal(x, y)
    model = model_of(made[0], TINY)
    wanted = [
        math.prod(s[r[p]] for s, p in zip(shares, [1, 3, 0, 2], strict=True)) for r in every(TINY)
    ]
    np.testing.assert_allclose(probabilities(model, TINY), wanted, rtol=1e-5)


# -- private training ------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 5])
def test_clipping_takes_the_closed_path(hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(WIDE, hidden)
    learner: Learner = Adam(network, learning_rate=0.01, iterations=10, average=0.9)
    rng = np.random.default_rng(0)
    records = torch.from_numpy(
        np.column_stack([rng.integers(0, size, 12) for size in WIDE.values()])
    )
    require_separate(network, learner.loss, records)

    def slow(*_: object, **__: object) -> None:
        pytest.fail("it took the slow way")

    with monkeypatch.context() as patch:
        patch.setattr(gradients._general, "per_record", slow)
        found = clipped_sum(network, learner.loss, records, torch.arange(12) // 2, 6, 1.0)
    wanted = [torch.zeros_like(p) for p in network.parameters()]
    for unit in range(6):
        whole = learner.loss(network, records[2 * unit : 2 * unit + 2]).sum()
        own = torch.autograd.grad(whole, list(network.parameters()))
        factor = min(1.0, 1 / math.sqrt(sum(float(each.square().sum()) for each in own)))
        wanted = [total + factor * each for total, each in zip(wanted, own, strict=True)]
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x.float(), y, rtol=1e-4, atol=1e-5)


def trained(learner: Adam, steps: int, rng: np.random.Generator) -> None:
    for _ in range(steps):
        learner.update(
            [
                torch.from_numpy(rng.normal(0, 1, tuple(p.shape))).float()
                for p in learner.module.parameters()
            ]
        )


def test_a_learner_goes_on_from_its_state_bit_for_bit() -> None:
    first, again = (
        Adam(random_network(TINY, 3, seed), learning_rate=0.01, iterations=9, average=0.9)
        for seed in (0, 1)
    )
    rng = np.random.default_rng(0)
    trained(first, 4, rng)
    state = first.state()
    kept = {name: each.clone() for name, each in state.items()}
    at = json.dumps(rng.bit_generator.state)
    trained(first, 5, rng)
    for name, each in state.items():
        assert torch.equal(each, kept[name])  # a state is a copy
    again.load(state)
    rng.bit_generator.state = json.loads(at)
    trained(again, 5, rng)
    for x, y in zip(first.state().values(), again.state().values(), strict=True):
        assert torch.equal(x, y)
    for x, y in zip(first.averaged().values(), again.averaged().values(), strict=True):
        assert torch.equal(x, y)


def test_adam_is_torchs_own_at_a_constant_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpsynth.deep._adam._LAST", 1.0)
    network, twin = random_network(TINY, 3), random_network(TINY, 3)
    learner = Adam(network, learning_rate=0.01, iterations=5, average=0.0)
    other = torch.optim.Adam(twin.parameters(), lr=0.01)
    trained(learner, 5, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    for _ in range(5):
        for p in twin.parameters():
            p.grad = torch.from_numpy(rng.normal(0, 1, tuple(p.shape))).float()
        other.step()
    for x, y in zip(learner.averaged().values(), twin.parameters(), strict=True):
        torch.testing.assert_close(x, y.detach())


def test_average_is_corrected_for_its_start() -> None:
    learner = Adam(random_network(TINY, 0), learning_rate=0.01, iterations=5, average=0.99)
    start = learner.averaged()
    assert all(torch.equal(p, each) for p, each in start.items())
    trained(learner, 1, np.random.default_rng(0))
    for p, each in learner.averaged().items():
        torch.testing.assert_close(each, p.detach())


# -- the model -------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 6])
def test_samples_are_as_frequent_as_they_are_probable(hidden: int) -> None:
    model = random_model(TINY, hidden)
    n = 200_000
    codes = model.sample_codes(n, rng=np.random.default_rng(0))
    assert list(codes) == list(TINY)
    assert all(part.dtype == np.int32 and part.shape == (n,) for part in codes.values())
    places = np.ravel_multi_index(list(codes.values()), tuple(TINY.values()))
    found = np.bincount(places, minlength=math.prod(TINY.values())) / n
    wanted = probabilities(model, TINY)
    assert (np.abs(found - wanted) < 5 * np.sqrt(wanted / n) + 5 / n).all()


@pytest.mark.parametrize(
    "given", [{"a": "1"}, {"a": "0", "c": "1"}, {"d": "2"}, {"b": "1", "d": "0"}]
)
def test_given_values_condition_what_is_drawn(given: dict[str, str]) -> None:
    model = random_model(TINY, 6)
    records, wanted = every(TINY), probabilities(model, TINY)
    names = list(TINY)
    for name, value in given.items():
        wanted = np.where(records[:, names.index(name)] == int(value), wanted, 0)
    wanted /= wanted.sum()
    n = 60_000
    drawn = model.sample(n, rng=np.random.default_rng(0), given=given)
    assert all((drawn[name].astype(str) == value).all() for name, value in given.items())
    places = np.ravel_multi_index([drawn[name].astype(int) for name in names], tuple(TINY.values()))
    found = np.bincount(places, minlength=len(wanted)) / n
    assert np.abs(found - wanted).sum() / 2 < 0.01


def test_few_rows_with_given_values_are_not_the_first_ones_proposed() -> None:
    model = random_model(TINY, 0, seed=3)
    rng = np.random.default_rng(0)
    ones = [int(model.sample_codes(1, rng=rng, given={"d": "0"})["b"][0]) for _ in range(300)]
    records, wanted = every(TINY), probabilities(model, TINY)
    wanted = np.where(records[:, 2] == 0, wanted, 0)
    shares = np.bincount(records[:, 0], weights=wanted / wanted.sum())
    assert np.abs(np.bincount(ones, minlength=3) / 300 - shares).max() < 0.12


def test_sampling_follows_from_its_generator_alone() -> None:
    model = random_model(WIDE, 4)
    once, again = (model.sample(500, rng=np.random.default_rng(7)) for _ in range(2))
    pd.testing.assert_frame_equal(once, again)
    assert not once.equals(model.sample(500, rng=np.random.default_rng(8)))
    assert len(model.sample(rng=np.random.default_rng(0))) == 100
    assert len(model.sample(0, rng=np.random.default_rng(0), given={"d": "0"})) == 0


def test_batches_do_not_change_what_probabilities_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(TINY, 4)
    frame = frame_of(np.repeat(every(TINY), 4, 0), TINY)
    whole = model.log_probability(frame)
    monkeypatch.setattr("dpsynth.deep._chain._CELLS", 1)
    np.testing.assert_allclose(model.log_probability(frame), whole, rtol=1e-6)
    assert len(model.sample(1000, rng=np.random.default_rng(0), given={"d": "1"})) == 1000


def test_impossible_requests_of_a_model_are_refused() -> None:
    model = random_model(TINY, 0)
    rng = np.random.default_rng(0)
    with pytest.raises(InvalidRequest, match="0 rows or more"):
        model.sample_codes(-1, rng=rng)
    for given in ({"a": "7"}, {"nobody": "1"}):
        with pytest.raises(InvalidRequest, match="modelled column"):
            model.sample(5, rng=rng, given=given)


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 4])
def test_a_model_comes_back_from_its_file(hidden: int, tmp_path: Path) -> None:
    model = random_model(WIDE, hidden)
    model.save(tmp_path / "model")
    again = AutoregressiveModel.load(tmp_path / "model")
    again.save(tmp_path / "again")
    assert (tmp_path / "model").read_bytes() == (tmp_path / "again").read_bytes()
    assert (again.rows, again.order, again.hidden) == (model.rows, model.order, model.hidden)
    pd.testing.assert_frame_equal(
        model.sample(50, rng=np.random.default_rng(0)),
        again.sample(50, rng=np.random.default_rng(0)),
    )


def _rewritten(path: Path, change: dict[str, Any], arrays: dict[str, Any]) -> None:
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["header"])
    for name, each in arrays.items():
        tensors.pop(name, None)
        if each is not None:
            tensors[name] = each
    save_file(tensors, path, metadata={"header": json.dumps(header | change)})


@pytest.mark.parametrize(
    ("change", "arrays", "limit"),
    [
        ({"format": "another"}, {}, "not a model of this kind"),
        ({"format_version": 2}, {}, "format version 1 only"),
        ({"format_version": True}, {}, "format version 1 only"),
        ({"hidden": 5}, {}, "do not fit"),
        ({"hidden": -1}, {}, "do not fit"),
        ({"hidden": 10**12}, {}, "do not fit"),
        ({"rows": math.inf}, {}, "do not fit"),
        ({"rows": "many"}, {}, "do not fit"),
        ({"order": ["a", "b", "c", "c"]}, {}, "do not fit"),
        ({"order": ["a", "b", "d", "c"]}, {}, "do not fit"),
        ({"more": 1}, {}, "do not fit"),
        ({}, {"rows_of_people": np.zeros(3)}, "do not fit"),
        ({}, {"head_0": None}, "do not fit"),
        ({}, {"head_0": np.zeros((3, 3), np.float32)}, "do not fit"),
        ({}, {"share_0": np.array([-1.0, 2.0])}, "do not fit"),
        ({}, {"map_0": np.array([0, 2])}, "do not fit"),
        ({}, {"map_0": np.array([-1, 0])}, "do not fit"),
        ({}, {"map_0": np.array([0, 0])}, "do not fit"),
        ({}, {"map_0": np.array([0, 10**12])}, "do not fit"),
        ({}, {"map_0": np.array([0, 1, 2])}, "do not fit"),
        ({}, {"map_0": np.array([0.0, 1.0])}, "do not fit"),
        ({}, {"share_0": np.array([np.nan, 1.0])}, "do not fit"),
        ({}, {"share_0": np.array([0.5, 0.5], np.float32)}, "do not fit"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    change: dict[str, Any], arrays: dict[str, Any], limit: str, tmp_path: Path
) -> None:
    random_model(TINY, 4).save(tmp_path / "model")
    _rewritten(tmp_path / "model", change, arrays)
    with pytest.raises(InvalidRequest, match=limit):
        AutoregressiveModel.load(tmp_path / "model")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in (b"", b"{}", b"\x80\x04K\x01.", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(InvalidRequest, match="not a model"):
            AutoregressiveModel.load(path)
    save_file({"x": np.zeros(2)}, path)
    with pytest.raises(InvalidRequest, match="not a model"):
        AutoregressiveModel.load(path)


# -- the recipe ------------------------------------------------------------------------------------


def dependent(n: int = 3000) -> tuple[dict[str, NDArray[np.int64]], Domain]:
    """A column, a noisy copy of it, and the exclusive or of two bits, one of them the copy's."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 6, n)
    b = np.where(rng.random(n) < 0.9, a, rng.integers(0, 6, n))
    c = rng.integers(0, 2, n)
    data = {"b": b, "a": a, "c": c, "x": c ^ (a & 1)}
    return data, Domain.integers({"b": 6, "a": 6, "c": 2, "x": 2})


@pytest.mark.parametrize("hidden", [0, 32])
def test_a_fit_learns_a_strong_dependence(hidden: int) -> None:
    data, domain = dependent()
    method = Autoregressive(hidden=hidden, iterations=300, rate=0.1, learning_rate=0.03)
    block: Any = FakeBlock(domain, data, method)
    model = method.run(block)
    assert block.asked == ["4 marginals", "training"]
    assert isinstance(model, Model)
    assert model.rows == pytest.approx(3000)
    assert model.order == ("c", "x", "b", "a")
    codes = model.sample_codes(5000, rng=np.random.default_rng(0))
    found = np.histogram2d(codes["a"], codes["b"], bins=(range(7), range(7)))[0] / 5000
    truth = np.histogram2d(data["a"], data["b"], bins=(range(7), range(7)))[0] / 3000
    assert np.abs(found - truth).sum() / 2 < 0.1
    if hidden:  # a log-linear conditional of one bit cannot be an exclusive or
        assert ((codes["c"] ^ (codes["a"] & 1)) == codes["x"]).mean() > 0.9


def test_noise_on_gradients_is_survived() -> None:
    data, domain = dependent()
    method = Autoregressive(iterations=50)
    block: Any = FakeBlock(domain, data, method, sigma=20, noise=3)
    model = method.run(block)
    sizes = {name: domain.size(name) for name in domain.names}
    assert np.isfinite(model.log_probability(frame_of(every(sizes), sizes))).all()


@pytest.mark.parametrize(("epsilon", "hidden"), [(1.0, 0), (3.0, 128)])
def test_width_follows_from_the_budget(epsilon: float, hidden: int) -> None:
    data, domain = dependent(50)
    method = Autoregressive(iterations=1)
    block: Any = FakeBlock(domain, data, method, plan=FakePlan(epsilon))
    assert method.run(block).hidden == hidden


def test_one_column_is_only_measured() -> None:
    method = Autoregressive()
    block: Any = FakeBlock(
        Domain.integers({"a": 3}), {"a": np.array([0, 1, 1, 1])}, method, sigma=0.1
    )
    model = method.run(block)
    assert block.asked == ["1 marginals"]
    found = np.exp(model.log_probability(pd.DataFrame({"a": ["0", "1", "2"]})))
    np.testing.assert_allclose(found, np.array([1, 3, 0.04 / 3]) / (4 + 0.04 / 3), rtol=1e-4)
    assert len(method.steps(["a"])) == 1


def test_steps_are_declared() -> None:
    method = Autoregressive(one_way=0.2, rate=0.1, iterations=7)
    assert isinstance(method, Synthesizer)
    assert method.name == "autoregressive"
    measure, train = method.steps(["a", "b", "c"])
    assert vars(measure) == {"marginals": 3, "weight": 0.2}
    assert vars(train) == {"rate": 0.1, "steps": 7, "weight": 0.8}
    with pytest.raises(InvalidRequest, match="one column or more"):
        method.steps([])


@pytest.mark.parametrize(
    "wrong",
    [
        {"one_way": 0.0},
        {"one_way": 1.0},
        {"rate": 0.0},
        {"rate": 1.1},
        {"iterations": 0},
        {"iterations": 2.5},
        {"hidden": -1},
        {"hidden": True},
        {"clip": 0.0},
        {"clip": math.nan},
        {"learning_rate": 0.0},
        {"learning_rate": math.inf},
        {"average": 1.0},
        {"average": -0.1},
    ],
)
def test_impossible_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        Autoregressive(**wrong)


# -- noisy one-way marginals -----------------------------------------------------------------------


def test_counts_within_the_noise_share_what_is_left() -> None:
    (first, second), rows = smoothed(
        [np.array([900, 30, -20, 9, 8]), np.array([500, 500])], [10.0, 10.0]
    )
    # Sums 927 and 1000, weighted by 1/5 and 1/2.
    assert rows == pytest.approx((927 / 5 + 1000 / 2) / (1 / 5 + 1 / 2))
    left = (rows - 930) / 3
    np.testing.assert_allclose(first * rows, [900, 30, left, left, left])
    np.testing.assert_allclose(second, [0.5, 0.5])


def test_no_code_is_impossible_and_no_table_empty() -> None:
    (shares,), rows = smoothed([np.array([-5, -3, 50_000])], [4.0])
    assert rows == pytest.approx(49_992)
    assert shares[0] * 50_001 == pytest.approx(0.5)
    (shares,), rows = smoothed([np.array([-5, -3])], [4.0])
    assert rows == 1.0
    np.testing.assert_allclose(shares, [0.5, 0.5])


# -- through the vault -----------------------------------------------------------------------------


def test_a_fit_to_a_vault_spends_what_it_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 400)
    table = pd.DataFrame({"a": np.array(["x", "y", "z"])[a], "b": 2 * a + rng.integers(0, 2, 400)})
    schema = dp.Schema({"a": dp.Categorical(("x", "y", "z")), "b": dp.Integer(0, 5)})
    account = dp.Ledger(tmp_path / "ledger.db").account("account", dp.Budget(8, 1e-6))
    vault = dp.Vault(table, schema, account, unit=dp.Row(), audit_share=0.0)
    model = Autoregressive(iterations=60, rate=0.5).fit(vault, epsilon=8, delta=1e-6)
    assert model.hidden == 128
    drawn = model.sample(2000, rng=np.random.default_rng(0))
    assert list(drawn.columns) == ["a", "b"]
    assert (drawn["b"] // 2 == drawn["a"].map({"x": 0, "y": 1, "z": 2})).mean() > 0.6
    only = model.sample(20, rng=np.random.default_rng(0), given={"a": "y"})
    assert (only["a"] == "y").all()
    with pytest.raises(BudgetExceeded):
        Autoregressive(iterations=1).fit(vault, epsilon=1, delta=1e-6)
