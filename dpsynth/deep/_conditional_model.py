"""The model of the conditional generator: every row is decoded from a vector and one of its codes.

It is a mixture over columns: one is drawn uniformly, its code from the noisy one-way distribution,
and the others are decoded beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpsynth.deep._latent_model import Floats, LatentModel


@dataclass(frozen=True, eq=False)
class ConditionalModel(LatentModel):
    """A latent model that decodes beside a code which the row has.

    Where one value is given, rows are decoded for it. Where several are, each is for one of them,
    and chosen by how probable the others are; see :meth:`LatentModel.sample`.

    Attributes:
        domain: What the codes mean.
        rows: Noisy number of rows of the table it was fitted to.
        shares: For each column, float64 (size,): the noisy one-way distribution.
        arrays: As of a :class:`LatentModel`, and ``condition`` (codes of all columns, hidden).
    """

    FORMAT: ClassVar[str] = "dpsynth-conditional-model"

    @classmethod
    def _shapes(cls, latent: int, hidden: int, codes: int) -> dict[str, tuple[int, ...]]:
        return {**super()._shapes(latent, hidden, codes), "condition": (codes, hidden)}

    @cached_property
    def _starts(self) -> dict[str, int]:
        return dict(zip(self.domain.names, [0, *self._ends[:-1]], strict=True))

    # A latent vector is one number longer here: the code, among those of all columns. A float32
    # holds whole numbers up to 2**24.

    def _proposed(
        self, n: int, fixed: Mapping[str, int], rng: np.random.Generator
    ) -> tuple[Floats, NDArray[np.float64]]:
        latent, weights = super()._proposed(n, fixed, rng)
        names = [name for name in self.domain.names if not fixed or name in fixed]
        chosen = rng.integers(len(names), size=n)
        codes = np.empty(n, dtype=np.int64)
        for place, name in enumerate(names):
            mine = chosen == place
            shares = self.shares[name]
            if name in fixed:
                codes[mine] = self._starts[name] + fixed[name]
                weights[mine] += np.log(shares[fixed[name]])
            else:
                codes[mine] = self._starts[name] + rng.choice(
                    shares.size, mine.sum(), p=shares / shares.sum()
                )
        return np.column_stack([latent, codes.astype(np.float32)]), weights

    def _weighed(self, fixed: Mapping[str, int]) -> bool:
        return len(fixed) > 1

    def _units(self, latent: Floats) -> Floats:
        condition = self.arrays["condition"][latent[:, -1].astype(np.int64)]
        found: Floats = super()._units(latent[:, :-1]) + condition
        return found

    def _log_shares(self, latent: Floats) -> dict[str, NDArray[np.float64]]:
        found = super()._log_shares(latent)
        codes = latent[:, -1].astype(np.int64)
        for name, start in self._starts.items():
            logs = found[name]
            mine = np.flatnonzero((codes >= start) & (codes < start + logs.shape[1]))
            logs[mine] = -np.inf
            logs[mine, codes[mine] - start] = 0.0
        return found
