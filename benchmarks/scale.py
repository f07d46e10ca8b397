"""The recommended mechanism on tables of sizes that hurt: each a made table, each in a process.

    python benchmarks/scale.py [--tables wide codes ...]

``wide`` has 300 columns of 10 values, ``codes`` 10 ordered columns of 10,000 values, ``names`` 10
columns of 10,000 categories, ``rows`` 10 million rows of 20 columns. Epsilon is 1, delta 1e-9.
The error is the mean total variation distance over all pairs of the first ten columns (of single
columns where a pair has 10^8 cells), beside that of independent columns with exact marginals and
of a bootstrap of the rows.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _measure import measured
from _results import add_out, keep

import dpsynth as dp

DELTA = 1e-9
COMPARED = 10  # columns whose errors are taken


def related(rows: int, columns: int, values: int) -> tuple[pd.DataFrame, dp.Schema]:
    """Return a table in which a column is mostly a permutation of one of the five before it."""
    rng = np.random.default_rng(0)
    made = [rng.integers(0, values, rows, dtype=np.int16)]
    for j in range(1, columns):
        parent = made[rng.integers(max(0, j - 5), j)]
        copied = rng.permutation(values).astype(np.int16)[parent]
        other = rng.integers(0, values, rows, dtype=np.int16)
        made.append(np.where(rng.random(rows) < 0.6, copied, other))
    frame = pd.DataFrame({f"c{j}": column for j, column in enumerate(made)})
    return frame, dp.Schema({name: dp.Categorical(tuple(range(values))) for name in frame})


def codes() -> tuple[pd.DataFrame, dp.Schema]:
    """Return ten related numbers of four digits, of 200,000 rows."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=200_000)
    spread = {f"v{j}": 0.7 * common + 0.7 * rng.normal(size=common.size) for j in range(10)}
    frame = pd.DataFrame(
        {name: np.clip(5000 + 1200 * v, 0, 9999).astype(int) for name, v in spread.items()}
    )
    return frame, dp.Schema({name: dp.Integer(0, 9999) for name in frame})


def names() -> tuple[pd.DataFrame, dp.Schema]:
    """Return ten columns of 10,000 categories, few of them common, of 200,000 rows."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {f"v{j}": np.minimum(rng.zipf(1.3, 200_000), 10_000) - 1 for j in range(10)}
    )
    return frame, dp.Schema({name: dp.Categorical(tuple(range(10_000))) for name in frame})


TABLES: dict[str, Callable[[], tuple[pd.DataFrame, dp.Schema]]] = {
    "wide": lambda: related(50_000, 300, 10),
    "codes": codes,
    "names": names,
    "rows": lambda: related(10_000_000, 20, 20),
}


def distance(real: pd.DataFrame, made: pd.DataFrame, width: int) -> float:
    """Return the mean total variation distance over sets of the first columns."""
    found = []
    for clique in itertools.combinations(list(real)[:COMPARED], width):
        shares = [t.groupby(list(clique)).size() / len(t) for t in (real, made)]
        a, b = shares[0].align(shares[1], fill_value=0.0)
        found.append(0.5 * float((a - b).abs().sum()))
    return statistics.mean(found)


def run(table: str) -> dict[str, Any]:
    """Fit one table and return its line."""
    frame, schema = TABLES[table]()
    with tempfile.TemporaryDirectory() as folder, measured() as before:
        account = dp.Ledger(Path(folder) / "ledger.db").account("x", dp.Budget(1, DELTA))
        method = dp.recommend(schema, dp.Budget(1, DELTA))
        with measured() as cost:
            vault = dp.Vault(frame, schema, account, unit=dp.Row(), audit_share=0.0)
            model = method.fit(vault, epsilon=1)
    rng = np.random.default_rng(1)
    with measured() as drawing:
        drawn = model.sample(min(len(frame), 1_000_000), rng=rng)
    width = 1 if table in ("codes", "names") else 2
    alone = frame.iloc[:, :COMPARED].apply(lambda column: rng.permutation(column.to_numpy()))
    again = frame.iloc[rng.integers(0, len(frame), len(frame)), :COMPARED]
    return {
        "table": table,
        "method": method.name,
        "columns": frame.shape[1],
        "rows": len(frame),
        "frame": float(frame.memory_usage().sum()) / 2**20,
        "cpu": cost.cpu,
        "peak": before.peak,
        "drawing": drawing.cpu,
        "width": width,
        "tvd": distance(frame, drawn, width),
        "independent": distance(frame, alone, width),
        "bootstrap": distance(frame, again, width),
    }


def main() -> None:
    """Run the benchmark, print its lines and write them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    add_out(options)
    chosen = options.parse_args()
    lines = []
    print(
        "table     method       CPU s  peak MB  frame MB  1e6 rows CPU s  width     TVD  bootstrap"
    )
    for table in chosen.tables:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            line = pool.apply(run, (table,))
        lines.append(line)
        print(
            f"{line['table']:9} {line['method']:11}{line['cpu']:7.1f}{line['peak']:9.0f}"
            f"{line['frame']:10.0f}{line['drawing']:15.1f}{line['width']:7}"
            f"{line['tvd']:8.4f}{line['bootstrap']:11.4f}",
            flush=True,
        )
    keep(chosen.out, "scale", lines)


if __name__ == "__main__":
    main()
