"""A divided precision: shares, refusals, replay, and noise of the scale that was paid for."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dpsynth as dp
from dpsynth.vault import Block, Divide, Dividing, Measure, _divide, _execution
from dpsynth_accounting import BudgetExceeded, GaussianBlock, InvalidRequest, choice_within
from tests.vault.conftest import MakeVault

ROWS = 400
TABLE = pd.DataFrame({"a": np.arange(ROWS) % 3, "b": np.arange(ROWS) % 2})
SCHEMA = dp.Schema({"a": dp.Integer(0, 2), "b": dp.Integer(0, 1)})
ONES = {("a",): np.zeros(3, np.int64), ("a", "b"): np.full((3, 2), 50, np.int64)}


def shared(make_vault: MakeVault, k: int = 1, answers: int = 6) -> tuple[Block, Dividing]:
    table = TABLE.assign(person=np.arange(ROWS) // k)
    vault = make_vault(table, SCHEMA, unit=dp.Person("person", rows=k), audit_share=0.0)
    with vault.reserve((Divide(answers, 1.0),), epsilon=2, label="test") as block:
        pass
    return block, block.divide()


def test_shares_add_up_to_one_and_no_further(make_vault: MakeVault) -> None:
    _, step = shared(make_vault)
    step.score(ONES, Fraction(1, 4))
    assert step.left == pytest.approx(0.75, rel=1e-5)
    assert step.answers_left == 4
    with pytest.raises(BudgetExceeded):
        step.measure([("a",), ("b",)], [Fraction(1, 2), Fraction(1, 2)])
    assert step.left == pytest.approx(0.75, rel=1e-5)  # neither was taken
    step.measure([("a",), ("b",)], [Fraction(1, 2), Fraction(1, 4)])
    assert 0 <= step.left < 1e-5
    with pytest.raises(BudgetExceeded):
        step.score(ONES, Fraction(1, 100))


def test_no_more_answers_than_declared(make_vault: MakeVault) -> None:
    _, step = shared(make_vault, answers=3)
    step.measure([("a",), ("b",)], [Fraction(1, 10)] * 2)
    with pytest.raises(BudgetExceeded, match="shift"):
        step.score(ONES, Fraction(1, 10))
    step.measure([("a",)], [Fraction(1, 10)])
    assert step.answers_left == 0


@pytest.mark.parametrize("share", [Fraction(0), Fraction(-1, 2), Fraction(3, 2)])
def test_impossible_shares_are_refused(make_vault: MakeVault, share: Fraction) -> None:
    _, step = shared(make_vault)
    with pytest.raises(InvalidRequest, match="impossible share"):
        step.score(ONES, share)
    assert step.left == 1


@pytest.mark.parametrize("k", [1, 3])
def test_noise_is_what_the_share_pays_for(make_vault: MakeVault, k: int) -> None:
    block, step = shared(make_vault, k)
    (event,) = block.plan.events
    assert isinstance(event, GaussianBlock)
    found = step.score(ONES, Fraction(1, 4))
    assert found.sigma**2 == pytest.approx(2 * k * k * 4 / float(event.precision) + 1.5, rel=1e-3)
    (one,) = step.measure([("a", "b")], [Fraction(1, 2)])
    assert one.sigma**2 == pytest.approx(k * k * 2 / float(event.precision) + 1.5, rel=1e-3)
    assert one.values.shape == (3, 2)


def test_the_scale_of_the_noise_and_a_twin(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = dp.Schema({"a": dp.Categorical(tuple(range(4000)))})

    def spread() -> float:
        vault = make_vault(TABLE[["a"]], wide, audit_share=0.0)
        with vault.reserve((Divide(1, 1.0),), epsilon=1, label="test") as block:
            (found,) = block.divide().measure([("a",)], [Fraction(1, 3)])
        return float(found.values[3:].std() / found.sigma)

    assert spread() == pytest.approx(1, abs=0.12)
    draw = _divide._noise.discrete_gaussian
    monkeypatch.setattr(_divide._noise, "discrete_gaussian", lambda s, *rest: draw(s / 2, *rest))
    assert spread() != pytest.approx(1, abs=0.12)


def test_scores_are_distances(make_vault: MakeVault) -> None:
    vault = make_vault(TABLE, SCHEMA, audit_share=0.0, epsilon=64.0)
    with vault.reserve((Divide(2, 1.0),), epsilon=60, label="test") as block:
        found = block.divide().score(ONES, Fraction(1))
    exact = [ROWS, sum(abs(50 - n) for n in np.bincount(TABLE["a"] * 2 + TABLE["b"]))]
    assert found.values.tolist() == pytest.approx(exact, abs=12)


EQUAL: dict[str, Any] = {"weights": dict.fromkeys(ONES, 1), "offsets": dict.fromkeys(ONES, 0)}


def test_a_choice_is_likelier_the_higher_its_score_as_the_share_pays_for(
    make_vault: MakeVault,
) -> None:
    """The odds of two candidates, against the exponential mechanism's; a twin is told apart."""
    share, rounds = Fraction(1, 10**4), 3000
    block, step = shared(make_vault)
    (event,) = block.plan.events
    assert isinstance(event, GaussianBlock)
    epsilon = float(choice_within(share * event.precision).epsilon)
    far = {
        ("a",): 400,
        ("a", "b"): int(np.abs(50 - np.bincount(TABLE["a"] * 2 + TABLE["b"])).sum()),
    }
    wanted = {"weights": {("a",): 8, ("a", "b"): 15}, "offsets": {("a",): -100, ("a", "b"): 30}}
    score = {c: wanted["weights"][c] * (far[c] - wanted["offsets"][c]) for c in ONES}
    odds = 1 / (1 + math.exp(epsilon * (score["a", "b"] - score["a",]) / (2 * 15)))
    assert 0.6 < odds < 0.95
    found = [step.choose(ONES, share, **wanted) for _ in range(rounds)]
    seen = found.count(("a",)) / rounds
    assert seen == pytest.approx(odds, abs=5 * math.sqrt(odds * (1 - odds) / rounds))
    twice = 1 / (1 + math.exp(epsilon * (score["a", "b"] - score["a",]) / 15))
    assert abs(seen - twice) > 5 * math.sqrt(twice * (1 - twice) / rounds)
    assert step.answers_left == 6  # a choice shifts no count


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": {("a",): 1}},
        {"weights": dict.fromkeys(ONES, 0)},
        {"weights": dict.fromkeys(ONES, 1 << 17)},
        {"offsets": dict.fromkeys(ONES, 1 << 45)},
        {"offsets": {}},
        {"weights": dict.fromkeys(ONES, 1.0)},
        {"offsets": dict.fromkeys(ONES, 0.5)},
    ],
)
def test_impossible_weights_and_offsets_are_refused(
    make_vault: MakeVault, wrong: dict[str, Any]
) -> None:
    _, step = shared(make_vault)
    with pytest.raises(InvalidRequest, match=r"weights? (and|or) offset"):
        step.choose(ONES, Fraction(1, 4), **EQUAL | wrong)
    huge = {("a",): np.full(3, 1 << 44)}
    with pytest.raises(InvalidRequest, match="impossible weight"):
        step.choose(huge, Fraction(1, 4), **EQUAL)
    assert step.left == 1


def test_a_question_about_nothing_is_refused(make_vault: MakeVault) -> None:
    _, step = shared(make_vault)
    for ask in (
        lambda: step.score({}, Fraction(1, 2)),
        lambda: step.measure([], []),
        lambda: step.choose({}, Fraction(1, 2), weights={}, offsets={}),
    ):
        with pytest.raises(InvalidRequest, match="about no marginal"):
            ask()
    with pytest.raises(InvalidRequest, match="another number of shares"):
        step.measure([("a",)], [])
    assert step.left == 1


def test_exact_counts_are_kept_for_the_block_and_no_longer(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[Any] = []
    count = _execution.marginal_counts

    def noted(codes: Any, clique: Any, *rest: Any) -> Any:
        counted.append(clique)
        return count(codes, clique, *rest)

    monkeypatch.setattr(_execution, "marginal_counts", noted)
    halves = {"a": np.array([0, 0, 1])}
    vault = make_vault(TABLE, SCHEMA, audit_share=0.0)
    with vault.reserve((Divide(9, 1.0),), epsilon=1, label="test") as block:
        step = block.divide()
        for _ in range(2):
            step.score(ONES, Fraction(1, 8))
            step.choose(ONES, Fraction(1, 8), **EQUAL)
            step.score({("a",): np.zeros(2, np.int64)}, Fraction(1, 8), halves)
        assert counted == [*ONES, ("a",)]
        assert len(block._kept) == 3
        block._room = 0
        step.score({("b",): np.zeros(2, np.int64)}, Fraction(1, 8))
        assert len(block._kept) == 3
    step.choose(ONES, Fraction(1, 16), **EQUAL)  # after the end still paid for, and not kept
    assert block._kept == {}


def test_a_resumed_step_replays_what_was_drawn(make_vault: MakeVault) -> None:
    def ask(step: Dividing) -> list[Any]:
        first = step.score(ONES, Fraction(1, 4)).values.tolist()
        (one,) = step.measure([("a",)], [Fraction(1, 2)])
        chosen = step.choose(ONES, Fraction(1, 8), **EQUAL)
        return [first, one.values.tolist(), chosen]

    vault = make_vault(TABLE, SCHEMA)
    plan: dict[str, Any] = {"epsilon": 2, "label": "test"}
    with vault.reserve((Divide(6, 1.0),), **plan) as block:
        seen = ask(block.divide())
    left = vault.account.remaining()
    with vault.reserve((Divide(6, 1.0),), resume=True, **plan) as block:
        assert ask(block.divide()) == seen
    assert vault.account.remaining() == left


def test_a_step_is_divided_only_where_it_was_declared(make_vault: MakeVault) -> None:
    vault = make_vault(TABLE, SCHEMA)
    with (
        vault.reserve((Measure(1, 1.0),), epsilon=1, label="test") as block,
        pytest.raises(InvalidRequest, match="Divide"),
    ):
        block.divide()
