"""Canary audits of correct mechanisms and of broken ones.

    python benchmarks/audits.py [--each 50] [--broken 5] [--method mst] [--jobs 2]
    python benchmarks/audits.py --method autoregressive --claims 1 --runs 2 --each 4 --broken 1

A table of 500 simulated rows in 8 columns, the audit's defaults. *Correct* is the mechanism as it
is; *little noise* draws discrete Gaussians of a twentieth of the standard deviation that was paid
for; *no noise* draws none; *no clipping*, of a mechanism that trains, clips gradients at a million.
Four claims with 50 audits each are 200 audits of correct mechanisms, of which chance should fail at
most one in a thousand. Lines of the same method, claim and noise are replaced in the results.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from _measure import measured
from _results import add_out, keep, kept

import dpsynth as dp
from dpsynth.attacks import canary_audit
from dpsynth.attacks.canaries import RUNS
from dpsynth.synthesizer import named
from dpsynth.vault import Train, _noise

CLAIMS = (0.5, 1.0, 3.0, 10.0)
DELTA = 1e-6
ROWS = 500
SCHEMA = dp.Schema(
    {
        **{name: dp.Categorical(tuple("abcdefghij")) for name in "uvwxyz"},
        "age": dp.Integer(0, 40),
        "flag": dp.Boolean(),
    }
)


@contextmanager
def noise(kind: str) -> Iterator[None]:
    """Break the sampler while the block lasts."""
    drawn = _noise.discrete_gaussian

    def none(_: Fraction, shape: tuple[int, ...], *rest: Any) -> Any:
        del rest
        return np.zeros(shape, dtype=np.int64)

    def little(sigma2: Fraction, *rest: Any) -> Any:
        return drawn(sigma2 / 400, *rest)

    broken = {"little noise": little, "no noise": none}.get(kind, drawn)
    with mock.patch.object(_noise, "discrete_gaussian", broken):
        if kind != "no clipping":
            yield
            return
        from dpsynth.vault._train import _loop

        summed = _loop.clipped_sum
        unclipped = partial(_without_clip, summed)
        with mock.patch.object(_loop, "clipped_sum", unclipped):
            yield


def _without_clip(summed: Any, *given: Any) -> Any:
    return summed(*given[:-1], 1e6)


def one(
    kind: str, epsilon: float, method: str, runs: int, seed: int
) -> tuple[dict[str, Any], float]:
    """Audit once; return the outcome and the CPU seconds."""
    with noise(kind), measured() as cost:
        found = canary_audit(
            named(method, {}),
            SCHEMA,
            epsilon=epsilon,
            delta=DELTA,
            unit=dp.Row(),
            surrogate=ROWS,
            runs=runs,
            rng=np.random.default_rng([7, seed]),
        )
    return found.to_json(), cost.cpu


def main() -> None:
    """Run the benchmark, print its lines and write them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--each", type=int, default=50, help="audits of the correct, each claim")
    options.add_argument("--broken", type=int, default=5, help="audits of each broken, each claim")
    options.add_argument("--method", default="mst")
    options.add_argument("--claims", type=float, nargs="+", default=CLAIMS)
    options.add_argument("--runs", type=int, default=RUNS, help="of each audit")
    options.add_argument("--jobs", type=int, default=2, help="processes")
    add_out(options)
    chosen = options.parse_args()
    lines = []
    kinds = ["no noise", "little noise", "correct"]
    if any(isinstance(step, Train) for step in named(chosen.method, {}).steps(SCHEMA.modelled)):
        kinds.insert(2, "no clipping")
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for kind in kinds:
            for epsilon in chosen.claims:
                count = chosen.each if kind == "correct" else chosen.broken
                if not count:
                    continue
                words = (kind, epsilon, chosen.method, chosen.runs)
                asked = [pool.submit(one, *words, i) for i in range(count)]
                audits, costs = zip(*(each.result() for each in asked), strict=True)
                bounds = [each["epsilon_at_least"] for each in audits]
                lines.append(
                    {
                        "method": chosen.method,
                        "noise": kind,
                        "epsilon": epsilon,
                        "runs": chosen.runs,
                        "audits": len(audits),
                        "failed": sum(each["failed"] for each in audits),
                        "least_p": min(each["p_value"] for each in audits),
                        "greatest_p": max(each["p_value"] for each in audits),
                        "epsilon_at_least": [min(bounds), float(np.median(bounds)), max(bounds)],
                        "area": float(np.mean([each["area"] for each in audits])),
                        "cpu_each": sum(costs) / len(costs),
                    }
                )
                print(_row(lines[-1]), flush=True)
                _replace(chosen.out, lines)


def _replace(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Write lines in the place of those of the same method, claim and noise."""

    def key(line: dict[str, Any]) -> tuple[object, ...]:
        return (line["method"], line["noise"], line["epsilon"])

    new = {key(line): line for line in lines}
    old = [new.pop(key(line), line) for line in kept(folder, "audits") or []]
    keep(folder, "audits", [*old, *new.values()])


def _row(line: dict[str, Any]) -> str:
    low, middle, high = line["epsilon_at_least"]
    return (
        f"{line['method']:12}{line['noise']:14}claim{line['epsilon']:5.1f}  failed"
        f"{line['failed']:4} of {line['audits']:3}  p {line['least_p']:.0e} to "
        f"{line['greatest_p']:.0e}"
        f"  epsilon at least {low:.2f}, {middle:.2f}, {high:.2f}  AUC {line['area']:.3f}"
        f"  {line['cpu_each']:.1f} s each"
    )


if __name__ == "__main__":
    main()
