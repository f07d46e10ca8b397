"""Prices and their cost beside dp-accounting, Opacus and prv-accountant, all in one run.

    python benchmarks/accounting.py [--only dpsgd calibrate mixed plan]

Each figure is taken in a fresh process, in CPU time. *Import* is that of the library, *cold* that
of the first answer after it, *warm* that of a second answer to a problem whose noise is 1 %
greater, so that no library is credited for a result it has remembered. *Above* is the distance to
the tightest certified upper bound of the row; a tool marked * gives a figure that is no such bound
there. A tool that is not installed says so; one that cannot express a row is left out of it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from _results import add_out, keep

Facts = dict[str, Any]
STEPS = 10_000
LIMIT = 900  # seconds of wall time for one figure

# -- the rows --------------------------------------------------------------------------------------

DPSGD = [
    {"q": 0.01, "sigma": 1.0, "delta": 1e-5},
    {"q": 0.01, "sigma": 4.0, "delta": 1e-5},
    {"q": 0.001, "sigma": 0.7, "delta": 1e-6},
    {"q": 256 / 60_000, "sigma": 1.1, "delta": 1e-5},
    {"q": 0.05, "sigma": 3.0, "delta": 1e-9},
]
CALIBRATE = [
    {"q": 0.01, "epsilon": 1.0, "delta": 1e-5},
    {"q": 0.01, "epsilon": 3.0, "delta": 1e-5},
]
MIXED = [{"choices": 0, "delta": 1e-6}, {"choices": 20, "delta": 1e-6}]
PLAN = [
    {"epsilon": 1.0, "delta": 1e-9},
    {"epsilon": 1.0, "delta": 1e-5},
    {"epsilon": 3.0, "delta": 1e-9},
]
ROWS = {"dpsgd": DPSGD, "calibrate": CALIBRATE, "mixed": MIXED, "plan": PLAN}
UNITS = {"dpsgd": "epsilon", "calibrate": "sigma", "mixed": "epsilon", "plan": "sigma"}
SELECTIONS, MEASUREMENTS, SHARE = 16, 16, 0.1

TOOLS = {
    "ours": "dpsynth",
    "dp-accounting": "dp-accounting",
    "dp-accounting h=1e-3": "dp-accounting",
    "Opacus PRV": "opacus",
    "Opacus RDP": "opacus",
    "prv-accountant": "prv-accountant",
    "zCDP (CKS)": "numpy",
    "ours, choices scaled too": "dpsynth",
    "ours, all Gaussian": "dpsynth",
}
IMPORTS = {
    "dpsynth": "dpsynth_accounting",
    "dp-accounting": "dp_accounting",
    "opacus": "opacus.accountants",
    "prv-accountant": "prv_accountant",
    "numpy": "numpy",
}
DOES = {
    "dpsgd": tuple(TOOLS)[:6],
    "calibrate": tuple(TOOLS)[:6],
    "mixed": ("ours", "dp-accounting", "dp-accounting h=1e-3", "prv-accountant"),
    "plan": (
        "ours",
        "ours, choices scaled too",
        "ours, all Gaussian",
        "dp-accounting",
        "zCDP (CKS)",
    ),
}


def mixed_parts(row: Facts, scale: float) -> dict[str, list[tuple[float, ...]]]:
    """Return 100 events: noises all different, so that nothing merges."""
    rest = 100 - row["choices"]
    laplaces, phases = 30, 10
    return {
        "gaussian": [(scale * (20 + i / 4),) for i in range(rest - laplaces - phases)],
        "laplace": [(scale * (30 + i),) for i in range(laplaces)],
        "dpsgd": [(0.005 + i / 2000, scale * (1 + i / 10), 100) for i in range(phases)],
        "choice": [((0.05 + i / 1000) / scale,) for i in range(row["choices"])],
    }


# -- ours ------------------------------------------------------------------------------------------


def ours(kind: str, row: Facts, scale: float, variant: str = "ours") -> Facts:
    import dpsynth_accounting as acc

    def exactly(value: float) -> Fraction:
        return Fraction(str(value))

    if kind == "dpsgd":
        event: Any = acc.SubsampledGaussian(exactly(row["q"]), exactly(row["sigma"] * scale), STEPS)
        return {"value": acc.curve(event).epsilon(row["delta"])}
    if kind == "calibrate":
        rate = exactly(row["q"])
        found = acc.least_noise(
            lambda s: acc.SubsampledGaussian(rate, s, STEPS), row["epsilon"] * scale, row["delta"]
        )
        return {"value": float(found)}
    if kind == "mixed":
        parts = mixed_parts(row, scale)
        event = acc.Sequence(
            (
                *(acc.Gaussian(exactly(s)) for (s,) in parts["gaussian"]),
                *(acc.Laplace(exactly(b)) for (b,) in parts["laplace"]),
                *(
                    acc.SubsampledGaussian(exactly(q), exactly(s), int(t))
                    for q, s, t in parts["dpsgd"]
                ),
                *(acc.Exponential(exactly(e)) for (e,) in parts["choice"]),
            )
        )
        return {"value": acc.curve(event).epsilon(row["delta"])}
    return _our_plan(acc, row, scale, variant)


def _our_plan(acc: Any, row: Facts, scale: float, variant: str) -> Facts:
    """Return the noise of each measurement: its choices as in zCDP, or everything scaled alike."""
    rho = zcdp_rho(row["epsilon"] * scale, row["delta"])
    choice = Fraction(str(choice_epsilon(rho)))

    def measured(sigma: Fraction) -> Any:
        return acc.Repeat(acc.Gaussian(sigma), MEASUREMENTS)

    def as_in_zcdp(sigma: Fraction) -> Any:
        return acc.Sequence((acc.Repeat(acc.Exponential(choice), SELECTIONS), measured(sigma)))

    def scaled(sigma: Fraction) -> Any:
        # Precision of a measurement 1 / sigma^2, of all choices a ninth of that of all of them.
        squared = 4 * MEASUREMENTS / SELECTIONS * SHARE / (1 - SHARE) / float(sigma) ** 2
        choices = acc.Exponential(acc.rational_down(math.sqrt(squared), 1 << 40))
        return acc.Sequence((acc.Repeat(choices, SELECTIONS), measured(sigma)))

    def gaussian(sigma: Fraction) -> Any:
        one = acc.Gaussian(sigma * 3, Fraction(1))  # a ninth of the precision, as scores
        return acc.Sequence((acc.Repeat(one, SELECTIONS), measured(sigma)))

    plan = {"ours": as_in_zcdp, "ours, choices scaled too": scaled, "ours, all Gaussian": gaussian}
    sigma = acc.least_noise(plan[variant], row["epsilon"] * scale, row["delta"])
    return {"value": float(sigma)}


def choice_epsilon(rho: float) -> float:
    """Return the epsilon of each selection: a tenth of rho, at epsilon^2 / 8 each."""
    return math.sqrt(8 * SHARE * rho / SELECTIONS)


# -- peers -----------------------------------------------------------------------------------------


def dp_accounting(kind: str, row: Facts, scale: float, interval: float | None) -> Facts:
    import dp_accounting as dpa
    from dp_accounting.pld import privacy_loss_distribution as losses
    from dp_accounting.pld.common import DifferentialPrivacyParameters

    def fresh() -> Any:
        chosen = {} if interval is None else {"value_discretization_interval": interval}
        return dpa.pld.PLDAccountant(**chosen)

    def sgd(q: float, sigma: float, steps: int) -> Any:
        one = dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(sigma))
        return dpa.SelfComposedDpEvent(one, steps)

    if kind == "dpsgd":
        event = sgd(row["q"], row["sigma"] * scale, STEPS)
        return {"value": fresh().compose(event).get_epsilon(row["delta"])}
    if kind == "calibrate":
        found = dpa.calibrate_dp_mechanism(
            fresh, lambda s: sgd(row["q"], s, STEPS), row["epsilon"] * scale, row["delta"]
        )
        return {"value": float(found)}
    if kind == "mixed":
        parts = mixed_parts(row, scale)
        account = fresh()
        for (s,) in parts["gaussian"]:
            account.compose(dpa.GaussianDpEvent(s))
        for (b,) in parts["laplace"]:
            account.compose(dpa.LaplaceDpEvent(b))
        for q, s, t in parts["dpsgd"]:
            account.compose(sgd(q, s, int(t)))
        if not parts["choice"]:
            return {"value": account.get_epsilon(row["delta"])}
        # It has no event for a choice; a pure epsilon is the nearest it can say.
        total = account._pld
        for (e,) in parts["choice"]:
            total = total.compose(
                losses.from_privacy_parameters(
                    DifferentialPrivacyParameters(e, 0.0), **_interval(interval)
                )
            )
        return {"value": total.get_epsilon_for_delta(row["delta"])}
    rho = zcdp_rho(row["epsilon"] * scale, row["delta"])
    choice = DifferentialPrivacyParameters(choice_epsilon(rho), 0.0)
    choices = losses.from_privacy_parameters(choice, **_interval(interval)).self_compose(SELECTIONS)

    def price(sigma: float) -> float:
        noise = losses.from_gaussian_mechanism(
            sigma / math.sqrt(MEASUREMENTS), **_interval(interval)
        )
        return float(choices.compose(noise).get_epsilon_for_delta(row["delta"]))

    return {"value": least(price, row["epsilon"] * scale)}


def _interval(interval: float | None) -> Facts:
    return {} if interval is None else {"value_discretization_interval": interval}


def opacus(kind: str, row: Facts, scale: float, name: str) -> Facts:
    from opacus.accountants import PRVAccountant, RDPAccountant
    from opacus.accountants.utils import get_noise_multiplier

    if kind == "calibrate":
        found = get_noise_multiplier(
            target_epsilon=row["epsilon"] * scale,
            target_delta=row["delta"],
            sample_rate=row["q"],
            steps=STEPS,
            accountant=name,
        )
        return {"value": float(found)}
    account = PRVAccountant() if name == "prv" else RDPAccountant()
    account.history = [(row["sigma"] * scale, row["q"], STEPS)]
    return {"value": float(account.get_epsilon(row["delta"]))}


def prv_accountant(kind: str, row: Facts, scale: float) -> Facts:
    import prv_accountant as prv
    from prv_accountant.dpsgd import find_noise_multiplier

    if kind == "calibrate":
        found = find_noise_multiplier(
            row["q"], STEPS, row["epsilon"] * scale, row["delta"], eps_error=0.02
        )
        return {"value": float(found)}
    if kind == "dpsgd":
        laws = [prv.PoissonSubsampledGaussianMechanism(row["q"], row["sigma"] * scale)]
        counts = [STEPS]
    else:
        parts = mixed_parts(row, scale)
        if parts["choice"]:
            raise NotImplementedError
        laws = [prv.GaussianMechanism(s) for (s,) in parts["gaussian"]]
        laws += [prv.LaplaceMechanism(1 / b) for (b,) in parts["laplace"]]
        laws += [prv.PoissonSubsampledGaussianMechanism(q, s) for q, s, _ in parts["dpsgd"]]
        counts = [1] * (len(laws) - len(parts["dpsgd"])) + [int(t) for _, _, t in parts["dpsgd"]]
    account = prv.PRVAccountant(
        laws, eps_error=0.01, delta_error=row["delta"] / 1000, max_self_compositions=counts
    )
    low, _, high = account.compute_epsilon(row["delta"], counts)
    return {"value": float(high), "lower": float(low)}


def zcdp_rho(epsilon: float, delta: float) -> float:
    """Return the greatest rho whose conversion by Canonne, Kamath, Steinke (2020) fits."""
    import numpy as np

    order = 1 + np.geomspace(1e-3, 1e6, 100_000)
    rest = np.log1p(-1 / order) - (math.log(delta) + np.log(order)) / (order - 1)
    return float(((epsilon - rest) / order).max())


def zcdp(kind: str, row: Facts, scale: float) -> Facts:
    rho = zcdp_rho(row["epsilon"] * scale, row["delta"])
    return {"value": math.sqrt(MEASUREMENTS / (2 * (1 - SHARE) * rho))}


def least(price: Callable[[float], float], epsilon: float) -> float:
    """Return the least noise that fits, by halving."""
    low, high = 0.1, 1000.0
    while high / low > 1 + 1e-6:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if price(middle) <= epsilon else (middle, high)
    return high


def answer(tool: str, kind: str, row: Facts, scale: float) -> Facts:
    match tool:
        case "dp-accounting":
            return dp_accounting(kind, row, scale, None)
        case "dp-accounting h=1e-3":
            return dp_accounting(kind, row, scale, 1e-3)
        case "Opacus PRV":
            return opacus(kind, row, scale, "prv")
        case "Opacus RDP":
            return opacus(kind, row, scale, "rdp")
        case "prv-accountant":
            return prv_accountant(kind, row, scale)
        case "zCDP (CKS)":
            return zcdp(kind, row, scale)
        case _:
            return ours(kind, row, scale, tool)


# -- one figure, in a process of its own -----------------------------------------------------------


def take(tool: str, kind: str, number: int) -> None:
    """Print one figure as JSON. Runs in a fresh process."""
    import warnings

    warnings.simplefilter("ignore")
    row = ROWS[kind][number]
    start = time.process_time()
    try:
        importlib.import_module(IMPORTS[TOOLS[tool]])
    except ImportError:
        print(json.dumps({"note": "not installed"}))
        return
    imported = time.process_time() - start
    start = time.process_time()
    try:
        found = answer(tool, kind, row, 1.0)
    except NotImplementedError:
        print(json.dumps({"note": "cannot express it"}))
        return
    except Exception as error:
        print(json.dumps({"note": f"{type(error).__name__}"}))
        return
    cold = time.process_time() - start
    start = time.process_time()
    answer(tool, kind, row, 1.01)
    warm = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    times = {"import": imported * 1e3, "cold": cold * 1e3, "warm": warm * 1e3}
    print(json.dumps({**found, **times, "peak": peak}))


def taken(tool: str, kind: str, number: int) -> Facts:
    """Return one figure, taken in a fresh process."""
    command = [sys.executable, __file__, "--take", tool, kind, str(number)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    except subprocess.TimeoutExpired:
        return {"note": f"more than {LIMIT} s"}
    except subprocess.CalledProcessError:
        return {"note": "failed"}
    found: Facts = json.loads(done.stdout.splitlines()[-1])
    return found


# -- the table -------------------------------------------------------------------------------------

CERTIFIED = {
    "dpsgd": ("ours", "dp-accounting", "dp-accounting h=1e-3", "Opacus PRV", "prv-accountant"),
    "mixed": ("ours", "dp-accounting", "dp-accounting h=1e-3", "prv-accountant"),
    "calibrate": ("ours", "dp-accounting", "dp-accounting h=1e-3"),
    "plan": ("ours", "dp-accounting", "zCDP (CKS)"),
}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("numpy", "scipy", *sorted(set(TOOLS.values()))):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def line(kind: str, number: int) -> Facts:
    """Return every tool's figure for one row, with ratios."""
    figures = {tool: taken(tool, kind, number) for tool in DOES[kind]}
    base = figures["ours"]
    proved = [
        figures[tool]["value"]
        for tool in CERTIFIED[kind]
        if math.isfinite(figures[tool].get("value", math.nan))
    ]
    lowers = [facts["lower"] for facts in figures.values() if "lower" in facts]
    for facts in figures.values():
        if "value" in facts and "value" in base and proved:
            facts["ratio"] = facts["value"] / base["value"]
            facts["above"] = facts["value"] / min(proved) - 1
            facts["slower_cold"] = facts["cold"] / base["cold"]
            facts["slower_warm"] = facts["warm"] / base["warm"]
    below = "value" in base and bool(lowers) and base["value"] < max(lowers)
    return {
        "kind": kind,
        "row": ROWS[kind][number],
        "lower": max(lowers, default=None),
        "ours_below_a_certified_lower_bound": below,
        "figures": figures,
    }


def show(found: Facts) -> None:
    facts = ", ".join(f"{key}={value:.6g}" for key, value in found["row"].items())
    lower = f"   certified lower {found['lower']:.5f}" if found["lower"] is not None else ""
    print(f"\n{found['kind']}: {facts}{lower}")
    unit = UNITS[found["kind"]]
    heads = f"{'/ ours':>9}{'above':>9}{'import':>8}{'cold ms':>9}{'warm ms':>9}{'MB':>7}"
    print(f"  {'tool':26}{unit:>10}{heads}")
    for tool, figure in found["figures"].items():
        if "value" not in figure:
            print(f"  {tool:26}{figure['note']:>10}")
            continue
        mark = "" if tool in CERTIFIED[found["kind"]] else "*"
        print(
            f"  {tool + mark:26}{figure['value']:10.5f}{figure.get('ratio', math.nan):9.4f}"
            f"{figure.get('above', math.nan) * 100:8.3f}%{figure['import']:8.0f}"
            f"{figure['cold']:9.0f}{figure['warm']:9.0f}{figure['peak']:7.0f}",
            flush=True,
        )
    if found["ours_below_a_certified_lower_bound"]:
        print("  OURS IS BELOW A CERTIFIED LOWER BOUND")


def main() -> None:
    """Run the benchmark, print its table and write its figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    add_out(options)
    options.add_argument("--take", nargs=3, metavar=("TOOL", "KIND", "ROW"), help="one figure")
    chosen = options.parse_args()
    if chosen.take:
        tool, kind, number = chosen.take
        take(tool, kind, int(number))
        return
    lines = []
    for kind in chosen.only:
        for number in range(len(ROWS[kind])):
            lines.append(line(kind, number))
            show(lines[-1])
    result = {"versions": versions(), "lines": lines}
    keep(chosen.out, "accounting", result)


if __name__ == "__main__":
    main()
