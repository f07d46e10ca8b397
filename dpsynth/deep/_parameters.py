"""What the recipes of the neural generators refuse, in one voice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from dpsynth_accounting import InvalidRequest


class Trained(Protocol):
    """The parameters that every generator has."""

    @property
    def one_way(self) -> float: ...
    @property
    def rate(self) -> float: ...
    @property
    def iterations(self) -> int: ...
    @property
    def learning_rate(self) -> float | None: ...
    @property
    def average(self) -> float: ...


def require(name: str, of: Trained, **own: tuple[bool, str]) -> None:
    """Refuse parameters out of their range.

    Args:
        name: The generator.
        of: Its parameters.
        own: Of those that it alone has, whether they hold, and their range in words.

    Raises:
        InvalidRequest: One is out of its range.
    """
    learning = of.learning_rate
    rules = {
        "one_way": (0 < of.one_way < 1, "above 0 and below 1"),
        "rate": (0 < of.rate <= 1, "above 0 and at most 1"),
        "iterations": (whole(of.iterations, 1), "a whole number from 1"),
        "learning_rate": (learning is None or positive(learning), "a number above 0"),
        "average": (0 <= of.average < 1, "at least 0 and below 1"),
        **own,
    }
    refuse(name, of, rules)


def refuse(name: str, of: object, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse the first parameter whose rule does not hold.

    Args:
        name: The generator.
        of: Its parameters.
        rules: For each, whether it holds, and its range in words.

    Raises:
        InvalidRequest: There is one.
    """
    for key, (holds, range_) in rules.items():
        if not holds:
            raise InvalidRequest(
                f"{name} was asked for with {key} = {getattr(of, key)}.",
                f"It must be {range_}.",
                "Leave it at its default.",
            )


def within_clips(clip: float) -> tuple[bool, str]:
    """Say whether a clip is in range, and the range in words."""
    return 1e-6 <= clip <= 1e6, "from 1e-06 to 1e+06"


def require_columns(columns: Sequence[str]) -> None:
    """Refuse a plan over no column."""
    if not columns:
        raise InvalidRequest(
            "A plan over no columns was asked for.",
            "A model has one column or more.",
            "Declare a column that is neither dropped nor a key.",
        )


def whole(value: object, least: int) -> bool:
    """Say whether a value is a whole number, and no less than the least."""
    return type(value) is int and value >= least


def positive(value: float) -> bool:
    """Say whether a number is above 0 and finite."""
    return value > 0 and math.isfinite(value)
