"""Error and cost of the mechanisms on integer-coded Adult, the field's common yardstick.

    python benchmarks/adult_encoded.py --data FOLDER [--yardstick FILE] [--seeds 5] [--nominal]

FOLDER holds adult.csv.gz and adult-domain.json (48,842 rows, 14 columns; from the private-pgm
repository). The error is the mean total variation distance over all pairs of columns, and over 200
fixed triples if the yardstick script with ``marginal_errors`` is given. Six columns are declared as
integers, as a schema would (none with ``--nominal``); delta is 1e-9 and epsilon goes wholly to the
fit. Beside it, the same with the default audit share of 0.2: the price of the audit.
"""

from __future__ import annotations

import argparse
import json
import runpy
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _measure import measured
from _results import add_out, keep

import dpsynth as dp
from dpsynth.evaluation import pair_cliques, tvd
from dpsynth.synthesizer import named

ORDINAL = {"age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week"}


def main() -> None:
    """Run the benchmark and print its table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--yardstick", type=Path)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--epsilons", type=float, nargs="+", default=[0.1, 1.0, 10.0])
    options.add_argument("--methods", nargs="+", default=["independent", "mst", "clique-tree"])
    options.add_argument("--nominal", action="store_true", help="declare no column as a number")
    add_out(options)
    chosen = options.parse_args()
    real = pd.read_csv(chosen.data / "adult.csv.gz")
    sizes = json.loads((chosen.data / "adult-domain.json").read_text())
    ordinal = set() if chosen.nominal else ORDINAL
    schema = dp.Schema(
        {
            name: dp.Integer(0, size - 1) if name in ordinal else dp.Categorical(tuple(range(size)))
            for name, size in sizes.items()
        }
    )
    lines = []
    print("method       epsilon  audit   2-way TVD (sd)     3-way     fit CPU s   peak MB")
    for method in chosen.methods:
        for epsilon in chosen.epsilons:
            for share in (0.0, 0.2):
                line = _line(chosen, real, sizes, schema, method, epsilon, share)
                lines.append(line)
                print(_row(line), flush=True)
    keep(chosen.out, "adult_nominal" if chosen.nominal else "adult_encoded", lines)


def _row(line: dict[str, Any]) -> str:
    triples = line["tvd3"] if line["tvd3"] is not None else float("nan")
    return (
        f"{line['method']:12} {line['epsilon']:7g} {line['audit_share']:6g}   "
        f"{line['tvd2']:.4f} ({line['tvd2_sd']:.4f})   {triples:.4f}   "
        f"{line['cpu']:9.2f}  {line['peak']:8.0f}"
    )


def _line(
    chosen: argparse.Namespace,
    real: pd.DataFrame,
    sizes: dict[str, int],
    schema: dp.Schema,
    method: str,
    epsilon: float,
    share: float,
) -> dict[str, Any]:
    found = []
    for seed in range(chosen.seeds):
        with tempfile.TemporaryDirectory() as folder:
            account = dp.Ledger(Path(folder) / "ledger.db").account(
                "adult", dp.Budget(epsilon, 1e-9)
            )
            with measured() as cost:
                vault = dp.Vault(real, schema, account, unit=dp.Row(), audit_share=share)
                model = named(method, {}).fit(vault, epsilon=epsilon)
            table = model.sample(rng=np.random.default_rng(seed))
        found.append((*_errors(chosen, real, table, sizes, model.domain), cost.cpu, cost.peak))
    two = [each[0] for each in found]
    return {
        "method": method,
        "epsilon": epsilon,
        "audit_share": share,
        "seeds": chosen.seeds,
        "tvd2": statistics.mean(two),
        "tvd2_sd": statistics.stdev(two) if len(two) > 1 else 0.0,
        "tvd3": statistics.mean(each[1] for each in found) if chosen.yardstick else None,
        "cpu": statistics.mean(each[2] for each in found),
        "peak": max(each[3] for each in found),
    }


def _errors(
    chosen: argparse.Namespace,
    real: pd.DataFrame,
    table: pd.DataFrame,
    sizes: dict[str, int],
    domain: object,
) -> tuple[float, float]:
    if chosen.yardstick:
        errors = runpy.run_path(str(chosen.yardstick))["marginal_errors"](real, table, sizes)
        return errors["tvd2"], errors["tvd3"]
    left, right = (frame[list(sizes)].to_numpy(dtype=np.int32) for frame in (real, table))
    coded = type(domain).integers(sizes)  # type: ignore[attr-defined]
    distances = tvd(left, right, coded, pair_cliques(tuple(sizes)))
    return statistics.mean(distances.values()), float("nan")


if __name__ == "__main__":
    main()
