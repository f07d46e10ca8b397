"""The self-test: does the suite catch tables that leak, and let one pass that does not?

A finding of nothing is worth what the suite would have found. So it is run on tables made by a
recipe, each with a leak of a known kind, here, on this machine, by this installation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dpsynth._leaky import LEAKS, Material, Rows
from dpsynth.attacks import Claim, InternalResults, internal_results
from dpsynth.domain import Domain

ROWS = 4000
"""Rows audited, and as many that are used without; half of the first are held out."""

DOMAIN = Domain.integers(
    {
        "age": 75,
        "education": 16,
        "hours": 80,
        "income": 60,
        "capital": 50,
        "children": 8,
        "distance": 90,
        "region": 21,
        "occupation": 14,
        "marital status": 6,
        "diagnosis": 30,
        "sex": 2,
        "insured": 2,
    },
    ordered=("age", "education", "hours", "income", "capital", "children", "distance"),
)
"""A made-up survey of households, in codes."""

EXPECTED: Mapping[str, str] = {
    "safe": "not detected",
    "leak10": "fail",
    "near10": "fail",
    "outlier1": "fail",
    "cart5": "fail",
    "equal": "fail",
}
"""What must come out. ``tree without noise`` is shown and not required: see :data:`SHOWN`."""

SHOWN = {"tree without noise": "only an audit of the mechanism with canaries is sure to find this"}
"""Leaks that tables alone need not betray, and what finds them."""

TOLD = {
    "safe": "fresh rows",
    "leak10": "a tenth are copies of rows that were used",
    "near10": "a tenth are copies with two cells drawn anew",
    "outlier1": "the most isolated hundredth is copied",
    "cart5": "trees with leaves of five rows, column after column",
    "equal": "the rows that were used",
    "tree without noise": "exact counts of a tree of pairs: a mechanism that forgot its noise",
}


@dataclass(frozen=True)
class SelfTest:
    """What the suite made of one table.

    Attributes:
        table: Its name.
        about: What it is.
        expected: The outcome that it must have; None if it is only shown.
        outcome: The outcome.
        caught_by: Tests that failed it, the clearest first.
        bound: Lower bound on epsilon at 95 %, delta 0.
    """

    table: str
    about: str
    expected: str | None
    outcome: str
    caught_by: tuple[str, ...]
    bound: float | None

    @property
    def ok(self) -> bool:
        """Whether it came out as it must; a table for review is neither failed nor passed."""
        if self.expected == "not detected":
            return self.outcome != "fail"
        return self.expected in (None, self.outcome)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {**asdict(self), "ok": self.ok}

    def text(self) -> str:
        """Return one line."""
        said = "ok" if self.ok else f"WRONG, {self.expected} was expected"
        by = (
            f", by {len(self.caught_by)} tests, first {self.caught_by[0]}" if self.caught_by else ""
        )
        if self.expected is None:
            said = f"shown only; {SHOWN[self.table]}"
        return f"{self.table} ({self.about}): {self.outcome}{by} [{said}]"


def self_test(*, rows: int = ROWS, seed: int = 0, classifier: bool = True) -> Iterator[SelfTest]:
    """Yield what the suite makes of each table; no private row is read.

    Args:
        rows: Rows audited.
        seed: Of the recipe and the attacks.
        classifier: Whether to try the classifier.
    """
    for table in LEAKS:
        rng = np.random.default_rng([seed, sorted(LEAKS).index(table)])
        found = attacked(DOMAIN, survey(4 * rows, rng), table, rng, classifier=classifier)
        caught = tuple(each.test for each in found.verdict.findings if each.outcome == "fail")
        bound = found.epsilon.points[0].bound if found.epsilon is not None else None
        yield SelfTest(
            table, TOLD[table], EXPECTED.get(table), found.verdict.outcome, caught, bound
        )


def attacked(
    domain: Domain,
    rows: Rows,
    leak: str,
    rng: np.random.Generator,
    *,
    classifier: bool = True,
) -> InternalResults:
    """Return what the suite makes of a synthetic table that leaks in a known way.

    A quarter of the rows are the reference, a quarter are audited, and each of these is held out by
    a fair coin; the other half is fresh.

    Args:
        domain: What codes the rows.
        rows: int32 (rows, columns): rows that are alike in law, in random order.
        leak: One of ``dpsynth._leaky.LEAKS``.
        rng: Of everything.
        classifier: Whether to try the classifier.
    """
    cut = len(rows) // 4
    train, audited, fresh = rows[:cut], rows[cut : 2 * cut], rows[2 * cut :]
    coin = rng.random(len(audited)) < 0.5
    audit_in, held_out = audited[coin], audited[~coin]
    material = Material(domain, np.concatenate([train, audit_in]), fresh)
    return internal_results(
        domain=domain,
        release=LEAKS[leak](material, rng),
        train=train,
        audit_in=audit_in,
        audit_in_units=np.arange(len(audit_in)),
        held_out=held_out,
        held_out_units=np.arange(len(held_out)),
        rng=rng,
        claim=Claim(((None, 0.0),)),
        classifier=classifier,
    )


def survey(rows: int, rng: np.random.Generator) -> Rows:
    """Return rows of :data:`DOMAIN`, int32 (rows, columns): five kinds of household, with tails."""
    kind = rng.choice(5, rows, p=[0.35, 0.25, 0.2, 0.15, 0.05])
    age = np.clip(rng.normal(22 + 9 * kind, 13, rows), 0, 74)
    education = np.clip(rng.normal(7 + 1.6 * (kind % 3), 2.5, rows), 0, 15)
    hours = np.clip(np.where(rng.random(rows) < 0.45, 40, rng.normal(34, 14, rows)), 0, 79)
    wealth = rng.normal(0.06 * education + 0.012 * age + 0.01 * hours, 0.5, rows)
    income = np.clip(np.exp(1.6 + wealth) * 2, 0, 59)
    capital = np.where(rng.random(rows) < 0.88, 0, np.clip(rng.gamma(1.5, 9, rows), 1, 49))
    children = np.clip(rng.poisson(np.maximum(0.2, 1.8 - abs(age - 30) / 22), rows), 0, 7)
    distance = np.clip(rng.gamma(1.2 + 0.3 * kind, 9, rows), 0, 89)
    region = (rng.geometric(0.16, rows) + 4 * kind) % 21
    occupation = (rng.geometric(0.22, rows) + 2 * kind + (education // 4)) % 14
    marital = (rng.geometric(0.45, rows) + (age > 20) + (age > 50)) % 6
    diagnosis = (rng.geometric(0.13, rows) + age // 15) % 30
    sex = rng.random(rows) < 0.44 + 0.03 * kind
    insured = rng.random(rows) < 0.55 + 0.006 * income
    columns = (
        *(age, education, hours, income, capital, children, distance),
        *(region, occupation, marital, diagnosis, sex, insured),
    )
    return np.column_stack([np.floor(column) for column in columns]).astype(np.int32)
