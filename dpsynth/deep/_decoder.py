"""From a latent vector to logits of every column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float32]


class Decoder(nn.Module):
    """One hidden layer; the logits start at the noisy one-way marginals.

    Args:
        latent: Length of a latent vector.
        hidden: How many hidden units there are.
        log_shares: For each column, float (size,): what its logits start at.
    """

    def __init__(self, latent: int, hidden: int, log_shares: Sequence[NDArray[np.float64]]) -> None:
        super().__init__()
        self.sizes = [each.size for each in log_shares]
        self.inner = nn.Linear(latent, hidden)
        self.outer = nn.Linear(hidden, sum(self.sizes))
        with torch.no_grad():
            fill(self.inner.weight, (3 / latent) ** 0.5, 1)
            nn.init.zeros_(self.inner.bias)
            fill(self.outer.weight, 0.1 * (3 / hidden) ** 0.5, 2)
            self.outer.bias.copy_(torch.from_numpy(np.concatenate(log_shares)))

    def forward(self, latent: Tensor) -> Tensor:
        """Return the logits of all columns beside each other, float (batch, codes)."""
        found: Tensor = self.outer(torch.relu(self.inner(latent)))
        return found

    def arrays(self, values: Mapping[nn.Parameter, Tensor]) -> dict[str, Floats]:
        """Return values of the parameters as a :class:`LatentModel` holds them."""
        found = {name: values[each] for name, each in self.named_parameters()}
        named = {
            "inner": found["inner.weight"].T,
            "inner_bias": found["inner.bias"],
            "outer": found["outer.weight"].T,
            "outer_bias": found["outer.bias"],
        }
        return {
            name: np.ascontiguousarray(each.detach().cpu().numpy(), dtype=np.float32)
            for name, each in named.items()
        }


def fill(weight: Tensor, bound: float, number: int) -> None:
    """Fill a weight uniformly within a bound, whatever the state of torch's own generator.

    Args:
        weight: Changed in place.
        bound: Greatest absolute value.
        number: Which of a network's weights it is, so that no two are alike.
    """
    draws = np.random.default_rng(number).uniform(-bound, bound, tuple(weight.shape))
    weight.copy_(torch.from_numpy(draws))
