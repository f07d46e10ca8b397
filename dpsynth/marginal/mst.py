"""MST: a tree of pairs chosen privately (McKenna, Miklau, Sheldon 2021).

"Winning the NIST contest: a scalable and general approach to differentially private synthetic
data", Journal of Privacy and Confidentiality 11(3), section 3. Changed here: pairs are scored and
measured on coarse codes that the noisy one-way marginals allow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique
from dpsynth.marginal.compress import Coarsening, coarsen
from dpsynth.marginal.estimate import Observation, estimate, estimate_total
from dpsynth.marginal.independent import require_columns
from dpsynth.marginal.model import MarginalModel
from dpsynth.marginal.opening import require_least, require_positive
from dpsynth.vault import Block, Measure, Select, Step, Vault
from dpsynth_accounting.budget import Number


@dataclass(frozen=True, kw_only=True)
class MST:
    """Measures every column, then the pairs of a privately chosen spanning tree.

    Attributes:
        one_way: Share of the precision for the one-way marginals, relative to the other shares.
        selection: Share for choosing the pairs.
        pairs: Share for measuring the pairs.
        bins: About how many coarse codes a column may have at most.

    Raises:
        InvalidRequest: If a share is not a positive number, or ``bins`` is below 2.

    >>> MST().steps(["a"])
    (Measure(marginals=1, weight=1.0),)
    """

    one_way: float = 0.5
    selection: float = 0.05
    pairs: float = 0.45
    bins: int = 64

    def __post_init__(self) -> None:
        """Refuse shares and bins that make no plan."""
        require_positive("MST", one_way=self.one_way, selection=self.selection, pairs=self.pairs)
        require_least("MST", bins=(self.bins, 2))

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "mst"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault, given the names of the modelled columns.

        Raises:
            InvalidRequest: If there is no column.
        """
        require_columns(columns)
        if len(columns) < 2:
            return (Measure(len(columns), 1.0),)
        edges = len(columns) - 1
        return (
            Measure(len(columns), self.one_way),
            Select(edges, self.selection),
            Measure(edges, self.pairs),
        )

    def run(self, block: Block) -> MarginalModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        domain = block.domain
        ones = [Observation.of(m) for m in block.measure([(name,) for name in domain.names])]
        total = estimate_total(ones)
        ordered = {name: domain.ordered(name) for name in domain.names}
        coarsening = self._coarsening(ones, ordered, total)
        seen, measured = [coarsening.observe(one) for one in ones], list[Observation]()
        if len(domain.names) > 1:
            answers = _independent_pairs(seen, coarsening, total)
            tree = block.select(answers, _Forest(tuple(answers)), coarsening.maps)
            measured = [Observation.of(m) for m in block.measure(tree, coarsening.maps)]
        fitted = estimate(seen + measured, coarsening.sizes, total=total)
        return MarginalModel.of(domain, fitted, coarsening, ones, measured)

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> MarginalModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)

    def _coarsening(
        self, ones: Sequence[Observation], ordered: Mapping[str, int], total: float
    ) -> Coarsening:
        if len(ones) < 2:
            return Coarsening.none({one.clique[0]: one.values.size for one in ones})
        variance = float(ones[0].variance[0])
        # The steps split one precision, so the noise of the pairs is known before they are asked.
        pair_variance = variance * (len(ones) - 1) / len(ones) * self.one_way / self.pairs
        return coarsen(
            ones,
            ordered,
            total,
            bins=self.bins,
            pair_sigma=math.sqrt(pair_variance),
        )


def _independent_pairs(
    seen: Sequence[Observation], coarsening: Coarsening, total: float
) -> dict[Clique, NDArray[np.int64]]:
    """What independence says of every pair of columns, in whole rows."""
    fitted = estimate(seen, coarsening.sizes, total=total)
    tables = {factor.clique[0]: factor.values for factor in fitted.marginals}
    return {
        (a, b): np.rint(np.outer(tables[a], tables[b] / total)).astype(np.int64)
        for a, b in itertools.combinations(coarsening.maps, 2)
    }


@dataclass(frozen=True)
class _Forest:
    """Kruskal's rule: a pair may be chosen if it joins two parts of the forest so far."""

    pairs: tuple[Clique, ...]

    def __call__(self, chosen: tuple[Clique, ...]) -> Collection[Clique]:
        part = {name: name for pair in self.pairs for name in pair}
        for a, b in chosen:
            old, new = part[b], part[a]
            part = {name: new if label == old else label for name, label in part.items()}
        return [pair for pair in self.pairs if part[pair[0]] != part[pair[1]]]
