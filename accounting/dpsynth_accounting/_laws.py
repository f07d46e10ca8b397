"""The worst laws of each mechanism with and without a unit, as privacy losses on a grid.

Each function returns the losses for a removed and for an added unit, the same object where the
mechanism is symmetric. Proofs: one page per event in ``docs/explanation/``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dpsynth_accounting import _special as special
from dpsynth_accounting._loss import Array, Losses, atoms, on_grid

Pair: TypeAlias = tuple[Losses, Losses]

_MOST_CELLS = 1 << 21
_TOGETHER = 4096  # points worked on at once, so that what they need fits the cache


def _cells(bottom: float, top: float, interval: float) -> NDArray[np.int64]:
    first, last = math.floor(bottom / interval), math.ceil(top / interval)
    if last - first > _MOST_CELLS:
        raise OverflowError("a law has too many losses for its interval")
    return np.arange(first, max(last, first + 1))


def _between(edges: Array) -> Array:
    """Return the standard Gaussian's mass between neighbours, without cancellation in a tail."""
    low, high = edges[:-1], edges[1:]
    mirrored = low > 0
    return np.asarray(
        special.ndtr(np.where(mirrored, -low, high)) - special.ndtr(np.where(mirrored, -high, low))
    )


@lru_cache(maxsize=32)
def gaussian(mu: float, interval: float, tail: float) -> Pair:
    """Losses of N(mu, 1) against N(0, 1)."""
    z = float(-special.ndtri(tail))
    cells = _cells(mu * (mu / 2 - z), mu * (mu / 2 + z), interval)
    edges = np.append(cells, cells[-1] + 1) * (interval / mu) + mu / 2
    p, q = _between(edges - mu), _between(edges)
    losses = on_grid(p, q, cells, interval, below=tail, infinity=tail)
    return losses, losses


@lru_cache(maxsize=32)
def subsampled(rate: float, sigma: float, group: int, interval: float, tail: float) -> Pair:
    """Losses of one step of DP-SGD.

    With the group's records the sum is the mixture of N(j, sigma^2) over j ~ Binomial(group,
    rate); without them it is N(0, sigma^2) (Zhu, Dong, Wang 2022, Theorem 11, for a group of 1).
    """
    numbers, weights = _binomial(rate, group)
    ends = _ends(numbers, weights, sigma, tail)
    bottom, top = _log_ratio(ends, numbers, weights, sigma)
    cells = _cells(float(bottom), float(top), interval)
    inner = cells[1:].astype(np.float64) * interval
    if group == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = np.log((np.expm1(inner) + rate) / rate)
        x = np.nan_to_num(sigma * sigma * odds + 0.5, nan=-np.inf)
    else:
        x = _invert(inner, ends, numbers, weights, sigma)
    edges = np.concatenate([ends[:1], np.clip(x, *ends), ends[1:]])
    without, joined = _masses(edges, numbers, weights, sigma)
    removed = on_grid(joined, without, cells, interval, below=tail, infinity=tail)
    added = on_grid(
        without[::-1], joined[::-1], -cells[::-1] - 1, interval, below=tail, infinity=tail
    )
    return removed, added


def subsampled_moments(rate: float, sigma: float, group: int) -> tuple[float, float]:
    """Return mean and variance of the loss of one step, under a removed unit."""
    numbers, weights = _binomial(rate, group)
    edges = np.linspace(-9 * sigma, group + 9 * sigma, 4001)
    _, joined = _masses(edges, numbers, weights, sigma)
    middle = (edges[1:] + edges[:-1]) / 2
    loss = _log_ratio(middle, numbers, weights, sigma)
    mean = float((joined * loss).sum())
    return mean, float((joined * loss * loss).sum()) - mean * mean


def _binomial(rate: float, group: int) -> tuple[Array, Array]:
    j = np.arange(group + 1, dtype=np.float64)
    if rate == 1.0:
        return j[-1:], np.ones(1)
    logs = special.gammaln(group + 1) - special.gammaln(j + 1) - special.gammaln(group - j + 1)
    weights = np.exp(logs + j * math.log(rate) + (group - j) * math.log1p(-rate))
    return j, weights / weights.sum()


def _ends(numbers: Array, weights: Array, sigma: float, tail: float) -> Array:
    """Return the points outside which both laws have at most ``tail``, on each side.

    The mixture is above N(0, sigma^2) in distribution: the one's tail bounds the other's.
    """
    z = float(-special.ndtri(tail))
    low, high = z * sigma, float(numbers[-1]) + z * sigma
    for _ in range(40):
        middle = (low + high) / 2
        beyond = float((weights * special.ndtr((numbers - middle) / sigma)).sum())
        low, high = (low, middle) if beyond <= tail else (middle, high)
    return np.array([-z * sigma, high])


def _log_ratio(x: Array, numbers: Array, weights: Array, sigma: float) -> Array:
    """Return the log of the mixture's density over N(0, sigma^2)'s; it rises with x."""
    with np.errstate(divide="ignore"):
        logs = np.log(weights)
    if len(numbers) == 2:
        return np.asarray(np.logaddexp(logs[0], logs[1] + (2 * x - 1) / (2 * sigma * sigma)))
    return _sum_of_terms(x, numbers, logs, sigma)[0]


def _sum_of_terms(x: Array, numbers: Array, logs: Array, sigma: float) -> tuple[Array, Array]:
    """Return the log-ratio and its slope."""
    terms = logs + numbers * (2 * x[:, None] - numbers) / (2 * sigma * sigma)
    greatest = terms.max(axis=1)
    terms = np.exp(terms - greatest[:, None])
    total = terms.sum(axis=1)
    return greatest + np.log(total), terms @ numbers / (total * sigma * sigma)


def _masses(edges: Array, numbers: Array, weights: Array, sigma: float) -> tuple[Array, Array]:
    """Return the masses between edges of N(0, sigma^2) and of the mixture."""
    joined = np.zeros(len(edges) - 1)
    for number, weight in zip(numbers, weights, strict=True):
        joined += weight * _between((edges - number) / sigma)
    return _between(edges / sigma), joined


def _invert(losses: Array, ends: Array, numbers: Array, weights: Array, sigma: float) -> Array:
    """Return the points at which the mixture's log-ratio takes given values, by Newton's method.

    The log-ratio is convex in x: after one step all points are above the roots, and fall to them.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(weights)
    known = np.linspace(ends[0], ends[1], 4097)
    x = np.interp(losses, _log_ratio(known, numbers, weights, sigma), known)
    enough = 1e-14 * (1 + float(np.abs(losses).max(initial=0.0)))
    for start in range(0, len(x), _TOGETHER):
        some, wanted = x[start : start + _TOGETHER], losses[start : start + _TOGETHER]
        for _ in range(60):
            found, slope = _sum_of_terms(some, numbers, logs, sigma)
            some[:] = np.clip(some - (found - wanted) / np.maximum(slope, 1e-300), *ends)
            if np.abs(found - wanted).max() <= enough:
                break
    return np.asarray(x)


@lru_cache(maxsize=32)
def laplace(epsilon: float, interval: float) -> Pair:
    """Losses of Laplace noise on a number that moves by ``epsilon`` scales."""
    cells = _cells(-epsilon, epsilon, interval)
    inner = cells[1:] * interval
    # Between the two centres, 0 and epsilon, the loss at x is 2 x - epsilon.
    x = np.concatenate([[0.0], (np.clip(inner, -epsilon, epsilon) + epsilon) / 2, [epsilon]])
    widths = -np.expm1(-np.diff(x))
    p = 0.5 * np.exp(x[1:] - epsilon) * widths
    q = 0.5 * np.exp(-x[:-1]) * widths
    ends = 0.5, 0.5 * math.exp(-epsilon)
    p = np.concatenate([p, [ends[1], ends[0]]])
    q = np.concatenate([q, [ends[0], ends[1]]])
    losses = on_grid(p, q, np.append(cells, [cells[0], cells[-1]]), interval)
    return losses, losses


@lru_cache(maxsize=32)
def discrete_laplace(scale: float, shift: int, interval: float) -> Pair:
    """Losses of discrete Laplace noise on an integer that moves by ``shift``."""
    x = np.arange(shift + 1, dtype=np.float64)
    logs = math.log(-math.expm1(-1 / scale)) - math.log1p(math.exp(-1 / scale))
    log_p, log_q = logs - (shift - x) / scale, logs - x / scale
    # The first outcome stands for all at or below 0, the last for all at or above the shift.
    rest = -math.log(-math.expm1(-1 / scale))
    log_p[[0, -1]] += rest
    log_q[[0, -1]] += rest
    losses = atoms(log_p, log_q, interval)
    return losses, losses


@lru_cache(maxsize=32)
def discrete_gaussian(sigma2: float, shift: int, interval: float, tail: float) -> Pair:
    """Losses of discrete Gaussian noise on an integer that moves by ``shift``."""
    # Its tails are below those of a Gaussian on the lattice, up to its normalisation.
    reach = math.ceil(math.sqrt(sigma2) * (1 - float(special.ndtri(tail))) + 2)
    noise = np.arange(-reach, reach + 1, dtype=np.float64)
    logs = -noise * noise / (2 * sigma2)
    total = math.log(math.fsum(np.exp(logs)))
    # Outcomes where the moved law has its mass; what it has beyond is given an infinite loss.
    log_p, log_q = logs - total, -((noise + shift) ** 2) / (2 * sigma2) - total
    losses = atoms(log_p, log_q, interval, infinity=tail)
    return losses, losses


@lru_cache(maxsize=32)
def pure(epsilon: float, interval: float) -> Pair:
    """Losses of randomised response, which dominates every epsilon-DP mechanism.

    Kairouz, Oh, Viswanath 2015, proof of Theorem 3.3; and ``docs/explanation/approx-dp.md``.
    """
    true = -math.log1p(math.exp(-epsilon))
    told = np.array([true, true - epsilon])
    losses = atoms(told, told[::-1], interval)
    return losses, losses
