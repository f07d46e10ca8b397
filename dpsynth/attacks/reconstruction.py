"""Linear reconstruction: the secret of each target, from released rows and all other columns.

Annamalai, Gadotti, Rocher (2023), "A linear reconstruction approach for attribute inference attacks
against synthetic data", arXiv 2301.10053. Counts of released rows that agree with targets on some
columns and have a value of the secret are linear in the unknown secrets, and are solved for them.

What people of a kind have in common may be inferred of anyone, in the data or not. To tell a leak
from that, the targets' secrets are tossed: each is one of two values by a fair coin, so nothing but
the release tells which, and mere inference is right half of the time. A coin changes a unit, which
under a claim about adding or removing one is two steps: see ``docs/explanation/shadow.md``.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.attacks import _shadow_features as features
from dpsynth.attacks import one_run
from dpsynth.attacks._games import Game, Guesses, at_least, guessed, level, p_value
from dpsynth.attacks._watched import Claimed, Seen, WatchedFit, watched_fit
from dpsynth.attacks.canaries import simulated, surrogate_codes
from dpsynth.attacks.shadow import kept_rows
from dpsynth.attacks.statistics import binomial_upper_tail, holm
from dpsynth.domain import Clique
from dpsynth.schema import Schema
from dpsynth.synthesizer import Synthesizer
from dpsynth.vault import Unit
from dpsynth_accounting import InvalidRequest

TARGETS = 100
"""Units whose secrets are reconstructed, unless told otherwise; at most half of all."""

FITS = 16
"""Fits whose coins are guessed, unless told otherwise; one more says what is measured."""

_ROUNDS = 20  # in which noise is estimated from what the solution leaves
_LEAST = 1e-4  # least share of the variance of a drawn count that is reckoned with

Codes = Mapping[str, NDArray[np.int32]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Worst:
    """The target whose secret was told the most often.

    Attributes:
        place: Number of its first row in the surrogate, from 0.
        rows: Its rows.
        correct: Fits in which its secret was guessed rightly.
        p_chance: Probability of so many if nothing were told, exact, corrected by Holm for all
            targets.
    """

    place: int
    rows: int
    correct: int
    p_chance: float


@dataclass(frozen=True)
class Reconstruction:
    """The outcome of a linear reconstruction.

    Attributes:
        method: The mechanism.
        epsilon: Claimed, for adding or removing a unit.
        delta: Claimed, with epsilon.
        unit: ``"row"`` or ``"person"``.
        secret: The column that was reconstructed.
        fits: Independent fits whose coins were guessed.
        targets: Units whose secret was tossed, in each.
        guesses: What was guessed, and how probable that is under the claim.
        correct: Secrets guessed rightly, of all targets and fits.
        p_chance: Probability of so many if nothing were told, exact.
        worst: The target told the most often.
        p_value: Of the claim, corrected for all that was tried.
        epsilon_at_least: Refuted with confidence 99.9 % at ``delta``, corrected too; 0 if none is.
        failed: Whether the claim is refuted.
    """

    method: str
    epsilon: float
    delta: float
    unit: str
    secret: str
    fits: int
    targets: int
    guesses: tuple[Guesses, ...]
    correct: int
    p_chance: float
    worst: Worst
    p_value: float
    epsilon_at_least: float
    failed: bool

    @property
    def sentence(self) -> str:
        """The outcome in a few sentences."""
        tried = f"reconstructing {self.secret!r} of {self.targets} {self.unit}s in {self.fits} fits"
        claim = f"epsilon {self.epsilon:g} at delta {self.delta:g}"
        found = (
            f"{self.correct} of {self.targets * self.fits} secrets right (p = {self.p_chance:.2g} "
            f"against mere chance); the worst {self.unit}, at row {self.worst.place} of the "
            f"surrogate, in {self.worst.correct} of {self.fits} fits (p = {self.worst.p_chance:.2g}"
            f", corrected for all {self.unit}s)."
        )
        if self.failed:
            return (
                f"Fail: releases of {self.method} tell more than it claims: {tried} refutes "
                f"{claim} (p = {self.p_value:.1e}); {at_least(self.epsilon_at_least)}. {found}"
            )
        return (
            f"Not refuted: {tried} does not contradict {claim} of {self.method} (p = "
            f"{self.p_value:.3g}; epsilon at least {self.epsilon_at_least:.2f}). {found}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON data."""
        return {**asdict(self), "sentence": self.sentence}


def reconstruction_attack(
    synthesizer: Synthesizer,
    schema: Schema,
    *,
    epsilon: float | Fraction,
    delta: float | Fraction,
    unit: Unit,
    surrogate: pd.DataFrame | int = 1000,
    secret: str | None = None,
    targets: int | None = None,
    fits: int = FITS,
    rng: np.random.Generator,
) -> Reconstruction:
    """Reconstruct a column of random units of a surrogate table from a mechanism's releases.

    The attacker knows all columns of all rows but the targets' secrets, and of these two values
    each, of which a fair coin chooses one anew in each fit.

    Args:
        synthesizer: The mechanism.
        schema: Public facts about the columns.
        epsilon: What the mechanism claims, at ``delta``, for adding or removing a unit.
        delta: What it claims, with ``epsilon``.
        unit: The unit of privacy. All rows of a person have the secret that the coin chose.
        surrogate: Rows that are *not* private; or how many to simulate, each column uniform and by
            itself, which needs a schema that declares every column.
        secret: The column; by default, of those with two values or more in the surrogate, the one
            with the fewest.
        targets: How many units, drawn at random; by default 100, or half of all if these are fewer.
        fits: How many, at least 1; one more is made to see what the mechanism measures.
        rng: Simulates rows, draws targets, values and released rows. The coins are the system's.

    Charges: nothing. Accounts are made for the fits, and thrown away with their models.

    Raises:
        InvalidRequest: A number is too small, the surrogate lacks a column, has too few units, or
            the secret has no two values, or there is no other column.
    """
    table = simulated(schema, surrogate, unit, rng) if isinstance(surrogate, int) else surrogate
    places, numbers = kept_rows(table, unit)
    table = table.iloc[places].reset_index(drop=True).astype(object)
    units = int(numbers.max(initial=-1)) + 1
    count = min(TARGETS, units // 2) if targets is None else targets
    if fits < 1 or not 1 <= count <= units // 2:
        raise InvalidRequest(
            f"A reconstruction of {count} of {units} units by {fits} fits was asked for.",
            "It takes a fit, a target, and as many units that are no targets.",
            "Give more rows, or fewer targets.",
        )
    rank = np.full(units, -1)
    rank[rng.choice(units, count, replace=False)] = np.arange(count)
    owner = rank[numbers]
    secret, sides = _sides(schema, table, secret, owner, count, rng)
    claimed = Claimed(synthesizer, schema, epsilon, delta, unit)
    first, _, _ = _fit(claimed, secret, sides, owner, count)
    asked = _queries(first.seen, schema.modelled, secret, rng)
    games = []
    for _ in range(fits):
        fit, coins, known = _fit(claimed, secret, sides, owner, count)
        drawn = fit.model.sample_codes(max(round(fit.model.rows), 1), rng=rng)
        codes = [fit.domain.encode(side[owner >= 0]) for side in sides]
        scores = solved(asked, drawn, fit.domain.encode(known), codes, owner[owner >= 0])
        games.append(Game(coins, scores, fit.claim.replaced()))
    starts = [int(places[np.flatnonzero(owner == i)[0]]) for i in range(count)]
    rows = np.bincount(owner[owner >= 0], minlength=count)
    return _judged(claimed, secret, games, list(zip(starts, map(int, rows), strict=True)))


def _sides(
    schema: Schema,
    table: pd.DataFrame,
    secret: str | None,
    owner: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
) -> tuple[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Return the secret's name, and the table with either of two values for each target's.

    Raises:
        InvalidRequest: The secret is no modelled column, or has no two values.
    """
    _, codes, _, _ = surrogate_codes(schema, table)
    values = {name: np.unique(found).size for name, found in codes.items()}
    name = secret
    if name is None:
        name = min((n for n in values if values[n] > 1), key=lambda n: values[n], default=None)
    if name is None or values.get(name, 0) < 2 or len(values) < 2:
        raise InvalidRequest(
            "A column was to be reconstructed" + (f": {name!r}." if name else "."),
            "It takes a modelled column of two values or more in the surrogate, and another one.",
            f"The modelled columns are {', '.join(values)}.",
        )
    found, first = np.unique(codes[name], return_index=True)
    raw = table[name].to_numpy(dtype=object)[first]
    pairs = np.array([rng.choice(len(found), 2, replace=False) for _ in range(count)])
    sides = []
    for side in (0, 1):
        column = table[name].to_numpy(dtype=object).copy()
        column[owner >= 0] = raw[pairs[owner[owner >= 0], side]]
        sides.append(table.assign(**{name: column}))
    return name, (sides[0], sides[1])


def _fit(
    claimed: Claimed,
    secret: str,
    sides: tuple[pd.DataFrame, pd.DataFrame],
    owner: NDArray[np.int64],
    count: int,
) -> tuple[WatchedFit, NDArray[np.bool_], pd.DataFrame]:
    """Toss the coins and fit once; return the fit, the coins, and the rows of no target."""
    coins = np.array([secrets.randbits(1) == 1 for _ in range(count)])
    second = np.zeros(len(owner), dtype=np.bool_)
    second[owner >= 0] = coins[owner[owner >= 0]]
    tossed = np.where(second, sides[1][secret], sides[0][secret])
    fit = watched_fit(claimed, sides[0].assign(**{secret: tossed}), "reconstruction")
    return fit, coins, sides[0][owner < 0]


def _queries(
    seen: Sequence[Seen], names: Sequence[str], secret: str, rng: np.random.Generator
) -> list[Clique]:
    """Return sets of columns with the secret: those measured, all, and some of each width."""
    others = [name for name in names if name != secret]
    found = [each for each in features.focal_marginals([seen], names) if secret in each]
    found += [(*each, secret) for each in features.queries(others, rng)]
    return list(dict.fromkeys(tuple(sorted(each)) for each in found))


def solved(
    asked: Sequence[Clique],
    release: Codes,
    known: Codes,
    sides: Sequence[Codes],
    owner: NDArray[np.int64],
) -> Floats:
    """Return how far each target's coin is estimated above a half, float64 (targets,).

    A count of released rows, scaled to the size of the table, is that of the known rows, plus those
    of targets whose coin says so, plus noise: of drawing, about the count, times a factor of each
    set of columns, of which some are kept better than others. Of such a linear model, with the
    variance of a coin, the least squares have a closed form, and the likeliest factors follow by
    expectation and maximisation. A linear programme would minimise the sum of absolute errors
    instead, at many times the cost, for noise of heavier tails, and weigh all sets alike.

    Args:
        asked: Sets of columns, each with the secret.
        release: Codes of the released rows.
        known: Codes of all rows that are no targets'.
        sides: Codes of the targets' rows with the first and with the second value.
        owner: int64 (rows,): the target of each of these rows, from 0.
    """
    from scipy import sparse

    count = int(owner.max()) + 1
    parts, answers, weights = [], [], []
    rows = [len(next(iter(each.values()))) for each in (release, known, *sides)]
    scale = (rows[1] + rows[2]) / max(rows[0], 1)
    for clique in asked:
        both = [np.concatenate([c[name] for c in (release, known, *sides)]) for name in clique]
        _, place = np.unique(np.stack(both), axis=1, return_inverse=True)
        drawn, there, first, second = np.split(place.reshape(-1), np.cumsum(rows)[:-1])
        cells = int(place.max()) + 1
        counts = [np.bincount(each, minlength=cells) for each in (drawn, there, first, second)]
        there_, first_, second_ = counts[1:]
        one = np.ones(len(owner))
        matrix = sparse.csr_array(
            (
                np.concatenate([one, -one]),
                (np.concatenate([second, first]), np.concatenate([owner, owner])),
            ),
            shape=(cells, count),
        )
        hit = np.flatnonzero(first_ + second_)
        parts.append(matrix[hit])
        answers.append((scale * counts[0] - there_ - (first_ + second_) / 2)[hit])
        weights.append(1 / (there_ + (first_ + second_) / 2 + 0.5)[hit])
    systems = [
        ((part.T @ (part * w[:, None])).toarray(), part.T @ (w * answer))
        for part, answer, w in zip(parts, answers, weights, strict=True)
    ]
    factors = np.ones(len(asked))
    found: Floats = np.zeros(count)
    for _ in range(_ROUNDS):
        gram = sum((g / f for (g, _), f in zip(systems, factors, strict=True)), 4 * np.eye(count))
        told = sum((t / f for (_, t), f in zip(systems, factors, strict=True)), np.zeros(count))
        left = np.linalg.inv(gram)
        found = left @ told
        for i, (part, answer, w) in enumerate(zip(parts, answers, weights, strict=True)):
            misses = float(w @ (answer - part @ found) ** 2) + float((left * systems[i][0]).sum())
            factors[i] = max(misses / len(w), _LEAST)
    return found


def _judged(
    claimed: Claimed,
    secret: str,
    games: Sequence[Game],
    where: Sequence[tuple[int, int]],
) -> Reconstruction:
    delta = claimed.pair[1]
    tried = guessed(games, *one_run.replaced_pair(*claimed.pair))
    right = np.array([(game.scores > 0) == game.coins for game in games])
    each = right.sum(axis=0)
    chance = holm([binomial_upper_tail(int(hits), len(games)) for hits in each])
    worst = int(each.argmax())
    p = p_value(tried)
    return Reconstruction(
        claimed.synthesizer.name,
        *claimed.pair,
        claimed.of,
        secret,
        len(games),
        len(where),
        tried,
        int(right.sum()),
        binomial_upper_tail(int(right.sum()), right.size),
        Worst(*where[worst], int(each[worst]), chance[worst]),
        p,
        max(
            one_run.pair_lower_bound(
                found.correct,
                found.guesses,
                len(where),
                delta,
                level(tried),
                replaced=True,
            )
            for found in tried
        ),
        p < 1 - one_run.LEVEL,
    )
