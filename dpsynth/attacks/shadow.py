"""Shadow attacks: is a given record in the data that a release was made of?

The records of a surrogate table that are the most isolated are put in or held out by coins, fit
after fit; from half of the fits an attacker learns what a release looks like with and without each
of them, and guesses the coins of the other half. The attacker reads released rows alone. All fits
are made in a vault of their own on rows that are not private and on accounts that are thrown away,
so an attack costs no budget. Claims are refuted, never proved.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.attacks import _shadow_features as features
from dpsynth.attacks import one_run
from dpsynth.attacks._shadow_findings import ATTACKS, ShadowAttack, judged
from dpsynth.attacks._watched import Claimed, Seen, watched_fit
from dpsynth.attacks.canaries import simulated, surrogate_codes
from dpsynth.attacks.neighbours import Gower
from dpsynth.domain import Domain
from dpsynth.schema import Schema
from dpsynth.synthesizer import Synthesizer
from dpsynth.vault import Person, Unit
from dpsynth_accounting import InvalidRequest

TARGETS = 20
"""Units attacked, unless told otherwise."""

FITS = 128
"""Fits of an attack, unless told otherwise: half to learn from, half to guess."""

FEWEST_FITS = 16
"""Fewest fits of an attack."""

NEIGHBOURS = 5
"""Nearest rows of other units, whose mean distance says how isolated a row is."""

MOST_COMPARED = 5_000
"""Most rows that isolation is measured against: beyond it, random ones."""

_STRENGTH = 0.05  # inverse of the ridge of the regression: many features, few fits
_BLOCK = 256  # rows whose distances are held at once

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Shadow:
    coins: NDArray[np.bool_]
    seen: list[Seen]
    claim: one_run.Claim
    release: dict[str, NDArray[np.int32]]
    reference: dict[str, NDArray[np.int32]]
    target: dict[str, NDArray[np.int32]]


def shadow_attack(
    synthesizer: Synthesizer,
    schema: Schema,
    *,
    epsilon: float | Fraction,
    delta: float | Fraction,
    unit: Unit,
    surrogate: pd.DataFrame | int = 1000,
    targets: int = TARGETS,
    fits: int = FITS,
    rng: np.random.Generator,
) -> ShadowAttack:
    """Attack a mechanism's releases of a surrogate table, with and without its isolated units.

    Args:
        synthesizer: The mechanism.
        schema: Public facts about the columns.
        epsilon: What the mechanism claims, at ``delta``.
        delta: What it claims, with ``epsilon``.
        unit: The unit of privacy. A person is attacked with all rows that are kept of one.
        surrogate: Rows that are *not* private; or how many to simulate, each column uniform and by
            itself, which needs a schema that declares every column.
        targets: Units attacked, the most isolated ones, at most half of all.
        fits: How many, at least 16: half to learn from, half to guess.
        rng: Simulates rows, chooses queries, draws the released rows. The coins are the system's.

    Charges: nothing. Accounts are made for the fits, and thrown away with their models.

    Raises:
        InvalidRequest: A number is too small, or the surrogate lacks a column or has too few units.
    """
    if targets < 1 or fits < FEWEST_FITS:
        raise InvalidRequest(
            f"A shadow attack on {targets} targets by {fits} fits was asked for.",
            f"It takes at least one target and {FEWEST_FITS} fits.",
            f"Leave them at their defaults, {TARGETS} and {FITS}.",
        )
    table = simulated(schema, surrogate, unit, rng) if isinstance(surrogate, int) else surrogate
    places, numbers = kept_rows(table, unit)
    table = table.iloc[places].reset_index(drop=True)
    units = int(numbers.max(initial=-1)) + 1
    if units < 2 * targets:
        raise InvalidRequest(
            f"A shadow attack on {targets} targets was asked for.",
            f"The surrogate has {units} units, and at least as many have to be no targets.",
            "Give more rows, or fewer targets.",
        )
    lonely = np.argsort(-_isolation(schema, table, numbers, rng), kind="stable")[:targets]
    rank = np.full(units, -1)
    rank[lonely] = np.arange(targets)
    owner = rank[numbers]
    claimed = Claimed(synthesizer, schema, epsilon, delta, unit)
    shadows = [_shadow(claimed, table, owner, targets, rng) for _ in range(fits)]
    scores = _scores(shadows, schema.modelled, owner[owner >= 0], rng)
    coins = np.array([each.coins for each in shadows[fits // 2 :]])
    first = [int(places[np.flatnonzero(owner == i)[0]]) for i in range(targets)]
    rows = np.bincount(owner[owner >= 0], minlength=targets)
    return judged(
        synthesizer.name,
        claimed.pair,
        claimed.of,
        fits,
        coins,
        scores,
        shadows[0].claim,
        list(zip(first, map(int, rows), strict=True)),
    )


def kept_rows(table: pd.DataFrame, unit: Unit) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that a fit surely keeps, and the number of the unit of each."""
    if not isinstance(unit, Person):
        return np.arange(len(table)), np.arange(len(table))
    if unit.column not in table:
        raise InvalidRequest(
            "A shadow attack on persons was asked for.",
            f"The surrogate lacks the column {unit.column!r}.",
            "Give a surrogate that says whose each row is.",
        )
    numbers, _ = pd.factorize(table[unit.column])
    kept = pd.Series(numbers).groupby(numbers).cumcount().to_numpy() < unit.rows
    places = np.flatnonzero(kept & (numbers >= 0))
    return places, np.asarray(numbers[places], dtype=np.int64)


def _isolation(
    schema: Schema, table: pd.DataFrame, numbers: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """Return how isolated each unit is, float64 (units,).

    It is the sum over its rows of the mean Gower distance to the five nearest rows of other units
    (Meeus et al. 2023, "Achilles' heels", section 4; arXiv 2306.10308).
    """
    domain, codes, sizes, _ = surrogate_codes(schema, table)
    ordered = [name for name in domain.names if domain.ordered(name)]
    gower = Gower(Domain.integers(sizes, ordered))
    placed = gower.place(np.column_stack([codes[name] for name in sizes]).astype(np.int32))
    most = min(len(table), MOST_COMPARED)
    compared = np.sort(rng.choice(len(table), most, replace=False))
    nearest = min(NEIGHBOURS, most)
    distance = np.zeros(len(table))
    for begin in range(0, len(table), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        between = gower.between(placed[:, part], placed[:, compared])
        between[numbers[part][:, None] == numbers[compared][None, :]] = gower.unit
        distance[part] = np.partition(between, nearest - 1, axis=1)[:, :nearest].mean(axis=1)
    return np.bincount(numbers, weights=distance / gower.unit).astype(np.float64)


def _shadow(
    claimed: Claimed,
    table: pd.DataFrame,
    owner: NDArray[np.int64],
    targets: int,
    rng: np.random.Generator,
) -> _Shadow:
    """Fit once to the surrogate without the targets whose coin says so, and draw a release."""
    coins = np.array([secrets.randbits(1) == 1 for _ in range(targets)])
    stays = owner < 0
    stays[~stays] = coins[owner[~stays]]
    fit = watched_fit(claimed, table[stays].reset_index(drop=True), "shadow attack")
    drawn = fit.model.sample_codes(max(round(fit.model.rows), 1), rng=rng)
    return _Shadow(
        coins,
        fit.seen,
        fit.claim,
        drawn,
        fit.domain.encode(table[owner < 0]),
        fit.domain.encode(table[owner >= 0]),
    )


def _scores(
    shadows: Sequence[_Shadow],
    names: Sequence[str],
    units: NDArray[np.int64],
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """Return each attack's scores of the second half, float64 (fits, targets): above 0 is "in"."""
    half = len(shadows) // 2
    learnt = np.array([each.coins for each in shadows[:half]])
    focal = features.focal_marginals((each.seen for each in shadows[:half]), names)
    asked = features.queries(names, rng)
    ratios = np.array(
        [features.focal_ratios(focal, s.release, s.reference, s.target, units) for s in shadows]
    )
    counts = np.array([features.query_counts(asked, s.release, s.target, units) for s in shadows])
    # Ratios, from midway between a target's sides on, are weighed alike for all targets; what a
    # count means is each target's own.
    ratios -= _midway(ratios[:half], learnt)
    flat = [part.reshape(-1, len(focal)) for part in (ratios[:half], ratios[half:])]
    matched = _learnt(flat[0], learnt.ravel(), flat[1]).reshape(-1, learnt.shape[1])
    own = [
        _learnt(counts[:half, i], learnt[:, i], counts[half:, i]) for i in range(learnt.shape[1])
    ]
    return dict(zip(ATTACKS, (matched, np.column_stack(own)), strict=True))


def _midway(known: Floats, coins: NDArray[np.bool_]) -> Floats:
    """Return the mean of each target's means with and without it; a side never seen is left out."""
    sides = np.stack([coins, ~coins])[..., None]
    fits = sides.sum(axis=1)
    means = (known * sides).sum(axis=1) / np.maximum(fits, 1)
    found: Floats = (means * (fits > 0)).sum(axis=0) / (fits > 0).sum(axis=0)
    return found


def _learnt(known: Floats, coins: NDArray[np.bool_], asked: Floats) -> Floats:
    """Return the log odds of a ridge logistic regression; all 0 if one side was never seen.

    Both sides weigh alike, as the coins are fair.
    """
    if coins.all() or not coins.any():
        return np.zeros(len(asked))
    from sklearn.linear_model import LogisticRegression

    centre, spread = known.mean(axis=0), known.std(axis=0)
    scale = np.where(spread > 0, spread, np.inf)
    model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=1000)
    model.fit((known - centre) / scale, coins)
    found: Floats = model.decision_function((asked - centre) / scale)
    return found
