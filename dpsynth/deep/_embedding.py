"""Features of records, their sum as a gradient, and their expectation under a generator.

A record's features are products of two columns, each column a vector of length one, and products of
random signs of three columns. So their norm is 1 whatever the record, and their sum over a table is
one Gaussian answer. They are the features of a kernel on records, as in Harder, Adamczewski, Park
(2021), "DP-MERF", section 3, whose random Fourier features here are products of columns.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import accumulate, combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpsynth.deep._layout import coarse_codes
from dpsynth.vault._train import MaskedLinear

_PARTS = 32  # of a column's codes in order that have a vector of their own
_ORDERED = 8  # codes in order beyond which a random sign follows it

Floats = NDArray[np.float64]


class Features(nn.Module):
    """What a record's features are; a function of the noisy one-way marginals alone.

    Args:
        shares: For each column, float64 (size,): its distribution, of sum 1.
        ordered: For each, how many leading codes are in natural order.
        triples: How many random products of three columns.
        weight: Share of the squared norm for them.
    """

    places: Tensor

    def __init__(
        self, shares: Sequence[Floats], ordered: Sequence[int], triples: int, weight: float
    ) -> None:
        super().__init__()
        rng = np.random.default_rng(0)  # public: the features are no secret
        columns = _triples(len(shares), triples, rng)
        uses = np.bincount(columns.ravel(), minlength=len(shares))
        vectors = [column_vectors(*each) for each in zip(shares, ordered, strict=True)]
        for i, (vector, share, many) in enumerate(zip(vectors, shares, ordered, strict=True)):
            signs = column_signs(share, many, int(uses[i]), rng)
            self.register_buffer(f"table_{i}", torch.from_numpy(np.hstack([vector, signs])))
        self.widths = [vector.shape[1] for vector in vectors]
        # The n-th product that a column takes part in uses its n-th sign.
        starts = list(accumulate(uses.tolist(), initial=0))
        places = np.empty(columns.size, dtype=np.int64)
        for i, start in enumerate(starts[:-1]):
            places[columns.ravel() == i] = start + np.arange(uses[i])
        self.register_buffer("places", torch.from_numpy(places.reshape(columns.shape)))
        pairs = len(shares) * (len(shares) - 1) // 2
        part = weight if len(columns) else 0.0
        self.of_pairs = math.sqrt((1 - part) / max(pairs, 1))
        self.of_triples = math.sqrt(part / max(len(columns), 1))

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int]]:
        """The shape of the products of pairs, and of those of triples."""
        width = sum(self.widths)
        return (width, width), (len(self.places),)

    @property
    def mask(self) -> Tensor:
        """Which products of coordinates are of two columns, each pair of columns once."""
        column = torch.repeat_interleave(torch.tensor(self.widths))
        return column[:, None] < column[None, :]

    def table(self, column: int) -> Tensor:
        """Return the vectors and the signs of a column's codes, (size, coordinates + uses)."""
        return self.get_buffer(f"table_{column}")

    def of_records(self, records: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of all columns beside each other, and the random products.

        Args:
            records: int64 (batch, columns).
        """
        return self._parts([self.table(i)[codes] for i, codes in enumerate(records.unbind(1))])

    def of_shares(self, shares: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the expectations of the same, for columns that are independent.

        Args:
            shares: For each column, float (batch, size).
        """
        return self._parts([each @ self.table(i) for i, each in enumerate(shares)])

    def _parts(self, blocks: list[Tensor]) -> tuple[Tensor, Tensor]:
        vectors = torch.cat([x[:, :k] for x, k in zip(blocks, self.widths, strict=True)], 1)
        signs = torch.cat([x[:, k:] for x, k in zip(blocks, self.widths, strict=True)], 1)
        if not len(self.places):
            return vectors, signs[:, :0]
        one, two, three = (signs.index_select(1, place) for place in self.places.unbind(1))
        return vectors, one * two * three


class Embedding:
    """A learner whose gradient, for each record, is the record's features.

    In double precision: its one batch is everybody, and the rounding of so long a sum is then
    nothing beside the grid of the noise.

    Attributes:
        module: The module: a parameter for each feature, whose values do not matter.
        features: The features, in single precision.
        pairs: What the vault said of products of two columns, (coordinates, coordinates).
        triples: What it said of the random products, (triples,).
    """

    def __init__(self, features: Features) -> None:
        self.module: nn.Module = _Inner(features)
        self.features = copy.deepcopy(features).float()
        self._mask = features.mask.float()
        self.pairs, self.triples = (torch.zeros(shape) for shape in features.shapes)

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        """Return the inner product of each record's features with the parameters."""
        found: Tensor = module(records)
        return found

    def update(self, gradients: list[Tensor]) -> None:
        """Take the noisy mean."""
        self.pairs = gradients[0].float()
        if len(gradients) > 1:
            self.triples = gradients[1].float().flatten()

    def distance(self, shares: Sequence[Tensor]) -> Tensor:
        """Return the squared distance of what is expected of made records from what was taken.

        Each half of them has an expectation of its own, so that their product is without bias.

        Args:
            shares: For each column, float32 (batch, size): its distribution in each record, given
                which columns are independent.
        """
        features = self.features
        vectors, products = features.of_shares(shares)
        halves = []
        for z, signs in zip(vectors.tensor_split(2), products.tensor_split(2), strict=True):
            pairs = (z.t() @ z) * (features.of_pairs / len(z)) - self.pairs
            halves.append((pairs * self._mask, signs.mean(0) * features.of_triples - self.triples))
        (pairs, triples), (others, more) = halves
        return (pairs * others).sum() + (triples * more).sum()

    def state(self) -> dict[str, Tensor]:
        """Return what was taken."""
        return {"pairs": self.pairs, "triples": self.triples}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take what :meth:`state` returned."""
        self.pairs, self.triples = state["pairs"], state["triples"]


class _Inner(nn.Module):
    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features
        width, products = features.shapes[0][0], features.shapes[1][0]
        self.pairs = MaskedLinear(width, width, features.mask, bias=False).double()
        self.triples = nn.Linear(products, 1, bias=False).double() if products else None

    def forward(self, records: Tensor) -> Tensor:
        vectors, products = self.features.of_records(records)
        # The gradient with respect to the first weight is the outer product of the vectors.
        found: Tensor = (self.pairs(vectors) * vectors).sum(1) * self.features.of_pairs
        if self.triples is not None:
            found = found + self.triples(products).squeeze(1) * self.features.of_triples
        return found


def column_vectors(share: Floats, ordered: int) -> Floats:
    """Return a vector of length 1 for each code of a column, float64 (size, coordinates).

    They are the corners of a regular simplex, which lie around zero: so their products say how
    columns depend on each other, and little of what each is by itself. Of many codes in order,
    neighbours that are about a 32nd of the rows together share one.

    Args:
        share: The column's distribution, float64 (size,), of sum 1.
        ordered: How many leading codes are in natural order.
    """
    parts = coarse_codes(share, ordered, _PARTS)
    count = int(parts.max()) + 1
    corners = np.eye(count) - (1 / count if count > 1 else 0)
    return np.asarray(corners / np.linalg.norm(corners, axis=1, keepdims=True))[parts]


def column_signs(share: Floats, ordered: int, count: int, rng: np.random.Generator) -> Floats:
    """Return random signs of a column's codes, float64 (size, count): each has about half the mass.

    Args:
        share: The column's distribution, float64 (size,), of sum 1.
        ordered: How many leading codes are in natural order; these change sign at most twice.
        count: How many functions of a code.
        rng: Where they come from.
    """
    found = np.empty((share.size, count))
    for i in range(count):
        if ordered > _ORDERED:
            order = np.roll(np.arange(share.size), rng.integers(share.size))
        else:
            order = rng.permutation(share.size)
        mass = share[order]
        found[order, i] = np.where(mass.cumsum() - mass / 2 < 0.5, 1.0, -1.0)
    return found


def _triples(columns: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return triples of columns, int64 (count, 3): each as often as any other, give or take 1."""
    whole = list(combinations(range(columns), 3))
    if not whole or not count:
        return np.empty((0, 3), dtype=np.int64)
    rounds = -(-count // len(whole))
    drawn = np.concatenate([rng.permutation(len(whole)) for _ in range(rounds)])[:count]
    return np.asarray(np.array(whole, dtype=np.int64)[drawn])
