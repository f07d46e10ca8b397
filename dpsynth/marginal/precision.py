"""How far noise can move what a model says: the standard errors of its marginals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique
from dpsynth.marginal.estimate import Observation

Array = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Precision:
    """What was measured, and how noisily.

    Attributes:
        codes: For each column the mean variance of a fine code's count.
        cells: For each marginal that was measured over coarse codes the mean variance of a cell.
    """

    codes: Mapping[str, float] = field(default_factory=dict)
    cells: Mapping[Clique, float] = field(default_factory=dict)

    @classmethod
    def of(cls, ones: Iterable[Observation], measured: Iterable[Observation]) -> Precision:
        """Take the variances of fine one-way marginals, and of marginals over coarse codes."""
        codes = {one.clique[0]: float(one.variance.mean()) for one in ones}
        weights: dict[Clique, float] = {}
        for each in measured:  # of one set of columns, in whatever order, precisions add up
            clique = tuple(sorted(each.clique))
            weights[clique] = weights.get(clique, 0.0) + 1.0 / float(each.variance.mean())
        return cls(codes, {clique: 1.0 / weight for clique, weight in weights.items()})

    def coarse(self, clique: Clique, maps: Mapping[str, Codes]) -> Array | None:
        """Return the variance of each coarse cell of a marginal; None if nothing measured tells.

        It is that of the inverse-variance mean of all measured marginals that hold the columns,
        each summed over its other columns. A fit of all of them together is no worse.
        """
        sizes = {name: int(codes.max()) + 1 for name, codes in maps.items()}
        shape = tuple(sizes[name] for name in clique)
        weight = np.zeros(shape)
        for known, variance in self.cells.items():
            if set(clique) <= set(known):
                summed = math.prod(sizes[name] for name in known if name not in clique)
                weight += 1.0 / (variance * summed)
        if len(clique) == 1 and clique[0] in self.codes:
            weight += 1.0 / (self.codes[clique[0]] * np.bincount(maps[clique[0]]))
        return 1.0 / weight if weight.all() else None


def standard_errors(
    clique: Clique,
    table: Array,
    precision: Precision,
    maps: Mapping[str, Codes],
    shares: Mapping[str, Array],
    ones: Sequence[Array],
) -> Array:
    """Return the standard deviation of each fine cell, to first order in the noise.

    A fine cell is a coarse count times the share of each column's code in its coarse code; the
    noise of each part is independent of the others', nearly.

    Args:
        clique: Distinct columns.
        table: Their marginal over coarse codes.
        precision: What was measured.
        maps: Of every column the coarse code of each fine code.
        shares: Of every column the share of each fine code.
        ones: Of each column of the clique the marginal over its coarse codes.
    """
    variance = precision.coarse(clique, maps)
    places = [maps[name] for name in clique]
    within = [shares[name] for name in clique]
    if variance is None:
        return np.full([each.size for each in places], np.nan)
    fine = np.ix_(*places)
    found = variance[fine] * _outer([share**2 for share in within])
    for axis, (name, mass) in enumerate(zip(clique, ones, strict=True)):
        alone = np.bincount(places[axis])[places[axis]] == 1
        rows = np.maximum(mass[places[axis]], 1.0)
        noise = precision.codes.get(name, np.nan)
        of_share = np.where(alone, 0.0, np.minimum(noise / rows**2, 0.25))
        parts = [of_share if i == axis else share**2 for i, share in enumerate(within)]
        found = found + table[fine] ** 2 * _outer(parts)
    return np.sqrt(found)


def _outer(parts: Sequence[Array]) -> Array:
    return reduce(np.multiply.outer, parts)
