from __future__ import annotations

import math

import numpy as np
import pytest

from dpsynth.attacks import Claim, OneRun, bound_epsilon
from dpsynth.attacks.coins import guess_numbers
from dpsynth.attacks.one_run import pair_lower_bound
from dpsynth_accounting import InvalidRequest


def test_all_right_by_hand() -> None:
    """r guesses, all right: the bound solves (e^x / (1 + e^x))^r = alpha."""
    for guesses, level in ((10, 0.95), (160, 0.999)):
        odds = (1 - level) ** (1 / guesses)
        expected = math.log(odds / (1 - odds))
        found = pair_lower_bound((guesses,), guesses, 4 * guesses, 0.0, level)
        assert 0.98 * expected <= found <= expected


def test_what_chance_gives_says_nothing() -> None:
    assert pair_lower_bound((20,), 40, 160, 0.0, 0.95) == 0.0
    assert pair_lower_bound((0,), 40, 160, 0.0, 0.95) == 0.0
    # A delta that is large beside the units allows anything.
    assert pair_lower_bound((40,), 40, 160, 0.01, 0.95) == 0.0


def randomised_response(
    epsilon: float, units: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of a mechanism that is exactly epsilon-DP, and tight: it tells each coin.

    A coin is told rightly with probability e^epsilon / (1 + e^epsilon).
    """
    coin = rng.random(units) < 0.5
    told = coin ^ (rng.random(units) > 1 / (1 + math.exp(-epsilon)))
    scores = told + rng.random(units) / 2
    return scores[coin], scores[~coin]


def bound_of(epsilon: float, rng: np.random.Generator, claim: float | None = None) -> OneRun:
    found = bound_epsilon(*randomised_response(epsilon, 800, rng), Claim(((claim, 0.0),)), rng=rng)
    assert found is not None
    return found


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_the_bound_holds_for_a_tight_mechanism_and_nears_it(epsilon: float) -> None:
    """100 runs at 95 %: more than 18 above the truth has probability below 1e-6 at 5 %.

    The draws are fixed.
    """
    rng = np.random.default_rng(int(10 * epsilon))
    bounds = [bound_of(epsilon, rng).points[0].bound for _ in range(100)]
    assert sum(bound > epsilon for bound in bounds) <= 18
    assert np.mean(bounds) > epsilon / 5


def test_a_claim_is_refuted_if_it_is_false_and_only_then() -> None:
    rng = np.random.default_rng(3)
    assert not any(bound_of(2.0, rng, 2.0).refuted for _ in range(40))
    assert all(bound_of(2.0, rng, 0.5).refuted for _ in range(10))


def test_numbers_of_guesses_follow_from_the_units_alone() -> None:
    assert guess_numbers(39) == ()
    assert guess_numbers(16_000) == (10, 20, 40, 80, 160, 320, 640, 1280, 2560)
    assert (
        bound_epsilon(np.ones(10), np.zeros(10), Claim(((1.0, 0.0),)), rng=np.random.default_rng(0))
        is None
    )


def test_the_best_number_of_guesses_without_its_correction_would_be_too_good() -> None:
    """The twin: the greatest of nine bounds at 95 % each is above 0 too often without a leak."""
    rng = np.random.default_rng(4)
    corrected = uncorrected = 0
    for _ in range(100):
        coin = rng.random(1000) < 0.5
        scores = rng.random(1000)
        found = bound_epsilon(
            scores[coin], scores[~coin], Claim(((None, 0.0),)), rng=np.random.default_rng(0)
        )
        assert found is not None
        corrected += found.points[0].bound > 0
        uncorrected += any(
            pair_lower_bound((v,), r, 1000, 0.0, 0.95) > 0
            for v, r in zip(found.right, found.guesses, strict=True)
        )
    # The draws are fixed; 5 of 100 are what the level allows.
    assert corrected <= 5
    assert uncorrected >= 10


def test_impossible_claims_are_refused() -> None:
    for epsilon, delta in ((-1.0, 0.0), (1.0, 1.0), (float("nan"), 0.0)):
        with pytest.raises(InvalidRequest):
            Claim(((epsilon, delta),))
