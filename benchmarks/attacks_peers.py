"""Which tools tell a leaking table from one that does not leak, in what time and memory.

    sh benchmarks/peers/setup.sh ENVIRONMENTS
    python benchmarks/attacks_peers.py --data FOLDER --environments ENVIRONMENTS

Adult in codes (14 columns; names as text, numbers as numbers): 12,000 rows of training, 12,000 of
holdout and 12,000 synthetic ones, by the recipes of ``dpsynth._leaky``. All tools read the same
files. Each part of a tool is a process of its own on one thread; CPU seconds include imports,
compilation and child processes, and the memory is the peak of its largest process. Ours is the
command ``dpsynth attack``, whose compiled kernels are in numba's cache from the second run on.

*What it means to separate* was laid down before these runs. Five tables are safe, each
from another division of the rows. One figure of a tool separates a leaking table if either

- *by its own word*: the tool decides by itself, and says "leak" of the leaking table and of none of
  the safe ones. Ours decides by its outcome ``fail``; a figure with an interval decides where its
  95 % interval lies above 0; or
- *by its distance*: on the side where leaks lie, the figure is outside the 95 % prediction interval
  of the five safe figures, which is 3.04 standard deviations from their mean (Student's t with 4
  degrees of freedom, times the square root of 6/5). Nobody has five safe tables in practice: this
  rule grants a tool without a test more than its user has.

A tool separates a table if any of its figures does, in every repeat; no correction is made for the
number of a peer's figures. Peers' parts are called with their defaults, or as their documentation
shows; what is sampled stands in ``dpsynth/attacks/_peer_calls.py``. A process that used ``--limit``
CPU seconds is stopped, and said not to finish. Runs that are in the file already are not repeated.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _results import add_out, keep, kept
from tables import TABLES

from dpsynth._leaky import LEAKS, Material
from dpsynth.attacks.disclosure import hardest
from dpsynth.domain import Domain

ROWS = 12_000
LEAKY = ("leak10", "near10", "outlier1", "cart5")
SAFE_REPEATS = 5
PREDICTED = 2.776 * (6 / 5) ** 0.5
OURS = ("dpsynth:all", "dpsynth:no-classifier")
PARTS = {
    "dpsynth": OURS,
    "anonymeter": (
        "anonymeter:singling out by one column",
        "anonymeter:singling out by four columns",
        "anonymeter:linkability",
        "anonymeter:inference",
    ),
    "sdmetrics": (
        "sdmetrics:NewRowSynthesis",
        "sdmetrics:DCROverfittingProtection",
        "sdmetrics:DCRBaselineProtection",
        "sdmetrics:DisclosureProtectionEstimate",
    ),
    "mostlyai": ("mostlyai:report",),
}
DISTRIBUTIONS = {"anonymeter": "anonymeter", "sdmetrics": "sdmetrics", "mostlyai": "mostlyai-qa"}
WORKER = Path(__file__).parent / "peers" / "_attack.py"


def triples(folder: Path, leak: str, repeat: int) -> tuple[Domain, list[Any]]:
    """Return a domain and the codes of training, holdout and synthetic rows."""
    table = TABLES["adult"](folder)
    domain = Domain.integers(table.sizes, table.ordinal)
    rng = np.random.default_rng([5, repeat])
    rows = rng.permutation(table.rows.to_numpy(np.int32))
    train, holdout, fresh = rows[:ROWS], rows[ROWS : 2 * ROWS], rows[2 * ROWS :]
    return domain, [train, holdout, LEAKS[leak](Material(domain, train, fresh), rng)]


def grown(folder: Path, rows: int) -> tuple[Domain, list[Any]]:
    """Return the same of so many rows each, drawn with replacement, with a fifteenth column."""
    table = TABLES["adult"](folder)
    rng = np.random.default_rng(2)
    drawn = table.rows.to_numpy(np.int32)[rng.integers(0, len(table.rows), 3 * rows)]
    drawn = np.column_stack([drawn, rng.integers(0, 12, len(drawn))]).astype(np.int32)
    domain = Domain.integers({**table.sizes, "month": 12}, table.ordinal)
    return domain, np.split(drawn, 3)


def write(folder: Path, domain: Domain, tables: list[Any]) -> None:
    """Write three tables, their facts and their schema, under names that no tool rewrites.

    The columns to guess are those that are hardest to guess in all rows together.
    """
    keys = {name: f"c{place:03}" for place, name in enumerate(domain.names)}
    numbers = [keys[name] for name in domain.names if domain.ordered(name)]
    schema = ["format_version = 1"]
    for name, key in keys.items():
        size = domain.size(name)
        if key in numbers:
            kind = f'type = "integer"\nlower = 0\nupper = {size - 1}'
        else:
            named = ", ".join(f'"v{code}"' for code in range(size))
            kind = f'type = "categorical"\ncategories = [{named}]'
        schema.append(f"[columns.{key}]\n{kind}")
    (folder / "schema.toml").write_text("\n\n".join(schema) + "\n")
    for name, codes in zip(("train", "holdout", "synthetic"), tables, strict=True):
        frame = pd.DataFrame(codes, columns=list(keys.values()))
        for key in set(keys.values()) - set(numbers):
            frame[key] = "v" + frame[key].astype(str)
        frame.to_csv(folder / f"{name}.csv", index=False)
    columns = list(keys.values())
    secrets = [columns[place] for place, _ in hardest(domain, np.concatenate(tables[:2]))]
    facts = {"columns": columns, "numbers": numbers, "secrets": secrets}
    (folder / "facts.json").write_text(json.dumps(facts))


def run(part: str, folder: Path, options: Any) -> dict[str, Any]:
    """Run a part of a tool in a process of its own; its figures and what it cost."""
    tool, name = part.split(":")
    out = folder / "out.json"
    out.unlink(missing_ok=True)
    if tool == "dpsynth":
        words = [sys.executable, "-m", "dpsynth", "attack", "--json", "--schema", "schema.toml"]
        words += ["--train", "train.csv", "--holdout", "holdout.csv"]
        words += ["--synthetic", "synthetic.csv"]
        words += ["--no-classifier"] if name == "no-classifier" else []
    else:
        python = options.environments / tool / "bin" / "python"
        words = [str(python.absolute()), str(WORKER.absolute()), part, ".", out.name]
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    one |= {"LOKY_MAX_CPU_COUNT": "1", "POLARS_MAX_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    before = time.monotonic()
    with (folder / "said").open("wb") as said, (folder / "faults").open("wb") as faults:
        process = subprocess.Popen(
            words,
            cwd=folder,
            stdout=said,
            stderr=faults,
            env={**os.environ, **one},
            start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_CPU, (options.limit, options.limit + 5)
            ),
        )
        used = _wait(process, before + options.wall)
    if used is None:
        return {"finished": False, "why": f"{options.wall} wall seconds"}
    cost = {
        "cpu": round(used.ru_utime + used.ru_stime, 2),
        "wall": round(time.monotonic() - before, 1),
        "peak": round(used.ru_maxrss / 1024),
    }
    if tool == "dpsynth":
        text = (folder / "said").read_text()
        if not text.startswith("{"):
            return {"finished": False, "why": "an error", **cost}
        return {"finished": True, "figures": [_ours(json.loads(text))], **cost}
    if not out.exists():
        late = cost["cpu"] >= options.limit
        last = (folder / "faults").read_text().strip().splitlines()
        error = last[-1].split(":")[0] if last else "an error"
        return {"finished": False, "why": f"{options.limit} CPU seconds" if late else error, **cost}
    return {"finished": True, "figures": json.loads(out.read_text()), **cost}


def _ours(found: dict[str, Any]) -> dict[str, Any]:
    failed = [e for e in found["exact"]["verdict"]["findings"] if e["outcome"] == "fail"]
    bound = found["exact"]["epsilon"]["points"][0]["bound"]
    return {
        "name": "verdict",
        "outcome": found["outcome"],
        "tests_that_fail": len(failed),
        "first": failed[0]["test"] if failed else None,
        "epsilon_at_least": round(bound, 3),
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


def separated(figure: str, safe: list[dict[str, Any]], leaky: dict[str, Any]) -> dict[str, bool]:
    """Return by which rule one figure separates a leaking table from the safe ones."""
    found = _figure(leaky, figure)
    others = [_figure(each, figure) for each in safe]
    if found is None or len(others) < SAFE_REPEATS or None in others:
        return {"word": False, "distance": False}
    word = _says(found) and not any(map(_says, others))
    if "value" not in found:
        return {"word": word, "distance": False}  # ours must say it itself
    values = [each["value"] for each in others]
    ahead = found["value"] - statistics.mean(values)
    if found["leak"] == "low":
        ahead = -ahead
    return {"word": word, "distance": ahead > max(PREDICTED * statistics.stdev(values), 0.0)}


def _says(figure: dict[str, Any]) -> bool:
    """Return whether a figure says "leak" by itself."""
    if "outcome" in figure:
        return figure["outcome"] == "fail"
    return figure["low"] is not None and figure["low"] > 0


def _figure(run: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((each for each in run.get("figures", []) if each["name"] == name), None)


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each part of a tool: cost, and for each table which figures separate it."""
    lines = []
    for part in dict.fromkeys(each["part"] for each in runs):
        mine = [each for each in runs if each["part"] == part and each["rows"] == ROWS]
        safe = [each for each in mine if each["table"] == "safe"]
        done = [each for each in mine if each["finished"]]
        if not mine:
            continue
        line: dict[str, Any] = {
            "part": part,
            "runs": len(mine),
            "finished": len(done),
            "safe_tables": sum(each["finished"] for each in safe),
            "cpu": round(statistics.mean(e["cpu"] for e in done), 2) if done else None,
            "peak": max((e["peak"] for e in done), default=None),
            "separates": {},
        }
        for table in LEAKY:
            leaky = [each for each in mine if each["table"] == table]
            names = {f["name"] for each in leaky for f in each.get("figures", [])}
            by = {}
            for name in sorted(names):
                rules = [separated(name, safe, each) for each in leaky]
                for rule in ("word", "distance"):
                    if all(each[rule] for each in rules):
                        by.setdefault(name, []).append(rule)
            line["separates"][table] = by
        lines.append(line)
    return lines


def wanted(options: Any) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the tables to make, and the parts to run on each: the first leaks before the rest."""
    parts = [part for tool in options.tools for part in PARTS[tool]]
    first = max(options.repeats, SAFE_REPEATS)
    for repeat in range(first):
        if repeat < SAFE_REPEATS:
            yield "safe", repeat, parts
        if repeat < options.repeats:
            for leak in LEAKY:
                yield leak, repeat, parts


def main() -> None:
    """Run the benchmark, print its lines and write them."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--data", type=Path, required=True, help="folder of the public tables")
    given.add_argument("--environments", type=Path, required=True)
    given.add_argument("--tools", nargs="+", choices=PARTS, default=list(PARTS))
    given.add_argument("--repeats", type=int, default=1, help="of each leaking table")
    given.add_argument("--limit", type=int, default=900, help="CPU seconds of a process")
    given.add_argument("--wall", type=int, default=3600, help="wall seconds of a process")
    add_out(given)
    options = given.parse_args()
    done = kept(options.out, "attacks_peers") or {}
    runs: list[dict[str, Any]] = done.get("runs", [])

    def one(table: str, repeat: int, rows: int, part: str, folder: Path) -> None:
        found = run(part, folder, options)
        runs.append({"part": part, "table": table, "repeat": repeat, "rows": rows, **found})
        print(json.dumps(runs[-1])[:300], flush=True)
        versions = {"dpsynth": importlib.metadata.version("dpsynth"), **done.get("versions", {})}
        versions |= {tool: _version(options, tool) for tool in options.tools if tool != "dpsynth"}
        facts = {"versions": versions, "summary": summary(runs), "runs": runs}
        keep(options.out, "attacks_peers", facts)

    def have(table: str, repeat: int, rows: int, part: str) -> bool:
        key = (table, repeat, rows, part)
        return any((e["table"], e["repeat"], e["rows"], e["part"]) == key for e in runs)

    for table, repeat, parts in wanted(options):
        left = [part for part in parts if not have(table, repeat, ROWS, part)]
        if left:
            with tempfile.TemporaryDirectory() as name:
                write(Path(name), *triples(options.data, table, repeat))
                for part in left:
                    one(table, repeat, ROWS, part, Path(name))
    if "dpsynth" in options.tools and not have("safe", 0, 50_000, OURS[0]):
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), *grown(options.data, 50_000))
            for part in OURS:
                one("safe", 0, 50_000, part, Path(name))
    for line in summary(runs):
        print(_row(line))


def _row(line: dict[str, Any]) -> str:
    cost = "did not finish" if line["cpu"] is None else f"{line['cpu']:7.1f} s{line['peak']:7} MB"
    seen = ", ".join(table for table, by in line["separates"].items() if by) or "none"
    return f"{line['part']:42}{cost}  separates {seen}"


def _version(options: Any, tool: str) -> str:
    python = options.environments / tool / "bin" / "python"
    ask = f"import importlib.metadata as m; print(m.version({DISTRIBUTIONS[tool]!r}))"
    return subprocess.run(
        [python, "-c", ask], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
