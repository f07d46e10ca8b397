"""Error, time and memory beside the peers: same tables, same epsilon and delta, one run.

    sh benchmarks/peers/setup.sh ENVIRONMENTS
    python benchmarks/utility.py --data FOLDER --environments ENVIRONMENTS [--seeds 5]

FOLDER holds the tables of ``tables.py``. Every fit is a process of its own, in its library's own
environment, and the methods take turns within each seed, so that a busy machine is busy for all.
The error is the mean total variation distance over all pairs of columns and 200 fixed triples; CPU
seconds include imports, compilation and child processes. A fit beyond ``--limit`` seconds is
stopped and said to be so. Peers see no order of codes, since they cannot use it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _results import add_out, keep, kept
from tables import TABLES, Coded

DELTA = 1e-9
METHODS = ("dpsynth:default", "dpsynth:mst", "dpmm:mst", "dpmm:privbayes", "snsynth:mst")
"""The peers' AIM can be named too: ``dpmm:aim``, ``snsynth:aim``."""
TRIPLES = 200
ADAPTER = Path(__file__).parent / "peers" / "_adapter.py"


def distance(real: pd.DataFrame, made: pd.DataFrame, sizes: dict[str, int], width: int) -> float:
    """Return the mean total variation distance over all pairs, or fixed triples, of columns."""
    cliques = list(itertools.combinations(sizes, width))
    if width > 2 and len(cliques) > TRIPLES:
        chosen = np.random.default_rng(0).choice(len(cliques), TRIPLES, replace=False)
        cliques = [cliques[i] for i in chosen]
    found = []
    for clique in cliques:
        shape = [sizes[name] for name in clique]
        tables = [
            np.ravel_multi_index([frame[name].to_numpy(dtype=np.int64) for name in clique], shape)
            for frame in (real, made)
        ]
        counts = np.unique(np.concatenate(tables), return_inverse=True)[1]
        ends = len(real), len(made)
        parts = counts[: ends[0]], counts[ends[0] :]
        cells = counts.max() + 1
        shares = [np.bincount(p, minlength=cells) / n for p, n in zip(parts, ends, strict=True)]
        found.append(0.5 * float(np.abs(shares[0] - shares[1]).sum()))
    return statistics.mean(found)


def fit(method: str, coded: Coded, epsilon: float, seed: int, options: Any) -> dict[str, float]:
    """Return the errors, CPU seconds and peak memory of one fit, or nothing if it did not end."""
    made, cost = table(method, coded, (epsilon, DELTA), seed, options)
    if made is None:
        return {}
    return {
        "tvd2": distance(coded.rows, made, coded.sizes, 2),
        "tvd3": distance(coded.rows, made, coded.sizes, 3),
        **cost,
    }


def table(
    method: str, coded: Coded, budget: tuple[float, float], seed: int, options: Any
) -> tuple[pd.DataFrame | None, dict[str, float]]:
    """Return a made table, or None if the fit did not end, and what it cost."""
    library = method.split(":")[0]
    own = Path(sys.executable) if library == "dpsynth" else None
    python = own or options.environments / library / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        source, domain, out = (Path(folder) / name for name in ("in.csv", "domain.json", "out.csv"))
        coded.rows.to_csv(source, index=False)
        domain.write_text(json.dumps({"sizes": coded.sizes, "ordinal": sorted(coded.ordinal)}))
        words = [method, source, domain, *budget, seed, out]
        before = time.monotonic()
        process = subprocess.Popen(
            [python, ADAPTER, *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        used = _wait(process, before + options.limit)
        if used is None or not out.exists():
            return None, {}
        made = pd.read_csv(out)[list(coded.sizes)]
    return made, {
        "cpu": used.ru_utime + used.ru_stime,
        "wall": time.monotonic() - before,
        "peak": used.ru_maxrss / 1024,
    }


def _wait(process: subprocess.Popen[bytes], until: float) -> resource.struct_rusage | None:
    while time.monotonic() < until:
        done, _, used = os.wait4(process.pid, os.WNOHANG)
        if done:
            process.returncode = 0
            return used
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return None


def main() -> None:
    """Run the benchmark, print its lines and write them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--environments", type=Path, required=True)
    options.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    options.add_argument("--methods", nargs="+", default=list(METHODS))
    options.add_argument("--epsilons", type=float, nargs="+", default=[1.0])
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--limit", type=float, default=600.0, help="wall seconds of a fit")
    add_out(options)
    chosen = options.parse_args()
    lines = {_key(line): line for line in kept(chosen.out, "utility") or []}
    heads = f"{'2-way (sd)':>18}{'3-way':>8}{'CPU s':>8}{'MB':>7}"
    print(f"{'table':9}{'epsilon':>8} {'method':16}{heads}")
    for table, epsilon in itertools.product(chosen.tables, chosen.epsilons):
        coded = TABLES[table](chosen.data)
        runs: dict[str, list[dict[str, float]]] = {method: [] for method in chosen.methods}
        for seed in range(chosen.seeds):
            for method, found in runs.items():
                if all(found):  # one that did not end once is not tried again
                    found.append(fit(method, coded, epsilon, seed, chosen))
        for method, found in runs.items():
            line = {"table": table, "epsilon": epsilon, "method": method, **_summary(found)}
            lines[_key(line)] = line  # those of other tables and methods stay
            print(_row(line), flush=True)
        keep(chosen.out, "utility", list(lines.values()))


def _key(line: dict[str, Any]) -> tuple[str, float, str]:
    return line["table"], line["epsilon"], line["method"]


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    if not all(runs):
        return {"finished": False}
    means = {key: statistics.mean(run[key] for run in runs) for key in ("tvd2", "tvd3", "cpu")}
    spread = statistics.stdev(run["tvd2"] for run in runs) if len(runs) > 1 else 0.0
    peak = max(run["peak"] for run in runs)
    return {"finished": True, "seeds": len(runs), "tvd2_sd": spread, "peak": peak, **means}


def _row(line: dict[str, Any]) -> str:
    start = f"{line['table']:9}{line['epsilon']:8g} {line['method']:16}"
    if not line["finished"]:
        return start + "  did not finish"
    return (
        f"{start}{line['tvd2']:9.4f} ({line['tvd2_sd']:.4f}){line['tvd3']:8.4f}"
        f"{line['cpu']:8.1f}{line['peak']:7.0f}"
    )


if __name__ == "__main__":
    main()
