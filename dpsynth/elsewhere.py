"""A model of noisy marginals that were measured elsewhere: by a warehouse, a statistics office.

No row is seen here, so nothing is enforced: what the noise was worth is entered in the ledger as a
declared spend, and the fit is post-processing (Dwork and Roth 2014, Proposition 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import dpsynth_accounting as accounting
from dpsynth.domain import Clique, Domain, resolve
from dpsynth.marginal.compress import Coarsening
from dpsynth.marginal.estimate import Observation, estimate
from dpsynth.marginal.factor import union
from dpsynth.marginal.junction import triangulate
from dpsynth.marginal.model import MarginalModel
from dpsynth.marginal.precision import Precision
from dpsynth.schema import Schema
from dpsynth.vault import Unit
from dpsynth_accounting import Account, Event, Gaussian, InvalidRequest
from dpsynth_accounting.budget import ADJACENCY, Number

MOST_CELLS = 1 << 22
"""Greatest number of cells of a clique that fitting the marginals may need: 32 MiB a table."""


@dataclass(frozen=True, eq=False)
class NoisyMarginal:
    """A table of noisy counts, one line for each cell, those of zero and below too.

    A cell is a value of each column; of a number, any value inside the cell the schema gives it.

    Attributes:
        table: The values of some modelled columns, and the noisy counts.
        sigma: Standard deviation of the noise on each line's count, in rows.
        count: The column of ``table`` that holds the counts.
    """

    table: pd.DataFrame
    sigma: float
    count: str = "count"


def from_marginals(
    schema: Schema,
    marginals: Sequence[NoisyMarginal],
    *,
    account: Account,
    unit: Unit,
    delta: Number,
    source: str,
    by: str,
    event: Event | None = None,
    impossible: Sequence[pd.DataFrame] = (),
) -> MarginalModel:
    """Fit a model to noisy marginals, and enter what they cost in the ledger.

    All is checked and fitted first; the spend is entered last, before the model is returned.

    Args:
        schema: The columns, every one declared; each must be in some marginal.
        marginals: What was measured.
        account: Where the spend is entered, declared and not enforced; it may overdraw.
        unit: The unit of privacy that the noise was made for.
        delta: The delta at which the spend is entered.
        source: Where the counts come from.
        by: Who declares it.
        event: What was done to the rows; by default independent Gaussian noise of the stated
            scales, on counts to which a unit adds as many rows as ``unit`` allows.
        impossible: Combinations of values that no row can have, each table's lines over its
            columns. They are public knowledge, and get probability 0.

    Charges: nothing here; enters the event, at its least epsilon for ``delta``, as declared.

    Raises:
        InvalidRequest: A marginal has an unknown column or value, or lacks a cell; a column is in
            none; together they need too large a table; or nothing is possible. Nothing was entered.
    """
    schema.require_confirmed()
    if schema.undeclared:
        raise InvalidRequest(
            "A model of marginals measured elsewhere was asked for.",
            f"The schema leaves open: {', '.join(schema.undeclared)}.",
            "Declare their categories or bounds.",
        )
    domain = resolve(schema, categories={}, bounds={})
    seen = [_observation(domain, marginal) for marginal in marginals]
    sizes = {name: domain.size(name) for name in domain.names}
    zeros = dict(_cells(domain, table) for table in impossible)
    _require_fit(domain, [*(one.clique for one in seen), *zeros], sizes)
    fitted = estimate(seen, sizes, impossible=zeros)
    ones = [Observation((n,), np.zeros(size), np.ones(size)) for n, size in sizes.items()]
    model = MarginalModel.of(domain, fitted, Coarsening.none(sizes), ones)
    model = replace(model, precision=Precision.of((), seen))
    if event is None:
        shift = Fraction(unit.rows)  # at most so many rows, all of them in one cell
        event = accounting.Sequence(
            tuple(Gaussian(Fraction(str(each.sigma)), shift) for each in marginals)
        )
    epsilon = accounting.least_epsilon(event, delta)
    account.declare(
        event, epsilon, delta, unit=unit.to_json(), adjacency=ADJACENCY, source=source, by=by
    )
    return model


def _observation(domain: Domain, marginal: NoisyMarginal) -> Observation:
    table = marginal.table
    clique = tuple(str(name) for name in table.columns if name != marginal.count)
    unknown = [name for name in clique if name not in domain.names]
    if marginal.count not in table.columns or unknown or len(set(clique)) != len(clique):
        raise _refused(clique, "It needs a column of counts, and beside it modelled columns, once.")
    if not clique or not (math.isfinite(marginal.sigma) and marginal.sigma > 0):
        raise _refused(clique, "It needs a column beside the counts, and noise above 0.")
    counts = pd.to_numeric(table[marginal.count], errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(counts).all():
        raise _refused(clique, "A count is not a number.")
    shape = domain.shape(clique)
    if math.prod(shape) > MOST_CELLS:
        raise _refused(clique, f"It has {math.prod(shape)} cells, above {MOST_CELLS}.")
    codes = [domain.codes(name, table[name]) for name in clique]
    cells = np.ravel_multi_index(codes, shape)
    lines = np.bincount(cells, minlength=math.prod(shape))
    if (lines != 1).any():
        lacking, repeated = int((lines == 0).sum()), int((lines > 1).sum())
        raise _refused(clique, f"Of {lines.size} cells it lacks {lacking}, and repeats {repeated}.")
    values = np.empty(lines.size)
    values[cells] = counts
    return Observation(clique, values.reshape(shape), np.full(shape, marginal.sigma**2))


def _cells(domain: Domain, table: pd.DataFrame) -> tuple[Clique, NDArray[np.bool_]]:
    """Return the columns of a table of values, and the cells that its lines are in."""
    clique = tuple(map(str, table.columns))
    if not clique or len(set(clique)) != len(clique) or not set(clique) <= set(domain.names):
        raise InvalidRequest(
            f"Impossible values of {clique} were given.",
            f"Modelled columns are {', '.join(domain.names)}.",
            "Name each column once.",
        )
    cells = np.zeros(domain.shape(clique), dtype=np.bool_)
    cells[tuple(domain.codes(name, table[name]) for name in clique)] = True
    return clique, cells


def _require_fit(domain: Domain, cliques: Sequence[Clique], sizes: dict[str, int]) -> None:
    """Refuse marginals that leave a column out, or whose junction tree is too large."""
    lacking = [name for name in domain.names if name not in union(cliques)]
    if lacking:
        raise InvalidRequest(
            f"A model was asked for of {len(cliques)} marginals.",
            f"None of them has {', '.join(map(repr, lacking))}.",
            "Measure every modelled column, or declare it as `drop`.",
        )
    largest = max(triangulate(cliques, sizes), key=domain.cells)
    if domain.cells(largest) > MOST_CELLS:
        raise InvalidRequest(
            f"A model was asked for of {len(cliques)} marginals.",
            f"Together they need a table over {largest}, of more than {MOST_CELLS} cells.",
            "Give fewer marginals, or declare coarser columns.",
        )


def _refused(clique: Sequence[str], limit: str) -> InvalidRequest:
    return InvalidRequest(
        f"A noisy marginal over {tuple(clique)} was given.",
        limit,
        "Give a line for every combination of values, with its noisy count.",
    )
