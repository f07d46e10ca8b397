"""Events as JSON data and back: each has one form, and what is not in it is refused."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction
from typing import Any

from dpsynth_accounting import events
from dpsynth_accounting._canonical import canonical
from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting.events import Event

_NAMES: dict[type[Event], str] = {
    events.Gaussian: "gaussian",
    events.DiscreteGaussian: "discrete_gaussian",
    events.Laplace: "laplace",
    events.DiscreteLaplace: "discrete_laplace",
    events.SubsampledGaussian: "subsampled_gaussian",
    events.GaussianBlock: "gaussian_block",
    events.Exponential: "exponential",
    events.ApproxDP: "approx_dp",
    events.Concentrated: "concentrated",
    events.Repeat: "repeat",
    events.Sequence: "sequence",
    events.Parallel: "parallel",
    events.RepeatAndSelect: "repeat_and_select",
}
_KINDS = {name: kind for kind, name in _NAMES.items()}
_INNER = {"event": "of"}
"""JSON names of fields, where they differ: "event" is the kind."""


def event_to_json(event: Event) -> dict[str, Any]:
    """Return the event as plain JSON data, rationals as ``"numerator/denominator"``.

    >>> event_to_json(events.Exponential(Fraction(1, 8)))
    {'event': 'exponential', 'epsilon': '1/8'}
    """
    data: dict[str, Any] = {"event": _NAMES[type(event)]}
    for each in fields(event):
        value = _written(getattr(event, each.name), str(each.type))
        data[_INNER.get(each.name, each.name)] = value
    return data


def _written(value: Any, type_name: str) -> Any:
    match type_name:
        case "Fraction":
            return str(value)
        case "Event":
            return event_to_json(value)
        case "tuple[Event, ...]":
            return [event_to_json(each) for each in value]
        case _:
            return value


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
    kind = _KINDS.get(data["event"])
    if kind is None:
        raise InvalidRequest(
            "An event of an unknown kind was to be read from JSON.",
            f"This version knows {', '.join(sorted(_KINDS))}.",
            "Use a newer version of dpsynth.",
        )
    values = {
        each.name: _value(data[_INNER.get(each.name, each.name)], str(each.type))
        for each in fields(kind)
    }
    return kind(**values)


def _value(value: Any, type_name: str) -> Any:
    """Return a field's value; the names are those of the annotations of events."""
    match type_name:
        case "Fraction":
            return _fraction(value)
        case "Event":
            return _read(value)
        case "tuple[Event, ...]":
            return tuple(_read(each) for each in value)
        case _:
            return value


def _fraction(text: str) -> Fraction:
    """Return a rational written ``"numerator/denominator"``; no exponent, which could explode."""
    numerator, _, denominator = text.partition("/")
    return Fraction(int(numerator), int(denominator or "1"))
