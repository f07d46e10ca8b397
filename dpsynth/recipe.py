"""A release as one file that a person writes, reviews and signs off: ``release.toml``."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpsynth._audit import audit_step
from dpsynth.choosing import OPEN, Choice, Gate, require_criterion
from dpsynth.columns import near
from dpsynth.recommend import recommended
from dpsynth.schema import Schema
from dpsynth.synthesizer import Synthesizer, named
from dpsynth.vault import (
    Person,
    Plan,
    Row,
    Step,
    Unit,
    discovery_step,
    discovery_weight,
    make_plan,
    scaled,
)
from dpsynth_accounting import (
    ADDITIVE,
    Account,
    Budget,
    Filter,
    InvalidRequest,
    Ledger,
    Policy,
    checked_delta,
    checked_epsilon,
    require_delta_below,
)

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Account(BaseModel):
    model_config = _STRICT
    ledger: str = Field(
        description="The ledger file, from the recipe's folder on; or a PostgreSQL URL."
    )
    secret: str | None = Field(
        None, description="The file of the ledger's secret, if it is not beside the ledger file."
    )
    name: str = Field(min_length=1, description="The population, not the file.")
    epsilon: float = Field(description="What may ever be spent on this population.")
    delta: float = Field(description="What may ever be spent on this population.")
    filter: str | None = Field(None, description="How charges add up; by default additive.")
    per_release: float | None = Field(None, description="Greatest epsilon of one release.")
    expires: date | None = Field(None, description="The last day on which anything may be spent.")
    preparers: list[str] | None = Field(None, description="Who may prepare a release.")
    approvers: list[str] | dict[str, str] | None = Field(
        None, description="Who may approve one; a table gives each a public key, or ''."
    )


_RULES = frozenset({"filter", "per_release", "expires", "preparers", "approvers"})
"""The keys of an account that make a policy of its budget."""


class _Unit(BaseModel):
    model_config = _STRICT
    kind: Literal["row", "person"]
    column: str | None = Field(None, description="The column that identifies a person.")
    rows: int | None = Field(None, description="Greatest number of rows kept of each person.")


class _Shares(BaseModel):
    model_config = _STRICT
    discover: float | None = Field(
        None, gt=0, description="By default by how many columns are open."
    )
    fit: float = Field(95.0, gt=0)
    choose: float = Field(2.0, gt=0, description="Of the choice among samples, if there is one.")
    audit: float = Field(5.0, gt=0)


class _Choose(BaseModel):
    model_config = _STRICT
    samples: int = Field(ge=2, le=1000, description="Tables drawn from the model.")
    by: str = Field("distance", description="By what they are compared with private rows.")


class _Gate(BaseModel):
    model_config = _STRICT
    excess: float | None = Field(None, description="Greatest noisy excess of any attack.")
    distance: float | None = Field(None, description="Greatest noisy mean distance of pairs.")


class _Release(BaseModel):
    model_config = _STRICT
    epsilon: float = Field(description="What this release may spend.")
    delta: float | None = Field(
        None, description="By default the account's, times epsilon's share."
    )
    audit_share: float = Field(0.2, ge=0, le=0.5, description="Chance that a unit is audited.")
    shares: _Shares = Field(
        _Shares(discover=None, fit=95.0, choose=2.0, audit=5.0),
        description="How the precision is split.",
    )
    rows: int | None = Field(None, ge=0, description="Rows to draw; by default the noisy number.")
    target: str | None = Field(None, description="A column that a downstream model would predict.")
    declared_units: int | None = Field(None, ge=1, description="Public number of units, if any.")
    prepared_by: str | None = Field(None, description="Who prepares it, as the ledger names them.")
    exact: bool = Field(
        True, description="Whether the custodian gets exact results, once all is decided."
    )


class _File(BaseModel):
    model_config = _STRICT
    format_version: Literal[1]
    table_schema: str = Field(alias="schema", description="The schema file.")
    account: _Account
    unit: _Unit
    release: _Release
    method: dict[str, Any] = Field(default_factory=dict, description="By default recommended.")
    choose: _Choose | None = Field(None, description="A private choice among samples.")
    gate: _Gate | None = Field(None, description="Limits beyond which nothing is released.")


class RecipeError(InvalidRequest):
    """A recipe with faults, all of them listed."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            f"The recipe {path} was to be used.",
            "It has these faults: " + "; ".join(faults) + ".",
            "Mend them all and try again; the how-to for your own CSV shows a whole recipe.",
        )


@dataclass(frozen=True)
class Recipe:
    """What a release will do, before any data: schema, account, unit, method, budget and shares."""

    path: Path
    schema: Schema
    ledger: Path | str
    secret: Path | None
    account: str
    policy: Budget | Policy
    unit: Unit
    synthesizer: Synthesizer
    epsilon: Fraction
    delta: Fraction
    audit_share: float
    shares: tuple[float, float, float]
    rows: int | None
    target: str | None
    declared_units: int | None
    prepared_by: str | None
    exact: bool = True
    choice: Choice | None = None
    choice_share: float = 2.0
    gate: Gate = OPEN

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe and the schema it names.

        A recipe that says nothing of its account but the budget asks for the account by its
        budget alone; one that gives any other rule of a policy has to give all that are not the
        default, since an account is opened with one policy for ever.

        Raises:
            RecipeError: The file is missing, is no TOML, or has faults; all are reported at once.
            SchemaError: The schema it names has faults.
        """
        path = Path(path)
        file = _parse(path)
        policy = _policy(file.account)
        budget = policy if isinstance(policy, Budget) else policy.budget
        epsilon = checked_epsilon(file.release.epsilon)
        at = file.release.delta
        delta = budget.delta_share(epsilon) if at is None else checked_delta(at)
        if file.release.declared_units is not None:
            require_delta_below(delta, file.release.declared_units)
        schema = Schema.load(path.parent / file.table_schema)
        method, shares = dict(file.method), file.release.shares
        target = file.release.target
        if target is not None and target not in schema.modelled:
            raise RecipeError(path, [f"release.target: {target!r} is no modelled column"])
        name = method.pop("name", None)
        if name is None:
            name, parameters = recommended(schema, Budget(epsilon, delta), target)
            method = {**parameters, **method}
        recipe = cls(
            path=path,
            schema=schema,
            ledger=_place(path, file.account.ledger),
            secret=path.parent / file.account.secret if file.account.secret else None,
            account=file.account.name,
            policy=policy,
            unit=_unit(path, file.unit),
            synthesizer=named(str(name), method),
            epsilon=epsilon,
            delta=delta,
            audit_share=file.release.audit_share,
            shares=(
                shares.discover or shares.fit * discovery_weight(schema),
                shares.fit,
                shares.audit,
            ),
            rows=file.release.rows,
            target=target,
            declared_units=file.release.declared_units,
            prepared_by=file.release.prepared_by,
            exact=file.release.exact,
            choice=None if file.choose is None else Choice(file.choose.samples, file.choose.by),
            choice_share=shares.choose,
            gate=OPEN if file.gate is None else Gate(file.gate.excess, file.gate.distance),
        )
        if recipe.choice is not None:
            require_criterion(recipe.choice.by, recipe.audit_share, recipe.choice.samples)
        return recipe

    @property
    def budget(self) -> Budget:
        """What may ever be spent on the account."""
        return self.policy if isinstance(self.policy, Budget) else self.policy.budget

    def open_account(self) -> Account:
        """Return the recipe's account, opened with its policy at its first use.

        Raises:
            InvalidRequest: The account was opened with another budget or policy.
            LedgerError: The ledger cannot be used.
        """
        return Ledger(self.ledger, secret=self.secret).account(self.account, self.policy)

    def existing_account(self) -> Account | None:
        """Return the recipe's account, or None if it was never opened; no ledger is made."""
        if isinstance(self.ledger, Path) and not self.ledger.exists():
            return None
        ledger = Ledger(self.ledger, secret=self.secret)
        return ledger.existing(self.account) if self.account in ledger.accounts() else None

    @property
    def label(self) -> str:
        """What the ledger calls a run of this recipe."""
        return f"run {self.synthesizer.name}"

    def steps(self) -> tuple[Step, ...]:
        """Return everything a run will ask of the vault, discovery and audit included."""
        discover, fit, audit = self.shares
        return (
            *discovery_step(self.schema, discover),
            *scaled(self.synthesizer.steps(self.schema.modelled), fit),
            *self._choosing(),
            audit_step(self.schema, target=self.target, weight=audit),
        )

    def _choosing(self) -> tuple[Step, ...]:
        if self.choice is None:
            return ()
        return (self.choice.step(self.schema.modelled, self.choice_share),)

    def plan(self) -> Plan:
        """Return the run's plan, calibrated to its budget; no data are read."""
        held = self.existing_account()
        rule = ADDITIVE if isinstance(self.policy, Budget) else self.policy.filter
        return make_plan(
            self.steps(),
            self.unit,
            self.epsilon,
            self.delta,
            filter=rule if held is None else held.policy.filter,
            budget=self.budget,
        )


def _place(path: Path, ledger: str) -> Path | str:
    """Return the URL of a database, or the path of a file from the recipe's folder on."""
    return ledger if "://" in ledger else path.parent / ledger


def _policy(account: _Account) -> Budget | Policy:
    """Return the policy a recipe asks for, or its budget if it gives no other rule."""
    budget = Budget(account.epsilon, account.delta)
    if not account.model_fields_set & _RULES:
        return budget
    approvers = account.approvers or ()
    return Policy(
        budget,
        filter=Filter.named(account.filter or ADDITIVE.name),
        per_release=account.per_release,
        expires=account.expires,
        preparers=account.preparers or (),
        approvers={name: key or None for name, key in approvers.items()}
        if isinstance(approvers, dict)
        else approvers,
    )


def _parse(path: Path) -> _File:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(path, ["it cannot be read as UTF-8 text"]) from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(path, [f"it is not TOML: {error}"]) from error
    try:
        return _File.model_validate(data)
    except ValidationError as error:
        raise RecipeError(path, [_fault(each) for each in error.errors()]) from error


def _fault(error: Mapping[str, Any]) -> str:
    """Return one fault in one line, with the nearest known key for an unknown one."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key" + near(str(error["loc"][-1]), _keys(_File))
    return f"{place}: {error['msg'].lower()}"


def _keys(model: type[BaseModel]) -> list[str]:
    found: list[str] = []
    for name, field in model.model_fields.items():
        found.append(field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found.extend(_keys(field.annotation))
    return found


def _unit(path: Path, unit: _Unit) -> Unit:
    if unit.kind == "row":
        if unit.column is not None or unit.rows is not None:
            raise RecipeError(path, ["unit: a row has neither column nor rows"])
        return Row()
    if unit.column is None or unit.rows is None:
        raise RecipeError(path, ["unit: a person needs both column and rows"])
    return Person(unit.column, rows=unit.rows)
