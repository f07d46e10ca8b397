"""Public facts about a table, and nothing else: its columns, their types, bounds and categories.

What a schema says is taken as public: it costs nothing and is repeated in the statement, with who
attests it. What it leaves open is found privately, for a price.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import date, datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from dpsynth._toml import toml
from dpsynth.columns import (
    TYPES,
    Column,
    Drop,
    Facts,
    Key,
    Open,
    Ranged,
    column_faults,
    near,
    type_name,
)
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


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in the order of the output.

    Args:
        columns: Name to type.

    Raises:
        SchemaError: Something contradicts itself; all faults are named.

    >>> from dpsynth import Integer
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
    for kind in TYPES:
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
    own = [f for f in fields(column) if f.name not in {g.name for g in fields(Facts)}]
    for each in (*own, *fields(Facts)):
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
    if not isinstance(kind, str) or kind not in TYPES:
        shown = f"type {kind!r}" if kind is not None else "no type"
        faults.append(f"column {name!r} has {shown}{_hint(str(kind), TYPES)}")
        return
    for key in facts.keys() & {"categories", "bins"}:
        if isinstance(facts[key], list):
            facts[key] = tuple(facts[key])
    if kind in ("date", "datetime"):  # JSON has no dates, and TOML may quote them
        for key in facts.keys() & {"lower", "upper", "default"}:
            facts[key] = _moment(facts[key], kind)
        if isinstance(facts.get("bins"), tuple):
            facts["bins"] = tuple(_moment(each, kind) for each in facts["bins"])
    _add(columns, name, TYPES[kind], facts, faults)


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
    faults.extend(f"column {name!r} {each}" for each in column_faults(columns[name]))


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

    cls = TYPES[kind]
    hints = get_type_hints(cls)
    wanted: dict[str, Any] = {
        each.name: (hints[each.name], ... if each.default is MISSING else each.default)
        for each in fields(cls)
    }
    return create_model(cls.__name__, __config__=ConfigDict(strict=True, extra="forbid"), **wanted)


def _hint(word: str, known: Iterable[str]) -> str:
    known = list(known)
    return near(word, known) or f"; known are {', '.join(sorted(known))}"
