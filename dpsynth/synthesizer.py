"""The two protocols that a mechanism fills: a synthesizer is a recipe, a model is its result.

Plug-ins announce a synthesizer through the entry-point group ``dpsynth.synthesizers``; ours come
through the same door.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.domain import Domain
from dpsynth.vault import Block, Step, Vault
from dpsynth.workload import Workload
from dpsynth_accounting import InvalidRequest
from dpsynth_accounting.budget import Number

GROUP = "dpsynth.synthesizers"


@runtime_checkable
class Model(Protocol):
    """What a fit returns: publishable, without a row or a vault inside."""

    @property
    def domain(self) -> Domain:
        """What the codes mean."""

    @property
    def rows(self) -> float:
        """The noisy number of rows of the table it was fitted to."""

    @property
    def suffix(self) -> str:
        """How the name of a file that ``save`` writes ends, with its dot."""

    def sample(self, n: int | None = None, *, rng: np.random.Generator) -> pd.DataFrame:
        """Draw ``n`` rows, by default the noisy number of rows; post-processing, free."""

    def sample_codes(self, n: int, *, rng: np.random.Generator) -> dict[str, NDArray[np.int32]]:
        """Draw ``n`` rows as codes, one int32 array a column."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file without pickle."""


@runtime_checkable
class Synthesizer(Protocol):
    """A frozen recipe: hyper-parameters, the steps it declares, and how it carries them out."""

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault, given the names of the modelled columns."""

    def run(self, block: Block) -> Model:
        """Ask exactly those steps of a block and return a model."""

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> Model:
        """Reserve, then run. Charges: epsilon and delta."""


def named(name: str, parameters: Mapping[str, Any]) -> Synthesizer:
    """Return the synthesizer that an entry point announces under ``name``.

    Raises:
        InvalidRequest: There is none of that name, or it does not take these parameters.
    """
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name not in known:
        raise InvalidRequest(
            f"The method {name!r} was asked for.",
            f"Installed methods: {', '.join(sorted(known))}.",
            "Name one of them in [method].",
        )
    given = dict(parameters)
    if isinstance(given.get("workload"), str):
        given["workload"] = Workload.parse(given["workload"])
    try:
        made = known[name].load()(**given)
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            f"The method {name!r} was asked for.",
            f"It needs {error.name}, which is not installed.",
            "Install what it needs; for the neural generators, `pip install dpsynth[deep]`.",
        ) from error
    except TypeError as error:
        raise InvalidRequest(
            f"The method {name!r} was asked for with parameters it does not take.",
            str(error).split(") ")[-1] + ".",
            "See the reference of its class.",
        ) from error
    if not isinstance(made, Synthesizer):
        raise InvalidRequest(
            f"The method {name!r} was asked for.",
            "What its entry point gives is not a Synthesizer.",
            "Report this to the authors of the plug-in.",
        )
    return made
