"""What it takes to let a large table in: CPU time and peak memory, beside plain pandas.

    python benchmarks/intake.py [--rows 2000000] [--persons 400000] [--only csv parquet frame]

One table is made, the same in every run: 16 columns of mixed types, of which one names persons,
one holds a different real number in each row, and one a moment to the second. A vault on it, whose
persons keep at most five rows, answers every one-way marginal once: so the table is checked for
its form, read, bounded, coded and counted. Each line is taken in a fresh process; importing is left
out of its CPU time and within its peak memory. The frame is as pandas reads the CSV: its reading is
left out of the CPU time, and the frame itself is within the peak.

The plain peer reads the CSV with pandas, shuffles the rows and keeps the first five of each person:
no secret key, nothing checked, nothing coded, no account.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _measure import measured
from _results import add_out, keep

import dpsynth as dp

KINDS = ("csv", "parquet", "frame", "csv, rows as units", "pandas")
PERSONS = ("csv", "parquet", "frame")  # the lines that the goal is about
KEPT = 5
CPU_LIMIT, PEAK_LIMIT = 60.0, 3072.0  # seconds and MB that were set as the goal

STATES = tuple(f"state {i:02d}" for i in range(51))
JOBS = tuple(f"métier {i:03d}" for i in range(500))
SEXES = (0.5, 0.49, 0.01)
CODES = tuple(f"{chr(65 + i % 26)}{i:04d}" for i in range(2000))

SCHEMA = dp.Schema(
    {
        "person": dp.Key(),
        "age": dp.Integer(0, 110, missing=True),
        "sex": dp.Categorical(("F", "M", "X")),
        "state": dp.Categorical(STATES),
        "job": dp.Categorical(JOBS, missing=True),
        "code": dp.Categorical(CODES),
        "visits": dp.Integer(0, 60),
        "income": dp.Integer(0, 10**7, missing=True),
        "cost": dp.Real(0, 100_000, step=0.01),
        "weight": dp.Real(0, 10),
        "result": dp.Real(0, 40, step=0.1, missing=True),
        "score": dp.Real(-6, 6),
        "born": dp.Date(pd.Timestamp("1900-01-01").date(), pd.Timestamp("2025-12-31").date()),
        "seen": dp.Datetime(pd.Timestamp("2015-01-01"), pd.Timestamp("2025-12-31")),
        "smoker": dp.Boolean(missing=True),
        "urban": dp.Boolean(),
    }
)


def table(rows: int, persons: int) -> pd.DataFrame:
    """Return the table: every person has a row, and a few have very many."""
    rng = np.random.default_rng(0)
    busy = rng.pareto(1.5, persons)
    more = rng.choice(persons, rows - persons, p=busy / busy.sum())
    who = rng.permutation(np.r_[np.arange(persons), more])
    born = np.datetime64("1930-01-01") + rng.integers(0, 33_000, persons)[who]
    seen = np.datetime64("2015-01-01T00:00:00") + rng.integers(0, 10 * 365 * 86_400, rows)
    income = rng.lognormal(10.3, 0.8, rows).astype(np.int64)
    cost = np.where(rng.random(rows) < 0.4, 0.0, np.round(rng.lognormal(4, 1.5, rows), 2))

    def zipf(values: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.object_]]:
        weights = 1 / np.arange(1, len(values) + 1)
        return np.array(values, dtype=object)[
            rng.choice(len(values), rows, p=weights / weights.sum())
        ]

    def without(values: Any, share: float) -> pd.Series:
        return pd.Series(values).mask(pd.Series(rng.random(rows) < share))

    return pd.DataFrame(
        {
            "person": pd.Series(np.char.mod("P%07d", np.arange(persons))[who]),
            "age": without(pd.array(2025 - born.astype("M8[Y]").astype(int) - 1970), 0.02),
            "sex": np.array(["F", "M", "X"], dtype=object)[rng.choice(3, rows, p=SEXES)],
            "state": zipf(STATES),
            "job": without(zipf(JOBS), 0.1),
            "code": zipf(CODES),
            "visits": rng.poisson(3, rows),
            "income": without(pd.array(income), 0.15),
            "cost": cost,
            "weight": rng.gamma(4, 0.5, rows),
            "result": without(np.round(rng.normal(12, 4, rows), 1), 0.3),
            "score": np.round(rng.normal(0, 1, rows), 6),
            "born": pd.Series(born).dt.strftime("%Y-%m-%d"),
            "seen": pd.Series(seen).dt.strftime("%Y-%m-%dT%H:%M:%S"),
            "smoker": without(np.array(["no", "yes"], dtype=object)[rng.choice(2, rows)], 0.2),
            "urban": rng.random(rows) < 0.7,
        }
    )


def take(kind: str, folder: Path) -> dict[str, Any]:
    """Take one line in this process."""
    path = folder / ("table.parquet" if kind == "parquet" else "table.csv")
    if kind == "pandas":
        with measured() as cost:
            frame = pd.read_csv(path)
            kept = frame.sample(frac=1, random_state=0).groupby("person").head(KEPT)
        return {"cpu": cost.cpu, "peak": cost.peak, "rows_kept": len(kept)}
    source = pd.read_csv(path) if kind == "frame" else path
    account = dp.Ledger(folder / f"{kind}.db").account(kind, dp.Budget(1.0, 1e-6))
    unit: dp.Row | dp.Person = dp.Person("person", rows=KEPT)
    schema = SCHEMA
    if kind == "csv, rows as units":
        unit = dp.Row()
    with measured() as opened:
        vault = dp.Vault(source, schema, account, unit=unit)
    with measured() as cost:
        vault.measure([(name,) for name in schema.modelled], epsilon=1)
    return {"cpu": opened.cpu + cost.cpu, "vault": opened.cpu, "peak": cost.peak}


def main() -> None:
    """Run the benchmark, print its table and write its figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=2_000_000)
    options.add_argument("--persons", type=int, default=400_000)
    options.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    add_out(options)
    options.add_argument("--take", nargs=2, metavar=("KIND", "FOLDER"), help="one line")
    chosen = options.parse_args()
    if chosen.take:
        print(json.dumps(take(chosen.take[0], Path(chosen.take[1]))))
        return
    lines = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = table(chosen.rows, chosen.persons)
        made.to_csv(folder / "table.csv", index=False)
        made.to_parquet(folder / "table.parquet", index=False)
        sizes = {path.suffix[1:]: path.stat().st_size / 2**20 for path in folder.iterdir()}
        del made
        print(f"{chosen.rows:,} rows of {chosen.persons:,} persons, {sizes['csv']:.0f} MB of CSV")
        print(f"{'':22}{'CPU s':>8}{'peak MB':>9}")
        for kind in chosen.only:
            command = [sys.executable, __file__, "--take", kind, name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            lines[kind] = json.loads(done.stdout)
            over = "" if kind not in PERSONS or _within(lines[kind]) else "  OVER THE GOAL"
            print(f"{kind:22}{lines[kind]['cpu']:8.1f}{lines[kind]['peak']:9.0f}{over}", flush=True)
    result = {
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pandas": pd.__version__,
        },
        "rows": chosen.rows,
        "persons": chosen.persons,
        "megabytes": sizes,
        "goal": {"cpu": CPU_LIMIT, "peak": PEAK_LIMIT},
        "lines": lines,
    }
    keep(chosen.out, "intake", result)


def _within(line: dict[str, Any]) -> bool:
    return bool(line["cpu"] < CPU_LIMIT and line["peak"] < PEAK_LIMIT)


if __name__ == "__main__":
    main()
