"""Public facts about a table, and nothing else: its columns, their types, bounds and categories.

What a schema says is taken as public: it costs nothing and is repeated in the statement, with who
attests it. What it leaves open is found privately, for a price.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, date, datetime, timedelta, timezone
from difflib import get_close_matches
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from dpsynth._zones import zone_names, zone_of
from dpsynth_accounting import InvalidRequest

if TYPE_CHECKING:
    from pydantic import BaseModel

FORMAT_VERSION = 1


class SchemaError(InvalidRequest):
    """A schema with faults, all of them listed.

    Attributes:
        faults: One sentence a fault, naming the column.
    """

    def __init__(self, faults: Iterable[str], asked: str = "A schema was to be used.") -> None:
        self.faults = tuple(faults)
        super().__init__(
            asked,
            "It has these faults: " + "; ".join(self.faults) + ".",
            "Mend them all and try again.",
        )


@dataclass(frozen=True, kw_only=True)
class _Facts:
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
class Categorical(_Facts):
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
class Open(_Facts):
    """A category out of a list that is not public: frequent ones are found, for a price."""


@dataclass(frozen=True)
class Integer(_Facts):
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
class Real(_Facts):
    """A number; ``step`` is the spacing of its values, such as 0.01 for money."""

    lower: float | None = None
    upper: float | None = None
    step: float | None = None
    default: float | None = None
    bins: Literal["adaptive"] | tuple[float, ...] | None = None


@dataclass(frozen=True)
class Date(_Facts):
    """A calendar day."""

    lower: date | None = None
    upper: date | None = None
    default: date | None = None
    bins: Literal["adaptive"] | tuple[date, ...] | None = None


@dataclass(frozen=True)
class Datetime(_Facts):
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
class Boolean(_Facts):
    """A truth value: true/false, yes/no, t/f, 1/0, in any case."""

    default: bool = False


@dataclass(frozen=True)
class Drop(_Facts):
    """A column that is not read and not released."""


@dataclass(frozen=True)
class Key(_Facts):
    """An identifier, replaced by a fresh surrogate 1, 2, 3, ... in the output."""


Column = Categorical | Open | Integer | Real | Date | Datetime | Boolean | Drop | Key
"""The closed union of column types."""

Ranged = Integer | Real | Date | Datetime

_TYPES: dict[str, type[Column]] = {
    cls.__name__.lower(): cls
    for cls in (Categorical, Open, Integer, Real, Date, Datetime, Boolean, Drop, Key)
}


def type_name(column: Column) -> str:
    """Return a column's type as schema files write it."""
    return type(column).__name__.lower()


def _column_faults(column: Column) -> list[str]:
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
        return [f"has the unknown time zone {column.zone!r}{_near(column.zone, zone_names())}"]
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


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in the order of the output.

    Args:
        columns: Name to type.

    Raises:
        SchemaError: Something contradicts itself; all faults are named.

    >>> Schema({"age": Integer(0, 110), "city": Open()}).undeclared
    ('city',)
    """

    columns: Mapping[str, Column] = field(hash=False)

    def __post_init__(self) -> None:
        """Refuse wrong types and contradictions, all at once."""
        faults: list[str] = []
        columns: dict[str, Column] = {}
        given: Mapping[Any, Any] = self.columns
        for name, column in given.items():
            if not isinstance(name, str) or not isinstance(column, Column):
                faults.append(f"column {name!r} is not a text with a column type")
            else:
                facts = {each.name: getattr(column, each.name) for each in fields(column)}
                _add(columns, name, type(column), facts, faults)
        if faults:
            raise SchemaError(faults)
        object.__setattr__(self, "columns", columns)

    @property
    def modelled(self) -> tuple[str, ...]:
        """Return the columns that are modelled: all but keys and dropped ones."""
        return tuple(n for n, c in self.columns.items() if not isinstance(c, Drop | Key))

    @property
    def undeclared(self) -> tuple[str, ...]:
        """Return the columns whose categories, bounds or bins have to be found, for a price."""
        return tuple(
            name
            for name, column in self.columns.items()
            if isinstance(column, Open)
            or (isinstance(column, Ranged) and (column.lower is None or column.bins == "adaptive"))
        )

    @property
    def unconfirmed(self) -> tuple[str, ...]:
        """Return the columns that nobody has confirmed yet."""
        return tuple(name for name, column in self.columns.items() if not column.confirmed)

    def require_confirmed(self) -> None:
        """Refuse a schema with guesses in it.

        Raises:
            SchemaError: Some columns are not confirmed; all are named.
        """
        if self.unconfirmed:
            raise SchemaError(
                [f"column {name!r} is a guess that nobody confirmed" for name in self.unconfirmed],
                "A drafted schema was to be used for a release.",
            )

    def only(self, names: Iterable[str]) -> Schema:
        """Return the schema of some of the columns."""
        kept = set(names)
        return Schema({name: column for name, column in self.columns.items() if name in kept})

    # -- files -----------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Schema:
        """Read a schema from a TOML file.

        Raises:
            SchemaError: The file is missing, is no TOML, or has faults; all are named at once.
        """
        path = Path(path)
        asked = f"The schema {path} was to be read."
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise SchemaError(["it cannot be read as UTF-8 text"], asked) from error
        except tomllib.TOMLDecodeError as error:
            raise SchemaError([f"it is not TOML: {error}"], asked) from error
        return cls.from_json(data, asked)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], asked: str = "A schema was to be read.") -> Schema:
        """Return the schema that plain data describe; see :meth:`to_json`.

        Raises:
            SchemaError: The data have faults; all are named at once.
        """
        faults: list[str] = []
        for key in data.keys() - {"format_version", "columns"}:
            faults.append(
                f"{key!r} is no key of a schema{_hint(key, ['format_version', 'columns'])}"
            )
        version = data.get("format_version")
        if type(version) is not int or version != FORMAT_VERSION:
            faults.append(f"format_version must be {FORMAT_VERSION}")
        tables = data.get("columns")
        if not isinstance(tables, Mapping) or not tables:
            raise SchemaError([*faults, "there is no [columns.NAME] table"], asked)
        columns: dict[str, Column] = {}
        for name, facts in tables.items():
            _parse(columns, name, facts, faults)
        if faults:
            raise SchemaError(faults, asked)
        return cls(columns)

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain JSON data, facts at their default left out."""
        columns = {
            name: {
                k: [*map(_plain_json, v)] if isinstance(v, list) else _plain_json(v)
                for k, v in _facts(column).items()
            }
            for name, column in self.columns.items()
        }
        return {"format_version": FORMAT_VERSION, "columns": columns}

    def dump(self) -> str:
        """Return the schema as a TOML file's text."""
        lines = [f"format_version = {FORMAT_VERSION}"]
        for name, column in self.columns.items():
            lines += ["", f"[columns.{toml(name)}]"]
            lines += [f"{key} = {toml(value)}" for key, value in _facts(column).items()]
        return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of schema files, for editors; dates are texts in ISO 8601."""
    kinds = []
    for kind in _TYPES:
        own = _model_of(kind).model_json_schema()
        own["properties"] = {"type": {"const": kind}, **own["properties"]}
        kinds.append({**own, "required": ["type", *own.get("required", [])]})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dpsynth schema",
        "type": "object",
        "properties": {
            "format_version": {"const": FORMAT_VERSION},
            "columns": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"oneOf": kinds},
            },
        },
        "required": ["format_version", "columns"],
        "additionalProperties": False,
    }


def _facts(column: Column) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": type_name(column)}
    own = [f for f in fields(column) if f.name not in {g.name for g in fields(_Facts)}]
    for each in (*own, *fields(_Facts)):
        value = getattr(column, each.name)
        if value is not None and value != each.default:
            facts[each.name] = list(value) if isinstance(value, tuple) else value
    return facts


def _parse(columns: dict[str, Column], name: str, facts: Any, faults: list[str]) -> None:
    """Add one column of a file, or note its faults."""
    if not isinstance(facts, Mapping):
        faults.append(f"column {name!r} is no table")
        return
    facts = dict(facts)
    kind = facts.pop("type", None)
    if not isinstance(kind, str) or kind not in _TYPES:
        shown = f"type {kind!r}" if kind is not None else "no type"
        faults.append(f"column {name!r} has {shown}{_hint(str(kind), _TYPES)}")
        return
    for key in facts.keys() & {"categories", "bins"}:
        if isinstance(facts[key], list):
            facts[key] = tuple(facts[key])
    if kind in ("date", "datetime"):  # JSON has no dates, and TOML may quote them
        for key in facts.keys() & {"lower", "upper", "default"}:
            facts[key] = _moment(facts[key], kind)
        if isinstance(facts.get("bins"), tuple):
            facts["bins"] = tuple(_moment(each, kind) for each in facts["bins"])
    _add(columns, name, _TYPES[kind], facts, faults)


def _plain_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _moment(value: Any, kind: str) -> Any:
    try:
        return (date if kind == "date" else datetime).fromisoformat(value)
    except (TypeError, ValueError):
        return value


def _add(
    columns: dict[str, Column],
    name: str,
    cls: type[Column],
    facts: Mapping[str, Any],
    faults: list[str],
) -> None:
    """Add a column of facts that have the right types and agree, or note its faults."""
    from pydantic import ValidationError

    texts = [text for value in facts.values() for text in _listed(value) if isinstance(text, str)]
    if not all(map(_is_unicode, [name, *texts])):
        faults.append(f"column {name!r} holds half a surrogate pair, which is no Unicode")
        return
    if any("\0" in text for text in [name, *texts]):
        faults.append(rf"column {name!r} holds a NUL, which no CSV may; in data it reads as \x00")
        return
    try:
        checked = _model_of(cls.__name__.lower()).model_validate(facts)
    except ValidationError as error:
        known = ["type", *(each.name for each in fields(cls))]
        wrong: dict[str, list[str]] = {}
        for each in error.errors():
            key, what = str(each["loc"][0]), each["msg"].lower()
            if each["type"] == "extra_forbidden":
                faults.append(f"column {name!r} has the unknown key {key!r}{_hint(key, known)}")
            elif what not in wrong.setdefault(key, []):
                wrong[key].append(what)
        faults += [f"column {name!r}, {key}: {' or '.join(each)}" for key, each in wrong.items()]
        return
    columns[name] = cls(**{k: _plain(getattr(checked, k)) for k in checked.model_fields_set})
    faults.extend(f"column {name!r} {each}" for each in _column_faults(columns[name]))


def _plain(value: Any) -> Any:
    """Return a moment at its fixed distance from UTC: in a zone's repeated hour it equals none."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, datetime) and (away := value.utcoffset()) is not None:
        return value.replace(tzinfo=timezone(away), fold=0)
    return value


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, tuple) else (value,)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@lru_cache
def _model_of(kind: str) -> type[BaseModel]:
    """Return a strict model of a column type: no conversions, no unknown keys."""
    from pydantic import ConfigDict, create_model

    cls = _TYPES[kind]
    hints = get_type_hints(cls)
    wanted: dict[str, Any] = {
        each.name: (hints[each.name], ... if each.default is MISSING else each.default)
        for each in fields(cls)
    }
    return create_model(cls.__name__, __config__=ConfigDict(strict=True, extra="forbid"), **wanted)


def _hint(word: str, known: Iterable[str]) -> str:
    known = list(known)
    return _near(word, known) or f"; known are {', '.join(sorted(known))}"


def _near(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def toml(value: Any) -> str:
    """Return a value as TOML: text, numbers, truth values, dates, lists of them.

    >>> toml(["no", 1])
    '["no", 1]'
    """
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + "".join(_escaped(character) for character in value) + '"'
        case datetime():
            return value.isoformat()
        case date():
            return value.isoformat()
        case float():
            return float.__repr__(value)  # a numpy float would name its type
        case int():
            return int.__repr__(value)
        case list() | tuple():
            return "[" + ", ".join(toml(each) for each in value) + "]"
        case _:
            raise TypeError(f"{type(value).__name__} has no TOML form here")


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if ord(character) < 0x20 or ord(character) == 0x7F:
        return f"\\u{ord(character):04x}"
    return character


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
