"""Exact belief propagation in log space on a junction tree.

Lauritzen and Spiegelhalter (1988); Koller and Friedman (2009), section 10.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique
from dpsynth.marginal.factor import logsumexp, spaced, summed
from dpsynth.marginal.junction import JunctionTree

Array = NDArray[np.float64]

_TINY = 1e-200  # what is left of a product below this, beside 1, is taken in log space


class Propagation:
    """The message passing of one junction tree, with the axes of each message worked out once.

    Potentials, scores and tables are sequences of float64 arrays, one for each clique of the
    tree, axes in the clique's order.

    Args:
        tree: The junction tree.
        sizes: Number of codes of each column.
        forbidden: Of some cliques the cells that no row can be in: minus infinity whatever their
            potential.

    >>> tree = JunctionTree.build([("a",), ("b",)], {"a": 2, "b": 2})
    >>> tables, _ = Propagation(tree, {"a": 2, "b": 2}).marginals([np.zeros(2), np.zeros(2)], 8.0)
    >>> tables
    [array([4., 4.]), array([4., 4.])]
    """

    def __init__(
        self,
        tree: JunctionTree,
        sizes: Mapping[str, int],
        forbidden: Mapping[int, NDArray[np.bool_]] | None = None,
    ) -> None:
        self._forbidden = forbidden or {}
        self.shapes = [tuple(sizes[c] for c in clique) for clique in tree.cliques]
        self._edges = [
            (
                edge.child,
                edge.parent,
                axes_outside(tree.cliques[edge.child], edge.separator),
                slots(tree.cliques[edge.child], edge.separator, sizes),
                axes_outside(tree.cliques[edge.parent], edge.separator),
                slots(tree.cliques[edge.parent], edge.separator, sizes),
            )
            for edge in tree.edges
        ]

    def marginals(self, potentials: Sequence[Array], total: float) -> tuple[list[Array], float]:
        """Expected counts of each clique, and the logarithm of the partition function.

        Args:
            potentials: Log-potentials of the cliques; minus infinity forbids a cell.
            total: What each table of counts sums to.
        """
        allowed = self._allowed(potentials)
        quick = self._multiplied(allowed, total)
        return self._in_logarithms(allowed, total) if quick is None else quick

    def _allowed(self, potentials: Sequence[Array]) -> Sequence[Array]:
        if not self._forbidden:
            return potentials
        found = list(potentials)
        for i, cells in self._forbidden.items():
            found[i] = np.where(cells, -np.inf, potentials[i])
        return found

    def _multiplied(
        self, potentials: Sequence[Array], total: float
    ) -> tuple[list[Array], float] | None:
        """The same with one exponential a cell: products in place of sums of logarithms.

        Returns:
            None where something comes near the least number that floating point can hold.
        """
        peaks = [float(potential.max()) for potential in potentials]
        if not all(map(math.isfinite, peaks)):
            return None
        beliefs = [np.exp(p - peak) for p, peak in zip(potentials, peaks, strict=True)]
        log_partition = math.fsum(peaks)
        inward: list[Array] = []
        for child, parent, away, _, _, there in self._edges:
            message = summed(beliefs[child], away)
            least, most = float(np.min(message)), float(np.max(message))
            if not least > _TINY * max(most, 1.0):
                return None
            inward.append(message)
            log_partition += math.log(most)
            beliefs[parent] *= spaced((message / most).reshape(there), self.shapes[parent])
        whole = float(beliefs[0].sum())
        if not whole > _TINY:
            return None
        beliefs[0] *= total / whole
        for edge, message in zip(reversed(self._edges), reversed(inward), strict=True):
            child, parent, _, here, away, _ = edge
            news = (summed(beliefs[parent], away) / message).reshape(here)
            beliefs[child] *= spaced(news, self.shapes[child])
        return beliefs, log_partition + math.log(whole)

    def _in_logarithms(
        self, potentials: Sequence[Array], total: float
    ) -> tuple[list[Array], float]:
        """The same in log space: slower, and nothing is too small for it."""
        beliefs = [potential.copy() for potential in potentials]
        inward: list[Array] = []
        for child, parent, away, _, _, there in self._edges:
            message = logsumexp(beliefs[child], away)
            inward.append(message)
            beliefs[parent] += message.reshape(there)
        log_partition = float(logsumexp(beliefs[0], tuple(range(beliefs[0].ndim))))
        for edge, message in zip(reversed(self._edges), reversed(inward), strict=True):
            child, parent, _, here, away, _ = edge
            outward = logsumexp(beliefs[parent], away)
            # What a child said must not come back to it; a forbidden separator stays forbidden.
            news = np.zeros_like(outward)
            np.subtract(outward, message, out=news, where=np.isfinite(message))
            beliefs[child] += news.reshape(here)
        for belief in beliefs:
            belief -= log_partition
            np.exp(belief, out=belief)
            belief *= total
        return beliefs, log_partition

    def highest(self, scores: Sequence[Array]) -> float:
        """The greatest sum of scores over all joint cells: max-sum in place of sum-product."""
        best = [score.copy() for score in self._allowed(scores)]
        for child, parent, away, _, _, there in self._edges:
            best[parent] += best[child].max(axis=away).reshape(there)
        return float(best[0].max())

    def potentials(self, tables: Sequence[Array], least: float) -> list[Array]:
        """Log-potentials of the distribution with these consistent clique tables.

        Args:
            tables: Counts of the cliques; any two agree on the columns they share.
            least: What a count is raised to before its logarithm, positive.
        """
        logs = [np.log(np.maximum(table, least)) for table in tables]
        for child, _, away, here, _, _ in self._edges:
            separator = np.maximum(summed(tables[child], away), least)
            logs[child] -= np.log(separator).reshape(here)
        return logs

    def reconcile(self, tables: Sequence[Array], total: float) -> list[Array]:
        """Consistent tables near ones that almost agree: the root's, then each child's given it.

        Args:
            tables: Non-negative counts of the cliques.
            total: What each result sums to.
        """
        fixed = [table.copy() for table in tables]
        mass = float(fixed[0].sum())
        fixed[0] = (
            fixed[0] * (total / mass) if mass > 0 else np.full_like(fixed[0], total / fixed[0].size)
        )
        for child, parent, away, here, parent_away, _ in reversed(self._edges):
            wanted = summed(fixed[parent], parent_away).reshape(here)
            had = summed(fixed[child], away).reshape(here)
            spread = np.broadcast_to(wanted * had.size / fixed[child].size, fixed[child].shape)
            share = np.divide(wanted, had, out=np.zeros_like(wanted), where=had > 0)
            fixed[child] = np.where(had > 0, fixed[child] * share, spread)
        return fixed


def axes_outside(clique: Clique, separator: Clique) -> tuple[int, ...]:
    """Axes of a clique's table that a separator lacks."""
    return tuple(i for i, c in enumerate(clique) if c not in separator)


def slots(clique: Clique, separator: Clique, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape that lets a separator's table broadcast against the clique's."""
    return tuple(sizes[c] if c in separator else 1 for c in clique)
