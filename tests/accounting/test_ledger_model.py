"""The ledger against a plain model of it in memory: whatever is done in whatever order."""

from __future__ import annotations

import shutil
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dpsynth_accounting import (
    ApproxDP,
    Budget,
    BudgetExceeded,
    Charge,
    Event,
    Exponential,
    Filter,
    InvalidRequest,
    Ledger,
    Policy,
    Reservation,
    verify_extract,
)
from dpsynth_accounting.budget import ADJACENCY

UNIT = {"unit": "row"}
BUDGET = Budget(1, 1e-6)
PLANS: dict[Fraction, Event] = {
    claim: Exponential(claim) for claim in map(Fraction, ("1/20", "1/7", "1/3", "9/10"))
}
DELTA = Fraction(1, 10**7)


class Model(RuleBasedStateMachine):
    """Charges are a dictionary and a sum; what the ledger grants must be what the sum allows."""

    @initialize(name=st.sampled_from(["additive", "gdp", "zcdp", "rdp-16"]))
    def opened(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.filter = Filter(name)
        self.ledger = Ledger(self.folder / "ledger.db")
        # Nothing here is about a machine that loses power, and most of the time goes on it.
        self.ledger._store._connection().execute("PRAGMA synchronous=OFF")  # type: ignore[attr-defined]
        self.account = self.ledger.account("people", Policy(BUDGET, filter=self.filter))
        self.capacity = self.filter.capacity(BUDGET)
        self.spent = Charge(Fraction(0), Fraction(0))
        self.reserved: list[tuple[Reservation, Charge]] = []
        self.begun: set[str] = set()
        self.voided: set[str] = set()
        self.entries = 1

    def cost(self, claim: Fraction) -> Charge:
        if self.filter.name == "additive":
            return Charge(claim, DELTA)
        return self.filter.cost(PLANS[claim], BUDGET)

    @rule(claim=st.sampled_from(sorted(PLANS)))
    def reserve(self, claim: Fraction) -> None:
        cost = self.cost(claim)
        granted = (self.spent + cost).fits(self.capacity)
        try:
            made = self.account.reserve(PLANS[claim], claim, DELTA, unit=UNIT, label="plan")
        except BudgetExceeded:
            assert not granted
            return
        assert granted
        self.spent += cost
        self.reserved.append((made, cost))
        self.entries += 1

    @rule(claim=st.sampled_from(sorted(PLANS)))
    def declare(self, claim: Fraction) -> None:
        self.account.declare(
            PLANS[claim], claim, DELTA, unit=UNIT, adjacency=ADJACENCY, source="x", by="ada"
        )
        self.spent += self.cost(claim)
        self.entries += 1

    @rule(claim=st.sampled_from(sorted(PLANS)))
    def underprice(self, claim: Fraction) -> None:
        try:
            self.account.reserve(
                ApproxDP(2 * claim, Fraction(0)), claim, DELTA, unit=UNIT, label="plan"
            )
        except InvalidRequest:
            return
        raise AssertionError("a plan was granted for half its price")

    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        if not self.reserved:
            return
        made, _ = data.draw(st.sampled_from(self.reserved))
        try:
            made.begin(0, "q")
        except InvalidRequest:
            assert made.identity in self.voided
            return
        assert made.identity not in self.voided
        self.begun.add(made.identity)
        self.entries += 1

    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        if not self.reserved:
            return
        made, cost = data.draw(st.sampled_from(self.reserved))
        free = made.identity not in self.begun | self.voided
        assert made.void() == free
        if free:
            self.voided.add(made.identity)
            self.spent -= cost
            self.entries += 1

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.ledger.path)
        self.account = self.ledger.existing("people")
        self.reserved = [
            (Reservation(self.account, made.identity, made.meta), cost)
            for made, cost in self.reserved
        ]

    @invariant()
    def agrees(self) -> None:
        assert self.account.spent == self.spent
        epsilon, delta = self.account.remaining()
        if self.filter.name == "additive":
            left = self.capacity - self.spent
            assert (epsilon, delta) == (max(left.cost, Fraction(0)), max(left.delta, Fraction(0)))
        else:
            assert delta == BUDGET.delta
            assert 0 <= epsilon <= BUDGET.epsilon

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        assert self.ledger.verify("people") == []
        state: Any = verify_extract(self.account.extract())
        assert state.faults == []
        assert (state.spent, state.length) == (self.spent, self.entries)
        self.ledger.close()
        shutil.rmtree(self.folder)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
