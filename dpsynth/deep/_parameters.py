"""What the recipes of the neural generators refuse, in one voice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from dpsynth_accounting import InvalidRequest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def whole(value: object, least: int) -> bool:
    """Say whether a value is a whole number, and no less than the least."""
    return type(value) is int and value >= least


def _positive(value: float | None) -> bool:
    return value is None or (value > 0 and math.isfinite(value))


_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "one_way": (lambda share: 0 < share < 1, "above 0 and below 1"),
    "rate": (lambda rate: 0 < rate <= 1, "above 0 and at most 1"),
    "iterations": (lambda steps: whole(steps, 1), "a whole number from 1"),
    "clip": (lambda clip: 1e-6 <= clip <= 1e6, "from 1e-06 to 1e+06"),
    "latent": (lambda length: whole(length, 1), "a whole number from 1"),
    "hidden": (lambda units: whole(units, 1), "a whole number from 1"),
    "learning_rate": (_positive, "a number above 0"),
    "average": (lambda decay: 0 <= decay < 1, "at least 0 and below 1"),
}
"""What a parameter must be that several generators have under the same name."""


def require(of: DataclassInstance, **own: tuple[bool, str]) -> None:
    """Refuse the first parameter that is out of its range.

    Args:
        of: A generator.
        own: Of the parameters that only it has, or has with another range: whether they hold, and
            their range in words.

    Raises:
        InvalidRequest: One is out of its range.
    """
    for field in fields(of):
        value = getattr(of, field.name)
        if field.name in own:
            holds, range_ = own[field.name]
        else:
            rule, range_ = _RANGES[field.name]
            holds = rule(value)
        if not holds:
            raise InvalidRequest(
                f"{type(of).__name__} was asked for with {field.name} = {value}.",
                f"It must be {range_}.",
                "Leave it at its default.",
            )


def require_columns(columns: Sequence[str]) -> None:
    """Refuse a plan over no column."""
    if not columns:
        raise InvalidRequest(
            "A plan over no columns was asked for.",
            "A model has one column or more.",
            "Declare a column that is neither dropped nor a key.",
        )
