"""Values as TOML, which the standard library reads but does not write."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any


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
