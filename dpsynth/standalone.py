"""Tools for released models, and for tables of any tool that their user holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpsynth._audit import coded
from dpsynth._draft import guess
from dpsynth._values import text_of
from dpsynth.attacks import (
    Claim,
    InternalResults,
    check_validity,
    internal_results,
    peer_results,
    require_peers,
)
from dpsynth.domain import resolve
from dpsynth.marginal import MarginalModel
from dpsynth.schema import Schema
from dpsynth.synthesizer import Model
from dpsynth.vault import column_names, load_table
from dpsynth_accounting import Account, InvalidRequest

MOST_CATEGORIES = 5_000
"""Most distinct texts of a column that is taken for a list of categories, without a schema."""


def sample_release(folder: str | os.PathLike[str], rows: int, seed: int) -> pd.DataFrame:
    """Draw rows from the model of a release folder: post-processing, free."""
    return _load(Path(folder)).sample(rows, rng=np.random.default_rng(seed))


def _load(folder: Path) -> Model:
    if (path := folder / "model.npz").is_file():
        return MarginalModel.load(path)
    if (path := folder / "model.safetensors").is_file():
        from dpsynth import deep

        return deep.load(path)
    raise InvalidRequest(
        f"Rows were to be drawn from {folder}.",
        "There is no model in it.",
        "Give a release folder that `dpsynth run` wrote.",
    )


def attack_triple(
    train: str | os.PathLike[str],
    holdout: str | os.PathLike[str],
    synthetic: str | os.PathLike[str],
    schema: str | os.PathLike[str] | None = None,
    *,
    epsilon: float | None = None,
    delta: float = 0.0,
    classifier: bool = True,
    account: Account | None = None,
    peers: Sequence[str] = (),
) -> dict[str, Any]:
    """Attack the output of any tool: exact results, for the custodian alone.

    Half of the training rows stand for units that were in, the other half for the reference. Each
    row is a unit.

    Args:
        train: The rows that the synthetic table was made from.
        holdout: Rows drawn like them that it was not made from.
        synthetic: The synthetic table.
        schema: What the columns are; without one, guessed from all three tables together.
        epsilon: What the tool claims for one row, if it does; a lower bound above it fails.
        delta: At which epsilon is claimed or bounded.
        classifier: Whether to try the classifier, which costs more than all else together.
        account: That of the rows, if they have one: an inspection of the synthetic file is written
            into it before a row is read, and is an attempt at a release.
        peers: Other tools, of :data:`dpsynth.attacks.PEERS`, whose figures are put beside ours;
            they have no part in the outcome.

    Returns:
        JSON data: the outcome, sentences for a person, and all results.

    Raises:
        InvalidRequest: A table lacks a column, no column is left to compare, a claim is
            impossible, or another tool is not installed.
    """
    claim = Claim(((epsilon, delta),))
    require_peers(peers)
    if account is not None:
        candidate = hashlib.sha256(Path(synthetic).read_bytes()).hexdigest()
        account.record("inspect", {"purpose": "attack on a table", "candidate": candidate})
    paths = (train, holdout, synthetic)
    notes: list[str] = []
    if schema is None:
        names = tuple(name for name in column_names(train))
        frames = [load_table(path, names) for path in paths]
        declared, notes = drafted(pd.concat(frames, ignore_index=True))
        domain = resolve(declared, categories={}, bounds={})
    else:
        domain = resolve(Schema.load(schema), categories={}, bounds={})
        frames = [load_table(path, domain.names) for path in paths]
    inside, outside, codes = (coded(domain, frame) for frame in frames)
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
        claim=claim,
        classifier=classifier,
    )
    valid = check_validity(domain, frames[2])
    if valid.broken:
        told = ", ".join(
            f"{' x '.join(each.columns)} ({each.rule}: {each.broken:,} rows)"
            for each in valid.broken
        )
        notes.append(
            f"{100 * (1 - valid.valid):.2f} % of the synthetic rows break a rule of the schema: "
            f"{told}."
        )
    beside = peer_results(
        peers, domain, train=frames[0], holdout=frames[1], synthetic=frames[2], rng=rng
    )
    return {
        "outcome": exact.verdict.outcome,
        "notes": notes,
        "sentences": [*sentences(exact), *(line for each in beside for line in each.sentences())],
        "validity": asdict(valid),
        "exact": exact.to_json(),
        "peers": [asdict(each) for each in beside],
    }


def drafted(pooled: pd.DataFrame) -> tuple[Schema, list[str]]:
    """Return a schema guessed from the rows of all tables together, and notes for a person.

    It is made from private rows, so it is as private as they are: for exact, internal use alone.

    Args:
        pooled: The rows of all tables; not changed.

    Raises:
        InvalidRequest: No column is left to compare.
    """
    columns: dict[str, dict[str, object]] = {}
    left_out = []
    for name in map(str, pooled.columns):
        facts, _ = guess(name, pooled[name])
        if facts["type"] in ("open", "drop"):
            known = sorted({text for text in text_of(pooled[name]) if text is not None})
            if 0 < len(known) <= MOST_CATEGORIES:
                facts = {"type": "categorical", "categories": known, "missing": True}
        if facts["type"] in ("open", "drop", "key"):
            left_out.append(name)
        else:
            columns[name] = facts
    if not columns:
        raise InvalidRequest(
            "Tables were to be attacked without a schema.",
            "No column is left that can be compared: all look like keys or free text.",
            "Give a schema that says what the columns are.",
        )
    notes = ["The columns' types were guessed from all three tables together: give a schema."]
    if left_out:
        notes.append(f"Not compared, as keys or free text: {', '.join(left_out)}.")
    return Schema.from_json({"format_version": 1, "columns": columns}), notes


MOST_SENTENCES = 8


def sentences(exact: InternalResults) -> list[str]:
    """Return exact results in plain English, the most telling first."""
    told = [exact.verdict.sentence]
    for point in exact.epsilon.points if exact.epsilon is not None else ():
        claimed = "nothing is claimed" if point.claim is None else f"{point.claim:g} is claimed"
        told.append(
            f"Epsilon at delta {point.delta:g} is at least {point.bound:.2f} with confidence 95 % "
            f"and at least {point.hard_bound:.2f} with 99.9 %, if a fair coin decided for each row "
            f"whether it was used; {claimed}. The most that could have been shown is "
            f"{point.possible:.2f} and {point.hard_possible:.2f}."
        )
    findings = exact.verdict.findings
    told += [finding.sentence for finding in findings[:MOST_SENTENCES]]
    if len(findings) > MOST_SENTENCES:
        more = len(findings) - MOST_SENTENCES
        told.append(f"{more} further tests, none with a smaller p-value: --json shows all.")
    for name, risk in exact.disclosure.items():
        found = risk.comparison
        told.append(
            f"{name[:1].upper()}{name[1:]} ({risk.about}): main {_percent(found.rate_in.value)}, "
            f"control {_percent(found.rate_out.value)}, baseline "
            f"{_percent(risk.baseline.value)}; risk {100 * risk.risk.value:.2f} points (95 % "
            f"interval {100 * risk.risk.interval.low:.2f} to "
            f"{100 * risk.risk.interval.high:.2f})."
        )
    return told


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"
