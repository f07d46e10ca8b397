"""Ranges and cells that are found from counts: what is kept, what stands out, what decodes."""

from __future__ import annotations

import itertools
import math
import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpsynth.bins import MOST_CELLS, Histogram, noisy_quantiles, standing_out
from dpsynth.codec import NumericCodec
from dpsynth.columns import Date, Datetime, Integer, Ranged, Real
from dpsynth.domain import Domain, resolve
from dpsynth.grids import split, widest_grid
from dpsynth.ranges import Bounds, Line, Starts
from dpsynth.schema import Schema
from tests.test_codec import anything, objects

KINDS: dict[str, Ranged] = {
    "integer": Integer(),
    "real": Real(),
    "lattice": Real(step=0.25),
    "date": Date(),
    "datetime": Datetime(),
    "moments of a zone": Datetime(zone="Europe/Vienna"),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
ROUNDS = 3


def counted(known: Histogram, numbers: NDArray[Any], sigma: float, seed: int) -> Histogram:
    """Return a histogram once it has been told noisy counts of the cells it asks for."""
    cells = known.grid.cells(numbers)
    exact = np.bincount(cells, minlength=len(known.mass))
    noise = np.random.default_rng(seed).normal(0, sigma, len(exact))
    return known.told(np.where(known.asked, np.rint(exact + noise), 0).astype(np.int64), sigma)


def learned(
    column: Ranged, values: Any, *, sigma: float = 1.0, weight: int = 1000, seed: int = 0
) -> tuple[Line, Histogram]:
    """Return what the rounds of a discovery find in values, each of so many rows."""
    line = Line.of(column)
    numbers, there = line.numbers(pd.Series(values))
    numbers = np.repeat(numbers[there], weight)
    known = counted(line.histogram(), numbers, sigma, seed)
    for each in range(1, ROUNDS):
        known = counted(known.divided(), numbers, sigma, seed + each)
    return line, known


def found(column: Ranged, values: Any, **how: Any) -> tuple[Bounds, Starts | None]:
    line, known = learned(column, values, **how)
    return line.bounds(known), line.starts(known)


def codec_of(column: Ranged, bounds: Bounds, starts: Starts | None) -> NumericCodec:
    bins = {} if starts is None else {"x": starts}
    domain = resolve(Schema({"x": column}), categories={}, bounds={"x": bounds}, bins=bins)
    codec = domain.codecs["x"]
    assert isinstance(codec, NumericCodec)
    return codec


def whole(codec: NumericCodec) -> bool:
    """Say whether every code decodes to a value that is encoded to it."""
    codes = np.repeat(np.arange(codec.size, dtype=np.int32), 3)
    again = codec.encode(codec.decode(codes, np.random.default_rng(0)))
    return again.tolist() == codes.tolist()


# -- the cells -----------------------------------------------------------------------------------


@every_kind
@settings(max_examples=30, deadline=None)
@given(values=st.lists(anything, max_size=10))
def test_cells_are_row_wise(kind: str, values: list[Any]) -> None:
    line = Line.of(KINDS[kind])
    grid = line.histogram().grid

    def cells(some: list[Any]) -> list[int]:
        numbers, there = line.numbers(objects(some))
        return np.where(there, grid.cells(numbers), -1).tolist()

    assert cells(values) == [cell for value in values for cell in cells([value])]


@every_kind
def test_values_beyond_every_bound_raise_no_warning(kind: str) -> None:
    """A warning would be an answer about a row."""
    line = Line.of(replace(KINDS[kind], step=0.01) if kind == "lattice" else KINDS[kind])
    numbers, there = line.numbers(objects([1.7e308, -1.7e308, 10**400, "1e999", math.inf]))
    assert line.histogram().grid.cells(numbers[there]).size == there.sum()


@pytest.mark.parametrize("of", ["integer", "real", "date", "datetime"])
def test_the_widest_grid_is_public_and_increases(of: Any) -> None:
    grid = widest_grid(of)
    assert all(a < b for a, b in itertools.pairwise((*grid.starts, grid.end)))
    assert grid == widest_grid(of)
    if of in ("integer", "real"):
        (zero,) = grid.cells(np.array([0], dtype=np.float64 if of == "real" else np.int64))
        assert grid.starts[zero] == 0
        assert grid.ends[zero] == (1 if of == "integer" else np.nextafter(0, 1))  # alone


@pytest.mark.parametrize("of", ["integer", "real", "date", "datetime"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_cell_is_split_into_cells(of: Any, data: Any) -> None:
    grid = widest_grid(of)
    place = data.draw(st.integers(0, len(grid.starts) - 1))
    start, end = grid.starts[place], grid.ends[place]
    for _ in range(ROUNDS):
        parts = split(of, start, end)
        assert parts[0] == start
        assert all(a < b for a, b in itertools.pairwise([*parts, end]))
        assert len(parts) <= 150
        chosen = data.draw(st.integers(0, len(parts) - 1))
        start, end = parts[chosen], [*parts, end][chosen + 1]


def test_values_that_many_share_tend_to_have_a_cell_of_their_own() -> None:
    parts = [*split("integer", 50_000, 100_000), 100_000]
    alone = {a for a, b in itertools.pairwise(parts) if b == a + 1}
    assert {50_000, 60_000, 75_000, 99_999} <= alone


# -- the rounds ----------------------------------------------------------------------------------


@every_kind
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rounds_refine_and_lose_no_mass(kind: str, data: Any) -> None:
    line = Line.of(KINDS[kind])
    known = line.histogram()
    for _ in range(ROUNDS):
        counts = np.zeros(len(known.mass), dtype=np.int64)
        heavy = data.draw(st.lists(st.sampled_from(np.flatnonzero(known.asked)), max_size=4))
        counts[heavy] = data.draw(st.integers(1, 10**6))
        before = known
        known = known.told(counts, 10.0)
        assert (known.mass >= 0).all()
        if before.noise:
            assert known.mass.sum() == pytest.approx(before.mass.sum())
        finer = known.divided()
        assert set(known.grid.starts) <= set(finer.grid.starts)
        assert finer.grid.end == known.grid.end
        assert finer.mass.sum() == pytest.approx(known.mass.sum())
        assert (finer.bounds() == known.bounds()) or not known.found
        known = finer
        if not known.asked.any():
            break


@every_kind
def test_noise_alone_gives_the_fallback(kind: str) -> None:
    line = Line.of(KINDS[kind])
    wanted = line.bounds(line.histogram())
    for seed in range(20):
        bounds, starts = found(KINDS[kind], [], sigma=10.0, seed=seed)
        assert (bounds, starts) == (wanted, None)
    assert wanted[0] < wanted[1]
    assert whole(codec_of(KINDS[kind], wanted, None))


@every_kind
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_answers_give_bounds_and_cells_that_make_a_codec(kind: str, data: Any) -> None:
    column = KINDS[kind]
    if isinstance(column, Real):
        step = data.draw(st.none() | st.sampled_from([1e-12, 0.01, 1.0, 1e18]))
        column = Real(step=step, default=data.draw(st.none() | st.floats(-1e6, 1e6)))
    line = Line.of(column)
    known = line.histogram()
    for each in range(ROUNDS):
        known = known.divided() if each else known
        asked = np.flatnonzero(known.asked)
        counts = np.zeros(len(known.mass), dtype=np.int64)
        counts[asked] = data.draw(st.sampled_from([0, -(10**6), 10**3]))
        if len(asked):
            counts[data.draw(st.lists(st.sampled_from(asked), max_size=3))] = 10**9
        known = known.told(counts, 3.0)
    bounds, starts = line.bounds(known), line.starts(known)
    assert bounds[0] <= bounds[1]
    codec = codec_of(column, bounds, starts)
    assert whole(codec)
    declared = Schema({"x": column})
    schema = Domain({"x": codec}, ("x",)).schema(declared)
    assert Schema.from_json(tomllib.loads(schema.dump())) == schema
    assert resolve(schema, categories={}, bounds={}).codecs["x"] == codec


@pytest.mark.parametrize(
    "values", [[0], [1], [-1], [5, 17], [-900, 12], [10**12], [2**59], [-(2**59)]]
)
@pytest.mark.parametrize("kind", ["integer", "real", "lattice"])
def test_found_bounds_hold_what_stands_out_and_not_much_more(kind: str, values: list[int]) -> None:
    if kind == "lattice" and max(map(abs, values)) > 2**47:
        pytest.skip("no lattice of quarters reaches so far")
    (low, high), _ = found(KINDS[kind], values)
    assert low <= min(values)
    assert max(values) <= high
    reach = max(abs(value) for value in values)
    assert max(abs(low), abs(high)) <= max(2.5 * reach, reach + 2)


@every_kind
@pytest.mark.parametrize("end", [0, -1])
def test_the_outermost_cells_alone_give_bounds_too(kind: str, end: int) -> None:
    line = Line.of(KINDS[kind])
    known = line.histogram()
    counts = np.zeros(len(known.mass), dtype=np.int64)
    counts[end] = 10**6
    known = known.told(counts, 1.0)
    assert whole(codec_of(KINDS[kind], line.bounds(known), line.starts(known)))


def test_one_value_far_out_moves_no_bound() -> None:
    values = np.repeat(np.arange(100, 200), 20).tolist()
    one, _ = found(Integer(), [*values, 2**40], weight=1, sigma=5.0)
    two, _ = found(Integer(), values, weight=1, sigma=5.0)
    assert one == two == (100, 199)


def test_bounds_are_ends_of_cells_never_the_extreme_values() -> None:
    """Moving the least and greatest value within their cells moves nothing."""
    middle = np.linspace(1200, 8800, 4000)
    for low, high in ((1003.7, 9412.9), (1011.1, 9001.3)):
        bounds, _ = found(Real(), [low, *middle, high], weight=1, sigma=3.0)
        assert bounds == (1000.0, 10_000.0)


def test_a_range_grows_past_no_zero_on_little_evidence() -> None:
    known = learned(Real(), np.random.default_rng(0).exponential(5e4, 4000), weight=1, sigma=9.0)[1]
    assert known.bounds()[0] >= 0


# -- cells of equal mass -------------------------------------------------------------------------


def test_cells_hold_about_equal_mass_and_spikes_are_alone() -> None:
    rng = np.random.default_rng(0)
    incomes = np.rint(rng.lognormal(10, 1, 20_000))
    values = np.concatenate([incomes, np.zeros(6000), np.full(3000, 99_999.0)])
    (low, high), starts = found(Integer(), values, weight=1, sigma=8.0)
    assert starts is not None
    codec = codec_of(Integer(), (low, high), starts)
    counts = np.bincount(codec.encode(pd.Series(values)), minlength=codec.size)
    for spike in (0, 99_999):
        place = codec.starts.index(spike)
        assert codec.starts[place + 1] == spike + 1
        assert counts[place] >= 3000
        counts[place] = 0
    assert counts.max() < 0.04 * len(incomes)
    assert 32 <= codec.size <= 300


def test_cells_of_declared_bounds_are_found_too() -> None:
    values = np.random.default_rng(0).lognormal(3, 1, 5000)
    column = Real(0.0, 1e6, bins="adaptive")
    bounds, starts = found(column, values, weight=1, sigma=5.0)
    assert bounds == (0.0, 1e6)
    assert starts is not None
    inside = [e for e in starts if e < 100]
    assert len(inside) > 0.7 * len(starts)  # where the rows are, not where the range is


@pytest.mark.parametrize(
    "column", [Real(1.0, 1.0, bins="adaptive"), Integer(3, 3, bins="adaptive")]
)
def test_a_constant_has_one_cell(column: Ranged) -> None:
    bounds, starts = found(column, [1.0, 3.0, 1.0])
    assert codec_of(column, bounds, starts).size == 1


def test_a_short_range_needs_no_cells() -> None:
    assert found(Integer(), list(range(60)))[1] is None


def test_a_range_of_days_ends_with_the_calendar() -> None:
    days = pd.Series(pd.date_range("2019-03-01", "2021-08-31", freq="D"))
    bounds, starts = found(Date(), days, weight=20, sigma=3.0)
    assert [str(np.datetime64(int(e), "D")) for e in bounds] == ["2019-01-01", "2021-12-31"]
    assert starts is not None
    assert len(starts) == MOST_CELLS


# -- what stands out -----------------------------------------------------------------------------


def test_pure_noise_hardly_ever_stands_out() -> None:
    rng = np.random.default_rng(3)
    seen = 0
    for _ in range(400):
        counts = np.rint(rng.normal(0, 20, 111)).astype(np.int64)
        first, last = standing_out(counts, 20.0)
        seen += first <= last
    assert seen <= 12


def test_mass_spread_thin_stands_out_as_a_run() -> None:
    counts = np.zeros(128, dtype=np.int64)
    counts[32:96] = 30  # 1.5 standard deviations each
    first, last = standing_out(counts, 20.0)
    assert 24 <= first <= 48
    assert 80 <= last <= 104


def test_quantiles_of_noisy_counts_increase_and_pass_over_negative_ones() -> None:
    found = noisy_quantiles([0, 1, 2, 3], [5.0, -9.0, 5.0], np.arange(1, 10) / 10)
    assert found == sorted(found)
    assert found[4] == pytest.approx(1.0, abs=1.0)
    assert noisy_quantiles([0, 4], [-1.0], [0.25]) == [1.0]
