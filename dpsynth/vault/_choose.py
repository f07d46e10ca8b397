"""Private selection among finished tables: one exact choice, by scores that a unit moves little.

McSherry and Talwar (2007), "Mechanism design via differential privacy", section 3. Each table was
paid for before, so all of them may be seen: what is private is which one is best. Sensitivities:
docs/explanation/sensitivity.md; brute force: tests/vault/test_sensitivity.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique
from dpsynth.vault import _noise
from dpsynth.vault._bound import AUDIT_IN, HELD_OUT
from dpsynth.vault._plan import Choose, epsilon_of
from dpsynth.vault._statistics import Statistic, units_over
from dpsynth_accounting import Event

if TYPE_CHECKING:
    from dpsynth.vault._block import Block
    from dpsynth.vault._execution import Coarse

MOST_TOTAL = 1 << 61
"""Greatest sum of a table's answers: beyond, a distance over all of them would leave an int64."""


@dataclass(frozen=True)
class Judged:
    """A finished table as a choice judges it: by a distance, or by an attack.

    Attributes:
        about: Digest of the table, which names the request.
        answers: Its marginals in rows, as int64, for a distance; none for an attack.
        statistic: The attack, whose score is of one record each; None for a distance.
    """

    about: str
    answers: Mapping[Clique, NDArray[np.int64]] = field(default_factory=dict)
    statistic: Statistic | None = None


def fits(step: Choose, tables: Sequence[Judged]) -> bool:
    """Say whether the tables are what a step declares: so many, all judged by the same."""
    cliques = {tuple(each.answers) for each in tables}
    totals = [sum(int(np.abs(a).sum()) for a in each.answers.values()) for each in tables]
    return (
        len(tables) == step.candidates
        and len(cliques) == 1
        and all(len(each) == step.marginals for each in cliques)
        and all((each.statistic is None) == (step.marginals > 0) for each in tables)
        and max(totals) <= MOST_TOTAL
    )


def drawing(
    block: Block, step: Choose, event: Event, tables: Sequence[Judged], coarse: Coarse | None
) -> Callable[[], int]:
    """Return what draws the place of the chosen table; thresholds are read now, before a row is."""
    epsilon, stream = epsilon_of(event), block._vault.stream
    least = [0.0 if t.statistic is None else float(t.statistic.of.threshold) for t in tables]

    def far(table: Judged) -> int:
        return -sum(block._distances(table.answers, coarse).values())

    def found(table: Judged, over: float) -> int:
        coded, sides = block._vault._coded(), []
        for role in (AUDIT_IN, HELD_OUT):
            records = coded.records(block.domain, role)
            sides.append(units_over(table.statistic, over, *records) if table.statistic else 0)
        return -max(sides[0] - sides[1], 0)

    def draw() -> int:
        if step.marginals:
            scores, sensitivity = [far(t) for t in tables], block.unit.rows * step.marginals
        else:
            scores, sensitivity = [found(t, o) for t, o in zip(tables, least, strict=True)], 1
        values = np.array(scores, dtype=np.int64)
        return _noise.exponential(values, epsilon, sensitivity, stream)

    return draw
