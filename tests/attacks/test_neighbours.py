from __future__ import annotations

import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsynth.attacks import _kernel, nearest_distances, neighbours
from dpsynth.attacks.neighbours import LARGEST_SCALE, Gower, Neighbours, nearest_among
from dpsynth.domain import Domain
from dpsynth_accounting import InvalidRequest
from tests.attacks.recipes import DOMAIN, Rows, population, with_missing


def brute_gower(a: Rows, b: Rows, domain: Domain) -> Fraction:
    """Gower's distance of two rows straight from its definition."""
    total = Fraction(0)
    for j, name in enumerate(domain.names):
        x, y, m = int(a[j]), int(b[j]), domain.ordered(name)
        if m > 1 and x < m and y < m:
            total += Fraction(abs(x - y), m - 1)
        else:
            total += x != y
    return total / len(domain.names)


def brute_nearest(queries: Rows, reference: Rows, domain: Domain, k: int) -> list[list[Fraction]]:
    return [sorted(brute_gower(q, r, domain) for r in reference)[:k] for q in queries]


def exact(index: Neighbours, found: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(int(d), index.gower.unit) for d in row] for row in found]


@st.composite
def tables(draw: st.DrawFn) -> tuple[Domain, Rows, Rows]:
    sizes = draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    names = [f"c{i}" for i in range(len(sizes))]
    ordered = [name for name in names if draw(st.booleans())]
    domain = Domain.integers(dict(zip(names, sizes, strict=True)), ordered=ordered)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, reference = (
        np.column_stack([rng.integers(0, domain.size(n), rows) for n in names]).astype(np.int32)
        for rows in (draw(st.integers(1, 8)), draw(st.integers(2, 40)))
    )
    return domain, queries, reference


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from([1, 2]), st.sampled_from([2, 5, 128]))
def test_nearest_equals_brute_force(made: tuple[Domain, Rows, Rows], k: int, leaf: int) -> None:
    domain, queries, reference = made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_LEAF", leaf)
        index = Neighbours(reference, domain)
        found = index.distances(queries, k)
    assert exact(index, found) == brute_nearest(queries, reference, domain, k)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("bound_cells", [0, neighbours._BOUND_CELLS])
def test_pruned_search_equals_all_pairs(
    k: int, bound_cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_BOUND_CELLS", bound_cells)
    monkeypatch.setattr(neighbours, "_CHUNK", 300)
    monkeypatch.setattr(neighbours, "_BATCH", 64)
    plainly(monkeypatch)
    rng = np.random.default_rng(0)
    reference, queries = population(3000, rng), population(700, rng)
    queries[:100] = reference[:100]
    index = Neighbours(reference, DOMAIN)
    place = index.gower.place
    pairs = np.sort(index.gower.between(place(queries), place(reference)), axis=1)[:, :k]
    assert np.array_equal(index.distances(queries, k), pairs)


def plainly(patch: pytest.MonkeyPatch) -> None:
    """Have no search take the loops."""
    patch.setattr(neighbours, "_WORTH_COMPILING", 1 << 62)
    patch.setattr(neighbours, "_WORTH_CALLING", 1 << 62)


def by_loops(patch: pytest.MonkeyPatch, *, machine_code: bool) -> None:
    """Have every search take the loops, as machine code or as the Python they are written in."""
    patch.setattr(neighbours, "_WORTH_COMPILING", 0)
    patch.setattr(neighbours, "_WORTH_CALLING", 0)
    if not machine_code:
        patch.setattr(_kernel, "compiled", lambda: (_kernel.boxes, _kernel.search))


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from([1, 2]), st.sampled_from([2, 5, 128]))
def test_the_loops_equal_brute_force(made: tuple[Domain, Rows, Rows], k: int, leaf: int) -> None:
    domain, queries, reference = made
    with pytest.MonkeyPatch.context() as patch:
        by_loops(patch, machine_code=False)
        patch.setattr(neighbours, "_LEAF", leaf)
        index = Neighbours(reference, domain)
        found = index.distances(queries, k)
    assert exact(index, found) == brute_nearest(queries, reference, domain, k)


@pytest.mark.parametrize("way", ["plain", "loops", "machine code"])
@settings(max_examples=40, deadline=None)
@given(tables(), st.sampled_from([1, 2]), st.integers(0, 2**32 - 1))
def test_what_is_too_far_is_not_found_and_all_else_is(
    way: str, made: tuple[Domain, Rows, Rows], k: int, seed: int
) -> None:
    domain, queries, reference = made
    queries = np.concatenate([queries, queries])  # alike, so they are searched once
    with pytest.MonkeyPatch.context() as patch:
        if way == "plain":
            plainly(patch)
        else:
            by_loops(patch, machine_code=way == "machine code")
        patch.setattr(neighbours, "_LEAF", 5)
        index = Neighbours(reference, domain)
        whole = index.distances(queries, k)
        half = np.random.default_rng(seed).integers(-1, index.none + 1, len(queries) // 2)
        within = np.concatenate([half, half])
        # Rows that are alike by chance must ask alike.
        _, place = np.unique(queries, axis=0, return_inverse=True)
        within = np.array([within[place == p].max() for p in place.reshape(-1)])
        found = index.distances(queries, k, within=within)
    assert np.array_equal(found, np.where(whole <= within[:, None], whole, index.none))


def test_the_nearest_among_several_are_found_with_their_ties() -> None:
    rng = np.random.default_rng(0)
    queries, *parts = (population(rows, rng) for rows in (500, 400, 30, 900))
    parts[2][:300] = parts[0][:300]
    indices = [Neighbours(part, DOMAIN) for part in [*parts, parts[0][:0]]]
    whole = np.column_stack([index.distances(queries)[:, 0] for index in indices])
    found = nearest_among(queries, indices)
    least = whole.min(axis=1, keepdims=True)
    assert np.array_equal(found == least, whole == least)
    assert ((whole == least).sum(axis=1) > 1).any()
    assert (found >= whole).all()


def more_codes_than_bits() -> tuple[Domain, Rows]:
    """Nominal columns of which a leaf's codes do not fit in one word."""
    domain = Domain.integers({"a": 200, "b": 500, "c": 9}, ordered=("b",))
    rng = np.random.default_rng(1)
    rows = np.column_stack([rng.integers(0, domain.size(n), 2000) for n in domain.names])
    return domain, rows.astype(np.int32)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("which", ["recipe", "missing", "many codes"])
def test_machine_code_equals_the_plain_path_to_the_last_bit(
    which: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    if which == "recipe":
        domain, rows = DOMAIN, population(4000, rng)
    elif which == "missing":
        domain = with_missing()
        made = [rng.integers(0, domain.size(n), 300) for n in domain.names]
        rows = np.column_stack(made).astype(np.int32)
    else:
        domain, rows = more_codes_than_bits()
    half = len(rows) // 2
    index = Neighbours(rows[:half], domain)
    plainly(monkeypatch)
    plain = index.distances(rows[half:], k)
    by_loops(monkeypatch, machine_code=True)
    asked: list[int] = []
    nearest = index._compiled.nearest
    monkeypatch.setattr(
        index._compiled, "nearest", lambda q, k, w: asked.append(k) or nearest(q, k, w)
    )
    found = index.distances(rows[half:], k)
    assert asked == [k]
    assert found.dtype == plain.dtype
    assert np.array_equal(found, plain)


def test_without_numba_the_plain_path_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = population(300, np.random.default_rng(0))
    plain = Neighbours(rows, DOMAIN).distances(rows, 2)
    by_loops(monkeypatch, machine_code=True)
    monkeypatch.setitem(sys.modules, "numba", None)
    _kernel.compiled.cache_clear()
    try:
        assert _kernel.compiled() is None
        assert np.array_equal(Neighbours(rows, DOMAIN).distances(rows, 2), plain)
    finally:
        _kernel.compiled.cache_clear()


def test_where_no_cache_can_be_written_the_loops_still_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caching = pytest.importorskip("numba.core.caching")
    # What numba finds where site-packages and the home folder are read-only.
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    _kernel.compiled.cache_clear()
    try:
        found = _kernel.compiled()
        assert found is not None
        assert all(type(each._cache).__name__ == "NullCache" for each in found)
    finally:
        _kernel.compiled.cache_clear()


def test_a_cache_that_cannot_be_finished_leaves_the_plain_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    rows = population(300, np.random.default_rng(0))
    plain = Neighbours(rows, DOMAIN).distances(rows)
    by_loops(monkeypatch, machine_code=True)
    monkeypatch.setattr(_kernel, "compiled", lambda: (full, full))
    assert np.array_equal(Neighbours(rows, DOMAIN).distances(rows), plain)


def test_a_search_that_forgets_a_copy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: an index of all rows but one gives other answers."""
    rows = population(300, np.random.default_rng(0))
    whole = Neighbours(rows, DOMAIN).distances(rows)
    assert not whole.any()
    assert Neighbours(rows[1:], DOMAIN).distances(rows).any()


def test_all_pairs_equal_the_definition_with_missing_codes() -> None:
    domain = with_missing()
    grid = np.indices(domain.shape(domain.names)).reshape(len(domain.names), -1).T
    rows = grid.astype(np.int32)
    gower = Gower(domain)
    found = gower.between(gower.place(rows), gower.place(rows))
    for i in range(0, len(rows), 5):
        for j in range(len(rows)):
            assert Fraction(int(found[i, j]), gower.unit) == brute_gower(rows[i], rows[j], domain)


def test_missing_codes_are_searched_right() -> None:
    domain = with_missing()
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(0, domain.size(n), 90) for n in domain.names])
    rows = rows.astype(np.int32)
    index = Neighbours(rows[:60], domain)
    found = index.distances(rows[60:], 2)
    assert exact(index, found) == brute_nearest(rows[60:], rows[:60], domain, 2)


def test_a_grid_too_fine_is_rounded_by_at_most_half_a_step() -> None:
    sizes = {"a": 102, "b": 98, "c": 90, "d": 84}  # steps 101, 97, 89, 83: no small multiple
    domain = Domain.integers(sizes, ordered=tuple(sizes))
    assert domain.shape(domain.names) == tuple(sizes.values())
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(0, s, 40) for s in sizes.values()]).astype(np.int32)
    gower = Gower(domain)
    assert gower.scale == LARGEST_SCALE
    found = gower.between(gower.place(rows), gower.place(rows)) / gower.unit
    true = np.array([[float(brute_gower(a, b, domain)) for b in rows] for a in rows])
    assert np.abs(found - true).max() <= 1 / LARGEST_SCALE
    assert np.array_equal(found, found.T)


def test_repeated_reference_rows_are_two_neighbours() -> None:
    domain = Domain.integers({"a": 3, "b": 3})
    row = np.array([[1, 1]], dtype=np.int32)
    once = Neighbours(np.array([[1, 1], [1, 2]], dtype=np.int32), domain)
    assert once.distances(row, 2).tolist() == [[0, once.gower.scale]]
    twice = Neighbours(np.array([[1, 1], [1, 2], [1, 1]], dtype=np.int32), domain)
    assert twice.distances(row, 2).tolist() == [[0, 0]]


def test_too_few_reference_rows_are_farther_than_any() -> None:
    row = np.zeros((1, len(DOMAIN.names)), dtype=np.int32)
    empty = Neighbours(row[:0], DOMAIN)
    assert empty.distances(row, 2).tolist() == [[empty.none, empty.none]]
    assert empty.none > empty.gower.unit
    one = Neighbours(row, DOMAIN)
    assert one.distances(row, 2).tolist() == [[0, one.none]]
    assert one.distances(row[:0], 2).shape == (0, 2)


def test_many_identical_rows_stay_in_one_block() -> None:
    rows = np.repeat(np.array([[3, 1]], dtype=np.int32), 1000, axis=0)
    index = Neighbours(rows, Domain.integers({"a": 5, "b": 2}, ordered=("a",)))
    assert index.distances(rows[:3], 2).tolist() == [[0, 0]] * 3


def test_tables_wider_than_a_byte_of_mismatches() -> None:
    sizes = {f"c{i}": 2 for i in range(300)}
    domain = Domain.integers(sizes)
    zeros, ones = np.zeros((1, 300), dtype=np.int32), np.ones((1, 300), dtype=np.int32)
    assert nearest_distances(zeros, ones, domain).tolist() == [[1.0]]


def test_impossible_requests_are_refused() -> None:
    rows = population(5, np.random.default_rng(0))
    index = Neighbours(rows, DOMAIN)
    with pytest.raises(InvalidRequest, match="neighbours"):
        index.distances(rows, 3)
    with pytest.raises(InvalidRequest, match="columns"):
        index.distances(rows[:, :2])


def test_inputs_are_not_changed() -> None:
    rows = population(300, np.random.default_rng(0))
    kept = rows.copy()
    nearest_distances(rows, rows, DOMAIN, k=2)
    assert np.array_equal(rows, kept)
