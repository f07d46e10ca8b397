"""The vault: rows go in, and only paid noisy answers come out."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NoReturn, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Domain, resolve
from dpsynth.schema import Schema
from dpsynth.vault import _people, _rows
from dpsynth.vault._block import Block
from dpsynth.vault._bound import AUDIT_IN, HELD_OUT, TRAIN, Person, Unit
from dpsynth.vault._execution import Notice
from dpsynth.vault._exposed import Exposed
from dpsynth.vault._one_step import OneStep
from dpsynth.vault._plan import (
    Discover,
    Plan,
    Step,
    discovery_step,
    discovery_weight,
    make_plan,
)
from dpsynth.vault._stream import SYSTEM, SeededStream, Stream
from dpsynth_accounting import (
    Account,
    InvalidRequest,
    Reservation,
    SamePeople,
    canonical,
    checked_delta,
    checked_epsilon,
    require_delta_below,
)
from dpsynth_accounting.budget import Number

M = TypeVar("M", covariant=True)
T = TypeVar("T")


class Recipe(Protocol[M]):
    """What :meth:`Vault.fit` needs of a synthesizer."""

    @property
    def name(self) -> str:
        """The mechanism's name."""

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault, given the names of the modelled columns."""

    def run(self, block: Block) -> M:
        """Ask exactly those steps of a block and return a model."""


class Vault(OneStep):
    """Private rows behind an account: every answer is charged before a row is read.

    A file is opened at the first charge, not before. The vault guards against accident and hurry,
    not against malice inside the process.

    Args:
        source: A DataFrame (copied), or the path of a CSV (UTF-8) or Parquet file. Columns that
            neither the schema nor the unit names are ignored.
        schema: Public facts about the columns, all confirmed.
        account: Pays for every answer.
        unit: Whose presence is hidden: :class:`Row` or :class:`Person`. There is no default, since
            the choice decides what the promise means.
        audit_share: Probability that a unit joins the audit, where a fair coin holds it out of
            everything else. 0 means no test against held-out units, and the report says so.
        declared_units: A public figure for the number of units, if there is one; used to refuse a
            delta that is too large, and repeated in the statement.
        holdout: A table of your own that was kept out, drawn like ``source``. Then no coin is
            tossed: all of ``source`` is fitted, a share ``audit_share`` of its units is audited,
            and the units of the holdout are what they are compared with. The same bound holds for
            them, the same promise covers them, and who is in both tables counts as in ``source``.
        not_private_seed: For tests and teaching only: all noise and every secret draw follow from
            this seed, so nothing is private. The account, the models and every report say so, and
            a release cannot be written. An account is in this mode for ever, or never.
        canaries: The table holds made-up units whose presence an audit guesses. Nothing fitted to
            it may be published: the account and every model say so, and there is no release of it.
            An account is in this mode for ever, or never.

    Raises:
        InvalidRequest: A column is missing, a schema is unconfirmed, or a parameter is impossible.
            Nothing has been read or spent.
    """

    def __init__(
        self,
        source: _rows.Source,
        schema: Schema,
        account: Account,
        *,
        unit: Unit,
        audit_share: float = 0.2,
        declared_units: int | None = None,
        holdout: _rows.Source | None = None,
        not_private_seed: int | None = None,
        canaries: bool = False,
    ) -> None:
        schema.require_confirmed()
        if not 0 <= audit_share <= 0.5:
            raise InvalidRequest(
                f"An audit share of {audit_share} was asked for.",
                "It is a probability, and above 0.5 too little would be left to fit.",
                "Use 0.2, or 0 for no audit against held-out units.",
            )
        if isinstance(unit, Person) and unit.column in schema.modelled:
            raise InvalidRequest(
                f"Column {unit.column!r} identifies persons and is modelled too.",
                "An identifier must not appear in the output.",
                "Declare it as `key` (a fresh surrogate) or `drop`.",
            )
        if not schema.modelled:
            raise InvalidRequest(
                "A table without a column to model was given.",
                "Every column of the schema is dropped or a key.",
                "Declare at least one column with a type.",
            )
        if holdout is not None and audit_share == 0:
            raise InvalidRequest(
                "A holdout of your own was given with an audit share of 0.",
                "No unit of the table would be compared with it.",
                "Use 0.2, or give no holdout.",
            )
        source = _rows.in_memory(source, schema, unit)
        holdout = None if holdout is None else _rows.in_memory(holdout, schema, unit)
        self.schema = schema
        self.account = account
        self.unit = unit
        self.audit_share = audit_share
        self.declared_units = declared_units
        self.canaries = canaries
        self.stream: Stream = SYSTEM if not_private_seed is None else SeededStream(not_private_seed)
        self.__seed = not_private_seed
        self.__source = source
        self.__holdout = holdout
        self.__kept: _rows.Kept | None = None
        self.__coded: _rows.Coded | None = None
        self.__train: dict[str, NDArray[np.int32]] | None = None
        self.__domain: Domain | None = None
        self.__noted = self.__recognised = self.__unsure = False
        if not schema.undeclared:
            self._settle(resolve(schema, categories={}, bounds={}))

    def __repr__(self) -> str:
        """Name the account and the unit, nothing of the rows."""
        return f"Vault(account={self.account.name!r}, unit={self.unit!r})"

    def __getstate__(self) -> NoReturn:
        """Refuse to leave the process: pickle, copy and deepcopy would carry rows out."""
        raise TypeError("a vault cannot be pickled or copied: its rows do not leave it")

    # -- public facts ----------------------------------------------------------------------------

    @property
    def own_holdout(self) -> bool:
        """Whether audited units are compared with a holdout of the owner's, not by coins."""
        return self.__holdout is not None

    @property
    def domain(self) -> Domain:
        """The domain rows are coded in.

        Raises:
            InvalidRequest: The schema leaves columns open and none was discovered yet.
        """
        if self.__domain is None:
            raise InvalidRequest(
                "The domain of a schema with undeclared columns was asked for.",
                f"Undeclared: {', '.join(self.schema.undeclared)}.",
                "Fit a model or call `discover`: either pays for finding them.",
            )
        return self.__domain

    def discovery(self, weight: float) -> tuple[Discover, ...]:
        """Return the step that a block must begin with: one, or none if nothing is open."""
        if self.__domain is not None:
            return ()
        return discovery_step(self.schema, weight)

    # -- paid answers ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def reserve(
        self,
        steps: Sequence[Step],
        *,
        epsilon: Number,
        delta: Number | None = None,
        label: str,
        meta: Mapping[str, Any] | None = None,
        resume: bool = False,
        by: str | None = None,
        notice: Notice | None = None,
    ) -> Iterator[Block]:
        """Charge the account for a plan, then let it be carried out.

        A block left by an exception before any row was read is not charged; afterwards it is.
        Before the first answer of a vault, its people are looked for in the ledger's other
        accounts: once, noted as an inspection, free of charge.

        Args:
            steps: What will be asked, in order. A block on a schema with undeclared columns that
                were not discovered yet begins with a Discover step; it is put in front if absent.
            epsilon: Charged in full, whatever is used.
            delta: Charged in full; by default the account's delta times epsilon's share.
            label: What the block is for, in public terms.
            meta: Further public facts to keep with the charge.
            resume: Continue the latest reservation of this very plan, replaying its answers, if
                there is one.
            by: Who prepares the release; needed where the account's policy names preparers.
            notice: Is told what the block does, how many parts of it are done, and of how many:
                nothing that may not be shown to anyone.

        Raises:
            BudgetExceeded: The account has less left. Nothing is read or spent.
            SamePeople: Another account holds the same people and the account has no override for
                it. Rows were read, nothing was answered, and the charge is handed back.
            InvalidRequest: The plan, the budget or the table's form is impossible.
        """
        spend = checked_epsilon(epsilon)
        at = self.account.budget.delta_share(spend) if delta is None else checked_delta(delta)
        if self.declared_units is not None:
            require_delta_below(at, self.declared_units)
        unit = self._unit_facts()
        if not resume:
            self._require(spend, at, unit, by)
        plan = self._plan(steps, spend, at)
        found = (
            self.account.unfinished(plan.event, spend, at, unit=unit, label=label)
            if resume
            else None
        )
        if found is None:
            self._require(spend, at, unit, by)
        for table in (self.__source, self.__holdout):
            if table is not None and not _rows.is_frame(table):
                _rows.require_form(table, self.schema, self.unit)
        public = {**(meta or {}), **self._declared(), "steps": plan.describe()}
        if found is not None:
            _require_same(found.meta, public)
        reservation = found or self.account.reserve(
            plan.event,
            spend,
            at,
            unit=unit,
            label=label,
            meta={**public, "sampling_seed": self.stream.bits(63)},
            by=by,
        )
        block = Block(self, reservation, plan)
        if notice is not None:
            block.notice = notice
        if found is not None:
            self.__recognised |= _people.begun(self.account, reservation.identity)
            self.__noted |= _people.inspected(self.account, reservation.identity)
        try:
            if isinstance(plan.steps[0], Discover):
                block.discover()
            yield block
        except BaseException:
            if not self.__unsure:
                with contextlib.suppress(Exception):
                    reservation.void()
            raise
        finally:
            block.end()
        if not block.refused:
            reservation.commit()

    def _plan(self, steps: Sequence[Step], epsilon: Fraction, delta: Fraction) -> Plan:
        if not steps or not isinstance(steps[0], Discover):
            weight = discovery_weight(self.schema)
            steps = (*self.discovery(sum(step.weight for step in steps) * weight), *steps)
        policy = self.account.policy
        return make_plan(
            steps, self.unit, epsilon, delta, filter=policy.filter, budget=policy.budget
        )

    def _require(
        self, epsilon: Fraction, delta: Fraction, unit: Mapping[str, Any], by: str | None
    ) -> None:
        """Refuse what the account would refuse, before a plan is priced or a file is opened."""
        self.account.require(epsilon, delta)
        self.account.policy.check(epsilon, unit=unit, by=by, on=datetime.now(UTC).date())

    def _unit_facts(self) -> dict[str, Any]:
        facts = {**self.unit.to_json(), "audit_share": self.audit_share}
        if self.own_holdout:
            facts["holdout"] = "own"
        if self.canaries:
            facts["canaries"] = True
        return facts if self.__seed is None else {**facts, "not_private": True}

    def _declared(self) -> dict[str, int]:
        return {} if self.declared_units is None else {"declared_units": self.declared_units}

    def fit(
        self,
        synthesizer: Recipe[M],
        *,
        epsilon: Number,
        delta: Number | None = None,
        by: str | None = None,
        notice: Notice | None = None,
    ) -> M:
        """Fit a model, spending ``epsilon`` of the account on its steps and on discovery.

        Long fits tell ``notice`` how far they are, as :meth:`reserve` says.

        Charges: epsilon and delta, in full, before a row is read.
        """
        steps = synthesizer.steps(self.schema.modelled)
        label = f"fit {synthesizer.name}"
        with self.reserve(
            steps, epsilon=epsilon, delta=delta, label=label, by=by, notice=notice
        ) as block:
            return synthesizer.run(block)

    def discover(self, *, epsilon: Number, delta: Number | None = None) -> Domain:
        """Find what the schema leaves open, by itself.

        Charges: epsilon and delta, unless nothing is open.
        """
        step = self.discovery(1.0)
        if not step:
            return self.domain
        with self.reserve(step, epsilon=epsilon, delta=delta, label="discover") as block:
            return block.domain

    def inspect(
        self, question: Callable[[Exposed], T], *, purpose: str, candidate: str | None = None
    ) -> T:
        """Answer a custodian's exact question; what it returns is private and never published.

        The inspection is written into the ledger before a row is read. It is an attempt at a
        release, since no epsilon covers what is decided by its answer: the account allows so many,
        and every later release says how many there were.

        Args:
            question: Sees the rows.
            purpose: What it is for, in public terms.
            candidate: SHA-256 of the synthetic table that it is about, as a release writes it; one
                table is one attempt however often it is looked at. An inspection without one is
                an attempt of its own.

        Charges: nothing, since nothing of the answer may leave the custodian.

        Raises:
            InvalidRequest: It is an attempt beyond the account's cap. No row was read.
        """
        domain = self.domain
        self.account.record("inspect", {"purpose": purpose, "candidate": candidate})
        coded = self._coded()
        train, _ = coded.records(domain, TRAIN)
        audit_in, audit_in_units = coded.records(domain, AUDIT_IN)
        held_out, held_out_units = coded.records(domain, HELD_OUT)
        return question(Exposed(domain, train, audit_in, audit_in_units, held_out, held_out_units))

    # -- rows: for blocks of this vault only -----------------------------------------------------

    def _settle(self, domain: Domain) -> None:
        domain = replace(domain, not_private=self.__seed is not None or self.canaries)
        if domain != self.__domain:
            self.__coded = self.__train = None  # they are coded in the domain before
        self.__domain = domain

    def _recognise(self, reservation: Reservation) -> None:
        """Refuse to go on, once for all blocks, if another account holds the same people."""
        if self.__recognised:
            return
        if not self.__noted:
            _people.note(self.account, reservation.identity)
            self.__noted = True
        self.__unsure = True  # whatever fails from here on may follow from a row: no refund
        try:
            _people.refuse_same_people(self.account, self._kept(), self.unit)
        except SamePeople:
            self.__unsure = False
            raise
        self.__unsure = False
        self.__recognised = True

    def _kept(self) -> _rows.Kept:
        if self.__kept is None:
            columns = _rows.needed_columns(self.schema, self.unit)
            apart = None if self.__holdout is None else _rows.read(self.__holdout, columns)
            self.__kept = _rows.keep(
                _rows.read(self.__source, columns),
                self.unit,
                share=self.audit_share,
                rows_key=self._key("rows kept of a unit"),
                coins_key=self._key("audit coins"),
                holdout=apart,
            )
        return self.__kept

    def _key(self, purpose: str) -> bytes:
        """Return the account's secret key for a purpose, or the seed's where nothing is private."""
        if self.__seed is None:
            return self.account.key(purpose)
        return hashlib.sha256(f"{self.__seed} {purpose}".encode()).digest()

    def _coded(self) -> _rows.Coded:
        if self.__coded is None:
            self.__coded = self._kept().coded(self.domain)
            self.__kept = None
        return self.__coded

    def _training(self) -> dict[str, NDArray[np.int32]]:
        if self.__train is None:
            self.__train = self._coded().part(TRAIN, AUDIT_IN)
        return self.__train

    def _records(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the rows of the fit, int32 (rows, columns), and the unit of each."""
        return self._coded().records(self.domain, TRAIN, AUDIT_IN)


def _require_same(kept: Mapping[str, Any], public: Mapping[str, Any]) -> None:
    """Refuse to go on with a plan under public facts that are not those it was charged with."""
    then = {name: value for name, value in kept.items() if name != "sampling_seed"}
    now = json.loads(canonical(public))
    other = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    if other:
        raise InvalidRequest(
            "A run was to be resumed with other public facts than it was begun with: "
            f"{', '.join(other)}.",
            "They were fixed in the ledger before a row was read.",
            "Set them back to resume it, or begin a new run, which is charged.",
        )
