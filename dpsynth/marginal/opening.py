"""How every mechanism of a divided precision begins: one-way marginals, then coarse codes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from dpsynth.marginal.compress import Coarsening, coarsen
from dpsynth.marginal.estimate import Fit, Observation, estimate, estimate_total
from dpsynth.marginal.independent import require_columns
from dpsynth.marginal.model import MarginalModel
from dpsynth.marginal.ranges import consistent, levels
from dpsynth.vault import Block, Divide, Dividing, Measure, Step
from dpsynth.workload import Workload
from dpsynth_accounting import InvalidRequest

_MOST_RANGES = 0.2  # of what is divided, for all columns that are asked in ranges
_ENOUGH = 0.5  # of the loss that noise alone gives: a fit nearer than that follows the noise
_UNITS = 1 << 40  # shares are whole multiples of one part in so many


@dataclass(frozen=True, eq=False)
class Opening:
    """What is known after the one-way marginals.

    Attributes:
        block: The block that answered them.
        ones: The one-way observation of every column, in fine codes.
        total: Estimated number of rows.
        precision: Of the Divide step that follows, in 1 / rows^2; 0 for a single column.
        coarsening: The coarse codes that the noise allows.
        seen: The one-way observations in coarse codes.
    """

    block: Block
    ones: list[Observation]
    total: float
    precision: float
    coarsening: Coarsening
    seen: list[Observation]

    @classmethod
    def of(cls, block: Block, *, one_way: float, measuring: float, bins: int) -> Opening:
        """Measure every column and choose coarse codes.

        Args:
            block: A block whose plan :func:`opening_steps` declared.
            one_way: Share of the precision for the one-way marginals.
            measuring: Share of the rest that will measure marginals.
            bins: About how many coarse codes a column may have at most.
        """
        domain = block.domain
        ones = [Observation.of(m) for m in block.measure([(name,) for name in domain.names])]
        total = estimate_total(ones)
        if len(ones) < 2:
            fine = Coarsening.none({name: domain.size(name) for name in domain.names})
            return cls(block, ones, total, 0.0, fine, ones)
        # The steps split one precision, so what is left is known.
        precision = len(ones) / float(ones[0].variance[0]) * (1 - one_way) / one_way
        coarsening = coarsen(
            ones,
            {name: domain.ordered(name) for name in domain.names},
            total,
            bins=bins,
            pair_sigma=math.sqrt(len(ones) / (measuring * precision)),
        )
        return cls(
            block, ones, total, precision, coarsening, [coarsening.observe(one) for one in ones]
        )

    def fit(
        self,
        measured: Sequence[Observation] = (),
        *,
        steps: int = 100,
        start: Fit | None = None,
    ) -> Fit:
        """Fit the one-way marginals and what was measured since, near ``start`` if it helps."""
        near = None if start is None or start.tree.independent else start
        return estimate(
            [*self.seen, *measured],
            self.coarsening.sizes,
            total=self.total,
            iterations=steps,
            enough=_ENOUGH,
            start=near,
        )

    def ranged(self, shared: Dividing, workload: Workload) -> Opening:
        """Return the same with the columns that are asked in ranges counted in blocks too.

        Each level has the noise of the codes, or more where all levels together would take more
        than a fifth of what is divided.
        """
        domain = self.block.domain
        above = {
            name: levels(domain.size(name), domain.ordered(name))
            for name in workload.ranged(domain.names)
        }
        count = sum(map(len, above.values()))
        if not count:
            return self
        share = min(1 / float(self.ones[0].variance[0]) / self.precision, _MOST_RANGES / count)
        ones, seen = list(self.ones), list(self.seen)
        for place, one in enumerate(self.ones):
            (name,) = one.clique
            found = [
                (codes, Observation.of(shared.measure([(name,)], [part(share)], {name: codes})[0]))
                for codes in above.get(name, ())
            ]
            if found:
                coarse = self.coarsening.maps[name]
                ones[place], seen[place] = consistent(one, found, coarse)
        return replace(self, ones=ones, seen=seen)

    def joined(self, again: Sequence[Observation]) -> Opening:
        """Return the same with every column measured once more; the coarse codes stay."""
        ones = [one.joined(other) for one, other in zip(self.ones, again, strict=True)]
        seen = [
            one.joined(self.coarsening.observe(other))
            for one, other in zip(self.seen, again, strict=True)
        ]
        return replace(self, ones=ones, seen=seen)

    def model(self, fit: Fit, measured: Sequence[Observation] = ()) -> MarginalModel:
        """Return the model of a fit to these, its fine codes from the one-way marginals."""
        return MarginalModel.of(self.block.domain, fit, self.coarsening, self.ones, measured)


def opening_steps(
    columns: Sequence[str], workload: Workload | None, one_way: float, answers: int
) -> tuple[Step, ...]:
    """Return the steps of a mechanism that begins so: what is left after it is divided.

    Args:
        columns: Names of the modelled columns.
        workload: What matters, if the mechanism asks.
        one_way: Share of the precision for the one-way marginals.
        answers: Greatest number of scores and marginals of the rest.

    Raises:
        InvalidRequest: If there is no column, or the workload names one that is not there.
    """
    require_columns(columns)
    if workload is not None:
        workload.require(columns)
    if len(columns) < 2:
        return (Measure(len(columns), 1.0),)
    return (Measure(len(columns), one_way), Divide(answers, round(1 - one_way, 12)))


def part(share: float) -> Fraction:
    """Return a share as a fraction, a shade less, so that all of them add up to no more than 1."""
    return Fraction(math.floor(share * (1 - 1e-9) * _UNITS), _UNITS)


def require_shares(name: str, **shares: float) -> None:
    """Refuse shares of a whole that are not above 0, or leave nothing of it.

    Raises:
        InvalidRequest: They make no plan.
    """
    require_positive(name, **shares)
    if math.fsum(shares.values()) >= 1:
        raise InvalidRequest(
            f"{name} was asked for with {_said(shares)}.",
            "Shares of the precision leave something for the rest: together they are below 1.",
            "Leave them at their defaults.",
        )


def require_positive(name: str, **shares: float) -> None:
    """Refuse shares that are not positive numbers.

    Raises:
        InvalidRequest: One is not.
    """
    if not all(math.isfinite(share) and share > 0 for share in shares.values()):
        raise InvalidRequest(
            f"{name} was asked for with {_said(shares)}.",
            "Each share of the precision must be a positive number.",
            "Leave them at their defaults.",
        )


def _said(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{key} = {share}" for key, share in shares.items())


def require_least(name: str, **found: tuple[float, int]) -> None:
    """Refuse numbers below their least.

    Args:
        name: The mechanism.
        found: Each number and its least.

    Raises:
        InvalidRequest: One is below.
    """
    for key, (number, least) in found.items():
        if not number >= least:
            raise InvalidRequest(
                f"{name} was asked for with {key} = {number}.",
                f"It must be {least} or more.",
                "Leave it at its default.",
            )
