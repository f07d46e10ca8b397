from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpsynth.marginal.compress import DROWN, Coarsening, coarsen, drowned, fine_shares, merge_codes
from dpsynth.marginal.estimate import Observation

masses = arrays(np.float64, st.integers(1, 30), elements=st.floats(0.0, 100.0))


def bin_masses(mass: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.bincount(codes, weights=mass)


@given(masses, st.floats(0.1, 300.0))
def test_every_coarse_code_of_an_ordered_column_has_its_mass(
    mass: np.ndarray, floor: float
) -> None:
    codes = merge_codes(mass, ordered=mass.size, floor=floor)
    assert codes[0] == 0
    assert set(np.diff(codes)) <= {0, 1}  # Contiguous, and numbered without a hole.
    assert codes.max() == 0 or (bin_masses(mass, codes) >= floor * (1 - 1e-12)).all()


@given(masses, st.floats(0.1, 300.0))
def test_every_coarse_code_of_a_nominal_column_has_its_mass(mass: np.ndarray, floor: float) -> None:
    codes = merge_codes(mass, ordered=0, floor=floor)
    assert set(codes) == set(range(codes.max() + 1))
    assert codes.max() == 0 or (bin_masses(mass, codes) >= floor * (1 - 1e-12)).all()


@given(masses, st.floats(0.1, 300.0), st.data())
def test_ordered_and_other_codes_never_mix(
    mass: np.ndarray, floor: float, data: st.DataObject
) -> None:
    ordered = data.draw(st.integers(0, mass.size))
    codes = merge_codes(mass, ordered=ordered, floor=floor)
    assert set(codes) == set(range(codes.max() + 1))
    assert not set(codes[:ordered]) & set(codes[ordered:])


def test_heavy_codes_stay_alone() -> None:
    codes = merge_codes(np.array([50.0, 1, 2, 3, 40.0, 2, 2, 2]), ordered=8, floor=5.0)
    assert codes.tolist() == [0, 1, 1, 1, 2, 3, 3, 3]


def test_light_codes_between_heavy_ones_join_the_lighter() -> None:
    assert merge_codes(np.array([50.0, 1, 40.0]), ordered=3, floor=5.0).tolist() == [0, 1, 1]


def test_a_missing_code_stays_by_itself() -> None:
    codes = merge_codes(np.array([3.0, 3.0, 3.0, 3.0, 0.5]), ordered=4, floor=5.0)
    assert codes.tolist() == [0, 0, 1, 1, 2]


def test_a_column_too_light_becomes_one_code() -> None:
    assert merge_codes(np.full(5, 0.1), ordered=5, floor=9.0).max() == 0
    assert merge_codes(np.full(5, 0.1), ordered=0, floor=9.0).max() == 0
    assert merge_codes(np.array([2.0]), ordered=0, floor=9.0).tolist() == [0]


def codes_of(values: list[float], *, bins: int = 64, sigma: float = 0.1, pair_sigma: float) -> int:
    """Return the number of coarse codes of one column of noisy counts."""
    counts = np.array(values)
    one = Observation(("a",), counts, np.full(counts.shape, sigma**2))
    found = coarsen([one], {"a": 0}, sum(values), bins=bins, pair_sigma=pair_sigma)
    return found.sizes["a"]


def test_codes_are_no_more_than_asked_and_stand_out_of_their_noise() -> None:
    assert codes_of([100.0] * 32, pair_sigma=0.01) == 32
    assert codes_of([100.0] * 32, bins=8, pair_sigma=0.01) == 8
    assert codes_of([100.0] * 32, sigma=60.0, pair_sigma=0.01) == 16


def test_many_codes_alike_merge_until_pairs_stand_out_of_the_noise() -> None:
    """Of k codes alike a cell expects N / k^2 rows, and noise hides sigma k^2 / N of them."""
    rows, sigma = 32 * 100.0, 20.0
    found = codes_of([100.0] * 32, pair_sigma=sigma)
    assert 4 <= found <= 8
    assert drowned(np.full(found, rows / found), rows, sigma) <= DROWN
    assert drowned(np.full(2 * found, rows / found / 2), rows, sigma) > DROWN


def test_a_heavy_code_lets_light_ones_be() -> None:
    assert codes_of([2900.0] + [100.0] * 3, pair_sigma=20.0) == 4
    assert codes_of([800.0] * 4, pair_sigma=20.0) == 4
    assert codes_of([100.0] * 32, pair_sigma=20.0) < 10


def test_coarse_observations_add_up_values_and_variances() -> None:
    coarsening = Coarsening({"a": np.array([0, 1, 1, 0])})
    fine = Observation(("a",), np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 4.0, 1.0]))
    seen = coarsening.observe(fine)
    assert coarsening.sizes == {"a": 2}
    np.testing.assert_array_equal(seen.values, [5.0, 5.0])
    np.testing.assert_array_equal(seen.variance, [2.0, 5.0])


@given(masses, st.floats(0.01, 1e4), st.data())
def test_shares_are_distributions_inside_each_coarse_code(
    values: np.ndarray, variance: float, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, values.size))
    codes = np.arange(values.size) % count
    mass = data.draw(arrays(np.float64, count, elements=st.floats(0.0, 100.0)))
    seen = Observation(("a",), values - 50.0, np.full(values.size, variance))
    shares = fine_shares(seen, codes, mass)
    assert (shares >= 0).all()
    np.testing.assert_allclose(np.bincount(codes, weights=shares), 1.0)


def test_shares_follow_the_counts_where_noise_is_small() -> None:
    seen = Observation(("a",), np.array([10.0, 30.0, 0.0, 0.0, 60.0]), np.full(5, 1e-6))
    shares = fine_shares(seen, np.zeros(5, dtype=np.int64), np.array([100.0]))
    np.testing.assert_allclose(shares, [0.1, 0.3, 0.0, 0.0, 0.6], atol=1e-6)


def test_shares_are_even_where_the_spread_is_noise() -> None:
    rng = np.random.default_rng(0)
    noisy = Observation(("a",), 20.0 + rng.normal(0.0, 5.0, 40), np.full(40, 50.0))
    shares = fine_shares(noisy, np.zeros(40, dtype=np.int64), np.array([800.0]))
    np.testing.assert_allclose(shares, 1 / 40, rtol=1e-12)
