"""A block that is watched: what a mechanism is answered, as a white-box attacker sees it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.attacks import one_run
from dpsynth.domain import Clique, Domain
from dpsynth.schema import Schema
from dpsynth.synthesizer import Model, Synthesizer
from dpsynth.vault import (
    Block,
    Dividing,
    Measurement,
    Unit,
    Vault,
    discovery_step,
    discovery_weight,
)
from dpsynth_accounting import Budget, Ledger, curve

Coarse = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Seen:
    """A noisy marginal and the public maps to the codes of its axes."""

    measurement: Measurement
    coarse: Coarse

    def cells(self, codes: Mapping[str, NDArray[np.int32]]) -> NDArray[np.int64]:
        """Return the cell of each row in the flattened marginal, int64 (rows,)."""
        clique = self.measurement.clique
        axes = [self.coarse[c][codes[c]] if c in self.coarse else codes[c] for c in clique]
        flat: NDArray[np.int64] = np.ravel_multi_index(axes, self.measurement.values.shape)
        return flat


class WatchedBlock:
    """A block that answers as it does, and keeps the noisy marginals that it gave.

    Attributes:
        seen: The marginals, in the order of the answers.
    """

    def __init__(self, block: Block) -> None:
        self._block = block
        self.seen: list[Seen] = []

    def __getattr__(self, name: str) -> Any:
        """Return what the block has of that name."""
        return getattr(self._block, name)

    def measure(self, cliques: Sequence[Clique], coarse: Coarse | None = None) -> list[Measurement]:
        """Measure as the block does. Charges: the plan's next Measure step."""
        found = self._block.measure(cliques, coarse)
        self.seen += [Seen(each, dict(coarse or {})) for each in found]
        return found

    def divide(self) -> _WatchedDividing:
        """Begin a Divide step as the block does. Charges: that step."""
        return _WatchedDividing(self._block.divide(), self.seen)


class _WatchedDividing:
    def __init__(self, dividing: Dividing, seen: list[Seen]) -> None:
        self._dividing, self._seen = dividing, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dividing, name)

    def measure(
        self, cliques: Sequence[Clique], shares: Sequence[Fraction], coarse: Coarse | None = None
    ) -> list[Measurement]:
        found = self._dividing.measure(cliques, shares, coarse)
        self._seen += [Seen(each, dict(coarse or {})) for each in found]
        return found


@dataclass(frozen=True, eq=False)
class WatchedFit:
    """A fit for an attack's eyes, which is never released.

    Attributes:
        model: What was fitted.
        seen: The noisy marginals that it was answered.
        domain: What codes the rows.
        claim: What the plan promises, discovery included.
    """

    model: Model
    seen: list[Seen]
    domain: Domain
    claim: one_run.Claim


def watched_fit(
    synthesizer: Synthesizer,
    schema: Schema,
    table: pd.DataFrame,
    *,
    epsilon: float | Fraction,
    delta: float | Fraction,
    unit: Unit,
    label: str,
) -> WatchedFit:
    """Fit a mechanism to rows that are not private, as a release would, on a throw-away account.

    Charges: nothing that is kept. The vault says that it holds canaries, so nothing is released.
    """
    steps = synthesizer.steps(schema.modelled)
    weight = sum(step.weight for step in steps) * discovery_weight(schema)
    with tempfile.TemporaryDirectory() as folder:
        account = Ledger(Path(folder) / "ledger.db").account("audit", Budget(epsilon, delta))
        vault = Vault(table, schema, account, unit=unit, audit_share=0.0, canaries=True)
        plan = (*discovery_step(schema, weight), *steps)
        with vault.reserve(plan, epsilon=epsilon, delta=delta, label=label) as block:
            watched = WatchedBlock(block)
            model = synthesizer.run(cast(Block, watched))
            claim = one_run.Claim.of(curve(block.plan.event))
            return WatchedFit(model, watched.seen, block.domain, claim)
