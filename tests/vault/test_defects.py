"""The known classes of privacy defects of synthesizers, each with a test that makes it impossible.

A class is a check: a function that returns faults. Each test asserts that ours has none, and that a
deliberately broken variant is flagged by the very same check. docs/explanation/defects.md says what
each class is and what makes it impossible; the classes whose tests live elsewhere are named there.
"""

from __future__ import annotations

import ast
import functools
import itertools
import json
import math
import pickle
import random
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Many
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from decimal import Decimal, getcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import dpsynth as dp
from dpsynth.marginal import MarginalModel
from dpsynth.marginal.factor import Factor
from dpsynth.vault import (
    Audit,
    Block,
    Measure,
    Select,
    Statistic,
    Vault,
    _execution,
    _noise,
    _vault,
)
from dpsynth.vault._bound import HELD_OUT
from dpsynth.vault._discover import threshold
from dpsynth_accounting import (
    Account,
    ApproxDP,
    BudgetExceeded,
    DiscreteGaussian,
    Event,
    Exponential,
    InvalidRequest,
    Repeat,
    Sequence,
    curve,
    flatten,
)
from tests.architecture.rules import CORE, SHELL, Module, shipped
from tests.vault import twins
from tests.vault.conftest import MakeVault
from tests.vault.exact import PLANS, HasCode, with_known_coins, with_threshold, without_noise
from tests.vault.replay import Tape
from tests.vault.twins import Twin

ROOT = Path(__file__).parents[2]

RNG = np.random.default_rng(1)
ROWS = 400
TABLE = pd.DataFrame(
    {
        "person": [f"p{i // 2}" for i in range(ROWS)],
        "age": RNG.integers(18, 80, ROWS),
        "sex": RNG.choice(["F", "M"], ROWS),
        "smoker": RNG.choice([True, False], ROWS),
        "city": RNG.choice(["Graz", "Wien"], ROWS),
        "income": np.round(RNG.lognormal(7, 1, ROWS), 2),
    }
)
DECLARED = dp.Schema(
    {
        "age": dp.Integer(0, 110),
        "sex": dp.Categorical(("F", "M")),
        "smoker": dp.Boolean(missing=True),
    }
)
OPEN = dp.Schema({**DECLARED.columns, "city": dp.Open(), "income": dp.Real()})
PERSON = dp.Person("person", rows=2)

Check = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def priced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_vault, "make_plan", PLANS)


def spent(vault: Vault) -> Fraction:
    return vault.account.budget.epsilon - vault.account.remaining()[0]


# -- 3. epsilon is computed in many places -------------------------------------------------------

SPENDING = re.compile(r"(^|_)(epsilons?|eps|deltas?)(_|$)")
REDUCES = {"sum", "math.fsum", "math.prod", "math.sqrt", "math.exp", "math.log", "np.sum", "np.exp"}
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Pow, ast.Mod)

MAY_COMPUTE = {
    "dpsynth.vault._plan": "declares what the noise is and has the accounting price it",
    "dpsynth.vault._discover.event_of": "declares what the noise is, as the plan has it",
    "dpsynth.vault._discover.threshold": "shares out the delta of an event over its cases",
    "dpsynth.vault._bound.words_of_rows": "joins hashes, by exclusive or",
    "dpsynth.vault._noise.exponential": "draws at the epsilon of the event",
    "dpsynth.vault._train._closed": "rounding of floating point, which torch calls eps",
    "dpsynth.forecast._line": "an error to expect, no claim",
    "dpsynth.release.Release.assemble": "what to ask for; the account grants it or not",
    "dpsynth._facts._charged": "the sum of whole charges",
    "dpsynth._facts.claim_of": "the sum of whole charges, at two deltas",
    "dpsynth._facts.facts_of": "budget less what the account says is left",
    "dpsynth.report.facts": "words and drawings of a priced statement",
    "dpsynth.report.svg": "words and drawings of a priced statement",
    "dpsynth.attacks._shadow_findings": "says how likely guesses are under a claim: no price",
    "dpsynth.attacks.one_run": "says how likely guesses are under a claim: no price",
    "dpsynth.attacks.marginal_ratio": "mixes hashes, by exclusive or",
}
"""Where arithmetic on epsilon or delta is allowed outside the accounting, and why."""


def epsilon_arithmetic(module: Module) -> list[str]:
    """Return each place that computes with an epsilon or a delta; and each ``^``, which is XOR."""
    faults = []
    for place, node in _placed(module.tree, module.name):
        operands: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ARITHMETIC):
            operands = [node.left, node.right]
        elif isinstance(node, ast.AugAssign):
            operands = [node.target, node.value]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in REDUCES:
            operands = node.args
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.BitXor):
            faults.append(f"{place}:{node.lineno} is exclusive or, not a power")
        if any(_names_spending(each) for each in operands) and not module.name.startswith(CORE):
            faults.append(f"{place}:{node.lineno} computes with an epsilon or delta")
    return faults


def _placed(node: ast.AST, place: str) -> Iterator[tuple[str, Any]]:
    for child in ast.iter_child_nodes(node):
        inner = place
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{place}.{child.name}"
        yield inner, child
        yield from _placed(child, inner)


def _names_spending(expression: ast.expr) -> bool:
    for node in ast.walk(expression):
        name = getattr(node, "id", getattr(node, "attr", getattr(node, "value", None)))
        if isinstance(name, str) and SPENDING.search(name):
            return True
    return False


def _allowed(fault: str) -> bool:
    place = fault.partition(":")[0]
    return any(place == each or place.startswith(f"{each}.") for each in MAY_COMPUTE)


def test_no_epsilon_is_computed_outside_the_accountant() -> None:
    faults = [fault for module in shipped(ROOT) for fault in epsilon_arithmetic(module)]
    assert [fault for fault in faults if not _allowed(fault)] == []
    used = {place for place in MAY_COMPUTE for fault in faults if fault.startswith(place)}
    assert used == MAY_COMPUTE.keys()  # an exception that nobody needs is a hole


@pytest.mark.parametrize(
    "source",
    [
        "left = budget.epsilon - spent",
        "self.epsilon -= spent",
        "total = sum(each['epsilon'] for each in charges)",
        "sigma = math.sqrt(2 * math.log(1.25 / delta)) / epsilon",
        "def f(eps, l):\n    return math.exp(2 * eps * l + 1)",
        "class A:\n    def f(self):\n        return 1 / (n * self.target_delta)",
        "delta = 10 ^ 5",
    ],
)
def test_an_accountant_beside_the_accountant_is_flagged(source: str) -> None:
    assert [
        fault
        for fault in epsilon_arithmetic(Module(f"{SHELL}.marginal.mst", source))
        if not _allowed(fault)
    ]


# -- 6, 16. a budget is overrun --------------------------------------------------------------------


@dataclass(frozen=True)
class Tuned:
    """A synthesizer with a knob that it forgot to declare: how often it asks."""

    times: int
    name: str = "tuned"

    def steps(self, columns: Many[str]) -> tuple[Measure, ...]:
        return (Measure(len(columns), 1.0),)

    def run(self, block: Block) -> list[object]:
        names = [(name,) for name in block.domain.names]
        return [block.measure(names) for _ in range(self.times)]


def unchecked_steps(patch: pytest.MonkeyPatch) -> None:
    """Let a block give the answers of a step as often as it is asked for them."""

    def any_step(self: Block, kind: type) -> tuple[int, object, Event]:
        found = [i for i, step in enumerate(self.plan.steps) if isinstance(step, kind)]
        if not found:
            raise self._refused("There is no such step.")
        (index,) = found
        return index, self.plan.steps[index], self.plan.events[index]

    patch.setattr(Block, "_expect", any_step)
    patch.setattr(Block, "_answer", lambda self, index, part, request, draw: draw())


@contextmanager
def noise_drawn(k: int) -> Iterator[list[Event]]:
    """Yield the events of what is drawn meanwhile by fits and audits, for units of k rows.

    They are made from the noise that is asked for and from what one unit can change, both seen from
    outside the plan.
    """
    drawn: list[Event] = []
    steps: list[object] = []
    gaussian, exponential, answered = _noise.discrete_gaussian, _noise.exponential, Block._answer

    def answer(self: Block, index: int, *rest: Any) -> bytes:
        steps.append(self.plan.steps[index])
        return answered(self, index, *rest)

    def count(sigma2: Fraction, shape: tuple[int, ...], *rest: Any) -> NDArray[np.int64]:
        match steps[-1] if steps else None:
            case Measure(marginals, _):
                drawn.append(Repeat(DiscreteGaussian(sigma2, k * k, k), marginals))
            case Audit(statistics, marginals, _) if len(shape) == 2:
                drawn.append(DiscreteGaussian(sigma2, statistics, statistics))
            case Audit(_, marginals, _):
                drawn.append(DiscreteGaussian(sigma2, (k * marginals) ** 2, 1))
        return gaussian(sigma2, shape, *rest)

    def choose(scores: NDArray[np.int64], epsilon: Fraction, sensitivity: int, *rest: Any) -> int:
        drawn.append(Exponential(epsilon * k / sensitivity))
        return exponential(scores, epsilon, sensitivity, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_noise, "discrete_gaussian", count)
        patch.setattr(_noise, "exponential", choose)
        patch.setattr(Block, "_answer", answer)
        yield drawn


def overruns(vault: Vault, use: Callable[[], object], epsilon: Fraction) -> list[str]:
    """Return how using a vault took more than it was allowed: more charged, or more drawn."""
    before, delta = spent(vault), vault.account.remaining()[1]
    with noise_drawn(vault.unit.rows) as drawn, suppress(InvalidRequest, BudgetExceeded):
        use()
    faults = []
    charged = spent(vault) - before
    if charged > epsilon or spent(vault) > vault.account.budget.epsilon:
        faults.append(f"charged {float(charged)}, asked for {float(epsilon)}")
    taken = delta - vault.account.remaining()[1]
    if (
        drawn
        and (price := curve(Sequence(tuple(drawn))).epsilon(taken or Fraction(1, 10**9))) > charged
    ):
        faults.append(f"drew {price:.4f}, charged {float(charged)}")
    return faults


@st.composite
def knobs(draw: st.DrawFn) -> tuple[object, ...]:
    """Return everything that a recipe can tune about a fit and its audit."""
    share = st.floats(0.01, 10)
    method = draw(
        st.one_of(
            st.just(dp.Independent()),
            st.builds(dp.MST, one_way=share, selection=share, pairs=share, bins=st.integers(2, 90)),
        )
    )
    return (
        method,
        draw(st.integers(1, 3)),  # columns
        draw(st.sampled_from([dp.Row(), dp.Person("person", 1), dp.Person("person", 5)])),
        Fraction(draw(st.integers(1, 300)), 100),  # epsilon
        draw(st.sampled_from([0, 0.2, 0.5])),  # audit share
        draw(st.integers(0, 3)),  # statistics
        draw(share),  # of the audit
    )


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(knobs())
def test_no_tuned_hyper_parameter_overruns_the_budget(
    make_vault: MakeVault, knobs: tuple[Any, ...]
) -> None:
    method, columns, unit, epsilon, share, statistics, weight = knobs
    schema = dp.Schema(dict(list(DECLARED.columns.items())[:columns]))
    vault = make_vault(TABLE, schema, unit=unit, audit_share=share, epsilon=3.0)

    def use() -> None:
        audit = Audit(statistics, 1, weight)
        steps = (*method.steps(schema.modelled), audit)
        with vault.reserve(steps, epsilon=epsilon, label="test") as block:
            model = method.run(block)
            asked = [Statistic(HasCode(code)) for code in range(statistics)]
            (one,) = [np.rint(model.marginal(("age",))).astype(np.int64)]
            block.audit(asked, {("age",): one}, about="test")
        vault.measure([("age",)], epsilon=3.0)  # more than is left by now

    assert overruns(vault, use, epsilon) == []
    assert spent(vault) == epsilon


def test_iterations_beyond_the_plan_are_refused(make_vault: MakeVault) -> None:
    vault = make_vault(TABLE, DECLARED, epsilon=1.0)
    assert overruns(vault, lambda: vault.fit(Tuned(5), epsilon=1), Fraction(1)) == []
    assert spent(vault) == 1
    with pytest.raises(BudgetExceeded):
        vault.fit(Tuned(1), epsilon=Fraction(1, 100))


def test_a_tuned_number_of_iterations_is_flagged(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchecked_steps(monkeypatch)
    vault = make_vault(TABLE, DECLARED, epsilon=1.0)
    assert overruns(vault, lambda: vault.fit(Tuned(5), epsilon=1), Fraction(1)) != []
    again = make_vault(TABLE, DECLARED, epsilon=1.0)
    assert overruns(again, lambda: again.fit(Tuned(1), epsilon=1), Fraction(1)) == []


def reads_beyond(vault: Vault) -> list[str]:
    """Return what a block reads or answers beyond its plan, and a vault beyond its budget."""
    reads: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_kept", "_coded", "_training"):
            real = getattr(Vault, name)
            patch.setattr(
                Vault, name, lambda self, real=real, name=name: reads.append(name) or real(self)
            )
        faults = []
        clique = ("sex",)
        zeros = {clique: np.zeros(2, dtype=np.int64)}
        beyond: dict[str, Callable[[Block], object]] = {
            "measure": lambda block: block.measure([clique]),
            "measure more": lambda block: block.measure([clique, ("age",)]),
            "select": lambda block: block.select(zeros, lambda _: [clique]),
            "audit": lambda block: block.audit([], zeros, about="test"),
            "discover": lambda block: block.discover(),
        }
        for name, ask in beyond.items():
            for done in (True, False):
                if name == "measure" and not done:
                    continue  # that one is in the plan
                with suppress(InvalidRequest):
                    with vault.reserve((Measure(1, 1.0),), epsilon=1, label="test") as block:
                        if done:
                            block.measure([clique])
                        reads.clear()
                        ask(block)
                    faults.append(f"{name} was answered")
                faults += [f"{name} read rows by {each}" for each in reads]
        reads.clear()
        with suppress(BudgetExceeded):
            vault.measure([clique], epsilon=61)
            faults.append("an overspend was answered")
        faults += [f"an overspend read rows by {each}" for each in reads]
    return faults


def test_the_budget_is_checked_before_each_step_and_not_once_an_epoch(
    make_vault: MakeVault,
) -> None:
    assert reads_beyond(make_vault(TABLE, DECLARED, epsilon=60.0)) == []


def test_a_budget_that_is_checked_late_is_flagged(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchecked_steps(monkeypatch)
    found = reads_beyond(make_vault(TABLE, DECLARED, epsilon=60.0))
    assert "measure was answered" in found
    assert "measure read rows by _training" in found


# -- 2. private because it is broken ---------------------------------------------------------------


def far_from_the_truth(vault: Vault) -> list[str]:
    """Return which counts are wrong when the budget is so large that noise hardly matters."""
    (answer,) = vault.measure([("sex",)], epsilon=60)
    true = TABLE["sex"].value_counts()[["F", "M"]].to_numpy()
    return [] if np.abs(answer.values - true).max() <= 3 else [f"{answer.values} for {true}"]


def test_noise_follows_the_budget(make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a huge epsilon the truth comes out: noise of a constant scale would pass all else."""
    assert far_from_the_truth(make_vault(TABLE, DECLARED, epsilon=64.0)) == []
    gaussian = _noise.discrete_gaussian
    monkeypatch.setattr(
        _noise, "discrete_gaussian", lambda _, *rest: gaussian(Fraction(10**6), *rest)
    )
    assert far_from_the_truth(make_vault(TABLE, DECLARED, epsilon=64.0)) != []


# -- 4. the rows of a unit are drawn anew ----------------------------------------------------------


def rows_drawn_anew(make_vault: MakeVault) -> list[str]:
    """Return how exact answers of one account differ: each unit is cut to the same rows for all."""
    seen = []
    vault = make_vault(TABLE.assign(person="p0"), DECLARED, unit=replace(PERSON, rows=7))
    for _ in range(3):
        other = dp.Vault(
            TABLE.assign(person="p0"), DECLARED, vault.account, unit=vault.unit, audit_share=0.0
        )
        for each in (vault, other):
            (answer,) = each.measure([("age",)], epsilon=1)
            seen.append(answer.values.tolist())
    return [f"{one} then {seen[0]}" for one in seen if one != seen[0]]


def test_the_rows_of_a_person_are_not_drawn_anew_for_each_answer(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_noise(monkeypatch)
    assert rows_drawn_anew(make_vault) == []
    monkeypatch.setattr(Vault, "_key", lambda *_: random.SystemRandom().randbytes(32))
    assert rows_drawn_anew(make_vault) != []


# -- 1, 5, 13. rows reach the model beside the mechanism -------------------------------------------


@dataclass(frozen=True)
class Peeking(dp.Independent):
    """A synthesizer whose conditional sampling uses exact frequencies."""

    def run(self, block: Block) -> MarginalModel:
        model = super().run(block)
        exact = np.bincount(block._vault._training()["sex"], minlength=2)
        table = Factor(("sex",), model.rows * exact / exact.sum())
        tables = [table if each.clique == ("sex",) else each for each in model.marginals]
        return replace(model, marginals=tuple(tables))


def unpaid(method: Any, make_vault: MakeVault, folder: Path) -> list[str]:
    """Return what differs between models of two tables with nothing in common but the answers."""
    tape, models = Tape(), []
    other = TABLE.assign(age=110, sex="F", smoker=None, city="Linz", income=-1e9).head(37)
    with tape.recording():
        models.append(make_vault(TABLE, OPEN, unit=PERSON).fit(method, epsilon=1))
    with tape.playing() as played:
        models.append(make_vault(other, OPEN, unit=PERSON).fit(method, epsilon=1))
    faults = [] if played.asked == tape.asked else ["what was asked"]
    files = []
    for model in models:
        model.save(folder / "model.npz")
        files.append((folder / "model.npz").read_bytes())
    if files[0] != files[1]:
        faults.append("the model's file")
    drawn = [model.sample(500, rng=np.random.default_rng(3)).to_csv() for model in models]
    return faults if drawn[0] == drawn[1] else [*faults, "what it samples"]


@pytest.mark.parametrize("method", [dp.Independent(), dp.MST()], ids=["independent", "mst"])
def test_rows_reach_a_model_through_charged_answers_alone(
    method: Any, make_vault: MakeVault, tmp_path: Path
) -> None:
    assert unpaid(method, make_vault, tmp_path) == []


def test_exact_frequencies_in_sampling_are_flagged(make_vault: MakeVault, tmp_path: Path) -> None:
    assert unpaid(Peeking(), make_vault, tmp_path) == ["the model's file", "what it samples"]


# -- 10. held-out rows steer the fit ---------------------------------------------------------------


def steered_by_held_out_rows(make_vault: MakeVault, folder: Path) -> list[str]:
    """Return what of a fit changes with the values of the rows that were held out."""
    first = make_vault(TABLE, OPEN, unit=PERSON, audit_share=0.5, epsilon=20.0)
    kept = first._kept()
    held = set(kept.frame["person"][kept.roles == HELD_OUT])
    changed = TABLE.astype(object)
    changed.loc[TABLE["person"].isin(held), ["age", "sex", "smoker", "city", "income"]] = [
        10**9,
        "X",
        None,
        "Atlantis",
        1e300,
    ]
    files = []
    for table in (TABLE, changed):
        vault = make_vault(table, OPEN, unit=PERSON, audit_share=0.5, epsilon=20.0)
        dp.MST().fit(vault, epsilon=10).save(folder / "model.npz")
        files.append((folder / "model.npz").read_bytes())
    faults = [] if held else ["no unit was held out"]
    return faults if files[0] == files[1] else [*faults, "the model's file"]


def test_held_out_rows_stop_no_training_and_choose_no_model(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_noise(monkeypatch)
    with_known_coins(monkeypatch)
    assert steered_by_held_out_rows(make_vault, tmp_path) == []
    monkeypatch.setattr(Vault, "_training", lambda self: self._coded().part(0, 1, 2))
    assert steered_by_held_out_rows(make_vault, tmp_path) == ["the model's file"]


# -- 11. facts about columns come from the data ----------------------------------------------------

PROBE = pd.DataFrame(
    {
        "age": [0, 40, 1e9, None],
        "sex": ["F", "M", "other", None],
        "smoker": ["yes", "no", "?", None],
        "city": ["Graz", "Wien", "Atlantis", None],
        "income": [-1e9, 0.0, 1e3, 1e9],
    }
)


def columns_from_the_data(make_vault: MakeVault, more: Mapping[str, object]) -> list[str]:
    """Return which public facts of the columns change with one row, all charged answers alike."""
    seen, tape = [], Tape()
    bigger = pd.concat([TABLE, pd.DataFrame([more])], ignore_index=True)
    for table, answering in ((TABLE, tape.recording), (bigger, tape.playing)):
        with answering():
            vault = make_vault(table, OPEN)
            domain = vault.discover(epsilon=1)
            model = dp.Independent().fit(vault, epsilon=5)
        rng = np.random.default_rng(0)
        most = max(map(domain.size, domain.names))
        codes = {n: np.resize(np.arange(domain.size(n)), 9 * most) for n in domain.names}
        support = domain.decode(codes, rng=rng)
        seen.append(
            {
                "schema": json.dumps(vault.schema.to_json()),
                "domain": json.dumps(domain.to_json()),
                "encoder": [part.tobytes() for part in domain.encode(PROBE).values()],
                "support": support.to_csv(),
                "types": list(map(str, model.sample(9, rng=rng).dtypes)),
            }
        )
    return [name for name in seen[0] if seen[0][name] != seen[1][name]]


USUAL = TABLE.iloc[0].to_dict()

FROM_THE_DATA: dict[str, tuple[Mapping[str, object], Twin, str]] = {
    "bounds": ({**USUAL, "income": 1e9, "age": 1e9}, twins.bounds_from_the_data, "support"),
    "categories": (
        {**USUAL, "city": "Atlantis", "sex": "other"},
        twins.categories_from_the_data,
        "domain",
    ),
    "types": ({**USUAL, "age": None}, twins.types_from_the_data, "types"),
    "missing flags": (
        {**USUAL, "age": np.nan, "income": np.nan, "city": None, "smoker": None},
        twins.missing_from_the_data,
        "domain",
    ),
}


def test_bounds_never_come_from_the_data(make_vault: MakeVault) -> None:
    assert columns_from_the_data(make_vault, FROM_THE_DATA["bounds"][0]) == []


def test_categories_never_come_from_the_data(make_vault: MakeVault) -> None:
    assert columns_from_the_data(make_vault, FROM_THE_DATA["categories"][0]) == []


def test_types_never_come_from_the_data(make_vault: MakeVault) -> None:
    assert columns_from_the_data(make_vault, FROM_THE_DATA["types"][0]) == []


def test_whether_a_column_has_missing_values_never_comes_from_the_data(
    make_vault: MakeVault,
) -> None:
    assert columns_from_the_data(make_vault, FROM_THE_DATA["missing flags"][0]) == []


@pytest.mark.parametrize("name", FROM_THE_DATA)
def test_facts_from_the_data_are_flagged(
    name: str, make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, twin, place = FROM_THE_DATA[name]
    twin(monkeypatch)
    assert place in columns_from_the_data(make_vault, more)


# -- 12. a category of one person survives ---------------------------------------------------------

Threshold = Callable[[Fraction, Fraction, int, int], int]
getcontext().prec = 50
"""Digits of the exact tails below."""


@functools.cache
def exact_tail(sigma2: Fraction, least: int) -> Decimal:
    """Return P(N_Z(0, sigma2) >= least), by adding up its mass."""

    def mass(x: int) -> Decimal:
        return (Decimal(-x * x) / (2 * Decimal(sigma2.numerator) / sigma2.denominator)).exp()

    reach = range(1, abs(least) + 40 * math.isqrt(math.ceil(sigma2)) + 40)
    upper = [mass(x) for x in reach]
    half = sum(upper, Decimal(0))
    if least < 1:
        return 1 - sum(upper[-least:], Decimal(0)) / (1 + 2 * half)
    return sum(upper[least - 1 :], Decimal(0)) / (1 + 2 * half)


def likely_seen(least_of: Threshold) -> list[str]:
    """Return where some category that one unit alone brings is shown with more than delta."""
    faults = []
    scales = ((Fraction(3), 2), (Fraction(50), 64), (Fraction(4001, 3), 5))
    deltas = (Fraction(1, 20), Fraction(1, 10**5), Fraction(1, 10**9))
    for (sigma2, weight), delta, cells in itertools.product(scales, deltas, (1, 2, 7)):
        least = least_of(sigma2, delta, weight, cells)
        for new in range(1, cells + 1):
            count = math.isqrt(weight**2 // new)
            any_seen = 1 - (1 - exact_tail(sigma2, least - count)) ** new
            if any_seen > Decimal(delta.numerator) / delta.denominator:
                faults.append(f"{any_seen:.3g} for {float(delta):.3g} at {new} of {cells} cells")
    return faults


def test_a_category_of_one_person_is_seen_with_probability_at_most_delta() -> None:
    assert likely_seen(threshold) == []


def fixed_floor(sigma2: Fraction, delta: Fraction, weight: int, cells: int) -> int:
    """Return the floor of a tool that keeps observed categories with a noisy count of 5."""
    del sigma2, delta, cells
    return 5 * weight


def floor_for_one(sigma2: Fraction, delta: Fraction, weight: int, cells: int) -> int:
    """Return a threshold that forgets how many categories a person can bring."""
    del cells
    return threshold(sigma2, delta, weight, 1)


def floor_for_most(sigma2: Fraction, delta: Fraction, weight: int, cells: int) -> int:
    """Return a threshold that takes every person to spread the weight over all they may bring."""
    return threshold(sigma2, delta / cells, math.isqrt(weight**2 // cells), 1)


@pytest.mark.parametrize("floor", [fixed_floor, floor_for_one, floor_for_most])
def test_a_floor_without_a_proof_is_flagged(floor: Threshold) -> None:
    assert likely_seen(floor) != []


CITIES = 40_000


def singletons_seen(folder: Path) -> list[str]:
    """Discover a column in which each person has a category alone; too many shown is a fault."""
    table = pd.DataFrame({"city": [f"city {i}" for i in range(CITIES)]})
    account = dp.Ledger(folder / "cities.db").account("cities", dp.Budget(10, 0.5))
    vault = dp.Vault(table, dp.Schema({"city": dp.Open()}), account, unit=dp.Row(), audit_share=0.0)
    with vault.reserve(vault.discovery(1.0), epsilon=0.25, delta=0.1, label="discover") as block:
        shown = block.domain.size("city") - 1
        delta = sum(
            leaf.delta * times
            for leaf, times in flatten(block.plan.events[0])
            if isinstance(leaf, ApproxDP)
        )
    most = CITIES * float(delta) + 5 * math.sqrt(CITIES * float(delta))
    return [] if shown <= most else [f"{shown} of {CITIES} shown, at most {most:.0f} expected"]


def test_hardly_any_singleton_category_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By simulation: each of 40,000 persons brings a city of their own."""
    assert singletons_seen(tmp_path) == []
    with_threshold(monkeypatch, fixed_floor)
    assert singletons_seen(tmp_path) != []


# -- 14. some rows count more than others ----------------------------------------------------------


def weighted_rows(make_vault: MakeVault) -> list[str]:
    """Return the answers that are not plain counts of rows, noise being switched off."""
    table = pd.DataFrame(
        {"sex": ["F"] * 91 + ["M"] * 9, "smoker": ([True] * 50 + [False] * 50)}
    ).set_axis([5] * 100)  # a repeated index multiplies rows where tables are joined by it
    schema = dp.Schema({name: DECLARED.columns[name] for name in table})
    steps = (Measure(2, 1.0), Select(1, 1.0), Audit(1, 1, 1.0))
    clique = ("sex", "smoker")
    zeros = {clique: np.zeros((2, 3), dtype=np.int64)}
    vault = make_vault(table, schema, audit_share=0.5)
    scores: list[NDArray[np.int64]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_noise, "exponential", lambda found, *_: scores.append(found) or 0)
        with vault.reserve(steps, epsilon=5, label="test") as block:
            one, pair = block.measure([("sex",), clique])
            block.select(zeros, lambda _: [clique])
            audited = block.audit([Statistic(HasCode(1))], zeros, about="test")
    kept = vault._coded()
    used = kept.roles != HELD_OUT
    sex, smoker = (kept.codes[name][used] for name in clique)
    true = np.array([[np.sum((sex == i) & (smoker == j)) for j in range(3)] for i in range(2)])
    sides = [int(((kept.codes["sex"] == 1) & (kept.roles == role)).sum()) for role in (1, 2)]
    (counted,) = audited.counts
    found = {
        "one": np.array_equal(one.values, true.sum(axis=1)),
        "pair": np.array_equal(pair.values, true),
        "score": scores[0].tolist() == [used.sum()],
        "distance": audited.distance == used.sum(),
        "counts": [counted.audit_in, counted.held_out] == sides,
        "rows": len(kept.roles) == len(table),
    }
    return [name for name, right in found.items() if not right]


def test_no_row_is_weighted(make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    without_noise(monkeypatch)
    assert weighted_rows(make_vault) == []
    count = _execution.marginal_counts

    def balanced(*words: Any) -> NDArray[np.int64]:
        counts = count(*words)
        return np.where(counts < 10, counts * 10, counts)

    monkeypatch.setattr(_execution, "marginal_counts", balanced)
    assert {"one", "pair", "score", "distance"} <= set(weighted_rows(make_vault))


# -- 15. parameters follow from the number of rows -------------------------------------------------


def follows_from_n(make_vault: MakeVault, kind: type[Vault] = Vault) -> list[str]:
    """Return which parameters of a release differ between 1,000 rows and 1,001."""
    seen = []
    for rows in (1000, 1001):
        table = TABLE.loc[np.arange(rows) % ROWS].assign(person=list(map(str, range(rows))))
        account = make_vault(table, OPEN, unit=PERSON, epsilon=3.0).account
        vault = kind(table, OPEN, account, unit=PERSON)
        steps = (*vault.discovery(1.0), *dp.MST().steps(OPEN.modelled), Audit(2, 1, 0.1))
        with vault.reserve(steps, epsilon=1, label="test") as block:
            pass
        seen.append(
            {
                "plan": block.plan,
                "described": block.plan.describe(),
                "said of it": {k: v for k, v in block.meta.items() if k != "sampling_seed"},
                "left": account.remaining(),
                "unit": vault.unit,
                "shown": repr(vault).replace(account.name, ""),
            }
        )
    return [name for name in seen[0] if seen[0][name] != seen[1][name]]


class Inverse(Vault):
    """A vault that takes one over the number of rows for its delta."""

    @contextmanager
    def reserve(self, steps: Any, **facts: Any) -> Iterator[Block]:
        delta = Fraction(1, 10**4 * len(self._kept().frame))
        with super().reserve(steps, **{**facts, "delta": delta}) as block:
            yield block


def test_no_parameter_follows_from_the_number_of_rows(make_vault: MakeVault) -> None:
    assert follows_from_n(make_vault) == []
    assert {"plan", "described"} <= set(follows_from_n(make_vault, Inverse))


# -- 17. a fit changes what it was asked with ------------------------------------------------------


def changed_or_free(method: Any, make_vault: MakeVault) -> list[str]:
    """Return how a synthesizer changes, or a further fit is free."""
    vault = make_vault(TABLE, DECLARED, epsilon=2.5)
    faults = []
    before = repr(method)
    for fits in (1, 2):
        method.fit(vault, epsilon=1)
        if spent(vault) != fits:
            faults.append(f"{fits} fits were charged {float(spent(vault))}")
    try:
        method.fit(vault, epsilon=1)
        faults.append("a fit beyond the budget was made")
    except BudgetExceeded:
        pass
    if repr(method) != before:
        faults.append("a fit changed the synthesizer")
    names = [each.name for each in fields(method)] if is_dataclass(method) else list(vars(method))
    for name in (*names, "something_new"):
        try:
            setattr(method, name, 1)
            faults.append(f"{name} can be set")
        except (AttributeError, TypeError):
            pass
    return faults


@dataclass
class Draining:
    """A synthesizer that takes what it spends off its own epsilon."""

    epsilon: float = 1.0

    def fit(self, vault: Vault, *, epsilon: float) -> MarginalModel:
        del epsilon
        self.epsilon /= 2
        return dp.Independent().fit(vault, epsilon=self.epsilon)


@pytest.mark.parametrize("method", [dp.Independent(), dp.MST()], ids=["independent", "mst"])
def test_a_second_fit_is_charged_again_and_no_fit_changes_its_synthesizer(
    method: Any, make_vault: MakeVault
) -> None:
    assert changed_or_free(method, make_vault) == []


def test_a_fit_that_changes_its_synthesizer_is_flagged(make_vault: MakeVault) -> None:
    found = changed_or_free(Draining(), make_vault)
    assert {"a fit changed the synthesizer", "epsilon can be set"} <= set(found)
    assert "a fit beyond the budget was made" in found


def test_a_fit_that_is_not_charged_is_flagged(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Account.reserve
    reservations: list[Any] = []

    def once(self: Account, *plan: Any, **facts: Any) -> Any:
        reservations.append(reserve(self, *plan, **facts) if not reservations else reservations[0])
        return reservations[0]

    monkeypatch.setattr(Account, "reserve", once)
    assert "2 fits were charged 1.0" in changed_or_free(dp.Independent(), make_vault)


# -- 18. a seed reaches the noise ------------------------------------------------------------------


def noise_that_repeats(make_vault: MakeVault) -> list[str]:
    """Return which noise is drawn again once every known generator is seeded again."""
    seen: list[dict[str, object]] = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(0)
        vault = make_vault(TABLE, DECLARED, audit_share=0.2)
        steps = (Measure(1, 1.0), Select(4, 0.01), Audit(3, 0, 0.01))
        names = [(name,) for name in DECLARED.columns]
        zeros = {n: np.zeros(vault.domain.shape(n), dtype=np.int64) for n in names}
        with vault.reserve(steps, epsilon=0.5, label="test") as block:
            (counts,) = block.measure([("age",)])
            block.select(zeros, lambda _, names=names: names)
            found = block.audit([Statistic(HasCode(code)) for code in (1, 2, 3)], {}, about="test")
        exact = np.bincount(vault._training()["age"], minlength=counts.values.size)
        seen.append(
            {
                "counts": (counts.values - exact).tolist(),
                "audit": [(each.audit_in, each.held_out) for each in found.counts],
                "coins": vault._coded().roles.tolist(),
                "seed of sampling": block.meta["sampling_seed"],
            }
        )
    return [name for name in seen[0] if seen[0][name] == seen[1][name]]


def test_no_seed_reaches_the_noise(make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch) -> None:
    assert noise_that_repeats(make_vault) == []

    def seeded(sigma2: Fraction, shape: tuple[int, ...], *_: object) -> NDArray[np.int64]:
        drawn = np.random.normal(0, math.sqrt(sigma2), shape)  # noqa: NPY002
        return np.rint(drawn).astype(np.int64)

    monkeypatch.setattr(_noise, "discrete_gaussian", seeded)
    assert "counts" in noise_that_repeats(make_vault)


VAULT = f"{SHELL}.vault"
DRAWS = re.compile(
    r"\.(rand|normal|uniform|bernoulli|multinomial|poisson|exponential_|cauchy_|log_normal|geometric_"
    r"|Generator|dropout|distributions|seed|manual_seed|initial_seed)|rng"
)
MAY_DRAW = {
    f"{VAULT}._train._layers uses torch.nn.init.uniform_": "a layer's first parameters are public",
    f"{VAULT}._train._separate uses torch.random.fork_rng": "holds draws still on made-up records",
    f"{VAULT}._train._draws uses torch.random.fork_rng": "puts the generator back as it was",
    f"{VAULT}._train._draws uses torch.default_generator.manual_seed": "then gives it the stream's",
}
"""Where the vault's training may touch torch's own generator, and why."""


def other_randomness(module: Module) -> list[str]:
    """Return where a module of the vault takes random numbers that are not from its stream."""
    faults = []
    for path, node in module.uses():
        wrong = path.startswith(("numpy.random", "random.", "secrets.", "scipy.stats"))
        if path.startswith("torch.") and f"{module.name} uses {path}" not in MAY_DRAW:
            wrong = DRAWS.search(path) is not None
        if wrong or (path.startswith("os.urandom") and module.name != f"{VAULT}._stream"):
            faults.append(f"{module.name}:{node.lineno} uses {path}")
    for node in ast.walk(module.tree):  # of a tensor: its module is not seen
        if (
            isinstance(node, ast.Attribute)
            and DRAWS.match(f".{node.attr}")
            and node.attr[-1] == "_"
        ):
            path = ast.unparse(node)
            if not any(each.endswith(path.removeprefix("nn.")) for each in MAY_DRAW):
                faults.append(f"{module.name}:{node.lineno} uses {path}")
    return faults


def test_the_vault_draws_from_its_stream_alone() -> None:
    ours = [module for module in shipped(ROOT) if module.name.startswith(VAULT)]
    assert len(ours) > 5
    assert [fault for module in ours for fault in other_randomness(module)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.random.default_rng(0).normal()",
        "from numpy.random import Generator, Philox\nGenerator(Philox(key=1))",
        "import random\nrandom.SystemRandom().gauss(0, 1)",
        "import os\nos.urandom(8)",
        "import torch\ntorch.randn(3)",
        "import torch\ntorch.manual_seed(0)",
        "import torch\ntorch.zeros(3).normal_()",
        "from torch.distributions import Normal\nNormal(0, 1)",
        "import torch\ntorch.nn.functional.dropout(x)",
        "from torch import nn\nnn.init.uniform_(x)",
    ],
)
def test_another_generator_in_the_vault_is_flagged(source: str) -> None:
    assert other_randomness(Module(f"{VAULT}._noise", source)) != []


# -- 19. noise is a float --------------------------------------------------------------------------


def floats_in_answers(make_vault: MakeVault) -> list[str]:
    """Return which noise or noisy counts are not whole numbers of 64 bits."""
    scales = [Fraction(1, 7), Fraction(9), Fraction(10**9, 7), Fraction(2**90)]
    draws = {f"noise at {s}": _noise.discrete_gaussian(s, (50,)) for s in scales}
    vault = make_vault(TABLE, DECLARED)
    (counts,) = vault.measure([("sex",)], epsilon=1)
    answers = {**draws, "counts": counts.values}
    faults = [name for name, each in answers.items() if each.dtype != np.int64]
    with vault.reserve((Audit(1, 1, 1.0),), epsilon=1, label="test") as block:
        zeros = {("sex",): np.zeros(2, dtype=np.int64)}
        found = block.audit([Statistic(HasCode(30))], zeros, about="test")
    numbers = {"audit": found.counts[0].audit_in, "distance": found.distance}
    return faults + [name for name, each in numbers.items() if type(each) is not int]


def test_noise_and_counts_are_whole_numbers(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert floats_in_answers(make_vault) == []
    draw = _noise.discrete_gaussian
    monkeypatch.setattr(_noise, "discrete_gaussian", lambda *w: draw(*w) + 0.25)
    assert {"noise at 9", "noise at 1/7"} <= set(floats_in_answers(make_vault))


# -- 22. a model file holds whatever the model held ------------------------------------------------

MEMBERS = re.compile(r"(header|table_[0-9]+|map_[0-9]+|share_[0-9]+)\.npy")
HEADER = {"format", "format_version", "domain", "rows", "cliques", "edges", "columns"}
HEADER |= {"noise_of_codes", "noise_of_cells"}
DOMAIN = {"format_version", "columns", "output", "facts"}


def beyond_the_allowed(path: Path) -> list[str]:
    """Return what is in a model file and is not on the list of what may be."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        arrays = dict(np.load(path, allow_pickle=False))
        header = json.loads(arrays["header"].tobytes())
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        return [f"it is none ({type(error).__name__})"]
    faults = [name for name in names if not MEMBERS.fullmatch(name)]
    faults += [name for name, array in arrays.items() if array.dtype.kind not in "uif"]
    faults += sorted(header.keys() - HEADER)
    return faults + sorted(header["domain"].keys() - DOMAIN)


def test_a_model_file_holds_what_is_allowed_and_nothing_else(
    make_vault: MakeVault, tmp_path: Path
) -> None:
    """Whatever hangs on to the model in memory is not written."""
    model = dp.MST().fit(make_vault(TABLE, OPEN), epsilon=5)
    object.__setattr__(model, "frame", TABLE)
    object.__setattr__(model.domain, "frame", TABLE)
    model.save(tmp_path / "model.npz")
    assert beyond_the_allowed(tmp_path / "model.npz") == []
    for twin in (pickled, with_objects, with_everything):
        twin(model, tmp_path / "twin.npz")
        assert beyond_the_allowed(tmp_path / "twin.npz") != [], twin


def pickled(model: MarginalModel, path: Path) -> None:
    path.write_bytes(pickle.dumps(model))


def with_objects(model: MarginalModel, path: Path) -> None:
    header = np.frombuffer(b'{"domain": {}}', dtype=np.uint8)
    np.savez(path, header=header, table_0=np.array([{"frame": 1}], dtype=object))
    del model


def with_everything(model: MarginalModel, path: Path) -> None:
    model.save(path)
    np.savez(path, **np.load(path), **{n: TABLE["age"].to_numpy() for n in vars(model)})


Change = Callable[[dict[str, NDArray[Any]], dict[str, Any]], object]

UNKNOWN: dict[str, Change] = {
    "an array": lambda arrays, _: arrays.update(rows=np.zeros(400)),
    "an array of objects": lambda arrays, _: arrays.update(rows=np.array([{}], dtype=object)),
    "objects in a table": lambda arrays, _: arrays.update(table_0=np.array([{}], dtype=object)),
    "a further table": lambda arrays, _: arrays.update(table_99=np.zeros(3)),
    "a key of the header": lambda _, header: header.update(trained_on=400),
    "a key of the domain": lambda _, header: header["domain"].update(frame=[1, 2, 3]),
    "a key of a codec": lambda _, header: header["domain"]["columns"][0].update(seen=[1]),
    "a codec": lambda _, header: header["domain"]["columns"][0].update(codec="python"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_a_model_file_may_not_hold_is_refused(
    name: str, make_vault: MakeVault, tmp_path: Path
) -> None:
    path = tmp_path / "model.npz"
    dp.Independent().fit(make_vault(TABLE, DECLARED), epsilon=5).save(path)
    arrays = dict(np.load(path))
    header = json.loads(arrays["header"].tobytes())
    for change in (lambda *_: None, UNKNOWN[name]):
        change(arrays, header)
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        np.savez(path, **arrays)
        if change is UNKNOWN[name]:
            with pytest.raises(InvalidRequest):
                MarginalModel.load(path)
        else:
            MarginalModel.load(path)
