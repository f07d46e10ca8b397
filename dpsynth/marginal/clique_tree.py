"""The flagship: cliques of pairs and triples, scored and measured with Gaussian noise alone.

One-way marginals first; then passes over what the model still answers badly. A pass scores all
candidates in one noisy release, chooses those whose measuring removes more error than its noise
adds, under a bound on the junction tree, and measures them, all out of one divided precision. The
ideas are known apart: noisy scores in one release and the 2/3 rule of shares; a graph under a
budget of cells (Cai, Lei, Wei, Xiao 2021, "Data synthesis via differentially private Markov random
fields"); weighing error against noise (McKenna, Mullins, Sheldon, Miklau 2022, "AIM", section 4);
coarse codes that the noise allows. Proof and ablation: ``docs/explanation/clique-tree.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dpsynth.domain import Clique
from dpsynth.marginal.choose import Bounds, choose, pairs, triples
from dpsynth.marginal.estimate import Fit, Observation
from dpsynth.marginal.model import MarginalModel
from dpsynth.marginal.opening import (
    Opening,
    opening_steps,
    part,
    require_least,
    require_shares,
)
from dpsynth.marginal.ranges import MOST_LEVELS
from dpsynth.vault import Block, Dividing, Step, Vault
from dpsynth.workload import TRIPLES, Workload
from dpsynth_accounting.budget import Number

_TRIPLES = 20  # most triples that a later pass scores, in units of the columns
_FEW = 60  # columns up to which there are two passes
_STEPS = 50  # of mirror descent between two passes
_STEPS_LAST = 200  # and after the last one
_WORTH_USING = 0.02  # share of the divided precision that is not left unused


@dataclass(frozen=True, kw_only=True)
class CliqueTree:
    """Measures every column, then in passes the pairs and triples that are worth their noise.

    Attributes:
        workload: What the model is to answer well; by default all triples, and so all pairs.
        one_way: Share of the precision for the one-way marginals.
        scoring: Share for finding the pairs and triples; the rest measures them.
        passes: How often the model is looked at and mended; by default twice, and once beyond 60
            columns, where a pass takes long and finds little that is new.
        bins: About how many coarse codes a column may have at most.
        most_cells: Greatest number of cells of a clique of the junction tree.

    Raises:
        InvalidRequest: If the shares leave nothing, or a number is too small.

    >>> CliqueTree().steps(["a", "b", "c"])
    (Measure(marginals=3, weight=0.4), Divide(answers=19, weight=0.6))
    """

    workload: Workload = TRIPLES
    one_way: float = 0.4
    scoring: float = 0.06
    passes: int | None = None
    bins: int = 96
    most_cells: int = 150_000

    def __post_init__(self) -> None:
        """Refuse shares and sizes that make no plan."""
        require_shares("CliqueTree", one_way=self.one_way, scoring=self.scoring)
        require_least("CliqueTree", passes=(self._passes(1), 1), bins=(self.bins, 2))
        require_least("CliqueTree", most_cells=(self.most_cells, 4))

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "clique-tree"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault, given the names of the modelled columns.

        Raises:
            InvalidRequest: If there is no column, or the workload names one that is not there.
        """
        d = len(columns)
        candidates = math.comb(d, 2) + min(math.comb(d, 3), _TRIPLES * d)
        ranges = MOST_LEVELS * len(self.workload.ranged(columns))
        # In each pass a candidate may be scored, and measured; at the end one-ways again.
        answers = 2 * self._passes(d) * candidates + ranges + d
        return opening_steps(columns, self.workload, self.one_way, answers)

    def run(self, block: Block) -> MarginalModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        scoring = self.scoring / (1 - self.one_way)
        measuring = 1 - scoring
        opening = Opening.of(block, one_way=self.one_way, measuring=measuring, bins=self.bins)
        names = list(opening.coarsening.sizes)
        if len(names) < 2:
            return opening.model(opening.fit())
        shared = block.divide()
        opening = opening.ranged(shared, self.workload)
        fit, passes = opening.fit(), self._passes(len(names))
        each = float(shared.left) / passes
        bounds = Bounds(opening.coarsening.sizes, self.most_cells)
        candidates, measured = self._wanted(pairs(names)), list[Observation]()
        for _ in range(passes):
            if measured:
                fit = opening.fit(measured, steps=_STEPS, start=fit)
                inside = self._wanted(triples(fit.tree))[: _TRIPLES * len(names)]
                candidates = self._wanted(pairs(names)) + inside
            found = self._scores(shared, fit, candidates, opening, scoring * each)
            picked = choose(
                found,
                bounds,
                [known.clique for known in measured],
                precision=opening.precision * measuring * each,
                weights=self.workload.weights(found, names),
            )
            if not picked:
                break
            shares = [part(share * measuring * each) for share in picked.values()]
            answers = shared.measure(list(picked), shares, opening.coarsening.maps)
            measured += [Observation.of(answer) for answer in answers]
        if shared.left > _WORTH_USING:  # a pass found nothing worth its noise: better one-ways
            share = part(float(shared.left) / len(names))
            again = shared.measure([(name,) for name in names], [share] * len(names))
            opening = opening.joined([Observation.of(answer) for answer in again])
        fit = opening.fit(measured, steps=_STEPS_LAST, start=fit)
        return opening.model(fit, measured)

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> MarginalModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)

    def _passes(self, columns: int) -> int:
        return (2 if columns <= _FEW else 1) if self.passes is None else self.passes

    def _wanted(self, candidates: Sequence[Clique]) -> list[Clique]:
        return [clique for clique in candidates if self.workload.covers(clique)]

    def _scores(
        self,
        shared: Dividing,
        fit: Fit,
        candidates: Sequence[Clique],
        opening: Opening,
        share: float,
    ) -> dict[Clique, float]:
        """Return what the distances between rows and model are at least likely to be, of a pass."""
        answers = dict(fit.answers(candidates))
        if not answers:
            return {}
        scores = shared.score(answers, part(share), opening.coarsening.maps)
        # The greatest of many noisy scores is one of much noise: a score must stand out of its own.
        values = scores.values - scores.sigma
        return dict(zip(answers, values.tolist(), strict=True))
