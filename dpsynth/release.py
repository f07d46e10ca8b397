"""A release: a table and its model, attacked, measured, stated, and ready to be written."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth import bundle
from dpsynth._version import __version__
from dpsynth.attacks import (
    AttackCounts,
    DistanceRatio,
    ExactMatch,
    NearestDistance,
    Verdict,
    internal_results,
    public_verdict,
)
from dpsynth.bundle import ReleaseError
from dpsynth.domain import Domain, resolve
from dpsynth.evaluation import (
    TargetClassifier,
    exact_fidelity,
    mean_tvd,
    pair_cliques,
    synthetic_answers,
    tvd_per_l1,
)
from dpsynth.marginal import MarginalModel
from dpsynth.report import internal_html, public_html
from dpsynth.schema import Schema
from dpsynth.synthesizer import Model
from dpsynth.vault import Audit, Audited, Block, Exposed, Statistic, Vault, load_table
from dpsynth_accounting import (
    Account,
    ApproxDP,
    InvalidRequest,
    Statement,
    event_from_json,
    statement,
)
from dpsynth_accounting.budget import Number

AUDIT_SHARE_OF_BUDGET = Fraction(1, 20)
"""What :meth:`Release.assemble` spends on the audit, of the account's epsilon, unless told."""

_FIDELITY_CODES = 32  # codes a column keeps where fidelity is measured

_ATTACKS = ("exact match", "nearest distance", "distance ratio")


@dataclass(frozen=True)
class _Everyone:
    """Counts every audited unit: the paid denominators of all rates."""

    name: str = "everyone"
    threshold: float = 0.5

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return 1 for each record."""
        return np.ones(len(records))


def audit_step(schema: Schema, *, target: str | None, weight: float) -> Audit:
    """Return what the audit of a release asks of the vault, from public facts alone."""
    statistics = 1 + len(_ATTACKS) + (2 if target is not None else 0)
    return Audit(statistics, len(pair_cliques(schema.modelled)), weight)


@dataclass(frozen=True)
class Release:
    """A table with its model, its statement, its public report and its verdict.

    Made by :meth:`assemble`, which attacks and evaluates it: there is no release without.

    Attributes:
        model: The fitted model.
        table: The synthetic rows.
        facts: Everything the public report says, as JSON data; all of it paid for or public.
        verdict: The public verdict, from paid noisy counts alone.
        internal: Exact results for the custodian, never written next to the public files.
    """

    model: Model
    table: pd.DataFrame
    facts: Mapping[str, Any]
    verdict: Verdict
    internal: Mapping[str, Any]
    _account: Account

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
    ) -> Release:
        """Attack and evaluate a table, and state what was promised.

        Args:
            vault: Holds the rows the model was fitted to.
            model: The fitted model.
            table: Rows drawn from it.
            epsilon: What the audit spends; by default a twentieth of the account's budget.
            delta: By default the account's delta times epsilon's share.
            target: A column that a downstream model would predict, for the report's utility.
            seed: Of the public choices of the attacks; no privacy rests on it.

        Charges: epsilon and delta, for one Audit step; exact results for the custodian are
        recorded in the ledger as an inspection.

        Raises:
            BudgetExceeded: The account cannot pay for the audit. There is no release without one.
        """
        spend = vault.account.budget.epsilon * AUDIT_SHARE_OF_BUDGET if epsilon is None else epsilon
        _require_target(model.domain, target)
        step = audit_step(vault.schema, target=target, weight=1.0)
        with vault.reserve((step,), epsilon=spend, delta=delta, label="audit of a release") as paid:
            return cls.from_block(paid, vault, model, table, target=target, seed=seed)

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
        """Do the same within a block whose next step is the audit.

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
        fresh = _array(domain, model.sample_codes(max(len(table), 1), rng=rng))
        coarse = _coarse_maps(domain)
        cliques = pair_cliques(domain.names)
        rows = max(round(model.rows), 1)
        audited = block.audit(
            _statistics(domain, codes, fresh, target, rng),
            _answers(domain, codes, coarse, cliques, rows),
            about=hashlib.sha256(codes.astype("<i4").tobytes()).hexdigest(),
            coarse=coarse,
        )
        verdict = _verdict(audited, vault.audit_share)
        internal = vault.inspect(
            lambda rows: _internal(rows, codes, seed), purpose="exact results of a release"
        )
        facts = _facts(vault, model, table, audited, verdict, target, reservations)
        return cls(model, table, facts, verdict, internal, vault.account)

    def write(
        self,
        folder: str | os.PathLike[str],
        *,
        internal: str | os.PathLike[str] | None = None,
        signing_key: str | os.PathLike[str] | None = None,
    ) -> Path:
        """Write the release folder, all at once, and the internal report elsewhere.

        Args:
            folder: Must not exist; holds table, model, manifest, ledger extract and public report.
            internal: Folder of the internal report, mode 0700; by default ``<folder>-internal``.
            signing_key: PEM file of an Ed25519 private key that signs the ledger's head.

        Returns:
            The release folder.

        Raises:
            ReleaseError: The folder exists or cannot be written, or the verdict is a failure; the
                internal report is written all the same.
        """
        folder = Path(folder)
        bundle.require_new(folder)
        if signing_key is not None:
            bundle.require_key(Path(signing_key))
        self.write_internal(Path(internal) if internal else internal_folder(folder))
        if self.verdict.outcome == "fail":
            raise ReleaseError(
                f"A release was to be written to {folder}.",
                f"It failed its attacks: {self.verdict.sentence}",
                "Read the internal report; do not publish the table or the model.",
                touched=True,
            )
        with bundle.atomic_folder(folder) as scratch:
            self.table.to_csv(scratch / "table.csv", index=False)
            self.model.save(scratch / "model.npz")
            bundle.write_json(scratch / "domain.json", self.model.domain.to_json())
            bundle.write_json(scratch / bundle.FACTS, self.facts)
            (scratch / "report.html").write_text(
                public_html(self.facts, self.table), encoding="utf-8"
            )
            (scratch / "statement.txt").write_text(statement_text(self.facts), encoding="utf-8")
            bundle.seal(
                scratch,
                self._account,
                {"dpsynth": __version__, "reservations": self.facts["reservations"]},
                Path(signing_key) if signing_key else None,
            )
        return folder

    def write_internal(self, folder: Path) -> None:
        """Write the custodian's report, readable by its owner alone; earlier ones are replaced.

        Raises:
            ReleaseError: The folder cannot be written.
        """
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
                "Free some space or choose another place, then run again with --resume.",
                touched=True,
            ) from error


def internal_folder(folder: Path) -> Path:
    """Return where the internal report of a release lies unless told otherwise: beside it."""
    return folder.with_name(f"{folder.name}-internal")


def statement_text(facts: Mapping[str, Any]) -> str:
    """Return the statement as plain text, one page."""
    promise = facts["statement"]
    lines = ["WHAT WAS PROMISED", "", *promise["sentences"], ""]
    lines += ["What was declared public:"]
    for column in facts["columns"]:
        by = f", attested by {column['attested_by']}" if column.get("attested_by") else ""
        source = column.get("source") or "no source given"
        lines.append(f"  {column['name']}: {column['declared']} ({source}{by})")
    lines += ["", "What is not covered:", *(f"  {each}" for each in promise["not_covered"]), ""]
    lines += ["Attacks:", f"  {facts['verdict']['sentence']}", ""]
    return "\n".join(lines)


# -- what the audit asks -------------------------------------------------------------------------


def coded(domain: Domain, table: pd.DataFrame) -> NDArray[np.int32]:
    """Return a table as codes, int32 (rows, columns).

    Raises:
        InvalidRequest: The table lacks a column of the domain.
    """
    missing = [name for name in domain.names if name not in table.columns]
    if missing:
        raise InvalidRequest(
            "A table was to be released or attacked.",
            f"It lacks the columns {', '.join(map(repr, missing))}.",
            "Give the rows that the model drew.",
        )
    return _array(domain, domain.encode(table))


def _array(domain: Domain, codes: Mapping[str, NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.column_stack([codes[name] for name in domain.names]).astype(np.int32)


def _require_target(domain: Domain, target: str | None) -> None:
    if target is not None and (target not in domain.names or len(domain.names) < 2):
        raise InvalidRequest(
            f"The column {target!r} was to be predicted.",
            f"The modelled columns are {', '.join(domain.names)}.",
            "Name one of at least two modelled columns, or none.",
        )


def _statistics(
    domain: Domain,
    codes: NDArray[np.int32],
    fresh: NDArray[np.int32],
    target: str | None,
    rng: np.random.Generator,
) -> list[Statistic]:
    """Return everyone, the attacks, and the utility of a model; the order of :func:`audit_step`."""
    found = [
        Statistic(_Everyone()),
        Statistic(ExactMatch.build(domain, codes, rng=rng)),
        Statistic(NearestDistance.build(domain, codes, rng=rng)),
        Statistic(DistanceRatio.build(domain, codes, rng=rng, reference=fresh)),
    ]
    if target is not None:
        classifier = TargetClassifier(domain, codes, target, rng=rng)
        found += [Statistic(classifier, True), Statistic(classifier.baseline, True)]
    return found


def _coarse_maps(domain: Domain) -> dict[str, NDArray[np.int64]]:
    """Return public maps that bring every column to about 32 codes, for the fidelity distance."""
    maps = {}
    for name in domain.names:
        size, ordered = domain.size(name), domain.ordered(name)
        if size <= _FIDELITY_CODES:
            continue
        code = np.arange(size, dtype=np.int64)
        length = max(ordered, 1) if ordered else size
        group = np.minimum(code, length - 1) * _FIDELITY_CODES // length
        # What lies beyond the order, a missing value, stays by itself.
        maps[name] = np.where(code < length, group, _FIDELITY_CODES)
    return maps


def _answers(
    domain: Domain,
    codes: NDArray[np.int32],
    coarse: Mapping[str, NDArray[np.int64]],
    cliques: tuple[tuple[str, ...], ...],
    rows: int,
) -> dict[tuple[str, ...], NDArray[np.int64]]:
    """Return the table's pair marginals at coarse codes, scaled to the noisy number of rows."""
    sizes = {n: int(coarse[n].max()) + 1 if n in coarse else domain.size(n) for n in domain.names}
    merged = np.column_stack(
        [coarse[n][codes[:, i]] if n in coarse else codes[:, i] for i, n in enumerate(domain.names)]
    ).astype(np.int32)
    return synthetic_answers(merged, Domain.integers(sizes), cliques, rows)


def _verdict(audited: Audited, audit_share: float) -> Verdict:
    """Return the public verdict: post-processing of the paid counts."""
    if audit_share == 0:
        return public_verdict([])
    everyone, *attacks = audited.counts[: 1 + len(_ATTACKS)]
    return public_verdict(
        [
            AttackCounts(
                each.name,
                each.audit_in,
                each.held_out,
                everyone.audit_in,
                everyone.held_out,
                each.sigma,
            )
            for each in attacks
        ]
    )


def _internal(exposed: Exposed, codes: NDArray[np.int32], seed: int) -> dict[str, Any]:
    """Return exact results: from private rows, for the custodian alone."""
    exact = internal_results(
        domain=exposed.domain,
        release=codes,
        train=exposed.train,
        audit_in=exposed.audit_in,
        audit_in_units=exposed.audit_in_units,
        held_out=exposed.held_out,
        held_out_units=exposed.held_out_units,
        rng=np.random.default_rng(seed),
    )
    used = np.concatenate([exposed.train, exposed.audit_in])
    far = exact_fidelity(
        used, codes, exposed.domain, held_out=exposed.held_out if len(exposed.held_out) else None
    )
    return {"attacks": exact.to_json(), "fidelity": far.to_json()}


# -- what the report says ------------------------------------------------------------------------


def _facts(
    vault: Vault,
    model: Model,
    table: pd.DataFrame,
    audited: Audited,
    verdict: Verdict,
    target: str | None,
    reservations: tuple[str, ...] | None,
) -> dict[str, Any]:
    """Return everything public about a release, as JSON data."""
    account = vault.account
    paid = [
        payload
        for entry in account.ledger.entries(account.name)
        if (payload := entry["payload"])["kind"] == "reserve"
        and (reservations is None or payload["reservation"] in reservations)
    ]
    left_epsilon, left_delta = account.remaining()
    budget = account.budget
    return {
        "format_version": bundle.FORMAT_VERSION,
        "dpsynth": __version__,
        "created": paid[-1]["time"],
        "account": account.name,
        "unit": paid[-1]["plan"]["unit"],
        "method": _method(paid),
        "reservations": [each["reservation"] for each in paid],
        "statement": _promise(paid).to_json(),
        "account_spent": {
            "epsilon": float(budget.epsilon - left_epsilon),
            "delta": float(budget.delta - left_delta),
            "budget_epsilon": float(budget.epsilon),
            "budget_delta": float(budget.delta),
        },
        "steps": [line for each in paid for line in each["meta"].get("steps", [])],
        "columns": model.domain.public_facts(),
        "rows": {"estimated": round(model.rows, 1), "released": len(table)},
        "fidelity": _fidelity(model, audited),
        "utility": _utility(audited, target),
        "verdict": verdict.to_json(),
    }


def _method(paid: list[dict[str, Any]]) -> str:
    """Return the mechanisms that the charges were for; the audit is none."""
    labels = [each["plan"]["label"] for each in paid]
    names = [label.split(" ", 1)[1] for label in labels if label.startswith(("fit ", "run "))]
    return ", ".join(dict.fromkeys(names)) or labels[-1]


def _promise(paid: list[dict[str, Any]]) -> Statement:
    """Return the statement about charges: one is priced as itself, several as their sum."""
    charges = [each["plan"]["charge"] for each in paid]
    epsilon = sum((Fraction(charge["epsilon"]) for charge in charges), Fraction(0))
    delta = sum((Fraction(charge["delta"]) for charge in charges), Fraction(0))
    event = (
        event_from_json(paid[0]["plan"]["event"]) if len(paid) == 1 else ApproxDP(epsilon, delta)
    )
    return statement(event, epsilon, delta, paid[-1]["plan"]["unit"])


def _fidelity(model: Model, audited: Audited) -> dict[str, Any]:
    """Return the mean distance over pairs, with the noise that was paid for on it."""
    pairs = len(pair_cliques(model.domain.names))
    if audited.distance is None:
        return {"mean_tvd": None, "sd": None, "marginals": 0, "sentence": "not measured"}
    rows = max(model.rows, 1.0)
    found = min(max(mean_tvd(audited.distance, rows, pairs), 0.0), 1.0)
    spread = audited.distance_sigma * tvd_per_l1(rows, pairs)
    return {
        "mean_tvd": round(found, 5),
        "sd": round(spread, 5),
        "marginals": pairs,
        "sentence": (
            f"over {pairs} pairs of columns, each column in at most about {_FIDELITY_CODES} groups "
            f"of values, the synthetic and the real table place {found:.1%} of their rows in "
            f"different cells (noise on this figure: +-{2 * spread:.1%}); 0% is identical, 100% "
            "disjoint."
        ),
    }


def _utility(audited: Audited, target: str | None) -> dict[str, Any] | None:
    """Return the accuracy on held-out units of a classifier trained on the synthetic table."""
    if target is None:
        return None
    everyone = audited.counts[0]
    right, guessed = audited.counts[1 + len(_ATTACKS) :]
    units = everyone.held_out
    if units < 4 * everyone.sigma:
        return {
            "target": target,
            "accuracy": None,
            "baseline": None,
            "sd": None,
            "sentence": f"too few held-out units to measure how well {target} is predicted.",
        }
    accuracy = min(max(right.held_out / units, 0.0), 1.0)
    baseline = min(max(guessed.held_out / units, 0.0), 1.0)
    spread = math.hypot(right.sigma / units, math.sqrt(max(accuracy * (1 - accuracy), 0) / units))
    return {
        "target": target,
        "accuracy": round(accuracy, 4),
        "baseline": round(baseline, 4),
        "sd": round(spread, 4),
        "sentence": (
            f"a classifier trained on the synthetic table predicts {target} of held-out units "
            f"right in {accuracy:.1%} (+-{2 * spread:.1%}); always guessing the commonest class "
            f"is right in {baseline:.1%}."
        ),
    }


def _indented(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


# -- released models, and tables of any tool -----------------------------------------------------


def sample_release(folder: str | os.PathLike[str], rows: int, seed: int) -> pd.DataFrame:
    """Draw rows from the model of a release folder: post-processing, free."""
    path = Path(folder) / "model.npz"
    if not path.is_file():
        raise InvalidRequest(
            f"Rows were to be drawn from {folder}.",
            "There is no model in it.",
            "Give a release folder that `dpsynth run` wrote.",
        )
    return MarginalModel.load(path).sample(rows, rng=np.random.default_rng(seed))


def attack_triple(
    train: str | os.PathLike[str],
    holdout: str | os.PathLike[str],
    synthetic: str | os.PathLike[str],
    schema: str | os.PathLike[str],
) -> dict[str, Any]:
    """Attack the output of any tool: exact results, for the custodian alone.

    Half of the training rows stand for units that were in, the other half for the reference.

    Returns:
        JSON data: exact results, and a verdict by the same rule as a release's.
    """
    domain = resolve(Schema.load(schema), categories={}, bounds={})
    tables = [coded(domain, load_table(path, domain.names)) for path in (train, holdout, synthetic)]
    inside, outside, codes = tables
    rng = np.random.default_rng(0)
    order = rng.permutation(len(inside))
    half = min(len(outside), (len(inside) + 1) // 2)
    audit_in, reference = inside[order[:half]], inside[order[half:]]
    held_out = outside[rng.permutation(len(outside))[:half]]
    exact = internal_results(
        domain=domain,
        release=codes,
        train=reference,
        audit_in=audit_in,
        audit_in_units=np.arange(len(audit_in)),
        held_out=held_out,
        held_out_units=np.arange(len(held_out)),
        rng=rng,
    )
    attacks = [each.of for each in _statistics(domain, codes, reference, None, rng)[1:]]
    counts = [
        AttackCounts(
            each.name,
            float((each.score(audit_in) >= each.threshold).sum()),
            float((each.score(held_out) >= each.threshold).sum()),
            float(len(audit_in)),
            float(len(held_out)),
            0.0,
        )
        for each in attacks
    ]
    verdict = public_verdict(counts)
    sentences = [verdict.sentence, *(finding.sentence for finding in verdict.findings)]
    return {
        "outcome": verdict.outcome,
        "sentences": sentences,
        "verdict": verdict.to_json(),
        "exact": exact.to_json(),
    }
