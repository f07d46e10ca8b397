"""Private selection through the vault: what runs, what is shown, what is kept, what is charged."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import dpsynth as dp
from dpsynth.vault import (
    Audit,
    Block,
    Discover,
    Measure,
    Run,
    Train,
    Tune,
    Vault,
    _tune,
    make_plan,
)
from dpsynth_accounting import (
    BudgetExceeded,
    InvalidRequest,
    LedgerError,
    RepeatAndSelect,
    Sequence,
    curve,
    verify_extract,
)
from tests.vault.test_train import Means

MakeVault = Callable[..., Vault]
SCHEMA = dp.Schema({"a": dp.Categorical(("x", "y", "z")), "b": dp.Integer(0, 3)})
TABLE = pd.DataFrame({"a": ["x", "y", "z", "x"] * 50, "b": [0, 1, 2, 3] * 50})
ONE = (Measure(1, 1.0),)
TWO = (Measure(1, 0.5), Measure(1, 0.5))


def first_cell(block: Block) -> tuple[float, np.ndarray]:
    """Score a run by one of its noisy counts."""
    (found,) = block.measure([("a",)])
    return float(found.values[0]), found.values


def tuned(vault: Vault, candidates: dict[str, Any], steps: Any, runs: int = 4, **how: Any) -> Any:
    how = {"epsilon": 1, "label": "tune", **how}
    with vault.reserve((Tune(steps, runs, 1.0),), **how) as block:
        return block.tune(candidates)


# -- the plan ------------------------------------------------------------------------------------


def test_it_is_priced_with_the_rest_of_the_plan() -> None:
    steps = (
        Discover(1, 0, 0.1),
        Tune((TWO, (Measure(1, 0.1), Train(0.1, 50, 0.9))), 4, 0.8),
        Audit(4, 1, 0.1),
    )
    plan = make_plan(steps, dp.Row(), Fraction(1), Fraction(1, 10**6))
    event = plan.events[1]
    assert isinstance(event, RepeatAndSelect)
    assert event.stop == Fraction(1, 4)
    assert len(event.events) == 2
    assert 0.99 < curve(plan.event).epsilon(plan.delta) <= 1
    assert plan.describe()[1]["runs"] == 4
    assert [line["step"] for line in plan.describe()[1]["candidates"][1]] == ["measure", "train"]


def test_each_run_is_paid_for_and_more_runs_leave_less_for_each() -> None:
    """The twin would be a plan whose runs have the precision of a single fit."""
    whole = make_plan(ONE, dp.Row(), Fraction(1), Fraction(1, 10**6)).events[0]
    noises = []
    for runs in (1, 4, 40):
        event = make_plan(
            (Tune((ONE,), runs, 1.0),), dp.Row(), Fraction(1), Fraction(1, 10**6)
        ).events[0]
        assert isinstance(event, RepeatAndSelect)
        noises.append(curve(event.events[0]).epsilon(1e-6))
    assert noises[0] == pytest.approx(curve(whole).epsilon(1e-6), rel=0.01)
    assert noises[0] > noises[1] * 1.2 > noises[2] * 1.2
    twin = RepeatAndSelect((Sequence((whole,)),), Fraction(1, 4))
    assert curve(twin).epsilon(1e-6) > 1.2


@pytest.mark.parametrize(
    "step",
    [
        Tune((), 4, 1.0),
        Tune((ONE,), 0, 1.0),
        Tune((ONE, ()), 4, 1.0),
        Tune(((Tune((ONE,), 2, 1.0),),), 4, 1.0),
        Tune(((Discover(1, 0, 1.0),),), 4, 1.0),
        Tune(((Measure(0, 1.0),),), 4, 1.0),
    ],
)
def test_an_impossible_plan_is_refused(step: Tune) -> None:
    with pytest.raises(InvalidRequest):
        make_plan((step,), dp.Row(), Fraction(1), Fraction(1, 10**6))


# -- the law of what is shown --------------------------------------------------------------------


class Scripted:
    """A candidate of two equally likely scores, and a count of all runs there were."""

    def __init__(self) -> None:
        self.scores: list[float] = []

    def __call__(self, block: Block) -> tuple[float, float]:
        found = float(np.frombuffer(block._answer(0, 0, "coin", self._draw), "<f8")[0])
        self.scores.append(found)
        return found, found

    def _draw(self) -> bytes:
        return np.float64(np.random.default_rng().integers(2)).tobytes()


def shown(times: int, runs: int, vault: Vault) -> tuple[list[float], list[int]]:
    """Return the best scores of many selections, and how many runs each had."""
    best, numbers = [], []
    with vault.reserve((Tune((ONE, ONE), runs, 1.0),), epsilon=1, label="t") as block:
        step, event = block.plan.steps[0], block.plan.events[0]
        assert isinstance(step, Tune)
        for _ in range(times):
            one, two = Scripted(), Scripted()
            stored = _tune.select_best(block, step, event, {"one": one, "two": two}, [])
            numbers.append(len(one.scores) + len(two.scores))
            best.append(_tune.replay(block, step, event, {"one": one, "two": two}, stored).score)
    return best, numbers


def test_the_number_of_runs_is_geometric_and_the_best_of_them_is_shown(
    make_vault: MakeVault,
) -> None:
    """Error probability 1e-7 each; the twin, a fixed number of runs, has another law."""
    best, numbers = shown(3000, 3, make_vault(TABLE, SCHEMA))
    counted = Counter(min(number, 12) for number in numbers)
    law = [(2 / 3) ** (k - 1) / 3 for k in range(1, 12)] + [(2 / 3) ** 11]
    seen = [counted[k] for k in range(1, 13)]
    assert stats.chisquare(seen, 3000 * np.array(law)).pvalue > 1e-7
    # The greater score is missed where all K runs miss it: f(1/2) = (1/2)(1/3) / (1 - (2/3)(1/2)).
    assert stats.binomtest(best.count(0.0), 3000, 0.25).pvalue > 1e-7
    assert stats.binomtest(3000 // 8, 3000, 0.25).pvalue < 1e-7  # of always three runs


# -- what is kept and shown ----------------------------------------------------------------------


def answers(vault: Vault) -> list[bytes]:
    with vault.account.ledger._reading("test") as db:
        return [bytes(row[0]) for row in db.rows("SELECT value FROM answers")]


def test_one_answer_is_stored_and_it_holds_the_best_run_alone(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Run] = []
    real = Run.__init__

    def noted(self: Run, *given: Any) -> None:
        real(self, *given)
        runs.append(self)

    monkeypatch.setattr(Run, "__init__", noted)
    vault = make_vault(TABLE, SCHEMA)
    found = tuned(vault, {"one": first_cell, "two": first_cell}, (ONE, ONE), runs=30)
    (stored,) = answers(vault)
    kept = json.loads(stored)
    assert len(kept["answers"]) == 1
    assert kept["candidate"] == found.candidate
    *drawn, replayed = runs
    best = max(drawn, key=lambda run: float(_values(run)[0]))
    assert np.array_equal(_values(best), found.made)
    assert replayed.answers == best.answers
    kinds = [entry["payload"]["kind"] for entry in vault.account.ledger.entries("account 1")]
    assert kinds.count("answer") == kinds.count("begin") == 1


def _values(run: Run) -> np.ndarray:
    import zlib

    ((_, value),) = run.answers.values()
    return np.frombuffer(zlib.decompress(value), dtype="<i8")


@pytest.mark.parametrize("runs", [1, 60])
def test_the_extract_has_one_shape_and_no_duration_whatever_the_runs(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    """How long it took, and how much was stored, would tell the number of runs."""
    from dpsynth_accounting import _standing

    clock = iter(f"2030-01-01T00:{minute:02d}:00+00:00" for minute in range(60))

    def moment(after: str, *, day: bool = False) -> str:
        now = next(clock)
        return max(f"{now[:10]}T00:00:00+00:00" if day else now, after)

    monkeypatch.setattr(_standing, "moment", moment)
    vault, other = make_vault(TABLE, SCHEMA), make_vault(TABLE, SCHEMA)
    tuned(vault, {"one": first_cell}, (ONE,), runs=runs)
    extract = vault.account.extract()
    assert verify_extract(extract).faults == []
    entries = [entry["payload"] for entry in extract["entries"]]
    assert [each["kind"] for each in entries] == [
        "open",
        "reserve",
        "inspect",
        "begin",
        "answer",
        "commit",
    ]
    # Nor does what comes next tell when the selection ended.
    vault.measure([("a",)], epsilon=1)
    vault.account.record("inspect", {"purpose": "report"})
    later = [entry["payload"]["time"] for entry in vault.account.extract()["entries"][1:]]
    assert len(later) > 9
    assert len(set(later)) == 1
    other.measure([("a",)], epsilon=1)  # the twin: an account without one has the true times
    times = [entry["payload"]["time"] for entry in other.account.extract()["entries"][1:]]
    assert len(set(times)) > 1


def test_the_sizes_and_requests_of_losing_runs_leave_no_trace(make_vault: MakeVault) -> None:
    """The same best run among one or many gives the same bytes but for its noise."""
    sizes = []
    for runs in (1, 60):
        vault = make_vault(TABLE, SCHEMA)
        tuned(vault, {"one": first_cell}, (ONE,), runs=runs)
        (stored,) = answers(vault)
        kept = json.loads(stored)
        sizes.append([sorted(kept), [line[:3] for line in kept["answers"]]])
    assert sizes[0] == sizes[1]


# -- charging, resuming --------------------------------------------------------------------------


def test_it_is_charged_before_a_run_and_once(make_vault: MakeVault) -> None:
    vault = make_vault(TABLE, SCHEMA, epsilon=2)
    seen: list[Fraction] = []

    def looking(block: Block) -> tuple[float, None]:
        seen.append(vault.account.remaining()[0])
        block.measure([("a",)])
        return 0.0, None

    tuned(vault, {"one": looking}, (ONE,), runs=6)
    assert set(seen) == {Fraction(1)}
    with pytest.raises(BudgetExceeded):
        tuned(vault, {"one": looking}, (ONE,), epsilon=1.5)
    assert vault.account.remaining()[0] == 1


class Killed(BaseException):
    """What stops a process."""


def test_a_selection_is_replayed_and_an_interrupted_one_is_spent(make_vault: MakeVault) -> None:
    """The candidate saw answers: were they drawn again, it would see more than was paid for."""
    vault = make_vault(TABLE, SCHEMA)
    calls = 0

    def killed(block: Block) -> tuple[float, np.ndarray]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        return first_cell(block)

    with pytest.raises(Killed):
        tuned(vault, {"one": killed}, (ONE,), runs=1000)
    assert answers(vault) == []
    left = vault.account.remaining()
    for _ in range(2):
        with pytest.raises(LedgerError, match="reserved anew"):
            tuned(vault, {"one": killed}, (ONE,), runs=1000, resume=True)
    assert (calls, vault.account.remaining()) == (2, left)
    first = tuned(vault, {"one": first_cell}, (ONE,), runs=1000)
    left = vault.account.remaining()
    first = tuned(vault, {"one": first_cell}, (ONE,), runs=1000, resume=True)
    again = tuned(vault, {"one": first_cell}, (ONE,), runs=1000, resume=True)
    assert np.array_equal(first.made, again.made)
    assert vault.account.remaining() == left
    with pytest.raises(InvalidRequest, match="different question"):
        tuned(vault, {"another": first_cell}, (ONE,), runs=1000, resume=True)


def test_a_training_can_be_tuned(make_vault: MakeVault) -> None:
    """Its states are answers like others; the learner that comes back is that of the best run."""
    steps = (Train(0.5, 20, 0.9), Measure(1, 0.1))

    def trained(rate: float) -> Callable[[Block], tuple[float, Means]]:
        def run(block: Block) -> tuple[float, Means]:
            learner = Means(rate=rate)
            block.train(learner, clip=1.0, rows=200.0)
            (one,) = block.measure([("a",)])
            return float(one.values[0]), learner

        return run

    vault = make_vault(TABLE, SCHEMA)
    candidates = {"slow": trained(0.01), "fast": trained(0.3)}
    found = tuned(vault, candidates, (steps, steps), runs=3)
    assert found.made.seen == []  # it was loaded from what was stored
    again = tuned(vault, candidates, (steps, steps), runs=3, resume=True)
    for name, each in found.made.state().items():
        assert bool((again.made.state()[name] == each).all())


# -- what is refused -----------------------------------------------------------------------------


class Drawn:
    """A run that draws by torch, as any network does when it is made."""

    def __init__(self) -> None:
        self.draws: list[float] = []

    def __call__(self, block: Block) -> tuple[float, float]:
        self.draws.append(float(torch.rand(1)))
        block.measure([("a",)])
        return 0.0, self.draws[-1]


def left_by(vault: Vault) -> tuple[bool, list[float]]:
    """Return whether a tuning left torch's generator as it was, and what its runs drew."""
    torch.manual_seed(0)
    before, drawn = torch.get_rng_state(), Drawn()
    tuned(vault, {"one": drawn}, (ONE,), runs=6)
    return torch.equal(before, torch.get_rng_state()), drawn.draws


def test_torch_tells_no_number_of_runs_and_no_seed_makes_them_alike(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, draws = left_by(make_vault(TABLE, SCHEMA))
    assert same
    assert len(set(draws)) == len(draws) >= 2  # the last is that of the replay
    monkeypatch.setattr(_tune, "_fresh_draws", lambda _: contextlib.nullcontext())
    same, twins = left_by(make_vault(TABLE, SCHEMA))
    torch.manual_seed(0)
    assert not same
    assert twins[0] == float(torch.rand(1))


def test_a_run_that_was_kept_answers_nothing_more(make_vault: MakeVault) -> None:
    kept: list[Block] = []

    def keeping(block: Block) -> tuple[float, None]:
        kept.append(block)
        block.measure([("a",)])
        return 0.0, None

    tuned(make_vault(TABLE, SCHEMA), {"one": keeping}, (TWO,))
    for run in kept:
        with pytest.raises(InvalidRequest, match="further question"):
            run.measure([("a",)])


def test_a_run_that_asks_the_outer_block_is_refused(make_vault: MakeVault) -> None:
    vault = make_vault(TABLE, SCHEMA)
    steps = (Tune((ONE,), 4, 0.5), Measure(1, 0.5))
    with (
        pytest.raises(InvalidRequest, match="not the one it was given"),
        vault.reserve(steps, epsilon=1, label="tune") as block,
    ):
        block.tune({"one": lambda _: (0.0, block.measure([("a",)]))})


def test_no_run_tells_how_far_it_is(make_vault: MakeVault) -> None:
    """Whoever counts the trainings that a progress bar shows would know the number of runs."""
    told: list[object] = []

    def trained(block: Block) -> tuple[float, None]:
        block.train(Means(), clip=1.0, rows=200.0)
        return 0.0, None

    tuned(
        make_vault(TABLE, SCHEMA),
        {"a": trained},
        ((Train(0.5, 10, 1.0),),),
        notice=lambda *facts: told.append(facts),
    )
    assert not told


def test_a_run_asks_what_was_declared_and_no_more(make_vault: MakeVault) -> None:
    def greedy(block: Block) -> tuple[float, None]:
        block.measure([("a",)])
        block.measure([("b",)])
        return 0.0, None

    with pytest.raises(InvalidRequest, match="beyond the end"):
        tuned(make_vault(TABLE, SCHEMA), {"one": greedy}, (ONE,))


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_refused(make_vault: MakeVault, score: float) -> None:
    def scoring(block: Block) -> tuple[float, None]:
        block.measure([("a",)])
        return score, None

    with pytest.raises(InvalidRequest, match="no number") as error:
        tuned(make_vault(TABLE, SCHEMA), {"one": scoring}, (ONE,))
    assert error.value.touched


def test_a_run_that_fails_is_the_outcome_and_is_not_tried_again(make_vault: MakeVault) -> None:
    def failing(block: Block) -> tuple[float, None]:
        block.measure([("a",)])
        raise ValueError("it does not converge")

    vault = make_vault(TABLE, SCHEMA)
    with pytest.raises(ValueError, match="converge"):
        tuned(vault, {"one": failing}, (ONE,))
    with pytest.raises(InvalidRequest, match="not tried again"):
        tuned(vault, {"one": first_cell}, (ONE,), resume=True)
    assert vault.account.remaining()[0] == 9


def test_other_candidates_than_declared_are_refused_before_a_row_is_read(
    make_vault: MakeVault,
) -> None:
    vault = make_vault(TABLE, SCHEMA)
    with pytest.raises(InvalidRequest, match="other candidates") as error:
        tuned(vault, {"one": first_cell}, (ONE, ONE))
    assert not error.value.touched
    assert vault.account.remaining()[0] == 10


def test_a_replay_that_asks_something_new_is_refused(make_vault: MakeVault) -> None:
    """Else a candidate could read rows in its replay, beside the price of the selection."""
    calls = 0

    def fickle(block: Block) -> tuple[float, None]:
        nonlocal calls
        calls += 1
        block.measure([("a",)] if calls == 1 else [("b",)])
        return 0.0, None

    with pytest.raises(InvalidRequest, match="another question"):
        tuned(make_vault(TABLE, SCHEMA), {"one": fickle}, (ONE,), runs=1)

    calls = 0

    def further(block: Block) -> tuple[float, None]:
        nonlocal calls
        calls += 1
        block.measure([("a",)])
        if calls > 1:
            block.measure([("b",)])
        return 0.0, None

    with pytest.raises(InvalidRequest, match="further question"):
        tuned(make_vault(TABLE, SCHEMA), {"one": further}, (TWO,), runs=1)


def test_exact_counts_of_a_run_are_dropped_with_it(make_vault: MakeVault) -> None:
    kept: list[Block] = []

    def keeping(block: Block) -> tuple[float, None]:
        kept.append(block)
        return -float(
            block.audit((), {("a",): np.zeros(3, np.int64)}, about="x").distance or 0
        ), None

    tuned(make_vault(TABLE, SCHEMA), {"one": keeping}, ((Audit(0, 1, 1.0),),))
    assert all(not run._kept and run._room == 0 for run in kept)
