"""Tables made from a recipe, with releases that leak and one that does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.columns import Categorical, Integer
from dpsynth.domain import Domain, resolve
from dpsynth.schema import Schema

Rows = NDArray[np.int32]

DOMAIN = Domain.integers(
    {"age": 60, "hours": 40, "income": 30, "region": 12, "job": 15, "sex": 2, "wave": 5},
    ordered=("age", "hours", "income", "wave"),
)


def with_missing() -> Domain:
    """Two ordered columns of which one has a missing code, and a nominal one that has one too."""
    return resolve(
        Schema(
            {
                "a": Integer(0, 4, missing=True),
                "b": Integer(0, 2),
                "c": Categorical(("x", "y", "z"), missing=True),
            }
        ),
        categories={},
        bounds={},
    )


def population(rows: int, rng: np.random.Generator) -> Rows:
    """Rows of DOMAIN: a hidden class shifts every column, so that rows come in clusters."""
    hidden = rng.integers(0, 4, rows)
    age = rng.binomial(59, 0.2 + 0.15 * hidden)
    hours = rng.binomial(39, 0.8 - 0.15 * hidden)
    income = rng.binomial(29, (age / 59 + hours / 39) / 2.2)
    region = (rng.geometric(0.3, rows) + 2 * hidden) % 12
    job = (rng.geometric(0.25, rows) + 3 * hidden) % 15
    sex = rng.random(rows) < 0.4 + 0.05 * hidden
    wave = rng.integers(0, 5, rows)
    return np.column_stack([age, hours, income, region, job, sex, wave]).astype(np.int32)


def near_copies(rows: Rows, rng: np.random.Generator) -> Rows:
    """The rows with one cell of each taken from another row."""
    changed = rows.copy()
    columns = rng.integers(0, rows.shape[1], len(rows))
    line = np.arange(len(rows))
    changed[line, columns] = rows[rng.permutation(len(rows)), columns]
    return changed


@dataclass(frozen=True)
class Case:
    """One release with the rows behind it; each row is a unit."""

    release: Rows
    train: Rows
    audit_in: Rows
    held_out: Rows
    fresh: Rows


def case(leak: str, *, rows: int = 3000, seed: int = 0) -> Case:
    """Return a release that is a fresh sample ("safe"), or has a tenth of leaked rows.

    "leak10" copies rows of the data; "near10" copies them with one cell changed.
    """
    rng = np.random.default_rng(seed)
    data = population(2 * rows, rng)
    audited = rng.random(len(data)) < 0.5
    coin = rng.random(len(data)) < 0.5
    audit_in, held_out = data[audited & coin], data[audited & ~coin]
    train = data[~audited]
    used = np.concatenate([train, audit_in])
    release = population(rows, rng)
    if leak != "safe":
        copied = used[rng.choice(len(used), rows // 10, replace=False)]
        release[: rows // 10] = copied if leak == "leak10" else near_copies(copied, rng)
    return Case(rng.permutation(release), train, audit_in, held_out, population(rows, rng))
