"""The game of a critic and a generator, as a learner: only the critic's loss sees records.

Noise slows a critic, so it should come near its best before the generator moves (Bie, Kamath,
Zhang 2023, "Private GANs: Revisited", TMLR, section 4). A critic linear in its weights, within a
ball, has its best in closed form: the mean indicator of the real rows less that of the fakes. The
first is the average of all noisy gradients so far; the second has no noise, is free, and is taken
anew at every step of the generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dpsynth.deep._adam import Adam
from dpsynth.deep._critic import PairCritic
from dpsynth.deep._generator import Fakes, Generator

_CONDITIONED, _RARE = 0.2, 0.01
"""The square of what comes with a code of probability p counts 0.2 / (p + 0.01): nearly as of the
conditional distribution, but not so nearly that the noise of rare codes outweighs all else."""


class Game:
    """A learner: the vault trains the critic, and the generator follows from noisy gradients.

    Args:
        critic: What sees records.
        generator: What does not.
        iterations: How many steps the critic takes.
        critic_steps: After how many of them the generator moves.
        generator_steps: How many steps it then takes.
        fakes: How many fakes are made a step.
        learning_rate: Of the generator's first step.
        average: Decay of the average of the generator's weights.
    """

    def __init__(
        self,
        critic: PairCritic,
        generator: Generator,
        *,
        iterations: int,
        critic_steps: int,
        generator_steps: int,
        fakes: int,
        learning_rate: float,
        average: float,
    ) -> None:
        self.module: nn.Module = critic
        self.generator = generator
        self._critic = critic
        self._every, self._follow, self._half = critic_steps, generator_steps, max(fakes // 2, 1)
        rounds = max(iterations // critic_steps, 1)
        self._adam = Adam(
            generator,
            learning_rate=learning_rate,
            iterations=rounds * generator_steps,
            average=average,
        )
        self._real = torch.zeros_like(critic.layer.weight)
        self._taken = self._moved = 0
        mask = critic.layer.wide_mask
        if mask is None:
            raise TypeError("the critic's layer is masked")
        self._later = mask
        near = (_CONDITIONED / (generator.target + _RARE)).sqrt()
        self._beside = (mask + mask.T) * near.unsqueeze(1)
        self._independent = torch.outer(generator.target, generator.target)

    def loss(self, module: nn.Module, records: Tensor) -> Tensor:
        """Return minus the critic's score of each real record, float (batch,)."""
        found: Tensor = module(records)
        return found

    def update(self, gradients: list[Tensor]) -> None:
        """Let the critic take one step, given its noisy gradient; sometimes the generator too."""
        self._taken += 1
        self._real.lerp_(gradients[0] * -self._critic.scale, 1 / self._taken)
        real = self._trusted()
        if self._taken % self._every == 0:
            for _ in range(self._follow):
                self._move(real)
        with torch.no_grad():
            fakes = self.generator.fakes(self._half, (2, self._moved))
            self._critic.layer.weight.copy_((real - fakes.pairs()) * self._later)

    def finish(self) -> Generator:
        """Return the generator with averaged weights, calibrated to the one-way distributions."""
        with torch.no_grad():
            for parameter, mean in self._adam.averaged().items():
                parameter.copy_(mean)
        self.generator.calibrate()
        return self.generator

    def _trusted(self) -> Tensor:
        """Return the critic's view of the real rows, less so for pairs that are mostly noise.

        Each pair of columns is drawn towards independence (James and Stein 1961, "Estimation with
        quadratic loss", section 2), given the noise of weights that no record can move.
        """
        dead = self._real[self._later == 0]
        noise = float(dead.square().mean())
        beyond = (self._real - self._independent) * self._later
        square = self._blocks(beyond.square())
        cells = self._blocks(self._later)
        kept = (1 - noise * cells / square.clamp(min=1e-30)).clamp(min=0)
        column = self.generator.column
        return (self._independent + beyond * kept[column][:, column]) * self._later

    def _blocks(self, of: Tensor) -> Tensor:
        """Return the sum of a matrix over codes within each pair of columns."""
        column, columns = self.generator.column, len(self.generator.sizes)
        rows = of.new_zeros(columns, of.shape[1]).index_add_(0, column, of)
        return rows.new_zeros(columns, columns).index_add_(1, column, rows)

    def _move(self, real: Tensor) -> None:
        """Take one step of the generator against the best critic of what is known.

        Each half of the fakes is scored by the critic that is best against the other half, so that
        the gradient has no bias from fakes being few.
        """
        self._moved += 1
        first, second = (self._behind(real, half) for half in (0, 1))
        loss = sum(((x * y).sum() for x, y in zip(first, second, strict=True)), torch.zeros(()))
        self._adam.update(list(torch.autograd.grad(loss, list(self.generator.parameters()))))

    def _behind(self, real: Tensor, half: int) -> Sequence[Tensor]:
        """Return the best critics' weights: of pairs, single codes, pairs with a condition."""
        fakes: Fakes = self.generator.fakes(self._half, (1, self._moved, half))
        found = [
            (real - fakes.pairs()) * self._later,
            self.generator.target - fakes.one_way(),
        ]
        if fakes.codes is not None:
            lone = real + real.T - fakes.pairs_with_condition(len(self.generator.sizes))
            found.append(lone * self._beside)
        return found

    def state(self) -> dict[str, Tensor]:
        """Return copies of all that is needed to go on from here."""
        counts = torch.tensor([self._taken, self._moved])
        own = {"real": self._real.clone(), "counts": counts}
        own["critic"] = self._critic.layer.weight.detach().clone()
        return own | {f"generator.{name}": each for name, each in self._adam.state().items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a state that :meth:`state` returned."""
        self._taken, self._moved = (int(each) for each in state["counts"])
        self._real.copy_(state["real"])
        self._critic.layer.weight.copy_(state["critic"])
        mine = "generator."
        self._adam.load({n[len(mine) :]: t for n, t in state.items() if n.startswith(mine)})
