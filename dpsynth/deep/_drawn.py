"""What all models of the neural generators have: rows drawn as codes, and decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.domain import Domain
from dpsynth_accounting import InvalidRequest


@dataclass(frozen=True, eq=False)
class Drawn(ABC):
    """A distribution over the codes of a domain.

    Attributes:
        domain: What the codes mean.
        rows: Noisy number of rows of the table it was fitted to.
        shares: For each column, float64 (size,): the noisy one-way distribution, which says how
            values lie inside a cell.
    """

    domain: Domain
    rows: float
    shares: Mapping[str, NDArray[np.float64]]

    @property
    def suffix(self) -> str:
        """How the name of a saved model ends."""
        return ".safetensors"

    def sample_codes(
        self,
        n: int,
        *,
        rng: np.random.Generator,
        given: Mapping[str, object] | None = None,
    ) -> dict[str, NDArray[np.int32]]:
        """Draw ``n`` rows as codes, one int32 array (n,) a column; nothing is charged.

        Args:
            n: Number of rows.
            rng: Source of the sampling: equal ones give equal rows.
            given: Values that all rows are to have, as of :meth:`sample`.

        Raises:
            InvalidRequest: ``n`` is negative, or a given value is none of its column's.
        """
        if n < 0:
            raise InvalidRequest(
                f"{n} rows were asked of a model.",
                "A table has 0 rows or more.",
                "Ask for 0 or more.",
            )
        fixed = {name: self.domain.code(name, value) for name, value in (given or {}).items()}
        return self._draw(n, fixed, rng)

    def sample(
        self,
        n: int | None = None,
        *,
        rng: np.random.Generator,
        given: Mapping[str, object] | None = None,
    ) -> pd.DataFrame:
        """Draw ``n`` rows, by default the noisy number of rows; nothing is charged.

        Rows with given values have them exactly; a number stands for the cell that holds it. How
        nearly the other columns follow what is given, the class says.

        Args:
            n: Number of rows; by default the model's, also where values are given.
            rng: Source of the sampling: equal ones give equal rows.
            given: For some columns a value; None is a missing one. Public values: nothing here
                protects whom they are of.

        Raises:
            InvalidRequest: ``n`` is negative, or a given value is none of its column's.
        """
        count = round(max(self.rows, 0.0)) if n is None else n
        codes = self.sample_codes(count, rng=rng, given=given)
        return self.domain.decode(codes, rng=rng, shares=self.shares)

    @abstractmethod
    def _draw(
        self, n: int, fixed: Mapping[str, int], rng: np.random.Generator
    ) -> dict[str, NDArray[np.int32]]:
        """Draw rows, some of whose columns have one code in all of them."""
