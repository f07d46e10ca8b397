from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

import dpsynth as dp
from dpsynth import deep
from dpsynth.deep import VAE, LatentModel
from dpsynth.deep._adam import Adam
from dpsynth.deep._vae import _Coder
from dpsynth.domain import Domain
from dpsynth.standalone import sample_release
from dpsynth.synthesizer import Model, Synthesizer, named
from dpsynth.vault import Measure, Train
from dpsynth.vault._train import Learner, _gradients, clipped_sum, require_separate
from dpsynth_accounting import InvalidRequest
from tests.deep.fake_block import FakeBlock, FakePlan

SIZES = {"a": 4, "b": 4, "c": 30}
DOMAIN = Domain.integers(SIZES, ordered=("c",))


def data(rows: int = 4000) -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    a = rng.choice(4, rows, p=[0.5, 0.3, 0.15, 0.05])
    return {"a": a, "b": (a + (rng.random(rows) < 0.1)) % 4, "c": 7 * a + rng.integers(0, 5, rows)}


def coder(hidden: int = 12) -> _Coder:
    return _Coder(3, hidden, [np.log(np.full(size, 1 / size)) for size in SIZES.values()])


def model(latent: int = 2, seed: int = 0) -> LatentModel:
    rng = np.random.default_rng(seed)
    shapes = {"inner": (latent, 6), "inner_bias": (6,), "outer": (6, 38), "outer_bias": (38,)}
    arrays = {name: rng.normal(0, 1, s).astype(np.float32) for name, s in shapes.items()}
    shares = {name: np.full(size, 1 / size) for name, size in SIZES.items()}
    return LatentModel(DOMAIN, 100.0, shares, arrays)


def test_steps_are_declared_and_the_protocols_hold() -> None:
    assert VAE(one_way=0.2).steps("abc") == (Measure(3, 0.2), Train(0.05, 600, 0.8))
    assert isinstance(named("vae", {"iterations": 7}), Synthesizer)
    assert isinstance(model(), Model)
    assert isinstance(named("autoregressive", {}), Synthesizer)


def test_its_loss_is_one_a_record_and_its_clipping_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = coder()
    learner: Learner = Adam(network, learning_rate=0.1, iterations=5, average=0.9)
    records = torch.tensor([[0, 1, 2], [3, 3, 29], [2, 1, 0], [1, 0, 7]])
    require_separate(network, learner.loss, records)
    monkeypatch.setattr(_gradients, "_general", None)  # the slow way is not there
    sums = clipped_sum(network, learner.loss, records, torch.arange(4), 4, 1.0)
    assert [each.shape for each in sums] == [each.shape for each in network.parameters()]


def test_its_loss_is_a_bound_on_the_likelihood() -> None:
    """Above minus the log-likelihood, which sampling of the latent vector estimates."""
    torch.manual_seed(0)
    network = coder()
    records = torch.tensor([[0, 1, 2]])
    with torch.no_grad():
        bound = torch.stack([network(records) for _ in range(400)]).mean()
        parts = network.decoder(torch.randn(20_000, 3)).split(network.decoder.sizes, dim=1)
        logs = sum(p.log_softmax(1)[:, c] for p, c in zip(parts, records[0], strict=True))
        exact = -(torch.logsumexp(torch.as_tensor(logs), 0) - np.log(20_000))
    assert bound > exact - 0.02


def test_a_fit_learns_a_strong_dependence() -> None:
    method = VAE(iterations=250, rate=0.2, hidden=32, learning_rate=0.02)
    found = method.run(FakeBlock(DOMAIN, data(), method))  # type: ignore[arg-type]
    drawn = found.sample_codes(20_000, rng=np.random.default_rng(0))
    assert (drawn["b"] == drawn["a"]).mean() > 0.75  # independent: 0.35
    assert (abs(drawn["c"] - 7 * drawn["a"] - 2) <= 2).mean() > 0.7
    shares = np.bincount(drawn["a"], minlength=4) / 20_000
    assert abs(shares - [0.5, 0.3, 0.15, 0.05]).sum() < 0.15


@pytest.mark.parametrize(("epsilon", "latent"), [(1.0, 8), (3.0, 16)])
def test_the_latent_vector_follows_from_the_budget(epsilon: float, latent: int) -> None:
    method = VAE(iterations=1)
    block = FakeBlock(DOMAIN, data(200), method, plan=FakePlan(epsilon))
    assert method.run(block).arrays["inner"].shape[0] == latent  # type: ignore[arg-type]


def test_given_values_are_exact_and_weigh_the_latent_vectors() -> None:
    found = model(seed=4)
    free = found.sample_codes(200_000, rng=np.random.default_rng(1))
    kept = free["c"][(free["a"] == 2)]
    drawn = found.sample_codes(50_000, rng=np.random.default_rng(2), given={"a": "2"})
    assert (drawn["a"] == 2).all()
    shares = [np.bincount(each, minlength=30) / each.size for each in (kept, drawn["c"])]
    assert abs(shares[0] - shares[1]).sum() < 0.06
    alone = np.bincount(free["c"], minlength=30) / 200_000
    assert abs(alone - shares[1]).sum() > 0.1


def test_sampling_follows_from_its_generator_alone() -> None:
    torch.manual_seed(1)
    first = model().sample(500, rng=np.random.default_rng(3))
    torch.manual_seed(2)
    assert first.equals(model().sample(500, rng=np.random.default_rng(3)))
    assert not first.equals(model().sample(500, rng=np.random.default_rng(4)))
    assert len(model().sample(0, rng=np.random.default_rng(0))) == 0
    for wrong in ({"n": -1}, {"n": 3, "given": {"a": "9"}}):
        with pytest.raises(InvalidRequest):
            model().sample(rng=np.random.default_rng(0), **wrong)  # type: ignore[arg-type]


def test_a_model_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model().save(path)
    again = deep.load(path)
    assert isinstance(again, LatentModel)
    again.save(tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()
    drawn = [each.sample(50, rng=np.random.default_rng(0)) for each in (model(), again)]
    assert drawn[0].equals(drawn[1])
    assert sample_release(tmp_path, 50, 0).equals(drawn[0])


@pytest.mark.parametrize("name", ["inner_bias", "outer_bias", "share_1"])
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    found = model()
    arrays = dict(found.arrays)
    shares = dict(found.shares)
    if name == "share_1":
        shares["b"] = np.array([1.0, -1.0, 0.5, 0.5])
    else:
        arrays[name] = arrays[name][:-1]
    LatentModel(DOMAIN, 100.0, shares, arrays).save(tmp_path / "wrong")
    with pytest.raises(InvalidRequest, match="read as a model"):
        LatentModel.load(tmp_path / "wrong")


@pytest.mark.parametrize(
    "wrong",
    [{"latent": 0}, {"hidden": 0}, {"one_way": 1.0}, {"rate": 0.0}, {"clip": 0.0}, {"average": 1}],
)
def test_impossible_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        VAE(**wrong)


@pytest.mark.parametrize("name", ["vae", "autoregressive"])
def test_a_fit_to_a_vault_makes_a_release(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.choice(["x", "y"], 400), "b": rng.integers(0, 5, 400)})
    schema = dp.Schema({"a": dp.Categorical(("x", "y")), "b": dp.Integer(0, 4)})
    account = dp.Ledger(tmp_path / "ledger.db").account("t", dp.Budget(6.0, 1e-6))
    vault = dp.Vault(table, schema, account, unit=dp.Row())
    found = named(name, {"iterations": 15}).fit(vault, epsilon=4)
    made = found.sample(300, rng=np.random.default_rng(1))
    release = dp.Release.assemble(vault, found, made, epsilon=1)
    release.write(tmp_path / "release")
    assert (tmp_path / "release" / "model.safetensors").is_file()
    assert "Trained in 15 steps" in (tmp_path / "release" / "report.html").read_text()
    assert len(sample_release(tmp_path / "release", 20, 0)) == 20


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        name = "vae"

        def load(self) -> Any:
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("dpsynth.synthesizer.entry_points", lambda group: [Missing()])
    with pytest.raises(InvalidRequest, match=r"needs torch.*dpsynth\[deep\]"):
        named("vae", {})
