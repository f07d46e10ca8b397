"""The variational autoencoder: one loss a row, so plain DP-SGD trains it.

Kingma and Welling (2014), "Auto-encoding variational Bayes"; for tables, Xu, Skoularidou, Cuesta,
Veeramachaneni (2019), "Modeling tabular data using conditional GAN", section 4.5 (TVAE). Here every
column is a categorical of its codes, and starts at its noisy one-way marginal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dpsynth.deep._adam import Adam
from dpsynth.deep._decoder import Decoder, fill
from dpsynth.deep._latent_model import LatentModel
from dpsynth.deep._one_way import measured, opening_steps
from dpsynth.deep._parameters import require, whole
from dpsynth.vault import Block, Step, Vault
from dpsynth.vault._train import CodesLinear
from dpsynth_accounting.budget import Number

_ENOUGH = 3.0  # epsilon from which a longer latent vector says more than noise
_LATENT = (8, 16)  # below it, and from it
_LEAST, _MOST = -6.0, 4.0  # of the logarithm of a variance, so that its exponential stays finite


@dataclass(frozen=True, kw_only=True)
class VAE:
    """Measures every column, then learns an autoencoder of rows, by DP-SGD.

    Attributes:
        one_way: Share of the precision for the one-way marginals, above 0 and below 1; the rest is
            for training.
        rate: Probability with which a unit joins a step. Large batches carry less noise.
        iterations: How many steps there are.
        latent: Length of the latent vector; None for 8 below an epsilon of 3, else 16.
        hidden: How many hidden units the encoder and the decoder have.
        clip: Greatest norm of a unit's gradient.
        learning_rate: Of the first step.
        average: Decay of the average of the weights over the steps.

    Raises:
        InvalidRequest: A parameter is out of its range.

    >>> VAE().steps(["a", "b"])
    (Measure(marginals=2, weight=0.1), Train(rate=0.05, steps=600, weight=0.9))
    """

    one_way: float = 0.1
    rate: float = 0.05
    iterations: int = 600
    latent: int | None = None
    hidden: int = 128
    clip: float = 1.0
    learning_rate: float = 3e-3
    average: float = 0.99

    def __post_init__(self) -> None:
        """Refuse what makes no plan."""
        latent = self.latent is None or whole(self.latent, 1)
        require(self, latent=(latent, "a whole number from 1, or None"))

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "vae"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault: one marginal a column, and a training.

        Raises:
            InvalidRequest: If there is no column.
        """
        return opening_steps(columns, self.one_way, self.rate, self.iterations)

    def run(self, block: Block) -> LatentModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        domain = block.domain
        shares, rows = measured(block, domain.names)
        latent = self.latent or _LATENT[float(block.plan.epsilon) >= _ENOUGH]
        coder = _Coder(latent, self.hidden, [np.log(share) for share in shares])
        learner = Adam(
            coder,
            learning_rate=self.learning_rate,
            iterations=self.iterations,
            average=self.average,
        )
        if len(shares) > 1:
            block.train(learner, clip=self.clip, rows=rows)
        named = dict(zip(domain.names, shares, strict=True))
        return LatentModel(domain, rows, named, coder.decoder.arrays(learner.averaged()))

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> LatentModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)


class _Coder(nn.Module):
    """Maps records to minus a lower bound on their log-likelihood, of one draw of each."""

    def __init__(self, latent: int, hidden: int, log_shares: Sequence[NDArray[np.float64]]) -> None:
        super().__init__()
        self.decoder = Decoder(latent, hidden, log_shares)
        self.first = CodesLinear(self.decoder.sizes, hidden)
        self.second = nn.Linear(hidden, 2 * latent)
        with torch.no_grad():
            fill(self.first.weight, (3 / len(log_shares)) ** 0.5, 3)
            fill(self.second.weight, 0.1 * (3 / hidden) ** 0.5, 4)
            for layer in (self.first, self.second):
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, records: Tensor) -> Tensor:
        """Return the negative evidence lower bound of each record, float (batch,).

        Args:
            records: int64 (batch, columns): codes, in the order of the domain's names.
        """
        mean, spread = self.second(torch.relu(self.first(records))).chunk(2, dim=1)
        spread = spread.clamp(_LEAST, _MOST)
        latent = mean + torch.randn_like(mean) * (spread / 2).exp()
        total: Tensor = 0.5 * (mean.square() + spread.exp() - spread - 1).sum(1)
        parts = self.decoder(latent).split(self.decoder.sizes, dim=1)
        for part, code in zip(parts, records.unbind(1), strict=True):
            total = total + functional.cross_entropy(part, code, reduction="none")
        return total
