"""Membership by a classifier that tells the release from a reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpsynth.attacks.reference import refused, require_columns
from dpsynth.attacks.targets import Rows, some
from dpsynth.domain import Domain

MOST_CLASSIFIED = 20_000
"""Most rows of either kind that the classifier is trained on."""


class Classifier:
    """Scores how sure a classifier is that a record is of the release, not of the reference.

    Boosted trees in place of a network's discriminator (Hayes, Melis, Danezis, De Cristofaro 2019,
    LOGAN, section 4): a record that only the release has seen looks synthetic.

    Args:
        domain: What codes all rows.
        release: int32 (rows, columns); at most 20,000 random ones are used; not changed.
        reference: int32 (rows, columns), rows that were not audited, cut alike; not changed.
        rng: Cuts the tables and seeds the learner.

    Raises:
        InvalidRequest: A table has another number of columns than the domain.
    """

    name = "classifier"

    def __init__(
        self, domain: Domain, release: Rows, *, reference: Rows, rng: np.random.Generator
    ) -> None:
        require_columns(domain, release, reference)
        self._columns = len(domain.names)
        self._model = None
        most = min(len(release), len(reference), MOST_CLASSIFIED)
        if most < 2 or not self._columns:
            return
        from sklearn.ensemble import HistGradientBoostingClassifier

        both = np.concatenate([some(release, most, rng), some(reference, most, rng)])
        self._model = HistGradientBoostingClassifier(
            max_iter=60,
            max_leaf_nodes=31,
            early_stopping=False,
            random_state=int(rng.integers(1 << 31)),
        )
        self._model.fit(both.astype(np.float64), np.repeat([1, 0], most))

    @classmethod
    def build(
        cls, domain: Domain, release: Rows, *, reference: Rows, rng: np.random.Generator
    ) -> Classifier:
        """Return the attack on a release."""
        return cls(domain, release, reference=reference, rng=rng)

    def score(self, records: Rows) -> NDArray[np.float64]:
        """Return log odds, float64 (records,); all 0 where there was nothing to learn from."""
        if records.ndim != 2 or records.shape[1] != self._columns:
            raise refused(self._columns)
        if self._model is None or not len(records):
            return np.zeros(len(records))
        found: NDArray[np.float64] = self._model.decision_function(records.astype(np.float64))
        return found
