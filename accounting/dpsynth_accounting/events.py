"""Events: what a mechanism does to private rows, as small frozen values.

An event is data, not behaviour: it has equality, a canonical JSON form and nothing else. The set is
closed, so every function that prices events is exhaustive. The meaning of an event and of its
fields never changes once released, since ledgers hold them for ever.

All parameters that carry a proof are exact rationals. Adjacency is *add or remove one unit*.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from dpsynth_accounting._errors import InvalidRequest


def _rational(*values: object) -> bool:
    """Say whether every value is an exact rational: a float would carry no proof."""
    return all(isinstance(v, int | Fraction) and not isinstance(v, bool) for v in values)


def _whole(*values: object) -> bool:
    return all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _require(condition: bool, asked: str, limit: str, instead: str) -> None:
    if not condition:
        raise InvalidRequest(asked, limit, instead)


@dataclass(frozen=True)
class Gaussian:
    """Continuous Gaussian noise on a vector whose L2 sensitivity is ``sensitivity``.

    Attributes:
        sigma: Standard deviation of the noise on each coordinate.
        sensitivity: Greatest L2 change one unit can make.
    """

    sigma: Fraction
    sensitivity: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        """Refuse scales that carry no guarantee."""
        _require(
            _rational(self.sigma, self.sensitivity) and self.sigma > 0 and self.sensitivity > 0,
            "A Gaussian event was asked for with an impossible scale.",
            "Both sigma and sensitivity must be rationals above 0.",
            "Give the noise's standard deviation and the L2 sensitivity.",
        )


@dataclass(frozen=True)
class DiscreteGaussian:
    """Independent discrete Gaussian noise N_Z(0, sigma2) on a vector of integers.

    One unit moves at most ``shifts`` coordinates, each by an integer, and the whole vector by at
    most the square root of ``l2_squared`` in L2 norm.

    Attributes:
        sigma2: The parameter sigma squared (Canonne, Kamath, Steinke 2020, Definition 1).
        l2_squared: Square of the L2 sensitivity, an integer since the vectors are.
        shifts: Greatest number of coordinates that one unit can move.
    """

    sigma2: Fraction
    l2_squared: int = 1
    shifts: int = 1

    def __post_init__(self) -> None:
        """Refuse scales that carry no guarantee."""
        _require(
            _rational(self.sigma2)
            and _whole(self.l2_squared, self.shifts)
            and self.sigma2 > 0
            and self.l2_squared >= self.shifts >= 1,
            "A discrete Gaussian event was asked for with impossible parameters.",
            "sigma2 must be a rational above 0, shifts a whole number of at least 1 and "
            "l2_squared one of at least shifts.",
            "An integer shift that is not zero moves its coordinate by at least 1.",
        )


@dataclass(frozen=True)
class Exponential:
    """A choice by the exponential mechanism, whose log-probabilities have range ``epsilon``.

    Choosing candidate c with probability proportional to exp(epsilon * score(c) / (2 * D)), where
    D bounds the change of any score, is epsilon-bounded-range (Durfee and Rogers 2019, section 3).
    """

    epsilon: Fraction

    def __post_init__(self) -> None:
        """Refuse parameters that carry no guarantee."""
        _require(
            _rational(self.epsilon) and self.epsilon > 0,
            "An exponential-mechanism event was asked for with an impossible epsilon.",
            "Its epsilon must be a rational above 0.",
            "Leave the event out if nothing is selected.",
        )


@dataclass(frozen=True)
class ApproxDP:
    """Any mechanism known only to be (epsilon, delta)-differentially private."""

    epsilon: Fraction
    delta: Fraction

    def __post_init__(self) -> None:
        """Refuse parameters that carry no guarantee."""
        _require(
            _rational(self.epsilon, self.delta) and self.epsilon >= 0 and 0 <= self.delta < 1,
            "An (epsilon, delta) event was asked for outside the meaning of the definition.",
            "epsilon must be a rational of at least 0 and delta one in [0, 1).",
            "Give the mechanism's own proved parameters.",
        )


@dataclass(frozen=True)
class Repeat:
    """``event``, ``count`` times, each query free to depend on earlier answers."""

    event: Event
    count: int

    def __post_init__(self) -> None:
        """Refuse a count that is not a natural number."""
        _require(
            _whole(self.count) and self.count >= 1,
            "An event was to be repeated fewer than one time.",
            "The count must be at least 1.",
            "Leave the event out.",
        )


@dataclass(frozen=True)
class Sequence:
    """Events one after another, each query free to depend on earlier answers."""

    events: tuple[Event, ...]


Event = Gaussian | DiscreteGaussian | Exponential | ApproxDP | Repeat | Sequence
"""The closed union of events."""

_NAMES: dict[type, str] = {
    Gaussian: "gaussian",
    DiscreteGaussian: "discrete_gaussian",
    Exponential: "exponential",
    ApproxDP: "approx_dp",
    Repeat: "repeat",
    Sequence: "sequence",
}


def event_to_json(event: Event) -> dict[str, Any]:
    """Return the event as plain JSON data, rationals as ``"numerator/denominator"``.

    >>> event_to_json(Exponential(Fraction(1, 8)))
    {'event': 'exponential', 'epsilon': '1/8'}
    """
    name = {"event": _NAMES[type(event)]}
    match event:
        case Gaussian(sigma, sensitivity):
            return name | {"sigma": str(sigma), "sensitivity": str(sensitivity)}
        case DiscreteGaussian(sigma2, l2_squared, shifts):
            return name | {"sigma2": str(sigma2), "l2_squared": l2_squared, "shifts": shifts}
        case Exponential(epsilon):
            return name | {"epsilon": str(epsilon)}
        case ApproxDP(epsilon, delta):
            return name | {"epsilon": str(epsilon), "delta": str(delta)}
        case Repeat(inner, count):
            return name | {"of": event_to_json(inner), "count": count}
        case Sequence(events):
            return name | {"events": [event_to_json(each) for each in events]}


def event_from_json(data: dict[str, Any]) -> Event:
    """Return the event that ``data`` (from :func:`event_to_json`) describes.

    Raises:
        InvalidRequest: The data describe no event of this version, or not in its one form.
    """
    try:
        event = _read(data)
        if canonical(event_to_json(event)) == canonical(data):
            return event
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        if isinstance(error, InvalidRequest):
            raise
        raise _unreadable() from error
    raise _unreadable()


def _unreadable() -> InvalidRequest:
    return InvalidRequest(
        "An event was to be read from JSON that does not describe one.",
        "Every event names its kind and all of its parameters, and nothing else.",
        "Use events written by event_to_json.",
    )


def _read(data: dict[str, Any]) -> Event:
    match data["event"]:
        case "gaussian":
            return Gaussian(_fraction(data["sigma"]), _fraction(data["sensitivity"]))
        case "discrete_gaussian":
            sigma2 = _fraction(data["sigma2"])
            return DiscreteGaussian(sigma2, data["l2_squared"], data["shifts"])
        case "exponential":
            return Exponential(_fraction(data["epsilon"]))
        case "approx_dp":
            return ApproxDP(_fraction(data["epsilon"]), _fraction(data["delta"]))
        case "repeat":
            return Repeat(_read(data["of"]), data["count"])
        case "sequence":
            return Sequence(tuple(_read(each) for each in data["events"]))
    raise InvalidRequest(
        "An event of an unknown kind was to be read from JSON.",
        f"This version knows {', '.join(sorted(_NAMES.values()))}.",
        "Use a newer version of dpsynth.",
    )


def _fraction(text: str) -> Fraction:
    """Return a rational written ``"numerator/denominator"``; no exponent, which could explode."""
    numerator, _, denominator = text.partition("/")
    return Fraction(int(numerator), int(denominator or "1"))


def canonical(data: Any) -> bytes:
    """Return the one byte form of JSON data: sorted keys, no spaces, UTF-8.

    >>> canonical({"b": 1, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    return json.dumps(
        data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(data: Any) -> str:
    """Return the SHA-256 of the canonical form of JSON data, in hexadecimal."""
    return hashlib.sha256(canonical(data)).hexdigest()


def flatten(event: Event) -> list[tuple[Event, int]]:
    """Return the leaves of an event with their counts, equal leaves merged, in first-seen order.

    >>> inner = Exponential(Fraction(1, 2))
    >>> flatten(Sequence((Repeat(inner, 3), inner))) == [(inner, 4)]
    True
    """
    counts: dict[Event, int] = {}

    def walk(node: Event, times: int) -> None:
        match node:
            case Repeat(inner, count):
                walk(inner, times * count)
            case Sequence(events):
                for each in events:
                    walk(each, times)
            case _:
                counts[node] = counts.get(node, 0) + times

    walk(event, 1)
    return list(counts.items())
