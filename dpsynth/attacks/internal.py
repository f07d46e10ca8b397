"""Exact attack results, for the custodian alone: they are computed from private rows.

Every figure compares audited units that were in the data with audited units that were held out:
a fair coin made them, so they are equal in law. All rows of a unit share one coin, so a unit
counts once, by its highest score.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks.membership import ExactMatch, softening
from dpsynth.attacks.neighbours import Neighbours
from dpsynth.attacks.statistics import (
    Auc,
    Interval,
    TprAtFpr,
    auc,
    binomial_upper_tail,
    roc,
    smallest_excess,
    tpr_at_fpr,
    wilson,
)
from dpsynth.domain import Domain

MOST_UNITS = 10_000
"""Most units of a side that distances are computed for; a share is then known to half a point."""

MOST_REFERENCE = 50_000
"""Most rows of the reference of the distance-ratio attack."""

ISOLATED_SHARE = 0.05
"""Share of the units, the farthest from all others, that are also looked at by themselves."""

_ALPHA = 0.01  # level at which the smallest detectable effects are stated, as in the verdict


@dataclass(frozen=True)
class ExactMatches:
    """Units of which some row occurs in the release.

    Attributes:
        audit_in: How many that were in.
        held_out: How many that were held out: matches by coincidence.
        rate_in: Wilson's interval of the first as a share.
        rate_out: Wilson's interval of the second as a share.
        p_value: One-sided and exact: the chance of so many being in, each by a fair coin.
        smallest_detectable: Excess rate that a test at 0.01 finds with probability 0.8.
    """

    audit_in: int
    held_out: int
    rate_in: Interval
    rate_out: Interval
    p_value: float
    smallest_detectable: float


@dataclass(frozen=True)
class NearestShare:
    """Share of synthetic rows that are nearer to a unit that was in than to one held out.

    Attributes:
        share: Ties counted half; 0.5 without copying.
        interval: Wilson's, over the draw of synthetic rows; not over the draw of the units.
        tied: Share of synthetic rows that are equally near to both.
        rows: Synthetic rows compared.
        units: Units on each side, one random row of each.
    """

    share: float
    interval: Interval
    tied: float
    rows: int
    units: int


@dataclass(frozen=True)
class RatioAttack:
    """The distance-ratio attack with rows that were not audited as its reference.

    Attributes:
        units_in: Units attacked that were in.
        units_out: Units attacked that were held out.
        auc: Area under the ROC curve; says little about the few most exposed.
        at_1_percent: True-positive rate at 1 % false positives.
        at_01_percent: True-positive rate at 0.1 % false positives.
        smallest_detectable: True-positive rate at 1 % false positives that a test at 0.01 finds
            with probability 0.8.
    """

    units_in: int
    units_out: int
    auc: Auc
    at_1_percent: TprAtFpr
    at_01_percent: TprAtFpr
    smallest_detectable: float


@dataclass(frozen=True)
class InternalResults:
    """Exact results of attacking a release: private, never published.

    Attributes:
        units_in: Audited units that were in.
        units_out: Audited units that were held out.
        exact: Exact matches.
        nearest: None if a side or the release is empty.
        ratio: None if a side, the release or the reference is empty.
        isolated: The same attack on the most isolated units alone; None if a side has none.
    """

    units_in: int
    units_out: int
    exact: ExactMatches
    nearest: NearestShare | None
    ratio: RatioAttack | None
    isolated: RatioAttack | None

    def to_json(self) -> dict[str, Any]:
        """Return the results as plain JSON data."""
        return asdict(self)


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
    level: float = 0.95,
) -> InternalResults:
    """Attack a release with everything the custodian knows.

    No argument is changed. Large sides are cut to 10,000 units and 50,000 reference rows, except
    for exact matches, which use all.

    Args:
        domain: What codes all tables.
        release: int32 (rows, columns).
        train: int32 (rows, columns): rows used and not audited; the reference.
        audit_in: int32 (rows, columns): audited rows that were used.
        audit_in_units: int64 (rows,): the unit of each.
        held_out: int32 (rows, columns): audited rows that were held out.
        held_out_units: int64 (rows,): the unit of each.
        rng: Draws subsamples.
        level: Of the intervals.

    Charges: nothing. Its figures are outside the guarantee: an inspection is what calls it.
    """
    inside = _Side(audit_in, audit_in_units)
    outside = _Side(held_out, held_out_units)
    exact = _exact(ExactMatch(domain, release), inside, outside, level)
    nearest = ratio = isolated = None
    if inside.units and outside.units and len(release):
        inside, outside = inside.cut(MOST_UNITS, rng), outside.cut(MOST_UNITS, rng)
        nearest = _nearest(domain, _some(release, MOST_UNITS, rng), inside, outside, rng, level)
        if len(train):
            reference = _some(train, MOST_REFERENCE, rng)
            ratio, isolated = _ratio(domain, release, reference, inside, outside, level)
    return InternalResults(
        len(np.unique(audit_in_units)),
        len(np.unique(held_out_units)),
        exact,
        nearest,
        ratio,
        isolated,
    )


class _Side:
    """The rows of one side of the coin, with their units numbered from 0."""

    def __init__(self, rows: NDArray[np.int32], units: NDArray[np.int64]) -> None:
        names, numbers = np.unique(units, return_inverse=True)
        self.rows = rows
        self.numbers = numbers.reshape(-1)
        self.units = len(names)

    def highest(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each unit's highest score."""
        best = np.full(self.units, -np.inf)
        np.maximum.at(best, self.numbers, scores)
        return best

    def cut(self, most: int, rng: np.random.Generator) -> _Side:
        """Return at most so many random units, with all their rows."""
        if self.units <= most:
            return self
        kept = np.isin(self.numbers, rng.choice(self.units, most, replace=False))
        return _Side(self.rows[kept], self.numbers[kept].astype(np.int64))

    def one_row_each(self, rng: np.random.Generator) -> NDArray[np.int32]:
        """Return one random row of each unit."""
        order = rng.permutation(len(self.rows))
        _, first = np.unique(self.numbers[order], return_index=True)
        return self.rows[order[first]]


def _exact(attack: ExactMatch, inside: _Side, outside: _Side, level: float) -> ExactMatches:
    hits_in = int(inside.highest(attack.score(inside.rows)).sum())
    hits_out = int(outside.highest(attack.score(outside.rows)).sum())
    hits = hits_in + hits_out
    return ExactMatches(
        hits_in,
        hits_out,
        wilson(hits_in, inside.units, level),
        wilson(hits_out, outside.units, level),
        binomial_upper_tail(hits_in, hits),
        smallest_excess(hits, (inside.units + outside.units) / 2, alpha=_ALPHA),
    )


def _nearest(
    domain: Domain,
    synthetic: NDArray[np.int32],
    inside: _Side,
    outside: _Side,
    rng: np.random.Generator,
    level: float,
) -> NearestShare:
    # The larger side would be nearer by its size alone.
    units = min(inside.units, outside.units)
    to_in, to_out = (
        Neighbours(_some(side.one_row_each(rng), units, rng), domain).distances(synthetic)[:, 0]
        for side in (inside, outside)
    )
    tied = float(np.mean(to_in == to_out))
    nearer = float(np.sum(to_in < to_out) + 0.5 * np.sum(to_in == to_out))
    rows = len(synthetic)
    return NearestShare(nearer / rows, wilson(nearer, rows, level), tied, rows, units)


def _ratio(
    domain: Domain,
    release: NDArray[np.int32],
    reference: NDArray[np.int32],
    inside: _Side,
    outside: _Side,
    level: float,
) -> tuple[RatioAttack, RatioAttack | None]:
    near, copied = Neighbours(reference, domain), Neighbours(release, domain)
    unit, soft = near.gower.unit, softening(domain)
    scores, isolation = [], []
    for side in (inside, outside):
        far = near.distances(side.rows)[:, 0] / unit
        scores.append(side.highest(far / (copied.distances(side.rows)[:, 0] / unit + soft)))
        isolation.append(side.highest(far))
    pooled = np.sort(np.concatenate(isolation))
    cut = pooled[int(np.ceil((1 - ISOLATED_SHARE) * len(pooled))) - 1]
    lonely = [score[far >= cut] for score, far in zip(scores, isolation, strict=True)]
    return (
        _attack(scores[0], scores[1], level),
        _attack(lonely[0], lonely[1], level) if len(lonely[0]) and len(lonely[1]) else None,
    )


def _attack(members: NDArray[np.float64], others: NDArray[np.float64], level: float) -> RatioAttack:
    curve = roc(members, others)
    units = (len(members) + len(others)) / 2
    target = 0.01
    return RatioAttack(
        len(members),
        len(others),
        auc(members, others, level),
        tpr_at_fpr(curve, target, level),
        tpr_at_fpr(curve, 0.001, level),
        min(1.0, target + smallest_excess(2 * target * units, units, alpha=_ALPHA)),
    )


def _some(rows: NDArray[np.int32], most: int, rng: np.random.Generator) -> NDArray[np.int32]:
    if len(rows) <= most:
        return rows
    return rows[rng.choice(len(rows), most, replace=False)]
