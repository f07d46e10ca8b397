"""Other accountants' records as events, and events as theirs.

What is read here was spent elsewhere, and nothing here can tell whether it was: it is meant for
:meth:`~dpsynth_accounting.Account.declare`, which counts it and cannot enforce it. None of these
records names its unit of privacy, and most do not name their adjacency: whoever declares them does.

Numbers are read as the decimals they print as. ``docs/how-to/declare.md`` has an example of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Several
from fractions import Fraction
from typing import Any, NoReturn

from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting.budget import ADJACENCY, Number, exact
from dpsynth_accounting.calibrate import rational_up
from dpsynth_accounting.curves import curve
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

NOTHING = Sequence(())
"""What touches no row."""


def from_opacus_history(history: Several[Several[Number]] | Mapping[str, Any]) -> Event:
    """Return the event of an Opacus accountant's history.

    Args:
        history: ``accountant.history``: (noise multiplier, sample rate, steps) each; or
            ``accountant.state_dict()``, or either as read back from JSON.

    Returns:
        One :class:`SubsampledGaussian` a line. It is true only of a loader that samples every
        record by itself (``poisson_sampling=True``), under adding or removing one record.

    Raises:
        InvalidRequest: The history is not one, or a line of it had no noise.
    """
    lines = history.get("history") if isinstance(history, Mapping) else history
    if not isinstance(lines, Several) or isinstance(lines, str):
        _refuse_history()
    found: list[Event] = []
    for line in lines:
        if not isinstance(line, Several) or isinstance(line, str) or len(line) != 3:
            _refuse_history()
        noise, rate, steps = exact(line[0]), exact(line[1]), exact(line[2])
        if noise <= 0:
            raise InvalidRequest(
                "An Opacus history was to be read.",
                "It has steps without noise, which no epsilon covers.",
                "Declare only training whose noise multiplier was above 0 throughout.",
            )
        if not 0 <= rate <= 1 or steps < 0 or steps.denominator != 1:
            _refuse_history()
        if steps and rate:
            found.append(SubsampledGaussian(rate, noise, int(steps)))
    return found[0] if len(found) == 1 else Sequence(tuple(found))


def _refuse_history() -> NoReturn:
    raise InvalidRequest(
        "An Opacus history was to be read.",
        "It must be a list of (noise multiplier, sample rate, steps), each a number.",
        "Save `accountant.state_dict()`, or its `history`, as JSON.",
    )


def adjacency_of(relation: Any) -> str:
    """Return our name of a ``dp_accounting.NeighboringRelation``, or refuse it.

    Raises:
        InvalidRequest: The relation is not adding or removing one.
    """
    name = getattr(relation, "name", str(relation))
    if name != "ADD_OR_REMOVE_ONE":
        raise InvalidRequest(
            f"A spend under the neighbouring relation {name} was to be declared.",
            "An account adds up what holds when one unit is added or removed; another relation's "
            "epsilon does not bound that.",
            "Account for the same run under ADD_OR_REMOVE_ONE and declare that.",
        )
    return ADJACENCY


def from_dp_event(event: Any, relation: Any = "ADD_OR_REMOVE_ONE") -> Event:
    """Return the event that a ``dp_accounting.DpEvent`` describes.

    Args:
        event: Gaussian, Laplace, discrete Laplace, Poisson-sampled Gaussian, zCDP (xi = 0), no-op,
            and compositions of these.
        relation: The ``dp_accounting.NeighboringRelation`` that the event's sensitivities were
            stated for.

    Raises:
        InvalidRequest: Another event, named; a non-private one too. Or another relation.
    """
    from dp_accounting import dp_event as theirs

    adjacency_of(relation)
    match event:
        case theirs.NoOpDpEvent():
            return NOTHING
        case theirs.GaussianDpEvent():
            return Gaussian(_noise(event, event.noise_multiplier))
        case theirs.LaplaceDpEvent():
            return Laplace(_noise(event, event.noise_multiplier))
        case theirs.DiscreteLaplaceDpEvent():
            rate = _noise(event, event.noise_parameter)
            return DiscreteLaplace(1 / rate, _whole(event, event.sensitivity))
        case theirs.ZCDpEvent() if event.xi == 0:
            return Concentrated(exact(event.rho))
        case theirs.PoissonSampledDpEvent() if isinstance(event.event, theirs.GaussianDpEvent):
            rate = exact(event.sampling_probability)
            noise = _noise(event.event, event.event.noise_multiplier)
            return SubsampledGaussian(rate, noise, 1) if rate else NOTHING
        case theirs.SelfComposedDpEvent():
            return _repeated(from_dp_event(event.event, relation), _whole(event, event.count))
        case theirs.ComposedDpEvent():
            return Sequence(tuple(from_dp_event(each, relation) for each in event.events))
        case _:
            return _refuse_event(_name(event))


def _repeated(event: Event, count: int) -> Event:
    if count == 0:
        return NOTHING
    if isinstance(event, SubsampledGaussian):
        return SubsampledGaussian(event.rate, event.sigma, event.steps * count, event.group)
    return event if count == 1 else Repeat(event, count)


def _name(event: Any) -> str:
    inner = getattr(event, "event", None)
    return type(event).__name__ + (f" of {_name(inner)}" if inner is not None else "")


def _refuse_event(name: str) -> NoReturn:
    raise InvalidRequest(
        f"A {name} was to be read as an event.",
        "dpsynth has no event that is at least as strong and proved.",
        "Declare it as (epsilon, delta), priced by the accountant that knows it.",
    )


def _noise(event: Any, value: Number) -> Fraction:
    noise = exact(value)
    if noise <= 0:
        raise InvalidRequest(
            f"A {type(event).__name__} without noise was to be read as an event.",
            "No epsilon covers an answer without noise.",
            "Leave it out only if what it answered is public.",
        )
    return noise


def _whole(event: Any, value: Number) -> int:
    number = exact(value)
    if number.denominator != 1 or number < 0:
        _refuse_event(f"{type(event).__name__} with a fraction of a count")
    return int(number)


def from_diffprivlib(accountant: Any) -> Event:
    """Return the event of what a ``diffprivlib.BudgetAccountant`` has spent.

    Args:
        accountant: Its ``spent_budget`` and ``slack`` are read; diffprivlib need not be installed.

    Returns:
        The spent (epsilon, delta) pairs, one after another, and the slack as a delta of its own,
        as diffprivlib's total counts it.

    Raises:
        InvalidRequest: It is no such accountant, or a spend has no finite epsilon.
    """
    spent, slack = getattr(accountant, "spent_budget", None), getattr(accountant, "slack", None)
    if not isinstance(spent, Iterable) or slack is None:
        raise InvalidRequest(
            "A diffprivlib accountant was to be read.",
            f"A {type(accountant).__name__} has no spent_budget and slack.",
            "Give the BudgetAccountant that the functions were called with.",
        )
    pairs: list[Event] = [_pair(epsilon, delta) for epsilon, delta in spent]
    if exact(slack):
        pairs.append(_pair(0, slack))
    return Sequence(tuple(pairs))


def _pair(epsilon: Number, delta: Number) -> ApproxDP:
    return ApproxDP(exact(epsilon), exact(delta))


def least_epsilon(event: Event, delta: Number) -> Fraction:
    """Return the least epsilon, rounded up, that an event may be declared at with ``delta``.

    Raises:
        InvalidRequest: No epsilon covers the event at that delta.
    """
    price = curve(event).epsilon(exact(delta))
    if not math.isfinite(price):
        raise InvalidRequest(
            "An event was to be priced.",
            "No finite epsilon covers it at that delta: parts of it have a delta of their own.",
            "Give a larger delta.",
        )
    return max(rational_up(price, 1 << 20), Fraction(1, 1 << 20))


def own_delta(event: Event) -> tuple[Event, Fraction]:
    """Return an event without its (0, delta) leaves, and the sum of their deltas.

    The event is (epsilon, delta + sum)-private wherever the rest is (epsilon, delta)-private:
    plans of dpsynth carry such leaves for the distance of their samplers.

    >>> own_delta(Sequence((Exponential(Fraction(1)), ApproxDP(Fraction(0), Fraction(1, 8)))))[1]
    Fraction(1, 8)
    """
    match event:
        case ApproxDP(epsilon, delta) if epsilon == 0:
            return NOTHING, delta
        case Repeat(inner, count):
            rest, delta = own_delta(inner)
            return (rest if rest == NOTHING else Repeat(rest, count)), count * delta
        case Sequence(events):
            parts = [own_delta(each) for each in events]
            kept = tuple(rest for rest, _ in parts if rest != NOTHING)
            return Sequence(kept), sum((delta for _, delta in parts), Fraction(0))
        case _:
            # Within Parallel too: the greatest delta counts there, and the whole is kept.
            return event, Fraction(0)


def to_dp_event(event: Event) -> Any:
    """Return a ``dp_accounting.DpEvent`` that is the event, or dominates it.

    Exact: Gaussian, Laplace, discrete Laplace, subsampled Gaussian (a mixture of Gaussians for
    groups), zCDP, and compositions.

    Upper bounds, as ``ZCDpEvent``, which dp_accounting's RDP accountant prices and its PLD
    accountant does not: a discrete Gaussian and a Gaussian block by the rho of their continuous
    twin (Canonne, Kamath, Steinke 2020, Theorem 14), an exponential mechanism by epsilon^2 / 8
    (Cesar and Rogers 2021, Lemma 3.4), a pure (epsilon, 0) event by epsilon^2 / 2 (Bun and Steinke
    2016, Proposition 1.4). Parallel events with unequal parts, and unequal runs of which one is
    selected, by all of them one after another.

    Raises:
        InvalidRequest: The event has a delta of its own: dp_accounting 0.6 has no event that holds
            one. :func:`own_delta` sets (0, delta) leaves aside.
    """
    from dp_accounting import dp_event as theirs

    match event:
        case Gaussian(sigma, sensitivity):
            return theirs.GaussianDpEvent(_float(sigma / sensitivity))
        case Laplace(scale, sensitivity):
            return theirs.LaplaceDpEvent(_float(scale / sensitivity))
        case DiscreteLaplace(scale, sensitivity):
            return theirs.DiscreteLaplaceDpEvent(_float(1 / scale, up=True), sensitivity)
        case SubsampledGaussian():
            return theirs.SelfComposedDpEvent(_one_step(event), event.steps)
        case DiscreteGaussian(sigma2, l2_squared, _):
            return theirs.ZCDpEvent(_float(l2_squared / sigma2 / 2, up=True))
        case GaussianBlock(precision, _, _):
            return theirs.ZCDpEvent(_float(precision / 2, up=True))
        case Exponential(epsilon):
            return theirs.ZCDpEvent(_float(epsilon * epsilon / 8, up=True))
        case Concentrated(rho):
            return theirs.ZCDpEvent(_float(rho, up=True))
        case ApproxDP(epsilon, delta):
            if delta:
                _refuse_delta()
            return theirs.ZCDpEvent(_float(epsilon * epsilon / 2, up=True))
        case Repeat(inner, count):
            return theirs.SelfComposedDpEvent(to_dp_event(inner), count)
        case Sequence(events):
            parts = [to_dp_event(each) for each in events]
            return theirs.ComposedDpEvent(parts) if parts else theirs.NoOpDpEvent()
        case Parallel(events):
            parts = [to_dp_event(each) for each in dict.fromkeys(events)]
            return parts[0] if len(parts) == 1 else theirs.ComposedDpEvent(parts)
        case RepeatAndSelect(events, stop):
            (first, *others) = [to_dp_event(each) for each in dict.fromkeys(events)]
            run = theirs.ComposedDpEvent([first, *others]) if others else first
            return theirs.RepeatAndSelectDpEvent(run, _float(1 / stop, up=True), 1.0)


def _refuse_delta() -> NoReturn:
    raise InvalidRequest(
        "An ApproxDP event with a delta of its own was to be exported.",
        "dp_accounting 0.6 has no event that holds a delta.",
        "Set (0, delta) leaves aside with own_delta and add their delta to the result.",
    )


def _one_step(event: SubsampledGaussian) -> Any:
    """Return one step of DP-SGD; a group's records join each by itself, so binomially many."""
    from dp_accounting import dp_event as theirs

    noise, rate, size = _float(event.sigma), _float(event.rate, up=True), event.group
    if size == 1:
        return theirs.PoissonSampledDpEvent(rate, theirs.GaussianDpEvent(noise))
    chances = [
        math.comb(size, j) * event.rate**j * (1 - event.rate) ** (size - j) for j in range(size + 1)
    ]
    return theirs.MixtureOfGaussiansDpEvent(
        noise, [float(j) for j in range(size + 1)], [float(chance) for chance in chances]
    )


def _float(value: Fraction, *, up: bool = False) -> float:
    """Return a float that prints as the value, else the nearest on the safe side of it."""
    nearest = float(value)
    if exact(nearest) == value:
        return nearest
    wrong = Fraction(nearest) < value if up else Fraction(nearest) > value
    return math.nextafter(nearest, math.inf if up else 0.0) if wrong else nearest
