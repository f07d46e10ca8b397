"""The neural generators beside the flagship marginal mechanism and a peer, at the same delta.

    sh benchmarks/peers/setup.sh ENVIRONMENTS
    python benchmarks/neural.py --data FOLDER [--environments ENVIRONMENTS] [--seeds 3]

FOLDER holds adult.csv.gz and adult-domain.json. 80 % of the rows are fitted; error is the mean
total variation distance against them over single columns and pairs. The AUC is that of gradient
boosting fitted to as many made rows and tried on the other 20 %, on the income. Delta is 1e-5.

With environments, DP-CTGAN of smartnoise-synth is run as well, in its own; its CPU seconds include
imports. It gets every column as a category, since the codes have no other meaning to it. Lines of
methods that are not run again stay in the results.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _downstream import ABOUT, auc, made_for
from _measure import measured
from _results import add_out, keep, kept
from adult_encoded import ORDINAL
from tables import Coded
from utility import distance, table

import dpsynth as dp

DELTA = 1e-5
TARGET = "income>50K"
MARGINAL = ["clique-tree", f"clique-tree{ABOUT}"]
METHODS = ["autoregressive", "vae", "gan", "conditional-gan", "merf", *MARGINAL]
PEER = "snsynth:dpctgan"


def fitted(
    method: str, epsilon: float, train: pd.DataFrame, seed: int, of: Any
) -> tuple[pd.DataFrame, float, float]:
    """Return a made table of one of our methods, its CPU seconds and its peak of memory."""
    sizes, schema, _ = of
    with tempfile.TemporaryDirectory() as folder:
        account = dp.Ledger(Path(folder) / "ledger.db").account("x", dp.Budget(epsilon, DELTA))
        vault = dp.Vault(train, schema, account, unit=dp.Row(), audit_share=0.0)
        with measured() as cost:
            model = made_for(method, TARGET).fit(vault, epsilon=epsilon)
    made = model.sample(len(train), rng=np.random.default_rng(seed))[list(sizes)].astype(int)
    return made, cost.cpu, cost.peak


def line(
    method: str, epsilon: float, train: pd.DataFrame, test: pd.DataFrame, of: Any
) -> dict[str, Any]:
    """Return the means over the seeds of one mechanism at one epsilon."""
    sizes, _, chosen = of
    runs = []
    for seed in range(chosen.seeds):
        if ":" in method:
            coded = Coded(train, sizes, frozenset(ORDINAL))
            made, cost = table(method, coded, (epsilon, DELTA), seed, chosen)
            if made is None:
                return {"method": method, "epsilon": epsilon, "finished": False}
            cpu, peak = cost["cpu"], cost["peak"]
        else:
            made, cpu, peak = fitted(method, epsilon, train, seed, of)
        runs.append(
            {
                "tvd1": distance(train, made, sizes, 1),
                "tvd2": distance(train, made, sizes, 2),
                "auc": auc(made, test, TARGET),
                "cpu": cpu,
                "peak": peak,
            }
        )
    means = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
    spread = statistics.stdev(run["auc"] for run in runs) if len(runs) > 1 else 0.0
    return {"method": method, "epsilon": epsilon, "seeds": len(runs), "auc_sd": spread, **means}


def main() -> None:
    """Run the benchmark, print its lines and write them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 10.0])
    options.add_argument("--methods", nargs="*", default=METHODS)
    options.add_argument("--environments", type=Path)
    options.add_argument("--limit", type=float, default=3600.0, help="wall seconds of a peer's fit")
    add_out(options)
    chosen = options.parse_args()
    sizes = json.loads((chosen.data / "adult-domain.json").read_text())
    whole = pd.read_csv(chosen.data / "adult.csv.gz")[list(sizes)]
    order = np.random.default_rng(0).permutation(len(whole))
    cut = int(0.8 * len(whole))
    train, test = (whole.iloc[part].reset_index(drop=True) for part in np.split(order, [cut]))
    schema = dp.Schema(
        {
            name: dp.Integer(0, size - 1) if name in ORDINAL else dp.Categorical(tuple(range(size)))
            for name, size in sizes.items()
        }
    )
    old = kept(chosen.out, "neural") or []
    lines = {(each["method"], each.get("epsilon")): each for each in old}
    lines["real rows", None] = {"method": "real rows", "auc": auc(train, test, TARGET)}
    print(f"real rows: AUC {lines['real rows', None]['auc']:.4f}")
    print(f"{'method':32} epsilon    1-way    2-way      AUC (sd)   fit CPU s   peak MB")
    methods = [*chosen.methods, *([PEER] if chosen.environments else [])]
    for method, epsilon in itertools.product(methods, chosen.epsilons):
        found = line(method, epsilon, train, test, (sizes, schema, chosen))
        lines[method, epsilon] = found
        if not found.get("finished", True):
            print(f"{method:32}{epsilon:8g}  not finished", flush=True)
            continue
        print(
            f"{method:32}{epsilon:8g}{found['tvd1']:9.4f}{found['tvd2']:9.4f}"
            f"{found['auc']:9.4f} ({found['auc_sd']:.4f}){found['cpu']:8.1f}{found['peak']:10.0f}",
            flush=True,
        )
        keep(chosen.out, "neural", list(lines.values()))


if __name__ == "__main__":
    main()
