"""The recipe's account: a file or a database, a budget alone or a whole policy."""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

from dpsynth.forecast import forecast
from dpsynth.recipe import Recipe, RecipeError
from dpsynth_accounting import Budget, Filter, InvalidRequest, Ledger, Policy

RECIPE = """\
format_version = 1
schema = "schema.toml"
[account]
ledger = "ledger.db"
name = "people"
epsilon = 2.0
delta = 1e-6
{account}
[unit]
kind = "row"
[release]
epsilon = 1.0
{release}
[method]
name = "independent"
"""

SCHEMA = 'format_version = 1\n[columns.a]\ntype = "integer"\nlower = 0\nupper = 3\n'

KEY = "ab" * 32


@pytest.fixture
def load(tmp_path: Path):  # type: ignore[no-untyped-def]
    (tmp_path / "schema.toml").write_text(SCHEMA)

    def make(account: str = "", release: str = "", ledger: str = "ledger.db") -> Recipe:
        text = RECIPE.format(account=account, release=release).replace("ledger.db", ledger)
        path = tmp_path / "release.toml"
        path.write_text(text)
        return Recipe.load(path)

    return make


def test_a_budget_alone_asks_for_no_policy(load, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """So that a recipe may spend from an account whose policy was made by someone else."""
    recipe = load(release='prepared_by = "ada"')
    assert recipe.policy == Budget(2, 1e-6)
    policy = Policy(Budget(2, 1e-6), preparers=("ada",))
    Ledger(tmp_path / "ledger.db").account("people", policy)
    assert recipe.open_account().policy == policy
    assert recipe.prepared_by == "ada"


def test_every_rule_of_a_policy(load) -> None:  # type: ignore[no-untyped-def]
    recipe = load(
        'filter = "zcdp"\nper_release = 0.5\nexpires = 2027-12-31\n'
        f'preparers = ["ada", "bo"]\napprovers = {{ cy = "{KEY}", di = "" }}'
    )
    assert recipe.policy == Policy(
        Budget(2, 1e-6),
        filter=Filter.named("zcdp"),
        per_release=Fraction(1, 2),
        expires=date(2027, 12, 31),
        preparers=("ada", "bo"),
        approvers={"cy": KEY, "di": None},
    )
    assert recipe.open_account().policy == recipe.policy
    with pytest.raises(InvalidRequest, match="another policy"):
        load('filter = "gdp"').open_account()


def test_approvers_by_name_alone(load) -> None:  # type: ignore[no-untyped-def]
    assert load('approvers = ["cy"]').policy.approvers == {"cy": None}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('expires = "2027-12-31"', "account.expires"),
        ("expires = 2027-12-31T00:00:00", "account.expires"),
        ('preparers = "ada"', "account.preparers"),
        ("per_release = '1'", "account.per_release"),
        ("expire = 2027-12-31", "did you mean 'expires'"),
        ("approvers = [3]", "account.approvers"),
    ],
)
def test_a_fault_of_the_policy_names_its_key(load, line: str, told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RecipeError, match=told):
        load(line)


@pytest.mark.parametrize(
    "line",
    ['filter = "pld"', "per_release = 0.0", 'approvers = { cy = "xyz" }', 'preparers = ["a", "a"]'],
)
def test_an_impossible_policy_is_refused(load, line: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidRequest) as refusal:
        load(line)
    assert not refusal.value.touched


def test_a_ledger_is_a_file_beside_the_recipe_or_a_database(load, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    recipe = load('secret = "team.secret"')
    assert (recipe.ledger, recipe.secret) == (tmp_path / "ledger.db", tmp_path / "team.secret")
    url = "postgresql+psycopg://team@db/ledger"
    assert load(ledger=url).ledger == url


def test_a_forecast_makes_no_ledger_and_reads_what_is_left(load, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    recipe = load()
    assert forecast(recipe, 100)["left"] is None
    assert not (tmp_path / "ledger.db").exists()
    recipe.open_account()
    assert forecast(recipe, 100)["left"] == 2.0


def test_a_plan_is_calibrated_under_the_filter_of_the_account(load, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The account grants what the plan forecasts: with zCDP that takes more noise."""
    plain = load().plan()
    recipe = load('filter = "zcdp"')
    noisier = recipe.plan()
    sd = [plan.describe()[0]["noise_sd"][0] for plan in (plain, noisier)]
    assert sd[0] < sd[1]
    rule, budget = Filter.named("zcdp"), Budget(2, 1e-6)
    claim = recipe.epsilon, recipe.delta
    allowed = rule.allowance(*claim)
    assert rule.charge(noisier.event, *claim, budget).fits(allowed)
    assert not rule.charge(plain.event, *claim, budget).fits(allowed)
    recipe.open_account()
    # A recipe that gives the budget alone plans under the filter that the account has.
    assert load().plan().event == noisier.event
