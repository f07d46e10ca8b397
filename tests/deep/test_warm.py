"""An autoregressive generator that starts from another method's model, in one plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth.deep import Autoregressive, AutoregressiveModel
from dpsynth.deep._warm import Made
from dpsynth.domain import Domain
from dpsynth.marginal import MST
from dpsynth.synthesizer import named
from dpsynth.vault import Measure, Train, scaled
from dpsynth_accounting import InvalidRequest


def fitted(method: Autoregressive, folder: Path, epsilon: float) -> AutoregressiveModel:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, 3000)
    table = pd.DataFrame({"a": a, "b": (a + (rng.random(3000) < 0.1)) % 4})
    schema = dp.Schema({"a": dp.Integer(0, 3), "b": dp.Integer(0, 3)})
    account = dp.Ledger(folder / "ledger.db").account("t", dp.Budget(epsilon, 1e-6))
    vault = dp.Vault(table, schema, account, unit=dp.Row(), audit_share=0.0)
    found = method.fit(vault, epsilon=epsilon)
    assert account.remaining()[0] == 0  # one plan, charged in full
    return found


def test_both_methods_are_steps_of_one_plan() -> None:
    method = Autoregressive(warm="mst", warm_share=0.25)
    steps = method.steps(["a", "b"])
    assert steps == (*scaled(MST().steps(["a", "b"]), 0.25), Train(0.05, 600, 0.75))
    assert sum(step.weight for step in steps) == pytest.approx(1)
    assert method.steps(["a"]) == (Measure(1, 1.0),)
    assert named("autoregressive", {"warm": "clique-tree"}) == Autoregressive(warm="clique-tree")


def test_what_the_other_method_learnt_is_where_training_starts(tmp_path: Path) -> None:
    """With one step of training, and a rate that moves nothing; without it, nothing is learnt."""
    still: dict[str, Any] = {"iterations": 1, "learning_rate": 1e-9}
    equal = []
    for warm in ("mst", None):
        folder = tmp_path / str(warm)
        folder.mkdir()
        model = fitted(Autoregressive(warm=warm, **still), folder, 20.0)
        drawn = model.sample_codes(20_000, rng=np.random.default_rng(0))
        equal.append(float((drawn["b"] == drawn["a"]).mean()))
    assert equal[0] > 0.75  # 0.9 in the table
    assert equal[1] < 0.4


def test_training_goes_on_from_there(tmp_path: Path) -> None:
    """The other method knows single columns alone, so what pairs it learns are of the rows."""
    method = Autoregressive(warm="independent", iterations=40, rate=0.3, learning_rate=0.1)
    drawn = fitted(method, tmp_path, 20.0).sample_codes(20_000, rng=np.random.default_rng(0))
    assert float((drawn["b"] == drawn["a"]).mean()) > 0.6


def test_made_rows_leave_nothing_impossible() -> None:
    domain = Domain.integers({"a": 3, "b": 2})
    codes = {"a": np.zeros(1000, dtype=np.int32), "b": np.ones(1000, dtype=np.int32)}
    shares = Made(codes, 10.0).shares(domain, ["b", "a"])
    assert [share.size for share in shares] == [2, 3]
    assert all(share.min() > 0 and share.sum() == pytest.approx(1) for share in shares)


@pytest.mark.parametrize(
    "wrong", [{"warm": "autoregressive"}, {"warm": "nothing"}, {"warm_share": 1.0}]
)
def test_impossible_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=str(next(iter(wrong.values())))):
        Autoregressive(**wrong)
