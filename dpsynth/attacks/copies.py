"""The copy detector: nearest neighbours on all columns and on groups of them.

It finds rows that were copied, whole or in part. That it finds none measures no privacy: tables
that pass it can give away who was in them (Yao, Krčo, Ganev, de Montjoye 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpsynth.attacks._shared import index_of
from dpsynth.attacks.comparison import ScoreComparison, compare_scores
from dpsynth.attacks.membership import softening
from dpsynth.attacks.neighbours import Neighbours, nearest_among
from dpsynth.attacks.statistics import Interval, wilson
from dpsynth.attacks.targets import Rows, Targets, some
from dpsynth.domain import Domain

GROUPS = 3
"""Random halves of the columns that are looked at beside all of them."""

FEWEST_COLUMNS = 4
"""Fewest columns of a table of which halves are looked at."""


@dataclass(frozen=True)
class NearestShare:
    """Share of synthetic rows that are nearer to a unit that was in than to one held out.

    A description, not a test: rows near one unit are not independent.

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
class Copies:
    """What the copy detector found.

    Attributes:
        share: Of synthetic rows, on all columns.
        nearest: By minus the distance to the nearest synthetic row, by the columns looked at.
        nearest_to_second: By minus the distance to the nearest synthetic row over that to the
            second nearest (NNDR), by the columns looked at.
        groups: The columns looked at, beside all.
    """

    share: NearestShare
    nearest: dict[str, ScoreComparison]
    nearest_to_second: dict[str, ScoreComparison]
    groups: dict[str, tuple[str, ...]]


def copies(
    domain: Domain,
    release: Rows,
    targets: Targets,
    *,
    most_rows: int,
    rng: np.random.Generator,
) -> Copies:
    """Look for copies; both sides and the release hold a row at least.

    Args:
        domain: What codes all rows.
        release: int32 (rows, columns).
        targets: Audited units that were in, and units held out.
        most_rows: Most synthetic rows of which a nearest unit is sought.
        rng: Draws subsamples and groups of columns.
    """
    groups: dict[str, tuple[str, ...]] = {}
    if len(domain.names) >= FEWEST_COLUMNS:
        for number in range(1, GROUPS + 1):
            picked = rng.choice(len(domain.names), len(domain.names) // 2, replace=False)
            groups[f"group {number}"] = tuple(domain.names[j] for j in sorted(picked))
    nearest, second = {}, {}
    for label, names in {"all columns": domain.names, **groups}.items():
        part, table, rows = domain, release, targets.rows
        if names != domain.names:
            places = [domain.names.index(name) for name in names]
            part, table, rows = sub_domain(domain, names), release[:, places], rows[:, places]
        index, soft = index_of(table, part), softening(part)
        far = index.distances(rows, 2) / max(index.gower.unit, 1)
        ratio = (far[:, 0] + soft) / (far[:, 1] + soft)
        nearest[label] = compare_scores(*targets.highest(-far[:, 0]))
        second[label] = compare_scores(*targets.highest(-ratio))
    share = _share(domain, some(release, most_rows, rng), targets, rng)
    return Copies(share, nearest, second, groups)


def sub_domain(domain: Domain, names: tuple[str, ...]) -> Domain:
    """Return the domain of some columns."""
    return Domain({name: domain.codecs[name] for name in names}, names)


def _share(
    domain: Domain, synthetic: Rows, targets: Targets, rng: np.random.Generator
) -> NearestShare:
    # The larger side would be nearer by its size alone.
    units = min(side.units for side in targets.sides)
    sides = [Neighbours(some(side.one_row_each(rng), units, rng), domain) for side in targets.sides]
    to_in, to_out = nearest_among(synthetic, sides).T
    tied = float(np.mean(to_in == to_out))
    nearer = float(np.sum(to_in < to_out) + 0.5 * np.sum(to_in == to_out))
    rows = len(synthetic)
    return NearestShare(nearer / rows, wilson(nearer, rows), tied, rows, units)
