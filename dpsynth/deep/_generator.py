"""The generator's side of the game: fakes, and the pairs of codes that they have.

Nothing here sees a record: what comes in is the noisy one-way distributions and draws of its own,
which follow from the number of the step, so a resumed training goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpsynth.deep._decoder import Decoder, Floats, fill

_CALIBRATED = 1 << 14  # fakes on which biases are set
_ROUNDS = 25


@dataclass(frozen=True, eq=False)
class Fakes:
    """Fakes as distributions of codes: columns are independent given a fake's latent vector.

    Attributes:
        shares: float (fakes, codes of all columns), of sum 1 in each column.
        weights: float (fakes,), what each counts for, 1 on average.
        codes: int64 (fakes,), the code each was made for, among those of all columns, or None.
    """

    shares: Tensor
    weights: Tensor
    codes: Tensor | None

    def one_way(self) -> Tensor:
        """Return the mean distribution of each column, float (codes,)."""
        return self.weights @ self.shares / len(self.shares)

    def pairs(self) -> Tensor:
        """Return how often two codes come together, float (codes, codes)."""
        weighed = self.shares * self.weights.unsqueeze(1)
        return weighed.T @ self.shares / len(self.shares)

    def pairs_with_condition(self, columns: int) -> Tensor:
        """Return the same, each row from those fakes alone that were made for its column."""
        found = self.shares.new_zeros(self.shares.shape[1], self.shares.shape[1])
        if self.codes is None:
            return found
        weighed = self.shares * (self.weights * columns / len(self.shares)).unsqueeze(1)
        return found.index_add(0, self.codes, weighed)


class Generator(nn.Module):
    """Decodes latent vectors; if conditional, each beside one code that the row is to have.

    The code is of a column drawn uniformly, in proportion to the logarithm of its count, as in Xu
    et al. (2019), section 4.3; but the counts are the noisy ones, and weights undo the proportion.

    Args:
        shares: For each column, float64 (coarse codes,): the noisy one-way distribution.
        rows: The noisy number of rows.
        latent: Length of a latent vector.
        hidden: How many hidden units there are.
        conditional: Whether fakes are made for a code.
    """

    def __init__(
        self,
        shares: Sequence[NDArray[np.float64]],
        rows: float,
        *,
        latent: int,
        hidden: int,
        conditional: bool,
    ) -> None:
        super().__init__()
        self.decoder = Decoder(latent, hidden, [np.log(each) for each in shares])
        self.sizes = self.decoder.sizes
        self.target = torch.from_numpy(np.concatenate(shares)).float()
        """The noisy one-way distributions beside each other, float (codes,)."""
        self._latent = latent
        chances = [np.log1p(rows * each) for each in shares]
        self._chances = np.concatenate([each / each.sum() for each in chances]) / len(shares)
        self.column = torch.repeat_interleave(torch.arange(len(shares)), torch.tensor(self.sizes))
        self.condition = (
            nn.Parameter(torch.empty(len(self.target), hidden)) if conditional else None
        )
        if self.condition is not None:
            with torch.no_grad():
                fill(self.condition, 0.5, 5)

    def fakes(self, count: int, draw: tuple[int, ...]) -> Fakes:
        """Return fakes of standard normal vectors; equal numbers ``draw`` give equal draws."""
        rng = np.random.default_rng(draw)
        latent = torch.from_numpy(rng.standard_normal((count, self._latent), dtype=np.float32))
        codes = None
        weights = torch.ones(count)
        if self.condition is not None:
            drawn = rng.choice(len(self._chances), count, p=self._chances)
            codes = torch.from_numpy(drawn)
            even = self.target.double().numpy() / len(self.sizes)
            weights = torch.from_numpy(even[drawn] / self._chances[drawn]).float()
        return Fakes(self._shares(latent, codes), weights, codes)

    def _shares(self, latent: Tensor, codes: Tensor | None) -> Tensor:
        units = self.decoder.inner(latent)
        if codes is not None and self.condition is not None:
            units = units + self.condition[codes]
        logits = self.decoder.outer(torch.relu(units))
        shares = torch.cat([each.softmax(1) for each in logits.split(self.sizes, 1)], 1)
        if codes is None:
            return shares
        mine = self.column == self.column[codes].unsqueeze(1)
        return shares.masked_fill(mine, 0.0).scatter(1, codes.unsqueeze(1), 1.0)

    @torch.no_grad()
    def calibrate(self) -> None:
        """Set the biases so that columns have their noisy one-way distributions."""
        for _ in range(_ROUNDS):
            mean = self.fakes(_CALIBRATED, (0,)).one_way()
            self.decoder.outer.bias.add_((self.target / mean.clamp(min=1e-12)).log().clamp(-2, 2))

    def arrays(
        self, shares: Sequence[NDArray[np.float64]], maps: Sequence[NDArray[np.int64]]
    ) -> dict[str, Floats]:
        """Return the weights as a model holds them, of codes instead of coarse codes.

        Args:
            shares: For each column, float64 (size,): how a coarse code is divided among its codes.
            maps: For each column, int64 (size,): the coarse code of each code.
        """
        starts = np.cumsum([0, *self.sizes[:-1]])
        wide = np.concatenate([each + start for start, each in zip(starts, maps, strict=True)])
        divided = np.log(np.concatenate(shares)) - np.log(self.target.double().numpy())[wide]
        found = self.decoder.arrays({each: each for each in self.decoder.parameters()})
        found["outer"] = np.ascontiguousarray(found["outer"][:, wide])
        found["outer_bias"] = (found["outer_bias"][wide] + divided).astype(np.float32)
        if self.condition is not None:
            found["condition"] = self.condition.detach().numpy()[wide]
        return found
