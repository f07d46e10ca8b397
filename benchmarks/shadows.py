"""Shadow attacks on a correct mechanism and on two broken ones.

    python benchmarks/shadows.py [--method clique-tree] [--each 1] [--fits 128] [--epsilon 1 10]

The table and the broken noises are those of ``audits.py``: 500 simulated rows in 8 columns. Each
line is one attack on the 20 most isolated rows, with the figures that ``dpsynth attack --deep``
prints and the CPU seconds that it took.
"""

from __future__ import annotations

import argparse

import numpy as np
from _measure import measured
from audits import DELTA, ROWS, SCHEMA, noise

import dpsynth as dp
from dpsynth.attacks import shadow_attack
from dpsynth.synthesizer import named


def main() -> None:
    """Print a table of attacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="clique-tree")
    parser.add_argument("--each", type=int, default=1)
    parser.add_argument("--fits", type=int, default=128)
    parser.add_argument("--epsilon", type=float, nargs="+", default=[1.0, 10.0])
    given = parser.parse_args()
    print(
        "| noise | claim ε | AUC focal, mean | AUC queries, mean | worst, right of guesses | "
        "p | ε at least | failed | CPU s |"
    )
    for kind in ("no noise", "little noise", "correct"):
        for epsilon in given.epsilon:
            for seed in range(given.each):
                with noise(kind), measured() as cost:
                    found = shadow_attack(
                        named(given.method, {}),
                        SCHEMA,
                        epsilon=epsilon,
                        delta=DELTA,
                        unit=dp.Row(),
                        surrogate=ROWS,
                        fits=given.fits,
                        rng=np.random.default_rng(seed),
                    )
                means = " | ".join(f"{each.area:.2f}" for each in found.together)
                print(
                    f"| {kind} | {epsilon:g} | {means} | {found.worst.correct} of "
                    f"{found.worst.guesses} | {found.p_value:.1e} | {found.epsilon_at_least:.2f} | "
                    f"{'yes' if found.failed else 'no'} | {cost.cpu:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
