"""PrivBayes: a Bayesian network whose families are chosen and measured one after another.

Zhang, Cormode, Procopiuc, Srivastava, Xiao 2017, "PrivBayes: Private data release via Bayesian
networks", ACM TODS 42(4), sections 4 and 5. Changed here: a column's parents lie in one family that
was measured before, so the network is decomposable and exact to fit, sample and query; the score
is the distance of a family's counts from independence of what is known of its parents, which a unit
of k rows moves by k; a family is measured as it is chosen; and all is over coarse codes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique
from dpsynth.marginal.estimate import Observation, project_simplex
from dpsynth.marginal.factor import Factor
from dpsynth.marginal.model import MarginalModel
from dpsynth.marginal.opening import (
    Opening,
    opening_steps,
    part,
    require_least,
    require_shares,
)
from dpsynth.vault import Block, Step, Vault
from dpsynth_accounting.budget import Number

_MEAN = math.sqrt(2 / math.pi)  # of the absolute value of a standard normal


@dataclass(frozen=True, kw_only=True)
class PrivBayes:
    """Adds column after column to a network, each with the parents that tell the most of it.

    Attributes:
        one_way: Share of the precision for the one-way marginals.
        selection: Share of the rest for the choices.
        degree: Greatest number of parents.
        useful: Least mean number of rows in a family's cell, in units of its mean noise: the
            paper's theta.
        bins: About how many coarse codes a column may have at most.
        most_cells: Greatest number of cells of a family.

    Raises:
        InvalidRequest: If a share is not between 0 and 1, or a number is too small.

    >>> PrivBayes().steps(["a", "b", "c"])
    (Measure(marginals=3, weight=0.3), Divide(answers=2, weight=0.7))
    """

    one_way: float = 0.3
    selection: float = 0.2
    degree: int = 3
    useful: float = 4.0
    bins: int = 64
    most_cells: int = 75_000

    def __post_init__(self) -> None:
        """Refuse shares and sizes that make no plan."""
        require_shares("PrivBayes", one_way=self.one_way)
        require_shares("PrivBayes", selection=self.selection)
        require_least("PrivBayes", degree=(self.degree, 1), bins=(self.bins, 2))
        require_least("PrivBayes", useful=(self.useful, 0), most_cells=(self.most_cells, 4))

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "privbayes"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault, given the names of the modelled columns.

        Raises:
            InvalidRequest: If there is no column.
        """
        return opening_steps(columns, None, self.one_way, len(columns) - 1)

    def run(self, block: Block) -> MarginalModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        opening = Opening.of(
            block, one_way=self.one_way, measuring=1 - self.selection, bins=self.bins
        )
        if len(opening.ones) < 2:
            return opening.model(opening.fit())
        shared, maps = block.divide(), opening.coarsening.maps
        share = 1 / (len(opening.ones) - 1)
        sigma = 1 / math.sqrt((1 - self.selection) * share * opening.precision)
        families = _Families(opening, self, sigma)
        measured: list[Observation] = []
        while families.left:
            answers = dict(families.candidates())
            chosen = shared.choose(
                answers,
                part(self.selection * share),
                weights=dict.fromkeys(answers, 1),
                offsets=dict.fromkeys(answers, 0),
                coarse=maps,
            )
            (answer,) = shared.measure([chosen], [part((1 - self.selection) * share)], maps)
            measured.append(Observation.of(answer))
            families.add(measured[-1])
        return opening.model(opening.fit(measured), measured)

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> MarginalModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)


class _Families:
    """The network so far: its families as distributions, and the columns that it lacks.

    It begins with the column of the most coarse codes, which can tell the most of others.
    """

    def __init__(self, opening: Opening, of: PrivBayes, sigma: float) -> None:
        self._of, self._total, self._sizes = of, opening.total, opening.coarsening.sizes
        self._most = min(of.most_cells, math.inf if of.useful == 0 else self._useful(of, sigma))
        self._ones = {one.clique[0]: self._cleaned(one).values for one in opening.seen}
        first = max(self._sizes, key=self._sizes.__getitem__)
        self._known = [Factor((first,), self._ones[first])]
        self.left = [name for name in self._sizes if name != first]

    def candidates(self) -> Iterator[tuple[Clique, NDArray[np.int64]]]:
        """Yield what independence of a new column from its parents says, of each possible family.

        Only families that no other with the same new column holds; a column by itself where no
        parent leaves its family useful.
        """
        for name in self.left:
            found: Mapping[frozenset[str], Factor] = self._parents(name)
            largest = [
                table for key, table in found.items() if not any(key < other for other in found)
            ]
            for table in largest:
                product = np.multiply.outer(table.values, self._ones[name] / self._total)
                yield (*table.clique, name), np.rint(product).astype(np.int64)

    def add(self, family: Observation) -> None:
        """Take a measured family into the network: the last of its columns is the new one."""
        self._known.append(self._cleaned(family))
        self.left.remove(family.clique[-1])

    def _parents(self, name: str) -> dict[frozenset[str], Factor]:
        """Return the parents that leave a family useful, with what is known of them."""
        found = {frozenset[str](): Factor((), np.array(self._total))}
        for table in self._known:
            for size in range(1, min(self._of.degree, len(table.clique)) + 1):
                for parents in itertools.combinations(table.clique, size):
                    cells = math.prod(self._sizes[each] for each in (*parents, name))
                    if cells <= self._most and frozenset(parents) not in found:
                        found[frozenset(parents)] = table.project(parents)
        return found

    def _useful(self, of: PrivBayes, sigma: float) -> float:
        return self._total / (of.useful * _MEAN * sigma)

    def _cleaned(self, observation: Observation) -> Factor:
        values = project_simplex(observation.values.ravel(), self._total)
        return Factor(observation.clique, values.reshape(observation.values.shape))
