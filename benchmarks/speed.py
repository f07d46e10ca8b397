"""Inference alone, beside mbi: one measured set, to the same loss, each in a process of its own.

    sh benchmarks/peers/setup.sh ENVIRONMENTS
    python benchmarks/speed.py --data FOLDER --environments ENVIRONMENTS

The sets are what our mechanisms measured of Adult and ACS at epsilon 1. Ours takes as many steps as
the mechanism gives it; each estimator of mbi takes steps until its loss is at most a thousandth
above ours, or is stopped at ``--limit`` seconds: then its figure is a lower bound, marked ``>``.
*Fit* is CPU seconds without imports (with compilation, as every new set of cliques needs it);
*whole* is the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from _measure import measured
from _results import add_out, keep
from tables import TABLES

import dpsynth as dp
from dpsynth.marginal import estimate as inference
from dpsynth.synthesizer import named

SETS = (("adult", "mst"), ("adult", "clique-tree"), ("acs", "clique-tree"))
ESTIMATORS = ("MirrorDescent", "LBFGS", "UniversalAcceleratedMethod")
STEPS, ENOUGH = 200, 0.5  # of a clique tree's fit; a tree of pairs needs a few of Newton's
WORKER = Path(__file__).parent / "peers" / "_mbi_fit.py"


def measure(table: str, method: str, options: Any, path: Path) -> None:
    """Write the noisy marginals that a mechanism bases its last fit on."""
    coded = TABLES[table](options.data)
    schema = dp.Schema(
        {
            name: dp.Integer(0, size - 1)
            if name in coded.ordinal
            else dp.Categorical(tuple(range(size)))
            for name, size in coded.sizes.items()
        }
    )
    last: dict[str, Any] = {}

    def recorded(seen: Any, sizes: Any, **rest: Any) -> Any:
        last.update(seen=list(seen), sizes=dict(sizes), total=rest["total"])
        return inference.estimate(seen, sizes, **rest)

    module = {"mst": "mst", "clique-tree": "opening"}[method]
    with tempfile.TemporaryDirectory() as folder:
        account = dp.Ledger(Path(folder) / "ledger.db").account("x", dp.Budget(1, 1e-9))
        vault = dp.Vault(coded.rows, schema, account, unit=dp.Row(), audit_share=0.0)
        with mock.patch(f"dpsynth.marginal.{module}.estimate", recorded):
            named(method, {}).fit(vault, epsilon=1)
    # One standard deviation an observation is all that mbi takes.
    sigmas = [float(np.sqrt(one.variance.mean())) for one in last["seen"]]
    facts = {
        "sizes": last["sizes"],
        "total": last["total"],
        "cliques": [one.clique for one in last["seen"]],
        "sigmas": sigmas,
    }
    values = {f"values_{i}": one.values for i, one in enumerate(last["seen"])}
    np.savez(path, facts=json.dumps(facts), **values)


def ours(path: str) -> None:
    """Fit a measured set in this process and print what it took."""
    with np.load(path) as file:
        facts = json.loads(str(file["facts"]))
        parts = zip(facts["cliques"], facts["sigmas"], strict=True)
        seen = [
            inference.Observation(
                tuple(clique), file[f"values_{i}"], np.full(file[f"values_{i}"].shape, sigma**2)
            )
            for i, (clique, sigma) in enumerate(parts)
        ]
    with measured() as cost:
        fit = inference.estimate(
            seen, facts["sizes"], total=facts["total"], iterations=STEPS, enough=ENOUGH
        )
    used = resource.getrusage(resource.RUSAGE_SELF)
    line = {"loss": fit.loss, "steps": fit.iterations, "fit": cost.cpu, "peak": cost.peak}
    print(json.dumps(line | {"cpu": used.ru_utime + used.ru_stime}))


def _run(words: list[Any]) -> dict[str, float]:
    done = subprocess.run(
        [str(word) for word in words], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run the benchmark, print its lines and write them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path)
    options.add_argument("--environments", type=Path)
    options.add_argument("--limit", type=float, default=600.0, help="wall seconds of a peer's fit")
    add_out(options)
    options.add_argument("--take", help="one fit of ours, of this measured set")
    chosen = options.parse_args()
    if chosen.take:
        ours(chosen.take)
        return
    peer, lines = chosen.environments / "mbi" / "bin" / "python", []
    with tempfile.TemporaryDirectory() as folder:
        for table, method in SETS:
            path = Path(folder) / f"{table}.npz"
            measure(table, method, chosen, path)
            own = _run([sys.executable, __file__, "--take", path])
            lines.append({"set": f"{table} {method}", "by": "dpsynth", "ratio": 1.0, **own})
            print(_row(lines[-1]), flush=True)
            target = own["loss"] * 1.001
            for name in ESTIMATORS:
                found = _run([peer, WORKER, path, name, target, chosen.limit])
                facts = {"ended": found["loss"] <= target, "ratio": found["fit"] / own["fit"]}
                lines.append({"set": f"{table} {method}", "by": f"mbi {name}", **facts, **found})
                print(_row(lines[-1]), flush=True)
    keep(chosen.out, "speed", lines)


def _row(line: dict[str, Any]) -> str:
    mark = " " if line.get("ended", True) else ">"
    return (
        f"{line['set']:18}{line['by']:32}loss{line['loss']:12.1f}{line['steps']:7.0f} steps"
        f"  fit {mark}{line['fit']:8.2f} s{line['ratio']:8.1f}x  whole {line['cpu']:7.1f} s"
        f"{line['peak']:7.0f} MB"
    )


if __name__ == "__main__":
    main()
