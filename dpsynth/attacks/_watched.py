"""A block that is watched: what a mechanism is answered, as a white-box attacker sees it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.attacks import one_run
from dpsynth.attacks._gradients import GradientScores
from dpsynth.domain import Clique, Domain
from dpsynth.schema import Schema
from dpsynth.synthesizer import Model, Synthesizer
from dpsynth.vault import (
    Block,
    Dividing,
    Measurement,
    Person,
    Unit,
    Vault,
    discovery_step,
    discovery_weight,
)
from dpsynth_accounting import Budget, Ledger, SubsampledGaussian, curve

if TYPE_CHECKING:
    from dpsynth.vault._train import Learner

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


@dataclass(frozen=True, eq=False)
class Canaries:
    """What the attacker knows of a table with canaries: all but the coins.

    Attributes:
        made: One row of each canary.
        known: The rows that are in for certain.
    """

    made: pd.DataFrame
    known: pd.DataFrame


class WatchedBlock:
    """A block that answers as it does, and keeps the noisy marginals that it gave.

    Attributes:
        seen: The marginals, in the order of the answers.
        trained: Log odds of each canary from the noisy gradients of all trainings, float64
            (canaries,); None if there are no canaries or was no training.
    """

    def __init__(self, block: Block, canaries: Canaries | None = None) -> None:
        self._block, self._canaries = block, canaries
        events = block.plan.events
        self._events = iter([each for each in events if isinstance(each, SubsampledGaussian)])
        self.seen: list[Seen] = []
        self.trained: NDArray[np.float64] | None = None

    def __getattr__(self, name: str) -> Any:
        """Return what the block has of that name."""
        return getattr(self._block, name)

    def measure(self, cliques: Sequence[Clique], coarse: Coarse | None = None) -> list[Measurement]:
        """Measure as the block does. Charges: the plan's next Measure step."""
        found = self._block.measure(cliques, coarse)
        self.seen += [Seen(each, dict(coarse or {})) for each in found]
        return found

    def train(self, learner: Learner, *, clip: float, rows: float) -> None:
        """Train as the block does, with steep losses of canaries. Charges: the next Train step."""
        event = next(self._events, None)
        if self._canaries is None or event is None:
            self._block.train(learner, clip=clip, rows=rows)
            return
        from dpsynth.vault._train import WatchedLearner

        made, known, unit = self._canaries.made, self._canaries.known, self._block.unit
        rate = float(event.rate)
        owners = known[unit.column] if isinstance(unit, Person) else known.index
        units = pd.factorize(owners)[0].astype(np.int64)
        count = int(units.max(initial=-1)) + 1
        scores = GradientScores(len(made), count, rate, float(event.sigma) * clip)
        watched = WatchedLearner(
            learner,
            canaries=self._records(made),
            copies=unit.rows,
            known=self._records(known),
            units=units,
            rate=rate,
            clip=clip,
            divisor=rate * rows,
            told=scores.add,
        )
        self._block.train(watched, clip=clip, rows=rows)
        self.trained = scores.odds if self.trained is None else self.trained + scores.odds

    def _records(self, table: pd.DataFrame) -> NDArray[np.int64]:
        codes = self._block.domain.encode(table)
        return np.column_stack([codes[name] for name in self._block.domain.names]).astype(np.int64)

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
        trained: Log odds of each canary from noisy gradients; None if there were none.
    """

    model: Model
    seen: list[Seen]
    domain: Domain
    claim: one_run.Claim
    trained: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class Claimed:
    """A mechanism and what it claims: what an attack is on.

    Attributes:
        synthesizer: The mechanism.
        schema: Public facts about the columns.
        epsilon: Claimed, at ``delta``.
        delta: Claimed, with ``epsilon``.
        unit: The unit of privacy.
    """

    synthesizer: Synthesizer
    schema: Schema
    epsilon: float | Fraction
    delta: float | Fraction
    unit: Unit

    @property
    def pair(self) -> tuple[float, float]:
        """Epsilon and delta."""
        return float(self.epsilon), float(self.delta)

    @property
    def of(self) -> str:
        """What the claim is about: ``"row"`` or ``"person"``."""
        return "person" if isinstance(self.unit, Person) else "row"


def watched_fit(
    claimed: Claimed, table: pd.DataFrame, label: str, canaries: Canaries | None = None
) -> WatchedFit:
    """Fit a mechanism to rows that are not private, as a release would, on a throw-away account.

    With canaries, trainings are watched too.

    Charges: nothing that is kept. The vault says that it holds canaries, so nothing is released.
    """
    schema, epsilon, delta = claimed.schema, claimed.epsilon, claimed.delta
    steps = claimed.synthesizer.steps(schema.modelled)
    weight = sum(step.weight for step in steps) * discovery_weight(schema)
    with tempfile.TemporaryDirectory() as folder:
        account = Ledger(Path(folder) / "ledger.db").account("audit", Budget(epsilon, delta))
        vault = Vault(table, schema, account, unit=claimed.unit, audit_share=0.0, canaries=True)
        plan = (*discovery_step(schema, weight), *steps)
        with vault.reserve(plan, epsilon=epsilon, delta=delta, label=label) as block:
            watched = WatchedBlock(block, canaries)
            model = claimed.synthesizer.run(cast(Block, watched))
            claim = one_run.Claim.of(curve(block.plan.event))
            return WatchedFit(model, watched.seen, block.domain, claim, watched.trained)
