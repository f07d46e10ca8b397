"""The model of the generators that decode a latent vector: arrays of numbers, without torch.

Koller and Friedman (2009) call its shape a naive Bayes model with a continuous hidden variable:
given the latent vector, columns are independent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from dpsynth.deep._drawn import Drawn
from dpsynth.deep._files import checked_array, read, write
from dpsynth.domain import Domain

FORMAT_VERSION = 1

_ROWS = 1 << 14  # drawn at once
_PROPOSALS = 16  # latent vectors a row, where values are given
_LEAST_PROPOSALS = 4096

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LatentModel(Drawn):
    """Rows decoded from standard normal vectors by one hidden layer; columns are then independent.

    Where values are given, the latent vectors are chosen among 16 times as many, at least 4096, by
    how probable they make what is given (self-normalised importance resampling): nearly, not
    exactly.

    Attributes:
        domain: What the codes mean.
        rows: Noisy number of rows of the table it was fitted to.
        shares: For each column, float64 (size,): the noisy one-way distribution, which says how
            values lie inside a cell.
        arrays: float32: ``inner`` (latent, hidden), ``inner_bias`` (hidden,), ``outer`` (hidden,
            codes of all columns), ``outer_bias`` (codes of all columns,).
    """

    arrays: Mapping[str, Floats]

    FORMAT: ClassVar[str] = "dpsynth-latent-model"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a safetensors file; equal models give equal bytes.

        Args:
            path: The file to write, replaced if it exists.
        """
        header = {"domain": self.domain.to_json(), "rows": self.rows}
        shares = {f"share_{i}": self.shares[name] for i, name in enumerate(self.domain.names)}
        write(path, self.FORMAT, FORMAT_VERSION, header, {**self.arrays, **shares})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model that ``save`` wrote; no code in the file is ever run.

        Raises:
            InvalidRequest: If the file is not such a model, or of another format version.
        """
        return read(path, cls.FORMAT, FORMAT_VERSION, cls._from)

    @classmethod
    def _from(cls, header: Mapping[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        if header.keys() != {"domain", "rows"} or arrays["inner"].ndim != 2:
            raise ValueError
        domain, rows = Domain.from_json(header["domain"]), float(header["rows"])
        latent, hidden = arrays["inner"].shape
        shapes = cls._shapes(latent, hidden, sum(domain.size(name) for name in domain.names))
        shares = {
            name: checked_array(arrays.pop(f"share_{i}"), (domain.size(name),), np.float64)
            for i, name in enumerate(domain.names)
        }
        weights = {n: checked_array(arrays.pop(n), s, np.float32) for n, s in shapes.items()}
        if arrays or not math.isfinite(rows) or any((s < 0).any() for s in shares.values()):
            raise ValueError
        return cls(domain, rows, shares, weights)

    @classmethod
    def _shapes(cls, latent: int, hidden: int, codes: int) -> dict[str, tuple[int, ...]]:
        """The shape of every array, by name."""
        return {
            "inner": (latent, hidden),
            "inner_bias": (hidden,),
            "outer": (hidden, codes),
            "outer_bias": (codes,),
        }

    def _draw(
        self, n: int, fixed: Mapping[str, int], rng: np.random.Generator
    ) -> dict[str, NDArray[np.int32]]:
        latent = self._latent(n, fixed, rng)
        found = {name: np.empty(n, dtype=np.int32) for name in self.domain.names}
        for start in range(0, n, _ROWS):
            part = slice(start, min(start + _ROWS, n))
            for name, logs in self._log_shares(latent[part]).items():
                if name in fixed:
                    found[name][part] = fixed[name]
                else:
                    sums = np.exp(logs).cumsum(1)
                    below = sums <= rng.random(len(sums))[:, None] * sums[:, -1:]
                    found[name][part] = np.minimum(below.sum(1), sums.shape[1] - 1)
        return found

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(self.domain.size(name) for name in self.domain.names))

    def _log_shares(self, latent: Floats) -> dict[str, NDArray[np.float64]]:
        """Log-probabilities of each column's codes given the vectors, float64 (rows, size)."""
        units = np.maximum(self._units(latent), 0)
        logits = (units @ self.arrays["outer"] + self.arrays["outer_bias"]).astype(np.float64)
        parts = np.split(logits, self._ends[:-1], axis=1)
        found = {}
        for name, part in zip(self.domain.names, parts, strict=True):
            part -= part.max(1, keepdims=True)
            part -= np.log(np.exp(part).sum(1, keepdims=True))
            found[name] = part
        return found

    def _units(self, latent: Floats) -> Floats:
        found: Floats = latent @ self.arrays["inner"] + self.arrays["inner_bias"]
        return found

    def _proposed(
        self, n: int, fixed: Mapping[str, int], rng: np.random.Generator
    ) -> tuple[Floats, NDArray[np.float64]]:
        """Draw latent vectors, and the logarithm of what each weighs before what it decodes to."""
        size = self.arrays["inner"].shape[0]
        return rng.standard_normal((n, size), dtype=np.float32), np.zeros(n)

    def _weighed(self, fixed: Mapping[str, int]) -> bool:
        """Say whether vectors have to be chosen for what is fixed."""
        return bool(fixed)

    def _latent(self, n: int, fixed: Mapping[str, int], rng: np.random.Generator) -> Floats:
        """Return a latent vector for each row: of the standard normal, or given what is fixed."""
        if not self._weighed(fixed) or not n:
            return self._proposed(n, fixed, rng)[0]
        many = max(_PROPOSALS * n, _LEAST_PROPOSALS)
        proposed, weights = self._proposed(many, fixed, rng)
        for start in range(0, many, _ROWS):
            part = slice(start, start + _ROWS)
            logs = self._log_shares(proposed[part])
            for name, code in fixed.items():
                weights[part] += logs[name][:, code]
        sums = np.exp(weights - weights.max()).cumsum()
        wanted = (rng.random() + np.arange(n)) * (sums[-1] / n)
        chosen: Floats = proposed[np.minimum(np.searchsorted(sums, wanted, side="right"), many - 1)]
        return chosen
