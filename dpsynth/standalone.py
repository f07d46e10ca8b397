"""Tools for released models, and for tables of any tool that their user holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dpsynth._audit import coded, statistics_of
from dpsynth.attacks import AttackCounts, internal_results, public_verdict
from dpsynth.domain import resolve
from dpsynth.marginal import MarginalModel
from dpsynth.schema import Schema
from dpsynth.synthesizer import Model
from dpsynth.vault import load_table
from dpsynth_accounting import InvalidRequest


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
    attacks = [each.of for each in statistics_of(domain, codes, reference, None, rng)[1:]]
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
