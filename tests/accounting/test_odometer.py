"""The odometer: what it adds up, against sums made by hand and over random lives."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsynth_accounting import (
    ADJACENCY,
    Account,
    ApproxDP,
    Budget,
    DiscreteGaussian,
    Exponential,
    Filter,
    Gaussian,
    InvalidRequest,
    Ledger,
    Parallel,
    Policy,
    Repeat,
    Sequence,
    SubsampledGaussian,
    curve,
    odometer,
)

ROW = {"unit": "row"}
PLAN = Sequence(
    (
        Repeat(DiscreteGaussian(Fraction(300)), 5),
        Repeat(Exponential(Fraction(1, 10)), 4),
        ApproxDP(Fraction(0), Fraction(1, 10**12)),
    )
)
NOISE = Gaussian(Fraction(60))


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    ledger = Ledger(tmp_path / "ledger.db")
    yield ledger.account("patients", Budget(3, 1e-6))
    ledger.close()


def declare(account: Account, epsilon: str, delta: str, source: str = "a survey") -> None:
    account.declare(
        ApproxDP(Fraction(epsilon), Fraction(delta)),
        Fraction(epsilon),
        Fraction(delta),
        unit=ROW,
        adjacency=ADJACENCY,
        source=source,
        by="ada",
    )


def live(account: Account) -> None:
    """Two releases, a void, a declared spend, and one charge that nothing was released from."""
    account.reserve(PLAN, 0.8, 2e-7, unit=ROW, label="run mst")
    account.reserve(NOISE, 0.1, 1e-7, unit=ROW, label="audit")
    account.record("release", {"manifest": "aa" * 32})
    account.reserve(PLAN, 0.8, 2e-7, unit=ROW, label="run mst").void()
    declare(account, "1/4", "0")
    account.record("inspect", {"purpose": "a look"})
    account.reserve(NOISE, 0.1, 1e-7, unit=ROW, label="audit")
    account.record("release", {"manifest": "bb" * 32})
    account.reserve(NOISE, 0.2, 1e-7, unit=ROW, label="table 3")


def test_sums_by_release_label_and_mechanism(account: Account) -> None:
    live(account)
    found = odometer(account.extract())
    assert found.faults == ()
    assert found.spent == (Fraction("1.2"), Fraction("5e-7"))
    assert found.left == account.remaining() == (Fraction("1.55"), Fraction("5e-7"))
    assert [(p.name, p.charges, p.epsilon, p.delta) for p in found.by_release()] == [
        (f"release 1 ({'a' * 12})", 2, 0.9, 3e-7),
        (f"release 2 ({'b' * 12})", 2, 0.35, 1e-7),
        ("not released", 1, 0.2, 1e-7),
    ]
    assert [(p.name, p.charges, p.epsilon) for p in found.by_label()] == [
        ("run mst", 1, 0.8),
        ("a survey", 1, 0.25),
        ("audit", 2, 0.2),
        ("table 3", 1, 0.2),
    ]
    counts = {p.name: (p.charges, p.answers) for p in found.by_mechanism()}
    assert counts == {
        "discrete Gaussian noise": (1, 5),
        "selections": (1, 4),
        "Gaussian noise": (3, 3),
        "stated (epsilon, delta)": (1, 1),
    }
    assert found.inspections == 1


def test_enforced_and_declared_are_apart_over_time(account: Account) -> None:
    live(account)
    found = odometer(account.extract())
    assert found.cumulative() == [
        (Fraction("0.8"), 0),
        (Fraction("0.9"), 0),
        (Fraction("0.9"), Fraction(1, 4)),
        (1, Fraction(1, 4)),
        (Fraction("1.2"), Fraction(1, 4)),
    ]
    assert found.total(enforced=True).cost == Fraction("1.2")
    assert found.total(enforced=False).cost == Fraction(1, 4)
    sums = found.so_far(releasing=True)
    assert (sums.releases, sums.charges) == (3, 4)
    assert (sums.epsilon, sums.declared_epsilon) == (Fraction("1.2"), Fraction(1, 4))


def test_a_plans_epsilon_is_apportioned_by_what_its_parts_cost_alone(account: Account) -> None:
    account.reserve(PLAN, 0.8, 2e-7, unit=ROW, label="run mst")
    (spend,) = odometer(account.extract()).spends
    delta = Fraction(2, 10**7)
    noise = curve(Repeat(DiscreteGaussian(Fraction(300)), 5)).epsilon(delta)
    choices = curve(Repeat(Exponential(Fraction(1, 10)), 4)).epsilon(delta)
    assert spend.shares["selections"] == pytest.approx(choices / (noise + choices), rel=1e-6)
    assert sum(spend.shares.values()) == pytest.approx(1)


def test_parts_of_a_parallel_event_and_steps_are_counted(account: Account) -> None:
    steps = SubsampledGaussian(Fraction(1, 100), Fraction(2), 50)
    account.reserve(
        Sequence((Parallel((NOISE, Repeat(NOISE, 2))), steps)), 1, 1e-7, unit=ROW, label="mixed"
    )
    counts = {p.name: p.answers for p in odometer(account.extract()).by_mechanism()}
    assert counts == {"Gaussian noise": 3, "DP-SGD steps": 50}


def test_text_says_what_the_numbers_are(account: Account) -> None:
    live(account)
    text = odometer(account.extract()).text()
    assert "Enforced  epsilon 1.2, delta 5e-07, in 4 charge(s)." in text
    assert "Declared  epsilon 0.25, delta 0, in 1 spend(s) made elsewhere: counted, not" in text
    assert "Left      epsilon 1.55 for one further plan" in text
    assert "Inspections by the custodian, which no epsilon covers: 1." in text
    assert "not released" in text
    assert text.count("declared") >= 1
    assert "1.45" in text.splitlines()[-1]


def test_json_is_plain_and_adds_up(account: Account) -> None:
    live(account)
    found = json.loads(json.dumps(odometer(account.extract()).to_json()))
    assert found["measure"] == "epsilon"
    assert found["capacity"] == 3.0
    assert [each["enforced"] for each in found["charges"]] == [True, True, False, True, True]
    assert found["charges"][-1]["enforced_so_far"] == 1.2
    assert found["charges"][-1]["declared_so_far"] == 0.25
    assert found["charges"][2]["source"] == "a survey"


def test_an_empty_account_has_spent_nothing(account: Account) -> None:
    found = odometer(account.extract())
    assert found.spends == ()
    assert found.spent == (0, 0)
    assert found.left == (3, Fraction("1e-6"))
    assert "By release" not in found.text()


def test_an_overdrawn_account_has_nothing_left(account: Account) -> None:
    account.reserve(NOISE, 0.1, 1e-7, unit=ROW, label="audit")
    declare(account, "5", "0")
    found = odometer(account.extract())
    assert found.left == account.remaining()
    assert found.left[0] == 0
    assert found.spent[0] == Fraction("0.1")


@pytest.mark.parametrize("name", ["gdp", "zcdp", "rdp-16"])
def test_other_filters_add_up_in_their_own_measure(tmp_path: Path, name: str) -> None:
    account = Ledger(tmp_path / "ledger.db").account(
        "patients", Policy(Budget(3, 1e-6), filter=Filter.named(name))
    )
    for _ in range(20):
        account.reserve(NOISE, 0.1, 1e-6, unit=ROW, label="audit")
    found = odometer(account.extract())
    assert found.to_json()["measure"] == Filter.named(name).measure
    one = found.spends[0].cost.cost
    assert found.total(enforced=True).cost == 20 * one
    assert found.cumulative()[-1] == (20 * one, 0)
    assert found.left == account.remaining()
    # Twenty at 0.1 are less than 2 together: what such an account is for. Never below the truth.
    truth = curve(Repeat(NOISE, 20)).epsilon(Fraction("1e-6"))
    assert truth <= float(found.spent[0]) < 2
    assert "do not add up" in found.text()


def test_a_tampered_chain_is_named_before_any_figure(account: Account) -> None:
    live(account)
    extract = account.extract()
    extract["entries"][1]["payload"]["plan"]["charge"]["epsilon"] = "1/100"
    found = odometer(extract)
    assert found.faults
    assert found.text().startswith("FAULT: ")


def test_a_chain_that_opens_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="opens no account"):
        odometer({"account": "nobody", "entries": []})


charges = st.lists(
    st.tuples(
        st.sampled_from(["charge", "declare", "void", "release"]),
        st.fractions(Fraction(1, 50), Fraction(1, 10), max_denominator=60),
        st.sampled_from(["one", "two", "three"]),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(charges)
def test_every_view_adds_up_to_the_whole(
    life: list[tuple[str, Fraction, str]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        account = ledger.account("patients", Budget(3, 1e-6))
        enforced = declared = Fraction(0)
        for kind, epsilon, label in life:
            event = ApproxDP(epsilon, Fraction(0))
            if kind == "release":
                account.record("release", {"manifest": "cc" * 32})
            elif kind == "declare":
                declare(account, str(epsilon), "0", label)
                declared += epsilon
            else:
                made = account.reserve(event, epsilon, 1e-9, unit=ROW, label=label)
                enforced += epsilon
                if kind == "void":
                    made.void()
                    enforced -= epsilon
        found = odometer(account.extract())
        ledger.close()
    assert found.faults == ()
    assert found.total(enforced=True).cost == enforced == found.spent[0]
    assert found.total(enforced=False).cost == declared
    whole = pytest.approx(float(enforced + declared))
    for view in (found.by_release(), found.by_label(), found.by_mechanism()):
        assert sum(part.epsilon for part in view) == whole
    assert found.left[0] == 3 - enforced - declared
