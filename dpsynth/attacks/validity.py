"""Whether a synthetic table keeps each rule of its schema, and lacks what cannot be.

Figures on the synthetic table alone: no private row is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth._values import numbers_of
from dpsynth.codec import NumericCodec
from dpsynth.domain import Domain
from dpsynth.grids import lattice
from dpsynth_accounting import InvalidRequest

_ROUNDING = 1e-6
"""Part of a step by which a number may lie beside it, as files round it."""


@dataclass(frozen=True)
class RuleCheck:
    """One rule, and how many rows break it.

    Attributes:
        rule: ``domain``: the value, if there is one, is one of the column's; ``not missing``: there
            is a value; ``step``: it is a whole number of steps above the lower bound; ``unique``:
            no row above has the same key; ``possible``: the row is not among impossible ones.
        columns: The columns that it is about.
        broken: Rows that break it.
    """

    rule: Literal["domain", "not missing", "step", "unique", "possible"]
    columns: tuple[str, ...]
    broken: int


@dataclass(frozen=True)
class Validity:
    """Every rule of a synthetic table.

    Attributes:
        rows: Rows of the table.
        valid: Share of the rows that break none.
        rules: Each rule that was checked, also those that no row breaks.
    """

    rows: int
    valid: float
    rules: tuple[RuleCheck, ...]

    @property
    def broken(self) -> tuple[RuleCheck, ...]:
        """Return the rules that some row breaks."""
        return tuple(each for each in self.rules if each.broken)


def check_validity(
    domain: Domain, table: pd.DataFrame, *, impossible: Sequence[pd.DataFrame] = ()
) -> Validity:
    """Check every row of a synthetic table against its domain and against structural zeros.

    Args:
        domain: What the columns may hold.
        table: The synthetic rows, with every modelled column; keys are checked if they are there;
            not changed.
        impossible: Combinations of values that no row can have, each table's lines over its
            columns, as for :func:`dpsynth.from_marginals`.

    Raises:
        InvalidRequest: A column is lacking, or a rule names a value that is none.
    """
    codes = domain.encode(table)
    broken = np.zeros(len(table), dtype=bool)
    rules: list[RuleCheck] = []

    def check(
        rule: Literal["domain", "not missing", "step", "unique", "possible"],
        columns: tuple[str, ...],
        hit: NDArray[np.bool_],
    ) -> None:
        nonlocal broken
        broken |= hit
        rules.append(RuleCheck(rule, columns, int(hit.sum())))

    for name in domain.names:
        values, codec = table[name], domain.codecs[name]
        gone = values.isna().to_numpy(dtype=bool)
        held = codec.holds(values)
        check("domain", (name,), ~held & ~gone)
        if not codec.missing:
            check("not missing", (name,), gone)
        if isinstance(codec, NumericCodec) and codec.step is not None:
            check("step", (name,), held & _between_steps(values, codec, codec.step))
    for name in domain.output:
        if name not in domain.codecs and name in table:
            check("unique", (name,), table[name].duplicated().to_numpy(dtype=bool))
    for rule in impossible:
        names = tuple(str(name) for name in rule.columns)
        if not names or not set(names) <= set(domain.names):
            raise InvalidRequest(
                f"Impossible values of {names} were given.",
                f"Modelled columns are {', '.join(domain.names)}.",
                "Name each column once.",
            )
        forbidden = np.column_stack([domain.codes(name, rule[name]) for name in names])
        rows = np.column_stack([codes[name] for name in names])
        wanted = {tuple(line) for line in forbidden.tolist()}
        hit = np.array([tuple(line) in wanted for line in rows.tolist()], dtype=bool)
        check("possible", names, hit)
    share = 1 - float(broken.mean()) if len(table) else 1.0
    return Validity(len(table), share, tuple(rules))


def _between_steps(values: pd.Series, codec: NumericCodec, step: float) -> NDArray[np.bool_]:
    numbers, _ = numbers_of(values, codec.of)
    lower = float(codec.starts[0])
    inside = np.clip(numbers, lower, float(codec.upper))
    nearest = lattice(lower, np.rint((inside - lower) / step).astype(np.int64), step)
    beside = np.abs(inside - nearest) - 2 * np.spacing(np.abs(inside))
    # The upper bound is a value, even where it is no whole number of steps above the lower one.
    return np.asarray((beside > _ROUNDING * step) & (inside < codec.upper))
