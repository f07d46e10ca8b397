"""A private choice among finished tables, and the gate: what is chosen, at what price."""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rich.console import Console

import dpsynth as dp
from dpsynth import choosing, release
from dpsynth.bundle import ReleaseError, verify
from dpsynth.choosing import Choice, Gate
from dpsynth.recipe import Recipe
from dpsynth.run import run_recipe
from dpsynth.vault import Choose, Judged, Statistic, _choose, _vault, make_plan
from dpsynth.vault._stream import SeededStream
from dpsynth_accounting import BudgetExceeded, Exponential, InvalidRequest, curve, verify_extract
from tests.vault.exact import HasCode, with_known_coins

PLANS = functools.lru_cache(make_plan)
ONE = np.random.default_rng(0).integers(0, 4, 2000)
SCHEMA = dp.Schema({name: dp.Integer(0, 3) for name in "abc"})
TABLE = pd.DataFrame({"a": ONE, "b": ONE, "c": (ONE + 1) % 4})


@pytest.fixture(autouse=True)
def priced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Price plans once, and have coins and noise known, so that no verdict fails by chance."""
    monkeypatch.setattr(_vault, "make_plan", PLANS)
    monkeypatch.setattr(_vault, "SYSTEM", SeededStream(11))
    with_known_coins(monkeypatch)


def vault_of(folder: Path, share: float = 0.5, epsilon: float = 16) -> dp.Vault:
    account = dp.Ledger(folder / "ledger.db").account("people", dp.Budget(epsilon, 1e-6))
    return dp.Vault(TABLE, SCHEMA, account, unit=dp.Row(), audit_share=share)


@pytest.fixture
def vault(tmp_path: Path) -> dp.Vault:
    return vault_of(tmp_path)


def mixed(share: float, seed: int = 1) -> pd.DataFrame:
    """Return a table like the private one, a share of whose rows is uniform."""
    rng = np.random.default_rng(seed)
    one = rng.integers(0, 4, 2000)
    table = pd.DataFrame({"a": one, "b": one, "c": (one + 1) % 4})
    noise = rng.random(2000) < share
    table.loc[noise] = rng.integers(0, 4, (int(noise.sum()), 3))
    return table


# -- what is chosen ------------------------------------------------------------------------------


def test_the_nearest_of_several_tables_is_chosen(vault: dp.Vault) -> None:
    """By gaps of hundreds of rows at epsilon 2, a wrong choice has probability below 1e-30."""
    model = dp.Independent().fit(vault, epsilon=2)
    tables = [(model, mixed(share)) for share in (1.0, 0.5, 0.0, 0.8)]
    assert dp.choose(vault, tables, epsilon=2) == 2
    assert dp.choose(vault, tables[:2], epsilon=2) == 1
    assert dp.choose(vault, tables[:1], epsilon=1) == 0
    assert vault.account.remaining()[0] == 16 - 2 - 2 - 2 - 1


@pytest.mark.parametrize("by", ["exact match", "nearest distance", "distance ratio"])
def test_the_table_in_which_an_attack_finds_nobody_is_chosen(tmp_path: Path, by: str) -> None:
    """Rows far apart: the copy of those that were in is found, other rows find nobody.

    Some 140 more are found in the copy, over 100 by each attack and coin: at an epsilon of 3 the
    wrong choice has probability below 1e-60.
    """
    made = np.random.default_rng(4).integers(0, 60, (1000, 5))
    rows, fair = (pd.DataFrame(part, columns=list("abcde")) for part in (made[:600], made[600:]))
    schema = dp.Schema({name: dp.Integer(0, 59) for name in "abcde"})
    account = dp.Ledger(tmp_path / "ledger.db").account("people", dp.Budget(9, 1e-6))
    vault = dp.Vault(rows, schema, account, unit=dp.Row(), audit_share=0.5)
    model = dp.Independent().fit(vault, epsilon=1)
    used = vault._training()  # what a release must never hold
    copy = pd.DataFrame(dict(used))
    for tables, right in (([copy, fair], 1), ([fair, copy], 0)):
        assert dp.choose(vault, [(model, each) for each in tables], epsilon=3, by=by) == right


def test_the_choice_has_the_law_of_the_exponential_mechanism(vault: dp.Vault) -> None:
    """Over 4,000 choices: each share within 6 standard deviations, false alarm below 1e-8.

    The twin, scores that are taken at half, is as many away.
    """
    step, event = Choose(3, 1, 1.0), Exponential(Fraction(1, 2))
    counts = np.bincount(vault._training()["a"], minlength=4).astype(np.int64)
    tables = [Judged(str(i), {("a",): counts + np.array([i, i, i, i])}) for i in (0, 1, 2)]
    with vault.reserve((step,), epsilon=1, label="t") as block:
        draw = _choose.drawing(block, step, event, tables, None)
        found = np.bincount([draw() for _ in range(4000)], minlength=3) / 4000
        block.choose(tables)

    def law(halves: float) -> NDArray[np.float64]:
        weights = np.exp(-0.25 * halves * np.array([0.0, 4.0, 8.0]))
        return np.asarray(weights / weights.sum())

    spread = 6 * np.sqrt(law(1) * (1 - law(1)) / 4000)
    assert (np.abs(found - law(1)) < spread).all()
    assert not (np.abs(found - law(0.5)) < spread).all()


# -- the price -----------------------------------------------------------------------------------


def test_it_costs_the_same_however_many_tables_there_are() -> None:
    delta = Fraction(1, 10**6)
    prices = []
    for tables in (2, 5, 1000):
        plan = make_plan((Choose(tables, 3, 1.0),), dp.Row(), Fraction(1), delta)
        (event,) = plan.events
        assert isinstance(event, Exponential)
        prices.append(event.epsilon)
        assert 0.99 < curve(plan.event).epsilon(delta) <= 1
    assert len(set(prices)) == 1
    # Twice as far a choice would be another event: the twin is dearer than what was charged.
    assert curve(Exponential(2 * prices[0])).epsilon(1e-6) > 1.5


def test_the_extract_prices_it_anew_and_no_exact_result_is_noted(vault: dp.Vault) -> None:
    model = dp.Independent().fit(vault, epsilon=1)
    dp.choose(vault, [(model, mixed(0)), (model, mixed(1))], epsilon=1)
    extract = vault.account.extract()
    assert verify_extract(extract).faults == []
    assert vault.account.attempts().made == 0
    payloads = [entry["payload"] for entry in extract["entries"]]
    (look,) = [each for each in payloads if each["kind"] == "inspect"]  # for the same people
    assert "for" in look
    (step,) = payloads[-4]["meta"]["steps"]
    assert (step["step"], step["candidates"], step["marginals"]) == ("choose", 2, 3)


def test_a_choice_is_drawn_once(vault: dp.Vault) -> None:
    """Resumed, it is replayed: drawn again, it would tell more than was paid for."""
    step = (Choose(2, 0, 1.0),)
    tables = [Judged(str(i), statistic=Statistic(HasCode(i))) for i in (0, 1)]
    with vault.reserve(step, epsilon=1, label="t") as block:
        first = block.choose(tables)
    for _ in range(5):
        with vault.reserve(step, epsilon=1, label="t", resume=True) as block:
            assert block.choose(tables) == first
    assert vault.account.remaining()[0] == 15
    with (
        vault.reserve(step, epsilon=1, label="t", resume=True) as block,
        pytest.raises(InvalidRequest, match="different question"),
    ):
        block.choose(tables[::-1])


# -- refusals ------------------------------------------------------------------------------------


def test_impossible_choices_are_refused_before_anything_is_charged(tmp_path: Path) -> None:
    vault = vault_of(tmp_path, share=0.0, epsilon=1)
    model: Any = None
    for tables, by in (([], "distance"), ([1], "beauty"), ([1], "exact match")):
        with pytest.raises(InvalidRequest, match="nothing was spent"):
            dp.choose(vault, [(model, mixed(0)) for _ in tables], epsilon=1, by=by)
    assert vault.account.remaining()[0] == 1
    with pytest.raises(BudgetExceeded):
        vault.choose([Judged("a", {("a",): np.zeros(4, dtype=np.int64)})], epsilon=2)


FOUR = np.zeros(4, dtype=np.int64)


@pytest.mark.parametrize(
    "tables",
    [
        [Judged("a", {("a",): FOUR})],
        [Judged("a", {("a",): FOUR}), Judged("b", {("b",): FOUR})],
        [Judged("a", {("a",): FOUR}), Judged("b", {})],
        [Judged("a", {("a",): FOUR}), Judged("b", {("a",): FOUR}, Statistic(HasCode(0)))],
        [Judged("a", {("a",): FOUR}), Judged("b", {("a",): FOUR + 2**60})],
        [Judged("a", {("a",): FOUR}), Judged("b", {("a",): FOUR[:3]})],
    ],
)
def test_other_tables_than_were_declared_are_refused(vault: dp.Vault, tables: list[Judged]) -> None:
    with (
        pytest.raises(InvalidRequest),
        vault.reserve((Choose(2, 1, 1.0),), epsilon=1, label="t") as block,
    ):
        block.choose(tables)
    assert vault.account.remaining()[0] == 16


@pytest.mark.parametrize("step", [Choose(0, 1, 1.0), Choose(2, -1, 1.0), Choose(2, 1, 0.0)])
def test_an_impossible_step_is_refused(step: Choose) -> None:
    with pytest.raises(InvalidRequest, match="impossible numbers"):
        make_plan((step,), dp.Row(), Fraction(1), Fraction(1, 10**6))


# -- the gate ------------------------------------------------------------------------------------


def facts(excess: float | None, distance: float | None) -> dict[str, Any]:
    found = [] if excess is None else [{"name": "exact match", "excess": excess}]
    return {"verdict": {"findings": found}, "fidelity": {"mean_tvd": distance}}


def test_the_gate_is_shut_by_what_was_paid_for() -> None:
    gate = Gate(excess=0.02, distance=0.1)
    assert gate.against(facts(0.01, 0.05)) == []
    assert gate.against(facts(0.02, 0.1)) == []
    assert "exact match is above 0.02" in gate.against(facts(0.03, 0.05))[0]
    assert "distance of pairs" in gate.against(facts(0.01, 0.2))[0]
    assert len(gate.against(facts(None, None))) == 2  # what was not measured does not pass
    assert choosing.OPEN.against(facts(None, None)) == []
    for wrong in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(InvalidRequest, match="A gate"):
            Gate(excess=wrong)


# -- in a recipe ---------------------------------------------------------------------------------

RECIPE = """\
format_version = 1
schema = "schema.toml"
[account]
ledger = "ledger.db"
name = "people"
epsilon = 8.0
delta = 1e-6
[unit]
kind = "row"
[release]
epsilon = 4.0
exact = false
[method]
name = "independent"
[choose]
samples = 3
[gate]
distance = 0.9
"""


def recipe_of(folder: Path, text: str) -> Recipe:
    (folder / "release.toml").write_text(text)
    columns = "".join(
        f'[columns.{name}]\ntype = "integer"\nlower = 0\nupper = 3\n' for name in "abc"
    )
    (folder / "schema.toml").write_text(f"format_version = 1\n{columns}")
    TABLE.to_csv(folder / "rows.csv", index=False)
    return Recipe.load(folder / "release.toml")


def test_a_run_chooses_among_samples_in_its_own_plan(tmp_path: Path) -> None:
    from dpsynth.forecast import forecast

    recipe = recipe_of(tmp_path, RECIPE)
    assert recipe.choice == Choice(3)
    assert [line["step"] for line in forecast(recipe, 2000)["steps"]] == [
        "measure",
        "choose",
        "audit",
    ]
    out, quiet = tmp_path / "out", Console(quiet=True)
    found = run_recipe(recipe, tmp_path / "rows.csv", out, console=quiet)
    assert found.released
    assert found.internal is None
    assert "No exact result was read." in found.text()
    assert verify(out).faults == ()
    assert "Chose one of 3 synthetic tables" in (out / "report.html").read_text()
    assert recipe.open_account().remaining()[0] == 4
    (paid,) = [
        each["payload"]["meta"]
        for each in recipe.open_account().extract()["entries"]
        if each["payload"]["kind"] == "reserve"
    ]
    assert paid["choose"] == {"by": "distance", "samples": 3}
    assert paid["gate"] == {"distance": 0.9}
    # The gate of a further run is too narrow for independent columns: nothing is released.
    narrow = recipe_of(tmp_path, RECIPE.replace("0.9", "0.05"))
    again = run_recipe(narrow, tmp_path / "rows.csv", tmp_path / "no", console=quiet)
    assert not again.released
    assert "NOT released: the noisy distance of pairs is above 0.05." in again.text()
    assert not (tmp_path / "no").exists()
    assert narrow.open_account().attempts().made == 0


def test_what_was_fixed_with_a_charge_is_what_a_resumed_run_goes_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate or a choice that is changed between a run and its end would not be one beforehand."""
    quiet = Console(quiet=True)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    recipe = recipe_of(tmp_path, RECIPE)
    with monkeypatch.context() as patch:
        patch.setattr(Choice, "made", killed)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, tmp_path / "rows.csv", tmp_path / "out", console=quiet)
    for old, new, named in (
        ("distance = 0.9", "distance = 0.99", "gate"),
        ("[gate]\ndistance = 0.9\n", "", "gate"),
        ("samples = 3", "samples = 50", "choose"),
    ):
        changed = recipe_of(tmp_path, RECIPE.replace(old, new))
        head = changed.open_account().head()
        with pytest.raises(InvalidRequest, match=f"than it was begun with: (.*, )?{named}"):
            run_recipe(changed, tmp_path / "rows.csv", tmp_path / "out", console=quiet, resume=True)
        assert changed.open_account().head() == head
    recipe = recipe_of(tmp_path, RECIPE)
    rows, out = tmp_path / "rows.csv", tmp_path / "out"
    assert run_recipe(recipe, rows, out, console=quiet, resume=True).released


def test_a_release_beyond_its_gate_does_not_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tmp_path, RECIPE.replace("0.9", "0.05"))
    with monkeypatch.context() as patch:  # the twin: a run that does not look at its gate
        patch.setattr(Gate, "against", lambda *_: [])
        rows, out = tmp_path / "rows.csv", tmp_path / "out"
        assert run_recipe(recipe, rows, out, console=Console(quiet=True)).released
    (fault,) = verify(out).faults
    assert "the gate was shut: the noisy distance of pairs is above 0.05" in fault


@pytest.mark.parametrize(("by", "weaker"), [("distance", False), ("exact match", True)])
def test_a_verdict_on_a_table_that_an_attack_chose_claims_less(
    tmp_path: Path, by: str, weaker: bool
) -> None:
    """The audit attacks the units by which the table was chosen, so it finds less of a leak."""
    text = RECIPE.replace("samples = 3", f'samples = 3\nby = "{by}"')
    recipe, out = recipe_of(tmp_path, text), tmp_path / "out"
    found = run_recipe(recipe, tmp_path / "rows.csv", out, console=Console(quiet=True))
    assert ("to be found least by an attack" in found.facts["verdict"]["sentence"]) == weaker


def test_exact_results_that_fail_change_no_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they can be computed is a fact about the rows: no exit code may follow from it."""

    def failing(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(release, "internal_of", failing)
    recipe = recipe_of(tmp_path, RECIPE.replace("exact = false\n", ""))
    out = tmp_path / "out"
    found = run_recipe(recipe, tmp_path / "rows.csv", out, console=Console(quiet=True))
    assert found.released
    assert found.internal is None
    assert "could not be computed or written" in found.text()
    assert verify(out).faults == ()


def test_beyond_the_cap_a_resumed_run_spends_nothing_and_no_report_goes_into_a_release(
    tmp_path: Path,
) -> None:
    recipe, quiet = recipe_of(tmp_path, RECIPE), Console(quiet=True)
    account, rows, out = recipe.open_account(), tmp_path / "rows.csv", tmp_path / "out"
    inside = recipe_of(tmp_path, RECIPE.replace("exact = false\n", ""))
    for where in (out, out / "internal"):
        with pytest.raises(ReleaseError, match="part of the release folder"):
            run_recipe(inside, rows, out, console=quiet, internal=where)
    for digit in "abc":
        account.record("inspect", {"purpose": "exact results", "candidate": digit * 64})
    for resume in (False, True):
        with pytest.raises(InvalidRequest, match="Attempt 4"):
            run_recipe(recipe, rows, out, console=quiet, resume=resume)
    assert account.remaining()[0] == 8


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("samples = 3", "samples = 1"),
        ("samples = 3", 'samples = 3\nby = "beauty"'),
        ("exact = false", "audit_share = 0.0"),
        ("distance = 0.9", "distance = 1.5"),
        ("distance = 0.9", "excees = 0.5"),
    ],
)
def test_a_recipe_that_cannot_choose_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = RECIPE.replace(old, new)
    if "audit_share" in new:
        text = text.replace("samples = 3", 'samples = 3\nby = "exact match"')
    with pytest.raises(InvalidRequest):
        recipe_of(tmp_path, text)
