"""The samplers as distributions: each against exact probabilities, each with a twin that must fail.

A test rejects at p < 1e-6, so that a correct sampler fails about once in a million runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from dpsynth.vault import _noise

P = 1e-6
SIGMA2 = [Fraction(1, 3), Fraction(1), Fraction(7, 2), Fraction(100), Fraction(12_345, 2)]

Sampler = Callable[[Fraction, int], NDArray[np.int64]]


def by_table(sigma2: Fraction, count: int) -> NDArray[np.int64]:
    return _noise.discrete_gaussian(sigma2, (count,))


def by_rejection(sigma2: Fraction, count: int) -> NDArray[np.int64]:
    return np.array([_noise.sample_by_rejection(sigma2) for _ in range(count)])


def probabilities(sigma2: Fraction) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return integers and their probabilities under N_Z(0, sigma2), by summing the definition."""
    reach = int(12 * np.sqrt(float(sigma2))) + 5
    values = np.arange(-reach, reach + 1)
    weights = np.exp(-(values.astype(float) ** 2) / (2 * float(sigma2)))
    return values, weights / weights.sum()


def chi_square(samples: NDArray[np.int64], sigma2: Fraction) -> float:
    """Return the p-value of samples against N_Z(0, sigma2), cells of at least 20 expected."""
    values, exact = probabilities(sigma2)
    found = np.bincount(np.clip(samples, values[0], values[-1]) - values[0], minlength=len(values))
    expected = exact * len(samples)
    cells = np.searchsorted(np.cumsum(expected), np.arange(20, len(samples), 20))
    edges = np.unique(np.r_[0, cells, len(values)])
    groups = [slice(a, b) for a, b in pairwise(edges)]
    seen = np.array([found[g].sum() for g in groups], dtype=float)
    wanted = np.array([expected[g].sum() for g in groups])
    keep = wanted >= 5
    seen = np.r_[seen[keep], seen[~keep].sum()]
    wanted = np.r_[wanted[keep], wanted[~keep].sum()]
    if wanted[-1] < 5:
        seen, wanted = np.r_[seen[:-2], seen[-2:].sum()], np.r_[wanted[:-2], wanted[-2:].sum()]
    return float(stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue)


@pytest.mark.parametrize("sigma2", SIGMA2)
def test_the_table_draws_discrete_gaussians(sigma2: Fraction) -> None:
    assert chi_square(by_table(sigma2, 200_000), sigma2) > P


@pytest.mark.parametrize("sigma2", SIGMA2[:4])
def test_rejection_draws_discrete_gaussians(sigma2: Fraction) -> None:
    assert chi_square(by_rejection(sigma2, 4_000), sigma2) > P


@pytest.mark.parametrize("factor", [Fraction(9, 10), Fraction(11, 10)])
@pytest.mark.parametrize("sigma2", SIGMA2)
def test_a_wrong_scale_is_rejected(sigma2: Fraction, factor: Fraction) -> None:
    assert chi_square(by_table(sigma2 * factor, 200_000), sigma2) < P


def test_a_rounded_gaussian_is_rejected() -> None:
    rng = np.random.default_rng(0)
    rounded = np.rint(rng.normal(0, 1, 400_000)).astype(np.int64)
    assert chi_square(rounded, Fraction(1)) < P


def test_a_shifted_sampler_is_rejected() -> None:
    assert chi_square(by_table(Fraction(100), 200_000) + 1, Fraction(100)) < P


@pytest.mark.parametrize("sigma2", SIGMA2[1:3])
def test_rejection_at_a_wrong_scale_is_rejected(sigma2: Fraction) -> None:
    assert chi_square(by_rejection(sigma2 * Fraction(3, 2), 8_000), sigma2) < P


def test_scales_beyond_the_table_are_drawn_by_rejection() -> None:
    sigma2 = Fraction(10**12)
    assert _noise._REACH * 2e6 > _noise._LARGEST_TABLE / 4
    samples = by_table(sigma2, 400)
    spread = (samples.astype(float) ** 2).sum() / float(sigma2)  # as good as continuous here
    assert P < stats.chi2(400).cdf(spread) < 1 - P
    assert stats.kstest(samples / 1e6, "norm").pvalue > P
    with pytest.raises(OverflowError):
        _noise._table(Fraction(10**14))


@pytest.mark.slow
@pytest.mark.parametrize("sigma2", [SIGMA2[1], SIGMA2[3]])
def test_a_million_samples_by_rejection(sigma2: Fraction) -> None:
    assert chi_square(by_rejection(sigma2, 1_000_000), sigma2) > P
    assert chi_square(by_rejection(sigma2 * Fraction(21, 20), 1_000_000), sigma2) < P


@pytest.mark.slow
def test_a_million_choices() -> None:
    seen = _choices(Fraction(1, 2), 1_000_000)
    assert stats.chisquare(seen, _expected(0.5, 1_000_000)).pvalue > P
    assert (
        stats.chisquare(_choices(Fraction(13, 25), 1_000_000), _expected(0.5, 1_000_000)).pvalue < P
    )


@pytest.mark.slow
@pytest.mark.parametrize("sigma2", SIGMA2)
def test_ten_million_samples(sigma2: Fraction) -> None:
    samples = by_table(sigma2, 10_000_000)
    assert chi_square(samples, sigma2) > P
    values, exact = probabilities(sigma2)
    steps = np.cumsum(exact)
    found = np.searchsorted(np.sort(samples), values, side="right") / len(samples)
    distance = np.abs(found - steps).max()
    assert stats.kstwobign.sf(distance * np.sqrt(len(samples))) > P
    twin = by_table(sigma2 * Fraction(101, 100), 10_000_000)
    assert chi_square(twin, sigma2) < P


@pytest.mark.parametrize("sigma2", [Fraction(1, 3), Fraction(1), Fraction(37, 5)])
def test_the_table_holds_the_exact_distribution(sigma2: Fraction) -> None:
    """Against exp by its own series in 400-bit rationals, not the recurrence of the table."""
    table = _noise._table(sigma2)
    reach = -table.first
    weights = [_series(Fraction(x * x) / (2 * sigma2)) for x in range(reach + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    running = Fraction(0)
    for place, bound in enumerate(table.bounds):
        running += weights[abs(place + table.first)]
        exact = running / total
        assert abs(Fraction(bound, 1 << 256) - exact) < Fraction(1, 1 << 200)


def _series(x: Fraction) -> Fraction:
    """Return exp(-x) to within 2**-260: halve to below 1/2, sum, square; rounded to 400 bits."""
    halvings = 0
    while x > Fraction(1, 2):
        x, halvings = x / 2, halvings + 1
    term = total = Fraction(1)
    for k in range(1, 80):
        term = _cut(-term * x / k)
        total += term
    for _ in range(halvings):
        total = _cut(total * total)
    return total


def _cut(value: Fraction) -> Fraction:
    return Fraction(round(value * (1 << 400)), 1 << 400)


def test_a_tie_reveals_more_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw whose first 64 bits are those of a bound is settled by further bits, on both sides."""
    table = _noise._table(Fraction(1))
    place = int(np.searchsorted(table.heads, np.uint64(1 << 63)))  # the bound of value 0 or so
    head, bound = int(table.heads[place]), table.bounds[place]
    rest = bound & ((1 << 192) - 1)
    raw = np.array([head], dtype=np.uint64).tobytes()
    monkeypatch.setattr(os, "urandom", lambda count: raw[:count])
    monkeypatch.setattr(_noise.secrets, "randbits", lambda _: rest - 1)
    below = int(_noise._draw(table, 1)[0])
    monkeypatch.setattr(_noise.secrets, "randbits", lambda _: rest)
    at = int(_noise._draw(table, 1)[0])
    assert (below, at) == (table.first + place, table.first + place + 1)


def test_noise_never_repeats() -> None:
    one, two = (by_table(Fraction(10_000), 64) for _ in range(2))
    assert not np.array_equal(one, two)


def test_the_tail_bound_is_above_the_tail() -> None:
    for sigma2 in SIGMA2:
        values, exact = probabilities(sigma2)
        for least in range(1, int(6 * float(sigma2) ** 0.5) + 2):
            tail = exact[values >= least].sum()
            assert tail <= _noise.upper_tail(sigma2, least) <= tail * 1.001 + 1e-15


SCORES = np.array([0, 3, 3, 10, -20], dtype=np.int64)


def _choices(epsilon: Fraction, count: int) -> NDArray[np.int64]:
    picks = [_noise.exponential(SCORES, epsilon, 3) for _ in range(count)]
    return np.bincount(picks, minlength=len(SCORES))


def _expected(epsilon: float, count: int) -> NDArray[np.float64]:
    weights = np.exp(epsilon * SCORES / 6)
    wanted: NDArray[np.float64] = weights / weights.sum() * count
    return wanted


def test_the_exponential_mechanism_has_its_probabilities() -> None:
    seen = _choices(Fraction(1, 2), 20_000)
    assert stats.chisquare(seen, _expected(0.5, 20_000)).pvalue > P


def test_an_exponential_mechanism_of_twice_the_epsilon_is_rejected() -> None:
    seen = _choices(Fraction(1), 20_000)
    assert stats.chisquare(seen, _expected(0.5, 20_000)).pvalue < P


def test_bernoulli_exp() -> None:
    for gamma in (Fraction(0), Fraction(1, 3), Fraction(1), Fraction(5, 2)):
        hits = sum(_noise._bernoulli_exp(gamma) for _ in range(20_000))
        assert stats.binomtest(hits, 20_000, float(np.exp(-float(gamma)))).pvalue > P
