"""Train on the synthetic table, test on real rows: is a model made from the release of use?

The classifier is trained on the release alone and scores a record 1 if it predicts that record's
target. Noisy counts of such records, paid for, give its accuracy on real rows (Esteban, Hyland,
Rätsch 2017, section 4.2, "train on synthetic, test on real"), beside the accuracy of always
guessing the release's commonest class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Domain
from dpsynth_accounting import InvalidRequest

MOST_ROWS = 50_000
"""Most synthetic rows that a classifier is trained on."""

MOST_CLASSES = 10
"""A target of more codes is predicted as above or at most its synthetic median."""

MOST_CATEGORIES = 255
"""Nominal columns of more codes are given to the classifier as numbers."""

_THREADS = 1  # its many short parallel parts spin for ages on a busy machine
_SEED = 0


@dataclass(frozen=True)
class Target:
    """How a record's target column becomes a class.

    Attributes:
        name: The column.
        place: Its position among the columns.
        median: None if the codes are the classes; else classes are 0 up to this code, 1 above it.
    """

    name: str
    place: int
    median: int | None

    @classmethod
    def of(cls, domain: Domain, release: NDArray[np.int32], name: str) -> Target:
        """Return the target for a column; the median is the release's lower one.

        Raises:
            InvalidRequest: The domain has no such column, or no other to predict it from.
        """
        if name not in domain.names or len(domain.names) < 2:
            raise InvalidRequest(
                f"The column {name!r} was to be predicted.",
                f"The modelled columns are {', '.join(domain.names)}.",
                "Name one of at least two modelled columns.",
            )
        place = domain.names.index(name)
        if domain.size(name) <= MOST_CLASSES:
            return cls(name, place, None)
        codes = np.sort(release[:, place])
        return cls(name, place, int(codes[(len(codes) - 1) // 2]) if len(codes) else 0)

    def classes(self, records: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the class of each record, int64 (records,)."""
        codes = records[:, self.place].astype(np.int64)
        return codes if self.median is None else (codes > self.median).astype(np.int64)


@dataclass(frozen=True)
class MajorityClass:
    """The baseline: always guesses the release's commonest class.

    Attributes:
        name: A public name.
        target: What is guessed.
        guess: The class.
        threshold: Between wrong and right.
    """

    name: str
    target: Target
    guess: int
    threshold: float = field(default=0.5, init=False)

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return 1.0 for each record of the guessed class, else 0.0."""
        return np.where(self.target.classes(records) == self.guess, 1.0, 0.0)


class TargetClassifier:
    """Predicts one column from the others, trained on the release alone.

    Scikit-learn's histogram gradient boosting with its defaults, a fixed seed and no early
    stopping. Ordered columns are numbers, with codes outside the order as missing values; nominal
    ones are categories if they have at most 255 codes. Whether a record is predicted right depends
    on that record and the release alone, so its paid counts are counts of records.

    Of a person of several rows one row must be counted (``Statistic(..., first_row=True)``): that
    any of several is predicted right says less.

    Args:
        domain: What codes the release.
        release: int32 (rows, columns); not changed.
        target: The column to predict.
        rng: Draws the rows to train on if there are more than 50,000.

    Attributes:
        name: A public name.
        threshold: Between wrong and right.
        target: How the column becomes a class.
        baseline: The guess to compare with.

    Raises:
        InvalidRequest: There is no such column, or no other to predict it from.
    """

    threshold = 0.5

    def __init__(
        self,
        domain: Domain,
        release: NDArray[np.int32],
        target: str,
        *,
        rng: np.random.Generator,
    ) -> None:
        self.name = f"{target} predicted"
        self.target = Target.of(domain, release, target)
        classes = self.target.classes(release)
        guess = int(np.bincount(classes).argmax()) if len(classes) else 0
        self.baseline = MajorityClass(f"{target} guessed", self.target, guess)
        self._columns = [j for j, name in enumerate(domain.names) if name != target]
        self._orders = [domain.ordered(domain.names[j]) for j in self._columns]
        self._sizes = [domain.size(domain.names[j]) for j in self._columns]
        if len(release) > MOST_ROWS:
            kept = np.sort(rng.choice(len(release), MOST_ROWS, replace=False))
            release, classes = release[kept], classes[kept]
        self._model = self._trained(release, classes)

    @classmethod
    def build(
        cls,
        domain: Domain,
        release: NDArray[np.int32],
        *,
        target: str,
        rng: np.random.Generator,
    ) -> TargetClassifier:
        """Return the classifier trained on a release."""
        return cls(domain, release, target, rng=rng)

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return 1.0 for each record predicted right, else 0.0; float64 (records,)."""
        if not len(records):
            return np.zeros(0)
        if self._model is None:
            return self.baseline.score(records)
        with _one_thread():
            predicted = self._model.predict(self._features(records))
        return np.where(predicted == self.target.classes(records), 1.0, 0.0)

    def baseline_score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return 1.0 for each record whose class is the release's commonest, else 0.0."""
        return self.baseline.score(records)

    def _trained(self, release: NDArray[np.int32], classes: NDArray[np.int64]) -> Any:
        """Return the fitted classifier, or None if the release shows fewer than two classes."""
        if len(np.unique(classes)) < 2:
            return None
        from sklearn.ensemble import HistGradientBoostingClassifier

        nominal = [
            ordered < 2 and size <= MOST_CATEGORIES
            for ordered, size in zip(self._orders, self._sizes, strict=True)
        ]
        model = HistGradientBoostingClassifier(
            categorical_features=nominal, early_stopping=False, random_state=_SEED
        )
        with _one_thread():
            return model.fit(self._features(release), classes)

    def _features(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        features = records[:, self._columns].astype(np.float64)
        for j, ordered in enumerate(self._orders):
            if ordered > 1:
                features[features[:, j] >= ordered, j] = np.nan
        return features


def _one_thread() -> Any:
    """Return a context in which scikit-learn keeps to one thread."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(limits=_THREADS, user_api="openmp")
