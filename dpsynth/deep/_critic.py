"""The critic: a weight for every pair of codes of two columns, and what a record scores by them.

A Wasserstein critic (Arjovsky, Chintala, Bottou 2017, "Wasserstein GAN", section 3) that is linear
in its weights. Every record's gradient is then the indicator of its pairs of codes, all of one
norm, so clipping changes none; noise has no weight to run away with; and of columns independent
given a latent vector the mean score is exact, no code needs to be drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpsynth.deep._layout import coarse_codes
from dpsynth.vault._train import CodesLinear

Codes = NDArray[np.int64]


class PairCritic(nn.Module):
    """Maps records to minus their scores, scaled so that every record's gradient has norm 1.

    Args:
        maps: For each column, int64 (size,): the coarse code by which the critic reads each code.

    Attributes:
        layer: Its weights, float (coarse codes, coarse codes): those of a column and a later one
            are read. The others have no part in a score, so what the vault gives for them is noise
            alone, and says how much of it there is.
        scale: What a score is divided by: the root of the number of pairs of columns.
    """

    lookup: Tensor
    starts: Tensor

    def __init__(self, maps: Sequence[Codes]) -> None:
        super().__init__()
        sizes = [int(each.max()) + 1 for each in maps]
        columns = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        mask = torch.arange(len(sizes)).unsqueeze(1) < columns
        self.scale = math.sqrt(len(sizes) * (len(sizes) - 1) / 2)
        self.layer = CodesLinear(sizes, sum(sizes), mask.float(), bias=False)
        nn.init.zeros_(self.layer.weight)
        ends = torch.tensor([each.size for each in maps]).cumsum(0)
        self.register_buffer("lookup", torch.from_numpy(np.concatenate(maps)), persistent=False)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])
        self.register_buffer("starts", starts, persistent=False)

    def forward(self, records: Tensor) -> Tensor:
        """Return minus the score of each record, float (batch,).

        Args:
            records: int64 (batch, columns): codes, in the order of the domain's names.
        """
        codes = self.lookup[records + self.starts]
        read: Tensor = self.layer(codes).gather(1, codes + self.layer.offsets)
        return -read.sum(1) / self.scale


def merged_codes(shares: NDArray[np.float64], ordered: int, most: int) -> Codes:
    """Return the coarse code of each code, int64 (size,), 0..k-1 with k about ``most``.

    Neighbours are merged where codes are in natural order, as by :func:`coarse_codes`; of names,
    the rarest.

    Args:
        shares: The column's distribution, float64 (size,), of sum 1.
        ordered: How many leading codes are in natural order.
        most: How many coarse codes there may be, beside what follows the ordered ones.
    """
    if ordered or shares.size <= most:
        return coarse_codes(shares, ordered, most)
    kept = np.sort(np.argsort(-shares, kind="stable")[: most - 1])
    found = np.full(shares.size, most - 1, dtype=np.int64)
    found[kept] = np.arange(most - 1)
    return found
