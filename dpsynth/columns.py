"""The types of columns: what may be public about one, and which facts contradict each other."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, Literal

from dpsynth._zones import zone_names, zone_of


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What every column may say.

    Attributes:
        missing: Whether a value may be missing; then missing values are modelled as such.
        source: Where the public facts come from.
        attested_by: Who vouches that they are public.
        confirmed: Whether a person has confirmed them; a draft's guesses are not.
    """

    missing: bool = False
    source: str | None = None
    attested_by: str | None = None
    confirmed: bool = True


@dataclass(frozen=True)
class Categorical(Facts):
    """One of a public list of categories.

    Args:
        categories: Texts, whole numbers or truth values; decoded as they are.
        other: The category that stands for any value outside the list.
        default: The category that stands for a missing value where none is allowed, and for an
            unknown one where there is no ``other``; by default the first.
    """

    categories: tuple[str | int | bool, ...]
    other: str | int | bool | None = None
    default: str | int | bool | None = None


@dataclass(frozen=True)
class Open(Facts):
    """A category out of a list that is not public: frequent ones are found, for a price."""


@dataclass(frozen=True)
class Integer(Facts):
    """A whole number; bounds that are not given are found, for a price.

    Args:
        lower: The least value.
        upper: The greatest.
        default: Stands for a missing value where none is allowed.
        bins: Where cells start, if they are public; "adaptive" to have cells found, for a price.
            By default they follow from the bounds. This holds for reals, dates and moments too.
    """

    lower: int | None = None
    upper: int | None = None
    default: int | None = None
    bins: Literal["adaptive"] | tuple[int, ...] | None = None


@dataclass(frozen=True)
class Real(Facts):
    """A number; ``step`` is the spacing of its values, such as 0.01 for money."""

    lower: float | None = None
    upper: float | None = None
    step: float | None = None
    default: float | None = None
    bins: Literal["adaptive"] | tuple[float, ...] | None = None


@dataclass(frozen=True)
class Date(Facts):
    """A calendar day."""

    lower: date | None = None
    upper: date | None = None
    default: date | None = None
    bins: Literal["adaptive"] | tuple[date, ...] | None = None


@dataclass(frozen=True)
class Datetime(Facts):
    """A moment, to the second; without a zone, aware ones are taken to UTC, naive as they are.

    Args:
        lower: Earliest moment, with the latest; what lies outside is clipped.
        upper: Latest moment.
        default: What stands for a missing moment where none is allowed; by default the earliest.
        zone: Name of a time zone of the IANA database, such as ``Europe/Vienna``. Naive moments,
            bounds among them, are then local time of it, and the column decodes to moments of it.
    """

    lower: datetime | None = None
    upper: datetime | None = None
    default: datetime | None = None
    zone: str | None = None
    bins: Literal["adaptive"] | tuple[datetime, ...] | None = None


@dataclass(frozen=True)
class Boolean(Facts):
    """A truth value: true/false, yes/no, t/f, 1/0, in any case."""

    default: bool = False


@dataclass(frozen=True)
class Drop(Facts):
    """A column that is not read and not released."""


@dataclass(frozen=True)
class Key(Facts):
    """An identifier, replaced by a fresh surrogate 1, 2, 3, ... in the output."""


Column = Categorical | Open | Integer | Real | Date | Datetime | Boolean | Drop | Key
"""The closed union of column types."""

Ranged = Integer | Real | Date | Datetime

TYPES: dict[str, type[Column]] = {
    cls.__name__.lower(): cls
    for cls in (Categorical, Open, Integer, Real, Date, Datetime, Boolean, Drop, Key)
}


def type_name(column: Column) -> str:
    """Return a column's type as schema files write it."""
    return type(column).__name__.lower()


def column_faults(column: Column) -> list[str]:
    """Return what contradicts itself in one column."""
    match column:
        case Categorical(categories=categories):
            return _categorical_faults(column, categories)
        case Integer() | Real() | Date() | Datetime():
            return _range_faults(column)
        case _:
            return []


def _categorical_faults(column: Categorical, categories: tuple[Any, ...]) -> list[str]:
    faults = []
    texts = [str(each) for each in categories]
    if any(isinstance(each, int) and not -(2**63) <= each < 2**63 for each in categories):
        faults.append("has a whole number as a category that does not fit in 64 bits")
    if not categories:
        faults.append("has no categories")
    if "" in texts:
        faults.append("has the empty text as a category, which is how a file says missing")
    repeated = sorted({text for text in texts if texts.count(text) > 1})
    if repeated:
        faults.append(f"names the categories {', '.join(map(repr, repeated))} twice")
    for name in ("other", "default"):
        value = getattr(column, name)
        if value is not None and str(value) not in texts:
            faults.append(f"{name} = {value!r} is not one of its categories")
    return faults


def _range_faults(column: Ranged) -> list[str]:
    lower, upper, default = column.lower, column.upper, column.default
    faults = []
    bins: tuple[Any, ...] = column.bins if isinstance(column.bins, tuple) else ()
    values = [value for value in (lower, upper, default, *bins) if value is not None]
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        return ["has a bound that is not finite"]
    reach = {Integer: 2**62, Real: 2**60}.get(type(column))
    if reach is not None and any(abs(v) > reach for v in values):
        faults.append(f"has a bound beyond 2**{reach.bit_length() - 1}")
    if isinstance(column, Datetime):
        faults += _zone_faults(column, [v for v in values if isinstance(v, datetime)])
        if faults:
            return faults
        lower, upper, default = (
            None if v is None else number_of(v, column.zone) for v in (lower, upper, default)
        )
        bins = tuple(number_of(each, column.zone) for each in bins)
    if (lower is None) != (upper is None):
        faults.append("gives one bound; give both, or neither to have them found for a price")
    elif lower is not None and upper is not None:
        if lower > upper:  # type: ignore[operator]
            faults.append("has a lower bound above the upper one")
        elif default is not None and not lower <= default <= upper:  # type: ignore[operator]
            faults.append("has a default outside its bounds")
        elif any(not lower <= each <= upper for each in bins):
            faults.append("has a bin that starts outside its bounds")
    elif bins:
        faults.append("gives bins without bounds")
    if any(a >= b for a, b in pairwise(bins)):
        faults.append("has bins that do not increase")
    if isinstance(column, Real) and column.step is not None:
        faults += _step_faults(column.lower, column.upper, column.step)
    return faults


def _zone_faults(column: Datetime, moments: list[datetime]) -> list[str]:
    offsets = {moment.utcoffset() for moment in moments}
    if any(offset is not None and offset % timedelta(minutes=1) for offset in offsets):
        return ["has a moment whose time zone is not whole minutes from UTC"]
    if column.zone is None:
        mixed = None in offsets and len(offsets) > 1
        return ["mixes moments with and without a time zone"] if mixed else []
    if column.zone not in zone_names():
        return [f"has the unknown time zone {column.zone!r}{near(column.zone, zone_names())}"]
    try:
        for moment in moments:
            _aware(moment, column.zone).astimezone(UTC).astimezone(zone_of(column.zone))
    except OverflowError:
        return ["has a bound that lies beyond the calendar in UTC or in its zone"]
    return []


def _step_faults(lower: float | None, upper: float | None, step: float) -> list[str]:
    if not 1e-12 <= step <= 1e18:
        return ["has a step that is not between 1e-12 and 1e18"]
    if lower is None or upper is None or lower >= upper:
        return []
    if step > upper - lower:
        return ["has a step wider than its bounds"]
    if max(upper - lower, abs(lower)) / step > 2**50:
        return ["has bounds more than 2**50 steps apart or from zero"]
    return []


def number_of(value: float | date | datetime, zone: str | None = None) -> float | int:
    """Return a bound as the number codecs use: days or UTC seconds since 1970 for times.

    Args:
        value: The bound.
        zone: Where a naive moment is local time; without one it is taken as it is.
    """
    if isinstance(value, datetime):
        return (_aware(value, zone) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    if isinstance(value, date):
        return (value - date(1970, 1, 1)).days
    return value


def value_of(kind: str, number: float, *, aware: bool = False) -> float | date | datetime:
    """Return the bound that a codec's number stands for: the inverse of :func:`number_of`.

    Args:
        kind: What the numbers are: "integer", "real", "date" or "datetime".
        number: Days or seconds since 1970 for times.
        aware: Whether moments are to say that they are UTC.
    """
    if kind == "date":
        return date(1970, 1, 1) + timedelta(days=int(number))
    if kind == "datetime":
        epoch = datetime(1970, 1, 1, tzinfo=UTC if aware else None)
        return epoch + timedelta(seconds=int(number))
    return number


def _aware(moment: datetime, zone: str | None) -> datetime:
    if moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC if zone is None else zone_of(zone), fold=0)


def near(word: str, known: Iterable[str]) -> str:
    """Return a hint at the known word that is nearest to one, empty if none is near."""
    found = get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""
