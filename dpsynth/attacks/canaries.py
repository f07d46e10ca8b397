"""The canary audit: made-up units put in or held out by coins, and guessed from what was shown.

A few runs, each with many canaries (Steinke, Nasr, Jagielski 2023), on a surrogate table: rows that
are public, simulated, or drawn from an earlier release. The mechanism is fitted in a vault of its
own on an account that is thrown away, so an audit costs no budget. The attacker knows the surrogate
and sees every noisy marginal. Claims are refuted, never proved.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.attacks import one_run
from dpsynth.attacks._decode import scores
from dpsynth.attacks._games import Game, Guesses, at_least, guessed, p_value
from dpsynth.attacks._games import level as confidence
from dpsynth.attacks._watched import Canaries, Claimed, watched_fit
from dpsynth.attacks.statistics import auc
from dpsynth.domain import Domain, resolve
from dpsynth.schema import Schema
from dpsynth.synthesizer import Synthesizer
from dpsynth.vault import Person, Unit
from dpsynth_accounting import InvalidRequest

CANARIES = 100
"""Canaries of a run, unless told otherwise."""

RUNS = 12
"""Runs of an audit, unless told otherwise."""

_ODDS = 4.0  # log odds of a fair coin for each unit by which its estimate is off a half
_TRIES = 16  # proposals for each canary
_BUCKETS = 32  # into which the codes of a column are put where proposals are weighed
_SIGMA2 = 4.0  # variance that a cell is taken to have where proposals are weighed


@dataclass(frozen=True)
class CanaryAudit:
    """The outcome of a canary audit.

    Attributes:
        method: The mechanism.
        epsilon: Claimed.
        delta: Claimed.
        runs: Independent fits.
        canaries: Canaries of each.
        guesses: What was guessed, and how probable that is under the claim.
        p_value: Of the claim, corrected for all that was tried.
        epsilon_at_least: Refuted with confidence 99.9 % at ``delta``, corrected too; 0 if none is.
        gaussian_mu_at_least: The same for mechanisms that are Gaussian: a diagnosis.
        area: Area under the ROC curve of the scores: what an attacker can tell on average.
        failed: Whether the claim is refuted.
    """

    method: str
    epsilon: float
    delta: float
    runs: int
    canaries: int
    guesses: tuple[Guesses, ...]
    p_value: float
    epsilon_at_least: float
    gaussian_mu_at_least: float
    area: float
    failed: bool

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        tried = f"{self.runs} runs with {self.canaries} canaries each"
        claim = f"epsilon {self.epsilon:g} at delta {self.delta:g}"
        if self.failed:
            return (
                f"Fail: {self.method} tells more than it claims. {tried} refute {claim} "
                f"(p = {self.p_value:.1e}); {at_least(self.epsilon_at_least)}."
            )
        return (
            f"Not refuted: {tried} do not contradict {claim} of {self.method} "
            f"(p = {self.p_value:.3g}; epsilon at least {self.epsilon_at_least:.2f}). "
            "An audit can refute a claim, not prove it."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON data."""
        return {**asdict(self), "sentence": self.sentence}


def canary_audit(
    synthesizer: Synthesizer,
    schema: Schema,
    *,
    epsilon: float | Fraction,
    delta: float | Fraction,
    unit: Unit,
    surrogate: pd.DataFrame | int = 1000,
    canaries: int = CANARIES,
    runs: int = RUNS,
    rng: np.random.Generator,
) -> CanaryAudit:
    """Audit a mechanism with canaries in a surrogate table.

    Args:
        synthesizer: The mechanism.
        schema: Public facts about the columns.
        epsilon: What the mechanism claims, at ``delta``.
        delta: What it claims, with ``epsilon``.
        unit: The unit of privacy. A canary person has as many rows as a person may have, all alike.
        surrogate: Rows that are *not* private; or how many to simulate, each column uniform and by
            itself, which needs a schema that declares every column.
        canaries: Canaries of each run, at least 10.
        runs: How many fits, at least 1.
        rng: Chooses canaries and simulated rows. The coins are the system's.

    Charges: nothing. Accounts are made for the runs, and thrown away with their models.

    Raises:
        InvalidRequest: A number is too small, the surrogate lacks a column, or the mechanism
            measures no marginal.
    """
    if canaries < 10 or runs < 1:
        raise InvalidRequest(
            f"An audit of {runs} runs with {canaries} canaries was asked for.",
            "It takes at least one run and ten canaries.",
            f"Leave them at their defaults, {RUNS} and {CANARIES}.",
        )
    table = simulated(schema, surrogate, unit, rng) if isinstance(surrogate, int) else surrogate
    claimed = Claimed(synthesizer, schema, epsilon, delta, unit)
    games = [_game(claimed, table, canaries, rng) for _ in range(runs)]
    tried = guessed(games, *claimed.pair)
    p, level = p_value(tried), confidence(tried)
    bounds = [
        (
            one_run.pair_lower_bound(each.correct, each.guesses, canaries, float(delta), level),
            one_run.gaussian_lower_bound(each.correct, each.guesses, canaries, level),
        )
        for each in tried
    ]
    inside = np.concatenate([game.scores[game.coins] for game in games])
    outside = np.concatenate([game.scores[~game.coins] for game in games])
    return CanaryAudit(
        synthesizer.name,
        *claimed.pair,
        runs,
        canaries,
        tried,
        p,
        max(pair for pair, _ in bounds),
        max(mu for _, mu in bounds),
        auc(inside, outside).value if len(inside) and len(outside) else 0.5,
        p < 1 - one_run.LEVEL,
    )


def _game(claimed: Claimed, table: pd.DataFrame, canaries: int, rng: np.random.Generator) -> Game:
    """Fit once to the surrogate with the canaries whose coin says so; guess all coins."""
    unit = claimed.unit
    made = chosen_canaries(claimed.schema, table, canaries, rng)
    coins = np.array([secrets.randbits(1) == 1 for _ in range(canaries)])
    entering = made[coins].loc[lambda frame: frame.index.repeat(unit.rows)]
    whole, known = _joined(table, entering, unit)
    fit = watched_fit(claimed, whole, "canary audit", Canaries(made, known))
    if not fit.seen and fit.trained is None:
        raise InvalidRequest(
            "A mechanism was to be audited by its noisy marginals and gradients.",
            "It measured no marginal, and trained on nothing.",
            "Audit a mechanism that measures or trains.",
        )
    odds = np.zeros(canaries) if fit.trained is None else fit.trained
    if fit.seen:
        mine, theirs = fit.domain.encode(made), fit.domain.encode(known)
        odds = odds + _ODDS * scores(fit.seen, theirs, mine, unit.rows)
    return Game(coins, odds, fit.claim)


def _joined(
    table: pd.DataFrame, entering: pd.DataFrame, unit: Unit
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the surrogate with the canaries that are in, and its rows that a fit surely keeps."""
    known, made = table.astype(object), entering.astype(object)
    if isinstance(unit, Person):
        # Which rows of a person are kept is secret: none of the surrogate's has more than are kept.
        known = known[known[unit.column].notna()]
        known[unit.column] = "row " + known[unit.column].astype(str)
        known = known[known.groupby(unit.column).cumcount() < unit.rows]
        made[unit.column] = [f"canary {name}" for name in made.index]
    return pd.concat([known, made], ignore_index=True), known


def simulated(schema: Schema, rows: int, unit: Unit, rng: np.random.Generator) -> pd.DataFrame:
    """Return made-up rows of a schema, each column uniform over its codes and by itself.

    Persons have as many rows as they may.

    Raises:
        InvalidRequest: The schema leaves columns open.
    """
    if schema.undeclared:
        raise InvalidRequest(
            "Rows were to be simulated from a schema.",
            f"It leaves columns open: {', '.join(schema.undeclared)}.",
            "Give a surrogate table, such as rows drawn from an earlier release.",
        )
    domain = resolve(schema, categories={}, bounds={})
    codes = {n: rng.integers(0, domain.size(n), rows) for n in domain.names}
    table = domain.decode(codes, rng=rng)
    if isinstance(unit, Person):
        table[unit.column] = np.arange(rows) // unit.rows
    return table


def chosen_canaries(
    schema: Schema, table: pd.DataFrame, count: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Return units of rare combinations, one row each: of several proposals the loneliest.

    A proposal is uniform over the codes of declared columns, and over the surrogate's values of
    the others. It is weighed by the sum over pairs of columns of 1 / (rows in its cell + a noise):
    what each cell can tell of it, where rows and earlier canaries in the same cell are in the way.

    Args:
        schema: Public facts about the columns.
        table: The surrogate.
        count: How many.
        rng: Draws the proposals.
    """
    domain, codes, sizes, pools = surrogate_codes(schema, table)
    names = list(sizes)
    shared = {name: max(1, -(-sizes[name] // _BUCKETS)) for name in names}

    def bucket(name: str, code: NDArray[Any]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.asarray(code, dtype=np.int64) // shared[name]
        return found

    pairs = [(a, b) for i, a in enumerate(names) for b in names[:i]] or [(n, n) for n in names]
    counts = {pair: np.zeros((_BUCKETS, _BUCKETS)) for pair in pairs}
    for a, b in pairs:
        np.add.at(counts[a, b], (bucket(a, codes[a]), bucket(b, codes[b])), 1)
    taken: dict[str, list[int]] = {name: [] for name in names}
    for _ in range(count):
        tried = {name: rng.integers(0, sizes[name], _TRIES) for name in names}
        put = {name: bucket(name, tried[name]) for name in names}
        told = sum(1 / (counts[a, b][put[a], put[b]] + _SIGMA2) for a, b in pairs)
        best = int(np.argmax(told))
        for a, b in pairs:
            counts[a, b][put[a][best], put[b][best]] += 1
        for name in names:
            taken[name].append(int(tried[name][best]))
    drawn = {name: np.array(found, dtype=np.int64) for name, found in taken.items()}
    made = domain.decode({name: drawn[name] for name in domain.names}, rng=rng)
    if not domain.names:
        made = pd.DataFrame(index=range(count))
    for name, pool in pools.items():
        made[name] = pool[drawn[name]]
    return made[list(names)]


def surrogate_codes(
    schema: Schema, table: pd.DataFrame
) -> tuple[Domain, dict[str, NDArray[Any]], dict[str, int], dict[str, NDArray[Any]]]:
    """Return what codes the declared columns, codes and sizes of all, and the values of others.

    Args:
        schema: Public facts about the columns.
        table: Rows that are *not* private: columns left open are coded by their values.

    Raises:
        InvalidRequest: The table lacks a column.
    """
    if lacking := [name for name in schema.undeclared if name not in table]:
        raise InvalidRequest(
            "A mechanism was to be audited on a surrogate.",
            f"It lacks the columns {', '.join(map(repr, lacking))}.",
            "Give a table with every modelled column of the schema.",
        )
    declared = schema.only(set(schema.modelled) - set(schema.undeclared))
    domain = resolve(declared, categories={}, bounds={})
    codes: dict[str, NDArray[Any]] = {**domain.encode(table)} if domain.names else {}
    sizes = {name: domain.size(name) for name in domain.names}
    pools: dict[str, NDArray[Any]] = {}
    for name in schema.undeclared:
        place, values = pd.factorize(table[name], use_na_sentinel=False)
        codes[name], sizes[name], pools[name] = place, len(values), np.asarray(values)
    return domain, codes, sizes, pools
