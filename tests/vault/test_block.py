"""Blocks and vaults: charged first, in order, replayed and never redrawn, and closed to copies."""

from __future__ import annotations

import copy
import json
import math
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth.vault import Measure, Select, _block, _noise, discovery_step, make_plan
from dpsynth.vault._discover import threshold
from dpsynth_accounting import BudgetExceeded, InvalidRequest, LedgerError, Reservation
from tests.vault.conftest import MakeVault

SCHEMA = dp.Schema({"a": dp.Integer(0, 3), "b": dp.Categorical(("x", "y"))})
TABLE = pd.DataFrame({"a": [0, 1, 2, 3] * 25, "b": ["x", "y"] * 50})


def kinds(vault: dp.Vault) -> list[str]:
    account = vault.account
    return [entry["payload"]["kind"] for entry in account.ledger.entries(account.name)]


def left(vault: dp.Vault) -> float:
    return float(vault.account.remaining()[0])


def test_the_charge_comes_before_the_read(make_vault: MakeVault, tmp_path: Path) -> None:
    """A file that does not exist is missed only by what opens it: an overspend never does."""
    vault = make_vault(tmp_path / "nowhere.csv", SCHEMA, epsilon=1.0)
    with pytest.raises(BudgetExceeded) as refusal:
        vault.measure([("a",)], epsilon=1.5)
    assert not refusal.value.touched
    with pytest.raises(InvalidRequest, match="no such file"):
        vault.measure([("a",)], epsilon=0.5)
    assert left(vault) == 1.0


def test_an_answer_is_stored_before_it_is_shown(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = make_vault(TABLE, SCHEMA)
    vault.measure([("a",)], epsilon=1)
    assert kinds(vault) == ["open", "reserve", "inspect", "begin", "answer", "commit"]


def test_a_crash_while_reading_keeps_the_charge(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = make_vault(TABLE, SCHEMA)

    def explode(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(_noise, "discrete_gaussian", explode)
    with pytest.raises(RuntimeError):
        vault.measure([("a",)], epsilon=4)
    assert left(vault) == 6.0


def test_leaving_before_the_first_read_costs_nothing(make_vault: MakeVault) -> None:
    vault = make_vault(TABLE, SCHEMA)
    with (
        pytest.raises(RuntimeError),
        vault.reserve((Measure(1, 1.0),), epsilon=4, label="test"),
    ):
        raise RuntimeError
    assert left(vault) == 10.0


def test_a_block_answers_what_was_declared_and_nothing_else(make_vault: MakeVault) -> None:
    vault = make_vault(TABLE, SCHEMA)
    steps = (Measure(1, 1.0), Select(1, 1.0))
    with pytest.raises(InvalidRequest), vault.reserve(steps, epsilon=1, label="t") as block:
        block.measure([("a",), ("b",)])
    with pytest.raises(InvalidRequest), vault.reserve(steps, epsilon=1, label="t") as block:
        block.select({("a",): np.zeros(4, dtype=np.int64)}, lambda _: [("a",)])
    for bad in ([("c",)], [("a", "a")], [()]):
        with pytest.raises(InvalidRequest), vault.reserve(steps, epsilon=1, label="t") as block:
            block.measure(bad)  # type: ignore[arg-type]
    assert left(vault) == 10.0  # every refusal came before a read
    with (  # noqa: PT012
        pytest.raises(InvalidRequest) as refusal,
        vault.reserve(steps[:1], epsilon=1, label="t") as block,
    ):
        block.measure([("a",)])
        block.measure([("a",)])
    assert refusal.value.touched
    assert left(vault) == 9.0


def test_a_resumed_block_replays_and_draws_only_what_is_missing(make_vault: MakeVault) -> None:
    vault = make_vault(TABLE, SCHEMA)
    steps = (Measure(1, 1.0), Measure(1, 1.0))
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        vault.reserve(steps, epsilon=3, label="t") as block,
    ):
        (first,) = block.measure([("a",)])
        raise KeyboardInterrupt
    again = dp.Vault(TABLE, SCHEMA, vault.account, unit=dp.Row(), audit_share=0.0)
    with again.reserve(steps, epsilon=3, label="t", resume=True) as block:
        (replayed,) = block.measure([("a",)])
        block.measure([("b",)])
    assert np.array_equal(first.values, replayed.values)
    assert left(vault) == 7.0
    assert kinds(vault).count("answer") == 2
    with (
        pytest.raises(InvalidRequest, match="different question"),
        again.reserve(steps, epsilon=3, label="t", resume=True) as block,
    ):
        block.measure([("b",)])


def test_a_person_per_account(make_vault: MakeVault) -> None:
    frame = TABLE.assign(id=[str(i % 20) for i in range(100)])
    vault = make_vault(frame, SCHEMA, unit=dp.Person("id", rows=2))
    vault.measure([("a",)], epsilon=1)
    other = dp.Vault(frame, SCHEMA, vault.account, unit=dp.Row())
    with pytest.raises((InvalidRequest, LedgerError), match="unit"):
        other.measure([("a",)], epsilon=1)


def test_a_vault_shows_and_gives_nothing(make_vault: MakeVault) -> None:
    vault = make_vault(TABLE, SCHEMA)
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            leave(vault)
    with pytest.raises(TypeError):
        len(vault)  # type: ignore[arg-type]
    assert repr(vault) == "Vault(account='account 1', unit=Row())"


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan")])
def test_an_impossible_audit_share(make_vault: MakeVault, share: float) -> None:
    with pytest.raises(InvalidRequest):
        make_vault(TABLE, SCHEMA, audit_share=share)


def test_a_person_column_that_is_modelled(make_vault: MakeVault) -> None:
    with pytest.raises(InvalidRequest, match="modelled"):
        make_vault(TABLE, SCHEMA, unit=dp.Person("a", rows=2))


def test_a_quote_that_never_closes_is_refused_before_the_charge(
    make_vault: MakeVault, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,x\n"2,y\n3,x\n')
    vault = make_vault(path, SCHEMA)
    with pytest.raises(InvalidRequest, match="never closes"):
        vault.measure([("a",)], epsilon=1)
    assert left(vault) == 10.0


def test_a_changed_frame_does_not_change_the_vault(make_vault: MakeVault) -> None:
    frame = TABLE.copy()
    vault = make_vault(frame, SCHEMA)
    frame["a"] = 0
    (answer,) = vault.measure([("a",)], epsilon=9)
    assert answer.values[1:].sum() > 40


# -- discovery -----------------------------------------------------------------------------------


def test_the_threshold_hides_what_one_person_brings() -> None:
    """However many new categories, some is shown with probability <= delta; for one with more."""
    for cells, weight in ((1, 64), (3, 128), (8, 192)):
        sigma2, delta = Fraction(50 * weight), Fraction(1, 10**6)
        least = threshold(sigma2, delta, weight, cells)
        counts = [math.isqrt(weight**2 // new) for new in range(1, cells + 1)]
        block, tails = _noise.upper_tails(sigma2)
        shown = [new * tails[least - count] for new, count in enumerate(counts, 1)]
        assert block == 1
        assert max(shown) <= float(delta)
        sooner = [new * tails[least - count - 1] for new, count in enumerate(counts, 1)]
        assert max(sooner) > float(delta)


def test_discovery_finds_the_frequent_and_hides_the_rare(make_vault: MakeVault) -> None:
    schema = dp.Schema({"city": dp.Open(), "n": dp.Integer(), "y": dp.Real()})
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "city": ["B"] * 2500 + ["A"] * 2000 + ["only one lives here"],
            "n": np.r_[rng.integers(100, 200, 4500), 2**40],
            "y": np.r_[rng.normal(0, 1, 4500), 1e12],
        }
    )
    vault = make_vault(frame, schema)
    domain = vault.discover(epsilon=2)
    codec = domain.codecs["city"]
    assert codec.texts == ("A", "B", "other")  # type: ignore[union-attr]
    low, high = domain.codecs["n"].starts[0], domain.codecs["n"].upper  # type: ignore[union-attr]
    assert 50 <= low <= 100
    assert 199 <= high < 400
    assert domain.codecs["y"].upper < 50  # type: ignore[union-attr]
    assert left(vault) == 8.0
    assert vault.discover(epsilon=2) is domain  # known now, hence free
    assert left(vault) == 8.0


def test_a_plan_depends_on_no_row() -> None:
    schema = dp.Schema({"city": dp.Open(), "n": dp.Integer()})
    steps = (*discovery_step(schema, 1.0), *dp.MST().steps(schema.modelled))
    one, two = (make_plan(steps, dp.Row(), Fraction(1), Fraction(1, 10**6)) for _ in range(2))
    assert one == two


# -- non-interference ----------------------------------------------------------------------------


def test_replayed_answers_make_neighbours_indistinguishable(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the charged answers replayed, a person with impossible values changes no public byte."""
    schema = dp.Schema(
        {
            "a": dp.Integer(0, 3),
            "b": dp.Categorical(("x", "y"), missing=True),
            "c": dp.Open(),
            "r": dp.Real(),
        }
    )
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(1000), 2).astype(str),
            "a": rng.integers(0, 4, 2000).astype(object),
            "b": rng.choice(["x", "y"], 2000),
            "c": rng.choice(["u", "v"], 2000),
            "r": rng.normal(0, 1, 2000).astype(object),
        }
    )
    strange = pd.DataFrame(
        {
            "id": ["stranger"] * 3,
            "a": [10**30, float("nan"), "Zaphod"],
            "b": ["no such category", None, "Zaphod"],
            "c": ["Zaphod"] * 3,
            "r": [float("inf"), -1e300, "Zaphod"],
        }
    )
    recorded: dict[tuple[int, int], bytes] = {}
    public = []
    for table in (frame, pd.concat([frame, strange], ignore_index=True)):
        vault = make_vault(table, schema, unit=dp.Person("id", rows=2), audit_share=0.2)
        store, answer = Reservation.store, _block.Block._answer

        def keep(self, step, part, request, value, _store=store):  # type: ignore[no-untyped-def]
            recorded.setdefault((step, part), value)
            _store(self, step, part, request, recorded[(step, part)])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Reservation, "store", keep)

            def replay(self, index, part, request, draw, _answer=answer):  # type: ignore[no-untyped-def]
                _answer(self, index, part, request, draw)
                return recorded[(index, part)]

            patch.setattr(_block.Block, "_answer", replay)
            model = dp.MST().fit(vault, epsilon=3)
        drawn = model.sample(500, rng=np.random.default_rng(1))
        path = tmp_path / f"{len(public)}.npz"
        model.save(path)
        facts = json.dumps(model.domain.to_json())
        public.append((path.read_bytes(), facts, drawn.to_csv()))
    assert public[0] == public[1]
    assert "Zaphod" not in "".join(map(str, public[1][1:]))
