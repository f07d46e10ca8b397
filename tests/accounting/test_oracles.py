"""Prices against independent ones: never below what an attack attains, and close to it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dpsynth_accounting import (
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Exponential,
    Gaussian,
    Laplace,
    Parallel,
    Repeat,
    Sequence,
    SubsampledGaussian,
    curve,
    for_group,
)
from tests.accounting.adversaries import (
    Adversary,
    Step,
    choice_laws,
    divided_gaussian,
    every_offset,
    normal_laws,
    transcripts,
)
from tests.accounting.lattice import moved
from tests.accounting.oracles import (
    Finite,
    Sampled,
    discrete_gaussian,
    discrete_laplace,
    falling_root,
    gaussian_delta,
    laplace_delta,
    laplace_law,
    rounded,
    sampled_brackets,
)

FLOAT = 1 + 1e-9  # the oracles round too
TINY = 1e-13


def close(low: float, found: float, high: float, *, relative: float = 1e-3) -> bool:
    """Say whether a price is not below a lower bound and hardly above an upper one."""
    return low <= found * FLOAT + TINY and found <= high * (1 + relative) + 1e-10


# -- the oracles against each other ----------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.0, 0.2, 0.7, 1.4])
def test_exact_laplace_sums_lie_between_losses_rounded_down_and_up(epsilon: float) -> None:
    down, up = (rounded(laplace_law(0.5), -0.5, 0.5, 1e-4, side) for side in (False, True))
    exact = laplace_delta(0.5, 3, epsilon)
    assert down.composed_delta(3, epsilon)[0] < exact < up.composed_delta(3, epsilon)[0]


def test_one_laplace_answer_has_its_closed_form() -> None:
    assert laplace_delta(1.0, 1, 0.4) == pytest.approx(-math.expm1((0.4 - 1) / 2), rel=1e-12)


@pytest.mark.parametrize("removed", [True, False])
@pytest.mark.parametrize("group", [1, 3])
def test_the_threshold_of_a_sampled_step_agrees_with_quadrature(removed: bool, group: int) -> None:
    law = Sampled(0.1, 0.8, removed, group)
    for epsilon in (0.0, 0.05, 0.3, 1.0):
        slow = law.one_step_by_quadrature(epsilon)
        assert law.one_step(epsilon) == pytest.approx(slow, rel=1e-6, abs=1e-9)


def test_brackets_of_sampled_steps_enclose_one_step_and_two_lattices_of_peers() -> None:
    exact = max(Sampled(0.1, 0.8, removed).one_step(0.3) for removed in (True, False))
    low, high = sampled_brackets(0.1, 0.8, 1, 0.3, 1e-4)
    assert low <= exact <= high <= low * 1.01
    low, high = sampled_brackets(0.02, 1.0, 300, 1.5, 2e-5)
    assert low <= peer(0.02, 1.0, 300).get_delta_for_epsilon(1.5) <= high * 1.001
    assert high <= low * 1.02


def peer(rate: float, sigma: float, steps: int) -> Any:
    """Return dp-accounting's certified upper bound, both directions."""
    from dp_accounting.pld import privacy_loss_distribution

    one = privacy_loss_distribution.from_gaussian_mechanism(
        sigma, sampling_prob=rate, value_discretization_interval=2e-4
    )
    return one.self_compose(steps)


def test_two_ways_of_listing_a_lattice_agree() -> None:
    for epsilon in (0.0, 0.5, 2.0):
        one = discrete_gaussian(2.0, 3).delta(epsilon)
        assert one == pytest.approx(moved(2.0, (3,)).delta(epsilon), rel=1e-9)


def test_discrete_laplace_losses_are_those_of_its_masses() -> None:
    law, decay = discrete_laplace(2.0, 3), math.exp(-0.5)
    z = np.arange(-90, 94)
    mass = (1 - decay) / (1 + decay) * decay ** np.abs(z)
    moved_mass = (1 - decay) / (1 + decay) * decay ** np.abs(z - 3)
    assert law.p.sum() == pytest.approx(1.0)
    for epsilon in (0.0, 0.4, 0.9, 1.4):
        slow = float(np.maximum(moved_mass - math.exp(epsilon) * mass, 0).sum())
        assert law.delta(epsilon) == pytest.approx(slow, rel=1e-12)
        assert law.swapped().delta(epsilon) == pytest.approx(slow, rel=1e-12)


@pytest.mark.parametrize(
    "adversary",
    [
        Adversary.alike(0.3, 20),
        Adversary.alike(1.0, 4, 32),
        Adversary((3, 10, 3), 0.1),
        Adversary.alike(0.2, 6, 8, mu=0.7, bins=40),
    ],
)
def test_a_policy_found_backwards_gains_as_much_when_replayed(adversary: Adversary) -> None:
    top = sum(adversary.widths) * adversary.step + adversary.mu
    for at in (0.1 * top, 0.4 * top, 0.8 * top):
        assert adversary.replayed(at) == pytest.approx(adversary.delta(at), rel=1e-9, abs=1e-15)


def test_the_best_policy_is_that_of_trying_everything() -> None:
    assert Adversary.alike(1.0, 3, 8).delta(0.9) == pytest.approx(every_offset((1,) * 3, 0.9, 8))
    assert Adversary((4, 8), 0.1).delta(0.3) >= every_offset((0.4, 0.8), 0.3, 4) - 1e-12


# -- Gaussians -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mu", ["0.02", "0.3", "1", "4", "9"])
def test_gaussians_against_fifty_digits(mu: str) -> None:
    price = curve(Gaussian(Fraction(1), Fraction(mu)))
    for epsilon in (0.0, 0.1, 1.0, 3.0, 12.0):
        exact = gaussian_delta(float(mu), epsilon)
        assert exact <= price.delta(epsilon) * FLOAT
        assert price.delta(epsilon) <= exact * (1 + 1e-4) + 1e-15


# -- Laplace ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", ["0.1", "0.5", "1", "2"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_laplace_answers_against_exact_sums(ratio: str, count: int) -> None:
    price = curve(Repeat(Laplace(1 / Fraction(ratio)), count))
    total = float(ratio) * count
    for epsilon in np.linspace(0, total, 7)[:-1]:
        exact = laplace_delta(float(ratio), count, float(epsilon))
        assert exact <= price.delta(float(epsilon)) * FLOAT + TINY
    for delta in (1e-2, 1e-5):
        exact = falling_root(lambda e, d=delta: laplace_delta(float(ratio), count, e), delta)
        assert close(exact, price.epsilon(delta), exact)
    assert price.epsilon(1e-11) <= total * 1.001


def test_the_sensitivity_of_a_laplace_answer_scales_its_loss() -> None:
    wide = curve(Repeat(Laplace(Fraction(6), Fraction(3)), 4))
    assert wide.epsilon(1e-6) == pytest.approx(curve(Repeat(Laplace(Fraction(2)), 4)).epsilon(1e-6))


def test_fifty_laplace_answers_against_losses_rounded_down() -> None:
    price = curve(Repeat(Laplace(Fraction(10)), 50)).epsilon(1e-5)
    down, up = (rounded(laplace_law(0.1), -0.1, 0.1, 2e-5, side) for side in (False, True))
    assert down.composed_delta(50, price)[0] <= 1e-5
    assert up.composed_delta(50, price / 1.001)[0] > 1e-5


@pytest.mark.parametrize(("scale", "shift", "count"), [("1", 1, 1), ("2", 3, 4), ("10", 1, 50)])
def test_discrete_laplace_answers_against_their_exact_losses(
    scale: str, shift: int, count: int
) -> None:
    price = curve(Repeat(DiscreteLaplace(Fraction(scale), shift), count))
    exact = discrete_laplace(float(scale), shift).often(count)
    for epsilon in np.linspace(0, shift / float(scale) * count, 9)[:-1]:
        assert exact.delta(float(epsilon)) <= price.delta(float(epsilon)) * FLOAT + TINY
    for delta in (1e-2, 1e-6):
        root = falling_root(exact.delta, delta)
        assert close(root, price.epsilon(delta), root)


# -- discrete Gaussians ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigma2", "shift", "count"), [("1", 1, 1), ("1/2", 1, 5), ("9", 2, 4), ("25", 1, 1)]
)
def test_discrete_gaussians_against_their_lattice(sigma2: str, shift: int, count: int) -> None:
    price = curve(Repeat(DiscreteGaussian(Fraction(sigma2), shift * shift), count))
    exact = discrete_gaussian(float(Fraction(sigma2)), shift).often(count)
    for delta in (1e-2, 1e-5, 1e-8):
        low = falling_root(exact.delta, delta)
        high = falling_root(exact.delta_above, delta)
        assert close(low, price.epsilon(delta), high)


# -- Poisson-sampled Gaussians ---------------------------------------------------------------------


@pytest.mark.parametrize("group", [1, 2, 5])
@pytest.mark.parametrize(("rate", "sigma"), [("1/10", "4/5"), ("1/2", "2"), ("1/20", "1")])
def test_one_sampled_step_against_its_threshold(rate: str, sigma: str, group: int) -> None:
    """Both directions, and units whose records are each sampled by themselves."""
    price = curve(SubsampledGaussian(Fraction(rate), Fraction(sigma), 1, group))
    laws = [
        Sampled(float(Fraction(rate)), float(Fraction(sigma)), removed, group)
        for removed in (True, False)
    ]
    for epsilon in (0.0, 0.01, 0.1, 0.5, 1.5):
        exact = max(law.one_step(epsilon) for law in laws)
        assert exact <= price.delta(epsilon) * FLOAT + TINY
        assert price.delta(epsilon) <= exact * 1.01 + 1e-8


@pytest.mark.parametrize(
    ("rate", "sigma", "steps", "group", "epsilon", "step"),
    [
        ("1/50", "1", 300, 1, 1.5, 2e-5),
        ("1/100", "1", 10_000, 1, 6.187, 2e-5),
        ("1/100", "1", 10_000, 1, 9.5, 2e-5),
        ("1/4", "5", 500, 1, 5.68, 1e-4),
        ("1/100", "2", 200, 3, 0.4, 1e-4),
        ("1", "20", 50, 1, 1.0, 1e-4),
    ],
)
def test_many_sampled_steps_against_brackets(
    rate: str, sigma: str, steps: int, group: int, epsilon: float, step: float
) -> None:
    price = curve(SubsampledGaussian(Fraction(rate), Fraction(sigma), steps, group))
    low, high = sampled_brackets(
        float(Fraction(rate)), float(Fraction(sigma)), steps, epsilon, step, group
    )
    assert low <= price.delta(epsilon)
    set_aside = 1e-12 + 5e-16 * (steps + 1)  # for rounding
    assert price.delta(epsilon) <= high * 1.01 + set_aside


@pytest.mark.parametrize(("rate", "sigma", "steps"), [(0.02, 1.0, 1000), (0.005, 0.7, 4000)])
def test_many_sampled_steps_against_a_peer(rate: float, sigma: float, steps: int) -> None:
    price = curve(SubsampledGaussian(Fraction(str(rate)), Fraction(str(sigma)), steps))
    theirs = peer(rate, sigma, steps).get_epsilon_for_delta(1e-5)
    assert theirs * 0.998 <= price.epsilon(1e-5) <= theirs * 1.001


def test_a_group_of_sampled_records_costs_more_than_one_and_less_than_certain_sampling() -> None:
    def price(group: int) -> float:
        event = SubsampledGaussian(Fraction(1, 20), Fraction(2), 50, group)
        return curve(event).epsilon(1e-6)

    assert price(1) < price(2) < price(4)
    together = curve(Gaussian(Fraction(2), Fraction(4)))
    assert price(4) < curve(Repeat(Gaussian(Fraction(2), Fraction(4)), 50)).epsilon(1e-6)
    assert price(4) < 50 * together.epsilon(1e-6)


# -- choices ---------------------------------------------------------------------------------------

CHOICES = [
    ("0.3", 50, 16, (1e-2, 1e-5)),
    ("1", 10, 64, (1e-2, 1e-6)),
    ("1", 3, 128, (1e-1, 1e-4)),
    ("4", 3, 128, (1e-1, 1e-3)),
    ("0.1", 100, 8, (1e-3, 1e-9)),
]


@pytest.mark.parametrize(("epsilon", "count", "parts", "deltas"), CHOICES)
def test_choices_cost_what_the_best_policy_gains_and_less_than_in_zcdp(
    epsilon: str, count: int, parts: int, deltas: tuple[float, ...]
) -> None:
    price = curve(Repeat(Exponential(Fraction(epsilon)), count))
    attack = Adversary.alike(float(epsilon), count, parts)
    for delta in deltas:
        at = price.epsilon(delta)
        gain = attack.delta(at)
        assert gain <= delta * FLOAT
        assert gain >= 0.85 * delta, "far from what any adversary attains"
        assert at <= concentrated(float(epsilon) ** 2 / 8 * count, delta)


def concentrated(rho: float, delta: float) -> float:
    """Return zCDP's epsilon by Canonne, Kamath and Steinke (2020), on a plain grid of orders."""
    order = 1 + np.geomspace(1e-4, 1e7, 200_001)
    bound = rho * order + np.log1p(-1 / order) - (math.log(delta) + np.log(order)) / (order - 1)
    return float(bound.min())


@pytest.mark.parametrize(
    "order",
    [
        (3, 10),
        (10, 3),
        (3, 3, 10, 10),
        (10, 10, 3, 3),
        (3, 10, 3, 10),
        (10, 3, 3, 3, 10, 3),
        (3, 10, 3, 3, 3, 10, 3),
        (5, 2, 7, 2, 5),
        (2, 3, 4, 7, 8, 9),
    ],
)
def test_choices_of_several_ranges_in_any_order(order: tuple[int, ...]) -> None:
    """The small range before the large one gains up to 7 % more than after it."""
    fine = 8
    attack = Adversary(tuple(w * fine for w in order), 0.1 / fine)
    price = curve(Sequence(tuple(Exponential(Fraction(w, 10)) for w in order)))
    for at in np.linspace(0.0, 0.1 * sum(order), 9)[:-1]:
        gain = attack.delta(float(at))
        assert gain <= price.delta(float(at)) * FLOAT + TINY
        assert price.delta(float(at)) <= gain * 1.12 + 1e-3


def test_choices_of_several_ranges_in_nested_plans() -> None:
    """However deep a choice stands, it counts."""
    small, large = Exponential(Fraction(3, 10)), Exponential(Fraction(1))
    inner = Sequence((small, Repeat(large, 2)))
    nested = curve(Sequence((Repeat(inner, 2), small, Sequence((large,)))))
    order = (3, 10, 10, 3, 10, 10, 3, 10)
    attack = Adversary(tuple(w * 8 for w in order), 0.1 / 8)
    flat = curve(Sequence(tuple(Exponential(Fraction(w, 10)) for w in order)))
    for at in (0.0, 0.5, 1.5, 3.0):
        assert attack.delta(at) <= nested.delta(at) * FLOAT + TINY
        assert nested.delta(at) == pytest.approx(flat.delta(at), rel=1e-9)


@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-9])
def test_choices_after_a_gaussian_was_seen(delta: float) -> None:
    """Sixteen choices with a tenth of the budget: the plan of the issue."""
    noise = Gaussian(Fraction(1), Fraction("0.17292362"))
    event = Sequence((Repeat(Exponential(Fraction("0.0865")), 16), noise))
    at = curve(event).epsilon(delta)
    gain = Adversary.alike(0.0865, 16, 16, 0.17292362, 400).delta(at)
    assert 0.85 * delta <= gain <= delta


def steps_of(epsilons: tuple[float, ...], mu: float, moves: int = 1) -> list[Step]:
    """Return choices with a Gaussian answer after each, every one adapting to what was seen."""
    steps: list[Step] = []
    for epsilon in epsilons:
        steps.append(lambda rng, e=epsilon: choice_laws(rng, e, int(rng.integers(2, 5)), moves))
        if mu:
            steps.append(lambda rng: normal_laws(mu, 4))
    return steps


@pytest.mark.parametrize("epsilons", [(1.0,), (0.5, 2.0), (2.0, 0.5), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("mu", ["0", "0.5"])
def test_no_exponential_mechanism_over_scores_exceeds_its_price(
    epsilons: tuple[float, ...], mu: str
) -> None:
    parts: list[Event] = [Exponential(Fraction(str(e))) for e in epsilons]
    if float(mu):
        parts += [Gaussian(Fraction(1), Fraction(mu))] * len(epsilons)
    price = curve(Sequence(tuple(parts)))
    at = np.linspace(0.0, sum(epsilons) + 2 * float(mu), 8)
    bounds = [price.delta(float(e)) for e in at]
    rng = np.random.default_rng(len(epsilons))
    nearest = 0.0
    for _ in range(60):
        law = transcripts(rng, steps_of(epsilons, float(mu)))
        for e, bound in zip(at, bounds, strict=True):
            for pair in (law, law.swapped()):
                gain = pair.delta(float(e))
                assert gain <= bound * FLOAT + TINY
                nearest = max(nearest, gain / bound if bound > 1e-9 else 0.0)
    assert nearest > 0.3, "the attacks are too weak to test anything"


def test_a_group_of_units_moves_scores_by_as_many() -> None:
    price = curve(for_group(Repeat(Exponential(Fraction(1, 2)), 2), 3))
    rng = np.random.default_rng(3)
    for _ in range(60):
        law = transcripts(rng, steps_of((0.5, 0.5), 0.0, moves=3))
        for e in (0.0, 0.5, 1.5):
            assert law.delta(e) <= price.delta(e) * FLOAT + TINY


# -- groups, and parts -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("kind", ["laplace", "gaussian"])
def test_a_group_is_never_priced_below_brute_force(size: int, kind: str) -> None:
    """Every way in which so many units can move one integer, or two."""
    laplace = kind == "laplace"
    one: Event = DiscreteLaplace(Fraction(3)) if laplace else DiscreteGaussian(Fraction(4))

    def moved_by(shift: int) -> Finite:
        return discrete_laplace(3.0, shift) if laplace else discrete_gaussian(4.0, shift)

    single, twice = curve(for_group(one, size)), curve(for_group(Repeat(one, 2), size))
    for shift in range(1, size + 1):
        for epsilon in (0.0, 0.3, 0.8, 1.2):
            assert moved_by(shift).delta(epsilon) <= single.delta(epsilon) * FLOAT + TINY
        for second in range(1, size + 1):
            pair = moved_by(shift).times(moved_by(second))
            for epsilon in (0.0, 0.5, 1.5):
                assert pair.delta(epsilon) <= twice.delta(epsilon) * FLOAT + TINY


def test_a_group_spread_over_parallel_parts_pays_for_each() -> None:
    """Two units, one in each part: both parts' answers move."""
    part = DiscreteLaplace(Fraction(2))
    price = curve(for_group(Parallel((part, part)), 2))
    both = discrete_laplace(2.0, 1).often(2)
    alone = discrete_laplace(2.0, 2)
    for epsilon in (0.0, 0.3, 0.8):
        exact = max(both.delta(epsilon), alone.delta(epsilon))
        assert exact <= price.delta(epsilon) * FLOAT + TINY


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 2.5])
def test_dividing_gaussian_noise_adaptively_gains_nothing_over_all_at_once(epsilon: float) -> None:
    gain = divided_gaussian(1.0, 4, 3, 16, epsilon)
    assert 0.8 * gaussian_delta(1.0, epsilon) < gain <= gaussian_delta(1.0, epsilon) * FLOAT
