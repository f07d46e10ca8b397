"""A mixed campaign: discovery, marginals, DP-SGD and audit, in one plan and one account."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth.deep import Autoregressive
from dpsynth.vault import Audit, Plan, scaled
from dpsynth_accounting import (
    ApproxDP,
    BudgetExceeded,
    Event,
    curve,
    odometer,
    own_delta,
    statement,
)
from dpsynth_accounting.renyi import rdp, rdp_to_approx_dp

SCHEMA = dp.Schema({"a": dp.Open(), "b": dp.Integer(0, 3), "c": dp.Integer(0, 4)})
ROWS = 1500
TABLE = pd.DataFrame({"a": np.arange(ROWS) % 3, "b": np.arange(ROWS) % 4, "c": np.arange(ROWS) % 5})
DELTA = Fraction(1, 10**6)
MARGINALS, NEURAL = dp.MST(), Autoregressive(rate=0.1, iterations=100)


@pytest.fixture
def vault(tmp_path: Path) -> dp.Vault:
    account = dp.Ledger(tmp_path / "ledger.db").account("people", dp.Budget(2, DELTA))
    return dp.Vault(TABLE, SCHEMA, account, unit=dp.Row(), audit_share=0.0)


def campaign(vault: dp.Vault) -> Plan:
    """Carry out two fits and a comparison as one plan; discovery is put in front."""
    columns = SCHEMA.modelled
    steps = (
        *scaled(MARGINALS.steps(columns), 0.45),
        *scaled(NEURAL.steps(columns), 0.5),
        Audit(0, 1, 0.05),
    )
    with vault.reserve(steps, epsilon=2, delta=DELTA, label="campaign") as block:
        models = [MARGINALS.run(block), NEURAL.run(block)]
        ones = {("b",): np.full(4, ROWS // 4, np.int64)}
        block.audit((), ones, about=hashlib.sha256(b"a table").hexdigest())
    for model in models:
        drawn = model.sample(200, rng=np.random.default_rng(1))
        assert list(drawn.columns) == list(SCHEMA.columns)
    return block.plan


def by_renyi(event: Event, delta: Fraction) -> float:
    """Return the epsilon of the best whole order, deltas of its own set aside."""
    rest, own = own_delta(event)
    left = float(delta - own)
    return min(rdp_to_approx_dp(rdp(rest, order), order, left) for order in range(2, 200))


def test_it_is_one_price_below_the_sum_and_below_renyi(vault: dp.Vault) -> None:
    plan = campaign(vault)
    price = curve(plan.event).epsilon(DELTA)
    assert 1.98 < price <= 2
    assert len(plan.events) == 7  # of discovery, three of MST, two of the other, the audit
    share = DELTA / len(plan.events)
    parts = [curve(each).epsilon(share + own_delta(each)[1]) for each in plan.events]
    assert sum(parts) > 1.5 * price
    assert by_renyi(plan.event, DELTA) > 1.05 * price
    # The twin: events that are one Gaussian each would gain nothing but by adding up well.
    assert by_renyi(plan.events[-1], DELTA) >= curve(plan.events[-1]).epsilon(DELTA)


def test_the_statement_and_the_account_show_one_epsilon(vault: dp.Vault) -> None:
    plan = campaign(vault)
    assert vault.account.remaining()[0] == 0
    with pytest.raises(BudgetExceeded):
        vault.measure([("a",)], epsilon=Fraction(1, 100))
    meter = odometer(vault.account.extract())
    promise = statement(
        plan.event,
        plan.epsilon,
        plan.delta,
        vault.unit.to_json(),
        spent=meter.so_far(releasing=True),
    )
    assert "(2, 1e-06)-differentially private" in promise.sentences()[0]
    charged = {part.name: part for part in meter.by_mechanism()}
    assert charged["DP-SGD steps"].answers == 100
    assert {"discrete Gaussian noise", "selections"} <= set(charged)
    assert sum(part.epsilon for part in charged.values()) == pytest.approx(2)
    # An attacker is bounded by the plan's own curve, which says more than (2, 1e-6) does.
    alone = statement(ApproxDP(Fraction(2), DELTA), Fraction(2), DELTA, vault.unit.to_json())
    assert promise.rates[0.01] < 0.6 * alone.rates[0.01]
