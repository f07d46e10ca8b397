"""AIM and MWEM+PGM: choose the marginal that the model answers worst, measure it, fit, and again.

McKenna, Mullins, Sheldon, Miklau 2022, "AIM: An adaptive and iterative mechanism for differentially
private synthetic data", PVLDB 15(11), section 4. MWEM: Hardt, Ligett, McSherry 2012, "A simple and
practical algorithm for differentially private data release"; with a graphical model: McKenna,
Sheldon, Miklau 2019, section 5. Changed here: the rounds lie in one Gaussian block, one-way
marginals have a share of their own, and marginals are over the coarse codes that those allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpsynth.domain import Clique
from dpsynth.marginal.choose import Bounds
from dpsynth.marginal.estimate import Observation
from dpsynth.marginal.model import MarginalModel
from dpsynth.marginal.opening import (
    Opening,
    opening_steps,
    part,
    require_least,
    require_shares,
)
from dpsynth.vault import MOST_WEIGHT, Block, Dividing, Step, Vault
from dpsynth.workload import PAIRS, Workload
from dpsynth_accounting.budget import Number

_MEAN = math.sqrt(2 / math.pi)  # of the absolute value of a standard normal
_WIDEST = 3  # columns of a candidate that is not named by itself
_STEPS = 30  # of mirror descent in a round
_STEPS_LAST = 300  # and after the last one


@dataclass(frozen=True, kw_only=True)
class _Adaptive:
    """What the mechanisms of rounds share."""

    workload: Workload = PAIRS
    one_way: float = 0.3
    selection: float = 0.1
    rounds: int | None = None
    bins: int = 64
    most_cells: int = 75_000

    _rounds_a_column: ClassVar[int]
    _annealed: ClassVar[float]

    def __post_init__(self) -> None:
        """Refuse shares and sizes that make no plan."""
        name = type(self).__name__
        require_shares(name, one_way=self.one_way)
        require_shares(name, selection=self.selection)
        rounds = 1 if self.rounds is None else self.rounds
        require_least(name, rounds=(rounds, 1), bins=(self.bins, 2))
        require_least(name, most_cells=(self.most_cells, 4))

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return type(self).__name__.lower()

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault, given the names of the modelled columns.

        Raises:
            InvalidRequest: If there is no column, or the workload names one that is not there.
        """
        return opening_steps(columns, self.workload, self.one_way, self._rounds(len(columns)))

    def run(self, block: Block) -> MarginalModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        opening = Opening.of(
            block, one_way=self.one_way, measuring=1 - self.selection, bins=self.bins
        )
        if len(opening.ones) < 2:
            return opening.model(opening.fit())
        rounds = _Rounds(opening, block.divide(), self)
        share = 1 / self._rounds(len(opening.ones))
        while rounds.left > 0:
            # What would not do for two more rounds goes to one.
            share = min(share, rounds.left) if rounds.left >= 2 * share else rounds.left
            taught = rounds.next(share)
            if taught is None:
                break
            if not taught:
                share *= self._annealed
        return rounds.end()

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> MarginalModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)

    def _rounds(self, columns: int) -> int:
        return self._rounds_a_column * columns if self.rounds is None else self.rounds


@dataclass(frozen=True, kw_only=True)
class AIM(_Adaptive):
    """Measures, round by round, the marginal that matters most and is answered worst.

    A round that moves the model by less than its noise halves the noise of the later ones.

    Attributes:
        workload: What the model is to answer well; by default all pairs of columns.
        one_way: Share of the precision for the one-way marginals.
        selection: Share of each round for its choice.
        rounds: How many rounds there may be; by default 16 a column.
        bins: About how many coarse codes a column may have at most.
        most_cells: Greatest number of cells of a clique of the junction tree, of which a round may
            use the part of the precision that was spent by then.

    Raises:
        InvalidRequest: If a share is not between 0 and 1, or a number is too small.

    >>> AIM().steps(["a", "b", "c"])
    (Measure(marginals=3, weight=0.3), Divide(answers=48, weight=0.7))
    """

    _rounds_a_column: ClassVar[int] = 16
    _annealed: ClassVar[float] = 4.0


@dataclass(frozen=True, kw_only=True)
class MWEM(_Adaptive):
    """Measures the worst answered marginal in each of a fixed number of alike rounds.

    Attributes:
        workload: What the model is to answer well; by default all pairs of columns.
        one_way: Share of the precision for the one-way marginals.
        selection: Share of each round for its choice.
        rounds: How many rounds there are; by default 2 a column.
        bins: About how many coarse codes a column may have at most.
        most_cells: As for :class:`AIM`.

    Raises:
        InvalidRequest: If a share is not between 0 and 1, or a number is too small.

    >>> MWEM().steps(["a", "b", "c"])
    (Measure(marginals=3, weight=0.3), Divide(answers=6, weight=0.7))
    """

    selection: float = 0.5

    _rounds_a_column: ClassVar[int] = 2
    _annealed: ClassVar[float] = 1.0


class _Rounds:
    """The rounds of one fit: what was measured, and the model so far."""

    def __init__(self, opening: Opening, shared: Dividing, of: _Adaptive) -> None:
        self._opening, self._shared, self._of = opening, shared, of
        self._sizes = opening.coarsening.sizes
        self._measured: list[Observation] = []
        self._fit = opening.fit()
        names = list(self._sizes)
        weights = of.workload.weights(of.workload.candidates(names, _WIDEST), names)
        self._weights = {c: max(round(w * MOST_WEIGHT), 1) for c, w in weights.items()}

    @property
    def left(self) -> float:
        """The share of the rounds' precision that is left, if worth using."""
        left = float(self._shared.left)
        return left if left > 1e-6 and self._shared.answers_left else 0.0

    def next(self, share: float) -> bool | None:
        """Choose, measure, fit. Return whether it taught more than noise; None if no room is left.

        Args:
            share: Of the precision of all rounds.
        """
        room = self._room(1 - self._of.one_way) if self.left else []
        answers = dict(self._fit.answers(room))
        if not answers:
            return None
        sigma = 1 / math.sqrt((1 - self._of.selection) * share * self._opening.precision)
        noise = {clique: _MEAN * sigma * each.size for clique, each in answers.items()}
        chosen = self._shared.choose(
            answers,
            part(self._of.selection * share),
            weights={clique: self._weights[clique] for clique in answers},
            offsets={clique: round(value) for clique, value in noise.items()},
            coarse=self._opening.coarsening.maps,
        )
        measured = self._shared.measure(
            [chosen], [part((1 - self._of.selection) * share)], self._opening.coarsening.maps
        )
        self._measured += [Observation.of(each) for each in measured]
        self._fit = self._opening.fit(self._measured, steps=_STEPS, start=self._fit)
        ((_, after),) = self._fit.answers([chosen])
        return float(np.abs(after - answers[chosen]).sum()) > noise[chosen]

    def end(self) -> MarginalModel:
        """Fit once more, for longer, and return the model."""
        fit = self._opening.fit(self._measured, steps=_STEPS_LAST, start=self._fit)
        return self._opening.model(fit, self._measured)

    def _room(self, divided: float) -> list[Clique]:
        """The candidates that the junction tree has room for by now: all that lie in its cliques.

        Args:
            divided: Share of the whole precision that the rounds divide.
        """
        spent = 1 - divided * float(self._shared.left)
        bounds = Bounds(self._sizes, round(self._of.most_cells * spent))
        graph = [each.clique for each in self._measured]
        held = [set(clique) for clique in self._fit.tree.cliques]
        return [
            clique
            for clique in self._weights
            if any(set(clique) <= each for each in held) or bounds.grown([*graph, clique])
        ]
