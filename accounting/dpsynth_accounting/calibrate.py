"""The most precise plan that a budget allows, always found from the safe side."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting.curves import curve
from dpsynth_accounting.events import Event

_TIGHT = 1e-4  # relative width at which the search over the scale stops


def calibrate(plan: Callable[[float], Event], epsilon: float, delta: float) -> Event:
    """Return ``plan(scale)`` for the greatest scale whose certified price is within budget.

    Args:
        plan: Maps a positive scale, the total squared precision mu^2, to an event whose price
            rises with the scale.
        epsilon: Greatest epsilon, at ``delta``.
        delta: The delta at which epsilon holds.

    Returns:
        An event with ``curve(event).epsilon(delta) <= epsilon``.

    Raises:
        InvalidRequest: No scale meets the budget, for instance since parts of the plan with a
            fixed cost already exceed it.
    """

    def fits(scale: float, *, losses: bool, interval: float) -> bool:
        price = curve(plan(scale), interval=interval, losses=losses)
        return price.epsilon(delta) <= epsilon

    coarse = max(1e-4, epsilon / 2000)
    fine = max(1e-4, epsilon / 10_000)
    low, high = _bracket(lambda s: fits(s, losses=False, interval=coarse), epsilon)
    low = _bisect(lambda s: fits(s, losses=False, interval=coarse), low, high, _TIGHT)
    # Privacy-loss distributions can only allow more: search upwards from what is already safe.
    top = 1.6 * low
    best = _bisect(lambda s: fits(s, losses=True, interval=coarse), low, top, 4 * _TIGHT)
    if fits(best * (1 + 8 * _TIGHT), losses=True, interval=fine):
        best *= 1 + 8 * _TIGHT
    event = plan(best)
    if curve(event, interval=fine).epsilon(delta) > epsilon:
        event = plan(low)
    return event


def _bracket(fits: Callable[[float], bool], epsilon: float) -> tuple[float, float]:
    """Return a scale that fits and one that does not."""
    scale = epsilon * epsilon / 40
    for _ in range(80):
        if fits(scale):
            break
        scale /= 4
    else:
        raise InvalidRequest(
            "A plan was to be fitted into a budget.",
            "Its fixed parts alone, or its delta, exceed what the budget allows.",
            "Raise delta or epsilon, or ask for less in one plan.",
        )
    top = scale * 4
    while fits(top):
        scale, top = top, top * 4
        if top > 1e12:
            break
    return scale, top


def _bisect(fits: Callable[[float], bool], low: float, high: float, width: float) -> float:
    """Return the greatest scale found to fit, given that ``low`` does."""
    while high / low > 1 + width:
        middle = math.sqrt(low * high)
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def rational_up(value: float, denominator: int = 1 << 12) -> Fraction:
    """Return the least fraction over ``denominator`` that is at least ``value``.

    >>> rational_up(0.3, 10)
    Fraction(3, 10)
    """
    return Fraction(math.ceil(Fraction(str(value)) * denominator), denominator)


def rational_down(value: float, denominator: int = 1 << 20) -> Fraction:
    """Return the greatest positive fraction over ``denominator`` that is at most ``value``."""
    return Fraction(max(1, math.floor(Fraction(value) * denominator)), denominator)
