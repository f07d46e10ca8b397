"""The most precise plan that a budget allows, always found from the safe side.

Every search runs on coarse prices and ends with the certified one: what is returned fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Many
from fractions import Fraction

from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting.budget import Budget, Number, exact
from dpsynth_accounting.curves import ACCURACY, curve
from dpsynth_accounting.events import Event, Sequence
from dpsynth_accounting.filters import ADDITIVE, Filter

_COARSE = 3e-3  # accuracy of the prices in a search
_FINEST = 2e-5  # relative width at which a search over a scale stops
_GREATEST = 1e12  # scale beyond which a search gives up: the plan's price does not rise


def calibrate(
    plan: Callable[[float], Event],
    epsilon: Number,
    delta: Number,
    *,
    filter: Filter = ADDITIVE,  # noqa: A002
    budget: Budget | None = None,
) -> Event:
    """Return ``plan(scale)`` for the greatest scale whose certified price is within budget.

    Args:
        plan: Maps a positive scale, the total squared precision mu^2, to an event whose price
            rises with the scale. Where it does not quite (a lattice of sigma2 below 5 or so can
            cost less with less noise) the result is as safe, and perhaps not the very greatest.
        epsilon: Greatest epsilon, at ``delta``.
        delta: The delta at which epsilon holds.
        filter: That of the account which will pay: the plan also fits what (epsilon, delta) may
            take under it.
        budget: The account's; needed for a filter that is not additive.

    Returns:
        An event with ``curve(event).epsilon(delta) <= epsilon``.

    Raises:
        InvalidRequest: No scale meets the budget, for instance since parts of the plan with a
            fixed cost already exceed it.
    """
    fits = _fitting(exact(epsilon), exact(delta), filter, budget)

    def excess(scale: float, accuracy: float) -> float:
        return fits(plan(scale), accuracy)

    scale = _greatest(excess, float(exact(epsilon)) ** 2 / 40)
    return plan(scale)


def least_noise(event_at: Callable[[Fraction], Event], epsilon: Number, delta: Number) -> Fraction:
    """Return the least noise parameter (sigma, or a scale) at which an event fits.

    Args:
        event_at: Maps the parameter to an event whose price falls as it rises.
        epsilon: Greatest epsilon, at ``delta``.
        delta: The delta at which epsilon holds.

    >>> from dpsynth_accounting import SubsampledGaussian
    >>> q = Fraction(1, 100)
    >>> round(float(least_noise(lambda s: SubsampledGaussian(q, s, 10_000), 3, 1e-5)), 3)
    1.565
    """
    fits = _fitting(exact(epsilon), exact(delta), ADDITIVE, None)

    def at(inverse: float) -> Fraction:
        return rational_up(1 / inverse, 1 << 24)

    def excess(inverse: float, accuracy: float) -> float:
        return fits(event_at(at(inverse)), accuracy)

    return at(_greatest(excess, float(exact(epsilon)) / 4))


def greatest_epsilon(
    event_at: Callable[[Fraction], Event], epsilon: Number, delta: Number
) -> Fraction:
    """Return the greatest parameter (the epsilon of a step, say) at which an event fits.

    Args:
        event_at: Maps the parameter to an event whose price rises with it.
        epsilon: Greatest epsilon of the whole, at ``delta``.
        delta: The delta at which epsilon holds.
    """
    fits = _fitting(exact(epsilon), exact(delta), ADDITIVE, None)

    def excess(value: float, accuracy: float) -> float:
        return fits(event_at(rational_down(value, 1 << 40)), accuracy)

    return rational_down(_greatest(excess, float(exact(epsilon))), 1 << 40)


def most_steps(event_at: Callable[[int], Event], epsilon: Number, delta: Number) -> int:
    """Return the greatest number of steps at which an event fits; 0 if not even one does.

    Args:
        event_at: Maps a number of steps, from 1 on, to an event whose price rises with it.
        epsilon: Greatest epsilon, at ``delta``.
        delta: The delta at which epsilon holds.
    """
    fits = _fitting(exact(epsilon), exact(delta), ADDITIVE, None)

    def search(low: int, high: int, accuracy: float) -> int:
        """Return the greatest step in [low, high) that fits, given that ``low`` does."""
        while high - low > 1:
            middle = (low + high) // 2
            if fits(event_at(middle), accuracy) <= 0:
                low = middle
            else:
                high = middle
        return low

    high = 1
    while fits(event_at(high), _COARSE) <= 0:
        high *= 2
        if high > _GREATEST:
            raise _impossible()
    about = search(0, high, _COARSE)
    # Coarse prices err upwards by little: the certified answer is at or just above.
    low, step = about, 1
    while low > 0 and fits(event_at(low), ACCURACY) > 0:
        low, step = max(0, low - step), 2 * step
    step = 1
    while fits(event_at(low + step), ACCURACY) <= 0:
        low, step = low + step, 2 * step
    return search(low, low + step, ACCURACY)


def split(
    parts: Many[tuple[float, Callable[[float], Event]]],
    epsilon: Number,
    delta: Number,
    *,
    fixed: Many[Event] = (),
    filter: Filter = ADDITIVE,  # noqa: A002
    budget: Budget | None = None,
) -> tuple[Event, ...]:
    """Split a budget over the parts of one plan, by weights of squared precision.

    Args:
        parts: Each a weight and a map from its own squared precision to an event.
        epsilon: Greatest epsilon of the whole, at ``delta``.
        delta: The delta at which epsilon holds.
        fixed: Events of the plan whose cost is not to be scaled; they are priced, not returned.
        filter: See :func:`calibrate`.
        budget: See :func:`calibrate`.

    Returns:
        One event for each part.
    """
    total = math.fsum(weight for weight, _ in parts)

    def plan(scale: float) -> Event:
        scaled = (event_at(scale * weight / total) for weight, event_at in parts)
        return Sequence((*scaled, *fixed))

    event = calibrate(plan, epsilon, delta, filter=filter, budget=budget)
    return event.events[: len(parts)] if isinstance(event, Sequence) else (event,)


def _fitting(
    epsilon: Fraction, delta: Fraction, by: Filter, budget: Budget | None
) -> Callable[[Event, float], float]:
    """Return how far an event is above what is allowed, as a log-ratio: at most 0 if it fits."""
    allowed = by.allowance(epsilon, delta)

    def excess(event: Event, accuracy: float) -> float:
        over = _log_ratio(curve(event, accuracy=accuracy).epsilon(delta), epsilon)
        if by == ADDITIVE:
            return over
        cost = by.cost(event, budget or Budget(epsilon, delta))
        if cost.delta > allowed.delta:
            return math.inf
        return max(over, _log_ratio(cost.cost, allowed.cost))

    return excess


def _log_ratio(value: float | Fraction, limit: Fraction) -> float:
    """Return ln(value / limit), above 0 exactly if the value is above the limit."""
    if math.isinf(value):
        return math.inf
    ratio = math.log(max(float(value), 1e-300) / float(limit))
    return max(ratio, 1e-15) if Fraction(value) > limit else min(ratio, 0.0)


def _greatest(excess: Callable[[float, float], float], start: float) -> float:
    """Return the greatest scale found whose certified excess is at most 0.

    Args:
        excess: How far a scale is above the limit, as a log-ratio, at a given accuracy.
        start: Where to begin.
    """
    about = _root(lambda s: excess(s, _COARSE), start, 0.05)
    return _root(lambda s: excess(s, ACCURACY), about, 1e-3)


def _root(excess: Callable[[float], float], start: float, least_step: float) -> float:
    """Return a scale at which a rising excess is at most 0, and by little.

    A bracket is found in steps that follow the excess, which is nearly linear in the logarithm of
    the scale, and closed by regula falsi. What is returned was itself tried.
    """
    low = high = math.log(start)
    at_low = at_high = excess(math.exp(low))
    for attempt in range(60):
        if at_low <= 0:
            break
        high, at_high = low, at_low
        low -= min(max(at_low, least_step) * 1.2**attempt, 4.0)
        at_low = excess(math.exp(low))
    else:
        raise _impossible()
    step = least_step
    while at_high <= 0:
        if at_high > -_FINEST:
            return math.exp(high)
        low, at_low = high, at_high
        high += min(max(-at_high, step), 4.0)
        step *= 2
        if math.exp(high) > _GREATEST:
            return math.exp(low)
        at_high = excess(math.exp(high))
    weight_low = weight_high = 1.0  # Illinois: an end that stays put loses weight
    while high - low > _FINEST and at_low <= -_FINEST:
        middle = (low + high) / 2
        if math.isfinite(at_high):
            # Aim a little below the limit, so that what is found counts.
            below = weight_low * (at_low + _FINEST / 2)
            above = weight_high * (at_high + _FINEST / 2)
            middle = (low * above - high * below) / (above - below)
        found = excess(math.exp(middle))
        if found <= 0:
            low, at_low, weight_low, weight_high = middle, found, 1.0, weight_high / 2
        else:
            high, at_high, weight_high, weight_low = middle, found, 1.0, weight_low / 2
    return math.exp(low)


def _impossible() -> InvalidRequest:
    return InvalidRequest(
        "A plan was to be fitted into a budget.",
        "Its fixed parts alone, or its delta, exceed what the budget allows.",
        "Raise delta or epsilon, or ask for less in one plan.",
    )


def rational_up(value: float | Fraction, denominator: int = 1 << 12) -> Fraction:
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
