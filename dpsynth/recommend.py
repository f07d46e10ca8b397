"""The mechanism that is used where none is named."""

from __future__ import annotations

from dpsynth.marginal import MST, CliqueTree
from dpsynth.schema import Schema
from dpsynth.synthesizer import Synthesizer
from dpsynth_accounting import Budget

MOST_COLUMNS = 60
"""Columns up to which a clique tree finds more than it spends on finding it."""

LEAST_EPSILON = 0.03
"""Epsilon from which it does."""


def recommend(schema: Schema, budget: Budget) -> Synthesizer:
    """Return the mechanism that is likely to be the best, from public facts alone.

    A :class:`CliqueTree` where there are at most 60 modelled columns and epsilon is at least
    0.03; else :class:`MST`, which is then as accurate and several times as fast. The measurements
    are in ``docs/explanation/clique-tree.md``. Nothing is read or charged.

    Args:
        schema: The columns.
        budget: What the fit may spend.

    >>> from dpsynth import Boolean, Budget, Schema
    >>> recommend(Schema({"a": Boolean(), "b": Boolean()}), Budget(1, 1e-6)).name
    'clique-tree'
    """
    if len(schema.modelled) <= MOST_COLUMNS and budget.epsilon >= LEAST_EPSILON:
        return CliqueTree()
    return MST()
