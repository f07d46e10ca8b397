"""Independent columns: the baseline that every other mechanism must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpsynth.marginal.compress import Coarsening
from dpsynth.marginal.estimate import Observation, estimate
from dpsynth.marginal.model import MarginalModel
from dpsynth.vault import Block, Measure, Step, Vault
from dpsynth_accounting import InvalidRequest
from dpsynth_accounting.budget import Number


@dataclass(frozen=True)
class Independent:
    """Measures every column by itself and models them as independent.

    >>> Independent().steps(["a", "b", "c"])
    (Measure(marginals=3, weight=1.0),)
    """

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "independent"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault: one marginal a column.

        Raises:
            InvalidRequest: If there is no column.
        """
        require_columns(columns)
        return (Measure(len(columns), 1.0),)

    def run(self, block: Block) -> MarginalModel:
        """Ask the declared steps of a block and return the model; they were charged with it."""
        domain = block.domain
        ones = [Observation.of(m) for m in block.measure([(name,) for name in domain.names])]
        fine = Coarsening.none({name: domain.size(name) for name in domain.names})
        return MarginalModel.of(domain, estimate(ones, fine.sizes), fine, ones)

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> MarginalModel:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)


def require_columns(columns: Sequence[str]) -> None:
    """Refuse a plan over no column."""
    if not columns:
        raise InvalidRequest(
            "A plan over no columns was asked for.",
            "A model has one column or more.",
            "Declare a column that is neither dropped nor a key.",
        )
