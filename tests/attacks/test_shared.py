from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from dpsynth.attacks import TripleRatio, marginal_ratio
from dpsynth.attacks._shared import index_of, shared
from dpsynth.attacks.neighbours import Neighbours
from tests.attacks.recipes import DOMAIN, Rows, population


def test_an_index_is_shared_within_a_block_and_forgotten_after_it() -> None:
    rows = population(300, np.random.default_rng(0))
    with shared():
        first = index_of(rows, DOMAIN)
        assert index_of(rows, DOMAIN) is first
        assert index_of(rows.copy(), DOMAIN) is not first
    assert index_of(rows, DOMAIN) is not first
    with shared():
        assert index_of(rows, DOMAIN) is not first


@pytest.mark.parametrize("k", [1, 2])
def test_a_shared_index_answers_as_one_of_its_own(k: int) -> None:
    rng = np.random.default_rng(1)
    rows, some, others = (population(n, rng) for n in (400, 90, 90))
    own = Neighbours(rows, DOMAIN)
    with shared():
        for queries in (some, others, some):
            found = index_of(rows, DOMAIN).distances(queries, k)
            assert np.array_equal(found, own.distances(queries, k))
            with pytest.raises(ValueError, match="read-only"):
                found[0, 0] = 0


def by_counting(release: Rows, reference: Rows, records: Rows) -> list[float]:
    """The score from its definition, cell by cell."""
    scores = []
    for record in records.tolist():
        logs = []
        for clique in itertools.combinations(range(len(record)), 3):
            cell = tuple(record[j] for j in clique)
            a, b = (
                Counter(map(tuple, rows[:, clique].tolist()))[cell] * 10_000 / len(rows)
                for rows in (release, reference)
            )
            logs.append(math.log((a + 0.5) / (b + 0.5)))
        scores.append(math.fsum(logs) / len(logs))
    return scores


@pytest.mark.parametrize("few", [0, 1 << 17])
def test_marginal_ratios_are_those_of_the_definition(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marginal_ratio, "_FEW_CELLS", few)
    rng = np.random.default_rng(2)
    release, reference, records = (population(n, rng) for n in (150, 120, 6))
    attack = TripleRatio(DOMAIN, release, reference=reference, rng=rng)
    assert attack.score(records) == pytest.approx(by_counting(release, reference, records))


def test_equal_keys_have_one_place_however_few_the_slots() -> None:
    rng = np.random.default_rng(3)
    # The high bits, which choose the first slot, are equal: every key meets every other.
    keys = rng.integers(0, 500, 4000).astype(np.uint64)
    places = marginal_ratio._numbered(keys)
    assert np.array_equal(keys[places], keys)
    assert len(np.unique(places)) == len(np.unique(keys))
