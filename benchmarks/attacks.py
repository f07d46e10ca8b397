"""Which attacks tell a leaking table from one that does not leak, at what cost, how often falsely.

Adult in codes, and the self-test's survey: each leak of ``dpsynth._leaky``, and MST at three
budgets, which is private. Then null repeats: a fresh sample on small tables. CPU seconds; set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from _measure import measured
from _results import add_out, keep
from tables import TABLES, Coded

import dpsynth as dp
from dpsynth._audit import as_array, coded
from dpsynth._leaky import LEAKS
from dpsynth.attacks import Claim, InternalResults, internal_results, neighbours
from dpsynth.domain import Domain
from dpsynth.selftest import DOMAIN, attacked, survey

BUDGETS = ("1", "3", "10")
DELTA = Fraction(1, 10**6)


def summary(found: InternalResults) -> dict[str, Any]:
    """Return the figures that the calibration table shows."""
    scores = {
        name: {
            "auc": round(test.auc.value, 4),
            "tpr_1_percent": round(test.tpr_1_percent.value, 4),
            "tpr_01_percent": round(test.tpr_01_percent.value, 4),
            "p_value": test.p_value,
        }
        for kind, tests in (("", found.membership), (", isolated", found.isolated))
        for name, test in ((f"{key}{kind}", value) for key, value in tests.items())
    }
    risks = {
        name: [
            round(risk.comparison.rate_in.value, 4),
            round(risk.comparison.rate_out.value, 4),
            round(risk.baseline.value, 4),
        ]
        for name, risk in found.disclosure.items()
    }
    exact = found.matches
    return {
        "units": [found.units_in, found.units_out],
        "outcome": found.verdict.outcome,
        "tests": len(found.verdict.findings),
        "failed_by": [f.test for f in found.verdict.findings if f.outcome == "fail"],
        "exact_matches": [exact.exact.hits_in, exact.exact.hits_out] if exact else None,
        "exact_p_value": exact.exact.p_value if exact else None,
        "nearest_share": round(found.copies.share.share, 4) if found.copies else None,
        "scores": scores,
        "main_control_baseline": risks,
        "epsilon_bounds": [
            [point.delta, round(point.bound, 3), round(point.hard_bound, 3)]
            for point in (found.epsilon.points if found.epsilon else ())
        ],
    }


def private(table: Coded, epsilon: str, rng: np.random.Generator) -> InternalResults:
    """Attack what MST makes of a table at a budget, by the coins of its own vault."""
    schema = dp.Schema(
        {
            name: dp.Integer(0, size - 1)
            if name in table.ordinal
            else dp.Categorical(tuple(range(size)))
            for name, size in table.sizes.items()
        }
    )
    rows = table.rows.iloc[rng.permutation(len(table.rows))[:24_000]].reset_index(drop=True)
    audited, coin = rng.random(len(rows)) < 2 / 3, rng.random(len(rows)) < 0.5
    with TemporaryDirectory() as folder:
        account = dp.Ledger(Path(folder) / "ledger.db").account("b", dp.Budget(epsilon, DELTA))
        used = rows[~audited | coin].reset_index(drop=True)
        vault = dp.Vault(used, schema, account, unit=dp.Row(), audit_share=0)
        model = dp.MST().fit(vault, epsilon=epsilon)
        account.ledger.close()
    drawn = as_array(model.domain, model.sample_codes(len(used), rng=rng))
    codes = coded(model.domain, pd.DataFrame(rows))
    inside, outside = codes[audited & coin], codes[audited & ~coin]
    return internal_results(
        domain=model.domain,
        release=drawn,
        train=codes[~audited],
        audit_in=inside,
        audit_in_units=np.arange(len(inside)),
        held_out=outside,
        held_out_units=np.arange(len(outside)),
        rng=rng,
        claim=Claim(((float(epsilon), float(DELTA)),)),
    )


def adult(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what the suite makes of Adult, leak by leak."""
    table = TABLES["adult"](folder)
    rows, domain = table.rows.to_numpy(np.int32), Domain.integers(table.sizes, table.ordinal)
    for leak in LEAKS:
        rng = np.random.default_rng(1)
        with measured() as cost:
            found = attacked(domain, rng.permutation(rows), leak, rng)
        yield leak, {**summary(found), "cpu_seconds": round(cost.cpu, 2)}
    for epsilon in BUDGETS:
        found = private(table, epsilon, np.random.default_rng(1))
        yield f"MST, epsilon {epsilon}", summary(found)


def cost(folder: Path) -> dict[str, list[float]]:
    """Return CPU seconds at 50,000 rows of 15 columns, with and without the classifier and numba.

    Of five runs each, in order. The first of all includes the imports.
    """
    table = TABLES["adult"](folder)
    rng = np.random.default_rng(2)
    grown = table.rows.iloc[rng.integers(0, len(table.rows), 200_000)].to_numpy(np.int32)
    rows = np.column_stack([grown, rng.integers(0, 12, len(grown))]).astype(np.int32)
    domain = Domain.integers({**table.sizes, "month": 12}, table.ordinal)

    def runs(*, classifier: bool) -> list[float]:
        found = []
        for _ in range(5):
            with measured() as spent:
                attacked(domain, rows, "safe", np.random.default_rng(3), classifier=classifier)
            found.append(round(spent.cpu, 2))
        return found

    found = {"all": runs(classifier=True), "without classifier": runs(classifier=False)}
    never = {"_WORTH_COMPILING": 1 << 62, "_WORTH_CALLING": 1 << 62}
    with mock.patch.multiple(neighbours, **never):
        found["without classifier and numba"] = runs(classifier=False)
    return found


def nulls(repeats: int) -> dict[str, Any]:
    """Return how often a fresh sample is failed, on tables of 2,000 audited rows."""
    outcomes = []
    for seed in range(repeats):
        rng = np.random.default_rng([7, seed])
        found = attacked(DOMAIN, survey(8_000, rng), "safe", rng)
        outcomes.append(found.verdict.outcome)
    return {
        "repeats": repeats,
        "audited_rows": 2_000,
        **{name: outcomes.count(name) for name in ("fail", "review", "not detected")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public tables")
    parser.add_argument("--repeats", type=int, default=200)
    add_out(parser)
    given = parser.parse_args()
    # First, so that what it costs is what it costs a process that does nothing else.
    found: dict[str, Any] = {"cpu_seconds_at_50000_rows_of_15_columns": cost(given.data)}
    print(found, flush=True)
    found["adult"] = {}
    for leak, figures in adult(given.data):
        found["adult"][leak] = figures
        print(leak, figures["outcome"], figures["failed_by"][:3], flush=True)
        keep(given.out, "attacks", found)
    found["nulls"] = nulls(given.repeats)
    print(found["nulls"])
    keep(given.out, "attacks", found)


if __name__ == "__main__":
    main()
