"""What each part of the clique tree contributes, and how it does on a hundred columns.

    python benchmarks/clique_tree.py --data FOLDER [--seeds 3]

FOLDER holds adult.csv.gz and adult-domain.json. Each line is a fit at epsilon 1, delta 1e-9 without
an audit share, with one parameter changed. The last line is a made table: 100 columns of 10 values,
50,000 rows, each column mostly a permutation of one earlier column and now and then of another.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from _measure import measured
from _results import add_out, keep
from adult_encoded import ORDINAL

import dpsynth as dp
from dpsynth.evaluation import pair_cliques, tvd
from dpsynth.synthesizer import Synthesizer

EPSILON, DELTA = 1.0, 1e-9
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "one pass": {"passes": 1},
    "three passes": {"passes": 3},
    "0.2 for the one-ways": {"one_way": 0.2},
    "0.6 for the one-ways": {"one_way": 0.6},
    "16 coarse codes": {"bins": 16},
    "64 coarse codes": {"bins": 64},
    "cliques of 2,000 cells": {"most_cells": 2_000},
    "cliques of 10,000 cells": {"most_cells": 10_000},
    "cliques of 75,000 cells": {"most_cells": 75_000},
}


def errors_of(method: Synthesizer, table: pd.DataFrame, schema: dp.Schema, seed: int) -> Any:
    """Return the mean distance over all pairs, CPU seconds and peak memory of one fit."""
    with tempfile.TemporaryDirectory() as folder:
        account = dp.Ledger(Path(folder) / "ledger.db").account("x", dp.Budget(EPSILON, DELTA))
        with measured() as cost:
            vault = dp.Vault(table, schema, account, unit=dp.Row(), audit_share=0.0)
            model = method.fit(vault, epsilon=EPSILON)
        drawn = model.sample(rng=np.random.default_rng(seed))
    return distance(table, drawn), cost.cpu, cost.peak


def distance(real: pd.DataFrame, drawn: pd.DataFrame) -> float:
    """Return the mean total variation distance over all pairs of integer-coded columns."""
    names = tuple(map(str, real.columns))
    sizes = {name: int(max(real[name].max(), drawn[name].max())) + 1 for name in names}
    left, right = (frame[list(names)].to_numpy(dtype=np.int32) for frame in (real, drawn))
    found = tvd(left, right, dp.domain.Domain.integers(sizes), pair_cliques(names))
    return statistics.mean(found.values())


def hundred(columns: int = 100, rows: int = 50_000, size: int = 10) -> pd.DataFrame:
    """Return a table of truly correlated columns."""
    rng = np.random.default_rng(0)
    made = [rng.integers(0, size, rows)]
    for place in range(1, columns):
        one, two = rng.integers(0, place, 2)
        coin, turned = rng.random(rows), rng.permutation(size)
        other = np.where(coin < 0.85, made[two], rng.integers(0, size, rows))
        made.append(np.where(coin < 0.7, turned[made[one]], other))
    return pd.DataFrame({f"c{place:03d}": codes for place, codes in enumerate(made)})


def main() -> None:
    """Run the benchmark, print its table and write its figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=3)
    add_out(options)
    chosen = options.parse_args()
    real = pd.read_csv(chosen.data / "adult.csv.gz")
    sizes = json.loads((chosen.data / "adult-domain.json").read_text())
    schema = dp.Schema(
        {
            name: dp.Integer(0, size - 1) if name in ORDINAL else dp.Categorical(tuple(range(size)))
            for name, size in sizes.items()
        }
    )
    lines: dict[str, dict[str, float]] = {}
    print(f"{'':28}{'2-way':>8}{'CPU s':>8}{'MB':>7}")

    def show(name: str, runs: list[tuple[float, float, float]]) -> None:
        error, cpu = (statistics.mean(run[i] for run in runs) for i in (0, 1))
        lines[name] = {"tvd2": error, "cpu": cpu, "peak": max(run[2] for run in runs)}
        print(f"{name:28}{error:8.4f}{cpu:8.1f}{lines[name]['peak']:7.0f}", flush=True)

    for name, changed in VARIANTS.items():
        method = dp.CliqueTree(**changed)
        show(name, [errors_of(method, real, schema, seed) for seed in range(chosen.seeds)])
    with mock.patch("dpsynth.marginal.model.exchanged", lambda codes, *_, **__: codes):
        runs = [errors_of(dp.CliqueTree(), real, schema, seed) for seed in range(chosen.seeds)]
    show("no exchanges between rows", runs)
    wide, rng = hundred(), np.random.default_rng(1)
    columns = dp.Schema({str(name): dp.Categorical(tuple(range(10))) for name in wide})
    for named in (dp.MST(), dp.CliqueTree()):
        show(f"100 columns, {named.name}", [errors_of(named, wide, columns, 0)])
    apart = pd.DataFrame({name: rng.permutation(wide[name].to_numpy()) for name in wide})
    again = wide.sample(len(wide), replace=True, random_state=1)
    for name, table in (("independence", apart), ("bootstrap", again)):
        show(f"100 columns, {name}", [(distance(wide, table), 0.0, 0.0)])
    keep(chosen.out, "clique_tree", lines)


if __name__ == "__main__":
    main()
