"""Exact noise: integers in, integers out, and no floating-point number on the way to a draw.

*Counts* get the discrete Gaussian N_Z(0, sigma2) of Canonne, Kamath and Steinke (2020) by inverse
transform over a table of 256-bit integers. A wide one is J + aK, of two narrow ones. A sample's
law is within 2**-190 of the exact one in total variation. The discrete Laplace is drawn likewise.

*Choices* are made by the exponential mechanism, with no distance at all.

Proofs: docs/explanation/noise.md. The tests hold all of it against the rejection samplers of
Canonne, Kamath and Steinke and against exact rational arithmetic.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from dpsynth.vault._stream import SYSTEM, Stream
from dpsynth_accounting import InvalidRequest

SAMPLE_DISTANCE = Fraction(1, 1 << 190)
"""Greatest total variation distance of one sample from the law it is said to have."""

LARGEST_SCALE = 1 << 50
"""Greatest sigma, and greatest Laplace scale: samples then stay below 2**60 in absolute value."""

_BITS = 256  # of a cumulative probability, and of the uniform real that is looked up
_FINE = _BITS + 64  # of the weights it is made of
_REACH = 17  # a Gaussian table ends at 17 sigma
_WIDEST = 512  # sigma of the widest table
_DIGITS = 1 << 12  # length of a geometric table
_SLACK = 1 << 12  # units in the last place by which _exp_minus may be wrong
_HEAD = 31  # bits of a choice's proposal weights

# -- tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """Cumulative probabilities of a distribution on consecutive integers.

    Attributes:
        first: The least integer.
        bounds: P(X <= first + i) times 2**256, rounded down, for all but the last i.
        heads: The upper 64 bits of each bound, a uint64 array.
    """

    first: int
    bounds: tuple[int, ...]
    heads: NDArray[np.uint64]


def _table(first: int, weights: Sequence[int]) -> _Table:
    """Return the table of the law on first, first + 1, ... with these weights."""
    *sums, total = accumulate(weights)
    scale = (1 << _FINE + _BITS) // total
    bounds = tuple(min(part * scale >> _FINE, (1 << _BITS) - 1) for part in sums)
    heads = np.array([bound >> _BITS - 64 for bound in bounds], dtype=np.uint64)
    return _Table(first, bounds, heads)


def _exp_minus(x: Fraction, bits: int) -> int:
    """Return exp(-x) * 2**bits for rational x >= 0, to within 2**12 units (noise.md, Lemma 1).

    The series, once x is halved below 1; then as many squarings.
    """
    halvings = (math.ceil(x) - 1).bit_length() if x > 1 else 0
    extended = bits + 2 * halvings
    numerator, denominator = x.numerator, x.denominator << halvings
    total = term = 1 << extended
    k = 0
    while term:
        k += 1
        term = term * numerator // (denominator * k)
        total += -term if k % 2 else term
    for _ in range(halvings):
        total = total * total >> extended
    return total >> 2 * halvings


@lru_cache(maxsize=32)
def _gaussian_table(sigma2: Fraction) -> _Table:
    """Return the table of N_Z(0, sigma2), for sigma up to 512.

    Weights follow w(x+1) = w(x) r(x), where r(x) = exp(-(2x+1) / 2 sigma2) is itself geometric.
    """
    reach = math.isqrt(math.ceil(_REACH * _REACH * sigma2)) + 8
    ratio = _exp_minus(1 / (2 * sigma2), _FINE)
    step = _exp_minus(1 / sigma2, _FINE)
    weights = [1 << _FINE]
    for _ in range(reach):
        weights.append(weights[-1] * ratio >> _FINE)
        ratio = ratio * step >> _FINE
    return _table(-reach, weights[:0:-1] + weights)


@lru_cache(maxsize=32)
def _geometric_table(rate: Fraction) -> _Table:
    """Return the table of the law on 0, ..., 4095 with mass proportional to exp(-rate * x)."""
    ratio = _exp_minus(rate, _FINE)
    weights = [1 << _FINE]
    for _ in range(_DIGITS - 1):
        weights.append(weights[-1] * ratio >> _FINE)
    return _table(0, weights)


def _draw(table: _Table, count: int, stream: Stream) -> NDArray[np.int64]:
    """Return samples: how many bounds are at or below a uniform real of 256 bits.

    The first 64 bits settle nearly every draw; where they are those of a bound, the rest is drawn.
    """
    words = stream.words(count)
    index = np.searchsorted(table.heads, words, side="left")
    for place in np.flatnonzero(table.heads.take(index, mode="clip") == words):
        real = int(words[place]) << _BITS - 64 | stream.bits(_BITS - 64)
        index[place] = bisect_right(table.bounds, real)
    return index.astype(np.int64) + table.first


# -- noise ---------------------------------------------------------------------------------------


def discrete_gaussian(
    sigma2: Fraction, shape: tuple[int, ...], stream: Stream = SYSTEM
) -> NDArray[np.int64]:
    """Return independent samples of N_Z(0, sigma2), each within ``SAMPLE_DISTANCE``.

    Canonne, Kamath, Steinke (2020), Definition 1: mass proportional to exp(-x**2 / 2 sigma2).

    Args:
        sigma2: The parameter, an exact rational above 0.
        shape: Shape of the result.
        stream: Where the randomness comes from.

    Returns:
        int64 array.

    Raises:
        InvalidRequest: sigma is not in (0, 2**50].
    """
    _require(sigma2, LARGEST_SCALE**2, "sigma squared")
    return _gaussian(sigma2, math.prod(shape), stream).reshape(shape)


def _gaussian(sigma2: Fraction, count: int, stream: Stream) -> NDArray[np.int64]:
    if sigma2 <= _WIDEST**2:
        return _draw(_gaussian_table(sigma2), count, stream)
    # The least power of two with sigma <= 512 a. J + aK is N_Z(0, sigma2) (noise.md, Theorem 2):
    # J fills the gaps of a, wide enough that no trace of the lattice aZ is left.
    a = 1 << -(-(math.ceil(sigma2 / _WIDEST**2) - 1).bit_length() // 2)
    fine = _gaussian(Fraction(8 * a * a), count, stream)
    return fine + a * _gaussian(sigma2 / (a * a) - 8, count, stream)


def discrete_laplace(
    scale: Fraction, shape: tuple[int, ...], stream: Stream = SYSTEM
) -> NDArray[np.int64]:
    """Return independent samples of the discrete Laplace law, each within ``SAMPLE_DISTANCE``.

    Mass proportional to exp(-abs(x) / scale); also called two-sided geometric (Ghosh,
    Roughgarden, Sundararajan 2009).

    Args:
        scale: An exact rational above 0.
        shape: Shape of the result.
        stream: Where the randomness comes from.

    Returns:
        int64 array.

    Raises:
        InvalidRequest: scale is not in (0, 2**50].
    """
    _require(scale, LARGEST_SCALE, "a Laplace scale")
    count = math.prod(shape)
    samples = _geometric(1 / scale, count, stream)
    samples -= _geometric(1 / scale, count, stream)
    return samples.reshape(shape)


def _geometric(rate: Fraction, count: int, stream: Stream) -> NDArray[np.int64]:
    """Return samples with P(x) proportional to exp(-rate * x), x >= 0: digit by digit.

    Digits to base 4096 are independent (noise.md, Theorem 3).
    """
    digit = _draw(_geometric_table(rate), count, stream)
    if rate * _DIGITS > 150:  # what lies beyond the table has mass below 2**-216
        return digit
    return digit + _DIGITS * _geometric(rate * _DIGITS, count, stream)


def _require(value: Fraction, most: int, name: str) -> None:
    if not 0 < value <= most:
        raise InvalidRequest(
            f"Noise was to be drawn with {name} out of range.",
            f"It must be above 0 and at most 2**{most.bit_length() - 1}.",
            "Give the step more of the budget.",
            touched=True,  # noise is drawn last, after the rows were counted
        )


def upper_tails(sigma2: Fraction) -> tuple[int, NDArray[np.float64]]:
    """Return a step b, and upper bounds on P(N_Z(0, sigma2) >= i * b) for i = 0, 1, 2, ...

    They reach to 38 sigma. b is 1 up to a sigma of 2000, and then sigma / 1000, rounded down. A
    tail of more than 1e-290 is exceeded by 1e-6 in proportion where b is 1, and by 1 % elsewhere.
    """
    sigma, spread = math.sqrt(sigma2), float(2 * sigma2)
    # Both are below the sum over all integers: the first by Poisson summation, the second as it
    # leaves terms out. One of them is within 1e-8 of it.
    centre = 1 + 2 * sum(math.exp(-x * x / spread) for x in range(1, 10))
    whole = max(math.sqrt(2 * math.pi) * sigma, centre)
    # Terms fall, so a block of them is at most its length times its first. The last figures cover
    # what lies beyond the last block, and rounding.
    block = max(1, math.floor(sigma / 1000))
    firsts = block * np.arange(math.ceil(38 * sigma / block) + 10, dtype=np.float64)
    tails = np.cumsum(np.exp(-(firsts[::-1] ** 2) / spread))[::-1] * (block / whole)
    return block, tails * (1 + 1e-9) + 1e-300


# -- choices -------------------------------------------------------------------------------------


def exponential(
    scores: NDArray[np.int64], epsilon: Fraction, sensitivity: int, stream: Stream = SYSTEM
) -> int:
    """Choose an index with probability proportional to exp(epsilon * score / (2 * sensitivity)).

    McSherry and Talwar (2007), exactly, by rejection: an index is proposed by integer weights
    that are no less than 2**31 exp(-gap) and hardly more, and accepted where a uniform real below
    its weight is below 2**31 exp(-gap). That comparison is made with as many bits as it needs.

    Args:
        scores: int64 array of shape (candidates,), at least one.
        epsilon: Above 0.
        sensitivity: Greatest change one unit can make to any score.
        stream: Where the randomness comes from.

    Returns:
        The index chosen.
    """
    unsigned = scores.astype(np.uint64)
    gaps = scores.max().astype(np.uint64) - unsigned  # modulo 2**64, so exact for any int64
    rate = epsilon / (2 * sensitivity)
    weights = _proposal(gaps, rate)
    ends = np.cumsum(weights)
    while True:
        place = stream.below(int(ends[-1]))
        index = int(np.searchsorted(ends, place, side="right"))
        offset = place - int(ends[index] - weights[index])
        if _is_below_exp(offset, int(gaps[index]) * rate, stream):
            return index


def _proposal(gaps: NDArray[np.uint64], rate: Fraction) -> NDArray[np.int64]:
    """Return integers at least 2**31 exp(-rate * gap): a factor a binary digit, all rounded up."""
    weights = np.full(gaps.shape, 1 << _HEAD, dtype=np.int64)
    for digit in range(int(gaps.max()).bit_length()):
        factor = (_exp_minus(rate * (1 << digit), 64) + _SLACK >> 64 - _HEAD) + 1
        chosen = (gaps >> np.uint64(digit) & np.uint64(1)).astype(np.bool_)
        # At most 2**31 times 2**31, and never 0: what is far behind keeps a weight of 1.
        weights[chosen] = -(-weights[chosen] * min(factor, 1 << _HEAD) >> _HEAD)
    return weights


def _is_below_exp(head: int, gamma: Fraction, stream: Stream) -> bool:
    """Say whether a uniform real that begins with the 31 bits of ``head`` is below exp(-gamma)."""
    bits = _HEAD
    while True:
        head, bits = head << 64 | stream.bits(64), bits + 64
        value = _exp_minus(gamma, bits)
        if head + 1 <= value - _SLACK:
            return True
        if head >= value + _SLACK:
            return False
