"""Exact noise from the operating system's entropy. Nothing here takes a seed.

*Counts* get the discrete Gaussian N_Z(0, sigma2) of Canonne, Kamath and Steinke (2020), by inverse
transform over a table of exact integers. A draw is a uniform real revealed 64 bits at a time: the
first 64 settle nearly every draw, and a draw that falls on a table boundary reveals more. Tables
hold 256 fractional bits, so a sample's law is within 2**-190 of the exact one in total variation.

*Choices* are made by the exponential mechanism by rejection, in exact integers (their Algorithm 1).
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SAMPLE_DISTANCE = Fraction(1, 1 << 190)
"""Greatest total variation distance of one sample from the exact discrete Gaussian."""

_BITS = 256
_REACH = 17.0  # a table ends at 17 sigma: the mass beyond is below 2**-200
_LARGEST_TABLE = 4_000_000


@dataclass(frozen=True)
class _Table:
    """Cumulative probabilities of a distribution on consecutive integers.

    Attributes:
        first: The least integer.
        bounds: P(X <= first + i) times 2**256, rounded down, for all but the last i.
        heads: The upper 64 bits of each bound.
    """

    first: int
    bounds: tuple[int, ...]
    heads: NDArray[np.uint64]


def _exp_minus(x: Fraction, bits: int) -> int:
    """Return floor-ish exp(-x) * 2**bits for rational 0 <= x <= 1, to a few units, in integers."""
    one = 1 << bits
    term, total, k = one, one, 0
    while term:
        k += 1
        term = term * x.numerator // (x.denominator * k)
        total += -term if k % 2 else term
    return total


@lru_cache(maxsize=32)
def _table(sigma2: Fraction) -> _Table:
    """Return the table of N_Z(0, sigma2).

    Weights follow w(x+1) = w(x) * r(x) with r(x) = exp(-(2x+1) / (2 sigma2)), itself a geometric
    sequence; with 128 guard bits the accumulated rounding stays far below 2**-256.
    """
    reach = math.ceil(_REACH * math.sqrt(float(sigma2))) + 8
    if 2 * reach > _LARGEST_TABLE:
        raise OverflowError("sigma is beyond the largest table")
    guard = _BITS + 128
    ratio = _small_exp(Fraction(1) / (2 * sigma2), guard)
    step = _small_exp(Fraction(1) / sigma2, guard)
    weights = [1 << guard]
    for _ in range(reach):
        weights.append(weights[-1] * ratio >> guard)
        ratio = ratio * step >> guard
    both = weights[:0:-1] + weights
    total = sum(both)
    bounds, running = [], 0
    for weight in both[:-1]:
        running += weight
        bounds.append(min((running << _BITS) // total, (1 << _BITS) - 1))
    heads = np.array([bound >> (_BITS - 64) for bound in bounds], dtype=np.uint64)
    return _Table(-reach, tuple(bounds), heads)


def _small_exp(x: Fraction, bits: int) -> int:
    """Return exp(-x) * 2**bits for any rational x >= 0, by halving it below 1 and squaring."""
    halvings = max(0, math.ceil(math.log2(float(x)))) if x > 1 else 0
    value = _exp_minus(x / (1 << halvings), bits + 2 * halvings)
    for _ in range(halvings):
        value = value * value >> (bits + 2 * halvings)
    return value >> (2 * halvings)


def _draw(table: _Table, count: int) -> NDArray[np.int64]:
    """Return ``count`` samples: the number of bounds at or below a uniform real."""
    words = np.frombuffer(os.urandom(8 * count), dtype=np.uint64)
    index = np.searchsorted(table.heads, words, side="left")
    inside = index < len(table.heads)
    tied = np.flatnonzero(inside & (table.heads[np.minimum(index, len(table.heads) - 1)] == words))
    for position in tied:  # the first 64 bits do not settle it: reveal the rest
        rest = secrets.randbits(_BITS - 64)
        value = (int(words[position]) << (_BITS - 64)) | rest
        index[position] = _count_at_most(table.bounds, value)
    return index.astype(np.int64) + table.first


def _count_at_most(bounds: Sequence[int], value: int) -> int:
    low, high = 0, len(bounds)
    while low < high:
        middle = (low + high) // 2
        if bounds[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


def discrete_gaussian(sigma2: Fraction, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return independent samples of N_Z(0, sigma2).

    Args:
        sigma2: The parameter, an exact rational above 0.
        shape: Shape of the result.

    Returns:
        int64 array.
    """
    count = math.prod(shape)
    if _REACH * math.sqrt(float(sigma2)) * 2 > _LARGEST_TABLE / 4:
        samples = np.array([sample_by_rejection(sigma2) for _ in range(count)], dtype=np.int64)
    else:
        samples = _draw(_table(sigma2), count)
    return samples.reshape(shape)


def upper_tail(sigma2: Fraction, at_least: int) -> float:
    """Return an upper bound on P(N_Z(0, sigma2) >= at_least), for ``at_least`` >= 1."""
    spread = 2.0 * float(sigma2)
    width = math.ceil(12 * math.sqrt(spread)) + 10
    body = np.exp(-(np.arange(-width, width + 1, dtype=np.float64) ** 2) / spread).sum()
    far = np.arange(at_least, at_least + width, dtype=np.float64)
    # What lies beyond the last term decays faster than geometrically.
    return float(np.exp(-(far**2) / spread).sum() / body * (1 + 1e-9)) + 1e-300


# -- exact coins, and what is built on them ------------------------------------------------------


def _bernoulli_exp(gamma: Fraction) -> bool:
    """Return True with probability exactly exp(-gamma), for rational gamma >= 0.

    Canonne, Kamath, Steinke (2020), Algorithm 1.
    """
    while gamma > 1:
        if not _bernoulli_exp_small(Fraction(1)):
            return False
        gamma -= 1
    return _bernoulli_exp_small(gamma)


def _bernoulli_exp_small(gamma: Fraction) -> bool:
    k = 1
    while secrets.randbelow(gamma.denominator * k) < gamma.numerator:
        k += 1
    return k % 2 == 1


def exponential(scores: NDArray[np.int64], epsilon: Fraction, sensitivity: int) -> int:
    """Choose an index with probability proportional to exp(epsilon * score / (2 * sensitivity)).

    McSherry and Talwar (2007), exactly: integer scores, rational epsilon, rejection from uniform.

    Args:
        scores: int64 array of shape (candidates,), at least one.
        epsilon: Above 0.
        sensitivity: Greatest change one unit can make to any score.

    Returns:
        The index chosen.
    """
    gaps = int(scores.max()) - scores
    rate = epsilon / (2 * sensitivity)
    while True:
        index = secrets.randbelow(len(scores))
        if _bernoulli_exp(int(gaps[index]) * rate):
            return index


def sample_by_rejection(sigma2: Fraction) -> int:
    """Return one exact sample of N_Z(0, sigma2), in integers alone.

    Canonne, Kamath, Steinke (2020), Algorithms 2 and 3. Slower than the table; it serves scales
    beyond it and is the table's oracle in the tests.
    """
    scale = math.isqrt(math.floor(sigma2)) + 1
    while True:
        magnitude = _discrete_laplace(scale)
        gap = abs(magnitude) - sigma2 / scale
        if _bernoulli_exp(gap * gap / (2 * sigma2)):
            return magnitude


def _discrete_laplace(scale: int) -> int:
    """Return one sample of the discrete Laplace distribution with integer scale."""
    while True:
        low = secrets.randbelow(scale)
        if not _bernoulli_exp_small(Fraction(low, scale)):
            continue
        high = 0
        while _bernoulli_exp_small(Fraction(1)):
            high += 1
        magnitude = low + scale * high
        negative = secrets.randbelow(2) == 1
        if not (negative and magnitude == 0):
            return -magnitude if negative else magnitude
