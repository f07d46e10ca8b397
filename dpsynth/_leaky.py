"""Tables that leak in known ways, and one that does not: what an attack must tell apart.

Each takes rows as codes and gives as many synthetic ones. The rows are a benchmark's, a test's or a
recipe's: nothing here is private, and nothing here sees a vault.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks import nearest_distances
from dpsynth.domain import Domain
from dpsynth.marginal import MarginalModel
from dpsynth.marginal.compress import Coarsening
from dpsynth.marginal.estimate import Observation, estimate

Rows = NDArray[np.int32]

SMALLEST_LEAF = 5
"""Rows of a leaf of the overfit trees."""


@dataclass(frozen=True, eq=False)
class Material:
    """What a synthetic table is made of.

    Attributes:
        domain: What codes all rows.
        used: int32 (rows, columns): the rows that may be leaked.
        fresh: int32 (rows, columns), at least as many: others drawn like them, which are not
            attacked and not the reference either.
    """

    domain: Domain
    used: Rows
    fresh: Rows


Leak = Callable[[Material, np.random.Generator], Rows]


def safe(material: Material, rng: np.random.Generator) -> Rows:
    """Return fresh rows."""
    return rng.permutation(material.fresh)[: len(material.used)]


def copied(material: Material, rng: np.random.Generator) -> Rows:
    """Return fresh rows, of which a tenth is replaced by rows that were used."""
    made = safe(material, rng)
    places = rng.choice(len(made), len(made) // 10, replace=False)
    made[places] = material.used[rng.choice(len(material.used), len(places), replace=False)]
    return made


def nearly_copied(material: Material, rng: np.random.Generator) -> Rows:
    """Do the same with two cells of each copy drawn anew from their columns."""
    made = safe(material, rng)
    places = rng.choice(len(made), len(made) // 10, replace=False)
    near = material.used[rng.choice(len(material.used), len(places), replace=False)]
    columns = near.shape[1]
    for row in near:
        for j in rng.choice(columns, min(2, columns), replace=False):
            row[j] = material.used[rng.integers(len(material.used)), j]
    made[places] = near
    return made


def isolated_copied(material: Material, rng: np.random.Generator) -> Rows:
    """Return fresh rows, with the hundredth of the used ones that is farthest from all others."""
    made = safe(material, rng)
    far = nearest_distances(material.used, material.used, material.domain, k=2)[:, 1]
    count = max(len(made) // 100, 1)
    loneliest = np.argsort(-far, kind="stable")[:count]
    made[rng.choice(len(made), count, replace=False)] = material.used[loneliest]
    return made


def equal(material: Material, rng: np.random.Generator) -> Rows:
    """Return the rows that were used, in another order."""
    return rng.permutation(material.used)


def overfit(material: Material, rng: np.random.Generator) -> Rows:
    """Return rows drawn column after column from classification trees with leaves of five rows."""
    from sklearn.tree import DecisionTreeClassifier

    used = material.used
    made = np.empty_like(used)
    made[:, 0] = rng.permutation(used[:, 0])
    for j in range(1, used.shape[1]):
        tree = DecisionTreeClassifier(
            min_samples_leaf=SMALLEST_LEAF, random_state=int(rng.integers(1 << 31))
        )
        tree.fit(used[:, :j], used[:, j])
        leaves, wanted = tree.apply(used[:, :j]), tree.apply(made[:, :j])
        order = np.argsort(leaves, kind="stable")
        start = np.searchsorted(leaves[order], wanted, side="left")
        stop = np.searchsorted(leaves[order], wanted, side="right")
        drawn = start + np.floor(rng.random(len(wanted)) * (stop - start)).astype(np.int64)
        made[:, j] = used[order[drawn], j]
    return made


def without_noise(material: Material, rng: np.random.Generator) -> Rows:
    """Return rows of the best tree of exact pair counts: MST with its noise left out."""
    domain, used = material.domain, material.used
    sizes = {name: domain.size(name) for name in domain.names}
    ones = [
        _counted((name,), (size,), np.bincount(used[:, j], minlength=size))
        for j, (name, size) in enumerate(sizes.items())
    ]
    pairs = {}
    for (i, a), (j, b) in itertools.combinations(enumerate(domain.names), 2):
        cells = used[:, i].astype(np.int64) * sizes[b] + used[:, j]
        pairs[a, b] = np.bincount(cells, minlength=sizes[a] * sizes[b]).reshape(sizes[a], sizes[b])
    gain = {pair: _information(table) for pair, table in pairs.items()}
    part = {name: name for name in domain.names}
    tree = []
    for pair in sorted(pairs, key=lambda pair: (-gain[pair], pair)):
        one, other = part[pair[0]], part[pair[1]]
        if one != other:
            part = {name: one if label == other else label for name, label in part.items()}
            tree.append(_counted(pair, pairs[pair].shape, pairs[pair].ravel()))
    plain = Coarsening.none(sizes)
    fitted = estimate([*ones, *tree], sizes, total=float(len(used)))
    model = MarginalModel.of(domain, fitted, plain, ones)
    drawn = model.sample_codes(len(used), rng=rng)
    return np.column_stack([drawn[name] for name in domain.names]).astype(np.int32)


LEAKS: Mapping[str, Leak] = {
    "safe": safe,
    "leak10": copied,
    "near10": nearly_copied,
    "outlier1": isolated_copied,
    "cart5": overfit,
    "equal": equal,
    "tree without noise": without_noise,
}
"""By the names of the calibration table in ``docs/explanation/audit.md``."""


def _counted(
    clique: tuple[str, ...], shape: tuple[int, ...], counts: NDArray[np.int64]
) -> Observation:
    return Observation(clique, counts.astype(np.float64).reshape(shape), np.full(shape, 1e-6))


def _information(table: NDArray[np.int64]) -> float:
    """Return the mutual information of a table of counts, in nats."""
    joint = table / table.sum()
    product = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / product[seen])).sum())
