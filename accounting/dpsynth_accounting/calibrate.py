"""The most precise plan that a budget allows, always found from the safe side."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting.curves import curve
from dpsynth_accounting.events import Event

_TIGHT = 1e-4  # relative width at which the search over the scale stops
_GREATEST = 1e12  # scale beyond which the search gives up: the plan's price does not rise


def calibrate(plan: Callable[[float], Event], epsilon: float, delta: float) -> Event:
    """Return ``plan(scale)`` for the greatest scale whose certified price is within budget.

    Args:
        plan: Maps a positive scale, the total squared precision mu^2, to an event whose price
            rises with the scale. Where it does not quite (a lattice of sigma2 below 5 or so can
            cost less with less noise) the result is as safe, and perhaps not the very greatest.
        epsilon: Greatest epsilon, at ``delta``.
        delta: The delta at which epsilon holds.

    Returns:
        An event with ``curve(event).epsilon(delta) <= epsilon``.

    Raises:
        InvalidRequest: No scale meets the budget, for instance since parts of the plan with a
            fixed cost already exceed it.
    """
    coarse = max(1e-4, epsilon / 2000)

    def cheap(scale: float) -> bool:
        return curve(plan(scale), interval=coarse, losses=False).epsilon(delta) <= epsilon

    def dear(scale: float) -> bool:
        return curve(plan(scale), interval=coarse).epsilon(delta) <= epsilon

    bracket = _bracket(cheap, epsilon, 80) or _bracket(dear, epsilon, 12)
    if bracket is None:
        raise _impossible()
    low = _bisect(cheap, *bracket, _TIGHT)
    # Privacy-loss distributions can only allow more: search upwards from what is already safe.
    top = 1.6 * low
    while top < _GREATEST and dear(top):
        low, top = top, 1.6 * top
    scale, step = _bisect(dear, low, top, 4 * _TIGHT), 8 * _TIGHT
    scale *= 1 + step
    for _ in range(40):
        # The same computation as by whoever verifies the charge later.
        event = plan(scale)
        if curve(event).epsilon(delta) <= epsilon:
            return event
        scale, step = scale / (1 + step), step * 1.3
    raise _impossible()


def _impossible() -> InvalidRequest:
    return InvalidRequest(
        "A plan was to be fitted into a budget.",
        "Its fixed parts alone, or its delta, exceed what the budget allows.",
        "Raise delta or epsilon, or ask for less in one plan.",
    )


def _bracket(
    fits: Callable[[float], bool], epsilon: float, tries: int
) -> tuple[float, float] | None:
    """Return a scale that fits and one that does not, or None where none was found to fit."""
    scale = epsilon * epsilon / 40
    for _ in range(tries):
        if fits(scale):
            break
        scale /= 4
    else:
        return None
    top = scale * 4
    while fits(top):
        scale, top = top, top * 4
        if top > _GREATEST:
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
    """Return the greatest fraction over ``denominator`` at most ``value``, but never 0.

    Below one ``denominator``-th it returns that, which is more than ``value``.
    """
    return Fraction(max(1, math.floor(Fraction(value) * denominator)), denominator)
