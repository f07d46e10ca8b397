"""DP-SGD through the vault: what a step adds, samples, spends, stores and refuses."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import dpsynth as dp
from dpsynth.vault import Measure, Train, Vault, make_plan
from dpsynth.vault._stream import SeededStream
from dpsynth.vault._train import CodesLinear, Steps, _loop, clipped_sum, seed
from dpsynth_accounting import (
    BudgetExceeded,
    InvalidRequest,
    LedgerError,
    Reservation,
    Sequence,
    SubsampledGaussian,
    least_epsilon,
)

MakeVault = Callable[..., Vault]
SCHEMA = dp.Schema({"a": dp.Categorical(("x", "y", "z")), "b": dp.Integer(0, 3)})
TABLE = pd.DataFrame({"a": ["x", "y", "z", "x"] * 50, "b": [0, 1, 2, 3] * 50})


class Means:
    """Learns a table's log-odds: a learner as small as can be. Keeps the gradients it was given."""

    def __init__(self, sizes: tuple[int, ...] = (3, 4), rate: float = 0.1) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = CodesLinear(sizes, 2)
        self.rate = rate
        self.seen: list[list[Tensor]] = []

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        found: Tensor = (module(records) - 1.0).square().sum(1)
        return found

    def update(self, gradients: list[Tensor]) -> None:
        self.seen.append(gradients)
        with torch.no_grad():
            for parameter, gradient in zip(self.module.parameters(), gradients, strict=True):
                parameter -= self.rate * gradient

    def state(self) -> dict[str, Tensor]:
        return {name: each.detach() for name, each in self.module.named_parameters()}

    def load(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, each in self.module.named_parameters():
                each.copy_(state[name])


def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: Fraction, shape: tuple[int, ...], *rest: Any) -> np.ndarray:
        del rest
        return np.zeros(shape, dtype=np.int64)

    monkeypatch.setattr(_loop._noise, "discrete_gaussian", none)


ASKED: dict[str, Any] = {"rate": 0.5, "steps": 20, "clip": 1.0, "rows": 200.0}


# -- the plan ------------------------------------------------------------------------------------


def test_it_is_priced_as_poisson_sampled_gaussians_with_the_rest_of_the_plan() -> None:
    steps = (Measure(3, 0.1), Train(0.05, 600, 0.9))
    plan = make_plan(steps, dp.Row(), Fraction(1), Fraction(1, 10**5))
    event = plan.events[1]
    assert isinstance(event, SubsampledGaussian)
    assert (event.rate, event.steps, event.group) == (Fraction(0.05), 600, 1)
    assert 0.99 < least_epsilon(plan.event, Fraction(1, 10**5)) <= 1
    alone = [least_epsilon(each, Fraction(1, 10**5)) for each in plan.events]
    assert math.hypot(*map(float, alone)) < 1.2  # composes better than by adding up
    assert sum(map(float, alone)) > 1.1
    assert plan.describe()[1]["noise_multiplier"] == round(float(event.sigma), 4)


def test_persons_are_charged_as_units_whatever_rows_they_have() -> None:
    events = [
        make_plan((Train(0.05, 100, 1.0),), unit, Fraction(1), Fraction(1, 10**6)).event
        for unit in (dp.Row(), dp.Person("p", rows=7))
    ]
    assert events[0] == events[1]


@pytest.mark.parametrize("wrong", [Train(0.0, 5, 1.0), Train(1.5, 5, 1.0), Train(0.5, 0, 1.0)])
def test_an_impossible_plan_is_refused(wrong: Train) -> None:
    with pytest.raises(InvalidRequest):
        make_plan((wrong,), dp.Row(), Fraction(1), Fraction(1, 10**6))


# -- sampling ------------------------------------------------------------------------------------


def test_units_join_independently_with_the_rate_that_was_charged() -> None:
    rate, steps = Fraction(1, 10), 4000
    drawn = np.array(list(_loop._samples(60, rate, steps, SeededStream(1))))
    assert stats.binomtest(int(drawn.sum()), drawn.size, 0.1).pvalue > 1e-4
    sizes = drawn.sum(1)
    assert sizes.var() == pytest.approx(60 * 0.1 * 0.9, rel=0.15)  # not batches of one size
    pairs = np.cov(drawn.T) - np.diag(drawn.var(0, ddof=1))
    assert abs(pairs).max() < 6 * 0.09 / math.sqrt(steps)
    later = np.mean(drawn[1:] & drawn[:-1])
    assert later == pytest.approx(0.01, abs=0.001)


def test_a_fixed_batch_in_its_place_is_flagged() -> None:
    """The twin: batches of exactly a tenth, as of a shuffled loader."""
    rng = np.random.default_rng(0)
    drawn = np.array([rng.permutation(60) < 6 for _ in range(4000)])
    assert drawn.sum(1).var() != pytest.approx(60 * 0.1 * 0.9, rel=0.15)


def test_a_person_comes_with_all_rows_and_a_clip_for_all_of_them(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = TABLE.assign(p=np.arange(200) // 5)
    vault = make_vault(table, SCHEMA, unit=dp.Person("p", rows=5), audit_share=0.0)
    seen: list[tuple[int, ...]] = []

    def noted(module: Any, loss: Any, records: Tensor, units: Tensor, count: int, clip: Any) -> Any:
        sums = clipped_sum(module, loss, records, units, count, clip)
        norm = math.sqrt(sum(float(each.square().sum()) for each in sums))
        seen.append((len(records), count, *torch.bincount(units, minlength=count).tolist()))
        assert norm <= count * clip
        return sums

    monkeypatch.setattr(_loop, "clipped_sum", noted)
    vault.train(Means(), **ASKED, epsilon=1)
    assert len(seen) == 20
    assert all(rows == 5 * count and set(each) == {5} for rows, count, *each in seen)


# -- sensitivity and noise -----------------------------------------------------------------------


def test_a_unit_moves_what_gets_noise_by_no_more_than_the_noise_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rounding to the grid included, for adversarial sums and units at the clip."""
    no_noise(monkeypatch)
    rng = np.random.default_rng(0)
    for parameters in (1, 7, 1000, 40_000):
        for clip in (1e-3, 1.0, 50.0):
            steps = Steps(Fraction(1, 2), Fraction(1), clip, 1.0)
            base = torch.tensor(rng.normal(0, 100 * clip, parameters), dtype=torch.float32)
            unit = torch.tensor(rng.normal(0, 1, parameters), dtype=torch.float32)
            unit *= clip / unit.norm()
            sums = [_loop.noisy([each], steps, SeededStream(0))[0] for each in (base, base + unit)]
            moved = (sums[1].double() - sums[0].double()).norm()
            assert moved <= clip * (1 + 2**-9)
            assert moved >= clip * (1 - 2**-9)


def test_noise_is_that_of_the_multiplier_and_a_little_more() -> None:
    steps = Steps(Fraction(1, 2), Fraction(3), 2.0, 10.0)
    zeros = [torch.zeros(300, 100), torch.zeros(5000)]
    found = _loop.noisy(zeros, steps, SeededStream(5))
    assert [each.shape for each in found] == [each.shape for each in zeros]
    values = torch.cat([each.ravel() for each in found]).double().numpy()
    wanted = 3.0 * 2.0 / 10.0 * (1 + 2**-9)
    assert stats.kstest(values / wanted, "norm").pvalue > 1e-3
    for twin in (0.94, 1.06):
        assert stats.kstest(values / wanted / twin, "norm").pvalue < 1e-3


def test_seeds_do_not_reach_the_noise(make_vault: MakeVault) -> None:
    ends = []
    for _ in range(2):
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002
        learner = Means()
        make_vault(TABLE, SCHEMA, audit_share=0.0).train(learner, **ASKED, epsilon=1)
        ends.append(learner.state()["weight"])
    assert not torch.equal(*ends)


def test_without_noise_it_is_gradient_descent(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_noise(monkeypatch)
    learner = Means(rate=0.3)
    vault = make_vault(TABLE, SCHEMA, audit_share=0.0)
    vault.train(learner, rate=1.0, steps=200, clip=100.0, rows=200.0, epsilon=1)
    records = torch.tensor([[0, 0], [1, 1], [2, 2], [0, 3]])
    assert learner.loss(learner.module, records).max() < 1e-3


def test_one_row_more_changes_neither_plan_nor_divisor(make_vault: MakeVault) -> None:
    divisors, plans = [], []
    for rows in (TABLE, pd.concat([TABLE, TABLE[:1]])):
        vault = make_vault(rows, SCHEMA, audit_share=0.0)
        with vault.reserve((Train(0.5, 20, 1.0),), epsilon=1, label="t") as block:
            plans.append(block.plan)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(_loop, "noisy", lambda sums, steps, _: divisors.append(steps) or sums)
                block.train(Means(), clip=1.0, rows=200.0)
    assert plans[0] == plans[1]
    assert len(set(divisors)) == 1


# -- what is refused -----------------------------------------------------------------------------


def test_a_step_beyond_the_plan_is_refused(make_vault: MakeVault) -> None:
    vault = make_vault(TABLE, SCHEMA, audit_share=0.0)
    learner = Means()
    with vault.reserve((Train(0.5, 20, 1.0),), epsilon=1, label="t") as block:
        block.train(learner, clip=1.0, rows=200.0)
        assert len(learner.seen) == 20
        with pytest.raises(InvalidRequest, match="beyond the end"):
            block.train(learner, clip=1.0, rows=200.0)
    with pytest.raises(BudgetExceeded):
        vault.train(learner, **ASKED, epsilon=64)
    assert len(learner.seen) == 20


class Mixing(Means):
    """Takes the batch's mean from each record: a gradient of one row that all others are in."""

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        found: Tensor = module(records)
        return (found - found.mean(0)).square().sum(1)


@pytest.mark.parametrize(
    ("learner", "facts"),
    [
        (Mixing(), {}),
        (Means(), {"clip": 0.0}),
        (Means(), {"clip": math.nan}),
        (Means(), {"rows": 0.0}),
        (Means(), {"rows": math.inf}),
    ],
)
def test_what_is_not_private_is_refused_before_a_row_is_read(
    make_vault: MakeVault, learner: Means, facts: dict[str, float]
) -> None:
    vault = make_vault(TABLE, SCHEMA, audit_share=0.0)
    with pytest.raises(InvalidRequest) as error:
        vault.train(learner, **ASKED | facts, epsilon=1)
    assert not error.value.touched
    assert learner.seen == []


def test_nothing_to_train_is_refused(make_vault: MakeVault) -> None:
    learner = Means()
    learner.module.requires_grad_(False)
    with pytest.raises(InvalidRequest, match="0 parameters"):
        make_vault(TABLE, SCHEMA).train(learner, **ASKED, epsilon=1)


class Failing(Means):
    """Fails on rows that it was not tried on, and says which."""

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        if len(records) > 30:
            raise ValueError(f"no idea what {records.tolist()} is")
        return super().loss(module, records)


def test_what_a_learner_says_of_private_rows_is_withheld(make_vault: MakeVault) -> None:
    with pytest.raises(InvalidRequest, match="made-up records") as error:
        make_vault(TABLE, SCHEMA, audit_share=0.0).train(Failing(), **ASKED, epsilon=1)
    assert error.value.touched
    assert "no idea" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None  # of which a debugger, or a log, shows the message


def test_a_loss_is_tried_on_every_code_before_a_row_is_read(make_vault: MakeVault) -> None:
    """Else a rare code of a wide column would be told by an exception, at no price."""
    tried: set[int] = set()

    class Partial(Means):
        def loss(self, module: nn.Module, records: Tensor) -> Tensor:
            tried.update(records[:, 1].tolist())
            if bool((records[:, 1] == 137).any()):
                raise KeyError
            return super().loss(module, records)

    schema = dp.Schema({"a": dp.Categorical(("x", "y", "z")), "b": dp.Integer(0, 199)})
    vault = make_vault(TABLE, schema, audit_share=0.0)
    with pytest.raises(KeyError):
        vault.train(Partial((3, 200)), **ASKED, epsilon=1)
    assert "begin" not in [e["payload"]["kind"] for e in vault.account.ledger.entries("account 1")]
    assert vault.account.spent.cost == 0
    assert set(range(137)) <= tried


def test_parameters_that_come_later_are_refused(make_vault: MakeVault) -> None:
    """Their noise was not counted."""

    class Growing(Means):
        def update(self, gradients: list[Tensor]) -> None:
            super().update(gradients)
            self.module.more = nn.Linear(2, 2)

    learner = Growing()
    with pytest.raises(InvalidRequest, match="other parameters"):
        make_vault(TABLE, SCHEMA, audit_share=0.0).train(learner, **ASKED, epsilon=1)
    assert len(learner.seen) == 1


@pytest.mark.parametrize(
    ("sigma", "divisor", "k"), [(2**50, 100.0, 1), (1, 2.0**21, 1), (1, 2.0**18, 5)]
)
def test_what_noise_or_sums_cannot_hold_is_refused_before_a_row_is_read(
    make_vault: MakeVault, sigma: int, divisor: float, k: int
) -> None:
    domain = make_vault(TABLE, SCHEMA).domain
    steps = Steps(Fraction(1, 2), Fraction(sigma), 1.0, divisor)
    with pytest.raises(InvalidRequest, match="expected rows a batch") as error:
        _loop.require(Means(), steps, domain, k)
    assert not error.value.touched
    _loop.require(Means(), Steps(Fraction(1, 2), Fraction(1), 1.0, 2.0**17), domain, k)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_a_sum_that_is_no_sum_of_clipped_gradients_gets_no_noise(value: float) -> None:
    steps = Steps(Fraction(1, 2), Fraction(3), 2.0, 10.0)
    with pytest.raises(InvalidRequest, match="Noise was to be added"):
        _loop.noisy([torch.zeros(3), torch.tensor([0.0, value])], steps, SeededStream(5))


def test_the_noise_is_so_wide_that_smoothing_it_costs_nothing() -> None:
    """The distance of the lemma is 2 exp(-2 pi**2 s2): of s2 = 7, beside the twin's 3/2."""
    for sigma in (Fraction(1, 3), Fraction(3), Fraction(200)):
        claimed = (sigma * (1 << 10) * (1 + Fraction(1, 1 << 9))) ** 2
        assert _loop._sigma2(Steps(Fraction(1, 2), sigma, 1.0, 1.0), 1) >= claimed + 7
    assert math.log2(2) - 2 * math.pi**2 * 7 / math.log(2) < -198
    assert math.log2(2) - 2 * math.pi**2 * 1.5 / math.log(2) > -42


class Drawing(Means):
    """Draws at random in its loss, as a variational autoencoder does, and lets it be seen."""

    drawn: ClassVar[list[list[float]]] = []

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        draw = torch.randn(len(records))
        self.drawn.append(draw.tolist())
        found: Tensor = (module(records) - draw.unsqueeze(1)).square().sum(1)
        return found


def drawn_after_seeding(vault: Vault) -> tuple[list[list[float]], bool]:
    """Return a training's private draws, and whether it left torch's generator as it was."""
    torch.manual_seed(7)
    before = torch.get_rng_state()
    learner = Drawing()
    torch.manual_seed(7)
    Drawing.drawn.clear()
    with vault.reserve((Train(1.0, 20, 1.0),), epsilon=1, label="t") as block:
        block.train(learner, clip=1.0, rows=200.0)
    found = [each for each in Drawing.drawn if len(each) == 200]
    return found, torch.equal(before, torch.get_rng_state())


def test_draws_in_a_loss_follow_from_no_seed_and_leave_no_trace(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [drawn_after_seeding(make_vault(TABLE, SCHEMA, audit_share=0.0)) for _ in range(2)]
    assert all(same and len(each) == 20 for each, same in runs)
    assert runs[0][0] != runs[1][0]
    assert len({each[0] for each, _ in runs for each in each}) == 40  # no two steps draw alike
    monkeypatch.setattr(_loop, "own_draws", lambda *_: contextlib.nullcontext())
    twins = [drawn_after_seeding(make_vault(TABLE, SCHEMA, audit_share=0.0)) for _ in range(2)]
    assert twins[0][0] == twins[1][0]
    assert not twins[0][1]


class OneBit:
    """A stream of which one bit differs: in a word far from the first."""

    def __init__(self, bit: int) -> None:
        self.bit = bit

    def words(self, count: int) -> np.ndarray:
        found = np.arange(count, dtype=np.uint64)
        found[-200] ^= np.uint64(self.bit)
        return found


def test_every_bit_of_the_state_is_secret() -> None:
    """The twin: a seed that is a number, of which torch keeps 32 bits: few enough to be tried."""

    def drawn(seed: Callable[[], object]) -> list[float]:
        with torch.random.fork_rng(devices=[]):
            seed()
            return torch.randn(1000).tolist()

    one, two = (drawn(lambda bit=bit: seed(OneBit(bit))) for bit in (0, 1 << 31))
    assert one != two
    assert one == drawn(lambda: seed(OneBit(0)))
    assert drawn(lambda: torch.manual_seed(5)) == drawn(lambda: torch.manual_seed(5 + (1 << 40)))


# -- an empty table, an interruption -------------------------------------------------------------


def test_an_empty_table_gives_noise(make_vault: MakeVault) -> None:
    learner = Means()
    make_vault(TABLE[:0], SCHEMA).train(learner, **ASKED, epsilon=1)
    assert len(learner.seen) == 20
    assert all(float(each.abs().max()) > 0 for step in learner.seen for each in step)


class Killed(BaseException):
    """What stops a process: no error of ours."""


class Stopped(Means):
    """Sees a gradient, and stops: in its twelve steps before, six parts were stored."""

    def __init__(self, after: int = 13) -> None:
        super().__init__()
        self.after = after

    def update(self, gradients: list[Tensor]) -> None:
        super().update(gradients)
        if len(self.seen) > self.after:
            raise Killed


def parts(vault: Vault, name: str = "account 1") -> list[int]:
    """Return which parts of a training began, in order."""
    payloads = [entry["payload"] for entry in vault.account.ledger.entries(name)]
    return [each["part"] for each in payloads if each["kind"] == "begin"]


def test_an_interrupted_training_goes_on_from_what_was_stored(make_vault: MakeVault) -> None:
    vault = make_vault(TABLE, SCHEMA, audit_share=0.0)
    plan: dict[str, Any] = {"epsilon": 1, "label": "t"}
    first, second, third = Stopped(), Means(), Means()
    with pytest.raises(Killed), vault.reserve((Train(0.5, 20, 1.0),), **plan) as block:
        block.train(first, clip=1.0, rows=200.0)
    left = vault.account.remaining()
    for learner in (second, third):
        with vault.reserve((Train(0.5, 20, 1.0),), resume=True, **plan) as block:
            block.train(learner, clip=1.0, rows=200.0)
    assert len(first.seen) == 14  # the last two of them in a part that was lost
    assert len(second.seen) == 6
    assert third.seen == []
    assert parts(vault) == list(range(10))
    assert vault.account.ledger.verify("account 1") == []
    assert all(torch.equal(third.state()[name], each) for name, each in second.state().items())
    assert vault.account.remaining() == left


def test_it_tells_how_far_it_is_and_the_size_of_noisy_gradients_alone(
    make_vault: MakeVault,
) -> None:
    told: list[tuple[str, int, int]] = []

    def notice(*facts: Any) -> None:
        told.append(facts)

    learner, asked = Means(), {"clip": 1.0, "rows": 200.0}
    vault, how = make_vault(TABLE, SCHEMA), {"epsilon": 1, "label": "train", "notice": notice}
    with vault.reserve((Train(0.5, 20, 1.0),), **how) as block:
        block.train(learner, **asked)
    assert [done for _, done, _ in told] == list(range(1, 21))
    assert {of for *_, of in told} == {20}
    for (what, *_), gradients in zip(told, learner.seen, strict=True):
        norm = math.sqrt(sum(float(each.double().square().sum()) for each in gradients))
        assert what == f"training, noisy gradient {norm:.2g}"


class Logged(Stopped):
    """Writes down each gradient that it is given, as any log of a run does."""

    def __init__(self, log: list[Tensor], after: int) -> None:
        super().__init__(after)
        self.log = log

    def update(self, gradients: list[Tensor]) -> None:
        self.log.append(torch.cat([each.ravel() for each in gradients]))
        super().update(gradients)


def replayed(vault: Vault, tries: int) -> list[Tensor]:
    log: list[Tensor] = []
    for _ in range(tries):
        options: dict[str, Any] = {"epsilon": 1, "label": "t", "resume": True}
        with pytest.raises(Killed), vault.reserve((Train(0.5, 20, 1.0),), **options) as block:
            block.train(Logged(log, 0), clip=1.0, rows=200.0)
    return log


def test_what_a_learner_saw_is_never_drawn_again(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten tries are ten parts, each once. The twin forgets, and draws the first part ten times."""
    vault = make_vault(TABLE, SCHEMA, audit_share=0.0)
    assert len(replayed(vault, 10)) == 10
    assert parts(vault) == list(range(10))
    with vault.reserve((Train(0.5, 20, 1.0),), epsilon=1, label="t", resume=True) as block:
        learner = Means()
        block.train(learner, clip=1.0, rows=200.0)  # all parts are lost: it stays as it was made
    assert learner.seen == []
    assert vault.account.ledger.verify("account 1") == []
    assert vault.account.spent.cost == 1

    monkeypatch.setattr(Reservation, "_parts", lambda *_: set())
    twin = make_vault(TABLE, SCHEMA, audit_share=0.0)
    replayed(twin, 10)
    assert parts(twin, "account 2") == [0] * 10
    assert "began a part of a step twice" in " ".join(twin.account.ledger.verify("account 2"))


def test_of_two_runs_at_once_none_draws_what_the_other_drew(make_vault: MakeVault) -> None:
    """The second comes while the first is in its third part, and takes over after it."""
    vault = make_vault(TABLE, SCHEMA, audit_share=0.0)
    second = Means()
    options: dict[str, Any] = {"epsilon": 1, "label": "t", "resume": True}

    class Overtaken(Means):
        def update(self, gradients: list[Tensor]) -> None:
            super().update(gradients)
            if len(self.seen) == 5:
                with vault.reserve((Train(0.5, 20, 1.0),), **options) as block:
                    block.train(second, clip=1.0, rows=200.0)

    first = Overtaken()
    with (
        pytest.raises(LedgerError, match="first"),
        vault.reserve((Train(0.5, 20, 1.0),), **options) as block,
    ):
        block.train(first, clip=1.0, rows=200.0)
    assert (len(first.seen), len(second.seen)) == (6, 14)
    assert parts(vault) == list(range(10))
    assert vault.account.ledger.verify("account 1") == []


def test_two_runs_that_begin_one_part_at_once_draw_it_once(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run begins between this one's look and its own beginning."""
    vault = make_vault(TABLE, SCHEMA, audit_share=0.0)
    real = Reservation.begin

    def overtaken(self: Reservation, step: int, request: str, *part: int) -> None:
        monkeypatch.undo()
        real(self, step, request, *part)
        real(self, step, request, *part)

    monkeypatch.setattr(Reservation, "begin", overtaken)
    learner = Means()
    with pytest.raises(LedgerError, match="began before"):
        vault.train(learner, **ASKED, epsilon=1)
    assert learner.seen == []


KILLED = """
import os, sys
import pandas as pd
import torch
import dpsynth as dp
from dpsynth.vault import Train
from dpsynth.vault._train import CodesLinear

class Learner:
    def __init__(self):
        self.module = CodesLinear((3, 4), 2)
    def loss(self, module, records):
        return module(records).square().sum(1)
    def update(self, gradients):
        with open(sys.argv[2], "a") as log:
            print("step", file=log)
        if len(open(sys.argv[2]).readlines()) == int(sys.argv[3]):
            os._exit(9)
    def state(self):
        return dict(self.module.state_dict())
    def load(self, state):
        self.module.load_state_dict(state)

table = pd.DataFrame({"a": ["x", "y", "z", "x"] * 50, "b": [0, 1, 2, 3] * 50})
schema = dp.Schema({"a": dp.Categorical(("x", "y", "z")), "b": dp.Integer(0, 3)})
account = dp.Ledger(sys.argv[1]).account("a", dp.Budget(10.0, 1e-6))
vault = dp.Vault(table, schema, account, unit=dp.Row(), audit_share=0.0)
with vault.reserve((Train(0.5, 20, 1.0),), epsilon=1, label="t", resume=True) as block:
    block.train(Learner(), clip=1.0, rows=200.0)
"""


def test_a_killed_process_is_charged_once_and_no_part_is_drawn_twice(tmp_path: Path) -> None:
    place, log = tmp_path / "ledger.db", tmp_path / "log"
    codes = [
        subprocess.run(
            [sys.executable, "-c", KILLED, str(place), str(log), str(end)],
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        ).returncode
        for end in (7, 0)
    ]
    assert codes == [9, 0]
    assert len(log.read_text().splitlines()) == 19  # the eighth step was lost with its part
    account = dp.Ledger(place).existing("a")
    payloads = [entry["payload"] for entry in account.ledger.entries("a")]
    assert [each["part"] for each in payloads if each["kind"] == "begin"] == list(range(10))
    assert [each["kind"] for each in payloads].count("reserve") == 1
    assert account.spent.cost == 1
    assert account.ledger.verify("a") == []


def test_discovery_marginals_and_training_are_one_price(make_vault: MakeVault) -> None:
    schema = dp.Schema({"a": dp.Open(), "b": dp.Integer(0, 3)})
    vault = make_vault(TABLE, schema, audit_share=0.0)
    with vault.reserve((Measure(2, 0.3), Train(0.1, 50, 0.7)), epsilon=3, label="t") as block:
        block.measure([("a",), ("b",)])
        sizes = tuple(block.domain.size(name) for name in block.domain.names)
        block.train(Means(sizes), clip=1.0, rows=200.0)
        whole = block.plan
    parts = [least_epsilon(each, whole.delta / 3) for each in whole.events]
    assert isinstance(whole.event, Sequence)
    assert float(least_epsilon(whole.event, whole.delta)) <= 3 < 0.95 * float(sum(parts))
