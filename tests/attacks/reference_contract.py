"""What every reference attack must keep to: inherit and give a factory.

Its figures are internal, so that no price rests on it; but they compare units that were in with
units held out, which means something only if an attack knows neither who is who nor the others.
"""

from __future__ import annotations

import numpy as np
import pytest

from dpsynth.attacks import ReferenceAttack
from dpsynth.domain import Domain
from tests.attacks.attack_contract import assert_scores, require_record_scores
from tests.attacks.recipes import DOMAIN, Rows, population


class ReferenceContract:
    """Inherit, name the class ``Test...`` and implement ``make``."""

    def make(
        self, domain: Domain, release: Rows, reference: Rows, rng: np.random.Generator
    ) -> ReferenceAttack:
        """Return the attack on a release, with a reference."""
        raise NotImplementedError

    @pytest.fixture
    def release(self) -> Rows:
        return population(400, np.random.default_rng(1))

    @pytest.fixture
    def reference(self) -> Rows:
        return population(500, np.random.default_rng(5))

    @pytest.fixture
    def records(self, release: Rows) -> Rows:
        others = population(150, np.random.default_rng(2))
        return np.concatenate([others, release[:50], others[:20]])

    def built(self, release: Rows, reference: Rows) -> ReferenceAttack:
        return self.make(DOMAIN, release, reference, np.random.default_rng(3))

    def test_is_a_reference_attack(self, release: Rows, reference: Rows) -> None:
        attack = self.built(release, reference)
        assert isinstance(attack, ReferenceAttack)
        assert attack.name

    def test_score_depends_on_no_other_target(
        self, release: Rows, reference: Rows, records: Rows
    ) -> None:
        require_record_scores(self.built(release, reference), records)

    def test_scores_do_not_change_by_scoring(
        self, release: Rows, reference: Rows, records: Rows
    ) -> None:
        """An attack that learns from its targets would learn who came together with whom."""
        attack = self.built(release, reference)
        before = attack.score(records)
        attack.score(release)
        assert attack.score(records).tobytes() == before.tobytes()

    def test_same_tables_and_seed_give_same_scores(
        self, release: Rows, reference: Rows, records: Rows
    ) -> None:
        one, other = (self.built(release, reference).score(records) for _ in range(2))
        assert one.tobytes() == other.tobytes()

    def test_inputs_are_not_changed(self, release: Rows, reference: Rows, records: Rows) -> None:
        kept = release.copy(), reference.copy(), records.copy()
        self.built(release, reference).score(records)
        for now, before in zip((release, reference, records), kept, strict=True):
            assert np.array_equal(now, before)

    @pytest.mark.parametrize("sizes", [(0, 500), (400, 0), (0, 0), (1, 1)])
    def test_tables_of_hardly_any_rows(
        self, sizes: tuple[int, int], release: Rows, reference: Rows, records: Rows
    ) -> None:
        attack = self.built(release[: sizes[0]], reference[: sizes[1]])
        assert_scores(attack.score(records), len(records))

    def test_no_records(self, release: Rows, reference: Rows, records: Rows) -> None:
        assert_scores(self.built(release, reference).score(records[:0]), 0)

    def test_released_rows_score_above_fresh_ones(self, release: Rows, reference: Rows) -> None:
        """On average: each attack here finds a release that is made of the targets."""
        scores = self.built(release, reference)
        fresh = population(400, np.random.default_rng(6))
        both = np.concatenate([scores.score(release), scores.score(fresh)])
        ranks = both.argsort(kind="stable").argsort(kind="stable")
        assert ranks[:400].mean() > ranks[400:].mean()
