"""Vaults over small tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import dpsynth as dp

MakeVault = Callable[..., dp.Vault]


@pytest.fixture
def make_vault(tmp_path: Path) -> MakeVault:
    """Return a maker of vaults, each on an account of its own in a ledger of its own.

    In one ledger the same table under two accounts would be refused: see test_population.py.
    """
    made = 0

    def make(
        table: pd.DataFrame | str | Path,
        schema: dp.Schema,
        *,
        unit: dp.Row | dp.Person = dp.Row(),  # noqa: B008  (a frozen value)
        epsilon: float = 10.0,
        **options: object,
    ) -> dp.Vault:
        nonlocal made
        made += 1
        ledger = dp.Ledger(tmp_path / f"ledger {made}.db")
        account = ledger.account(f"account {made}", dp.Budget(epsilon, 1e-6))
        return dp.Vault(table, schema, account, unit=unit, **{"audit_share": 0.0, **options})  # type: ignore[arg-type]

    return make
