from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from dpsynth.attacks import (
    Classifier,
    DensityRatio,
    DistanceRatio,
    FiveWayRatio,
    PairRatio,
    ReferenceAttack,
    TripleRatio,
)
from dpsynth.domain import Domain
from dpsynth_accounting import InvalidRequest
from tests.attacks.attack_contract import require_record_scores
from tests.attacks.recipes import DOMAIN, Rows, population
from tests.attacks.reference_contract import ReferenceContract

Generator = np.random.Generator


class TestPairRatio(ReferenceContract):
    def make(self, domain: Domain, release: Rows, reference: Rows, rng: Generator) -> PairRatio:
        return PairRatio(domain, release, reference=reference, rng=rng)


class TestTripleRatio(ReferenceContract):
    def make(self, domain: Domain, release: Rows, reference: Rows, rng: Generator) -> TripleRatio:
        return TripleRatio(domain, release, reference=reference, rng=rng)


class TestFiveWayRatio(ReferenceContract):
    def make(self, domain: Domain, release: Rows, reference: Rows, rng: Generator) -> FiveWayRatio:
        return FiveWayRatio(domain, release, reference=reference, rng=rng)


class TestDensityRatio(ReferenceContract):
    def make(self, domain: Domain, release: Rows, reference: Rows, rng: Generator) -> DensityRatio:
        return DensityRatio(domain, release, reference=reference, rng=rng)


class TestClassifier(ReferenceContract):
    def make(self, domain: Domain, release: Rows, reference: Rows, rng: Generator) -> Classifier:
        return Classifier(domain, release, reference=reference, rng=rng)


class TestDistanceRatioBesideRows(ReferenceContract):
    def make(
        self, domain: Domain, release: Rows, reference: Rows, rng: Generator
    ) -> ReferenceAttack:
        return DistanceRatio.build(domain, release, reference=reference, rng=rng)


@dataclass
class _Learner:
    """The broken twin: it learns from its targets, and so scores one by the others."""

    name: str = "learner"
    seen: list[float] = field(default_factory=list)

    def score(self, records: Rows) -> NDArray[np.float64]:
        self.seen += records[:, 0].tolist()
        scores: NDArray[np.float64] = (
            records[:, 0] / (1 + np.mean(self.seen)) if len(records) else np.zeros(0)
        )
        return scores


def test_contract_catches_an_attack_that_learns_from_its_targets() -> None:
    class Broken(ReferenceContract):
        def make(
            self, domain: Domain, release: Rows, reference: Rows, rng: Generator
        ) -> ReferenceAttack:
            return _Learner()

    rows = population(100, np.random.default_rng(0))
    with pytest.raises(AssertionError):
        require_record_scores(_Learner(), rows)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        Broken().test_scores_do_not_change_by_scoring(rows[:40], rows[40:80], rows[80:])


@pytest.mark.parametrize("kind", [PairRatio, FiveWayRatio, DensityRatio, Classifier])
def test_other_number_of_columns_is_refused(kind: type) -> None:
    rows = population(60, np.random.default_rng(0))
    with pytest.raises(InvalidRequest, match="columns"):
        kind(DOMAIN, rows[:, :3], reference=rows, rng=np.random.default_rng(0))
    attack = kind(DOMAIN, rows, reference=rows, rng=np.random.default_rng(0))
    with pytest.raises(InvalidRequest, match="columns"):
        attack.score(rows[:, :3])


def test_marginal_ratio_by_hand() -> None:
    """Two columns, one pair: cells in 2, 1 and 0 of 4 released rows, and 1, 1, 0 of 2 others."""
    domain = Domain.integers({"a": 3, "b": 2})
    release = np.array([[0, 0], [0, 0], [1, 1], [2, 1]], dtype=np.int32)
    reference = np.array([[0, 0], [1, 1]], dtype=np.int32)
    attack = PairRatio(domain, release, reference=reference, rng=np.random.default_rng(0))
    records = np.array([[0, 0], [1, 1], [2, 1], [1, 0]], dtype=np.int32)
    expected = np.log([5000.5 / 5000.5, 2500.5 / 5000.5, 2500.5 / 0.5, 1.0])
    assert attack.score(records) == pytest.approx(expected)


def test_density_ratio_by_hand() -> None:
    """One column: log of the smoothed shares, 2.25 of 4.5 against 1.25 of 2.5 and so on."""
    domain = Domain.integers({"a": 2})
    release = np.array([[0], [0], [0], [1]], dtype=np.int32)
    reference = np.array([[0], [1]], dtype=np.int32)
    attack = DensityRatio(domain, release, reference=reference, rng=np.random.default_rng(0))
    expected = np.log([3.25 / 4.5 / 0.5, 1.25 / 4.5 / 0.5])
    assert attack.score(np.array([[0], [1]], dtype=np.int32)) == pytest.approx(expected)


def test_a_density_is_a_density() -> None:
    """Over all rows of a small domain the densities of a tree add up to 1."""
    from dpsynth.attacks.density import _Tree

    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, size, 50) for size in (3, 4, 2)])
    tree = _Tree(rows, [3, 4, 2])
    every = np.stack([part.ravel() for part in np.indices((3, 4, 2))])
    assert np.exp(tree.log_density(every)).sum() == pytest.approx(1.0)
