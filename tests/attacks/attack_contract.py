"""What every record attack must keep to: inherit and give a factory.

The price of publishing counts rests on the first two tests: a record's score depends on that
record and the release alone, and the threshold on the release alone.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dpsynth.attacks import RecordAttack
from dpsynth.domain import Domain
from tests.attacks.recipes import DOMAIN, Rows, population


class AttackContract:
    """Inherit, name the class ``Test...`` and implement ``make``."""

    def make(self, domain: Domain, release: Rows, rng: np.random.Generator) -> RecordAttack:
        """Return the attack on a release."""
        raise NotImplementedError

    @pytest.fixture
    def release(self) -> Rows:
        return population(400, np.random.default_rng(1))

    @pytest.fixture
    def records(self, release: Rows) -> Rows:
        others = population(150, np.random.default_rng(2))
        return np.concatenate([others, release[:50], others[:20]])

    def built(self, release: Rows, seed: int = 3) -> RecordAttack:
        return self.make(DOMAIN, release, np.random.default_rng(seed))

    def test_is_a_record_attack(self, release: Rows) -> None:
        attack = self.built(release)
        assert isinstance(attack, RecordAttack)
        assert attack.name

    def test_score_depends_on_the_record_alone(self, release: Rows, records: Rows) -> None:
        require_record_scores(self.built(release), records)

    def test_threshold_is_fixed_before_any_record(self, release: Rows, records: Rows) -> None:
        attack = self.built(release)
        before = attack.threshold
        attack.score(records)
        attack.score(release)
        assert math.isfinite(before)
        assert attack.threshold == before == self.built(release).threshold

    def test_same_release_and_seed_give_same_scores(self, release: Rows, records: Rows) -> None:
        first, second = self.built(release).score(records), self.built(release).score(records)
        assert first.tobytes() == second.tobytes()

    def test_inputs_are_not_changed(self, release: Rows, records: Rows) -> None:
        kept = release.copy(), records.copy()
        self.built(release).score(records)
        assert np.array_equal(release, kept[0])
        assert np.array_equal(records, kept[1])

    def test_later_changes_of_the_release_do_not_matter(self, release: Rows, records: Rows) -> None:
        attack = self.built(release)
        before = attack.score(records)
        release[:] = 0
        assert np.array_equal(attack.score(records), before)

    def test_empty_release_hits_nobody(self, release: Rows, records: Rows) -> None:
        attack = self.built(release[:0])
        scores = attack.score(records)
        assert_scores(scores, len(records))
        assert not (scores >= attack.threshold).any()

    def test_release_of_one_row(self, release: Rows, records: Rows) -> None:
        attack = self.built(release[:1])
        assert_scores(attack.score(records), len(records))
        assert math.isfinite(attack.threshold)

    def test_release_of_one_repeated_row(self, release: Rows, records: Rows) -> None:
        attack = self.built(np.repeat(release[:1], 50, axis=0))
        assert_scores(attack.score(records), len(records))
        assert math.isfinite(attack.threshold)

    def test_no_records(self, release: Rows, records: Rows) -> None:
        assert_scores(self.built(release).score(records[:0]), 0)

    def test_a_leak_of_isolated_rows_is_found(self, release: Rows) -> None:
        """Extreme rows that nothing resembles: in the release for one attack, not for the other."""
        odd = np.array([[0, 0, 29, 11, 14, 1, 0], [59, 39, 0, 5, 0, 0, 4]], dtype=np.int32)
        leaky = self.built(np.concatenate([release, odd]))
        clean = self.built(release)
        assert (leaky.score(odd) >= leaky.threshold).all()
        assert not (clean.score(odd) >= clean.threshold).any()


def assert_scores(scores: NDArray[np.float64], records: int) -> None:
    assert scores.shape == (records,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()


def require_record_scores(attack: RecordAttack, records: Rows) -> None:
    """Permute, drop, split and repeat the other records: no bit of a score may move."""
    rng = np.random.default_rng(4)
    whole = attack.score(records)
    assert_scores(whole, len(records))
    order = rng.permutation(len(records))
    assert attack.score(records[order]).tobytes() == whole[order].tobytes()
    some = np.flatnonzero(rng.random(len(records)) < 0.3)
    assert attack.score(records[some]).tobytes() == whole[some].tobytes()
    alone = [attack.score(records[i : i + 1])[0] for i in range(0, len(records), 7)]
    assert np.array(alone).tobytes() == whole[::7].tobytes()
    twice = attack.score(np.concatenate([records, records[::-1]]))
    assert twice.tobytes() == np.concatenate([whole, whole[::-1]]).tobytes()
