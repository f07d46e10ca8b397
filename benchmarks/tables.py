"""The tables of the benchmarks, integer-coded once and alike for every method.

Coding is done before any method is measured and reads the exact table, which no release may: it
is the common ground of the comparison. Numbers of more than 50 values become 50 cells of about
equal mass (fewer where values repeat), other columns a code for each value; missing is a code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

CELLS = 50


@dataclass(frozen=True)
class Coded:
    """An integer-coded table.

    Attributes:
        rows: The codes, int64, one column each.
        sizes: Number of codes of each column.
        ordinal: Columns whose codes are in natural order.
    """

    rows: pd.DataFrame
    sizes: dict[str, int]
    ordinal: frozenset[str]


def coded(table: pd.DataFrame) -> Coded:
    """Return a table in codes."""
    rows, sizes, ordinal = {}, {}, set()
    for name, values in table.items():
        numbers = pd.to_numeric(values, errors="coerce")
        if numbers.nunique() > CELLS:  # a text beside numbers says that there is none
            values = numbers
        numeric = pd.api.types.is_numeric_dtype(values)
        if numeric and values.nunique() > CELLS:
            edges = np.unique(values.quantile(np.arange(1, CELLS) / CELLS))
            codes = np.searchsorted(edges, values.to_numpy(dtype=float), side="right")
            codes = np.where(values.isna(), len(edges) + 1, codes)
            kept = np.unique(codes, return_inverse=True)[1]
        else:
            kept = pd.factorize(values, sort=True, use_na_sentinel=False)[0]
        if numeric and not values.isna().any() and kept.max() > 1:
            ordinal.add(str(name))
        rows[str(name)], sizes[str(name)] = kept.astype(np.int64), int(kept.max()) + 1
    many = {name: size for name, size in sizes.items() if size > 1}
    return Coded(pd.DataFrame(rows)[list(many)], many, frozenset(ordinal & set(many)))


def _adult(folder: Path) -> Coded:
    from adult_encoded import ORDINAL

    sizes = json.loads((folder / "adult_encoded/adult-domain.json").read_text())
    rows = pd.read_csv(folder / "adult_encoded/adult.csv.gz")[list(sizes)]
    return Coded(rows, sizes, frozenset(ORDINAL))


TABLES: dict[str, Callable[[Path], Coded]] = {
    "adult": _adult,
    "acs": lambda folder: coded(pd.read_csv(folder / "nist_acs/ma2019.csv.gz")),
    "credit": lambda folder: coded(pd.read_csv(folder / "credit_default/credit_default.csv.gz")),
    "kdd": lambda folder: coded(
        pd.read_parquet(folder / "kdd_census_income/kdd_census_income.parquet")
    ),
    "caravan": lambda folder: coded(pd.read_csv(folder / "caravan/caravan.csv.gz")),
}
"""Adult (48,842 rows, 14 columns), NIST ACS Massachusetts 2019, credit card default, KDD census
income and the caravan insurance data: each from a folder of public tables."""
