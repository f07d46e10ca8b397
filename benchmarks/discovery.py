"""What private discovery costs: only names and types given, against declared domains.

    python benchmarks/discovery.py --data FOLDER [--seeds 5] [--tables hie acs]

FOLDER holds randhie_full/person_years.parquet (RAND Health Insurance Experiment: 20,190 years of
5,912 persons, at most 5 rows of each) and nist_acs/ma2019.csv.gz (NIST excerpt of the American
Community Survey, Massachusetts 2019: 7,634 rows). Each is fitted by MST at epsilon 1, delta 1e-6,
without an audit share: once with categories and bounds declared as a codebook would, once with
types alone, discovery paid out of the same epsilon. The error is the mean total variation distance
over all pairs of columns, in one space for both: declared categories (one more cell for any other
text), and numbers in at most 32 cells of about equal mass of the real table, missing apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _measure import measured
from _results import add_out, keep
from numpy.typing import NDArray

import dpsynth as dp
from dpsynth._values import distinct_texts, numbers_of

EPSILON, DELTA = 1.0, 1e-6
CELLS = 32

Whole = tuple[int, int]


def categories(*values: object) -> dp.Categorical:
    """Return a declared list of categories, given one by one."""
    return dp.Categorical(tuple(str(value) for value in values))


def up_to(last: int, *others: object, first: int = 0) -> dp.Categorical:
    """Return the categories first..last, and others."""
    return categories(*range(first, last + 1), *others)


def hie() -> dict[str, dp.schema.Column]:
    """Return the declared columns of the Health Insurance Experiment, but the person's."""
    money = dp.Real(0.0, 50_000.0)
    flag, log, share = up_to(1), dp.Real(0.0, 15.0), dp.Real(0.0, 1.0)
    index = dp.Real(0.0, 100.0)
    return {
        "plan": up_to(24, first=1),
        "site": up_to(6, first=1),
        "coins": categories(0, 25, 50, 95, 100),
        "tookphys": flag,
        "year": dp.Integer(1, 5),
        "black": share,
        "income": money,
        "xage": dp.Real(0.0, 100.0),
        "female": flag,
        "educdec": dp.Real(0.0, 25.0, missing=True),
        "time": share,
        **dict.fromkeys(("outpdol", "drugdol", "suppdol", "mentdol", "inpdol", "meddol"), money),
        "totadm": dp.Integer(0, 50),
        "inpmis": flag,
        **dict.fromkeys(("mentvis", "mdvis", "notmdvis"), dp.Integer(0, 365)),
        "num": dp.Integer(1, 20),
        "mhi": index,
        "disea": index,
        "physlm": share,
        "ghindx": dp.Real(0.0, 100.0, missing=True),
        "mdeoff": dp.Real(0.0, 1_000.0, missing=True),
        "pioff": dp.Real(0.0, 2_000.0, missing=True),
        "child": flag,
        "fchild": flag,
        "lfam": dp.Real(0.0, 3.0),
        "lpi": log,
        "idp": flag,
        "logc": dp.Real(0.0, 5.0),
        "fmde": log,
        "hlthg": flag,
        "hlthf": flag,
        "hlthp": flag,
        "xghindx": index,
        "linc": log,
        "lnum": dp.Real(0.0, 3.0),
        "lnmeddol": dp.Real(-5.0, 15.0, missing=True),
        "binexp": flag,
    }


def acs(dictionary: Mapping[str, Any], industries: Sequence[str]) -> dict[str, dp.schema.Column]:
    """Return the declared columns of the NIST excerpt: its data dictionary's lists and bounds.

    The dictionary has no list of industries and names a table of them instead: the codes that
    occur stand in for it. Of the widths of weights it says 9999.
    """
    listed = {
        name: categories(*facts["values"])
        for name, facts in dictionary.items()
        if "values" in facts and "min" not in facts["values"]
    }
    ranged = {
        "AGEP": dp.Integer(0, 99),
        "NOC": up_to(19, "N"),
        "NPF": up_to(20, "N", first=2),
        "DENSITY": dp.Real(16.3, 52_864.7),
        "INDP": categories(*industries),
        "PINCP": dp.Integer(-9_000, 1_341_000, missing=True),
        "POVPIP": dp.Integer(0, 501, missing=True),
        "PWGTP": dp.Integer(1, 9_999),
        "WGTP": dp.Integer(0, 9_999),
    }
    return {**listed, **ranged}


def opened(column: dp.schema.Column) -> dp.schema.Column:
    """Return a column of which only the type is said."""
    if isinstance(column, dp.Categorical):
        return dp.Open()
    return type(column)(missing=column.missing)


@dataclass(frozen=True)
class Table:
    """A table with what is declared of it.

    Attributes:
        frame: The private rows.
        columns: The declared columns.
        unit: Whose presence is hidden.
    """

    frame: pd.DataFrame
    columns: dict[str, dp.schema.Column]
    unit: dp.Row | dp.Person

    def schema(self, known: str) -> dp.Schema:
        """Return the schema that declares all ("declared"), or types alone ("types")."""
        given = (
            self.columns if known == "declared" else {n: opened(c) for n, c in self.columns.items()}
        )
        return dp.Schema(given)


def load(name: str, folder: Path) -> Table:
    """Return one of the two tables."""
    if name == "hie":
        frame = pd.read_parquet(folder / "randhie_full" / "person_years.parquet")
        return Table(frame, hie(), dp.Person("zper", rows=5))
    frame = pd.read_csv(folder / "nist_acs" / "ma2019.csv.gz", dtype=str, keep_default_na=False)
    dictionary = json.loads((folder / "nist_acs" / "data_dictionary.json").read_text())
    columns = acs(dictionary, sorted(frame["INDP"].unique()))
    return Table(frame, {str(name): columns[str(name)] for name in frame.columns}, dp.Row())


@dataclass(frozen=True)
class Space:
    """The common cells that both outputs are compared in: an edge list or a list of texts each."""

    edges: dict[str, NDArray[np.float64]]
    texts: dict[str, list[str]]

    @classmethod
    def of(cls, table: Table) -> Space:
        """Return the space of a table's declared columns."""
        edges, texts = {}, {}
        for name, column in table.columns.items():
            if isinstance(column, dp.Categorical):
                texts[name] = [str(each) for each in column.categories]
            else:
                numbers, known = numbers_of(table.frame[name], "real")
                edges[name] = _edges(numbers[known])
        return cls(edges, texts)

    def codes(self, frame: pd.DataFrame) -> dict[str, tuple[NDArray[np.int64], int]]:
        """Return the cell of each value, and the number of cells, a column."""
        out = {}
        for name, edges in self.edges.items():
            numbers, known = numbers_of(frame[name], "real")
            cells = np.searchsorted(edges, numbers, side="right")
            out[name] = (np.where(known, cells, len(edges) + 1), len(edges) + 2)
        for name, texts in self.texts.items():
            positions, distinct = distinct_texts(frame[name])
            place = {text: code for code, text in enumerate(texts)}
            found = [place.get(text, len(texts)) for text in distinct]
            out[name] = (np.array([*found, len(texts)])[positions], len(texts) + 1)
        return out


def _edges(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return inner ends of cells of about equal mass, halfway between values that occur.

    A value of more than one share of the mass is in a cell by itself.
    """
    values, counts = np.unique(numbers, return_counts=True)
    share, mass, edges = len(numbers) / CELLS, 0.0, []
    for place in range(1, len(values)):
        mass += counts[place - 1]
        if mass >= share or counts[place] >= share:
            edges.append((values[place - 1] + values[place]) / 2)
            mass = 0.0
    return np.array(edges)


def errors(space: Space, real: pd.DataFrame, made: pd.DataFrame) -> dict[str, Any]:
    """Return the mean one- and two-way distances, and the two-way ones by column."""
    left, right = space.codes(real), space.codes(made)

    def distance(names: tuple[str, ...]) -> float:
        shape = [left[name][1] for name in names]
        one, two = (
            np.bincount(
                np.ravel_multi_index([side[name][0] for name in names], shape),
                minlength=int(np.prod(shape)),
            )
            / len(side[names[0]][0])
            for side in (left, right)
        )
        return float(np.abs(one - two).sum() / 2)

    ones = {name: distance((name,)) for name in left}
    twos = {pair: distance(pair) for pair in combinations(left, 2)}
    return {
        "tvd1": statistics.mean(ones.values()),
        "tvd2": statistics.mean(twos.values()),
        "ones": ones,
        "twos": {n: statistics.mean(v for p, v in twos.items() if n in p) for n in left},
    }


def once(table: Table, space: Space, known: str, seed: int) -> dict[str, Any]:
    """Fit once and return the errors, the cost and what was discovered."""
    with tempfile.TemporaryDirectory() as folder:
        account = dp.Ledger(Path(folder) / "ledger.db").account("x", dp.Budget(EPSILON, DELTA))
        with measured() as cost:
            vault = dp.Vault(
                table.frame, table.schema(known), account, unit=table.unit, audit_share=0.0
            )
            model = dp.MST().fit(vault, epsilon=EPSILON)
        drawn = model.sample(rng=np.random.default_rng(seed))
    return {**errors(space, table.frame, drawn), "cpu": cost.cpu, "peak": cost.peak}


def compared(table: Table, seeds: int) -> dict[str, Any]:
    """Return the mean figures of both ways to know the columns, and their ratio."""
    space = Space.of(table)
    found: dict[str, Any] = {"rows": len(table.frame), "columns": len(table.columns)}
    for known in ("declared", "types"):
        runs = [once(table, space, known, seed) for seed in range(seeds)]
        spread = statistics.stdev(run["tvd2"] for run in runs) if seeds > 1 else 0.0
        found[known] = {
            **{key: statistics.mean(run[key] for run in runs) for key in ("tvd1", "tvd2", "cpu")},
            "tvd2_sd": spread,
            "peak": max(run["peak"] for run in runs),
            "by_column": {
                name: statistics.mean(run["twos"][name] for run in runs) for name in table.columns
            },
        }
    found["ratio"] = found["types"]["tvd2"] / found["declared"]["tvd2"]
    return found


def main() -> None:
    """Run the benchmark, print its table and write its figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--tables", nargs="+", choices=("acs", "hie"), default=["acs", "hie"])
    add_out(options)
    chosen = options.parse_args()
    tables = {}
    print(f"{'':6}{'known':10}{'1-way':>9}{'2-way':>9}{'sd':>8}{'ratio':>7}{'CPU s':>8}{'MB':>7}")
    for name in chosen.tables:
        facts = tables[name] = compared(load(name, chosen.data), chosen.seeds)
        for known in ("declared", "types"):
            line, ratio = facts[known], facts["ratio"] if known == "types" else 1.0
            print(
                f"{name:6}{known:10}{line['tvd1']:9.4f}{line['tvd2']:9.4f}{line['tvd2_sd']:8.4f}"
                f"{ratio:7.2f}{line['cpu']:8.1f}{line['peak']:7.0f}",
                flush=True,
            )
    result = {"epsilon": EPSILON, "delta": DELTA, "seeds": chosen.seeds, "tables": tables}
    keep(chosen.out, "discovery", result)


if __name__ == "__main__":
    main()
