"""How near the release's one- and two-way marginals are to the data's.

Two ways to know. For publication, the vault is given the release's marginals as whole rows and
answers with one noisy sum of L1 distances, paid for; what is here before and after that step reads
no data. For the custodian, :func:`exact_fidelity` compares coded tables themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique, Domain
from dpsynth_accounting import InvalidRequest

MOST_PAIRS = 300
"""Most pairs that fidelity is averaged over."""

MOST_CELLS = 1_000_000
"""Most cells of a pair in exact results; wider pairs are left out."""


def pair_cliques(
    names: Sequence[str], *, most: int = MOST_PAIRS, domain: Domain | None = None
) -> tuple[Clique, ...]:
    """Return the pairs of columns that fidelity is measured on, by a rule that reads no data.

    All pairs if they are no more than ``most``; else those of columns nearest to each other in a
    circle of the names, so that every column occurs about equally often. A table of one column
    gives that column.

    Args:
        names: The columns, in order.
        most: Greatest number of pairs.
        domain: If given, pairs of more than a million cells are left out. Without it the number
            of pairs depends on the names alone, which a plan needs before discovery.

    >>> pair_cliques(("a", "b", "c"))
    (('a', 'b'), ('b', 'c'), ('a', 'c'))
    """
    count = len(names)
    if count < 2:
        return tuple((name,) for name in names)
    ring = (
        (i, (i + step) % count)
        for step in range(1, count // 2 + 1)
        # A step of half the circle meets each pair from both ends.
        for i in range(count // 2 if 2 * step == count else count)
    )
    pairs = ((names[min(pair)], names[max(pair)]) for pair in ring)
    fitting = (p for p in pairs if domain is None or domain.cells(p) <= MOST_CELLS)
    return tuple(itertools.islice(fitting, most))


def synthetic_answers(
    release: NDArray[np.int32], domain: Domain, cliques: Sequence[Clique], rows: float
) -> dict[Clique, NDArray[np.int64]]:
    """Return the release's marginals scaled to the data's noisy number of rows.

    Each marginal sums to ``rows`` rounded: parts of a row go to the cells with the largest, since
    rounding each cell by itself would lose the rare ones and bias every distance.

    Args:
        release: int32 (rows, columns).
        domain: What codes it.
        cliques: The marginals.
        rows: Noisy number of rows of the data; below 0 counts as 0.

    Returns:
        int64 counts of each clique's shape; all 0 for an empty release.
    """
    whole = max(round(rows), 0)
    return {clique: _scaled(_counts(release, domain, clique), whole) for clique in cliques}


def mean_tvd(l1_sum: float, rows: float, cliques: int) -> float:
    """Return the mean total-variation distance from a noisy sum of L1 distances, in 0..1.

    Args:
        l1_sum: Sum over the marginals of the L1 distance in rows, with noise.
        rows: Noisy number of rows; at least 1 is assumed.
        cliques: Number of marginals in the sum.

    Raises:
        InvalidRequest: There is no marginal.

    >>> mean_tvd(500, 1000, 1)
    0.25
    """
    return min(max(l1_sum * tvd_per_l1(rows, cliques), 0.0), 1.0)


def tvd_per_l1(rows: float, cliques: int) -> float:
    """Return what one row of L1 distance adds to the mean distance: also scales its noise.

    Raises:
        InvalidRequest: There is no marginal.
    """
    if cliques < 1:
        raise InvalidRequest(
            "A mean distance over no marginals was asked for.",
            "A mean needs at least one.",
            "Ask for a distance of at least one marginal.",
        )
    return 1 / (2 * max(rows, 1.0) * cliques)


def tvd(
    left: NDArray[np.int32], right: NDArray[np.int32], domain: Domain, cliques: Sequence[Clique]
) -> dict[Clique, float]:
    """Return the exact total-variation distance of each marginal between two coded tables.

    Half the L1 distance of the two shares; 1 against an empty table, 0 between two of them.
    """
    return {
        clique: _distance(_counts(left, domain, clique), _counts(right, domain, clique))
        for clique in cliques
    }


@dataclass(frozen=True)
class ExactFidelity:
    """Exact distances between the data and a release: private, never published.

    Attributes:
        one_way: Mean total-variation distance over columns.
        two_way: Mean over pairs of columns.
        one_way_reference: The same between the data and held-out rows: what chance alone gives.
            None without held-out rows.
        two_way_reference: The same for pairs.
        worst: The columns and pairs with the largest distances, largest first, at most ten.
    """

    one_way: float
    two_way: float
    one_way_reference: float | None
    two_way_reference: float | None
    worst: tuple[tuple[Clique, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON data."""
        worst = [{"columns": list(clique), "distance": far} for clique, far in self.worst]
        return {**asdict(self), "worst": worst}


def exact_fidelity(
    real: NDArray[np.int32],
    release: NDArray[np.int32],
    domain: Domain,
    *,
    held_out: NDArray[np.int32] | None = None,
) -> ExactFidelity:
    """Return one- and two-way distances of a release from the data, with what chance gives.

    Args:
        real: int32 (rows, columns): private rows.
        release: int32 (rows, columns).
        domain: What codes them.
        held_out: int32 (rows, columns): rows of the same population; fewer rows give a larger
            reference.

    Charges: nothing. Its figures are for the custodian: an inspection is what calls it.
    """
    ones: tuple[Clique, ...] = tuple((name,) for name in domain.names)
    twos = pair_cliques(domain.names, domain=domain)
    found = tvd(real, release, domain, (*ones, *twos))
    chance = tvd(real, held_out, domain, (*ones, *twos)) if held_out is not None else None
    worst = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:10]
    return ExactFidelity(
        _mean(found, ones),
        _mean(found, twos),
        _mean(chance, ones) if chance is not None else None,
        _mean(chance, twos) if chance is not None else None,
        tuple(worst),
    )


def _mean(found: dict[Clique, float], cliques: Sequence[Clique]) -> float:
    return sum(found[clique] for clique in cliques) / len(cliques) if cliques else 0.0


def _counts(table: NDArray[np.int32], domain: Domain, clique: Clique) -> NDArray[np.int64]:
    shape = domain.shape(clique)
    places = [domain.names.index(name) for name in clique]
    cells = math.prod(shape)
    index = np.zeros(len(table), dtype=np.int64)
    for place, size in zip(places, shape, strict=True):
        index = index * size + table[:, place]
    return np.bincount(index, minlength=cells).astype(np.int64).reshape(shape)


def _scaled(counts: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    total = int(counts.sum())
    if not total:
        return counts
    # In whole numbers: a product beyond 2**63 would need 3e9 rows on both sides.
    whole, part = np.divmod(counts.ravel() * np.int64(rows), total)
    missing = rows - int(whole.sum())
    whole[np.argsort(-part, kind="stable")[:missing]] += 1
    return whole.reshape(counts.shape)


def _distance(left: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    if not left.sum() or not right.sum():
        return float(left.sum() != right.sum())
    return float(np.abs(left / left.sum() - right / right.sum()).sum() / 2)
