"""The autoregressive generator: conditional distributions of each column, learnt by DP-SGD.

The idea is that of Castellon et al. (2023), "DP-TBART", arXiv 2307.10430, with a smaller network:
noisy one-way marginals are where it starts, and log-linear conditionals most of what it learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpsynth.deep._adam import Adam
from dpsynth.deep._autoregressive_model import AutoregressiveModel
from dpsynth.deep._layout import coarse_codes, layout_of, ordered_columns
from dpsynth.deep._network import Network
from dpsynth.deep._one_way import measured, opening_steps
from dpsynth.deep._parameters import require, whole
from dpsynth.vault import Block, Step, Vault
from dpsynth_accounting.budget import Number

_ENOUGH = 3.0  # epsilon from which hidden units learn more than their weights add noise
_HIDDEN = 128
_RATES = (6e-3, 3e-3)  # of learning, without hidden units and with


@dataclass(frozen=True, kw_only=True)
class Autoregressive:
    """Measures every column, then learns each from those before it, by DP-SGD.

    For tables of many columns, and where a model is to predict: its conditionals join all columns,
    not pairs. Its time grows with the number of codes of all columns, times that of what is read of
    them: of numbers at most 64 parts of about equal weight, of names each code.

    Attributes:
        one_way: Share of the precision for the one-way marginals, above 0 and below 1; the rest is
            for training.
        rate: Probability with which a unit joins a step. Large batches carry less noise.
        iterations: How many steps there are.
        hidden: How many hidden units there are; None for 0 below an epsilon of 3, else 128.
        clip: Greatest norm of a unit's gradient. That of a row is mostly above 1, so rows count
            about equally.
        learning_rate: Of the first step; None for 0.006 without hidden units, 0.003 with.
        average: Decay of the average of the weights over the steps.

    Raises:
        InvalidRequest: A parameter is out of its range.

    >>> Autoregressive().steps(["a", "b"])
    (Measure(marginals=2, weight=0.1), Train(rate=0.05, steps=600, weight=0.9))
    """

    one_way: float = 0.1
    rate: float = 0.05
    iterations: int = 600
    hidden: int | None = None
    clip: float = 1.0
    learning_rate: float | None = None
    average: float = 0.99

    def __post_init__(self) -> None:
        """Refuse what makes no plan."""
        units = self.hidden is None or whole(self.hidden, 0)
        require(self, hidden=(units, "a whole number from 0, or None"))

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "autoregressive"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault: one marginal a column, and a training.

        Raises:
            InvalidRequest: If there is no column.
        """
        return opening_steps(columns, self.one_way, self.rate, self.iterations)

    def run(self, block: Block) -> AutoregressiveModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        domain, order = block.domain, ordered_columns(block.domain)
        shares, rows = measured(block, order)
        maps = [
            coarse_codes(share, domain.ordered(name))
            for name, share in zip(order, shares, strict=True)
        ]
        layout = layout_of(maps, self._hidden(block))
        places = [domain.names.index(name) for name in order]
        network = Network(layout, places, [np.log(share) for share in shares], maps)
        default = _RATES[bool(layout.hidden)]
        learner = Adam(
            network,
            learning_rate=default if self.learning_rate is None else self.learning_rate,
            iterations=self.iterations,
            average=self.average,
        )
        if len(order) > 1:
            block.train(learner, clip=self.clip, rows=rows)
        arrays = network.arrays(learner.averaged())
        named = dict(zip(order, shares, strict=True))
        read = dict(zip(order, maps, strict=True))
        return AutoregressiveModel(domain, rows, named, order, layout.hidden, read, arrays)

    def fit(
        self, vault: Vault, *, epsilon: Number, delta: Number | None = None
    ) -> AutoregressiveModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)

    def _hidden(self, block: Block) -> int:
        if self.hidden is not None:
            return self.hidden
        return _HIDDEN if float(block.plan.epsilon) >= _ENOUGH else 0
