"""The slow obvious version: exact hockey-stick divergences of discrete Gaussians by convolution.

For a shift of one coordinate by an integer c, the loss of the answer z is (c^2 - 2cz) / (2 sigma2):
losses lie on the lattice 1 / (2 sigma2), so independent coordinates and mechanisms add by
convolution of arrays of positive numbers, with no discretisation and no Fourier transform.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Losses:
    """A distribution of losses on the lattice 1 / (2 sigma2), under the first data set."""

    first: int
    mass: NDArray[np.float64]
    sigma2: float

    def delta(self, epsilon: float) -> float:
        """Return the exact divergence at ``epsilon``."""
        losses = (np.arange(len(self.mass)) + self.first) / (2 * self.sigma2)
        above = losses > epsilon
        return float(np.sum(-np.expm1(epsilon - losses[above]) * self.mass[above]))


def one_coordinate(sigma2: float, shift: int) -> Losses:
    """Return the losses of one discrete Gaussian moved by ``shift``."""
    reach = math.ceil(13 * math.sqrt(sigma2)) + abs(shift)
    z = np.arange(-reach, reach + 1)
    mass = np.exp(-z * z / (2 * sigma2))
    mass /= mass.sum()
    at = shift * shift - 2 * shift * z
    first = int(at.min())
    spread = np.zeros(int(at.max()) - first + 1)
    np.add.at(spread, at - first, mass)
    return Losses(first, spread, sigma2)


def composed(parts: Sequence[Losses]) -> Losses:
    """Return the losses of independent parts that share a sigma2."""
    first, mass = 0, np.ones(1)
    for part in parts:
        first, mass = first + part.first, np.convolve(mass, part.mass)
    return Losses(first, mass, parts[0].sigma2)


def moved(sigma2: float, shift: Sequence[int], times: int = 1) -> Losses:
    """Return the losses of a vector moved by ``shift``, answered ``times`` times."""
    return composed([one_coordinate(sigma2, c) for c in shift if c] * times)


def shifts_within(l2_squared: int, coordinates: int) -> Iterator[tuple[int, ...]]:
    """Yield every integer shift of that L2 norm and support, up to order.

    The sign of a coordinate changes nothing: N_Z is symmetric.
    """
    top = math.isqrt(l2_squared)
    for shift in itertools.combinations_with_replacement(range(top, -1, -1), coordinates):
        if 0 < sum(c * c for c in shift) <= l2_squared:
            yield shift


def shifts_of_l1(k: int) -> Iterator[tuple[int, ...]]:
    """Yield every integer shift vector of L1 norm at most ``k``, up to order and sign."""
    for shift in itertools.combinations_with_replacement(range(k, -1, -1), k):
        if 0 < sum(shift) <= k:
            yield shift
