"""The model of the autoregressive generator: arrays of numbers, without torch, a row or a vault."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.deep._chain import Chain
from dpsynth.deep._drawn import Drawn
from dpsynth.deep._files import checked_array, read, write
from dpsynth.deep._layout import layout_of
from dpsynth.domain import Domain

FORMAT = "dpsynth-autoregressive-model"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class AutoregressiveModel(Drawn):
    """A distribution over codes as a product of conditional ones, column after column.

    Where values are given, the other columns are drawn from their conditional distribution:
    exactly, if the given columns come first in ``order``. Otherwise only nearly: columns up to the
    last given one are drawn 16 times over, at least 4096 times, and then chosen by how probable
    they make what is given (self-normalised importance resampling). Where what is given is rare,
    few of these weigh anything, so rows repeat in those columns, and the fewer are asked the cruder
    it is.

    Attributes:
        domain: What the codes mean.
        rows: Noisy number of rows of the table it was fitted to.
        shares: For each column, float64 (size,): the noisy one-way distribution, which says how
            values lie inside a cell.
        order: The columns in the order of the chain rule, by size.
        hidden: How many hidden units there are; 0 if conditionals are log-linear.
        maps: For each column, int64 (size,): the coarse code by which columns after it read it.
        arrays: The network's weights, float32.
    """

    order: tuple[str, ...]
    hidden: int
    maps: Mapping[str, NDArray[np.int64]]
    arrays: Mapping[str, NDArray[np.float32]]

    def log_probability(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Natural logarithm of the probability of the codes of each row, float64 (rows,).

        Finite: no row is impossible. Free for the model, but an answer about the rows of ``frame``:
        where those are private, so is it.

        Args:
            frame: Rows with every modelled column, coded as those of a fit are.

        Raises:
            InvalidRequest: The frame lacks a modelled column.
        """
        codes = self.domain.encode(frame)
        return self._chain.log_probability(np.column_stack([codes[name] for name in self.order]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a safetensors file: plain arrays and a JSON header.

        Equal models give equal bytes.

        Args:
            path: The file to write, replaced if it exists.
        """
        header = {
            "domain": self.domain.to_json(),
            "rows": self.rows,
            "order": list(self.order),
            "hidden": self.hidden,
        }
        arrays: dict[str, NDArray[Any]] = dict(self.arrays)
        arrays |= {f"share_{i}": self.shares[name] for i, name in enumerate(self.order)}
        arrays |= {f"map_{i}": self.maps[name] for i, name in enumerate(self.order)}
        write(path, FORMAT, FORMAT_VERSION, header, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AutoregressiveModel:
        """Read a model that ``save`` wrote; no code in the file is ever run.

        Raises:
            InvalidRequest: If the file is not such a model, or of another format version.
        """
        return read(path, FORMAT, FORMAT_VERSION, cls._from)

    @classmethod
    def _from(
        cls, header: Mapping[str, Any], arrays: dict[str, NDArray[Any]]
    ) -> AutoregressiveModel:
        # A file may hold what a model is made of and nothing beside it.
        if header.keys() != {"domain", "rows", "order", "hidden"}:
            raise ValueError
        domain, order = Domain.from_json(header["domain"]), tuple(header["order"])
        rows, hidden = float(header["rows"]), header["hidden"]
        if sorted(order) != sorted(domain.names) or not order:
            raise ValueError
        # Before anything of that size is made of a number in a file.
        units = len(arrays["inner_bias"]) if "inner_bias" in arrays else 0
        if type(hidden) is not int or hidden != units or not math.isfinite(rows):
            raise ValueError
        maps = {name: _map(arrays.pop(f"map_{i}"), domain, name) for i, name in enumerate(order)}
        layout = layout_of([maps[name] for name in order], hidden)
        shares = {
            name: checked_array(arrays.pop(f"share_{i}"), (domain.size(name),), np.float64)
            for i, name in enumerate(order)
        }
        if any((share < 0).any() for share in shares.values()):
            raise ValueError
        weights = {
            name: checked_array(arrays.pop(name), shape, np.float32)
            for name, shape in layout.shapes.items()
        }
        if arrays:
            raise ValueError
        return cls(domain, rows, shares, order, hidden, maps, weights)

    @cached_property
    def _chain(self) -> Chain:
        maps = [self.maps[name] for name in self.order]
        return Chain(layout_of(maps, self.hidden), maps, self.arrays)

    def _draw(
        self, n: int, fixed: Mapping[str, int], rng: np.random.Generator
    ) -> dict[str, NDArray[np.int32]]:
        places = {self.order.index(name): code for name, code in fixed.items()}
        drawn = self._chain.draw(n, places, rng)
        found = dict(zip(self.order, drawn.T.copy(), strict=True))
        return {name: found[name] for name in self.domain.names}


def _map(values: NDArray[Any], domain: Domain, name: str) -> NDArray[np.int64]:
    right = values.shape == (domain.size(name),) and values.dtype == np.int64
    # Coarse codes are 0..k-1, so that nothing of another size can follow from them.
    found = np.unique(values)
    if not right or not np.array_equal(found, np.arange(found.size)):
        raise ValueError("coarse codes do not fit their column")
    return values
