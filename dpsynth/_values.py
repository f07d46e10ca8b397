"""From the values of a column to texts and numbers, one value at a time, whatever they are.

What a value becomes depends on that value alone, never on its neighbours: a refusal or a rounding
that depended on another row would be an answer that nobody paid for. So nothing here lets a library
infer a type or a resolution from a whole column.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Kind = Literal["integer", "real", "date", "datetime"]

WIDEST = 2**62
"""No whole number beyond this, on either side, is told from it."""

DAY = 86_400

_FIRST, _LAST = np.datetime64("0001-01-02T00:00:00"), np.datetime64("9999-12-30T00:00:00")

# Possessive quantifiers: a text of a million digits must not take time that grows with its square.
_WHOLE = re.compile(r"[+-]?[0-9]++(\.0*+)?")
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?|inf(?:inity)?)", re.I
)
_MOMENT = re.compile(
    r"(?:(-?[0-9]{3,12}+)-([0-9]{2})-([0-9]{2})|([0-9]{4})([0-9]{2})([0-9]{2}))"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,][0-9]++)?)?"
    r" ?(Z|([+-])([0-9]{2}):?([0-9]{2})(?::?([0-9]{2}))?)?)?"
)


def text_of(values: pd.Series) -> NDArray[np.object_]:
    """Return the canonical text of each value, None for a missing one.

    Whole floats read as integers, so that a column of 1, 2, 3 has the same categories whether or
    not a missing value made it floating point. Bytes read as UTF-8. Other text is taken as it is,
    unstripped; the empty string is missing, as in a CSV. Every text can be written as UTF-8.

    >>> text_of(pd.Series([3.0, None, "a "], dtype=object)).tolist()
    ['3', None, 'a ']
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        # As an array, whole numbers would turn into floats as soon as any row is missing.
        categories = text_of(pd.Series(values.cat.categories))
        return np.append(categories, [None])[values.cat.codes.to_numpy()]
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        moments = _in_utc(values)
        far = (moments < _FIRST) | (moments > _LAST)
        if far.any():  # no time zone is known there
            written = text_of(moments)
            written[~far] = text_of(values[~far])
            return written
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        with np.errstate(over="ignore"):  # a warning would be an answer about a row
            places, distinct = pd.factorize(values.to_numpy())
        texts = [*map(_text, distinct.tolist()), None]
        return np.array(texts, dtype=object)[places]  # missing is at -1
    objects = values.to_numpy(dtype=object)
    out = np.empty(len(objects), dtype=object)
    for position, value in enumerate(objects):
        if type(value) is str and value.isascii():
            out[position] = value or None
        elif type(value) is int and -WIDEST < value < WIDEST:
            out[position] = str(value)
        else:
            out[position] = _text(value)
    return out


def distinct_texts(values: pd.Series) -> tuple[NDArray[np.int64], list[str]]:
    """Return the distinct texts, and where in them each value's is; -1 for a missing one.

    Not by pandas: some of its versions compare texts only up to the first NUL.
    """
    places: dict[str | None, int] = {None: -1}
    texts = text_of(values)
    found = (places.setdefault(text, len(places) - 1) for text in texts)
    positions = np.fromiter(found, dtype=np.int64, count=len(texts))
    return positions, [text for text in places if text is not None]


def _text(value: Any) -> str | None:
    """Return one value's text; an object that cannot be shown reads as its type's name."""
    try:
        return None if _is_missing(value) else _shown(value) or None
    except Exception:  # whatever an object's own methods raise
        return f"({type(value).__name__})"


def _is_missing(value: Any) -> bool:
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, float | complex | np.inexact):
        return bool(value != value)
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, np.datetime64 | np.timedelta64) and bool(np.isnat(value))


def _shown(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        value = value.item()
    if isinstance(value, float | np.floating):
        value = float(value)
        value = int(value) if value.is_integer() else value
    if type(value) is int and value.bit_length() > 14_000:
        value = Decimal(value)  # Python refuses to write integers of more than 4300 digits
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def numbers_of(values: pd.Series, of: Kind) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return each value as a number, and whether it is one; row-wise, and never an exception.

    Whole numbers are exact up to :data:`WIDEST` and clipped there; others round to the nearest.
    Times are ISO 8601 (``2024-02-29``, ``20240229``, ``2024-02-29T12:30:00+01:00``): days or
    seconds since 1970, aware ones in UTC, naive ones as they are, fractions of a second cut.

    Returns:
        int64 (integer, date, datetime) or float64 (real) of shape (rows,), and bool (rows,).
    """
    if (found := _of_dtype(values, of)) is not None:
        return found
    positions, distinct = distinct_texts(values)
    read = {"real": _real, "integer": _whole, "date": _day, "datetime": _second}[of]
    numbers = [*map(read, distinct), None]  # the last one is for what is missing, at -1
    kind = np.float64 if of == "real" else np.int64
    table = np.array([0 if each is None else each for each in numbers], dtype=kind)
    known = np.array([each is not None for each in numbers], dtype=bool)
    return table[positions], known[positions]


def _of_dtype(values: pd.Series, of: Kind) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
    """Return what the texts would give, quickly, for columns that hold numbers or times."""
    timed = of in ("date", "datetime")
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values = _in_utc(values)
    kinds = "M" if timed else "biuf"
    if not isinstance(values.dtype, np.dtype) or values.dtype.kind not in kinds:
        return None
    raw = values.to_numpy()
    if timed:
        known = ~np.isnat(raw)
        moments = np.where(known, raw, np.zeros(1, raw.dtype)).astype("datetime64[s]")
        seconds = np.clip(moments.astype(np.int64), -WIDEST, WIDEST)
        return np.floor_divide(seconds, DAY) if of == "date" else seconds, known
    if raw.dtype.kind == "f" or of == "real":
        with np.errstate(over="ignore"):
            floats = raw.astype(np.float64)
        known = ~np.isnan(floats)
        floats = np.where(known, floats, 0.0)
        if of == "real":
            return floats, known
        return np.rint(np.clip(floats, -WIDEST, WIDEST)).astype(np.int64), known
    if raw.dtype == np.uint64:
        raw = np.minimum(raw, np.uint64(WIDEST))
    return np.clip(raw.astype(np.int64), -WIDEST, WIDEST), np.ones(len(raw), dtype=bool)


def _in_utc(values: pd.Series) -> pd.Series:
    """Return moments of a time zone as naive ones in UTC."""
    naive: pd.Series = values.dt.tz_convert("UTC").dt.tz_localize(None)
    return naive


def _real(text: str) -> float | None:
    text = text.strip()
    if text in ("True", "False"):
        return float(text == "True")
    return float(text) if _NUMBER.fullmatch(text) else None


def _whole(text: str) -> int | None:
    short = text.strip()
    if len(short) < 40 and _WHOLE.fullmatch(short):
        return max(-WIDEST, min(WIDEST, int(short.partition(".")[0])))
    number = _real(text)
    return None if number is None else round(max(-float(WIDEST), min(float(WIDEST), number)))


def _day(text: str) -> int | None:
    second = _second(text)
    return None if second is None else second // DAY


def _second(text: str) -> int | None:
    parts = _MOMENT.fullmatch(text.strip())
    if parts is None:
        return None
    year, month, day = (int(each) for each in parts.group(1, 2, 3, 4, 5, 6) if each is not None)
    hour, minute, second = (int(each or 0) for each in parts.group(7, 8, 9))
    away = [int(each or 0) for each in parts.group(12, 13, 14)]
    if hour > 23 or max(minute, second, *away[1:]) > 59 or away[0] > 23:
        return None
    try:
        # Calendars repeat every 400 years, and a year outside 1..9999 is no date of Python's.
        days = date(400 + year % 400, month, day).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        return None
    days += (year - (400 + year % 400)) // 400 * 146_097
    offset = (away[0] * 60 + away[1]) * 60 + away[2]
    moment = days * DAY + (hour * 60 + minute) * 60 + second
    moment += offset if parts.group(11) == "-" else -offset
    return max(-WIDEST, min(WIDEST, moment))
