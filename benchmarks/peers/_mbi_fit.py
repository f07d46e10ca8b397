"""One fit of one measured set by an estimator of mbi, inside mbi's own environment.

    python _mbi_fit.py SET.npz ESTIMATOR TARGET LIMIT

Steps are taken, mbi's 50 at a time, until the loss is at most TARGET or LIMIT seconds are over.
Prints a JSON line: the loss reached, the steps, and CPU seconds of the fit with its compilation but
without imports, and of the whole process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings


def cpu() -> float:
    """Return the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Read the words of the command line, fit, and print."""
    warnings.simplefilter("ignore")
    import jax

    jax.config.update("jax_enable_x64", True)  # in 32 bits the target may be out of reach
    import mbi
    import numpy as np
    from mbi import estimation, marginal_loss

    path, name, target, limit = sys.argv[1:]
    with np.load(path) as file:
        facts = json.loads(str(file["facts"]))
        seen = [
            mbi.LinearMeasurement(file[f"values_{i}"].ravel(), tuple(clique), float(sigma))
            for i, (clique, sigma) in enumerate(zip(facts["cliques"], facts["sigmas"], strict=True))
        ]
    before, until = cpu(), time.monotonic() + float(limit)
    domain = mbi.Domain(tuple(facts["sizes"]), tuple(facts["sizes"].values()))
    loss = marginal_loss.from_linear_measurements(seen, domain)
    estimator = getattr(estimation, name)()
    state = estimator._init(domain, loss, facts["total"])
    state = jax.tree.map(jax.numpy.copy, state)  # as mbi's own loop does
    steps, reached = 0, float("inf")
    while reached > float(target) and time.monotonic() < until:
        state = estimator._multi_step(state, loss, facts["total"], ())
        reached = float(loss(estimator._callback_value(state, facts["total"])))
        steps += estimation.CALLBACK_EVERY
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"loss": reached, "steps": steps, "fit": cpu() - before, "cpu": cpu(), "peak": peak}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
