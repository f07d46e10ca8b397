"""Group privacy: what an event costs when several units move together.

Sensitivities are scaled. Multiplying epsilon by the size and leaving delta as it is would be wrong.
Proofs: ``docs/explanation/group-privacy.md``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting.calibrate import rational_up
from dpsynth_accounting.events import (
    ApproxDP,
    Concentrated,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    Exponential,
    Gaussian,
    GaussianBlock,
    Laplace,
    Parallel,
    Repeat,
    RepeatAndSelect,
    Sequence,
    SubsampledGaussian,
)


def for_group(event: Event, size: int) -> Event:
    """Return what ``event`` does to ``size`` units that join or leave together.

    Args:
        event: An event stated for one unit.
        size: Number of units in the group, at least 1.

    Raises:
        InvalidRequest: The size is not a natural number, or a declared delta grows beyond 1.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InvalidRequest(
            "Group privacy was asked for a group that has no whole number of units.",
            "A group has at least 1 unit.",
            "Give the greatest number of units that move together.",
        )
    match event:
        case Gaussian(sigma, sensitivity):
            return Gaussian(sigma, sensitivity * size)
        case DiscreteGaussian(sigma2, l2_squared, shifts):
            return DiscreteGaussian(sigma2, l2_squared * size * size, shifts * size)
        case Laplace(scale, sensitivity):
            return Laplace(scale, sensitivity * size)
        case DiscreteLaplace(scale, sensitivity):
            return DiscreteLaplace(scale, sensitivity * size)
        case SubsampledGaussian():
            return replace(event, group=event.group * size)
        case GaussianBlock(precision, least_sigma2, shifts):
            return GaussianBlock(precision * size * size, least_sigma2, shifts * size)
        case Exponential(epsilon):
            return Exponential(epsilon * size)
        case ApproxDP(epsilon, delta):
            return _approximate(epsilon, delta, size)
        case Concentrated(rho):
            return Concentrated(rho * size * size)
        case Repeat(inner, count):
            return Repeat(for_group(inner, size), count)
        case Sequence(events):
            return Sequence(tuple(for_group(each, size) for each in events))
        case Parallel(events):
            # The units of a group may fall into different parts, any number in each.
            return Sequence(tuple(for_group(each, size) for each in events))
        case RepeatAndSelect(events, stop):
            return RepeatAndSelect(tuple(for_group(each, size) for each in events), stop)


def _approximate(epsilon: Fraction, delta: Fraction, size: int) -> Event:
    """Chain the definition: delta * (1 + e^epsilon + ... + e^((size - 1) epsilon))."""
    if delta == 0:
        return ApproxDP(epsilon * size, delta)
    exponent = float(epsilon) * (size - 1)
    grown = Fraction(size)
    if epsilon > 0 and exponent < 700:
        terms = math.fsum(math.exp(float(epsilon) * j) for j in range(size))
        grown = rational_up(terms * (1 + 1e-12))
    if exponent >= 700 or delta * grown >= 1:
        raise InvalidRequest(
            f"Group privacy was asked for {size} units of an (epsilon, delta) event.",
            "Its delta, which grows with e^epsilon for each further unit, would reach 1.",
            "Ask for a smaller group, or use an event that names its mechanism.",
        )
    return ApproxDP(epsilon * size, delta * grown)
