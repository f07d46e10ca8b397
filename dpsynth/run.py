"""Carrying out a recipe: one plan, charged before the table is opened, resumable to the end."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dpsynth import bundle
from dpsynth.recipe import Recipe
from dpsynth.release import Release, internal_folder
from dpsynth.vault import Block, Vault

_STAGES = 6
_LOST = (
    "The exact results for the custodian could not be computed or written. Nothing else depends on "
    "them; `dpsynth attack --ledger` computes them too."
)


@dataclass(frozen=True)
class RunResult:
    """What a run did, for a person or a machine.

    Attributes:
        release: The release folder, or None if the verdict was a failure or the gate was shut.
        internal: The folder of the internal report; None if no exact result was asked for.
        facts: The public facts.
        against: What the recipe's gate had against a release, a clause each.
        lost: Whether exact results were asked for and could not be computed or written.
    """

    release: Path | None
    internal: Path | None
    facts: dict[str, Any]
    against: tuple[str, ...] = ()
    lost: bool = False

    @property
    def released(self) -> bool:
        """Whether a release folder was written."""
        return self.release is not None

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        return {
            "released": self.released,
            "release": str(self.release) if self.release else None,
            "internal": str(self.internal) if self.internal else None,
            "verdict": self.facts["verdict"],
            "gate": list(self.against),
            "statement": self.facts["statement"],
            "fidelity": self.facts["fidelity"],
            "utility": self.facts["utility"],
        }

    def text(self) -> str:
        """Return ten lines: where things are and what was promised."""
        facts, verdict = self.facts, self.facts["verdict"]
        where = (
            f"Released: {self.release} (table.csv, {next(self.release.glob('model.*')).name}, "
            "report.html, statement.txt)"
            if self.release
            else f"NOT released: {'; '.join(self.against) or 'the table failed its attacks'}."
        )
        utility = facts["utility"]
        lines = [
            where,
            f"For the custodian only: {self.internal}/report.html"
            if self.internal
            else _LOST
            if self.lost
            else "No exact result was read.",
            f"Rows: {facts['rows']['released']} in {len(facts['columns'])} columns, "
            f"by {facts['method']}",
            *facts["statement"]["sentences"],
            f"Fidelity: {facts['fidelity']['sentence']}",
            f"Utility: {utility['sentence']}" if utility else "Utility: no target was named.",
            f"Attacks: {verdict['sentence']}",
        ]
        if self.release:
            lines.append(f"Anyone can check it: dpsynth verify {self.release}")
        return "\n".join(lines)


def run_recipe(
    recipe: Recipe,
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    console: Console,
    holdout: str | os.PathLike[str] | None = None,
    internal: Path | None = None,
    resume: bool = False,
    signing_key: Path | None = None,
) -> RunResult:
    """Release a table as a recipe says: one plan of discovery, fit and audit.

    Everything that can be refused is refused before the table is opened or anything is charged.
    Exact results for the custodian are computed last, unless the recipe wants none: whether there
    is a release was decided by then, on paid answers alone.

    Args:
        recipe: What to do.
        table: CSV or Parquet file of private rows.
        out: Release folder; it must not exist.
        console: Where progress goes; it never shows a value from the table.
        holdout: CSV or Parquet file of private rows that were kept out, drawn like the table: the
            audit compares with them, and all of the table is fitted; see :class:`Vault`.
        internal: Folder of the internal report; by default ``<out>-internal``.
        resume: Continue the latest run of this very recipe, free of charge, if there is one.
        signing_key: PEM file of an Ed25519 key that signs the ledger's head.

    Charges: the recipe's epsilon and delta, once.

    Raises:
        BudgetExceeded: The account has less left; the table was not opened.
        ReleaseError: The folder exists or cannot be written.
        DpsynthError: Other refusals, each saying what was asked and what works.
    """
    out = Path(out)
    bundle.require_new(out)
    where = (internal or internal_folder(out)) if recipe.exact else None
    if where is not None:
        bundle.require_apart(where, out)
    if signing_key is not None:
        bundle.require_key(signing_key)
    recipe.schema.require_confirmed()
    account = recipe.open_account()
    if not resume:
        account.require(recipe.epsilon, recipe.delta)
    account.attempts().of(None).require()
    vault = Vault(
        table,
        recipe.schema,
        account,
        unit=recipe.unit,
        audit_share=recipe.audit_share,
        declared_units=recipe.declared_units,
        holdout=holdout,
    )
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("pricing the plan", total=_STAGES)

        def notice(what: str, done: int, of: int) -> None:
            progress.update(task, description=f"fitting the model: {what}, step {done} of {of}")

        with vault.reserve(
            recipe.steps(),
            epsilon=recipe.epsilon,
            delta=recipe.delta,
            label=recipe.label,
            meta={"rows": recipe.rows, "target": recipe.target, **_fixed(recipe)},
            resume=resume,
            by=recipe.prepared_by,
            notice=notice,
        ) as block:
            progress.update(task, advance=1, description="fitting the model")
            model = recipe.synthesizer.run(block)
            progress.update(task, advance=1, description="drawing rows")
            seed = _seed(block)
            rows = recipe.rows if recipe.rows is not None else max(0, round(model.rows))
            if recipe.choice is None:
                drawn = model.sample(rows, rng=np.random.default_rng(seed))
            else:
                drawn = recipe.choice.made(block, model, rows, seed)
            progress.update(task, advance=1, description="attacking the table")
            release = Release.from_block(
                block,
                vault,
                model,
                drawn,
                target=recipe.target,
                seed=seed + 1,
                reservations=(block.identity,),
            )
        progress.update(task, advance=1, description="writing the release")
        against = tuple(recipe.gate.against(release.facts))
        released = release.verdict.outcome != "fail" and not against
        if released:
            release.write(out, signing_key=signing_key)
        facts = dict(release.facts)
        # Afterwards, so that no exact figure was there to be read when this release was decided.
        if where is not None:
            progress.update(task, advance=1, description="computing exact results")
            try:
                release.examined(vault).write_internal(where)
            except Exception:  # the rows may be why: it must change neither outcome nor exit code
                return RunResult(out if released else None, None, facts, against, lost=True)
    return RunResult(out if released else None, where, facts, against)


def _fixed(recipe: Recipe) -> dict[str, Any]:
    """Return what a recipe fixed beforehand about the choice and the gate, to keep in public."""
    choice = {} if recipe.choice is None else {"choose": asdict(recipe.choice)}
    gate = recipe.gate.to_json()
    return {**choice, **({"gate": gate} if gate else {})}


def _seed(block: Block) -> int:
    """Return the seed of sampling, kept with the charge so that a resumed run draws the same."""
    return int(str(block.meta["sampling_seed"]))
