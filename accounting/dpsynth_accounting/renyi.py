"""Renyi and zero-concentrated views of an event, and their conversions to (epsilon, delta).

A Renyi divergence of order a bounds a moment of the privacy loss; rho-zCDP bounds all orders by
a * rho (Bun and Steinke 2016, Definition 1.1). Both add up, also under adaptive parameters, which
is what the filters in :mod:`dpsynth_accounting.filters` rest on.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np

from dpsynth_accounting import _special as special
from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting._loss import Array
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

_SECOND_ORDERS = (*range(2, 12), *range(12, 40, 4), 48, 64, 96, 128, 192, 256)
"""Where the bound on ranks of a selection is looked for."""


def rho(event: Event) -> Fraction | None:
    """Return the zCDP cost of an event, or None where it has no finite one.

    Deltas of :class:`ApproxDP` leaves are not part of it.

    Discrete Gaussian: Canonne, Kamath, Steinke (2020), Theorem 14. Bounded range: Cesar and
    Rogers (2021), Lemma 3.4 (epsilon^2 / 8). Pure epsilon: Bun and Steinke (2016), Prop. 1.4.
    """
    match event:
        case Gaussian(sigma, sensitivity):
            return Fraction(sensitivity * sensitivity / (sigma * sigma)) / 2
        case DiscreteGaussian(sigma2, l2_squared, _):
            return Fraction(l2_squared / sigma2) / 2
        case GaussianBlock(precision):
            return Fraction(precision) / 2
        case Laplace(scale, sensitivity) | DiscreteLaplace(scale, sensitivity):
            return Fraction(sensitivity / scale) ** 2 / 2
        case Exponential(epsilon):
            return Fraction(epsilon * epsilon) / 8
        case ApproxDP(epsilon, _):
            return Fraction(epsilon * epsilon) / 2
        case Concentrated(rho_):
            return Fraction(rho_)
        case SubsampledGaussian() | RepeatAndSelect():
            return None
        case Repeat(inner, count):
            each = rho(inner)
            return None if each is None else each * count
        case Sequence(events):
            found = [rho(each) for each in events]
            return (
                sum((r for r in found if r is not None), Fraction(0))
                if all(r is not None for r in found)
                else None
            )
        case Parallel(events):
            found = [rho(each) for each in events]
            return (
                max(r for r in found if r is not None)
                if all(r is not None for r in found)
                else None
            )


def rdp(event: Event, order: int) -> float:
    """Return the Renyi divergence of a whole order from 2 on that an event costs at most.

    Deltas of :class:`ApproxDP` leaves are not part of it.

    Raises:
        InvalidRequest: The order is not a whole number from 2 on, or a sampled group has more
            than one record (its moments are not proved here).
    """
    if not isinstance(order, int) or isinstance(order, bool) or order < 2:
        raise InvalidRequest(
            f"A Renyi divergence of order {order} was asked for.",
            "Orders are whole numbers from 2 on.",
            "Use 16, for instance.",
        )
    match event:
        case SubsampledGaussian(rate, sigma, steps, group):
            if group > 1:
                raise InvalidRequest(
                    "A Renyi divergence was asked for a sampled group of several records.",
                    "Its moments are proved for one record only.",
                    "Sample and clip units as a whole, or use its curve.",
                )
            return steps * _subsampled(float(rate), float(sigma), order)
        case Laplace(scale, sensitivity):
            return _laplace(float(sensitivity / scale), order)
        case ApproxDP(epsilon, _):
            return min(float(epsilon), order * float(epsilon) ** 2 / 2)
        case DiscreteLaplace(scale, sensitivity):
            pure = float(sensitivity / scale)
            return min(pure, order * pure * pure / 2)
        case Repeat(inner, count):
            return count * rdp(inner, order)
        case Sequence(events):
            return math.fsum(rdp(each, order) for each in events)
        case Parallel(events):
            return max(rdp(each, order) for each in events)
        case Exponential(epsilon):
            return min(float(epsilon), order * float(epsilon) ** 2 / 8)
        case RepeatAndSelect(events, stop):
            return _selected(events, float(stop), order)
        case _:
            return order * float(rho(event) or 0)


def _subsampled(rate: float, sigma: float, order: int) -> float:
    """Return one step's divergence (Mironov, Talwar, Zhang 2019, section 3.3)."""
    if rate == 1.0:
        return order / (2 * sigma * sigma)
    k = np.arange(order + 1, dtype=np.float64)
    logs = (
        special.gammaln(order + 1)
        - special.gammaln(k + 1)
        - special.gammaln(order - k + 1)
        + k * math.log(rate)
        + (order - k) * math.log1p(-rate)
        + k * (k - 1) / (2 * sigma * sigma)
    )
    # What rounding the terms can take away, which for a tiny rate is more than all there is.
    lost = 1e-15 * (1 + float(special.gammaln(order + 1)) + order * order / (2 * sigma * sigma))
    return max(0.0, float(special.logsumexp(logs)) + lost) / (order - 1)


def _selected(events: tuple[Event, ...], stop: float, order: int) -> float:
    """Return the divergence of the best of a geometric number of runs.

    Papernot and Steinke (2022), Theorem 2, for eta = 1: any second order bounds how ranks differ.
    """

    def worst(at: int) -> float:
        return max(rdp(each, at) for each in events)

    if stop == 1:
        return worst(order)
    rare = -math.log(stop)
    ranks = min(2 * (1 - 1 / at) * worst(at) + 2 * rare / at for at in _SECOND_ORDERS)
    return float((worst(order) + ranks + rare / (order - 1)) * (1 + 1e-12))


def _laplace(epsilon: float, order: int) -> float:
    """Return the divergence of Laplace noise (Mironov 2017, Proposition 6)."""
    logs = np.array([(order - 1) * epsilon, -order * epsilon])
    weights = np.array([order, order - 1]) / (2 * order - 1)
    lost = 1e-15 * (1 + order * epsilon)  # to rounding
    exact = (float(special.logsumexp(logs, b=weights)) + lost) / (order - 1)
    return min(exact, epsilon, order * epsilon * epsilon / 2)


@lru_cache(maxsize=1)
def _orders() -> tuple[Array, Array]:
    """Return orders to convert at, and ln(1 - 1 / order) of each."""
    order = 1.0 + np.exp(np.linspace(-7.0, 14.0, 4000))
    return order, np.log1p(-1.0 / order)


def zcdp_to_approx_dp(rho: float, delta: float) -> float:
    """Return epsilon at ``delta`` of rho-zCDP (Canonne, Kamath, Steinke 2020, Prop. 12)."""
    order, shrink = _orders()
    bounds = order * rho + shrink - (math.log(delta) + np.log(order)) / (order - 1)
    return max(0.0, float(bounds.min()))


def zcdp_to_deltas(rho: float, epsilon: Array) -> Array:
    """Return delta at each epsilon of rho-zCDP (Canonne, Kamath, Steinke 2020, Prop. 12)."""
    order, shrink = _orders()
    fixed = (order - 1) * (order * rho) - np.log(order - 1) + order * shrink
    least = np.array([float((fixed - (order - 1) * each).min()) for each in epsilon])
    return np.asarray(np.exp(np.minimum(least, 0.0)))


def zcdp_to_approx_dp_bun_steinke(rho: float, delta: float) -> float:
    """Return epsilon at ``delta`` of rho-zCDP by the older and looser conversion.

    Bun and Steinke (2016), Proposition 1.3: rho + 2 sqrt(rho ln(1 / delta)). For comparison only.
    """
    return rho + 2 * math.sqrt(rho * -math.log(delta))


def rdp_to_approx_dp(divergence: float, order: int, delta: float) -> float:
    """Return epsilon at ``delta`` of one Renyi divergence (CKS 2020, Prop. 12)."""
    return max(
        0.0,
        divergence + math.log1p(-1.0 / order) - (math.log(delta) + math.log(order)) / (order - 1),
    )
