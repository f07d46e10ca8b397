"""From the values of a column to texts and numbers, one value at a time, whatever they are.

What a value becomes depends on that value alone, never on its neighbours: a refusal or a rounding
that depended on another row would be an answer that nobody paid for. So nothing here lets a library
infer a type or a resolution from a whole column.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth._arrow import distinct_of, is_arrow
from dpsynth._zones import all_in_utc, in_utc

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
_PLAIN = "+-.0123456789"
_MOMENT = re.compile(
    r"(?:(-?[0-9]{3,12}+)-([0-9]{2})-([0-9]{2})|([0-9]{4})([0-9]{2})([0-9]{2}))"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,][0-9]++)?)?"
    r" ?(Z|([+-])([0-9]{2}):?([0-9]{2})(?::?([0-9]{2}))?)?)?"
)


def text_of(values: pd.Series) -> NDArray[np.object_]:
    """Return the canonical text of each value, None for a missing one.

    Whole floats read as integers, so that a column of 1, 2, 3 has the same categories whether or
    not a missing value made it floating point. Bytes read as UTF-8. Other text is taken as it is,
    unstripped; the empty string is missing, as in a CSV. Every text can be written as UTF-8, and
    holds no NUL.

    >>> text_of(pd.Series([3.0, None, "a "], dtype=object)).tolist()
    ['3', None, 'a ']
    """
    if (found := _numbered(values)) is not None:
        places, texts = found
        each: NDArray[np.object_] = np.append(texts, [None])[places]  # missing is at -1
        return each
    return _text_by_text(values)


def distinct_texts(values: pd.Series) -> tuple[NDArray[np.int32], list[str]]:
    """Return the distinct texts, and where in them each value's is; -1 for a missing one.

    Texts are in the order in which they first occur. Not by pandas: some of its versions compare
    texts only up to the first NUL.
    """
    found = _numbered(values)
    if found is None:
        return _told_apart(_text_by_text(values))
    places, texts = found
    used = pd.unique(places)  # in the order in which they first occur
    used = used[used >= 0]
    among, distinct = _told_apart(texts[used])
    renumbered = np.full(len(texts) + 1, -1, dtype=np.int32)  # the last one is for what is missing
    renumbered[used] = among
    return renumbered[places], distinct


def _told_apart(texts: NDArray[np.object_]) -> tuple[NDArray[np.int32], list[str]]:
    """Return where each text is among the distinct ones, in order of appearance, and those."""
    if None not in (distinct := dict.fromkeys(texts)) and len(distinct) == len(texts):
        return np.arange(len(texts), dtype=np.int32), list(distinct)
    places = {None: -1} | {text: i for i, text in enumerate(t for t in distinct if t is not None)}
    numbers = np.fromiter(map(places.__getitem__, texts), dtype=np.int32, count=len(texts))
    return numbers, [text for text in places if text is not None]


def is_numbered(values: pd.Series) -> bool:
    """Say whether a column holds numbers or moments, or few values of many: no object a row."""
    kind = values.dtype
    if isinstance(kind, np.dtype):
        return kind.kind in "biufM"
    return isinstance(kind, pd.CategoricalDtype | pd.DatetimeTZDtype) or is_arrow(kind)


def _numbered(values: pd.Series) -> tuple[NDArray[Any], NDArray[np.object_]] | None:
    """Return where each value is among fewer, and their texts, for columns that allow it cheaply.

    One text may stand for several values, and be None. A missing value is at -1.
    """
    if not is_numbered(values):
        return None
    if is_arrow(values.dtype):
        places, distinct = distinct_of(values)
        if not set(map(type, distinct)) <= {str}:
            return places, _text_by_text(pd.Series(distinct, dtype=object))
        for place in [place for place, text in enumerate(distinct) if "\0" in text]:
            distinct[place] = _storable(distinct[place])
        distinct[distinct == ""] = None  # Arrow's texts are Unicode: else they read as they are
        return places, distinct
    if isinstance(values.dtype, pd.CategoricalDtype):
        # As an array, whole numbers would turn into floats as soon as any row is missing.
        return values.cat.codes.to_numpy(), text_of(pd.Series(values.cat.categories))
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        places, moments = pd.factorize(values)
        return places, _text_by_text(pd.Series(moments))
    raw = values.to_numpy()
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a warning would be an answer about a row
            raw = raw.astype(np.float64, copy=False)
    places, distinct = pd.factorize(raw)
    if raw.dtype.kind == "M":
        return places, _text_by_text(pd.Series(distinct))
    texts = np.empty(len(distinct), dtype=object)
    texts[:] = [
        str(int(each)) if isinstance(each, float) and each.is_integer() else str(each)
        for each in distinct.tolist()
    ]
    return places, texts


def _text_by_text(values: pd.Series) -> NDArray[np.object_]:
    """Return the text of each value, read by itself."""
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        moments = _in_utc(values)
        far = (moments < _FIRST) | (moments > _LAST)
        if far.any():  # no time zone is known there
            written = _text_by_text(moments)
            written[~far] = _text_by_text(values[~far])
            return written
    objects = values.to_numpy(dtype=object)
    out = np.empty(len(objects), dtype=object)
    for position, value in enumerate(objects):
        if type(value) is str and value.isascii() and "\0" not in value:
            out[position] = value or None
        elif type(value) is int and -WIDEST < value < WIDEST:
            out[position] = str(value)
        else:
            out[position] = _text(value)
    return out


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
    return _storable(str(value))


def _storable(text: str) -> str:
    """Return a text as UTF-8 and CSV files can hold it: without half surrogates and NULs."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", r"\x00")


def numbers_of(
    values: pd.Series, of: Kind, zone: ZoneInfo | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return each value as a number, and whether it is one; row-wise, and never an exception.

    Whole numbers are exact up to :data:`WIDEST` and clipped there; others round to the nearest.
    Times are ISO 8601 (``2024-02-29``, ``20240229``, ``2024-02-29T12:30:00+01:00``): days or
    seconds since 1970, aware ones in UTC, naive ones as they are, fractions of a second cut.

    Args:
        values: The column.
        of: What its values are to be read as.
        zone: Where the naive ones of datetimes are local time; then these are in UTC too.

    Returns:
        int64 (integer, date, datetime) or float64 (real) of shape (rows,), and bool (rows,).
    """
    if (found := _of_dtype(values, of, zone)) is not None:
        return found
    positions, distinct = distinct_texts(values)
    second = partial(_second, zone=zone)
    readers: dict[str, Callable[[str], float | int | None]] = {
        "real": _real,
        "integer": _whole,
        "date": _day,
        "datetime": second,
    }
    read = readers[of]
    numbers = [*map(read, distinct), None]  # the last one is for what is missing, at -1
    kind = np.float64 if of == "real" else np.int64
    table = np.array([0 if each is None else each for each in numbers], dtype=kind)
    known = np.array([each is not None for each in numbers], dtype=bool)
    return table[positions], known[positions]


def _of_dtype(
    values: pd.Series, of: Kind, zone: ZoneInfo | None
) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
    """Return what the texts would give, quickly, for columns that hold numbers or times."""
    timed = of in ("date", "datetime")
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        values, zone = _in_utc(values), None
    kinds = "M" if timed else "biuf"
    if not isinstance(values.dtype, np.dtype) or values.dtype.kind not in kinds:
        return None
    raw = values.to_numpy()
    if timed:
        known = ~np.isnat(raw)
        moments = np.where(known, raw, np.zeros(1, raw.dtype)).astype("datetime64[s]")
        seconds = np.clip(moments.astype(np.int64), -WIDEST, WIDEST)
        if zone is not None and of == "datetime":
            seconds = np.clip(all_in_utc(seconds, zone), -WIDEST, WIDEST)
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
    if not text.strip(_PLAIN):  # the common case, for speed: the pattern below allows the same
        try:
            return float(text)
        except ValueError:
            return None
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


def _second(text: str, zone: ZoneInfo | None = None) -> int | None:
    parts = _MOMENT.fullmatch(text.strip())
    if parts is None:
        return None
    year, month, day, *again, hour, minute, second, offset, sign = parts.groups()[:11]
    days = _days(*again) if year is None else _days(year, month, day)
    if days is None:
        return None
    moment = days * DAY
    if hour is not None:
        hours, minutes, seconds = int(hour), int(minute), int(second or 0)
        if hours > 23 or minutes > 59 or seconds > 59:
            return None
        moment += (hours * 60 + minutes) * 60 + seconds
    if offset is not None:
        hours, minutes, seconds = (int(each or 0) for each in parts.group(12, 13, 14))
        if hours > 23 or minutes > 59 or seconds > 59:
            return None
        away = (hours * 60 + minutes) * 60 + seconds
        moment += away if sign == "-" else -away
    elif zone is not None:
        moment = in_utc(moment, zone)
    return max(-WIDEST, min(WIDEST, moment))


@lru_cache(1 << 12)
def _days(year: str, month: str, day: str) -> int | None:
    """Return the days since 1970 of a date, or None if there is no such date."""
    try:
        # Calendars repeat every 400 years, and a year outside 1..9999 is no date of Python's.
        days = date(400 + int(year) % 400, int(month), int(day)).toordinal()
    except ValueError:
        return None
    days -= date(1970, 1, 1).toordinal()
    return days + (int(year) - (400 + int(year) % 400)) // 400 * 146_097
