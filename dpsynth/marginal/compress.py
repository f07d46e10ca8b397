"""Noise-adaptive resolution: coarse codes no finer than the noise allows.

A pair of columns of 100 codes has 10 000 cells and far fewer rows than noise. So the graph is
fitted on coarse codes, each with enough rows, and the fine code given the coarse one is a leaf
taken from the noisy one-way marginal. All of it is post-processing: it reads noisy answers only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.marginal.estimate import Observation, project_simplex

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

DROWN = 0.4
"""Part of the rows that noise may hide, of a pair of two columns of the same coarse codes."""

_STEP = 1.2  # by which a coarse code's least mass grows until the noise allows it


@dataclass(frozen=True, eq=False)
class Coarsening:
    """A coarse code for each fine code of every column.

    Attributes:
        maps: For each column an int64 array of its fine size, holding coarse codes 0..k-1, each of
            them at least once.
    """

    maps: Mapping[str, Codes]

    @classmethod
    def none(cls, sizes: Mapping[str, int]) -> Coarsening:
        """Every code by itself."""
        return cls({name: np.arange(size, dtype=np.int64) for name, size in sizes.items()})

    @property
    def sizes(self) -> dict[str, int]:
        """Number of coarse codes of each column."""
        return {name: int(codes.max()) + 1 for name, codes in self.maps.items()}

    def observe(self, observation: Observation) -> Observation:
        """A fine one-way observation summed into coarse codes; variances add up."""
        (name,) = observation.clique
        codes = self.maps[name]
        return Observation(
            observation.clique,
            _sums(codes, observation.values),
            _sums(codes, observation.variance),
        )


def coarsen(
    ones: Sequence[Observation],
    ordered: Mapping[str, int],
    total: float,
    *,
    bins: int,
    pair_sigma: float,
) -> Coarsening:
    """The coarse codes that noisy one-way marginals allow.

    A coarse code has at least ``total / bins`` rows, which bounds the size of a pair, and three
    standard deviations of the one-way noise, below which it may be empty. Codes are merged further
    until no more than ``DROWN`` of a pair's rows would lie hidden in the noise: many codes alike
    need that, a few heavy ones beside many light ones do not.

    Args:
        ones: The one-way observation of every column.
        ordered: How many leading codes of each column are in natural order.
        total: Estimated number of rows.
        bins: About how many coarse codes a column may have.
        pair_sigma: Noise of a pair's cell, in rows.
    """
    maps = {}
    for one in ones:
        (name,) = one.clique
        mass = project_simplex(one.values, total)
        floor = max(total / bins, 3.0 * math.sqrt(float(one.variance[0])))
        codes = merge_codes(mass, ordered=ordered[name], floor=floor)
        while drowned(_sums(codes, mass), total, pair_sigma) > DROWN and floor < total / 2:
            floor *= _STEP
            codes = merge_codes(mass, ordered=ordered[name], floor=floor)
        maps[name] = codes
    return Coarsening(maps)


def drowned(mass: Array, total: float, sigma: float) -> float:
    """The part of a pair's rows that lies in cells where noise hides it, for two such columns.

    With m rows expected in a cell of two independent columns, noise of ``sigma`` hides at most
    min(m, sigma) of them.

    Args:
        mass: float64 array, rows of each code.
        total: Their sum.
        sigma: Noise of a pair's cell, in rows.

    >>> drowned(np.array([90.0, 10.0]), 100.0, 5.0)
    0.16
    """
    expected = np.outer(mass, mass) / total
    return float(np.minimum(expected, sigma).sum()) / total


def merge_codes(mass: Array, *, ordered: int, floor: float) -> Codes:
    """The coarse code of each fine code, so that every coarse code has ``floor`` rows or more.

    Codes in natural order merge with their neighbours only; a heavy code stays alone where it can.
    The other codes merge where each is too light, in the order they are listed, since lists tend
    to put like beside like. The two kinds never mix, for a missing code is no number; so the codes
    after ordered ones may stay light.

    Args:
        mass: float64 array, estimated rows of each code, non-negative.
        ordered: How many leading codes are in natural order.
        floor: Least mass of a coarse code.

    >>> merge_codes(np.array([9.0, 1.0, 1.0, 3.0, 9.0, 2.0]), ordered=5, floor=4.0)
    array([0, 1, 1, 1, 2, 3])
    >>> merge_codes(np.array([9.0, 1.0, 7.0, 4.0]), ordered=0, floor=4.0)
    array([0, 1, 2, 1])
    """
    front, back = mass[:ordered], mass[ordered:]
    coarse = np.empty(mass.size, dtype=np.int64)
    coarse[:ordered] = _merge_ordered(front, floor)
    offset = int(coarse[:ordered].max()) + 1 if ordered else 0
    coarse[ordered:] = _merge_nominal(back, floor) + offset
    return coarse


def _merge_ordered(mass: Array, floor: float) -> Codes:
    groups: list[tuple[int, int]] = []
    start = 0
    for code in range(mass.size):
        alone = mass[code] >= floor
        if alone and start < code:
            groups.append((start, code))
            start = code
        if alone or mass[start : code + 1].sum() >= floor:
            groups.append((start, code + 1))
            start = code + 1
    if start < mass.size:
        groups.append((start, mass.size))
    return _labels(_absorb(groups, mass, floor), mass.size)


def _absorb(groups: list[tuple[int, int]], mass: Array, floor: float) -> list[tuple[int, int]]:
    """Join each light run to a neighbour: one that is a run already, else the lighter."""
    while len(groups) > 1:
        weights = [float(mass[a:b].sum()) for a, b in groups]
        light = [i for i, weight in enumerate(weights) if weight < floor]
        if not light:
            break
        i = light[0]
        near = [j for j in (i - 1, i + 1) if 0 <= j < len(groups)]
        j = min(near, key=lambda k: (groups[k][1] - groups[k][0] == 1, weights[k]))
        low, high = min(i, j), max(i, j)
        groups[low : high + 1] = [(groups[low][0], groups[high][1])]
    return groups


def _sums(codes: Codes, values: Array) -> Array:
    return np.bincount(codes, weights=values).astype(np.float64)


def _labels(groups: list[tuple[int, int]], size: int) -> Codes:
    coarse = np.zeros(size, dtype=np.int64)
    for label, (start, stop) in enumerate(groups):
        coarse[start:stop] = label
    return coarse


def _merge_nominal(mass: Array, floor: float) -> Codes:
    light = np.flatnonzero(mass < floor)
    groups = [[int(code)] for code in np.flatnonzero(mass >= floor)]
    group: list[int] = []
    for code in light:
        group.append(int(code))
        if mass[group].sum() >= floor:
            groups.append(group)
            group = []
    if group:
        # What is left over joins the lightest group; alone only if it is all there is.
        packed = min(groups, key=lambda g: (len(g) == 1, mass[g].sum()), default=None)
        if packed is None:
            groups.append(group)
        else:
            packed.extend(group)
    coarse = np.zeros(mass.size, dtype=np.int64)
    for label, members in enumerate(sorted(groups, key=min)):
        coarse[members] = label
    return coarse


def fine_shares(observation: Observation, codes: Codes, mass: Array) -> Array:
    """Probability of each fine code given its coarse code, from a noisy one-way marginal.

    Inside each coarse code the noisy counts are first drawn to their mean by as much as their
    spread is noise (James and Stein 1961, positive part), then projected onto the non-negative
    counts that add up to the fitted mass.

    Args:
        observation: The fine one-way marginal.
        codes: Coarse code of each fine code.
        mass: Fitted rows of each coarse code.
    """
    shares = np.zeros(codes.size)
    for label in range(mass.size):
        inside = np.flatnonzero(codes == label)
        values, variance = observation.values[inside], observation.variance[inside]
        shrunk = _shrink(values, float(variance.mean()))
        cleaned = project_simplex(shrunk, float(mass[label]), variance)
        whole = float(cleaned.sum())
        shares[inside] = cleaned / whole if whole > 0 else 1.0 / inside.size
    return shares


def _shrink(values: Array, variance: float) -> Array:
    if values.size < 4:
        return values
    mean = float(values.mean())
    spread = float(((values - mean) ** 2).sum())
    kept = max(0.0, 1.0 - (values.size - 3) * variance / spread) if spread > 0 else 0.0
    return mean + kept * (values - mean)
