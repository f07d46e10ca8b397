"""DP-MERF: one noisy mean of features, then a generator trained without limit.

Harder, Adamczewski, Park (2021), "DP-MERF: differentially private mean embeddings with random
features for practical privacy-preserving data generation". The only private answers are the
one-way marginals and one Gaussian sum; all training sees these alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dpsynth.deep._adam import Adam
from dpsynth.deep._chain import smoothed
from dpsynth.deep._decoder import Decoder
from dpsynth.deep._embedding import Embedding, Features
from dpsynth.deep._latent_model import LatentModel
from dpsynth.deep._parameters import refuse, require_columns, whole
from dpsynth.vault import Block, Measure, Step, Train, Vault
from dpsynth_accounting.budget import Number


@dataclass(frozen=True, kw_only=True)
class MERF:
    one_way: float = 0.1
    triples: int = 1000
    triples_weight: float = 0.2
    latent: int = 16
    hidden: int = 128
    iterations: int = 800
    batch: int = 512
    learning_rate: float = 5e-3
    average: float = 0.98

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "merf"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        require_columns(columns)
        if len(columns) < 2:  # there is nothing to learn but its marginal
            return (Measure(len(columns), 1.0),)
        return (Measure(len(columns), self.one_way), Train(1.0, 1, round(1 - self.one_way, 12)))

    def run(self, block: Block) -> LatentModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        domain = block.domain
        ones = block.measure([(name,) for name in domain.names])
        shares, rows = smoothed([one.values for one in ones], [one.sigma for one in ones])
        ordered = [domain.ordered(name) for name in domain.names]
        features = Features(shares, ordered, self.triples, self.triples_weight)
        embedding = Embedding(features)
        if len(shares) > 1:
            block.train(embedding, clip=float(block.unit.rows), rows=rows)
        decoder = Decoder(self.latent, self.hidden, [np.log(share) for share in shares])
        learner = Adam(
            decoder,
            learning_rate=self.learning_rate,
            iterations=self.iterations,
            average=self.average,
        )
        if len(shares) > 1:
            precision = self.one_way / ((1 - self.one_way) * len(shares))
            goal = _Goal(features.float(), embedding, shares, precision)
            rng = np.random.default_rng(0)
            for _ in range(self.iterations):
                draws = rng.standard_normal((self.batch, self.latent), dtype=np.float32)
                loss = goal.loss(decoder, torch.from_numpy(draws))
                learner.update(list(torch.autograd.grad(loss, list(decoder.parameters()))))
        named = dict(zip(domain.names, shares, strict=True))
        return LatentModel(domain, rows, named, decoder.arrays(learner.averaged()))

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> LatentModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)


class _Goal:
    def __init__(self, features, embedding, shares, precision):
        self.features = features
        self.mask = features.mask.float()
        self.pairs = embedding.pairs * self.mask
        self.triples = embedding.triples
        self.shares = torch.from_numpy(np.concatenate(shares)).float()
        self.precision = precision

    def loss(self, decoder: Decoder, latent: Tensor) -> Tensor:
        parts = decoder(latent).split(decoder.sizes, dim=1)
        shares = [part.softmax(1) for part in parts]
        vectors, products = self.features.of_shares(shares)
        whole = torch.cat(shares, 1)
        halves = []
        n = len(latent) // 2
        for half in (slice(0, n), slice(n, None)):
            z = vectors[half]
            pairs = (z.T @ z) * self.mask * (self.features.of_pairs / n) - self.pairs
            triples = products[half].mean(0) * self.features.of_triples - self.triples
            ones = whole[half].mean(0) - self.shares
            halves.append((pairs, triples, ones))
        (a, b, c), (d, e, f) = halves
        return (a * d).sum() + (b * e).sum() + self.precision * (c * f).sum()
