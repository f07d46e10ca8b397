"""Generative adversarial networks under differential privacy: only the critic's loss sees rows.

Goodfellow et al. (2014), "Generative adversarial nets"; Arjovsky, Chintala, Bottou (2017),
"Wasserstein GAN"; Xu et al. (2019), "Modeling tabular data using conditional GAN"; Bie, Kamath,
Zhang (2023), "Private GANs: Revisited". The critic here is linear in its weights, one for each pair
of codes, which makes the best of noisy gradients; see ``docs/explanation/neural.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.deep._conditional_model import ConditionalModel
from dpsynth.deep._critic import PairCritic, merged_codes
from dpsynth.deep._game import Game
from dpsynth.deep._generator import Generator
from dpsynth.deep._latent_model import Floats, LatentModel
from dpsynth.deep._one_way import measured, opening_steps
from dpsynth.deep._parameters import require, whole
from dpsynth.domain import Domain
from dpsynth.vault import Block, Step, Vault
from dpsynth_accounting.budget import Number

_CLIP = 1.0  # the norm of every record's gradient


@dataclass(frozen=True, kw_only=True)
class GAN:
    """Measures every column, then plays a critic of pairs of codes against a generator.

    The generator starts at, and ends calibrated to, the noisy one-way marginals. The time of a fit
    grows with the square of the number of coarse codes of all columns.

    Attributes:
        one_way: Share of the precision for the one-way marginals, above 0 and below 1; the rest is
            for the critic.
        rate: Probability with which a unit joins a step of the critic. Large batches carry less
            noise.
        iterations: How many steps the critic takes.
        critic_steps: After how many of them the generator moves.
        generator_steps: How many steps it then takes; they read no row.
        codes: How many coarse codes of a column there are at most, beside missing and the like:
            neighbours of numbers are read as one, and rare names.
        latent: Length of the latent vector.
        hidden: How many hidden units the generator has.
        fakes: How many fakes are made a step of the generator, at least 2.
        learning_rate: Of the generator's first step.
        average: Decay of the average of the generator's weights over its steps.

    Raises:
        InvalidRequest: A parameter is out of its range.

    >>> GAN().steps(["a", "b"])
    (Measure(marginals=2, weight=0.1), Train(rate=0.5, steps=20, weight=0.9))
    """

    one_way: float = 0.1
    rate: float = 0.5
    iterations: int = 20
    critic_steps: int = 1
    generator_steps: int = 240
    codes: int = 16
    latent: int = 16
    hidden: int = 128
    fakes: int = 256
    learning_rate: float = 3e-3
    average: float = 0.99

    def __post_init__(self) -> None:
        """Refuse what makes no plan."""
        many = whole(self.critic_steps, 1) and whole(self.iterations, self.critic_steps)
        require(
            self,
            critic_steps=(many, "a whole number from 1 to the number of iterations"),
            generator_steps=(whole(self.generator_steps, 1), "a whole number from 1"),
            codes=(whole(self.codes, 2), "a whole number from 2"),
            fakes=(whole(self.fakes, 2), "a whole number from 2"),
        )

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "gan"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault: one marginal a column, and a training.

        Raises:
            InvalidRequest: If there is no column.
        """
        return opening_steps(columns, self.one_way, self.rate, self.iterations)

    def run(self, block: Block) -> LatentModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        return LatentModel(*self._learnt(block, conditional=False))

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> LatentModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)

    def _learnt(
        self, block: Block, *, conditional: bool
    ) -> tuple[Domain, float, dict[str, NDArray[np.float64]], dict[str, Floats]]:
        domain = block.domain
        shares, rows = measured(block, domain.names)
        maps = [
            merged_codes(share, domain.ordered(name), self.codes)
            for name, share in zip(domain.names, shares, strict=True)
        ]
        coarse = [
            np.bincount(map_, weights=share).astype(np.float64)
            for map_, share in zip(maps, shares, strict=True)
        ]
        generator = Generator(
            coarse, rows, latent=self.latent, hidden=self.hidden, conditional=conditional
        )
        if len(maps) > 1:
            game = Game(
                PairCritic(maps),
                generator,
                iterations=self.iterations,
                critic_steps=self.critic_steps,
                generator_steps=self.generator_steps,
                fakes=self.fakes,
                learning_rate=self.learning_rate,
                average=self.average,
            )
            block.train(game, clip=_CLIP, rows=rows)
            game.finish()
        named = dict(zip(domain.names, shares, strict=True))
        return domain, rows, named, generator.arrays(shares, maps)


@dataclass(frozen=True, kw_only=True)
class ConditionalGAN(GAN):
    """A GAN whose generator is given one code that the row is to have, of any column.

    For the rare: half of what the generator learns is what comes with a code, rare codes among
    them, and ``sample(given=...)`` of one value decodes rows for it. The frequencies by which codes
    are drawn, in training and in sampling, are the noisy one-way marginals. Parameters are those of
    :class:`GAN`.

    >>> ConditionalGAN().name
    'conditional-gan'
    """

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "conditional-gan"

    def run(self, block: Block) -> ConditionalModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        return ConditionalModel(*self._learnt(block, conditional=True))

    def fit(
        self, vault: Vault, *, epsilon: Number, delta: Number | None = None
    ) -> ConditionalModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)
