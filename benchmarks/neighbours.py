"""Exact nearest neighbours on mixed columns, beside scikit-learn, faiss and SDMetrics.

    sh benchmarks/peers/setup.sh ENVIRONMENTS
    python benchmarks/neighbours.py --data FOLDER --environments ENVIRONMENTS

The table is Adult with all 15 columns, 6 of numbers and 9 of names, grown to so many rows: rows
drawn with replacement, of each of which two cells come from other rows. Numbers are coded in at
most 1,000 cells of equal width. Queries are drawn alike. Each method is a process of its own, on
one thread. The slow ones answer fewer queries: *per 10k* is the CPU seconds of the index, and of
the search scaled to 10,000 queries. *Same* says that its nearest distances are ours, but for the
rounding of its floats; Euclidean distances are others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _results import add_out, keep

WORKER = Path(__file__).parent / "peers" / "_neighbours.py"
QUERIES = 10_000
CELLS = 1000

METHODS = (
    ("dpsynth:compiled", 50_000, QUERIES),
    ("dpsynth:plain", 50_000, QUERIES),
    ("faiss:gower", 50_000, QUERIES),
    ("faiss:l1", 50_000, 2000),
    ("faiss:l2", 50_000, QUERIES),
    ("sklearn:brute", 50_000, 500),
    ("sklearn:ball_tree", 50_000, 100),
    ("sklearn:kd_tree", 50_000, 100),
    ("sdmetrics:dcr", 50_000, 50),
    ("dpsynth:compiled", 1_000_000, QUERIES),
    ("dpsynth:plain", 1_000_000, QUERIES),
    ("faiss:gower", 1_000_000, 1000),
    ("faiss:l2", 1_000_000, 1000),
)


def grown(table: pd.DataFrame, rows: int, rng: np.random.Generator) -> Any:
    """Return coded rows, the number of codes of each column, and which are numbers."""
    codes, sizes, ordered = [], [], []
    for name in table:
        values = table[name]
        if pd.api.types.is_numeric_dtype(values):
            numbers = values.to_numpy(dtype=float)
            size = min(CELLS, int(numbers.max() - numbers.min()) + 1)
            code = (numbers - numbers.min()) / (numbers.max() - numbers.min()) * (size - 1)
            codes.append(np.rint(code))
        else:
            codes.append(pd.factorize(values, sort=True, use_na_sentinel=False)[0])
            size = int(codes[-1].max()) + 1
        sizes.append(size)
        ordered.append(pd.api.types.is_numeric_dtype(values))
    source = np.column_stack(codes).astype(np.int32)
    drawn = source[rng.integers(0, len(source), rows)]
    for _ in range(2):
        column, line = rng.integers(0, source.shape[1], rows), np.arange(rows)
        drawn[line, column] = source[rng.integers(0, len(source), rows), column]
    return drawn, sizes, ordered


def run(python: Path, method: str, table: Path, queries: int, out: Path) -> dict[str, float]:
    """Search in a process of its own."""
    words = [str(python), str(WORKER), method, str(table), str(queries), str(out)]
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, env={**os.environ, **one})
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run the benchmark, print its lines and write them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--environments", type=Path, required=True)
    add_out(options)
    chosen = options.parse_args()
    table = pd.read_csv(chosen.data / "adult/adult.csv.gz")
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        tables, ours = {}, {}
        for rows in sorted({rows for _, rows, _ in METHODS}):
            rng = np.random.default_rng(rows)
            reference, sizes, ordered = grown(table, rows, rng)
            tables[rows] = Path(folder) / f"{rows}.npz"
            queries = grown(table, QUERIES, rng)[0]
            facts = {"sizes": sizes, "ordered": ordered}
            np.savez(tables[rows], reference=reference, queries=queries, **facts)
        # Once, so that the compiled code is in numba's cache.
        out = Path(folder) / "found.npy"
        run(Path(sys.executable), "dpsynth:compiled", tables[50_000], 10, out)
        for method, rows, queries in METHODS:
            library = method.split(":")[0]
            python = Path(sys.executable)
            if library != "dpsynth":
                python = chosen.environments / library / "bin" / "python"
            cost = run(python, method, tables[rows], queries, out)
            found = np.load(out)
            ours.setdefault(rows, found)
            same = bool(np.abs(found - ours[rows][: len(found)]).max() < 1e-4)
            per = cost["build"] + cost["search"] * QUERIES / queries
            lines.append(
                {"method": method, "rows": rows, "queries": queries, "per_10k": per, "same": same}
                | cost
            )
            print(_row(lines[-1]), flush=True)
    keep(chosen.out, "neighbours", lines)


def _row(line: dict[str, Any]) -> str:
    return (
        f"{line['method']:20}{line['rows']:>9,} rows{line['queries']:>7,} queries  index"
        f"{line['build']:7.2f} s  search{line['search']:7.2f} s  per 10k{line['per_10k']:9.2f} s"
        f"{line['peak']:7.0f} MB  {'same' if line['same'] else 'others'}"
    )


if __name__ == "__main__":
    main()
