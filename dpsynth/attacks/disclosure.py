"""The three risks of the Article 29 Working Party's Opinion 05/2014 (WP216) on anonymisation.

Singling out, linkability and inference, each as attacks on units that were in (*main*), on units
held out (*control*: what knowing the population gives) and by a guess that uses no link between
columns (*baseline*), as Giomi, Boenisch, Wehmeyer, Tasnádi 2023 (*Anonymeter*, PoPETs 2023/2)
propose. A risk is what the main attack gains over the control, of what could be gained:

    (main - control) / (1 - control).

Here an attack succeeds on a unit, not on a guess: guesses on one unit are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks._shared import index_of
from dpsynth.attacks.comparison import LEVEL, Comparison, Figure, compare_hits
from dpsynth.attacks.copies import sub_domain
from dpsynth.attacks.neighbours import LARGEST_SCALE, Neighbours, nearest_among
from dpsynth.attacks.statistics import Interval, wilson
from dpsynth.attacks.targets import Rows, Side, Targets
from dpsynth.domain import Domain

PREDICATES = 1000
"""Predicates of several columns that singling out tries."""

PREDICATE_WIDTH = 4
"""Columns of each."""

SECRETS = 3
"""Columns that inference guesses."""

MOST_VALUES = 40
"""Most codes of a column that is guessed, if they have no order; else it is cut into 8 groups."""

_GROUPS = 8


@dataclass(frozen=True)
class Risk:
    """What one attack gains on units that were in.

    Attributes:
        comparison: Main against control.
        baseline: Rate of success on units that were in by a guess without any link.
        risk: Gain of main over control, of what could be gained, with the interval of the excess.
        about: What the attack used.
    """

    comparison: Comparison
    baseline: Figure
    risk: Figure
    about: str


def singling_out(
    domain: Domain, release: Rows, targets: Targets, *, rng: np.random.Generator
) -> dict[str, Risk]:
    """Look for predicates that hold for one synthetic row and for one unit of all attacked.

    Of one column: a value that occurs once in the release, and being beyond its second greatest or
    second least value. Of four: the values of a random synthetic row where columns are nominal,
    and being on its side of the median where they are ordered. The baseline's predicates come from
    the release with each column shuffled by itself.

    Args:
        domain: What codes all rows.
        release: int32 (rows, columns).
        targets: Units that were in, and units held out.
        rng: Draws predicates.
    """
    columns = np.ascontiguousarray(release.T)
    shuffled = np.stack([rng.permutation(column) for column in columns])
    found = {}
    for kind in ("one column", "several columns"):
        singled = []
        for table in (columns, shuffled):
            draw = _of_one if kind == "one column" else _of_several
            sets = draw(domain, table, rng)
            singled.append((len(sets), _singled(sets, targets)))
        (tried, main), (_, base) = singled
        about = f"{tried} predicates of {kind} that hold for one synthetic row"
        found[f"singling out by {kind}"] = _risk(main[0], main[1], base[0], about)
    return found


Predicate = tuple[tuple[int, int, int], ...]
"""For each column of it, the least and the greatest code that fulfil it."""


def _of_one(domain: Domain, columns: Rows, rng: np.random.Generator) -> list[Predicate]:
    """Return predicates of one column; of int32 (columns, rows), as all below."""
    del rng
    found: list[Predicate] = []
    for j, name in enumerate(domain.names):
        counts = np.bincount(columns[j], minlength=domain.size(name))
        found += [((j, int(code), int(code)),) for code in np.flatnonzero(counts == 1)]
        ordered = domain.ordered(name)
        seen = np.flatnonzero(counts[:ordered])
        if len(seen) > 1 and counts[seen[-1]] == 1:
            found.append(((j, int(seen[-2]) + 1, ordered - 1),))
        if len(seen) > 1 and counts[seen[0]] == 1:
            found.append(((j, 0, int(seen[1]) - 1),))
    return sorted(set(found))


def _of_several(domain: Domain, columns: Rows, rng: np.random.Generator) -> list[Predicate]:
    width = min(PREDICATE_WIDTH, len(columns))
    medians = [int(np.median(column)) for column in columns]
    tried: set[Predicate] = set()
    for place in rng.integers(0, columns.shape[1], PREDICATES):
        part = []
        for j in sorted(rng.choice(len(columns), width, replace=False).tolist()):
            code, ordered = int(columns[j, place]), domain.ordered(domain.names[j])
            low, high = code, code
            if code < ordered:
                low, high = (code, ordered - 1) if code >= medians[j] else (0, code)
            part.append((j, low, high))
        tried.add(tuple(part))
    return [each for each in sorted(tried) if len(_holds(each, columns)) == 1]


def _holds(predicate: Predicate, columns: Rows) -> NDArray[np.intp]:
    """Return the rows that a predicate holds for."""
    held = np.ones(columns.shape[1], dtype=bool)
    for j, low, high in predicate:
        column = columns[j]
        held &= column == low if low == high else (column >= low) & (column <= high)
    return np.flatnonzero(held)


def _singled(predicates: list[Predicate], targets: Targets) -> list[NDArray[np.bool_]]:
    """Return which units of each side some predicate holds for, and for no other unit."""
    inside, outside = targets.sides
    columns = np.concatenate([inside.rows, outside.rows]).T.copy()
    units = np.concatenate([inside.numbers, inside.units + outside.numbers])
    found = np.zeros(targets.units, dtype=bool)
    for predicate in predicates:
        held = np.unique(units[_holds(predicate, columns)])
        if len(held) == 1:
            found[held[0]] = True
    return [found[: inside.units], found[inside.units :]]


def linkability(
    domain: Domain, release: Rows, targets: Targets, *, rng: np.random.Generator
) -> Risk | None:
    """Link two halves of a record: one synthetic row is the nearest to it in both halves.

    Someone who holds each half of the columns, without names, joins them through the release. That
    one row is nearest in both, ties counted, is the same as: the least distance over all columns is
    the sum of the least distances over the halves. The baseline's release has one half shuffled
    against the other.

    Args:
        domain: What codes all rows.
        release: int32 (rows, columns).
        targets: Units that were in, and units held out.
        rng: Draws the halves.

    Returns:
        The risk; None with fewer than two columns.
    """
    columns = len(domain.names)
    if columns < 2:
        return None
    order = rng.permutation(columns)
    halves = [sorted(order[: columns // 2].tolist()), sorted(order[columns // 2 :].tolist())]
    apart = release.copy()
    apart[:, halves[0]] = release[rng.permutation(len(release))][:, halves[0]]
    parts = []
    for half in halves:
        part = sub_domain(domain, tuple(domain.names[j] for j in half))
        parts.append((half, Neighbours(release[:, half], part)))

    def linked(side: Side, whole: Neighbours) -> NDArray[np.bool_]:
        least = sum(
            index.distances(side.rows[:, half])[:, 0] / index.gower.scale for half, index in parts
        )
        # Positions are rounded to a grid, by as much as this in each column.
        most = least + columns / LARGEST_SCALE
        within = np.ceil(most * whole.gower.scale).astype(np.int64)
        near = whole.distances(side.rows, within=within)[:, 0] / whole.gower.scale
        return side.any(near <= most)

    whole = index_of(release, domain)
    main, control = (linked(side, whole) for side in targets.sides)
    base = linked(targets.inside, Neighbours(apart, domain))
    return _risk(main, control, base, "two random halves of the columns")


def inference(
    domain: Domain, release: Rows, targets: Targets, *, rng: np.random.Generator
) -> dict[str, Risk]:
    """Guess a column of a record from all others: by the nearest synthetic row.

    Guessed are the three columns that are hardest to guess in the release; one in order is cut into
    eight groups of about equal size. Ties are broken at random. The baseline says the most frequent
    value.

    Args:
        domain: What codes all rows.
        release: int32 (rows, columns).
        targets: Units that were in, and units held out.
        rng: Breaks ties.
    """
    if len(domain.names) < 2:
        return {}
    found = {}
    for j, groups in hardest(domain, release):
        rest = [i for i in range(len(domain.names)) if i != j]
        part = sub_domain(domain, tuple(domain.names[i] for i in rest))
        values = groups[release[:, j]]
        kinds = np.unique(values)
        indices = [Neighbours(release[values == kind][:, rest], part) for kind in kinds]
        usual = int(np.bincount(values).argmax())
        right, base = [], []
        for side in targets.sides:
            far = nearest_among(side.rows[:, rest], indices)
            # Half a step at most is added: it decides between equals alone.
            guess = kinds[(far + rng.random(far.shape) / 2).argmin(axis=1)]
            truth = groups[side.rows[:, j]]
            right.append(side.any(guess == truth))
            base.append(side.any(truth == usual))
        about = f"{len(kinds)} values, from the other columns"
        found[f"inference of {domain.names[j]}"] = _risk(right[0], right[1], base[0], about)
    return found


def hardest(domain: Domain, release: Rows) -> list[tuple[int, NDArray[np.int64]]]:
    """Return the columns that are hardest to guess, each with a map of its codes to groups."""
    found = []
    for j, name in enumerate(domain.names):
        size, ordered = domain.size(name), domain.ordered(name)
        groups = np.arange(size, dtype=np.int64)
        if ordered > _GROUPS:
            counts = np.bincount(release[:, j], minlength=size)[:ordered]
            middle = (np.cumsum(counts) - counts / 2) / max(int(counts.sum()), 1)
            inside = np.minimum((middle * _GROUPS).astype(np.int64), _GROUPS - 1)
            groups = np.concatenate([inside, _GROUPS + np.arange(size - ordered)])
        elif size > MOST_VALUES:
            continue
        shares = np.bincount(groups[release[:, j]]) / len(release)
        known = shares[shares > 0]
        found.append((float(-(known * np.log(known)).sum()), j, groups))
    found.sort(key=lambda each: (-each[0], each[1]))
    return [(j, groups) for entropy, j, groups in found[:SECRETS] if entropy > 0]


def _risk(
    main: NDArray[np.bool_], control: NDArray[np.bool_], base: NDArray[np.bool_], about: str
) -> Risk:
    compared = compare_hits(main, control)
    left = max(1 - compared.rate_out.value, 1e-12)
    low, high = (
        max(end / left, -1.0)
        for end in (compared.excess.interval.low, compared.excess.interval.high)
    )
    hits = int(base.sum())
    return Risk(
        compared,
        Figure(hits / max(len(base), 1), wilson(hits, len(base), LEVEL)),
        Figure(
            max(compared.excess.value / left, -1.0), Interval(min(low, 1.0), min(high, 1.0), LEVEL)
        ),
        about,
    )
