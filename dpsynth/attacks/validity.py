"""Whether a synthetic table holds values that its domain knows, in combinations that can be.

Figures on the synthetic table alone: no private row is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dpsynth.domain import Domain
from dpsynth_accounting import InvalidRequest


@dataclass(frozen=True)
class Validity:
    """Rows of a synthetic table that break a rule.

    Attributes:
        rows: Rows of the table.
        outside: For each column with any, rows whose value is none of the domain's.
        impossible: For each rule that is broken, named by its columns, rows that break it.
        valid: Share of the rows that break none.
    """

    rows: int
    outside: dict[str, int]
    impossible: dict[str, int]
    valid: float


def check_validity(
    domain: Domain, table: pd.DataFrame, *, impossible: Sequence[pd.DataFrame] = ()
) -> Validity:
    """Check every row of a synthetic table against its domain and against structural zeros.

    Args:
        domain: What the columns may hold.
        table: The synthetic rows, with every modelled column; not changed.
        impossible: Combinations of values that no row can have, each table's lines over its
            columns, as for :func:`dpsynth.from_marginals`.

    Raises:
        InvalidRequest: A column is lacking, or a rule names a value that is none.
    """
    codes = domain.encode(table)
    broken = np.zeros(len(table), dtype=bool)
    outside: dict[str, int] = {}
    for name in domain.names:
        values, codec = table[name], domain.codecs[name]
        known = codec.holds(values)
        if codec.missing:
            known |= values.isna().to_numpy()
        broken |= ~known
        if not known.all():
            outside[name] = int((~known).sum())
    zeros: dict[str, int] = {}
    for rule in impossible:
        names = [str(name) for name in rule.columns]
        if not names or not set(names) <= set(domain.names):
            raise InvalidRequest(
                f"Impossible values of {tuple(names)} were given.",
                f"Modelled columns are {', '.join(domain.names)}.",
                "Name each column once.",
            )
        forbidden = np.column_stack([domain.codes(name, rule[name]) for name in names])
        rows = np.column_stack([codes[name] for name in names])
        wanted = {tuple(line) for line in forbidden.tolist()}
        hit = np.array([tuple(line) in wanted for line in rows.tolist()], dtype=bool)
        broken |= hit
        if hit.any():
            label = " x ".join(names)
            zeros[label] = zeros.get(label, 0) + int(hit.sum())
    share = 1 - float(broken.mean()) if len(table) else 1.0
    return Validity(len(table), outside, zeros, share)
