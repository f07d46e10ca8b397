"""Linear reconstruction from releases of correct mechanisms, of broken ones, and of copies.

    python benchmarks/reconstruction.py [--fits 16] [--epsilon 1 10]

A table of 500 simulated rows: three columns of ten codes and a flag, the secret, of 100 random rows
tossed anew in each fit. The broken noises are those of ``audits.py``. *full table* releases the
noisy counts of the full table, rounded and none below 0, so without noise a copy; *triple* those of
a marginal of two columns and the secret, with the third column drawn by itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _measure import measured
from _results import add_out, keep
from audits import DELTA, ROWS, noise
from numpy.typing import NDArray

import dpsynth as dp
from dpsynth.attacks import reconstruction_attack
from dpsynth.domain import Domain
from dpsynth.synthesizer import named
from dpsynth.vault import Block, Measure, Step

SCHEMA = dp.Schema(
    {**{name: dp.Categorical(tuple("abcdefghij")) for name in "uvw"}, "flag": dp.Boolean()}
)


@dataclass(frozen=True)
class Counted:
    """Rows as counted, with the columns that were not counted drawn by themselves."""

    domain: Domain
    names: tuple[str, ...]
    counts: NDArray[np.int64]

    @property
    def rows(self) -> float:
        """How many rows there are."""
        return float(self.counts.sum())

    def sample_codes(self, n: int, *, rng: np.random.Generator) -> dict[str, NDArray[np.int32]]:
        """Return all rows, whatever is asked."""
        del n
        cells = np.repeat(np.arange(self.counts.size), self.counts.ravel())
        axes = np.unravel_index(cells, self.counts.shape)
        codes = dict(zip(self.names, axes, strict=True))
        drawn = {
            name: codes[name]
            if name in codes
            else rng.integers(0, self.domain.size(name), len(cells))
            for name in self.domain.names
        }
        return {name: each.astype(np.int32) for name, each in drawn.items()}


@dataclass(frozen=True)
class Counter:
    """Measures one marginal and releases its rows."""

    name: str
    columns: tuple[str, ...]

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """One marginal."""
        del columns
        return (Measure(1, 1.0),)

    def run(self, block: Block) -> Any:
        """Measure it."""
        (found,) = block.measure([self.columns])
        return Counted(block.domain, self.columns, np.maximum(found.values, 0))

    def fit(self, vault: dp.Vault, *, epsilon: Any, delta: Any = None) -> Any:
        """Fit to a vault's rows."""
        return vault.fit(self, epsilon=epsilon, delta=delta)


METHODS = {
    "full table": Counter("full table", ("u", "v", "w", "flag")),
    "triple": Counter("triple", ("u", "v", "flag")),
    "mst": named("mst", {}),
    "clique-tree": named("clique-tree", {}),
}


def main() -> None:
    """Print a table of attacks and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=16)
    parser.add_argument("--epsilon", type=float, nargs="+", default=[1.0, 10.0])
    add_out(parser)
    given = parser.parse_args()
    lines = []
    for method, synthesizer in METHODS.items():
        for kind in ("no noise", "little noise", "correct"):
            for epsilon in given.epsilon:
                with noise(kind), measured() as cost:
                    found = reconstruction_attack(
                        synthesizer,
                        SCHEMA,
                        epsilon=epsilon,
                        delta=DELTA,
                        unit=dp.Row(),
                        surrogate=ROWS,
                        fits=given.fits,
                        rng=np.random.default_rng(7),
                    )
                line = {
                    "method": method,
                    "noise": kind,
                    "epsilon": epsilon,
                    "secrets": found.targets * found.fits,
                    "correct": found.correct,
                    "p_chance": found.p_chance,
                    "worst": found.worst.correct,
                    "worst_p_chance": found.worst.p_chance,
                    "fits": found.fits,
                    "p_value": found.p_value,
                    "epsilon_at_least": found.epsilon_at_least,
                    "failed": found.failed,
                    "cpu": cost.cpu,
                }
                lines.append(line)
                print(_row(line), flush=True)
    keep(given.out, "reconstruction", lines)


def _row(line: dict[str, Any]) -> str:
    return (
        f"| {line['method']} | {line['noise']} | {line['epsilon']:g} | "
        f"{line['correct']} of {line['secrets']} | {line['p_chance']:.0e} | "
        f"{line['worst']} of {line['fits']} | {line['p_value']:.0e} | "
        f"{line['epsilon_at_least']:.2f} | {'yes' if line['failed'] else 'no'} | "
        f"{line['cpu']:.1f} |"
    )


if __name__ == "__main__":
    main()
