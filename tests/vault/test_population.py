"""The same people under two accounts: noticed before an answer, refused, and overridden by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth.vault import Measure, _people
from dpsynth_accounting import InvalidRequest, SamePeople, canonical

SCHEMA = dp.Schema({"a": dp.Integer(0, 99), "b": dp.Categorical(("x", "y"))})
PERSON = dp.Person("id", rows=2)


def people(first: int, last: int) -> pd.DataFrame:
    numbers = np.repeat(np.arange(first, last), 2)
    return pd.DataFrame(
        {
            "id": [f"person {i}" for i in numbers],
            "a": numbers % 100,
            "b": np.where(numbers % 3 == 0, "x", "y"),
        }
    )


Open = Callable[..., dp.Vault]


@pytest.fixture
def ledger(tmp_path: Path) -> dp.Ledger:
    return dp.Ledger(tmp_path / "ledger.db")


@pytest.fixture
def open_vault(ledger: dp.Ledger) -> Open:
    """Return a maker of vaults on accounts of one ledger."""

    def make(
        name: str,
        table: pd.DataFrame,
        unit: dp.Row | dp.Person = PERSON,
        schema: dp.Schema = SCHEMA,
    ) -> dp.Vault:
        account = ledger.account(name, dp.Budget(10.0, 1e-6))
        return dp.Vault(table, schema, account, unit=unit, audit_share=0.0)

    return make


def ask(vault: dp.Vault) -> None:
    vault.measure([("a",)], epsilon=1)


def kinds(ledger: dp.Ledger, name: str) -> list[str]:
    return [entry["payload"]["kind"] for entry in ledger.entries(name)]


def left(vault: dp.Vault) -> float:
    return float(vault.account.remaining()[0])


def test_the_same_people_are_refused_before_an_answer(ledger: dp.Ledger, open_vault: Open) -> None:
    ask(open_vault("a", people(0, 300)))
    other = open_vault("b", people(0, 300).sample(frac=1, random_state=1))
    with pytest.raises(SamePeople, match="account 'a'") as refusal:
        ask(other)
    assert (refusal.value.account, refusal.value.other) == ("b", "a")
    assert "person 1" not in str(refusal.value)
    assert left(other) == 10.0
    assert kinds(ledger, "b") == ["open", "reserve", "inspect", "void"]
    assert ledger.verify("b") == []
    assert {name for name, _ in ledger.sketches()} == {"a"}  # what was refused holds nobody
    with pytest.raises(SamePeople):  # and it stays refused
        ask(other)


def test_an_override_is_written_down_and_lets_pass(ledger: dp.Ledger, open_vault: Open) -> None:
    ask(open_vault("a", people(0, 300)))
    vault = open_vault("b", people(0, 300))
    with pytest.raises(SamePeople):
        ask(vault)
    vault.account.override("somebody else", "of no use here", "an officer")
    with pytest.raises(SamePeople):
        ask(vault)
    vault.account.override("a", "both studies were approved", "an officer")
    ask(vault)
    assert left(vault) == 9.0
    assert ledger.verify("b") == []
    assert {name for name, _ in ledger.sketches()} == {"a", "b"}
    # The table that account a holds was compared at its first use; a new one meets the other.
    ask(open_vault("a", people(0, 300)))
    with pytest.raises(SamePeople, match="account 'b'"):
        ask(open_vault("a", people(0, 250)))


@pytest.mark.parametrize(
    ("one", "two", "alike"),
    [
        ((0, 100), (50, 150), True),  # a half of both
        ((0, 100), (51, 151), False),
        ((0, 100), (90, 110), True),  # a half of the smaller
        ((0, 100), (100, 200), False),
        ((0, 1000), (0, 200), True),
        ((0, 0), (0, 0), False),
    ],
)
def test_alike_is_half_of_the_smaller(
    open_vault: Open, one: tuple[int, int], two: tuple[int, int], alike: bool
) -> None:
    ask(open_vault("a", people(*one)))
    vault = open_vault("b", people(*two))
    if alike:
        with pytest.raises(SamePeople):
            ask(vault)
    else:
        ask(vault)


def test_an_account_may_hold_a_table_twice(ledger: dp.Ledger, open_vault: Open) -> None:
    for table in (people(0, 200), people(0, 200), people(0, 199)):
        ask(open_vault("a", table))
    assert len(ledger.sketches()) == 2


def test_the_look_is_made_once_a_vault_and_noted(ledger: dp.Ledger, open_vault: Open) -> None:
    vault = open_vault("a", people(0, 30))
    ask(vault)
    ask(vault)
    assert kinds(ledger, "a").count("inspect") == 1
    (look,) = [e["payload"] for e in ledger.entries("a") if e["payload"]["kind"] == "inspect"]
    assert look["purpose"] == "population sketch, for the custodian only"


def test_nothing_of_the_look_is_in_an_extract(ledger: dp.Ledger, open_vault: Open) -> None:
    """Two neighbours leave the same entries; the sketch itself is beside the chain."""
    shapes = []
    for name, table in (("a", people(0, 300)), ("b", people(1000, 1001))):
        ask(open_vault(name, table))
        extract = ledger.existing(name).extract()
        text = canonical(extract).decode()
        for raw in ledger.sketches().values():
            assert raw.hex() not in text
            assert raw[4:12].hex() not in text
        shapes.append([sorted(entry["payload"]) for entry in extract["entries"]])
    assert shapes[0] == shapes[1]


def test_a_block_that_reads_nothing_looks_at_nobody(ledger: dp.Ledger, open_vault: Open) -> None:
    ask(open_vault("a", people(0, 30)))
    vault = open_vault("b", people(0, 30))
    with vault.reserve((Measure(1, 1.0),), epsilon=1, label="test"):
        pass
    assert "inspect" not in kinds(ledger, "b")


def test_a_refusal_that_is_swallowed_still_hands_back(ledger: dp.Ledger, open_vault: Open) -> None:
    ask(open_vault("a", people(0, 30)))
    vault = open_vault("b", people(0, 30))
    with vault.reserve((Measure(1, 1.0),), epsilon=1, label="test") as block:
        with pytest.raises(SamePeople):
            block.measure([("a",)])
        with pytest.raises(InvalidRequest):
            block.measure([("a",)])
    assert left(vault) == 10.0
    assert ledger.verify("b") == []


def test_a_failure_while_looking_keeps_the_charge(
    open_vault: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may follow from a row: only the refusal itself hands back."""

    def explode(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(_people, "sketch", explode)
    vault = open_vault("a", people(0, 30))
    with pytest.raises(RuntimeError):
        ask(vault)
    assert left(vault) == 9.0


def test_a_resumed_block_does_not_look_again(ledger: dp.Ledger, open_vault: Open) -> None:
    steps = (Measure(1, 1.0), Measure(1, 1.0))

    def run(vault: dp.Vault, *, stop: bool, resume: bool) -> None:
        with vault.reserve(steps, epsilon=1, label="test", resume=resume) as block:
            block.measure([("a",)])
            if stop:
                raise KeyboardInterrupt
            block.measure([("b",)])

    with pytest.raises(KeyboardInterrupt):
        run(open_vault("a", people(0, 300)), stop=True, resume=False)
    other = open_vault("b", people(0, 300))
    other.account.override("a", "known", "an officer")
    ask(other)
    run(open_vault("a", people(0, 300)), stop=False, resume=True)  # account a has no override
    assert kinds(ledger, "a").count("inspect") == 1
    assert kinds(ledger, "a").count("reserve") == 1


def test_a_run_killed_while_looking_notes_it_once(
    ledger: dp.Ledger, open_vault: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_people, "sketch", killed)
        with pytest.raises(KeyboardInterrupt):
            ask(open_vault("a", people(0, 30)))
    vault = open_vault("a", people(0, 30))
    with vault.reserve((Measure(1, 1.0),), epsilon=1, label="measure", resume=True) as block:
        block.measure([("a",)])
    assert kinds(ledger, "a") == ["open", "reserve", "inspect", "begin", "answer", "commit"]
    assert len(ledger.sketches()) == 1


# -- rows ----------------------------------------------------------------------------------------


def rows(seed: int, count: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"a": rng.integers(0, 10**9, count), "b": rng.choice(["x", "y"], count)})


def test_rows_are_known_by_what_they_say(open_vault: Open) -> None:
    table = rows(0)
    ask(open_vault("a", table, dp.Row()))
    ask(open_vault("b", rows(1), dp.Row()))
    turned = dp.Schema({"b": SCHEMA.columns["b"], "a": SCHEMA.columns["a"]})
    with pytest.raises(SamePeople):
        ask(open_vault("c", table.iloc[::-1], dp.Row(), turned))


def test_equal_rows_are_told_apart_by_their_number(open_vault: Open) -> None:
    """Ten equal rows and a hundred share ten units, a tenth of the greater, all of the smaller."""
    same = pd.DataFrame({"a": [7] * 100, "b": ["x"] * 100})
    ask(open_vault("a", same, dp.Row()))
    mixed = pd.concat([same.iloc[:10], rows(3, 90)], ignore_index=True)
    ask(open_vault("b", mixed, dp.Row()))
    with pytest.raises(SamePeople):
        ask(open_vault("c", same.iloc[:10], dp.Row()))


def test_the_same_text_in_another_column_is_another_row(open_vault: Open) -> None:
    flags = pd.DataFrame({"p": [0, 1] * 50, "q": [1, 0] * 50})
    for name, columns in (("a", ("p",)), ("b", ("q",))):
        schema = dp.Schema({column: dp.Integer(0, 1) for column in columns})
        vault = open_vault(name, flags, dp.Row(), schema)
        vault.measure([columns], epsilon=1)


def test_a_person_without_an_id_is_nobody(open_vault: Open) -> None:
    table = people(0, 50).assign(id=None)
    ask(open_vault("a", table))
    ask(open_vault("b", table))


def test_ids_that_read_alike_are_one_person(open_vault: Open, tmp_path: Path) -> None:
    """The text is the bound's: a number in a frame and the digits in a file are one id."""
    table = people(0, 50).assign(id=np.repeat(np.arange(50), 2))
    ask(open_vault("a", table))
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(SamePeople):
        ask(open_vault("b", str(tmp_path / "t.csv")))  # type: ignore[arg-type]


def test_the_ledger_file_holds_no_identity(ledger: dp.Ledger, open_vault: Open) -> None:
    ask(open_vault("a", people(0, 300)))
    raw = b"".join(path.read_bytes() for path in ledger.path.parent.iterdir())
    assert b"person 1" not in raw
    assert json.dumps("person 1").encode() not in raw
