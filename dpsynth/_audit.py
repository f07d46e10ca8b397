"""What the audit of a release asks of the vault, and what it concludes from the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.attacks import (
    AttackCounts,
    Claim,
    DistanceRatio,
    ExactMatch,
    NearestDistance,
    Verdict,
    check_validity,
    internal_results,
    public_verdict,
)
from dpsynth.domain import Domain
from dpsynth.evaluation import TargetClassifier, exact_fidelity, pair_cliques, synthetic_answers
from dpsynth.schema import Schema
from dpsynth.vault import Audit, Audited, Exposed, RecordScore, Statistic
from dpsynth_accounting import InvalidRequest

FIDELITY_CODES = 32  # codes a column keeps where fidelity is measured

ATTACKS = ("exact match", "nearest distance", "distance ratio")


@dataclass(frozen=True)
class _Everyone:
    """Counts every audited unit: the paid denominators of all rates."""

    name: str = "everyone"
    threshold: float = 0.5

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return 1 for each record."""
        return np.ones(len(records))


def audit_step(schema: Schema, *, target: str | None, weight: float) -> Audit:
    """Return what the audit of a release asks of the vault, from public facts alone."""
    statistics = 1 + len(ATTACKS) + (2 if target is not None else 0)
    return Audit(statistics, len(pair_cliques(schema.modelled)), weight)


def coded(domain: Domain, table: pd.DataFrame) -> NDArray[np.int32]:
    """Return a table as codes, int32 (rows, columns).

    Raises:
        InvalidRequest: The table lacks a column of the domain.
    """
    missing = [name for name in domain.names if name not in table.columns]
    if missing:
        raise InvalidRequest(
            "A table was to be released or attacked.",
            f"It lacks the columns {', '.join(map(repr, missing))}.",
            "Give the rows that the model drew.",
        )
    return as_array(domain, domain.encode(table))


def as_array(domain: Domain, codes: Mapping[str, NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.column_stack([codes[name] for name in domain.names]).astype(np.int32)


def require_target(domain: Domain, target: str | None) -> None:
    if target is not None and (target not in domain.names or len(domain.names) < 2):
        raise InvalidRequest(
            f"The column {target!r} was to be predicted.",
            f"The modelled columns are {', '.join(domain.names)}.",
            "Name one of at least two modelled columns, or none.",
        )


def attack_of(
    name: str,
    domain: Domain,
    codes: NDArray[np.int32],
    fresh: NDArray[np.int32],
    rng: np.random.Generator,
) -> RecordScore:
    """Return one of :data:`ATTACKS` on a table of codes; ``fresh`` is a further sample of it."""
    match name:
        case "exact match":
            return ExactMatch.build(domain, codes, rng=rng)
        case "nearest distance":
            return NearestDistance.build(domain, codes, rng=rng)
    return DistanceRatio.build(domain, codes, rng=rng, reference=fresh)


def statistics_of(
    domain: Domain,
    codes: NDArray[np.int32],
    fresh: NDArray[np.int32],
    target: str | None,
    rng: np.random.Generator,
) -> list[Statistic]:
    """Return everyone, the attacks, and the utility of a model; the order of :func:`audit_step`."""
    found = [Statistic(_Everyone())]
    found += [Statistic(attack_of(name, domain, codes, fresh, rng)) for name in ATTACKS]
    if target is not None:
        classifier = TargetClassifier(domain, codes, target, rng=rng)
        found += [Statistic(classifier, True), Statistic(classifier.baseline, True)]
    return found


def coarse_maps(domain: Domain) -> dict[str, NDArray[np.int64]]:
    """Return public maps that bring every column to about 32 codes, for the fidelity distance."""
    maps = {}
    for name in domain.names:
        size, ordered = domain.size(name), domain.ordered(name)
        if size <= FIDELITY_CODES:
            continue
        code = np.arange(size, dtype=np.int64)
        length = max(ordered, 1) if ordered else size
        group = np.minimum(code, length - 1) * FIDELITY_CODES // length
        # What lies beyond the order, a missing value, stays by itself.
        maps[name] = np.where(code < length, group, FIDELITY_CODES)
    return maps


def answers_of(
    domain: Domain,
    codes: NDArray[np.int32],
    coarse: Mapping[str, NDArray[np.int64]],
    cliques: tuple[tuple[str, ...], ...],
    rows: int,
) -> dict[tuple[str, ...], NDArray[np.int64]]:
    """Return the table's pair marginals at coarse codes, scaled to the noisy number of rows."""
    sizes = {n: int(coarse[n].max()) + 1 if n in coarse else domain.size(n) for n in domain.names}
    merged = np.column_stack(
        [coarse[n][codes[:, i]] if n in coarse else codes[:, i] for i, n in enumerate(domain.names)]
    ).astype(np.int32)
    return synthetic_answers(merged, Domain.integers(sizes), cliques, rows)


def digest_of(codes: NDArray[np.int32]) -> str:
    """Return the SHA-256 of a table's codes, by which a request names it."""
    return hashlib.sha256(codes.astype("<i4").tobytes()).hexdigest()


_CHOSEN = (
    " The table was chosen to be found least by an attack on these very units: more may leak than "
    "is found here, and an excess that would have been found is greater than stated."
)


def verdict_of(
    audited: Audited, audit_share: float, *, own_holdout: bool = False, chosen: bool = False
) -> Verdict:
    """Return the public verdict: post-processing of the paid counts.

    Args:
        audited: The counts.
        audit_share: That of the vault.
        own_holdout: Whether the units held out are a table of the custodian's own.
        chosen: Whether the table was chosen among others by an attack on the same units.
    """
    if audit_share == 0:
        return public_verdict([])
    everyone, *attacks = audited.counts[: 1 + len(ATTACKS)]
    found = public_verdict(
        [
            AttackCounts(
                each.name,
                each.audit_in,
                each.held_out,
                everyone.audit_in,
                everyone.held_out,
                each.sigma,
                own_holdout,
            )
            for each in attacks
        ]
    )
    return replace(found, sentence=found.sentence + _CHOSEN) if chosen else found


def internal_of(
    exposed: Exposed,
    codes: NDArray[np.int32],
    table: pd.DataFrame,
    seed: int,
    claim: Claim | None,
) -> dict[str, Any]:
    """Return exact results: from private rows, for the custodian alone.

    A claim is given where fair coins decided who is in; without one, epsilon is not bounded.
    """
    exact = internal_results(
        domain=exposed.domain,
        release=codes,
        train=exposed.train,
        audit_in=exposed.audit_in,
        audit_in_units=exposed.audit_in_units,
        held_out=exposed.held_out,
        held_out_units=exposed.held_out_units,
        rng=np.random.default_rng(seed),
        claim=claim,
    )
    used = np.concatenate([exposed.train, exposed.audit_in])
    far = exact_fidelity(
        used, codes, exposed.domain, held_out=exposed.held_out if len(exposed.held_out) else None
    )
    valid = asdict(check_validity(exposed.domain, table))
    return {"attacks": exact.to_json(), "validity": valid, "fidelity": far.to_json()}
