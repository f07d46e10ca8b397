"""The attacks that are installed: ours and those of plug-ins, through one door.

An entry point of the group ``dpsynth.attacks`` names a class with
``build(domain, release, *, rng) -> RecordAttack``; one of ``dpsynth.reference_attacks`` one with
``build(domain, release, *, reference, rng) -> ReferenceAttack``.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from dpsynth.attacks.membership import RecordAttack
from dpsynth.attacks.reference import ReferenceAttack
from dpsynth.attacks.targets import Rows
from dpsynth.domain import Domain
from dpsynth_accounting import InvalidRequest

RECORD_GROUP = "dpsynth.attacks"
REFERENCE_GROUP = "dpsynth.reference_attacks"

OURS = {
    RECORD_GROUP: {"exact-match", "nearest-distance"},
    REFERENCE_GROUP: {
        "classifier",
        "density-ratio",
        "distance-ratio",
        "marginal-ratio-2",
        "marginal-ratio-3",
        "marginal-ratio-5",
    },
}
"""What the suite must find: without it, an attack that is gone would pass for one that failed."""


def record_attacks(
    domain: Domain, release: Rows, *, rng: np.random.Generator
) -> Iterator[RecordAttack]:
    """Yield every installed record attack, built on a release.

    Raises:
        InvalidRequest: One is lacking, does not load, or gives something else.
    """
    for name, kind in _installed(RECORD_GROUP):
        built = kind.build(domain, release, rng=rng)
        if not isinstance(built, RecordAttack):
            raise _no_attack(name, "RecordAttack")
        yield built


def reference_attacks(
    domain: Domain,
    release: Rows,
    *,
    reference: Rows,
    rng: np.random.Generator,
    without: frozenset[str] = frozenset(),
) -> Iterator[ReferenceAttack]:
    """Yield every installed reference attack, built on a release and a reference.

    Args:
        domain: What codes all rows.
        release: int32 (rows, columns).
        reference: int32 (rows, columns), rows that were not audited.
        rng: Of the attacks' choices.
        without: Entry points to leave out.

    Raises:
        InvalidRequest: One is lacking, does not load, or gives something else.
    """
    for name, kind in _installed(REFERENCE_GROUP):
        if name in without:
            continue
        built = kind.build(domain, release, reference=reference, rng=rng)
        if not isinstance(built, ReferenceAttack):
            raise _no_attack(name, "ReferenceAttack")
        yield built


def _installed(group: str) -> list[tuple[str, Any]]:
    points = {point.name: point for point in entry_points(group=group)}
    if lacking := OURS[group] - points.keys():
        raise InvalidRequest(
            "The installed attacks were asked for.",
            f"The installation announces none named {', '.join(sorted(lacking))}.",
            "Install dpsynth again: `pip install` writes down what it announces.",
        )
    found = []
    for name in sorted(points):
        try:
            found.append((name, points[name].load()))
        except (ImportError, AttributeError) as error:
            raise InvalidRequest(
                f"The attack {name!r} was to be loaded.",
                f"Its entry point {points[name].value} names nothing that can be imported.",
                "Install what it needs, or remove the plug-in.",
            ) from error
    return found


def _no_attack(name: str, wanted: str) -> InvalidRequest:
    return InvalidRequest(
        f"The attack {name!r} was built.",
        f"What its entry point gives is not a {wanted}.",
        "Report this to the authors of the plug-in.",
    )
