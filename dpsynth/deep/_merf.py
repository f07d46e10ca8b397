"""DP-MERF: one noisy mean of features, then a generator trained without limit.

Harder, Adamczewski, Park (2021), "DP-MERF: differentially private mean embeddings with random
features for practical privacy-preserving data generation". Beside the one-way marginals, the only
private answer is one Gaussian sum. All training sees these alone, so it is post-processing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpsynth.deep._adam import Adam
from dpsynth.deep._decoder import Decoder
from dpsynth.deep._embedding import Embedding, Features
from dpsynth.deep._latent_model import LatentModel
from dpsynth.deep._one_way import measured, opening_steps
from dpsynth.deep._parameters import require, whole
from dpsynth.vault import Block, Step, Vault
from dpsynth_accounting.budget import Number

_CARE = 10.0
_AVERAGE = 0.98  # decay of the average of the weights over the free steps


@dataclass(frozen=True, kw_only=True)
class MERF:
    """Measures every column and one mean of features, then fits a generator to these answers.

    The simplest to audit of the neural generators: no training step reads rows. Its features are
    products of two columns, and of random signs of three.

    Attributes:
        one_way: Share of the precision for the one-way marginals, above 0 and below 1; the rest is
            for the mean of the features.
        triples: How many random products of three columns there are.
        triples_weight: Share of the squared norm of a record's features for them, at least 0 and
            below 1.
        latent: Length of the latent vector.
        hidden: How many hidden units the decoder has.
        iterations: How many steps of training there are, all of them free.
        batch: How many latent vectors a step draws, at least 2.
        learning_rate: Of the first step.

    Raises:
        InvalidRequest: A parameter is out of its range.

    >>> MERF().steps(["a", "b"])
    (Measure(marginals=2, weight=0.1), Train(rate=1.0, steps=1, weight=0.9))
    """

    one_way: float = 0.1
    triples: int = 1000
    triples_weight: float = 0.2
    latent: int = 16
    hidden: int = 128
    iterations: int = 800
    batch: int = 512
    learning_rate: float = 5e-3

    def __post_init__(self) -> None:
        """Refuse what makes no plan."""
        weight = (0 <= self.triples_weight < 1, "at least 0 and below 1")
        require(
            self,
            triples=(whole(self.triples, 0), "a whole number from 0"),
            triples_weight=weight,
            batch=(whole(self.batch, 2), "a whole number from 2"),
        )

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "merf"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault: one marginal a column, and one sum of all units.

        Raises:
            InvalidRequest: If there is no column.
        """
        return opening_steps(columns, self.one_way, 1.0, 1)

    def run(self, block: Block) -> LatentModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        domain = block.domain
        shares, rows = measured(block, domain.names)
        decoder = Decoder(self.latent, self.hidden, [np.log(share) for share in shares])
        learner = Adam(
            decoder,
            learning_rate=self.learning_rate,
            iterations=self.iterations,
            average=_AVERAGE,
        )
        if len(shares) > 1:
            ordered = [domain.ordered(name) for name in domain.names]
            embedding = Embedding(Features(shares, ordered, self.triples, self.triples_weight))
            # A row's features have norm 1, so those of a unit are never clipped.
            block.train(embedding, clip=float(block.unit.rows), rows=rows)
            # Of a one-way share, beside a feature: as the inverse variances of their noise say,
            # and more, since a decoder that fits them badly fits little else.
            precision = _CARE * self.one_way / ((1 - self.one_way) * len(shares))
            self._fit_to(embedding, np.concatenate(shares), precision, learner, decoder)
        named = dict(zip(domain.names, shares, strict=True))
        return LatentModel(domain, rows, named, decoder.arrays(learner.averaged()))

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> LatentModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)

    def _fit_to(
        self,
        embedding: Embedding,
        shares: np.ndarray[tuple[int], np.dtype[np.float64]],
        precision: float,
        learner: Adam,
        decoder: Decoder,
    ) -> None:
        """Train a decoder until what it generates has nearly the features that were answered."""
        goal = torch.from_numpy(shares).float()
        rng = np.random.default_rng(0)  # of post-processing: equal answers give equal models
        for _ in range(self.iterations):
            draws = rng.standard_normal((self.batch, self.latent), dtype=np.float32)
            logits = decoder(torch.from_numpy(draws)).split(decoder.sizes, dim=1)
            made = [part.softmax(1) for part in logits]
            total = embedding.distance(made) + precision * _squared(torch.cat(made, 1), goal)
            gradients = torch.autograd.grad(total, list(decoder.parameters()))
            learner.update(list(gradients))


def _squared(made: Tensor, goal: Tensor) -> Tensor:
    """Return the squared distance of a mean from its goal, without bias by the draws."""
    one, other = (half.mean(0) - goal for half in made.tensor_split(2))
    return (one * other).sum()
