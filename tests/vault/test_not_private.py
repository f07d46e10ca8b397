"""The not-private mode: reproducible, stamped on everything it makes, and never released."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth import bundle
from dpsynth.domain import Domain
from dpsynth.marginal import MarginalModel
from dpsynth.release import Release
from dpsynth_accounting import InvalidRequest
from dpsynth_accounting.statement import NOT_PRIVATE

RNG = np.random.default_rng(5)
TABLE = pd.DataFrame(
    {"age": RNG.integers(0, 90, 400), "city": RNG.choice(["Wien", "Graz"], 400)}
).astype({"city": object})
SCHEMA = dp.Schema({"age": dp.Integer(0, 110), "city": dp.Open()})


def vault(folder: Path, seed: int | None, name: str = "people") -> dp.Vault:
    account = dp.Ledger(folder / "ledger.db").account(name, dp.Budget(8.0, 1e-6))
    return dp.Vault(TABLE, SCHEMA, account, unit=dp.Row(), not_private_seed=seed)


def release(of: dp.Vault) -> Release:
    model = dp.Independent().fit(of, epsilon=2)
    table = model.sample(50, rng=np.random.default_rng(1))
    return Release.assemble(of, model, table, epsilon=1)


def answers(of: dp.Vault) -> list[list[int]]:
    of.discover(epsilon=1)
    return [each.values.tolist() for each in of.measure([("age",), ("city",)], epsilon=1)]


def test_a_seed_repeats_everything_and_another_does_not(tmp_path: Path) -> None:
    one, two, three = ((tmp_path / name) for name in "abc")
    for folder in (one, two, three):
        folder.mkdir()
    first = answers(vault(one, 7))
    assert answers(vault(two, 7)) == first
    assert answers(vault(three, 8)) != first


def test_without_a_seed_nothing_repeats(tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    one.mkdir()
    two.mkdir()
    assert answers(vault(one, None)) != answers(vault(two, None))


def test_it_is_charged_like_any_other(tmp_path: Path) -> None:
    seeded = vault(tmp_path, 7)
    answers(seeded)
    assert float(seeded.account.remaining()[0]) == 6.0


def test_an_account_is_in_this_mode_for_ever_or_never(tmp_path: Path) -> None:
    answers(vault(tmp_path, 7))
    with pytest.raises(InvalidRequest):
        answers(vault(tmp_path, None))
    other = tmp_path / "other"
    other.mkdir()
    answers(vault(other, None))
    with pytest.raises(InvalidRequest):
        answers(vault(other, 7))


def test_every_artefact_says_so(tmp_path: Path) -> None:
    seeded = vault(tmp_path, 7)
    made = release(seeded)
    assert made.statement.sentences()[0] == NOT_PRIVATE
    assert NOT_PRIVATE.split(":")[0] in made.statement.text()
    assert made.facts["unit"]["not_private"] is True
    made.model.save(tmp_path / "model.npz")
    loaded = MarginalModel.load(tmp_path / "model.npz")
    assert loaded.domain.not_private
    assert Domain.from_json(json.loads(json.dumps(loaded.domain.to_json()))).not_private
    made.write_internal(tmp_path / "internal")
    page = (tmp_path / "internal" / "report.html").read_text(encoding="utf-8")
    assert page.index('class="banner"') < page.index(NOT_PRIVATE.split(";")[0])
    assert seeded.account.extract()["entries"][1]["payload"]["plan"]["unit"]["not_private"] is True


def test_a_private_release_says_nothing_of_it(tmp_path: Path) -> None:
    made = release(vault(tmp_path, None))
    assert "NOT PRIVATE" not in made.statement.text()
    made.write(tmp_path / "release")
    assert bundle.verify(tmp_path / "release").ok
    for path in (tmp_path / "release").iterdir():
        assert b"not_private" not in path.read_bytes()
        assert b"NOT PRIVATE" not in path.read_bytes()


def test_a_release_cannot_be_written(tmp_path: Path) -> None:
    made = release(vault(tmp_path, 7))
    with pytest.raises(bundle.ReleaseError, match="not private"):
        made.write(tmp_path / "release")
    assert not (tmp_path / "release").exists()


def test_a_release_written_all_the_same_does_not_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: without its refusal, `verify` still tells it by the ledger."""
    made = release(vault(tmp_path, 7))
    monkeypatch.setattr(Domain, "not_private", False)
    object.__setattr__(made.model.domain, "not_private", False)
    facts = {**made.facts, "unit": {"unit": "row"}}
    object.__setattr__(made, "facts", facts)
    made.write(tmp_path / "release")
    faults = bundle.verify(tmp_path / "release").faults
    assert any("is not private" in fault for fault in faults)
