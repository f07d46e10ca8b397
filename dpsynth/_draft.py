"""A first schema for a table: guesses for a person to confirm, made by reading private rows."""

from __future__ import annotations

import os
from datetime import date, datetime
from decimal import ROUND_FLOOR, Decimal

import numpy as np
import pandas as pd

from dpsynth._toml import toml
from dpsynth._values import numbers_of, text_of
from dpsynth.codec import BooleanCodec
from dpsynth.vault import column_names, load_table

_FEW = 40  # up to so many distinct texts are guessed to be a closed list
_HEADER = """\
# A draft, made by reading the private table: keep it with the table until you have been through it.
# Confirm each column from PUBLIC knowledge (a codebook, a form, a law), not from what this draft
# saw: correct it, say where the fact comes from (source = "..."), who vouches for it
# (attested_by = "..."), and set confirmed = true. What is not public: remove the bounds, or use
# type = "open"; it is then found privately, for a price. Types: categorical, open, integer, real,
# date, datetime, boolean, drop, key.
format_version = 1
"""


def draft(table: str | os.PathLike[str]) -> str:
    """Return a schema file's text, with every guess marked ``confirmed = false``.

    Raises:
        InvalidRequest: The file is no table.
    """
    names = column_names(table)
    frame = load_table(table, tuple(names))
    return _HEADER + "".join(_column(name, frame[name]) for name in names)


def _column(name: str, values: pd.Series) -> str:
    facts, note = guess(name, values)
    lines = [f"{key} = {toml(value)}" for key, value in facts.items()]
    return "\n".join(["", f"[columns.{toml(name)}]  # {note}", *lines, "confirmed = false", ""])


def guess(name: str, values: pd.Series) -> tuple[dict[str, object], str]:
    """Return what a column may be, in a schema's words, and what a person should ask about it."""
    texts = pd.Series(text_of(values), dtype=object)
    known = texts.dropna()
    facts: dict[str, object] = {"type": "open"}
    note = "frequent categories are found privately; list them instead if they are public"
    if known.empty:
        facts, note = {"type": "drop"}, "no values were seen"
    elif _looks_like_key(name, known):
        facts, note = {"type": "key"}, "an identifier? It is replaced by a fresh surrogate"
    elif set(BooleanCodec(0, True).encode(known).tolist()) == {0, 1} and known.nunique() == 2:
        facts, note = {"type": "boolean"}, "two values that read as true and false"
    elif (number := _number(values, texts)) is not None:
        facts, note = number, "are these bounds public? They were rounded outwards from the data"
    elif (moment := _moment(values, texts)) is not None:
        facts, note = moment, "are these bounds public? They are whole years around the data"
    elif known.nunique() <= _FEW:
        facts = {"type": "categorical", "categories": sorted(known.unique())}
        note = "is this list public and complete? It was read from the data"
    elif 2 * known.nunique() > len(known):
        facts = {"type": "drop"}
        note = 'free text? Most values occur once; type = "open" would find the frequent ones'
    if texts.isna().any() and facts["type"] not in ("drop", "key"):
        facts["missing"] = True
    return facts, note


def _looks_like_key(name: str, known: pd.Series) -> bool:
    distinct = known.nunique()
    low = name.lower()
    named = low in ("id", "uuid", "key") or low.endswith(("_id", "id_nr", "uuid"))
    long = distinct == len(known) and bool(known.str.len().gt(12).all())
    return bool(distinct > _FEW and (named or long))


def _number(values: pd.Series, texts: pd.Series) -> dict[str, object] | None:
    numbers, readable = numbers_of(values, "real")
    if not readable[texts.notna().to_numpy()].all():
        return None
    found = numbers[readable & np.isfinite(numbers)]
    if not len(found):
        return None
    whole = bool((found == np.rint(found)).all())
    most = 2.0 ** (62 if whole else 60)  # what a schema may say
    low = min(max(-_outwards(-float(found.min())), -most), most / 2)
    high = max(min(_outwards(float(found.max())), most), -most / 2)
    if whole:
        return {"type": "integer", "lower": int(low), "upper": max(int(high), int(low) + 1)}
    return {"type": "real", "lower": low, "upper": high}


_SMALLEST = 1e-300


def _outwards(bound: float) -> float:
    """Return a round number above a bound, so that it is no one's value; 0 stays.

    >>> [_outwards(bound) for bound in (17.0, 20.0, 0.3, -17.0, -1.0, 0.0)]
    [20.0, 30.0, 0.4, -10.0, 0.0, 0.0]
    """
    exact = Decimal(repr(bound))
    if not exact:
        return 0.0
    if abs(bound) < _SMALLEST:  # too near the end of the floats for a round neighbour
        return _SMALLEST if bound > 0 else 0.0
    size = Decimal(1).scaleb(exact.adjusted())
    return float(((exact / size).to_integral_value(ROUND_FLOOR) + 1) * size)


def _moment(values: pd.Series, texts: pd.Series) -> dict[str, object] | None:
    known = texts.dropna()
    shaped = known.str.fullmatch(r"\d{4}-\d{2}-\d{2}([T ].*)?")
    if not shaped.all() and not pd.api.types.is_datetime64_any_dtype(values.dtype):
        return None
    seconds, readable = numbers_of(values, "datetime")
    if not readable[texts.notna().to_numpy()].all():
        return None
    known_days = seconds[readable] // 86_400
    first, last = (_year(day) for day in (int(known_days.min()) - 1, int(known_days.max()) + 1))
    if (seconds[readable] % 86_400 == 0).all():
        return {"type": "date", "lower": date(first, 1, 1), "upper": date(last, 12, 31)}
    end = datetime(last, 12, 31, 23, 59, 59)
    return {"type": "datetime", "lower": datetime(first, 1, 1), "upper": end}


def _year(day: int) -> int:
    """Return the year of a day since 1970, within what a schema may say."""
    year = int(np.datetime64(day, "D").astype("datetime64[Y]").astype(np.int64)) + 1970
    return min(max(year, 1), 9999)
