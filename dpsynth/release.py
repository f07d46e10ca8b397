"""A release: a table and its model, attacked, measured, stated, and ready to be written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpsynth import bundle
from dpsynth._audit import (
    answers_of,
    as_array,
    audit_step,
    coarse_maps,
    coded,
    digest_of,
    internal_of,
    require_target,
    statistics_of,
    verdict_of,
)
from dpsynth._candidate import candidate_of
from dpsynth._csv import write_csv
from dpsynth._facts import charges_of, claim_of, facts_of, page, promise_of
from dpsynth._version import __version__
from dpsynth.attacks import Verdict
from dpsynth.bundle import ReleaseError
from dpsynth.evaluation import pair_cliques
from dpsynth.report import internal_html, public_html
from dpsynth.schema import Schema
from dpsynth.synthesizer import Model
from dpsynth.vault import Block, Vault
from dpsynth_accounting import Account, Attempt, InvalidRequest, Statement
from dpsynth_accounting.budget import Number

AUDIT_SHARE_OF_BUDGET = Fraction(1, 20)
"""What :meth:`Release.assemble` spends on the audit, of the account's epsilon, unless told."""


@dataclass(frozen=True)
class Release:
    """A table with its model, its statement, its public report and its verdict.

    Made by :meth:`assemble`, which attacks and evaluates it: there is no release without.

    Attributes:
        model: The fitted model.
        table: The synthetic rows.
        schema: What was declared of the columns, and what was found in place of the rest.
        facts: Everything the public report says, as JSON data; all of it paid for or public.
        verdict: The public verdict, from paid noisy counts alone.
        statement: What was promised, as ``facts`` holds it and ``statement.txt`` says it.
        internal: Exact results for the custodian, never written next to the public files; None
            until :meth:`examined` reads them.
    """

    model: Model
    table: pd.DataFrame
    schema: Schema
    facts: Mapping[str, Any]
    verdict: Verdict
    statement: Statement
    internal: Mapping[str, Any] | None = field(repr=False)
    _account: Account = field(repr=False)
    _seed: int = field(repr=False)

    @classmethod
    def assemble(
        cls,
        vault: Vault,
        model: Model,
        table: pd.DataFrame,
        *,
        epsilon: Number | None = None,
        delta: Number | None = None,
        target: str | None = None,
        seed: int = 0,
        by: str | None = None,
        exact: bool = True,
    ) -> Release:
        """Attack and evaluate a table, and state what was promised.

        With exact results at hand before it is written, a release is an attempt that was chosen in
        view of them, and its statement says so. Without, call :meth:`examined` afterwards.

        Args:
            vault: Holds the rows the model was fitted to.
            model: The fitted model.
            table: Rows drawn from it.
            epsilon: What the audit spends; by default a twentieth of the account's budget.
            delta: By default the account's delta times epsilon's share.
            target: A column that a downstream model would predict, for the report's utility.
            seed: Of the public choices of the attacks; no privacy rests on it.
            by: Who prepares the release; needed where the account's policy names preparers.
            exact: Whether to compute exact results for the custodian now; see
                :mod:`dpsynth_accounting.attempts`.

        Charges: epsilon and delta, for one Audit step; exact results for the custodian are
        recorded in the ledger as an inspection.

        Raises:
            BudgetExceeded: The account cannot pay for the audit. There is no release without one.
            InvalidRequest: The table is an attempt beyond the account's cap, or ``target`` is no
                column. No row was read and nothing was spent.
            ReleaseError: The vault's table holds canaries.
        """
        _refuse_canaries(vault.canaries, "assembled", touched=False)
        spend = vault.account.budget.epsilon * AUDIT_SHARE_OF_BUDGET if epsilon is None else epsilon
        require_target(model.domain, target)
        _attempt_of(vault.account, table).require()
        step = audit_step(vault.schema, target=target, weight=1.0)
        label = "audit of a release"
        with vault.reserve((step,), epsilon=spend, delta=delta, label=label, by=by) as paid:
            made = cls.from_block(paid, vault, model, table, target=target, seed=seed)
        if not exact:
            return made
        made = made.examined(vault)
        return made._counted(_attempt_of(vault.account, table))

    @classmethod
    def from_block(
        cls,
        block: Block,
        vault: Vault,
        model: Model,
        table: pd.DataFrame,
        *,
        target: str | None,
        seed: int,
        reservations: tuple[str, ...] | None = None,
    ) -> Release:
        """Do the same within a block whose next step is the audit, without exact results.

        Args:
            block: Its next step is the audit.
            vault: As in :meth:`assemble`.
            model: As in :meth:`assemble`.
            table: As in :meth:`assemble`.
            target: As in :meth:`assemble`.
            seed: As in :meth:`assemble`.
            reservations: The charges that the model and the audit came from; by default all that
                the account ever made, which no model's promise can exceed.

        Charges: the block's Audit step.
        """
        domain = model.domain
        codes = coded(domain, table)
        rng = np.random.default_rng(seed)
        fresh = as_array(domain, model.sample_codes(max(len(table), 1), rng=rng))
        coarse = coarse_maps(domain)
        cliques = pair_cliques(domain.names)
        rows = max(round(model.rows), 1)
        audited = block.audit(
            statistics_of(domain, codes, fresh, target, rng),
            answers_of(domain, codes, coarse, cliques, rows),
            about=digest_of(codes),
            coarse=coarse,
        )
        choice: Any = block.meta.get("choose")
        verdict = verdict_of(
            audited,
            vault.audit_share,
            own_holdout=vault.own_holdout,
            chosen=choice is not None and choice["by"] != "distance",
        )
        paid = charges_of(vault.account.ledger.entries(vault.account.name), reservations)
        promise = promise_of(
            vault.account.extract(),
            [each["reservation"] for each in paid],
            domain.public_facts(),
            releasing=True,
            attempt=_attempt_of(vault.account, table),
        )
        facts = facts_of(vault, model, table, audited, verdict, target, paid, promise)
        schema = domain.schema(vault.schema)
        return cls(model, table, schema, facts, verdict, promise, None, vault.account, seed)

    def examined(self, vault: Vault) -> Release:
        """Return the same with exact results, for the custodian alone.

        They are an inspection in the ledger and an attempt at a release: of this one, if it is
        written later; if it was written before, it counts for those that follow.

        Args:
            vault: Holds the rows the model was fitted to.

        Charges: nothing, since nothing of them may leave the custodian.

        Raises:
            InvalidRequest: The table is an attempt beyond the account's cap, or the vault is on
                another account. No row was read.
        """
        account, paid = vault.account, self.facts["reservations"]
        mine, theirs = ((each.ledger.identity, each.name) for each in (self._account, account))
        if mine != theirs:
            raise InvalidRequest(
                "Exact results of a release were asked of another account's vault.",
                "They are an attempt on the account that paid for the release.",
                "Give a vault of that account.",
            )
        codes, candidate = coded(self.model.domain, self.table), candidate_of(self.table)
        claim = None
        if vault.audit_share and not vault.own_holdout:
            claim = claim_of(account.extract(), paid)
        internal = vault.inspect(
            lambda rows: internal_of(rows, codes, self.table, self._seed, claim),
            purpose="exact results of a release",
            candidate=candidate,
        )
        return replace(self, internal=internal)

    def _counted(self, attempt: Attempt) -> Release:
        """Return the same with a statement of what attempt it is."""
        promise = replace(self.statement, attempt=attempt)
        return replace(
            self, facts={**self.facts, "statement": promise.to_json()}, statement=promise
        )

    def write(
        self,
        folder: str | os.PathLike[str],
        *,
        internal: str | os.PathLike[str] | None = None,
        signing_key: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Write the release folder, all at once, and the internal report, if any, elsewhere.

        What attempt it is, of at most how many, is counted now: exact results of other candidates
        may have been read since it was assembled.

        Args:
            folder: Must not exist; holds table, model, manifest, ledger extract and public report.
            internal: Folder of the internal report, mode 0700; by default ``<folder>-internal``.
            signing_key: PEM file of an Ed25519 private key that signs the ledger's head.

        Returns:
            The release folder.

        Raises:
            ReleaseError: The folder exists or cannot be written, or the verdict is a failure; the
                internal report is written all the same.
            InvalidRequest: It is an attempt beyond the account's cap.
            LedgerError: Another attempt was made meanwhile. Write it again.
        """
        folder = Path(folder)
        bundle.require_new(folder)
        aside = Path(internal) if internal else internal_folder(folder)
        bundle.require_apart(aside, folder)
        if signing_key is not None:
            bundle.require_key(Path(signing_key))
        _refuse_canaries(self.facts["unit"].get("canaries", False), "written", touched=True)
        if internal is not None or self.internal is not None:
            self.write_internal(aside)
        if self.model.domain.not_private or self.facts["unit"].get("not_private"):
            raise ReleaseError(
                f"A release was to be written to {folder}.",
                "Its noise follows from a seed, or canaries were in its table: it is not private.",
                "Fit the rows themselves, without `not_private_seed`, on an account of their own.",
                touched=True,
            )
        if self.verdict.outcome == "fail":
            raise ReleaseError(
                f"A release was to be written to {folder}.",
                f"It failed its attacks: {self.verdict.sentence}",
                "Read the internal report; do not publish the table or the model.",
                touched=True,
            )
        with bundle.atomic_folder(folder) as scratch:
            write_csv(self.table, scratch / bundle.TABLE)
            attempt = self._account.attempts().of(bundle.sha256(scratch / bundle.TABLE))
            made = self._counted(attempt.require(touched=True))
            self.model.save(scratch / f"model{self.model.suffix}")
            bundle.write_json(scratch / "domain.json", self.model.domain.to_json())
            (scratch / "schema.toml").write_text(self.schema.dump(), encoding="utf-8")
            bundle.write_json(scratch / bundle.FACTS, made.facts)
            (scratch / bundle.PAGE).write_text(
                public_html(made.facts, self.table), encoding="utf-8"
            )
            (scratch / bundle.STATEMENT).write_text(
                page(made.statement, self.verdict.sentence), encoding="utf-8"
            )
            bundle.seal(
                scratch,
                self._account,
                {"dpsynth": __version__, "reservations": self.facts["reservations"]},
                Path(signing_key) if signing_key else None,
                attempt=attempt,
            )
        return folder

    def write_internal(self, folder: Path) -> None:
        """Write the custodian's report, readable by its owner alone; earlier ones are replaced.

        Raises:
            ReleaseError: The folder cannot be written, or exact results were not computed.
        """
        if self.internal is None:
            raise ReleaseError(
                f"The internal report was to be written to {folder}.",
                "No exact results were computed.",
                "Ask for them with `examined`: that is an attempt, written in the ledger.",
                touched=True,
            )
        bundle.require_no_release(folder)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, text in (
                ("report.html", internal_html(self.facts, self.internal)),
                ("report.json", _indented(self.internal)),
            ):
                scratch = folder / f".{name}.unfinished"
                scratch.unlink(missing_ok=True)
                descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                scratch.replace(folder / name)
        except OSError as error:
            raise ReleaseError(
                f"The internal report was to be written to {folder}.",
                f"The file system refused ({error.strerror or type(error).__name__}).",
                "Free some space or choose another place, and write it again.",
                touched=True,
            ) from error


def _refuse_canaries(held: bool, asked: str, *, touched: bool) -> None:
    if held:
        raise ReleaseError(
            f"A release was to be {asked}.",
            "Its table holds canaries, so what was fitted to it is for an audit alone.",
            "Fit the rows themselves, on an account of their own.",
            touched=touched,
        )


def _attempt_of(account: Account, table: pd.DataFrame) -> Attempt:
    """Return which attempt a table would be now; it is named only where that matters."""
    found = account.attempts()
    return found.of(candidate_of(table) if found.candidates else None)


def internal_folder(folder: Path) -> Path:
    """Return where the internal report of a release lies unless told otherwise: beside it."""
    return folder.with_name(f"{folder.name}-internal")


def _indented(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
