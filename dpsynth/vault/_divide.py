"""A step whose noise is divided as its answers suggest, within one precision that was paid for.

What a mechanism asks, and how precisely, may follow from all answers so far: only the total of
squared sensitivity over variance, and of what choices take in the same measure, is fixed, and a
``Division`` refuses what would exceed it, before anything is drawn. Proof (Smith and Thakurta 2022,
Theorem 1.1): ``docs/explanation/filters.md``.
"""

from __future__ import annotations

import json
import math
import threading
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpsynth.vault import _noise
from dpsynth.vault._plan import Measurement
from dpsynth_accounting import (
    DiscreteGaussian,
    Division,
    GaussianBlock,
    canonical,
    choice_within,
    rational_up,
)

if TYPE_CHECKING:
    from dpsynth.domain import Clique
    from dpsynth.vault._block import Block
    from dpsynth.vault._execution import Coarse

MOST_WEIGHT = 1 << 16
"""Greatest weight of a candidate of a choice."""

MOST_ROWS = 1 << 44
"""Greatest offset, and sum of a model's answer, of a choice: its scores fit in an int64."""

_SMOOTHING = Fraction(3, 2)  # what a GaussianBlock's precision leaves of each variance


@dataclass(frozen=True, eq=False)
class Scores:
    """Noisy L1 distances between marginals of the rows and a model's answers to them.

    Attributes:
        values: int64 (candidates,), in rows, in the order in which the candidates were given.
        sigma: Standard deviation of the noise on each, in rows.
    """

    values: NDArray[np.int64]
    sigma: float


class Dividing:
    """A Divide step being carried out; made by :meth:`Block.divide`.

    Shares are of the step's whole precision; the sum of all that are taken is at most 1.
    """

    def __init__(self, block: Block, index: int, event: GaussianBlock) -> None:
        self._block, self._index = block, index
        self._division, self._parts = Division(event), 0
        self._lock = threading.Lock()

    @property
    def left(self) -> Fraction:
        """The share of the step's precision that is left."""
        return self._division.left / self._division.block.precision

    @property
    def answers_left(self) -> int:
        """How many scores and marginals may still be asked for."""
        return self._division.shifts_left // self._block.unit.rows

    def score(
        self,
        candidates: Mapping[Clique, NDArray[np.int64]],
        share: Fraction,
        coarse: Coarse | None = None,
    ) -> Scores:
        """Return noisy L1 distances between exact counts and a model's, of all candidates at once.

        A unit of k rows moves each of q distances by at most k: by k * sqrt(q) together.

        Args:
            candidates: The model's answer to each candidate marginal, rounded to integers.
            share: Of the precision, for all of them together.
            coarse: As in :meth:`Block.measure`.

        Charges: the share, of what was charged for the step.

        Raises:
            BudgetExceeded: It takes more than is left.
        """
        block, k = self._block, self._block.unit.rows
        candidates = dict(candidates)  # what is counted is what is asked
        self._require_some(candidates)
        block._require_counts(candidates, coarse)
        (sigma2,) = self._take([(k * k * len(candidates), len(candidates), share)])
        block._draw_samples(len(candidates))
        request = block._request(score=str(sigma2), coarse=coarse, candidates=candidates)

        def draw() -> NDArray[np.int64]:
            exact = np.array(list(block._distances(candidates, coarse).values()), dtype=np.int64)
            return exact + _noise.discrete_gaussian(sigma2, exact.shape, block._vault.stream)

        return Scores(self._counts(request, draw), math.sqrt(float(sigma2)))

    def choose(
        self,
        candidates: Mapping[Clique, NDArray[np.int64]],
        share: Fraction,
        *,
        weights: Mapping[Clique, int],
        offsets: Mapping[Clique, int],
        coarse: Coarse | None = None,
    ) -> Clique:
        """Choose one marginal by the exponential mechanism.

        The score of a candidate is its weight times (L1 distance between exact counts and the
        model's, less the offset). A unit of k rows moves it by at most k times the weight, so
        every score by at most k times the greatest weight.

        Args:
            candidates: The model's answer to each candidate marginal, rounded to integers.
            share: Of the precision.
            weights: How much each candidate matters, from 1 to ``MOST_WEIGHT``.
            offsets: What is taken from each distance, in rows: public, such as expected noise.
            coarse: As in :meth:`Block.measure`.

        Charges: the share, of what was charged for the step.

        Raises:
            BudgetExceeded: It takes more than is left.
        """
        block, k = self._block, self._block.unit.rows
        candidates = dict(candidates)
        self._require_some(candidates)
        block._require_counts(candidates, coarse)
        if not candidates.keys() <= weights.keys() & offsets.keys():
            raise block._refused("A choice was asked for without all its weights and offsets.")
        scales = {clique: (weights[clique], offsets[clique]) for clique in candidates}
        for clique, (weight, offset) in scales.items():
            rows = int(np.abs(candidates[clique]).sum())
            # A float would be rounded where scores are great, by more than a unit moves them.
            whole = type(weight) is int and type(offset) is int
            if not (whole and 1 <= weight <= MOST_WEIGHT and max(abs(offset), rows) <= MOST_ROWS):
                raise block._refused("A choice was asked for with an impossible weight or offset.")
        event = choice_within(self._checked(share) * self._division.block.precision)
        with self._lock:
            self._division.take(event)
        request = block._request(
            choose=str(event.epsilon),
            scales=list(scales.values()),
            coarse=coarse,
            candidates=candidates,
        )
        sensitivity = k * max(weight for weight, _ in scales.values())

        def draw() -> bytes:
            far = block._distances(candidates, coarse)
            scores = [weight * (far[c] - offset) for c, (weight, offset) in scales.items()]
            values = np.array(scores, dtype=np.int64)
            place = _noise.exponential(values, event.epsilon, sensitivity, block._vault.stream)
            return canonical(list(scales)[place])

        return tuple(json.loads(self._answer(request, draw)))

    def measure(
        self,
        cliques: Sequence[Clique],
        shares: Sequence[Fraction],
        coarse: Coarse | None = None,
    ) -> list[Measurement]:
        """Return noisy counts of marginals, each with the noise of its share.

        Args:
            cliques: The marginals.
            shares: Of the precision, one for each.
            coarse: As in :meth:`Block.measure`.

        Charges: the shares, of what was charged for the step.

        Raises:
            BudgetExceeded: They take more than is left.
        """
        block, k = self._block, self._block.unit.rows
        self._require_some(cliques)
        if len(cliques) != len(shares):
            raise block._refused("Marginals were asked for with another number of shares.")
        shapes = [block._shape(clique, coarse) for clique in cliques]
        noise = self._take([(k * k, k, share) for share in shares])
        block._draw_samples(sum(math.prod(shape) for shape in shapes))
        request = block._request(
            divided=[list(c) for c in cliques],
            noise=[str(sigma2) for sigma2 in noise],
            coarse=coarse,
        )
        parts = list(zip(cliques, shapes, noise, strict=True))

        def draw() -> NDArray[np.int64]:
            return np.concatenate(
                [
                    block._count(clique, shape, coarse).ravel()
                    + _noise.discrete_gaussian(sigma2, (math.prod(shape),), block._vault.stream)
                    for clique, shape, sigma2 in parts
                ]
            )

        noisy = self._counts(request, draw)
        ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
        return [
            Measurement(clique, values.reshape(shape), math.sqrt(float(sigma2)))
            for (clique, shape, sigma2), values in zip(parts, np.split(noisy, ends), strict=True)
        ]

    def _take(self, wanted: Sequence[tuple[int, int, Fraction]]) -> list[Fraction]:
        """Take answers from what is left; return the sigma squared of each.

        Args:
            wanted: Of each answer its squared sensitivity, its shifts, and its share.
        """
        precision = self._division.block.precision
        with self._lock:  # what another thread takes meanwhile must not be handed back
            found, before = [], (self._division.left, self._division.shifts_left)
            try:
                for l2_squared, shifts, share in wanted:
                    exact = l2_squared / (self._checked(share) * precision)
                    sigma2 = max(rational_up(exact) + _SMOOTHING, self._division.block.least_sigma2)
                    self._division.take(DiscreteGaussian(sigma2, l2_squared, shifts))
                    found.append(sigma2)
            except BaseException:
                self._division.left, self._division.shifts_left = before  # all of them, or none
                raise
        return found

    def _checked(self, share: Fraction) -> Fraction:
        if not 0 < share <= 1:
            raise self._block._refused("An answer was asked for with an impossible share.")
        return share

    def _require_some(self, cliques: Collection[Clique]) -> None:
        if not cliques:
            raise self._block._refused("An answer was asked for about no marginal.")

    def _counts(self, request: str, draw: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
        stored = self._answer(request, lambda: zlib.compress(draw().astype("<i8").tobytes(), 1))
        return np.frombuffer(zlib.decompress(stored), dtype="<i8").astype(np.int64)

    def _answer(self, request: str, draw: Callable[[], bytes]) -> bytes:
        stored = self._block._answer(self._index, self._parts, request, draw)
        self._parts += 1
        return stored
