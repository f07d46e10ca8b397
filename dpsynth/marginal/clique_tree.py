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

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dpsynth.marginal.choose import choose, pairs, triples
from dpsynth.marginal.compress import Coarsening, coarsen
from dpsynth.marginal.elimination import joint
from dpsynth.marginal.estimate import Fit, Observation, estimate, estimate_total
from dpsynth.marginal.factor import Clique
from dpsynth.marginal.independent import require_columns
from dpsynth.marginal.model import MarginalModel
from dpsynth.vault import Block, Divide, Dividing, Measure, Step, Vault
from dpsynth_accounting import InvalidRequest
from dpsynth_accounting.budget import Number

MOST_IN_ALL = 4
"""Cells of all cliques of the junction tree together, in units of the greatest clique's."""

_TRIPLES = 20  # most triples that a later pass scores, in units of the columns
_FEW = 40  # columns up to which there are two passes
_WORTH_USING = 0.02  # share of the divided precision that is not left unused
_STEPS = 100  # of mirror descent, in each pass
_UNITS = 1 << 40  # shares are whole multiples of one part in so many


@dataclass(frozen=True, kw_only=True)
class CliqueTree:
    """Measures every column, then in passes the pairs and triples that are worth their noise.

    Attributes:
        one_way: Share of the precision for the one-way marginals.
        scoring: Share for finding the pairs and triples; the rest measures them.
        passes: How often the model is looked at and mended; by default twice, and once beyond 40
            columns, where a pass takes long and finds little that is new.
        bins: About how many coarse codes a column may have at most.
        most_cells: Greatest number of cells of a clique of the junction tree.

    Raises:
        InvalidRequest: If the shares leave nothing, or a number is too small.

    >>> CliqueTree().steps(3)
    (Measure(marginals=3, weight=0.4), Divide(answers=16, weight=0.6))
    """

    one_way: float = 0.4
    scoring: float = 0.06
    passes: int | None = None
    bins: int = 64
    most_cells: int = 75_000

    def __post_init__(self) -> None:
        """Refuse shares and sizes that make no plan."""
        shares = (self.one_way, self.scoring, 1 - self.one_way - self.scoring)
        if not all(math.isfinite(share) and share > 0 for share in shares):
            raise InvalidRequest(
                f"CliqueTree was asked for with shares {self.one_way} and {self.scoring}.",
                "Both must be above 0, and leave something to measure pairs with.",
                "Leave them at their defaults, 0.4 and 0.06.",
            )
        if self._passes(1) < 1 or self.bins < 2 or self.most_cells < 4:
            raise InvalidRequest(
                f"CliqueTree was asked for with passes = {self.passes}, bins = {self.bins}, "
                f"most_cells = {self.most_cells}.",
                "It needs a pass, 2 coarse codes a column, and 4 cells for a pair of them.",
                "Leave them at their defaults.",
            )

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "clique-tree"

    def steps(self, columns: int) -> tuple[Step, ...]:
        """Return what a fit asks of the vault, given the number of modelled columns.

        Raises:
            InvalidRequest: If there is no column.
        """
        require_columns(columns)
        if columns < 2:
            return (Measure(columns, 1.0),)
        candidates = math.comb(columns, 2) + min(math.comb(columns, 3), _TRIPLES * columns)
        weight = round(1 - self.one_way, 12)
        # In each pass a candidate may be scored, and measured.
        return (
            Measure(columns, self.one_way),
            Divide(2 * self._passes(columns) * candidates, weight),
        )

    def run(self, block: Block) -> MarginalModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        domain = block.domain
        ones = [Observation.of(m) for m in block.measure([(name,) for name in domain.names])]
        total = estimate_total(ones)
        if len(ones) < 2:
            fine = Coarsening.none({name: domain.size(name) for name in domain.names})
            return MarginalModel.of(domain, estimate(ones, fine.sizes), fine, ones)
        variance = float(ones[0].variance[0])
        # The steps split one precision, so what is left is known, in 1 / rows squared.
        precision = len(ones) / variance * (1 - self.one_way) / self.one_way
        measuring = 1 - self.scoring / (1 - self.one_way)
        coarsening = coarsen(
            ones,
            {name: domain.ordered(name) for name in domain.names},
            total,
            bins=self.bins,
            pair_sigma=math.sqrt(len(ones) / (measuring * precision)),
        )
        seen = [coarsening.observe(one) for one in ones]
        fit = estimate(seen, coarsening.sizes, total=total)
        shared, passes = block.divide(), self._passes(len(ones))
        candidates = pairs(coarsening.sizes)
        for _ in range(passes):
            found = self._scores(shared, fit, candidates, coarsening, passes)
            picked = choose(
                found,
                coarsening.sizes,
                [each.clique for each in seen],
                precision=precision * measuring / passes,
                most_cells=self.most_cells,
                most_in_all=MOST_IN_ALL * self.most_cells,
            )
            if not picked:
                break
            shares = [_share(share * measuring / passes) for share in picked.values()]
            answers = shared.measure(list(picked), shares, coarsening.maps)
            seen += [Observation.of(each) for each in answers]
            before = None if fit.tree.independent else fit
            fit = estimate(seen, coarsening.sizes, total=total, iterations=_STEPS, start=before)
            candidates = pairs(coarsening.sizes) + triples(fit.tree)[: _TRIPLES * len(ones)]
        if shared.left > _WORTH_USING:  # a pass found nothing worth its noise: better one-ways
            share = _share(float(shared.left) / len(ones))
            again = shared.measure([one.clique for one in ones], [share] * len(ones))
            ones = [one.joined(Observation.of(m)) for one, m in zip(ones, again, strict=True)]
            seen[: len(ones)] = [coarsening.observe(one) for one in ones]
            fit = estimate(seen, coarsening.sizes, total=total, iterations=_STEPS, start=fit)
        return MarginalModel.of(domain, fit, coarsening, ones)

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> MarginalModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)

    def _passes(self, columns: int) -> int:
        return (2 if columns <= _FEW else 1) if self.passes is None else self.passes

    def _scores(
        self,
        shared: Dividing,
        fit: Fit,
        candidates: Iterable[Clique],
        coarsening: Coarsening,
        passes: int,
    ) -> dict[Clique, float]:
        """Return what the distances between rows and model are at least likely to be, of a pass."""
        answers = dict(_answers(fit, candidates))
        share = _share(self.scoring / (1 - self.one_way) / passes)
        scores = shared.score(answers, share, coarsening.maps)
        # The greatest of many noisy scores is one of much noise: a score must stand out of its own.
        values = scores.values - scores.sigma
        return dict(zip(answers, values.tolist(), strict=True))


def _answers(fit: Fit, candidates: Iterable[Clique]) -> Iterator[tuple[Clique, NDArray[np.int64]]]:
    """Yield what a fit says of marginals, in whole rows; but of those that no memory would hold."""
    if fit.tree.independent:
        ones = {each.clique[0]: each.values / fit.total for each in fit.marginals}
        for a, b in candidates:
            yield (a, b), np.rint(fit.total * np.outer(ones[a], ones[b])).astype(np.int64)
        return
    for clique in candidates:
        with contextlib.suppress(InvalidRequest):
            table = joint(fit.tree, fit.marginals, clique).transpose(clique).values
            yield clique, np.rint(table).astype(np.int64)


def _share(share: float) -> Fraction:
    """Return a share as a fraction, a shade less, so that all of them add up to no more than 1."""
    return Fraction(math.floor(share * (1 - 1e-9) * _UNITS), _UNITS)
