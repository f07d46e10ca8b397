"""The samplers as laws: exactly, by arithmetic, and statistically, by what they draw.

*Exactly*: the shipped code is run on laws in place of samples, and the total variation distance of
the outcome from the definition is computed. *Statistically*: chi-square and Kolmogorov-Smirnov,
rejecting at p < 1e-6, so that a correct sampler fails about once in a million runs. Each check has
a broken twin that it must reject.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache, partial

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

from dpsynth.vault import _noise
from dpsynth.vault._noise import SAMPLE_DISTANCE
from dpsynth.vault._stream import SYSTEM, Stream
from dpsynth_accounting import InvalidRequest

P = 1e-6
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# -- exactly -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """An exact law: mass ``masses[i] / 2**bits`` at ``first + i``. Independent ones add up."""

    first: int
    masses: NDArray[np.object_]
    bits: int

    def __add__(self, other: Law) -> Law:
        masses = np.convolve(self.masses, other.masses)
        return Law(self.first + other.first, masses, self.bits + other.bits)

    def __rmul__(self, factor: int) -> Law:
        spread = np.zeros(factor * (len(self.masses) - 1) + 1, dtype=object)
        spread[::factor] = self.masses
        return Law(factor * self.first, spread, self.bits)

    def __sub__(self, other: Law) -> Law:
        last = other.first + len(other.masses) - 1
        return self + replace(other, first=-last, masses=other.masses[::-1])

    def reshape(self, _: object) -> Law:
        return self


def law_of(table: _noise._Table) -> Law:
    """Return the law of what is drawn from a table: a uniform real below the bounds."""
    masses = np.diff(np.array([0, *table.bounds, 1 << 256], dtype=object))
    last = int(np.flatnonzero(masses)[-1])
    return Law(table.first, masses[: last + 1], 256)


def distance(law: Law, mass: Callable[[int], mpmath.mpf], reach: int) -> Fraction:
    """Return the total variation distance of a law from masses on -reach, ..., reach."""
    with mpmath.workprec(440):
        half = [int(mpmath.ldexp(mass(x), 400)) for x in range(reach + 1)]
    weights = half[:0:-1] + half
    total = sum(weights)
    wanted = {x - reach: Fraction(weight, total) for x, weight in enumerate(weights)}
    one = 1 << law.bits
    assert law.masses.sum() == one
    far = Fraction(0)
    for x in range(min(-reach, law.first), max(reach, law.first + len(law.masses)) + 1):
        inside = 0 <= x - law.first < len(law.masses)
        found = int(law.masses[x - law.first]) if inside else 0
        # To 500 bits: exact fractions of sums of so many terms would take minutes.
        far += abs(Fraction(found * (1 << 500) // one - int(wanted.get(x, 0) * (1 << 500))))
    return far / (1 << 501)


def from_gaussian(law: Law, sigma2: Fraction) -> Fraction:
    def mass(x: int) -> mpmath.mpf:
        return mpmath.exp(-mpmath.mpf(x * x * sigma2.denominator) / (2 * sigma2.numerator))

    return distance(law, mass, int(20 * float(sigma2) ** 0.5) + 20)


def from_laplace(law: Law, scale: Fraction) -> Fraction:
    def mass(x: int) -> mpmath.mpf:
        return mpmath.exp(-mpmath.mpf(x * scale.denominator) / scale.numerator)

    return distance(law, mass, int(180 * scale) + 40)


@pytest.fixture
def on_laws(monkeypatch: pytest.MonkeyPatch) -> Iterable[None]:
    """Let samplers return exact laws: what they do to samples is done to laws."""
    monkeypatch.setattr(_noise, "_draw", lambda table, count, stream: law_of(table))
    _noise._geometric_table.cache_clear()
    yield
    _noise._geometric_table.cache_clear()  # a test may have made short ones


NARROW = [Fraction(1, 300), Fraction(1, 3), Fraction(1), Fraction(37, 5), Fraction(10_001, 4)]
WIDE = [Fraction(512**2), Fraction(512**2 * 4096 + 1, 4096)]


@pytest.mark.parametrize("sigma2", NARROW + WIDE)
def test_gaussians_have_their_law(on_laws: None, sigma2: Fraction) -> None:
    law: object = _noise.discrete_gaussian(sigma2, ())
    assert isinstance(law, Law)
    assert from_gaussian(law, sigma2) < SAMPLE_DISTANCE


@pytest.mark.parametrize("sigma2", [Fraction(257), Fraction(12_345, 8), Fraction(10_000)])
def test_gaussians_of_many_parts_have_their_law(
    on_laws: None, monkeypatch: pytest.MonkeyPatch, sigma2: Fraction
) -> None:
    """With tables of sigma up to 16 a sigma of 100 takes three of them."""
    monkeypatch.setattr(_noise, "_WIDEST", 16)
    law: object = _noise.discrete_gaussian(sigma2, ())
    assert isinstance(law, Law)
    assert from_gaussian(law, sigma2) < SAMPLE_DISTANCE


@pytest.mark.parametrize("scale", [Fraction(1, 200), Fraction(1, 2), Fraction(3)])
def test_laplaces_have_their_law(on_laws: None, scale: Fraction) -> None:
    law: object = _noise.discrete_laplace(scale, ())
    assert isinstance(law, Law)
    assert from_laplace(law, scale) < SAMPLE_DISTANCE


@pytest.mark.parametrize("scale", [Fraction(1, 40), Fraction(1, 8), Fraction(3)])
def test_laplaces_of_many_digits_have_their_law(
    on_laws: None, monkeypatch: pytest.MonkeyPatch, scale: Fraction
) -> None:
    """To base 8 these scales take one digit, two and three."""
    monkeypatch.setattr(_noise, "_DIGITS", 8)
    law: object = _noise.discrete_laplace(scale, ())
    assert isinstance(law, Law)
    assert from_laplace(law, scale) < SAMPLE_DISTANCE


def misrounded(table: _noise._Table) -> _noise._Table:
    """Return the table with one bound off by 2**-180."""
    bounds = list(table.bounds)
    bounds[len(bounds) // 2] += 1 << 256 - 180
    return replace(table, bounds=tuple(bounds))


def short(table: _noise._Table) -> _noise._Table:
    """Return the table with bounds of 128 bits."""
    return replace(table, bounds=tuple(bound >> 128 << 128 for bound in table.bounds))


def floating(table: _noise._Table) -> _noise._Table:
    """Return the table with bounds in double precision."""
    bounds = tuple(int(min(float(bound), float((1 << 256) - 1))) for bound in table.bounds)
    return replace(table, bounds=tuple(min(bound, (1 << 256) - 1) for bound in bounds))


@pytest.mark.parametrize("broken", [misrounded, short, floating])
def test_a_table_with_rounding_errors_is_flagged(
    broken: Callable[[_noise._Table], _noise._Table],
) -> None:
    sigma2 = Fraction(37, 5)
    table = _noise._gaussian_table(sigma2)
    assert from_gaussian(law_of(table), sigma2) < SAMPLE_DISTANCE
    assert from_gaussian(law_of(broken(table)), sigma2) > SAMPLE_DISTANCE


def test_a_table_that_ends_too_soon_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_noise, "_REACH", 14)
    table = _noise._gaussian_table.__wrapped__(Fraction(900))
    assert from_gaussian(law_of(table), Fraction(900)) > SAMPLE_DISTANCE


def test_a_sum_whose_fine_part_is_too_narrow_is_flagged() -> None:
    """Variances add up, but the lattice shows: J must be wide (noise.md, Theorem 2)."""
    a, sigma2 = 4, Fraction(900)
    for width in (1, 2, 5, 8):
        fine = law_of(_noise._gaussian_table(Fraction(width * a * a)))
        coarse = law_of(_noise._gaussian_table(sigma2 / (a * a) - width))
        broken = from_gaussian(fine + a * coarse, sigma2) > SAMPLE_DISTANCE
        assert broken == (width < 8)


def test_a_geometric_law_that_ends_too_soon_is_flagged(
    on_laws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_noise, "_DIGITS", 128)
    digit = law_of(_noise._geometric_table(Fraction(1)))  # where 150 are needed
    assert from_laplace(digit - digit, Fraction(1)) > SAMPLE_DISTANCE


@given(
    st.fractions(0, 100, max_denominator=10**6) | st.fractions(0, 10**20, max_denominator=7),
    st.integers(16, 500),
)
def test_the_exponential_function_is_within_its_slack(x: Fraction, bits: int) -> None:
    with mpmath.workprec(bits + 60):
        wanted = mpmath.ldexp(mpmath.exp(-mpmath.mpf(x.numerator) / x.denominator), bits)
        assert abs(_noise._exp_minus(x, bits) - wanted) < _noise._SLACK / 4


# -- drawing from a table ------------------------------------------------------------------------


class Scripted(Stream):
    """A stream that says what it is told, as one long binary fraction."""

    def __init__(self, pieces: Iterable[int]) -> None:
        super().__init__()
        self.pieces = iter(pieces)

    def words(self, count: int) -> NDArray[np.uint64]:
        return np.array([next(self.pieces) for _ in range(count)], dtype=np.uint64)

    def bits(self, k: int) -> int:
        return next(self.pieces)


def test_a_draw_is_the_number_of_bounds_up_to_a_uniform_real() -> None:
    """At each bound of a small table, on both sides, settled by the first 64 bits or by all."""
    table = _noise._gaussian_table(Fraction(1))
    for bound in sorted({*table.bounds}):
        for real in {bound - 1, bound, bound + 1, bound + (1 << 192)}:
            if 0 <= real < 1 << 256:
                pieces = [real >> 192, real & ((1 << 192) - 1)]
                drawn = int(_noise._draw(table, 1, Scripted(pieces))[0])
                assert drawn - table.first == sum(each <= real for each in table.bounds)


def test_ties_are_settled_each_for_itself() -> None:
    table = _noise._gaussian_table(Fraction(1))
    place = int(np.searchsorted(table.heads, np.uint64(1 << 63)))
    head, rest = int(table.heads[place]), table.bounds[place] & ((1 << 192) - 1)
    script = Scripted([head, 1 << 62, head, rest - 1, rest])
    below, other, above = _noise._draw(table, 3, script) - table.first
    assert (below, above) == (place, place + 1)
    assert other < place


@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    for scale in (Fraction(2), Fraction(10**8)):
        for sampler in (_noise.discrete_gaussian, _noise.discrete_laplace):
            found = sampler(scale, shape)
            assert found.shape == shape
            assert found.dtype == np.int64


@pytest.mark.parametrize("bits", [0, -1])
def test_the_widest_noise_fits(bits: int) -> None:
    """The least and the greatest sample of the greatest scales, beside counts below 2**62."""

    class Constant(Stream):
        def words(self, count: int) -> NDArray[np.uint64]:
            return np.full(count, bits & ((1 << 64) - 1), dtype=np.uint64)

        def bits(self, k: int) -> int:
            return bits & ((1 << k) - 1)

    scale = Fraction(_noise.LARGEST_SCALE)
    gaussian = int(_noise.discrete_gaussian(scale**2, (1,), Constant())[0])
    assert 16 < abs(gaussian) / scale < 19
    geometric = int(_noise._geometric(1 / scale, 1, Constant())[0])
    assert geometric == 0 or 150 * scale < geometric < 1 << 60


@pytest.mark.parametrize("value", [Fraction(0), Fraction(-1), Fraction(2**100 + 1)])
def test_impossible_scales_are_refused(value: Fraction) -> None:
    for sampler in (_noise.discrete_gaussian, _noise.discrete_laplace):
        with pytest.raises(InvalidRequest, match="out of range"):
            sampler(value, (1,))


def test_noise_never_repeats() -> None:
    for sampler in (_noise.discrete_gaussian, _noise.discrete_laplace):
        for scale in (Fraction(10_000), Fraction(10**12)):
            assert not np.array_equal(sampler(scale, (64,)), sampler(scale, (64,)))


# -- statistically -------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _sums(sigma2: Fraction) -> tuple[int, Floats]:
    reach = int(12 * float(sigma2) ** 0.5) + 5
    weights = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * float(sigma2)))
    return reach, np.cumsum(weights / weights.sum())


def gaussian_cdf(sigma2: Fraction, x: Integers) -> Floats:
    """Return P(N_Z(0, sigma2) <= x), by summing the definition; by integrating it when wide."""
    if sigma2 > 10**7:  # they differ by less than 1e-8
        wide: Floats = special.ndtr((x + 0.5) / float(sigma2) ** 0.5)
        return wide
    reach, sums = _sums(sigma2)
    found: Floats = np.where(x < -reach, 0.0, sums[np.clip(x + reach, 0, 2 * reach)])
    return found


def laplace_cdf(scale: Fraction, x: Integers) -> Floats:
    """Return P(X <= x) of the discrete Laplace law, in closed form."""
    rate = 1 / float(scale)
    ends = np.exp(-rate * np.where(x < 0, -x, x + 1.0)) / (1 + np.exp(-rate))
    found: Floats = np.where(x < 0, ends, 1 - ends)
    return found


Cdf = Callable[[Integers], Floats]
CdfOf = Callable[[Fraction, Integers], Floats]
Sampler = Callable[..., Integers]


def chi_square(samples: Integers, cdf: Cdf) -> float:
    """Return the p-value of samples in about 200 cells of equal mass, and two for the far ends."""
    count = len(samples)
    levels = np.r_[20 / count, np.linspace(0, 1, 201)[1:-1], 1 - 20 / count]
    low, high = np.full(len(levels), -(1 << 61)), np.full(len(levels), 1 << 61)
    while (high - low).max() > 1:  # the least integers that reach the levels
        middle = (low + high) // 2
        reached = cdf(middle) >= levels
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    ends = np.unique(high)
    expected = np.diff(np.r_[0.0, cdf(ends), 1.0]) * count
    seen = np.bincount(np.searchsorted(ends, samples), minlength=len(ends) + 1).astype(float)
    groups = np.minimum(np.cumsum(expected) // 20, expected.sum() // 20 - 1).astype(int)
    seen, expected = (np.bincount(groups, each) for each in (seen, expected))
    keep = expected > 0
    return float(stats.chisquare(seen[keep], expected[keep] * count / expected.sum()).pvalue)


def kolmogorov(samples: Integers, cdf: Cdf) -> float:
    """Return the p-value of the greatest gap of the distribution functions; safe when discrete."""
    points, counts = np.unique(samples, return_counts=True)
    upto = np.cumsum(counts) / len(samples)
    at = np.abs(upto - cdf(points)).max()
    before = np.abs(np.r_[0.0, upto[:-1]] - cdf(points - 1)).max()
    return float(stats.kstwobign.sf(max(at, before) * np.sqrt(len(samples))))


TESTS = (chi_square, kolmogorov)
GAUSSIANS = [
    *(Fraction(1, 3), Fraction(1), Fraction(7, 2), Fraction(100), Fraction(12_345, 2)),
    *(Fraction(512**2 + 1), Fraction(4 * 10**8), Fraction(10**12 * 4096 + 1, 4096)),
]
LAPLACES = [Fraction(1, 2), Fraction(5), Fraction(1_000, 3), Fraction(10**6), Fraction(10**9)]

LAWS: list[tuple[Sampler, CdfOf, Fraction]] = [
    *((_noise.discrete_gaussian, gaussian_cdf, sigma2) for sigma2 in GAUSSIANS),
    *((_noise.discrete_laplace, laplace_cdf, scale) for scale in LAPLACES),
]
each_law = pytest.mark.parametrize(("sampler", "cdf_of", "scale"), LAWS)


def p_values(samples: Integers, cdf_of: CdfOf, scale: Fraction) -> list[float]:
    return [test(samples, partial(cdf_of, scale)) for test in TESTS]


@each_law
def test_samples_follow_their_law(sampler: Sampler, cdf_of: CdfOf, scale: Fraction) -> None:
    assert min(p_values(sampler(scale, (200_000,)), cdf_of, scale)) > P


@pytest.mark.parametrize("factor", [Fraction(5, 6), Fraction(6, 5)])
@each_law
def test_a_wrong_scale_is_rejected(
    sampler: Sampler, cdf_of: CdfOf, scale: Fraction, factor: Fraction
) -> None:
    assert max(p_values(sampler(scale * factor, (200_000,)), cdf_of, scale)) < P


@pytest.mark.slow
@each_law
def test_ten_million_samples(sampler: Sampler, cdf_of: CdfOf, scale: Fraction) -> None:
    count = (10_000_000,)
    assert min(p_values(sampler(scale, count), cdf_of, scale)) > P
    twin = sampler(scale * Fraction(51, 50), count)  # sigma by one per cent
    assert max(p_values(twin, cdf_of, scale)) < P


def test_the_cells_of_the_chi_square_cover_everything() -> None:
    for sigma2 in GAUSSIANS:
        samples = _noise.discrete_gaussian(sigma2, (50_000,))
        samples[:600] = 40 * int(float(sigma2) ** 0.5 + 1)
        assert chi_square(samples, partial(gaussian_cdf, sigma2)) < P


def test_other_laws_of_the_same_variance_are_rejected() -> None:
    rng = np.random.default_rng(0)
    rounded = np.rint(rng.normal(0, 1, 400_000)).astype(np.int64)
    assert chi_square(rounded, partial(gaussian_cdf, Fraction(1))) < P
    shifted = _noise.discrete_gaussian(Fraction(100), (200_000,)) + 1
    assert max(p_values(shifted, gaussian_cdf, Fraction(100))) < P
    coarse = 2 * _noise.discrete_gaussian(Fraction(2_500), (200_000,))
    assert min(p_values(coarse, gaussian_cdf, Fraction(10_000))) < P


@pytest.mark.parametrize("sigma2", [Fraction(4), Fraction(10**12)])
def test_samples_are_independent(sigma2: Fraction) -> None:
    """Neighbours, and the two parts of a sum, have no correlation."""
    samples = _noise.discrete_gaussian(sigma2, (400_000,)).astype(float)
    for lag in (1, 2, 1 << 15, 200_000):
        one, two = samples[:-lag], samples[lag:]
        assert abs((one * two).mean()) / float(sigma2) * np.sqrt(len(one)) < 5
    reused = np.repeat(samples[:200_000], 2)
    assert abs((reused[:-1] * reused[1:]).mean()) / float(sigma2) * np.sqrt(400_000) > 5


# -- against the rejection samplers of Canonne, Kamath and Steinke -------------------------------


def bernoulli_exp(gamma: Fraction) -> bool:
    """Return True with probability exp(-gamma), exactly: their Algorithm 1."""
    while gamma > 1:
        if not bernoulli_exp(Fraction(1)):
            return False
        gamma -= 1
    k = 1
    while secrets.randbelow(gamma.denominator * k) < gamma.numerator:
        k += 1
    return k % 2 == 1


def laplace_by_rejection(whole: Fraction) -> int:
    """Return a discrete Laplace sample, exactly: their Algorithm 2, for a whole scale."""
    scale = whole.numerator
    while True:
        low = secrets.randbelow(scale)
        if not bernoulli_exp(Fraction(low, scale)):
            continue
        high = 0
        while bernoulli_exp(Fraction(1)):
            high += 1
        magnitude = low + scale * high
        if secrets.randbelow(2) == 0:
            return magnitude
        if magnitude > 0:
            return -magnitude


def gaussian_by_rejection(sigma2: Fraction) -> int:
    """Return a discrete Gaussian sample, exactly: their Algorithm 3."""
    scale = int(float(sigma2) ** 0.5) + 1
    while True:
        sample = laplace_by_rejection(Fraction(scale))
        gap = abs(sample) - sigma2 / scale
        if bernoulli_exp(gap * gap / (2 * sigma2)):
            return sample


def agree(one: Integers, two: Integers) -> float:
    """Return the p-value of two sets of samples having one law."""
    cells = np.unique(np.quantile(two, np.linspace(0, 1, 25), method="inverted_cdf"))[:-1]
    rows = [np.bincount(np.searchsorted(cells, s), minlength=len(cells) + 1) for s in (one, two)]
    table = np.array(rows)[:, np.sum(rows, axis=0) > 10]
    return float(stats.chi2_contingency(table).pvalue)


def oracle(draw: Callable[[], int], count: int) -> Integers:
    return np.array([draw() for _ in range(count)], dtype=np.int64)


ORACLES = [
    *((_noise.discrete_gaussian, gaussian_by_rejection, Fraction(s)) for s in (2, 900, 10**12)),
    *((_noise.discrete_laplace, laplace_by_rejection, Fraction(s)) for s in (2, 30, 10**6)),
]


@pytest.mark.parametrize(("sampler", "exactly", "scale"), ORACLES)
def test_the_oracles_agree(
    sampler: Sampler, exactly: Callable[[Fraction], int], scale: Fraction
) -> None:
    wanted = oracle(lambda: exactly(scale), 5_000)
    assert agree(sampler(scale, (50_000,)), wanted) > P
    assert agree(sampler(scale * Fraction(8, 5), (50_000,)), wanted) < P


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "exactly", "scale"), ORACLES)
def test_the_oracles_agree_on_many(
    sampler: Sampler, exactly: Callable[[Fraction], int], scale: Fraction
) -> None:
    wanted = oracle(lambda: exactly(scale), 200_000)
    assert agree(sampler(scale, (5_000_000,)), wanted) > P
    assert agree(sampler(scale * Fraction(11, 10), (5_000_000,)), wanted) < P


# -- the tail ------------------------------------------------------------------------------------


def tail_faults(bound: Callable[[Fraction, int], float]) -> int:
    """Return how often a bound on the tail is below it, or above by more than it says."""
    faults = 0
    for sigma2 in [Fraction(1, 7), *GAUSSIANS[:5], *GAUSSIANS[6:]]:
        sigma = float(sigma2) ** 0.5
        for least in sorted({1, 2, 3, *(int(t * sigma) + 1 for t in (0.5, 1, 2, 4, 6, 9))}):
            with mpmath.workdps(40):
                if sigma2 < 10**7:
                    far = range(least, least + int(14 * sigma) + 12)
                    whole = 2 * sum(_mass(x, sigma2) for x in range(1, int(14 * sigma) + 12)) + 1
                    tail = sum(_mass(x, sigma2) for x in far) / whole
                else:  # the midpoint rule
                    tail = mpmath.ncdf(-(least - mpmath.mpf(1) / 2) / mpmath.sqrt(float(sigma2)))
            above = 1e-6 if sigma < 1_000 else 0.02
            faults += not (tail * (1 - 1e-7) <= bound(sigma2, least) <= tail * (1 + above) + 1e-290)
            faults += sigma < 1_000 and bound(sigma2, least) < tail
    return faults


def _mass(x: int, sigma2: Fraction) -> mpmath.mpf:
    return mpmath.exp(-mpmath.mpf(x * x * sigma2.denominator) / (2 * sigma2.numerator))


def tail(sigma2: Fraction, least: int) -> float:
    """Return the bound on P(noise >= least), from the next lower step."""
    block, tails = _noise.upper_tails(sigma2)
    return float(tails[least // block])


def test_the_tail_bounds_are_above_the_tail_and_close() -> None:
    assert tail_faults(tail) == 0
    assert tail_faults(lambda sigma2, least: tail(sigma2, least + 1)) > 20
    assert tail_faults(lambda sigma2, least: 1.03 * tail(sigma2, least)) > 20


# -- choices -------------------------------------------------------------------------------------

SCORES = np.array([0, 3, 3, 10, -20], dtype=np.int64)


def choices(epsilon: Fraction, count: int) -> Integers:
    picks = [_noise.exponential(SCORES, epsilon, 3) for _ in range(count)]
    return np.bincount(picks, minlength=len(SCORES))


def fits(seen: Integers, epsilon: float) -> float:
    weights = np.exp(epsilon * SCORES / 6)
    return float(stats.chisquare(seen, weights / weights.sum() * seen.sum()).pvalue)


def test_the_exponential_mechanism_has_its_probabilities() -> None:
    assert fits(choices(Fraction(1, 2), 4_000), 0.5) > P


def test_an_exponential_mechanism_of_twice_the_epsilon_is_rejected() -> None:
    assert fits(choices(Fraction(1), 4_000), 0.5) < P


@pytest.mark.slow
def test_many_choices() -> None:
    assert fits(choices(Fraction(1, 2), 200_000), 0.5) > P
    assert fits(choices(Fraction(11, 20), 200_000), 0.5) < P


def test_proposals_of_any_weight_give_the_same_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rejection makes up for them, as long as no weight is too small."""
    full = lambda gaps, rate: np.full(gaps.shape, 1 << 31, dtype=np.int64)  # noqa: E731
    monkeypatch.setattr(_noise, "_proposal", full)
    assert fits(choices(Fraction(1, 2), 4_000), 0.5) > P
    flat = lambda gaps, rate: np.full(gaps.shape, 1 << 28, dtype=np.int64)  # noqa: E731
    monkeypatch.setattr(_noise, "_proposal", flat)
    assert fits(choices(Fraction(1, 2), 4_000), 0.5) < P


def too_small(proposal: Callable[[NDArray[np.uint64], Fraction], Integers]) -> int:
    """Return how many weights are below 2**31 exp(-gap), or too far above it."""
    rng = np.random.default_rng(3)
    near, far = rng.integers(0, 3_000, 300), rng.integers(0, 1 << 63, 300)
    gaps = np.array([0, *near.tolist(), *far.tolist(), (1 << 64) - 1], dtype=np.uint64)
    faults = 0
    for rate in (Fraction(1, 97), Fraction(3, 2), Fraction(1, 10**18), Fraction(12_345, 2**20)):
        for gap, weight in zip(gaps.tolist(), proposal(gaps, rate).tolist(), strict=True):
            with mpmath.workdps(40):
                wanted = mpmath.ldexp(
                    mpmath.exp(-mpmath.mpf(gap * rate.numerator) / rate.denominator), 31
                )
            faults += not wanted <= weight <= wanted + 192
            faults += not 1 <= weight <= 1 << 31
    return faults


def test_proposals_are_never_too_small() -> None:
    assert too_small(_noise._proposal) == 0
    assert too_small(lambda gaps, rate: _noise._proposal(gaps, rate) - 64) > 100

    def nearest(gaps: NDArray[np.uint64], rate: Fraction) -> Integers:
        return np.rint(2.0**31 * np.exp(-gaps.astype(float) * float(rate))).astype(np.int64)

    assert too_small(nearest) > 100


def pieces(real: Fraction) -> Scripted:
    """Return a stream that spells a real of [0, 1), from the 32nd bit on."""
    return Scripted(int(real * (1 << 31 + 64 * k)) % (1 << 64) for k in range(1, 20))


def wrong_comparisons() -> int:
    """Return how often a real near exp(-gamma) is set on the wrong side of it."""
    wrong = 0
    for gamma in (Fraction(1, 3), Fraction(1), Fraction(5, 2), Fraction(40), Fraction(1, 10**9)):
        with mpmath.workprec(1_000):
            exactly = int(
                mpmath.ldexp(mpmath.exp(-mpmath.mpf(gamma.numerator) / gamma.denominator), 900)
            )
        for bits in (5, 30, 80, 94, 96, 150, 300, 700):
            for side in (-1, 1):
                real = Fraction(exactly + side * (1 << 900 - bits), 1 << 900)
                if 0 <= real < 1:
                    head = int(real * (1 << 31))
                    wrong += _noise._is_below_exp(head, gamma, pieces(real)) != (side < 0)
    return wrong


def test_comparisons_take_as_many_bits_as_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong_comparisons() == 0
    monkeypatch.setattr(_noise, "_SLACK", 0)
    assert wrong_comparisons() > 0


def test_a_gap_of_zero_is_accepted() -> None:
    assert all(_noise._is_below_exp((1 << 31) - 1, Fraction(0), SYSTEM) for _ in range(100))


class Counting(Stream):
    """A stream that counts proposals."""

    proposals = 0

    def below(self, n: int) -> int:
        self.proposals += 1
        return super().below(n)


@pytest.mark.parametrize("gap", [1, 40, 10**6, 10**18])
def test_few_proposals_are_rejected(gap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand candidates and one winner: of uniform proposals nearly all would be in vain."""
    scores = np.zeros(10_000, dtype=np.int64)
    scores[77] = gap
    stream = Counting()
    found = [_noise.exponential(scores, Fraction(2), 1, stream) for _ in range(50)]
    assert stream.proposals < 60
    assert gap < 20 or set(found) == {77}
    full = lambda gaps, rate: np.full(gaps.shape, 1 << 31, dtype=np.int64)  # noqa: E731
    monkeypatch.setattr(_noise, "_proposal", full)
    uniform = Counting()
    _noise.exponential(scores, Fraction(2), 1, uniform)
    _noise.exponential(scores, Fraction(2), 1, uniform)
    assert gap == 1 or uniform.proposals > 60


def test_scores_at_the_ends_of_their_type() -> None:
    ends = np.iinfo(np.int64)
    scores = np.array([ends.min, ends.max, ends.max - 1, 0], dtype=np.int64)
    found = [_noise.exponential(scores, Fraction(2), 1) for _ in range(200)]
    seen = np.bincount(found, minlength=4)
    assert (seen[0], seen[3]) == (0, 0)
    assert stats.binomtest(int(seen[1]), 200, 1 / (1 + np.exp(-1))).pvalue > P
    assert _noise.exponential(scores[:1], Fraction(2), 1) == 0
    tiny = Fraction(1, 1 << 66)  # on which even that gap is little
    found = [_noise.exponential(scores[:2], tiny, 1) for _ in range(200)]
    even = 1 / (1 + np.exp(-float(tiny) * 2.0**63))
    assert stats.binomtest(sum(found), 200, even).pvalue > P
