"""Games of each paid answer of the vault, with and without one unit, and of a broken twin of each.

The tables are the worst that one unit can do to the answer, the attacker's rule is fixed before a
game is played, and what can be told is set against what was charged: a lower bound on epsilon from
exact intervals of two rates (Nasr et al. 2021, "Adversary instantiation", section 4.2). It exceeds
the truth in at most two of 10**8 tests, so none of these tests fails by chance. Training has games
of its own, in ``test_train_audit.py``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import dpsynth as dp
from dpsynth.attacks.statistics import clopper_pearson
from dpsynth.vault import Divide, Statistic, Vault, _noise

pytestmark = pytest.mark.slow

EPSILON, DELTA = 1.0, 1e-6
AUDITED = 0.5  # an audit looks at half of the units, so of them less can be told
GAMES = 120
CONFIDENCE = 1 - 1e-8

SCHEMA = dp.Schema({name: dp.Categorical(("x", "y", "z")) for name in "ab"})
OPEN = dp.Schema({"a": dp.Open(), "b": dp.Categorical(("x", "y", "z"))})
OTHERS = [["x", "x"]] * 8 + [["y", "x"]] * 8
UNIT = ["z", "z"]


def vault(folder: Path, rows: list[list[str]], schema: dp.Schema, share: float = 0.0) -> Vault:
    account = dp.Ledger(folder / "ledger.db").account("x", dp.Budget(EPSILON, DELTA))
    table = pd.DataFrame(rows, columns=list("ab"))
    return dp.Vault(table, schema, account, unit=dp.Row(), audit_share=share)


def measure(of: Vault) -> bool:
    (found,) = of.measure([("a",)], epsilon=EPSILON)
    return bool(found.values[2] >= 1)


def select(of: Vault) -> bool:
    """One score rises by one with the unit, the other falls by one: more it cannot do."""
    answers = {
        ("a",): np.array([8, 8, 0], dtype=np.int64),
        ("b",): np.array([16, 0, 1], dtype=np.int64),
    }
    chosen = of.select(answers, lambda _: list(answers), rounds=1, epsilon=EPSILON)
    return chosen == (("a",),)


def divide(of: Vault) -> bool:
    with of.reserve([Divide(1, 1.0)], epsilon=EPSILON, label="divide") as block:
        (found,) = block.divide().measure([("a",)], [Fraction(1)])
    return bool(found.values[2] >= 1)


class IsUnit:
    name = "is the unit"
    threshold = 0.5

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        return (records[:, 0] == 2).astype(np.float64)


def audit(of: Vault) -> bool:
    found = of.audit([Statistic(IsUnit())], {}, about="a table", epsilon=AUDITED)
    return found.counts[0].audit_in + found.counts[0].held_out >= 1


def discover(of: Vault) -> bool:
    domain = of.discover(epsilon=EPSILON)
    return "z" in domain.codecs["a"].to_json()["texts"]


def least_epsilon(play: Callable[[Path, bool], bool], folder: Path, games: int = GAMES) -> float:
    """Return a lower bound on epsilon from games with and without the unit."""
    told = {}
    for inside in (True, False):
        count = 0
        for i in range(games):
            place = folder / f"{inside} {i}"
            place.mkdir()
            count += play(place, inside)
        told[inside] = clopper_pearson(count, games, CONFIDENCE)
    high, low = told[True], told[False]
    ratios = [(high.low - DELTA) / low.high, (1 - low.high - DELTA) / (1 - high.low)]
    return max(math.log(ratio) if ratio > 0 else 0.0 for ratio in ratios)


@pytest.fixture
def without_noise() -> Iterator[Callable[[], None]]:
    """Return what breaks every sampler: no noise, and choices of the greatest score."""
    patch = pytest.MonkeyPatch()

    def breaks() -> None:
        drawn = _noise.exponential

        def none(_: object, shape: tuple[int, ...], *rest: Any) -> NDArray[np.int64]:
            del rest
            return np.zeros(shape, dtype=np.int64)

        patch.setattr(_noise, "discrete_gaussian", none)
        patch.setattr(_noise, "exponential", lambda v, e, *rest: drawn(v, 20 * e, *rest))

    yield breaks
    patch.undo()


GAMES_OF: dict[str, Callable[[Vault], bool]] = {
    "measure": measure,
    "select": select,
    "divide": divide,
    "audit": audit,
}


def terms(name: str) -> tuple[float, int]:
    """Return what an answer is charged, and how many games are played on each side."""
    return (AUDITED, 2 * GAMES) if name == "audit" else (EPSILON, GAMES)


def player(name: str) -> Callable[[Path, bool], bool]:
    share = 0.5 if name == "audit" else 0.0

    def play(folder: Path, inside: bool) -> bool:
        return GAMES_OF[name](vault(folder, OTHERS + [UNIT] * inside, SCHEMA, share))

    return play


@pytest.mark.parametrize("name", GAMES_OF)
def test_an_answer_tells_no_more_than_was_charged(name: str, tmp_path: Path) -> None:
    charged, games = terms(name)
    assert least_epsilon(player(name), tmp_path, games) <= charged


@pytest.mark.parametrize("name", GAMES_OF)
def test_an_answer_without_noise_is_flagged(
    name: str, tmp_path: Path, without_noise: Callable[[], None]
) -> None:
    without_noise()
    charged, games = terms(name)
    assert least_epsilon(player(name), tmp_path, games) > charged


def at_the_threshold(copies: int) -> Callable[[Path, bool], bool]:
    def play(place: Path, inside: bool) -> bool:
        rows = OTHERS + [UNIT] * (copies + inside)
        return discover(vault(place, rows, OPEN))

    return play


def threshold(folder: Path) -> int:
    """Return how many rows of a category do not show it where there is no noise; one more does."""
    for copies in itertools.count(1):
        place = folder / f"threshold {copies}"
        place.mkdir()
        if discover(vault(place, OTHERS + [UNIT] * copies, OPEN)):
            return copies - 1
    raise AssertionError


def test_a_discovery_tells_no_more_than_was_charged(tmp_path: Path) -> None:
    assert least_epsilon(at_the_threshold(20), tmp_path) <= EPSILON


def test_a_discovery_without_noise_is_flagged(
    tmp_path: Path, without_noise: Callable[[], None]
) -> None:
    without_noise()
    copies = threshold(tmp_path)
    assert least_epsilon(at_the_threshold(copies), tmp_path) > EPSILON
