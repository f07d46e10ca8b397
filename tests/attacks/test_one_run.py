"""The bounds of one run: against a linear program, exact laws, and mechanisms that break claims."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats

from dpsynth.attacks import one_run
from dpsynth.attacks.one_run import (
    Claim,
    combined,
    curve_p_value,
    gaussian_lower_bound,
    pair_lower_bound,
    pair_p_value,
)
from dpsynth_accounting import InvalidRequest

CLAIMS = {
    "pair": Claim.pair(0.7, 0.01),
    "pure": Claim.pair(1.0, 0.0),
    "gaussian": Claim.gaussian(1.0),
}


def brute_p_value(correct: int, guesses: int, canaries: int, claim: Claim) -> float:
    """The greatest tail of any law of right guesses that meets every inequality, as a program.

    Of every upper set of numbers of right guesses: the part of canaries that are guessed right is
    at most e^epsilon times the part guessed wrong one below it, plus delta; and so mirrored.
    """
    w = np.arange(guesses + 1)
    rows, limits = [], []
    for least in range(1, guesses + 1):
        right = np.where(w >= least, w, 0) / canaries
        wrong = np.where(w >= least - 1, guesses - w, 0) / canaries
        for epsilon, delta in zip(claim.epsilons, claim.deltas, strict=True):
            rows.append(right - math.exp(epsilon) * wrong)
            limits.append(delta)
            rows.append(right - wrong * math.exp(-epsilon))
            limits.append(1 - math.exp(-epsilon) * (1 - delta))
    found = optimize.linprog(
        -(w >= correct).astype(float), rows, limits, np.ones((1, guesses + 1)), [1.0]
    )
    return float(-found.fun)


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("sizes", [(1, 1), (3, 3), (6, 6), (5, 9), (8, 20)])
def test_the_curve_bound_is_the_worst_law(name: str, sizes: tuple[int, int]) -> None:
    guesses, canaries = sizes
    for correct in range(1, guesses + 1):
        exact = brute_p_value(correct, guesses, canaries, CLAIMS[name])
        found = curve_p_value(correct, guesses, canaries, CLAIMS[name])
        assert exact * (1 - 1e-6) <= found <= exact * 1.01 + 1e-9


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("guesses", [1, 20, 100])
def test_randomised_response_is_never_more_improbable_than_it_is(
    epsilon: float, guesses: int
) -> None:
    """Each coin is told rightly with probability 1 / (1 + e^-epsilon): the law is known."""
    share = 1 / (1 + math.exp(-epsilon))
    for correct in range(guesses + 1):
        true = float(stats.binom.sf(correct - 1, guesses, share))
        assert pair_p_value(correct, guesses, 100, epsilon, 0.0) == pytest.approx(
            max(true, one_run.LEAST_P)
        )
        assert curve_p_value(correct, guesses, 100, Claim.pair(epsilon, 0.0)) >= true - 1e-12


@pytest.mark.parametrize("mu", [0.1, 1.0, 2.0])
def test_a_gaussian_mechanism_is_never_more_improbable_than_it_is(mu: float) -> None:
    """All coins told by a Gaussian answer each: right with probability Phi(mu / 2)."""
    share, claim = float(stats.norm.cdf(mu / 2)), Claim.gaussian(mu)
    for correct in range(0, 61, 3):
        true = float(stats.binom.sf(correct - 1, 60, share))
        assert curve_p_value(correct, 60, 60, claim) >= true - 1e-12


def test_one_that_tells_all_with_probability_delta_is_allowed_for() -> None:
    delta, canaries = 0.01, 50
    for correct in range(canaries + 1):
        true = delta + (1 - delta) * float(stats.binom.sf(correct - 1, canaries, 0.5))
        for found in (
            pair_p_value(correct, canaries, canaries, 0.0, delta),
            curve_p_value(correct, canaries, canaries, Claim.pair(0.0, delta)),
        ):
            assert found >= true * (1 - 1e-9)
    assert pair_p_value(canaries, canaries, canaries, 0.0, 0.0) < delta  # without it, it is not


def test_choosing_the_surest_guesses_gains_nothing() -> None:
    """Of 2,000 Gaussian games with a tenth guessed, p is at most 0.05 in at most 1 in 20.

    The number of such games is at most binomial: beyond 160 has probability below 1e-8.
    """
    rng, mu, canaries, guesses = np.random.default_rng(0), 1.0, 100, 10
    coins = rng.integers(0, 2, (2000, canaries))
    scores = (coins - 0.5) * mu + rng.normal(size=coins.shape)
    surest = np.argsort(-np.abs(scores), axis=1)[:, :guesses]
    right = (np.take_along_axis(scores, surest, 1) > 0) == np.take_along_axis(coins, surest, 1)
    claim = Claim.gaussian(mu)
    p_of = [curve_p_value(c, guesses, canaries, claim) for c in range(guesses + 1)]
    assert sum(p_of[c] <= 0.05 for c in right.sum(1)) <= 160
    twin = Claim.gaussian(mu / 5)  # what it would be under a claim that is broken
    broken = [curve_p_value(c, guesses, canaries, twin) for c in range(guesses + 1)]
    assert sum(broken[c] <= 0.05 for c in right.sum(1)) > 160


def test_runs_combine_to_a_valid_p_value() -> None:
    """Uniform p-values give uniform ones: Kolmogorov's distance beyond 0.05 has p below 1e-8."""
    rng = np.random.default_rng(1)
    found = [combined(p) for p in rng.random((4000, 5))]
    assert stats.kstest(found, "uniform").statistic < 0.05
    assert stats.kstest([min(p) for p in rng.random((4000, 5))], "uniform").statistic > 0.05
    assert combined([0.3]) == pytest.approx(0.3)


def test_lower_bounds_stay_below_what_is_and_find_what_is_gross() -> None:
    epsilon = 2.0
    expected = round(100 / (1 + math.exp(-epsilon)))
    bound = pair_lower_bound([expected] * 12, 100, 100, 1e-6)
    assert 1.0 < bound < epsilon
    assert pair_lower_bound([50] * 12, 100, 100, 1e-6) == 0
    assert gaussian_lower_bound([50] * 3, 100, 100) == 0
    right = round(100 * float(stats.norm.cdf(0.5)))
    assert 0.2 < gaussian_lower_bound([right] * 6, 100, 100) < 1.0


def test_more_right_guesses_are_less_probable() -> None:
    claim = Claim.gaussian(0.5)
    for of in (
        lambda c: curve_p_value(c, 30, 40, claim),
        lambda c: pair_p_value(c, 30, 40, 0.5, 1e-6),
    ):
        found = [of(c) for c in range(31)]
        assert found[0] == 1.0
        assert all(b <= a * 1.001 for a, b in itertools.pairwise(found))


def test_impossible_numbers_are_refused() -> None:
    for numbers in ((3, 2, 5), (1, 6, 5), (-1, 2, 5), (0, 0, 5)):
        with pytest.raises(InvalidRequest, match="right guesses"):
            curve_p_value(*numbers, CLAIMS["pure"])
        with pytest.raises(InvalidRequest, match="right guesses"):
            pair_p_value(*numbers, 1.0, 0.0)
