"""Budgets as exact rationals, so that twenty charges of a twentieth are all granted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import Any

from dpsynth_accounting._errors import InvalidRequest

ADJACENCY = "add_or_remove_one_unit"
"""The one adjacency this version proves: two tables differ by the presence of one unit."""

GREATEST_EPSILON = 64
"""Beyond this no claim is meaningful, and numerical slack (e^epsilon) would swallow delta."""

Number = float | int | str | Decimal | Fraction


def exact(value: Number) -> Fraction:
    """Return the number as a person wrote it: 0.1 is one tenth, not its binary neighbour.

    Raises:
        InvalidRequest: It is not a finite number.

    >>> exact(0.1)
    Fraction(1, 10)
    """
    if isinstance(value, Fraction):
        return value
    text = str(value)
    try:
        # The float first: an exponent of nine digits would expand into a gigabyte of zeros.
        if "/" not in text and not 1e-300 < abs(float(text)) < 1e300:
            return Fraction(float(text))
        return Fraction(text)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise InvalidRequest(
            "A privacy parameter was given that is not a finite number.",
            "NaN and infinity carry no guarantee.",
            "Give a plain decimal such as 1.0.",
        ) from error


def checked_epsilon(value: Number) -> Fraction:
    """Return epsilon as an exact rational, or refuse it.

    Raises:
        InvalidRequest: Epsilon is not finite, not above 0, or above 64.
    """
    epsilon = exact(value)
    if not 0 < epsilon <= GREATEST_EPSILON:
        raise InvalidRequest(
            f"Epsilon {value} was asked for.",
            f"Epsilon must be above 0 and at most {GREATEST_EPSILON}.",
            "Common releases use 0.1 to 10.",
        )
    return epsilon


def checked_delta(value: Number) -> Fraction:
    """Return delta as an exact rational, or refuse it.

    Raises:
        InvalidRequest: Delta is not finite or not strictly between 0 and 1.
    """
    delta = exact(value)
    if not 0 < delta < 1:
        raise InvalidRequest(
            f"Delta {value} was asked for.",
            "Delta must be strictly between 0 and 1, and well below 1 / (number of units).",
            "Use 1e-6 for up to some hundred thousand units.",
        )
    return delta


@dataclass(frozen=True)
class Budget:
    """What may be spent on one population, over everything ever released about it.

    Args:
        epsilon: Above 0. Floats are read as the decimal they print as.
        delta: Strictly between 0 and 1.

    Raises:
        InvalidRequest: A parameter is outside its range.

    >>> Budget(3.0, 1e-6).epsilon
    Fraction(3, 1)
    """

    epsilon: Fraction
    delta: Fraction

    def __init__(self, epsilon: Number, delta: Number) -> None:
        object.__setattr__(self, "epsilon", checked_epsilon(epsilon))
        object.__setattr__(self, "delta", checked_delta(delta))

    def delta_share(self, epsilon: Fraction) -> Fraction:
        """Return delta's share for a spend of ``epsilon``: in proportion."""
        return self.delta * min(Fraction(1), epsilon / self.epsilon)

    def to_json(self) -> dict[str, Any]:
        """Return the budget as plain JSON data."""
        return {"epsilon": str(self.epsilon), "delta": str(self.delta), "adjacency": ADJACENCY}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Budget:
        """Return the budget written by :meth:`to_json`."""
        if data.get("adjacency") != ADJACENCY:
            raise InvalidRequest(
                "A budget under another adjacency was to be read.",
                f"Only {ADJACENCY} is proved in this version.",
                "Convert the claim to adding or removing one unit.",
            )
        return Budget(data["epsilon"], data["delta"])


def require_delta_below(delta: Fraction, units: int) -> None:
    """Refuse a delta that would allow publishing some unit outright.

    Args:
        delta: The delta of a claim.
        units: The declared (public) number of units.
    """
    if units >= 1 and delta >= Fraction(1, units):
        raise InvalidRequest(
            f"Delta {show(delta)} was asked for with {units} declared units.",
            f"Delta must be below 1 / {units}: at that size releasing one unit's rows at random "
            "would satisfy the claim.",
            f"Use {10.0 ** math.floor(-1.5 * math.log10(max(units, 10))):.0e} or less.",
        )


def show(value: Fraction, *, up: bool = True) -> str:
    """Return a rational to six digits, rounded so that no claim is made smaller than it is.

    Args:
        value: What to show.
        up: Whether to round up (what is asked or promised) or down (what is left).

    >>> show(Fraction(17, 20)), show(Fraction(1, 1000000))
    ('0.85', '1e-06')
    >>> show(Fraction(1, 3)), show(Fraction(1, 3), up=False)
    ('0.333334', '0.333333')
    """
    digits = Context(prec=6, rounding=ROUND_CEILING if up else ROUND_FLOOR)
    rounded = digits.divide(Decimal(value.numerator), Decimal(value.denominator))
    return f"{float(rounded):.6g}"
