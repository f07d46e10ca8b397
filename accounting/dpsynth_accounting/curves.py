"""What an event costs: upper bounds on its privacy curve delta(epsilon).

A price is the least of several bounds, each valid by itself for a fixed plan whose queries (not
parameters) may adapt to earlier answers:

* *Gaussian*, in closed form: discrete Gaussians are, up to a factor too small to matter, a
  post-processing of continuous ones with variance ``sigma2 - SMOOTHING``. Proof:
  ``docs/explanation/discrete-gaussian.md``.
* *privacy-loss distributions* of what has no closed form, composed on a grid
  (``docs/explanation/numerics.md``).
* *choices* by the exponential mechanism, as the worst adversary makes them, on top of either
  (``docs/explanation/exponential-mechanism.md``).
* *the best of several runs*, by a bound on their curve that is put on the same grid
  (``docs/explanation/tuning.md``).
* *zero-concentrated DP* with the conversion of Canonne, Kamath and Steinke (2020, Prop. 12).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from dpsynth_accounting import _laws, _loss
from dpsynth_accounting._bounds import (
    ROUNDING,
    Bound,
    ConcentratedBound,
    GaussianBound,
    MixedBound,
    gaussian_deltas,
    pure_mu,
)
from dpsynth_accounting._choices import Choices, Kinds, grid_of, worst_choices
from dpsynth_accounting._curve import Curve, mu_of
from dpsynth_accounting._loss import Array
from dpsynth_accounting.events import (
    ApproxDP,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Exponential,
    Gaussian,
    GaussianBlock,
    Laplace,
    Parallel,
    RepeatAndSelect,
    SubsampledGaussian,
    flatten,
)
from dpsynth_accounting.renyi import rho

SMOOTHING = 1.5
"""Variance, in squared integers, given up so that the lattice is smooth."""

_ETA = 2.0 * sum(math.exp(-2.0 * math.pi**2 * SMOOTHING * n * n) for n in (1, 2, 3))
PER_SHIFT = math.log1p(_ETA) - math.log1p(-_ETA)
"""Log of the factor by which one moved coordinate can differ from its smoothed twin."""

ACCURACY = 1e-4
"""Relative error of an epsilon that discretisation aims at; it is always upwards."""

_LATTICE_WORTHWHILE = 600  # above this sigma2 smoothing costs less than 0.13 % of the noise
_HOPELESS = 300  # expected loss, in nats, from which no epsilon worth claiming is left
_CELLS, _SEARCH_CELLS = 1 << 21, 1 << 18  # of a composition: certified, and in a search
_PROFILE_POINTS = 2000  # points at which the curve of parallel parts is taken

Leaves: TypeAlias = Iterable[tuple[Event, int]]
"""Leaves of an event, each with how often it occurs."""


@lru_cache(maxsize=256)
def curve(event: Event, *, accuracy: float = ACCURACY) -> Curve:
    """Return the privacy curve of ``event``.

    Args:
        event: A fixed plan; its queries may adapt to earlier answers, its parameters may not.
        accuracy: Relative error of epsilon that discretisation may add (coarser is faster). The
            error is always upwards.
    """
    leaves = [_per_step(leaf, count) for leaf, count in flatten(event)]
    declared = [(leaf, count) for leaf, count in leaves if isinstance(leaf, ApproxDP)]
    proper = [(leaf, count) for leaf, count in leaves if not isinstance(leaf, ApproxDP)]
    base_delta = sum((_own_delta(leaf) * count for leaf, count in leaves), Fraction(0))
    base = sum((leaf.epsilon * count for leaf, count in declared), Fraction(0))
    bounds: list[tuple[Fraction, Bound | None]] = [
        (base, bound) for bound in _bounds(proper, accuracy)
    ]
    if all(isinstance(leaf, Laplace | DiscreteLaplace | Exponential) for leaf, _ in proper):
        # Pure epsilons add up; nothing at all costs nothing.
        pure = base + sum((_pure(leaf) * n for leaf, n in proper), Fraction(0))
        if pure <= _HOPELESS or not bounds:
            bounds.append((pure, None))
    responses = [(ApproxDP(e.epsilon, Fraction(0)), n) for e, n in declared if e.epsilon > 0]
    if responses:
        bounds.extend((Fraction(0), bound) for bound in _bounds([*proper, *responses], accuracy))
    return Curve(tuple(bounds), base_delta)


def _own_delta(event: Event) -> Fraction:
    """Return the probability with which a leaf may fail altogether."""
    match event:
        case ApproxDP(_, delta):
            return Fraction(delta)
        case Parallel(events):
            parts = (flatten(each) for each in events)
            return max(
                sum((_own_delta(leaf) * n for leaf, n in part), Fraction(0)) for part in parts
            )
        case _:
            return Fraction(0)


def _pure(event: Event) -> Fraction:
    """Return the epsilon of a leaf that is epsilon-differentially private with no delta."""
    match event:
        case Laplace(scale, sensitivity) | DiscreteLaplace(scale, sensitivity):
            return Fraction(sensitivity / scale)
        case Exponential(epsilon):
            return Fraction(epsilon)
        case _:
            raise TypeError("only leaves with a pure epsilon have one")


def _per_step(event: Event, count: int) -> tuple[Event, int]:
    """Return a leaf of one step, with how often it occurs."""
    if isinstance(event, SubsampledGaussian):
        one = SubsampledGaussian(event.rate, event.sigma, 1, event.group)
        return one, count * event.steps
    if isinstance(event, Parallel) and len(set(event.events)) == 1:
        inner = flatten(event.events[0])
        if len(inner) == 1:
            return _per_step(inner[0][0], inner[0][1] * count)
    return event, count


def _bounds(parts: Many[tuple[Event, int]], accuracy: float) -> list[Bound]:
    """Return all bounds on leaves taken together; none if there are no leaves."""
    if not parts:
        return []
    costs = [rho(leaf) for leaf, _ in parts]
    bounds: list[Bound] = []
    if all(cost is not None for cost in costs):
        total = sum(
            (cost * n for cost, (_, n) in zip(costs, parts, strict=True) if cost is not None),
            Fraction(0),
        )
        if total > _HOPELESS:
            return [ConcentratedBound(math.inf)]
        bounds.append(ConcentratedBound(float(total)))
    chosen = tuple((float(leaf.epsilon), n) for leaf, n in parts if isinstance(leaf, Exponential))
    others = [(leaf, n) for leaf, n in parts if not isinstance(leaf, Exponential)]
    smooth = _smoothed(others)
    if smooth is not None and not chosen:
        bounds.append(smooth)
    elif smooth is not None:
        choices = _worst_of(chosen, smooth.mu**2, accuracy)
        if choices is not None:
            curve_of_rest = gaussian_deltas(smooth.mu)
            bounds.append(MixedBound((curve_of_rest,), choices, smooth.slack, _loss.SLACK))
    composed = _composed(others, chosen, accuracy)
    if composed is not None:
        bounds.append(composed)
    return bounds or [ConcentratedBound(math.inf)]


def _smoothed(parts: Leaves) -> GaussianBound | None:
    """Return the closed form of leaves that are all Gaussian and smooth, or None."""
    mu2, slack = 0.0, 0.0
    for event, count in parts:
        match event:
            case Gaussian(sigma, sensitivity):
                mu2 += count * float(sensitivity * sensitivity / (sigma * sigma))
            case DiscreteGaussian(sigma2, l2_squared, shifts) if sigma2 > 2 * SMOOTHING:
                mu2 += count * l2_squared / (float(sigma2) - SMOOTHING)
                slack += count * shifts * PER_SHIFT
            case GaussianBlock(precision, least_sigma2, shifts) if least_sigma2 > 2 * SMOOTHING:
                mu2 += count * float(precision)  # of smoothed answers, as a Division counts
                slack += count * shifts * PER_SHIFT
            case Parallel(events):
                found = [_smoothed(flatten(each)) for each in events]
                if any(each is None for each in found):
                    return None
                mu2 += count * max(each.mu**2 for each in found if each is not None)
                slack += count * max(each.slack for each in found if each is not None)
            case _:
                return None
    return GaussianBound(math.sqrt(mu2), slack)


def _worst_of(chosen: Kinds, rest: float, accuracy: float) -> Choices | None:
    """Return what choices do, on a grid as fine as their part of the whole asks for.

    Args:
        chosen: The choices.
        rest: Variance of the loss of everything else.
        accuracy: Relative error allowed in the whole.
    """
    theirs = sum(epsilon * epsilon / 4 * n for epsilon, n in chosen)
    found = grid_of(chosen, 2 * accuracy * (1 + rest / theirs))
    return None if found is None else worst_choices(*found)


def _composed(others: Many[tuple[Event, int]], chosen: Kinds, accuracy: float) -> MixedBound | None:
    """Return the bound by privacy-loss distributions, or None where it cannot win or be built.

    Small lattices and all that is not Gaussian have distributions; the rest is smoothed.
    """
    gridded = [(leaf, n) for leaf, n in others if _has_losses(leaf)]
    smooth = _smoothed([(leaf, n) for leaf, n in others if not _has_losses(leaf)])
    if not gridded or smooth is None:
        return None
    means, variances, counts = zip(*(_moments(leaf, n) for leaf, n in gridded), strict=True)
    if not sum(means) + smooth.mu**2 / 2 < _HOPELESS:
        return None
    variance = sum(variances) + smooth.mu**2
    spread = math.sqrt(variance)
    # The first bounds the variance that rounding adds; the second the error of single atoms, which
    # over many losses averages out.
    count = sum(counts)
    atom = accuracy * spread * max(1.0, math.sqrt(count) / 10)
    interval = min(math.sqrt(8 * accuracy * variance / (count + 1)), atom)
    choices = _worst_of(chosen, variance, accuracy) if chosen else None
    mu = smooth.mu
    if chosen and choices is None:
        # Too many for the worst adversary: each is dominated by a Gaussian answer.
        mu = math.sqrt(mu * mu + sum(pure_mu(epsilon / 2) ** 2 * n for epsilon, n in chosen))
    most = _SEARCH_CELLS if accuracy > ACCURACY else _CELLS
    for _ in range(12):
        try:
            pair = _law_of_all(gridded, mu, count, interval, most, max(accuracy, ACCURACY))
        except OverflowError:  # too fine for memory: a coarser grid is as safe
            interval *= 2
            continue
        return MixedBound(
            tuple(losses.delta for losses in pair), choices, smooth.slack, _loss.slack(count + 1)
        )
    return None


def _law_of_all(
    gridded: Many[tuple[Event, int]],
    mu: float,
    count: int,
    interval: float,
    most: int,
    accuracy: float,
) -> tuple[_loss.Losses, ...]:
    """Return the composed losses for a removed and an added unit; one where they are the same."""
    tail = _loss.TAIL / (count + 1)
    pairs = [(_law(leaf, interval, tail, accuracy), n) for leaf, n in gridded]
    if mu > 0:
        pairs.append((_laws.gaussian(mu, interval, tail), 1))
    removed = _loss.compose([(pair[0], n) for pair, n in pairs], most)
    if all(pair[0] is pair[1] for pair, _ in pairs):
        return (removed,)
    return removed, _loss.compose([(pair[1], n) for pair, n in pairs], most)


def _has_losses(event: Event) -> bool:
    """Say whether a leaf's losses are put on a grid rather than smoothed."""
    match event:
        case Laplace() | DiscreteLaplace() | SubsampledGaussian() | ApproxDP() | RepeatAndSelect():
            return True
        case DiscreteGaussian():
            return _worst_shift(event) is not None
        case Parallel():
            return _smoothed([(event, 1)]) is None
        case _:
            return False


def _moments(event: Event, count: int) -> tuple[float, float, int]:
    """Return mean and variance of a leaf's losses, roughly, and their number."""
    match event:
        case SubsampledGaussian(rate, sigma, _, group):
            mean, variance = _laws.subsampled_moments(float(rate), float(sigma), group)
            return count * mean, count * variance, count
        case Laplace(scale, sensitivity) | DiscreteLaplace(scale, sensitivity):
            pure = float(sensitivity / scale)
            return 0.0, count * pure * pure, count
        case ApproxDP(epsilon, _):
            return 0.0, count * float(epsilon) ** 2, count
        case DiscreteGaussian(sigma2):
            size, coordinates = _worst_shift(event) or (1, 1)
            variance = size * size / float(sigma2)
            return (
                count * coordinates * variance / 2,
                count * coordinates * variance,
                count * coordinates,
            )
        case Parallel(events):
            few = Fraction(1, 10**6)
            rough = [curve(each, accuracy=1e-2) for each in set(events)]
            mu = max(mu_of(each.epsilon(each.base_delta + few), float(few)) for each in rough)
            return count * mu * mu / 2, count * mu * mu, count
        case RepeatAndSelect():
            few = Fraction(1, 10**6)
            mu = mu_of(_best_of(event, 1e-2).top(few), float(few))
            return count * mu * mu / 2, count * mu * mu, count
        case _:
            raise TypeError("only leaves whose losses are put on a grid have their moments taken")


def _law(event: Event, interval: float, tail: float, accuracy: float) -> _laws.Pair:
    """Return a leaf's losses on a grid, for a removed and for an added unit."""
    match event:
        case SubsampledGaussian(rate, sigma, _, group):
            return _laws.subsampled(float(rate), float(sigma), group, interval, tail)
        case Laplace(scale, sensitivity):
            return _laws.laplace(float(sensitivity / scale), interval)
        case DiscreteLaplace(scale, sensitivity):
            return _laws.discrete_laplace(float(scale), sensitivity, interval)
        case ApproxDP(epsilon, _):
            return _laws.pure(float(epsilon), interval)
        case DiscreteGaussian(sigma2):
            size, coordinates = _worst_shift(event) or (1, 1)
            single, _ = _laws.discrete_gaussian(float(sigma2), size, interval, tail)
            law = single if coordinates == 1 else _loss.compose([(single, coordinates)])
            return law, law
        case Parallel():
            return _law_of_parts(event, interval)
        case RepeatAndSelect():
            best = _best_of(event, accuracy)
            return _law_of_profile(best.top(Fraction(2, 10**12)), best.deltas, interval)
        case _:
            raise TypeError("only leaves whose losses are put on a grid have a law there")


@lru_cache(maxsize=16)
def _law_of_parts(event: Parallel, interval: float) -> _laws.Pair:
    """Return the losses of the worst part, at each epsilon the worst one."""
    curves = [curve(each) for each in set(event.events)]

    def worst(at: Array) -> Array:
        return np.asarray(np.max([each.conditional_deltas(at) for each in curves], axis=0))

    return _law_of_profile(max(each.top(Fraction(2, 10**12)) for each in curves), worst, interval)


def _law_of_profile(top: float, profile: Callable[[Array], Array], interval: float) -> _laws.Pair:
    """Return losses whose delta is at least a profile's, taken at points up to ``top``."""
    reach = math.ceil(min(top, 200.0) / interval)
    step = reach // (_PROFILE_POINTS // 2) + 1
    losses = np.arange(-(reach // step) - 1, reach // step + 2) * step
    at = np.asarray(losses * interval, dtype=np.float64)
    law = _loss.from_profile(losses, profile(at), interval)
    return law, law


@dataclass(frozen=True)
class _BestOf:
    """The curve of the best of a geometric number of runs, from the curves of a run.

    Attributes:
        runs: The curves of what a run may be.
        stop: Probability that a run is the last.
        ranks: Bound on how far the chance to be outranked can move a run's odds, in nats.
    """

    runs: tuple[Curve, ...]
    stop: float
    ranks: float

    def deltas(self, epsilon: Array) -> Array:
        """Return delta at each epsilon, the deltas of runs that may fail included."""
        found = [
            float(each.base_delta) + each.conditional_deltas(epsilon - self.ranks)
            for each in self.runs
        ]
        worst = np.max(found, axis=0) * ((1 + ROUNDING) / self.stop)
        return np.asarray(np.minimum(worst, 1.0))

    def top(self, least: Fraction) -> float:
        """Return an epsilon beyond which hardly any delta is left but that of failing runs.

        Infinite if some run may be expected to fail.
        """
        if max(float(each.base_delta) for each in self.runs) >= self.stop:
            return math.inf
        return self.ranks + max(each.top(least * Fraction(self.stop)) for each in self.runs)


@lru_cache(maxsize=64)
def _best_of(event: RepeatAndSelect, accuracy: float) -> _BestOf:
    """Return the curve, with the least R for which delta(ln R) <= (R - 1) stop / (1 - stop)."""
    runs = tuple(curve(each, accuracy=accuracy) for each in dict.fromkeys(event.events))
    stop = float(event.stop)
    if event.stop == 1:
        return _BestOf(runs, 1.0, 0.0)
    low, high = 0.0, -math.log(stop) + ROUNDING  # where the condition asks for a delta of 1
    while high - low > 1e-7:
        middle = (low + high) / 2
        allowed = math.expm1(middle) * stop / (1 - stop) * (1 - ROUNDING)
        holds = max(each.delta(middle) for each in runs) <= allowed
        low, high = (low, middle) if holds else (middle, high)
    return _BestOf(runs, stop, 2 * high)


def _worst_shift(event: Event) -> tuple[int, int] | None:
    """Return the (size, coordinates) of a shift that dominates all others, where one does.

    One coordinate: the discrete Gaussian is log-concave, so one threshold test is optimal against
    every shift and its power grows with the shift. Squared norm 2 or 3 over as many coordinates:
    only shifts by one fit. From 4 on (2, 0, 0, 0) fits too, and neither it nor (1, 1, 1, 1)
    dominates the other on a lattice.
    """
    match event:
        case DiscreteGaussian(sigma2) if sigma2 >= _LATTICE_WORTHWHILE:
            return None
        case DiscreteGaussian(_, l2_squared, 1):
            return math.isqrt(l2_squared), 1
        case DiscreteGaussian(_, l2_squared, shifts) if l2_squared == shifts < 4:
            return 1, shifts
        case _:
            return None
