"""Turning templates into pages: everything shown is escaped, and no character can mislead."""

from __future__ import annotations

import importlib.resources
import math
import re
import unicodedata
from collections.abc import Sequence
from decimal import ROUND_CEILING, Context, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

ABSENT = "not given"

# Escaping stops markup, not these: they reorder or hide text, or cannot be written as UTF-8.
_MISLEADING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def render(template: str, **values: Any) -> str:
    """Return a page from a template of this package."""
    return _environment().get_template(template).render(**values)


def plain(text: str) -> str:
    """Return text without characters that reorder it, hide it or cannot be written.

    >>> plain("a\\u202eb") == "a\\N{REPLACEMENT CHARACTER}b"
    True
    """
    return _CONTROL.sub(_REPLACEMENT, _MISLEADING.sub(_REPLACEMENT, text))


def shorten(value: object, width: int) -> str:
    """Return text cut to a width in Latin letters; a wide character takes two.

    >>> shorten("Never-married", 8), shorten("No", 8)
    ('Never-m…', 'No')
    """
    # The first characters decide; a value may be megabytes long.
    text = " ".join(plain(str(value)[: 4 * width + 4]).split())
    used = 0
    for place, letter in enumerate(text):
        used += 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if used > width or (used == width and place + 1 < len(text)):
            return text[:place] + "…"
    return text


def finite(value: object) -> float | None:
    """Return a finite number as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def number(value: object) -> str:
    """Return a number to six significant digits, as the statement's sentences show it.

    >>> number(1e-6), number(3.0), number(None)
    ('1e-06', '3', 'not given')
    """
    known = finite(value)
    return ABSENT if known is None else f"{known:.6g}"


def count(value: object) -> str:
    """Return a number to the nearest whole one, its thousands apart.

    >>> count(12345.4)
    '12,345'
    """
    known = finite(value)
    return ABSENT if known is None else f"{round(known):,}"


def percent(value: object) -> str:
    """Return a share as a percentage to four significant digits, without a break before the sign.

    >>> percent(0.001).replace("\\u00a0", " ")
    '0.1 %'
    """
    known = finite(value)
    return ABSENT if known is None else f"{100 * known:.4g}\u00a0%"


def limit(value: object) -> str:
    """Return an upper limit as a percentage to four significant digits, never rounded down.

    >>> limit(0.0270611).replace("\\u00a0", " "), limit(0.0321).replace("\\u00a0", " ")
    ('2.707 %', '3.21 %')
    """
    known = finite(value)
    if known is None:
        return ABSENT
    return f"{float(rounded_up(Decimal(repr(known)) * 100, 4)):.4g}\u00a0%"


def rounded_up(value: Decimal, digits: int) -> Decimal:
    """Return a number with so many significant digits that is not below it."""
    return Context(prec=digits, rounding=ROUND_CEILING).create_decimal(value)


def rate(value: object) -> str:
    """Return a share as a percentage to two places, so that rates under one another compare.

    >>> rate(0.0097).replace("\\u00a0", " ")
    '0.97 %'
    """
    known = finite(value)
    return ABSENT if known is None else f"{100 * known:.2f}\u00a0%"


def points(value: object) -> str:
    """Return a difference of shares in percentage points.

    >>> points(0.0123)
    '1.23'
    """
    known = finite(value)
    return ABSENT if known is None else f"{100 * known:.2f}"


def p_value(value: object) -> str:
    """Return a p-value to four places.

    >>> p_value(0.00001), p_value(0.25)
    ('below 0.0001', '0.2500')
    """
    known = finite(value)
    if known is None:
        return ABSENT
    return "below 0.0001" if known < 1e-4 else f"{known:.4f}"


def sequence(value: object) -> Sequence[Any]:
    """Return a list as it is, and anything else as an empty one."""
    return value if isinstance(value, list | tuple) else ()


def said(value: object) -> str:
    """Return text as it is, and say where there is none."""
    return str(value) if value not in (None, "") else ABSENT


def _finalize(value: object) -> object:
    from markupsafe import Markup

    if isinstance(value, str) and not isinstance(value, Markup):
        return plain(value)
    return value


def _source(name: str) -> str:
    folder = importlib.resources.files("dpsynth.report") / "templates"
    return (folder / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import ChainableUndefined, Environment, FunctionLoader

    class Absent(ChainableUndefined):
        """A fact that is not there: equal to None, so that filters say so."""

    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=Absent,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {
            "count": count,
            "limit": limit,
            "listed": sequence,
            "number": number,
            "percent": percent,
            "points": points,
            "p_value": p_value,
            "rate": rate,
            "said": lambda value: said(None if isinstance(value, ChainableUndefined) else value),
            "shorten": shorten,
        }
    )
    return environment
