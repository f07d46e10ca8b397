"""The suite: everything that the custodian can learn by attacking a table, with one verdict.

Every figure compares audited units that were in the data with audited units that were held out: a
fair coin made them, so they are equal in law. All rows of a unit share one coin, so a unit counts
once, by its highest score. Exact results come from private rows and are never published.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks._shared import index_of, shared
from dpsynth.attacks.coins import Claim, OneRun, bound_epsilon
from dpsynth.attacks.comparison import (
    ISOLATED_LOOKS,
    Comparison,
    ScoreComparison,
    compare_hits,
    compare_scores,
)
from dpsynth.attacks.copies import Copies, copies
from dpsynth.attacks.disclosure import Risk, inference, linkability, singling_out
from dpsynth.attacks.judgement import ExactVerdict, exact_verdict
from dpsynth.attacks.matches import Matches, matches
from dpsynth.attacks.plugins import record_attacks, reference_attacks
from dpsynth.attacks.targets import Rows, Side, Targets, some
from dpsynth.domain import Domain

MOST_UNITS = 20_000
"""Most units of both sides that are scored: a rate is then known to half a point."""

MOST_REFERENCE = 50_000
"""Most rows of the reference."""

MOST_RELEASED = 10_000
"""Most synthetic rows of which the nearest unit is sought."""

MOST_DISCLOSED = 5_000
"""Most units of both sides that linkability and inference are tried on: one point."""

ISOLATED_SHARE = 0.05
"""Share of the units, the farthest from all others, that are also looked at by themselves."""

FEWEST_ISOLATED = 10
"""Fewest isolated units of a side that are looked at."""

BOUND_FROM = "distance ratio"
"""The attack whose scores bound epsilon: one, chosen beforehand."""


@dataclass(frozen=True)
class InternalResults:
    """Exact results of attacking a table: private, never published.

    Attributes:
        units_in: Audited units that were in.
        units_out: Audited units that were held out.
        reference: Rows of the reference.
        verdict: All tests together.
        epsilon: Lower bound from the coins; None without coins, a reference or 40 units.
        matches: Exact matches; None if a side is empty.
        records: Record attacks by their own thresholds, as the paid audit counts them.
        copies: The copy detector; None if a side or the release is empty.
        membership: Membership attacks by name.
        isolated: The same on the most isolated units alone.
        disclosure: Singling out, linkability and inference.
    """

    units_in: int
    units_out: int
    reference: int
    verdict: ExactVerdict
    epsilon: OneRun | None
    matches: Matches | None
    records: dict[str, Comparison]
    copies: Copies | None
    membership: dict[str, ScoreComparison]
    isolated: dict[str, ScoreComparison]
    disclosure: dict[str, Risk]

    def to_json(self) -> dict[str, Any]:
        """Return the results as plain JSON data."""
        return asdict(self)


@shared()
def internal_results(
    *,
    domain: Domain,
    release: NDArray[np.int32],
    train: NDArray[np.int32],
    audit_in: NDArray[np.int32],
    audit_in_units: NDArray[np.int64],
    held_out: NDArray[np.int32],
    held_out_units: NDArray[np.int64],
    rng: np.random.Generator,
    claim: Claim | None = None,
    classifier: bool = True,
) -> InternalResults:
    """Attack a table with everything the custodian knows.

    No argument is changed. Both sides together are cut to 20,000 units, blind to the side, and the
    reference to 50,000 rows; exact matches use all.

    Args:
        domain: What codes all tables.
        release: int32 (rows, columns).
        train: int32 (rows, columns): rows used and not audited; the reference.
        audit_in: int32 (rows, columns): audited rows that were used.
        audit_in_units: int64 (rows,): the unit of each.
        held_out: int32 (rows, columns): audited rows that were held out.
        held_out_units: int64 (rows,): the unit of each.
        rng: Draws subsamples and the choices of the attacks.
        claim: If fair coins decided who is in: what is claimed of the table and of all that made
            it. Then epsilon is bounded from below at the claim's delta.
        classifier: Whether to try the classifier, which costs more than all else together.

    Charges: nothing. Its figures are outside the guarantee: an inspection is what calls it.
    """
    everyone = Targets(Side(audit_in, audit_in_units), Side(held_out, held_out_units))
    found_matches = found_copies = bound = None
    records: dict[str, Comparison] = {}
    membership: dict[str, ScoreComparison] = {}
    isolated: dict[str, ScoreComparison] = {}
    disclosure: dict[str, Risk] = {}
    reference = some(train, MOST_REFERENCE, rng)
    if all(side.units for side in everyone.sides) and len(release):
        found_matches = matches(release, train, everyone)
        targets = everyone.cut(MOST_UNITS, rng)
        if all(side.units for side in targets.sides):
            for attack in record_attacks(domain, release, rng=rng):
                hits = targets.any(attack.score(targets.rows) >= attack.threshold)
                records[attack.name] = compare_hits(*hits)
            found_copies = copies(domain, release, targets, most_rows=MOST_RELEASED, rng=rng)
            fewer = targets.cut(MOST_DISCLOSED, rng)
            disclosure = singling_out(domain, release, targets, rng=rng)
            linked = linkability(domain, release, fewer, rng=rng)
            disclosure |= {} if linked is None else {"linkability": linked}
            disclosure |= inference(domain, release, fewer, rng=rng)
            if len(reference):
                membership, isolated, bound = _membership(
                    domain, release, reference, targets, claim, rng, classifier=classifier
                )
    tests = _tests(found_matches, records, found_copies, membership, isolated, disclosure)
    return InternalResults(
        everyone.inside.units,
        everyone.outside.units,
        len(reference),
        exact_verdict(tests, bound),
        bound,
        found_matches,
        records,
        found_copies,
        membership,
        isolated,
        disclosure,
    )


def _membership(
    domain: Domain,
    release: Rows,
    reference: Rows,
    targets: Targets,
    claim: Claim | None,
    rng: np.random.Generator,
    *,
    classifier: bool,
) -> tuple[dict[str, ScoreComparison], dict[str, ScoreComparison], OneRun | None]:
    lonely = _isolated(domain, reference, targets)
    enough = all(int(kept.sum()) >= FEWEST_ISOLATED for kept in lonely)
    membership, isolated, bound = {}, {}, None
    without = frozenset() if classifier else frozenset({"classifier"})
    for attack in reference_attacks(domain, release, reference=reference, rng=rng, without=without):
        scores = targets.highest(attack.score(targets.rows))
        membership[attack.name] = compare_scores(*scores)
        if enough:
            kept = [score[only] for score, only in zip(scores, lonely, strict=True)]
            isolated[attack.name] = compare_scores(kept[0], kept[1], ISOLATED_LOOKS)
        if attack.name == BOUND_FROM and claim is not None:
            bound = bound_epsilon(*scores, claim, rng=rng)
    return membership, isolated, bound


def _isolated(
    domain: Domain, reference: Rows, targets: Targets
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which units of each side are the farthest from the reference."""
    index = index_of(reference, domain)
    far = targets.highest(index.distances(targets.rows)[:, 0].astype(np.float64))
    pooled = np.sort(np.concatenate(far))
    cut = pooled[int(np.ceil((1 - ISOLATED_SHARE) * len(pooled))) - 1]
    return far[0] >= cut, far[1] >= cut


def _tests(
    found: Matches | None,
    records: dict[str, Comparison],
    copied: Copies | None,
    membership: dict[str, ScoreComparison],
    isolated: dict[str, ScoreComparison],
    disclosure: dict[str, Risk],
) -> dict[str, Comparison | ScoreComparison]:
    """Return every test by a name of its own."""
    tests: dict[str, Comparison | ScoreComparison] = {}
    if found is not None:
        tests |= {"exact match, all units": found.exact, "exact match, unique rows": found.unique}
    tests |= {f"{name}, over its threshold": test for name, test in records.items()}
    if copied is not None:
        tests |= {f"nearest distance, {name}": test for name, test in copied.nearest.items()}
        tests |= {
            f"nearest to second nearest, {name}": test
            for name, test in copied.nearest_to_second.items()
        }
    tests |= membership
    tests |= {f"{name}, most isolated units": test for name, test in isolated.items()}
    tests |= {name: risk.comparison for name, risk in disclosure.items()}
    return tests
