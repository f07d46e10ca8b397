"""The mechanism that is used where none is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpsynth.schema import Schema
from dpsynth.synthesizer import Synthesizer, named
from dpsynth.workload import Workload
from dpsynth_accounting import Budget, InvalidRequest

MOST_COLUMNS = 60
"""Columns up to which a clique tree finds more than it spends on finding it."""

MOST_WITH_TARGET = 100
"""The same where it is known for which column it should look."""

LEAST_EPSILON = 0.03
"""Epsilon from which it does."""


def recommend(schema: Schema, budget: Budget, *, target: str | None = None) -> Synthesizer:
    """Return the mechanism that is likely to be the best, from public facts alone.

    A clique tree (:class:`~dpsynth.CliqueTree`) where there are at most 60 modelled columns and
    epsilon is at least 0.03; else :class:`~dpsynth.MST`, which is then as accurate and several
    times as fast. With a target, the clique tree is told that triples with it are what matters,
    and is used up to 100 columns: whoever learns from its rows then predicts the target better,
    and the other marginals are about as good. The measurements are in
    ``docs/explanation/clique-tree.md``. Nothing is read or charged.

    Args:
        schema: The columns.
        budget: What the fit may spend.
        target: A column that a downstream model would predict.

    Raises:
        InvalidRequest: The target is no modelled column.

    >>> from dpsynth import Boolean, Budget, Schema
    >>> recommend(Schema({"a": Boolean(), "b": Boolean()}), Budget(1, 1e-6)).name
    'clique-tree'
    """
    return named(*recommended(schema, budget, target))


def recommended(
    schema: Schema, budget: Budget, target: str | None
) -> tuple[str, Mapping[str, Any]]:
    """Return what :func:`recommend` makes: the mechanism's name and its parameters."""
    if target is not None and target not in schema.modelled:
        raise InvalidRequest(
            f"A mechanism for the target {target!r} was asked for.",
            "It is no modelled column of the schema.",
            f"The modelled columns are {', '.join(map(repr, schema.modelled))}.",
        )
    most = MOST_COLUMNS if target is None else MOST_WITH_TARGET
    if len(schema.modelled) > most or budget.epsilon < LEAST_EPSILON:
        return "mst", {}
    if target is None:
        return "clique-tree", {}
    return "clique-tree", {"workload": Workload.about(target, 3)}
