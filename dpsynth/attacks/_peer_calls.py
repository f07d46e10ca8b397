"""How other tools are called: with what their documentation shows, on tables in their own form.

Nothing of this project is imported here, so that a benchmark runs these very calls inside the
peers' own environments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

SINGLED_OUT = 500
"""Predicates that anonymeter looks for, its default."""

WIDTH = 4
"""Columns of each."""

ATTEMPTS = 20_000
"""Most predicates that it tries; its own limit is ten million, which is hours."""

LINKED = 2000
"""Records that it tries to link."""

LINKS = 10
"""Nearest neighbours among which it looks for a link."""

INFERRED = 1000
"""Records of which it guesses a column."""

SAMPLED = 1000
"""Rows that SDMetrics compares, by each metric; with all it would take hours."""


@dataclass(frozen=True, eq=False)
class Triple:
    """Three tables as other tools expect them: numbers numeric, names as text, missing as missing.

    Attributes:
        train: Rows that the synthetic table was made from.
        holdout: Rows like them that it was not made from.
        synthetic: The synthetic table.
        numbers: Columns that are numbers; all others are text.
        secrets: Columns to guess, the hardest first.
        labels: The columns' own names, by those in the tables, which no tool has to rewrite.
    """

    train: pd.DataFrame
    holdout: pd.DataFrame
    synthetic: pd.DataFrame
    numbers: tuple[str, ...]
    secrets: tuple[str, ...]
    labels: Mapping[str, str]

    def copied(self) -> Triple:
        """Return a triple of copies: what a tool does to them changes no other's tables."""
        tables = (self.train.copy(), self.holdout.copy(), self.synthetic.copy())
        return Triple(*tables, self.numbers, self.secrets, self.labels)


@dataclass(frozen=True)
class PeerFigure:
    """One figure of another tool.

    Attributes:
        name: What it is of.
        value: The figure.
        low: Lower end of the tool's own 95 % interval; None if it gives none.
        high: Upper end.
        leak: Whether a leak makes the figure high or low.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    leak: Literal["high", "low"]


Call = Callable[[Triple], tuple[PeerFigure, ...]]


def _singling_out(mode: str, name: str) -> Call:
    def call(triple: Triple) -> tuple[PeerFigure, ...]:
        from anonymeter.evaluators import SinglingOutEvaluator

        evaluator = SinglingOutEvaluator(
            ori=triple.train,
            syn=triple.synthetic,
            control=triple.holdout,
            n_attacks=SINGLED_OUT,
            n_cols=min(WIDTH, triple.train.shape[1]),
            max_attempts=ATTEMPTS,
        )
        evaluator.evaluate(mode=mode)
        return (_risk(name, evaluator),)

    return call


def _linkability(triple: Triple) -> tuple[PeerFigure, ...]:
    from anonymeter.evaluators import LinkabilityEvaluator

    names = list(triple.train)
    evaluator = LinkabilityEvaluator(
        ori=triple.train,
        syn=triple.synthetic,
        control=triple.holdout,
        aux_cols=(names[::2], names[1::2]),
        n_attacks=min(LINKED, len(triple.train), len(triple.holdout)),
        n_neighbors=min(LINKS, len(triple.synthetic)),
    )
    evaluator.evaluate(n_jobs=1)
    return (_risk("linkability", evaluator),)


def _inference(triple: Triple) -> tuple[PeerFigure, ...]:
    from anonymeter.evaluators import InferenceEvaluator

    found = []
    for secret in triple.secrets:
        own = triple.copied()
        evaluator = InferenceEvaluator(
            ori=own.train,
            syn=own.synthetic,
            control=own.holdout,
            aux_cols=[name for name in triple.train if name != secret],
            secret=secret,
            regression=secret in triple.numbers,
            n_attacks=INFERRED,
        )
        evaluator.evaluate(n_jobs=1)
        found.append(_risk(f"inference of {triple.labels[secret]}", evaluator))
    return tuple(found)


def _risk(name: str, evaluator: Any) -> PeerFigure:
    risk = evaluator.risk(confidence_level=0.95)
    return PeerFigure(name, float(risk.value), float(risk.ci[0]), float(risk.ci[1]), "high")


def _metadata(triple: Triple) -> dict[str, Any]:
    kinds = {
        name: {"sdtype": "numerical" if name in triple.numbers else "categorical"}
        for name in triple.train
    }
    return {"columns": kinds}


def _sampled(*tables: pd.DataFrame) -> int:
    return min(SAMPLED, *map(len, tables))


def _score(name: str, breakdown: Mapping[str, Any]) -> tuple[PeerFigure, ...]:
    return (PeerFigure(name, float(breakdown["score"]), None, None, "low"),)


def _new_rows(triple: Triple) -> tuple[PeerFigure, ...]:
    from sdmetrics.single_table import NewRowSynthesis

    found = NewRowSynthesis.compute_breakdown(
        real_data=triple.train,
        synthetic_data=triple.synthetic,
        metadata=_metadata(triple),
        table_name=None,
        synthetic_sample_size=_sampled(triple.synthetic),
    )
    return _score("NewRowSynthesis", found)


def _overfitting(triple: Triple) -> tuple[PeerFigure, ...]:
    from sdmetrics.single_table import DCROverfittingProtection

    found = DCROverfittingProtection.compute_breakdown(
        real_training_data=triple.train,
        synthetic_data=triple.synthetic,
        real_validation_data=triple.holdout,
        metadata=_metadata(triple),
        table_name=None,
        num_rows_subsample=_sampled(triple.train, triple.holdout, triple.synthetic),
    )
    return _score("DCROverfittingProtection", found)


def _against_random(triple: Triple) -> tuple[PeerFigure, ...]:
    from sdmetrics.single_table import DCRBaselineProtection

    found = DCRBaselineProtection.compute_breakdown(
        real_data=triple.train,
        synthetic_data=triple.synthetic,
        metadata=_metadata(triple),
        table_name=None,
        num_rows_subsample=_sampled(triple.train, triple.synthetic),
    )
    return _score("DCRBaselineProtection", found)


def _disclosure(triple: Triple) -> tuple[PeerFigure, ...]:
    from sdmetrics.single_table import DisclosureProtectionEstimate

    secret = triple.secrets[0]
    rest = [name for name in triple.train if name != secret]
    known = [name for name in rest if name not in triple.numbers] or rest
    used = [*known, secret]
    found = DisclosureProtectionEstimate.compute_breakdown(
        real_data=triple.train[used],
        synthetic_data=triple.synthetic[used],
        known_column_names=known,
        sensitive_column_names=[secret],
        continuous_column_names=[name for name in used if name in triple.numbers],
        num_rows_subsample=_sampled(triple.train, triple.synthetic),
        verbose=False,
    )
    return _score(f"DisclosureProtectionEstimate of {triple.labels[secret]}", found)


CALLS: Mapping[str, Mapping[str, Call]] = {
    "anonymeter": {
        "singling out by one column": _singling_out("univariate", "singling out by one column"),
        "singling out by four columns": _singling_out(
            "multivariate", "singling out by four columns"
        ),
        "linkability": _linkability,
        "inference": _inference,
    },
    "sdmetrics": {
        "NewRowSynthesis": _new_rows,
        "DCROverfittingProtection": _overfitting,
        "DCRBaselineProtection": _against_random,
        "DisclosureProtectionEstimate": _disclosure,
    },
}
"""By the names of the distributions, what is called of each."""
