"""Tables where marginals should struggle: many columns, and interactions of many columns at once.

    python benchmarks/hard.py --data FOLDER [--tables caravan threshold parity] [--seeds 3]

``caravan`` (5,822 rows, 86 columns, of FOLDER as ``tables.py`` reads it) is to predict who bought;
``threshold`` and ``parity`` are made: 30,000 rows, 20 columns, whose last is a noisy function of
twelve columns, or the noisy parity of three. 80 % of the rows are fitted. The AUC is that of
gradient boosting fitted to as many made rows and tried on the other 20 %; pairs are the mean total
variation distance against the rows that were fitted. Delta is 1e-5. Every fit is a process of its
own, so peak memory is its own. Lines of other tables, methods and epsilons in the result stay.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _downstream import ABOUT, auc, made_for
from _measure import measured
from _results import add_out, keep, kept
from tables import TABLES, Coded
from utility import distance

import dpsynth as dp

DELTA = 1e-5
METHODS = ("clique-tree", f"clique-tree{ABOUT}", "mst", "autoregressive", "vae", "merf")
ROWS, COLUMNS = 30_000, 20
TARGETS = {"caravan": "Purchase", "threshold": "target", "parity": "target"}


def threshold() -> Coded:
    """Return columns of 4 codes that share a weak cause, and whether a sum of twelve is high."""
    rng = np.random.default_rng(0)
    columns = _columns(rng, 4)
    signs = rng.choice([-1.0, 1.0], 12)
    score = (columns[:, :12] - 1.5) @ signs
    score = (score - score.mean()) / score.std()
    chance = 1 / (1 + np.exp(-4 * score))
    return _coded(columns, rng.random(ROWS) < chance, 4)


def parity() -> Coded:
    """Return columns of 2 codes that share a weak cause, and the parity of three, 5 % wrong."""
    rng = np.random.default_rng(0)
    columns = _columns(rng, 2)
    odd = columns[:, [2, 7, 11]].sum(1) % 2 == 1
    return _coded(columns, odd ^ (rng.random(ROWS) < 0.05), 2)


def _columns(rng: np.random.Generator, size: int) -> np.ndarray[Any, Any]:
    cause = rng.normal(0, 1, (ROWS, 1))
    values = 0.5 * cause + rng.normal(0, 1, (ROWS, COLUMNS - 1))
    edges = np.quantile(values, np.arange(1, size) / size)
    return np.searchsorted(edges, values).astype(np.int64)


def _coded(columns: np.ndarray[Any, Any], target: np.ndarray[Any, Any], size: int) -> Coded:
    rows = pd.DataFrame(columns, columns=[f"c{i}" for i in range(COLUMNS - 1)])
    rows["target"] = target.astype(np.int64)
    sizes = dict.fromkeys(rows, size) | {"target": 2}
    return Coded(rows, sizes, frozenset(name for name in sizes if sizes[name] > 2))


def table(name: str, data: Path) -> Coded:
    """Return a table in codes."""
    made = {"threshold": threshold, "parity": parity}
    return made[name]() if name in made else TABLES[name](data)


def halves(coded: Coded) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows to fit, 80 %, and those to try."""
    order = np.random.default_rng(0).permutation(len(coded.rows))
    cut = int(0.8 * len(order))
    one, other = (coded.rows.iloc[part].reset_index(drop=True) for part in np.split(order, [cut]))
    return one, other


def fit(name: str, method: str, epsilon: float, seed: int, data: Path) -> dict[str, float]:
    """Return error, AUC and cost of one fit."""
    coded = table(name, data)
    train, test = halves(coded)
    schema = dp.Schema(
        {
            column: dp.Integer(0, size - 1)
            if column in coded.ordinal
            else dp.Categorical(tuple(range(size)))
            for column, size in coded.sizes.items()
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        account = dp.Ledger(Path(folder) / "ledger.db").account("x", dp.Budget(epsilon, DELTA))
        vault = dp.Vault(train, schema, account, unit=dp.Row(), audit_share=0.0)
        with measured() as cost:
            model = made_for(method, TARGETS[name]).fit(vault, epsilon=epsilon)
    made = model.sample(len(train), rng=np.random.default_rng(seed))[list(coded.sizes)].astype(int)
    return {
        "tvd2": distance(train, made, coded.sizes, 2),
        "auc": auc(made, test, TARGETS[name]),
        "cpu": cost.cpu,
        "peak": cost.peak,
    }


def line(name: str, method: str, epsilon: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return the means over the seeds of one mechanism at one epsilon."""
    runs = []
    for seed in range(options.seeds):
        words = ["--one", name, method, str(epsilon), str(seed), "--data", str(options.data)]
        done = subprocess.run(
            [sys.executable, __file__, *words], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    means = {key: statistics.mean(run[key] for run in runs) for key in ("tvd2", "auc", "cpu")}
    spread = statistics.stdev(run["auc"] for run in runs) if len(runs) > 1 else 0.0
    peak = max(run["peak"] for run in runs)
    start = {"table": name, "method": method, "epsilon": epsilon, "seeds": len(runs)}
    return {**start, "auc_sd": spread, "peak": peak, **means}


def main() -> None:
    """Run the benchmark, print its lines and write them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--tables", nargs="+", choices=TARGETS, default=list(TARGETS))
    options.add_argument("--methods", nargs="+", default=list(METHODS))
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--one", nargs=4, help="one fit: table, method, epsilon, seed")
    add_out(options)
    chosen = options.parse_args()
    if chosen.one:
        name, method, epsilon, seed = chosen.one
        print(json.dumps(fit(name, method, float(epsilon), int(seed), chosen.data)))
        return
    lines = {_key(each): each for each in kept(chosen.out, "hard") or []}
    print(f"{'table':10} {'method':32} epsilon   2-way      AUC (sd)    fit CPU s   peak MB")
    for name in chosen.tables:
        train, test = halves(table(name, chosen.data))
        real = {"table": name, "method": "real rows", "auc": auc(train, test, TARGETS[name])}
        lines[_key(real)] = real
        print(f"{name:10} real rows: AUC {real['auc']:.4f}", flush=True)
        for method, epsilon in itertools.product(chosen.methods, chosen.epsilons):
            found = line(name, method, epsilon, chosen)
            lines[_key(found)] = found
            print(
                f"{name:10} {method:32}{epsilon:8g}{found['tvd2']:9.4f}{found['auc']:9.4f} "
                f"({found['auc_sd']:.4f}){found['cpu']:9.1f}{found['peak']:10.0f}",
                flush=True,
            )
            keep(chosen.out, "hard", list(lines.values()))


def _key(each: dict[str, Any]) -> tuple[str, str, float]:
    return each["table"], each["method"], each.get("epsilon", 0.0)


if __name__ == "__main__":
    main()
