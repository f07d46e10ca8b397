"""Noise, choices and bits beside diffprivlib and OpenDP, all in one run.

    pip install diffprivlib opendp
    python benchmarks/noise.py [--only gaussian laplace choice bits] [--peer-cells 2000]

Each figure is taken in a fresh process, in CPU time: *import* is that of the library, *first* that
of the first answer after it, tables made on the way, and *each* that of one sample in the best of
three answers after it. *MB* is what the answers added to the peak memory of the process. Our
samplers answer a vector of 10**6 cells; the peers would take minutes to hours, so their vectors are
shorter, and an answer that takes over 20 s is not repeated.
A tool marked * is not exact: it rounds floating-point numbers, or is not private at all. One that
is not installed says so.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from _results import add_out, keep

Facts = dict[str, Any]
Answer = Callable[[], object]
CELLS = 1_000_000
LIMIT = 600  # seconds of wall time for one figure
SLOW = 20  # seconds after which an answer is not repeated

ROWS: dict[str, list[Facts]] = {
    "gaussian": [{"scale": scale} for scale in (1, 50, 1_000, 20_000, 1_000_000)],
    "laplace": [{"scale": scale} for scale in (1, 50, 1_000, 1_000_000)],
    "choice": [{"candidates": 10, "gap": 5}, {"candidates": 10_000, "gap": 10**6}],
    "bits": [{}],
}
UNITS = {"gaussian": "cell", "laplace": "cell", "choice": "choice", "bits": "8 bytes"}
PEERS = ("diffprivlib", "opendp")
TOOLS = {
    "gaussian": ("ours", *PEERS, "numpy, rounded*"),
    "laplace": ("ours", *PEERS, "numpy, rounded*"),
    "choice": ("ours", *PEERS),
    "bits": ("ours", "os.urandom", "ChaCha20", "AES-256-CTR", "numpy PCG64*"),
}
IMPORTS = {"ours": "dpsynth", "diffprivlib": "diffprivlib.mechanisms", "opendp": "opendp.prelude"}
FLOATING = {("diffprivlib", "choice")}


# -- what each tool does ---------------------------------------------------------------------------


def ours(kind: str, row: Facts, cells: int) -> Answer:
    from dpsynth.vault import _noise
    from dpsynth.vault._stream import SYSTEM

    match kind:
        case "gaussian":
            return lambda: _noise.discrete_gaussian(Fraction(row["scale"]) ** 2, (cells,))
        case "laplace":
            return lambda: _noise.discrete_laplace(Fraction(row["scale"]), (cells,))
        case "choice":
            found = scores(row)
            return lambda: [_noise.exponential(found, Fraction(1), 1) for _ in range(cells)]
        case _:
            return lambda: SYSTEM.words(cells)


def diffprivlib(kind: str, row: Facts, cells: int) -> Answer:
    from diffprivlib import mechanisms

    if kind == "choice":
        choose = mechanisms.Exponential(epsilon=1.0, sensitivity=1.0, utility=scores(row).tolist())
        return lambda: [choose.randomise() for _ in range(cells)]
    if kind == "laplace":
        noise = mechanisms.Geometric(epsilon=1 / row["scale"])
    else:
        noise = mechanisms.GaussianDiscrete(epsilon=1.0, delta=1e-6)
        noise._scale = row["scale"]  # it takes no scale, and would search for one
    return lambda: [noise.randomise(0) for _ in range(cells)]


def opendp(kind: str, row: Facts, cells: int) -> Answer:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    if kind == "choice":
        over = dp.vector_domain(dp.atom_domain(T="i64")), dp.linf_distance(T="i64")
        choose = dp.m.make_noisy_max(*over, dp.max_divergence(), scale=2.0)
        found = scores(row).tolist()
        return lambda: [choose(found) for _ in range(cells)]
    space = dp.vector_domain(dp.atom_domain(T="i64"))
    if kind == "gaussian":
        noise = dp.m.make_gaussian(space, dp.l2_distance(T=float), scale=float(row["scale"]))
    else:
        noise = dp.m.make_laplace(space, dp.l1_distance(T="i64"), scale=float(row["scale"]))
    zeros = [0] * cells
    return lambda: noise(zeros)


def rounded(kind: str, row: Facts, cells: int) -> Answer:
    rng = np.random.default_rng()
    draw = rng.normal if kind == "gaussian" else rng.laplace
    return lambda: np.rint(draw(0.0, row["scale"], cells)).astype(np.int64)


def cipher(tool: str, cells: int) -> Answer:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    def chacha() -> Any:
        return Cipher(algorithms.ChaCha20(os.urandom(32), bytes(16)), None)

    def aes() -> Any:
        return Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16)))

    make, zeros, out = chacha if tool == "ChaCha20" else aes, bytes(1 << 16), bytearray(1 << 16)

    def fill() -> None:
        running = make().encryptor()
        for _ in range(8 * cells >> 16):
            running.update_into(zeros, out)

    return fill


def scores(row: Facts) -> Any:
    """Return scores of which one is above the others by the gap."""
    found = np.zeros(row["candidates"], dtype=np.int64)
    found[len(found) // 2] = row["gap"]
    return found


def answer(tool: str, kind: str, row: Facts, cells: int) -> Answer:
    match tool:
        case "ours":
            return ours(kind, row, cells)
        case "diffprivlib":
            return diffprivlib(kind, row, cells)
        case "opendp":
            return opendp(kind, row, cells)
        case "os.urandom":
            return lambda: os.urandom(8 * cells)
        case "ChaCha20" | "AES-256-CTR":
            return cipher(tool, cells)
        case "numpy PCG64*":
            return lambda: np.random.default_rng().bytes(8 * cells)
        case _:
            return rounded(kind, row, cells)


# -- one figure, in a process of its own -----------------------------------------------------------


def cells_of(tool: str, kind: str, peer_cells: int) -> int:
    """Return how many samples, choices or words one answer holds."""
    if kind == "choice":
        return 50
    return peer_cells if tool in PEERS else CELLS


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seconds(work: Answer) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def take(tool: str, kind: str, number: int, cells: int) -> None:
    """Print one figure as JSON. Runs in a fresh process."""
    warnings.simplefilter("ignore")
    try:
        imported = seconds(lambda: importlib.import_module(IMPORTS.get(tool, "numpy")))
    except ImportError:
        print(json.dumps({"note": "not installed"}))
        return
    work = answer(tool, kind, ROWS[kind][number], cells)
    before = peak()
    first = seconds(work)
    best = min(seconds(work) for _ in range(3)) if first < SLOW else first
    figure = {
        "cells": cells,
        "import_ms": imported * 1e3,
        "first_ms": first * 1e3,
        "each_ns": best / cells * 1e9,
        "added_mb": peak() - before,
    }
    print(json.dumps(figure))


def taken(tool: str, kind: str, number: int, cells: int) -> Facts:
    """Return one figure, taken in a fresh process."""
    command = [sys.executable, __file__, "--take", tool, kind, str(number), str(cells)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    except subprocess.TimeoutExpired:
        return {"note": f"more than {LIMIT} s"}
    except subprocess.CalledProcessError as error:
        return {"note": (error.stderr.strip().splitlines() or ["failed"])[-1][:60]}
    found: Facts = json.loads(done.stdout.splitlines()[-1])
    return found


# -- the table -------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("dpsynth", "numpy", "cryptography", *PEERS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def line(kind: str, number: int, peer_cells: int) -> Facts:
    """Return every tool's figure for one row, with ratios."""
    figures = {
        tool: taken(tool, kind, number, cells_of(tool, kind, peer_cells)) for tool in TOOLS[kind]
    }
    for facts in figures.values():
        if "each_ns" in facts and "each_ns" in figures["ours"]:
            facts["slower"] = facts["each_ns"] / figures["ours"]["each_ns"]
    return {"kind": kind, "row": ROWS[kind][number], "figures": figures}


def show(found: Facts) -> None:
    facts = ", ".join(f"{key}={value:,}" for key, value in found["row"].items())
    print(f"\n{found['kind']}: {facts}")
    heads = f"{'/ ours':>9}{'cells':>10}{'import ms':>11}{'first ms':>10}{'MB':>7}"
    print(f"  {'tool':18}{'ns a ' + UNITS[found['kind']]:>14}{heads}")
    for tool, figure in found["figures"].items():
        mark = "*" if (tool, found["kind"]) in FLOATING else ""
        if "note" in figure:
            print(f"  {tool + mark:18}  {figure['note']}")
            continue
        print(
            f"  {tool + mark:18}{figure['each_ns']:14,.1f}{figure.get('slower', 0):9.1f}"
            f"{figure['cells']:10,}{figure['import_ms']:11.0f}{figure['first_ms']:10.0f}"
            f"{figure['added_mb']:7.0f}",
            flush=True,
        )


def main() -> None:
    """Run the benchmark, print its table and write its figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    options.add_argument("--peer-cells", type=int, default=2_000)
    add_out(options)
    options.add_argument("--take", nargs=4, metavar=("TOOL", "KIND", "ROW", "CELLS"))
    chosen = options.parse_args()
    if chosen.take:
        tool, kind, number, cells = chosen.take
        take(tool, kind, int(number), int(cells))
        return
    lines = []
    for kind in chosen.only:
        for number in range(len(ROWS[kind])):
            lines.append(line(kind, number, chosen.peer_cells))
            show(lines[-1])
    result = {"versions": versions(), "lines": lines}
    keep(chosen.out, "noise", result)


if __name__ == "__main__":
    main()
