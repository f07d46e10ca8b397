from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dpsynth_accounting import (
    Account,
    Budget,
    Charge,
    DiscreteGaussian,
    Event,
    Exponential,
    Filter,
    Gaussian,
    InvalidRequest,
    Ledger,
    Policy,
    Repeat,
    calibrate,
    digest,
    event_to_json,
    rational_up,
    verify_extract,
)
from dpsynth_accounting.budget import ADJACENCY
from dpsynth_accounting.extract import GENESIS, chain_hash

Extract = dict[str, Any]
UNIT = {"unit": "row"}


def plan(epsilon: float, delta: float) -> Event:
    return calibrate(lambda s: Repeat(DiscreteGaussian(rational_up(4 / s)), 4), epsilon, delta)


@pytest.fixture
def account(tmp_path: Path) -> Account:
    account = Ledger(tmp_path / "ledger.db").account("patients", Budget(1, 1e-6))
    for epsilon, delta in ((0.3, 3e-7), (0.5, 5e-7)):
        paid = account.reserve(plan(epsilon, delta), epsilon, delta, unit=UNIT, label="fit")
        paid.begin(0, "question")
        paid.store(0, 0, "question", b"[1]")
        paid.commit()
    unused = account.reserve(plan(0.2, 2e-7), 0.2, 2e-7, unit=UNIT, label="fit")
    unused.void()
    account.record("inspect", {"purpose": "check"})
    account.record("release", {"manifest": "ab"})
    return account


@pytest.fixture
def extract(account: Account) -> Extract:
    return account.extract()


def rechained(extract: Extract) -> Extract:
    """Return the extract as a careful forger leaves it: numbered and hashed anew."""
    head = GENESIS
    for at, entry in enumerate(extract["entries"]):
        entry["payload"]["seq"] = at
        if entry["payload"]["kind"] == "reserve":
            entry["payload"]["plan_digest"] = digest(entry["payload"]["plan"])
        head = entry["hash"] = chain_hash(head, entry["payload"])
    extract["head"] = head
    return extract


def payload(extract: Extract, kind: str, which: int = 0) -> dict[str, Any]:
    found = [e["payload"] for e in extract["entries"] if e["payload"]["kind"] == kind]
    chosen: dict[str, Any] = found[which]
    return chosen


def test_an_extract_verifies_without_its_ledger(extract: Extract) -> None:
    state = verify_extract(json.loads(json.dumps(extract)))
    assert state.faults == []
    assert (state.spent_epsilon, state.spent_delta) == (Fraction(4, 5), Fraction(8, 10**7))
    assert state.budget == Budget(1, 1e-6)
    assert len(state.charges) == 2
    assert len(state.answers) == 2
    assert [each["manifest"] for each in state.releases] == ["ab"]
    assert state.inspections == 1
    assert verify_extract(rechained(copy.deepcopy(extract))).faults == []


def _alter(extract: Extract) -> None:
    payload(extract, "reserve")["plan"]["label"] = "nothing"


def _remove(extract: Extract) -> None:
    del extract["entries"][3]


def _remove_tail(extract: Extract) -> None:
    del extract["entries"][-1]


def _swap(extract: Extract) -> None:
    extract["entries"][2:4] = extract["entries"][3:1:-1]


def _rename(extract: Extract) -> None:
    extract["account"] = "staff"


def _empty(extract: Extract) -> None:
    extract.update(entries=[], head=GENESIS)


@pytest.mark.parametrize("harm", [_alter, _remove, _remove_tail, _swap, _rename, _empty])
def test_an_extract_that_was_altered_is_found_out(
    extract: Extract, harm: Callable[[Extract], None]
) -> None:
    harm(extract)
    assert verify_extract(extract).faults != []


def _raise_budget_later(extract: Extract) -> None:
    opened = copy.deepcopy(extract["entries"][0])
    opened["payload"]["budget"]["epsilon"] = "9"
    extract["entries"].insert(1, opened)


def _reserve_twice(extract: Extract) -> None:
    """A second, smaller charge of the same name would hide the first."""
    second = copy.deepcopy(extract["entries"][1])
    second["payload"]["plan"]["charge"]["epsilon"] = "1/1000"
    extract["entries"].insert(2, second)


def _negative_charge(extract: Extract) -> None:
    payload(extract, "reserve", 1)["plan"]["charge"]["epsilon"] = "-1"


def _undercharge(extract: Extract) -> None:
    payload(extract, "reserve")["plan"]["charge"]["epsilon"] = "1/4"


def _undercharge_delta(extract: Extract) -> None:
    payload(extract, "reserve")["plan"]["charge"]["delta"] = "1/100000000"


def _overspend(extract: Extract) -> None:
    payload(extract, "open")["budget"]["epsilon"] = "7/10"


def _overspend_delta(extract: Extract) -> None:
    payload(extract, "open")["budget"]["delta"] = "7/10000000"


def _hand_back_after_reading(extract: Extract) -> None:
    payload(extract, "void")["reservation"] = payload(extract, "reserve")["reservation"]


def _hand_back_twice(extract: Extract) -> None:
    at = next(i for i, e in enumerate(extract["entries"]) if e["payload"]["kind"] == "void")
    extract["entries"].insert(at, copy.deepcopy(extract["entries"][at]))


def _use_after_handing_back(extract: Extract) -> None:
    entry = copy.deepcopy(extract["entries"][2])
    assert entry["payload"]["kind"] == "begin"
    entry["payload"]["reservation"] = payload(extract, "void")["reservation"]
    extract["entries"].append(entry)


def _answer_without_beginning(extract: Extract) -> None:
    del extract["entries"][2]


def _begin_a_part_twice(extract: Extract) -> None:
    payload(extract, "begin")["part"] = 0
    extract["entries"].insert(3, copy.deepcopy(extract["entries"][2]))


def _mix_units(extract: Extract) -> None:
    payload(extract, "reserve", 1)["plan"]["unit"] = {"unit": "person", "rows": 3}


def _change_account(extract: Extract) -> None:
    payload(extract, "reserve", 1)["account"] = "staff"


def _unknown_kind(extract: Extract) -> None:
    payload(extract, "inspect")["kind"] = "refund"


def _unknown_event(extract: Extract) -> None:
    payload(extract, "reserve")["plan"]["event"] = {"event": "magic"}


def _half_an_event(extract: Extract) -> None:
    of = payload(extract, "reserve")["plan"]["event"]
    of["count"] = 1.5


def _other_adjacency(extract: Extract) -> None:
    payload(extract, "open")["budget"]["adjacency"] = "replace_one"


def _other_format(extract: Extract) -> None:
    extract["format_version"] = 2


def _hopeless_event(extract: Extract) -> None:
    payload(extract, "reserve")["plan"]["event"] = event_to_json(Exponential(Fraction(10**12)))


def _explosive_charge(extract: Extract) -> None:
    payload(extract, "reserve")["plan"]["charge"]["epsilon"] = "1e-999999999"


FORGERIES = [
    _raise_budget_later,
    _reserve_twice,
    _negative_charge,
    _undercharge,
    _undercharge_delta,
    _overspend,
    _overspend_delta,
    _hand_back_after_reading,
    _hand_back_twice,
    _use_after_handing_back,
    _answer_without_beginning,
    _begin_a_part_twice,
    _mix_units,
    _change_account,
    _unknown_kind,
    _unknown_event,
    _half_an_event,
    _other_adjacency,
    _other_format,
    _hopeless_event,
    _explosive_charge,
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forgery_with_a_good_chain_is_found_out(
    extract: Extract, forge: Callable[[Extract], None]
) -> None:
    forge(extract)
    assert verify_extract(rechained(extract)).faults != []


def test_the_fault_of_an_undercharged_plan_says_by_how_much(extract: Extract) -> None:
    _undercharge(extract)
    faults = verify_extract(rechained(extract)).faults
    assert len(faults) == 1
    assert re.search(r"was charged epsilon 0.25 but costs 0\.(29|3)", faults[0])


def test_a_plan_under_its_price_reserved_by_mistake_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Ledger(tmp_path / "ledger.db").account("patients", Budget(1, 1e-6))
    with pytest.raises(InvalidRequest, match="It costs epsilon"):
        account.reserve(Gaussian(Fraction(1)), 0.5, 1e-7, unit=UNIT, label="wrong")
    monkeypatch.setattr(Filter, "charge", lambda _, __, epsilon, delta, ___: Charge(epsilon, delta))
    account.reserve(Gaussian(Fraction(1)), 0.5, 1e-7, unit=UNIT, label="wrong")
    assert account.ledger.verify("patients") == []
    assert any("but costs" in fault for fault in verify_extract(account.extract()).faults)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"entries": None},
        {"entries": [None], "account": "a", "head": "", "format_version": 1},
        {"entries": [{"payload": [], "hash": ""}], "account": "a", "head": "", "format_version": 1},
        {"entries": [{"payload": {"kind": []}, "hash": "x"}], "account": "a", "head": "x"},
        {
            "entries": [{"payload": {"kind": "open", "name": "\ud800"}, "hash": "x"}],
            "account": "a",
            "head": "x",
            "format_version": 1,
        },
        [],
    ],
)
def test_nonsense_is_a_fault_not_a_crash(data: Any) -> None:
    assert verify_extract(data).faults != []


def test_the_chain_hash_by_hand() -> None:
    # printf '%064d\n{"a":2,"b":1}' 0 | sha256sum
    assert chain_hash(GENESIS, {"b": 1, "a": 2}) == (
        "14316b54d29b0426d46839aba7a90e2300fae5e1fd71b32019db92fee52d4488"
    )


# -- entries of every kind -------------------------------------------------------------------------


@pytest.fixture
def eventful(tmp_path: Path) -> Extract:
    """An account under zCDP that was charged, declared to, copied, moved away and back."""
    first, second = Ledger(tmp_path / "first.db"), Ledger(tmp_path / "second.db")
    policy = Policy(Budget(1, 1e-6), filter=Filter("zcdp"))
    account = first.account("patients", policy)
    used = account.reserve(Gaussian(Fraction(20)), 0.5, 1e-6, unit=UNIT, label="fit")
    used.begin(0, "question")
    account.attach("2026-01", "visits", by="ada")
    account.override("staff", "the same hospital", by="ada")
    account.declare(
        Gaussian(Fraction(30)), 0.5, 1e-6, unit=UNIT, adjacency=ADJACENCY, source="x", by="ada"
    )
    account = second.take_in(account.move_out(second.identity))
    second.path.rename(tmp_path / "away.db")
    shutil.copy(tmp_path / "away.db", second.path)
    second.close()
    second.adopt("another disk", "ada")
    account.reserve(Gaussian(Fraction(40)), 0.5, 1e-6, unit=UNIT, label="fit")
    return first.take_in(account.move_out(first.identity)).extract()


def test_entries_of_every_kind_verify(eventful: Extract) -> None:
    state = verify_extract(json.loads(json.dumps(eventful)))
    assert state.faults == []
    kinds = [entry["payload"]["kind"] for entry in eventful["entries"]]
    there = ["open", "reserve", "begin", "attach", "override", "declare", "move", "arrive"]
    assert kinds == [*there, "adopt", "reserve", "move", "arrive"]
    parts = [Fraction(1, 800), Fraction(1, 1800), Fraction(1, 3200)]
    assert state.spent.cost == sum(parts)
    assert state.policy == Policy(Budget(1, 1e-6), filter=Filter("zcdp"))
    assert (state.moved, state.since) == (False, 11)
    assert state.made_elsewhere(next(iter(state.plans)))
    assert state.spent_epsilon == Fraction(3, 2)
    assert verify_extract(rechained(copy.deepcopy(eventful))).faults == []


def _cheaper(extract: Extract) -> None:
    payload(extract, "reserve")["cost"]["cost"] = "1/9999"


def _costless(extract: Extract) -> None:
    del payload(extract, "reserve")["cost"]


def _negative(extract: Extract) -> None:
    payload(extract, "declare")["cost"]["cost"] = "-1/1800"


def _cheaper_elsewhere(extract: Extract) -> None:
    payload(extract, "declare")["cost"]["cost"] = "1/9999"


def _other_adjacency_elsewhere(extract: Extract) -> None:
    payload(extract, "declare")["adjacency"] = "replace_one"


def _other_unit_elsewhere(extract: Extract) -> None:
    payload(extract, "declare")["plan"]["unit"] = {"unit": "person"}


def _understated_elsewhere(extract: Extract) -> None:
    payload(extract, "declare")["plan"]["charge"]["epsilon"] = "1/1000"


def _spend_after_moving(extract: Extract) -> None:
    at = next(i for i, e in enumerate(extract["entries"]) if e["payload"]["kind"] == "arrive")
    del extract["entries"][at]


def _arrive_twice(extract: Extract) -> None:
    extract["entries"].append(copy.deepcopy(extract["entries"][-1]))


def _continue_elsewhere(extract: Extract) -> None:
    entry = copy.deepcopy(next(e for e in extract["entries"] if e["payload"]["kind"] == "begin"))
    entry["payload"]["time"] = extract["entries"][-1]["payload"]["time"]
    extract["entries"].append(entry)


def _hand_back_elsewhere(extract: Extract) -> None:
    entry = copy.deepcopy(extract["entries"][-1])
    entry["payload"]["kind"] = "void"
    entry["payload"]["reservation"] = payload(extract, "reserve", 1)["reservation"]
    extract["entries"].append(entry)


def _back_date(extract: Extract) -> None:
    extract["entries"][-1]["payload"]["time"] = "2001-01-01T00:00:00+00:00"


def _forward_date(extract: Extract) -> None:
    extract["entries"][3]["payload"]["time"] = "2999-01-01T00:00:00+00:00"


def _timeless(extract: Extract) -> None:
    extract["entries"][3]["payload"]["time"] = "noon"


def _zoneless(extract: Extract) -> None:
    extract["entries"][3]["payload"]["time"] = "2026-01-01T00:00:00"


def _another_filter(extract: Extract) -> None:
    payload(extract, "open")["filter"] = "rdp-16"


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (_cheaper, "was charged rho"),
        (_costless, "not counted as"),
        (_negative, "not counted as"),
        (_cheaper_elsewhere, "was charged rho"),
        (_other_adjacency_elsewhere, "another adjacency"),
        (_other_unit_elsewhere, "another unit"),
        (_understated_elsewhere, "but costs"),
        (_spend_after_moving, "a moved account arrives"),
        (_arrive_twice, "a moved account arrives"),
        (_continue_elsewhere, "continued in another"),
        (_hand_back_elsewhere, "continued in another"),
        (_back_date, "back-dated"),
        (_forward_date, "back-dated"),
        (_timeless, "cannot be read"),
        (_zoneless, "cannot be read"),
        (_another_filter, "but costs"),
    ],
)
def test_a_forgery_of_an_eventful_chain_is_found_out(
    eventful: Extract, forge: Callable[[Extract], None], words: str
) -> None:
    forge(eventful)
    faults = verify_extract(rechained(eventful)).faults
    assert any(words in fault for fault in faults), faults


def test_an_extract_of_the_first_format_verifies() -> None:
    """As the first release wrote it, before ledgers had identities, places and policies."""
    path = Path(__file__).with_name("extract_v1.json")
    state = verify_extract(json.loads(path.read_text(encoding="utf-8")))
    assert state.faults == []
    assert (state.spent_epsilon, state.spent_delta) == (Fraction(4, 5), Fraction(8, 10**7))
    assert (len(state.answers), len(state.releases), state.inspections) == (2, 1, 1)
    assert state.policy == Policy(Budget(1, 1e-6))
    assert (state.ledger, state.place) == (None, None)
