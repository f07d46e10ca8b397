"""Games of whole mechanisms: with and without one unit, what can be told is within the claim.

The unit has a value that nobody else has, in every column, and is looked for where it must show.
A lower bound on epsilon follows from how often it is told (Nasr et al. 2021, "Adversary
instantiation", section 4.2); it must not exceed what was charged. A twin with a twentieth of the
noise does exceed it, so the games can tell.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth.attacks.statistics import clopper_pearson
from dpsynth.synthesizer import named
from dpsynth.vault import _noise

EPSILON, DELTA = 2.0, 1e-6
SCHEMA = dp.Schema({name: dp.Categorical(("x", "y", "z")) for name in "abc"})
OTHERS = [["x", "x", "x"]] * 6 + [["y", "y", "x"]] * 6
METHODS = ("independent", "mst", "clique-tree", "aim", "mwem", "privbayes")


def told(method: str, rows: list[list[str]], folder: Path, game: str) -> bool:
    """Fit once; say whether the value that only the unit has seems to be there."""
    account = dp.Ledger(folder / f"{game}.db").account("x", dp.Budget(EPSILON, DELTA))
    table = pd.DataFrame(rows, columns=list("abc"))
    vault = dp.Vault(table, SCHEMA, account, unit=dp.Row(), audit_share=0.0)
    model: Any = named(method, {}).fit(vault, epsilon=EPSILON)
    return bool(sum(model.marginal((name,))[2] for name in "abc") > 1.5)


def least_epsilon(method: str, folder: Path, games: int) -> float:
    """Return a lower bound that exceeds the true epsilon in at most one of a thousand tests."""
    seen = {
        side: sum(told(method, OTHERS + extra, folder, f"{side}{i}") for i in range(games))
        for side, extra in (("in", [["z", "z", "z"]]), ("out", []))
    }
    bounds = {side: clopper_pearson(count, games, 0.999) for side, count in seen.items()}
    high, low = bounds["in"], bounds["out"]
    ratios = [(high.low - DELTA) / low.high, (1 - low.high - DELTA) / (1 - high.low)]
    return max(math.log(ratio) if ratio > 0 else 0.0 for ratio in ratios)


@pytest.fixture
def noise_of_a_twentieth(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = _noise.discrete_gaussian

    def little(sigma2: Fraction, *rest: Any) -> np.ndarray:
        return drawn(sigma2 / 400, *rest)

    monkeypatch.setattr(_noise, "discrete_gaussian", little)


def test_a_mechanism_tells_no_more_than_it_claims(tmp_path: Path) -> None:
    assert least_epsilon("clique-tree", tmp_path, 60) <= EPSILON


@pytest.mark.usefixtures("noise_of_a_twentieth")
def test_its_twin_of_little_noise_is_flagged(tmp_path: Path) -> None:
    assert least_epsilon("clique-tree", tmp_path, 80) > EPSILON


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_no_mechanism_tells_more_than_it_claims(method: str, tmp_path: Path) -> None:
    assert least_epsilon(method, tmp_path, 150) <= EPSILON


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("noise_of_a_twentieth")
def test_every_twin_of_little_noise_is_flagged(method: str, tmp_path: Path) -> None:
    assert least_epsilon(method, tmp_path, 80) > EPSILON
