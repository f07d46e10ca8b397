"""What each synthetic column looks like, from the synthetic table alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.report._page import number, percent, shorten
from dpsynth.report.svg import Bar, lying, upright

MOST_FIGURES = 60
"""Most columns that are drawn."""

BINS = 24
"""Most bins of a numeric column."""

MOST_CATEGORIES = 12
"""Most categories drawn by themselves."""

_EXACT_FLOAT = 2.0**53  # whole numbers beyond it have no float of their own
_LABEL, _TITLE, _NAME = 16, 80, 60


@dataclass(frozen=True)
class Figure:
    """A small drawing of one column.

    Attributes:
        name: The column.
        kind: What is drawn.
        bars: One a bin or a category.
        labels: The categories' short names, or the least and the greatest value.
        shares: The categories' shares as text; empty for bins.
        missing: Share of rows without a value.
        summary: The drawing in words.
    """

    name: str
    kind: Literal["bins", "categories", "none"]
    bars: tuple[Bar, ...]
    labels: tuple[str, ...]
    shares: tuple[str, ...]
    missing: float
    summary: str


def figures(table: pd.DataFrame, keys: Collection[str] = ()) -> tuple[Figure, ...]:
    """Return one drawing a column, of the first 60.

    Args:
        table: Synthetic rows; not changed.
        keys: Columns of made-up identifiers, which have no distribution to draw.
    """
    return tuple(
        figure(str(table.columns[j]), table.iloc[:, j], is_key=str(table.columns[j]) in keys)
        for j in range(min(table.shape[1], MOST_FIGURES))
    )


def figure(name: str, column: pd.Series[Any], *, is_key: bool = False) -> Figure:
    """Return the drawing of one column: bins of numbers and dates, else frequent categories."""
    rows, name = len(column), shorten(name, _NAME)
    if is_key:
        return Figure(name, "none", (), (), (), 0.0, "Identifiers, made up for this table.")
    present = column.dropna()
    if present.empty:
        return _nothing(name, rows)
    found = _positions(present)
    if found is not None:
        keep = np.isfinite(found[0])
        found = (found[0][keep], found[1])
    shown = len(present) if found is None else len(found[0])
    if shown == 0:
        return _nothing(name, rows)
    missing = 1 - shown / rows
    if found is not None:
        return _bins(name, *found, rows, missing)
    return _categories(name, present, rows, missing)


def _nothing(name: str, rows: int) -> Figure:
    summary = "No values." if rows else "No rows."
    return Figure(name, "none", (), (), (), 1.0 if rows else 0.0, summary)


def _positions(
    present: pd.Series[Any],
) -> tuple[NDArray[np.float64], Callable[[float], str]] | None:
    """Return values as places on a line and how to read a place, or None for categories."""
    types = pd.api.types
    if types.is_bool_dtype(present.dtype) or types.is_complex_dtype(present.dtype):
        return None
    if types.is_numeric_dtype(present.dtype):
        return present.to_numpy(dtype=np.float64, na_value=np.nan), _figure_of
    if types.is_datetime64_any_dtype(present.dtype):
        # Seconds are exact as floats where nanoseconds are not.
        local = present.dt.tz_localize(None)  # as the zone's clocks show it, if there is a zone
        wide = local.dt.as_unit("s").astype("int64").to_numpy(dtype=np.float64)
        return wide, _moment if np.ptp(wide) < 3 * 86400 else _day
    if present.dtype == object and all(isinstance(each, date) for each in present):
        days = np.array([each.toordinal() for each in present], dtype=np.float64)
        return days, lambda place: date.fromordinal(round(place)).isoformat()
    return None


def _figure_of(place: float) -> str:
    return f"{place:.0f}" if place.is_integer() and abs(place) < 1e12 else number(place)


def _moment(seconds: float) -> str:
    return str(np.datetime64(math.floor(seconds), "s")).replace("T", " ")


def _day(seconds: float) -> str:
    return _moment(seconds)[:-9]


def _bins(
    name: str,
    places: NDArray[np.float64],
    show: Callable[[float], str],
    rows: int,
    missing: float,
) -> Figure:
    low, high = float(places.min()), float(places.max())
    whole = max(abs(low), abs(high)) < _EXACT_FLOAT and bool((places == np.rint(places)).all())
    if whole:
        # Bins of equally many whole numbers: others would show a comb that is not there.
        span = int(high - low) + 1
        width = math.ceil(span / BINS)
        bins = math.ceil(span / width)
        number_of = ((places - low) // width).astype(np.int64)
        ends = [(low + i * width, min(low + (i + 1) * width - 1, high)) for i in range(bins)]
    else:
        # Halves, as the width of the range itself may be beyond a float.
        half = high / 2 - low / 2
        bins = BINS if half > 0 else 1
        share = (places / 2 - low / 2) / half if half > 0 else np.zeros_like(places)
        number_of = np.minimum((share * bins).astype(np.int64), bins - 1)
        cuts = [low * (1 - i / bins) + high * (i / bins) for i in range(bins + 1)]
        ends = list(pairwise(cuts))
    shares = [int(c) / rows for c in np.bincount(number_of, minlength=bins)]
    titles = [
        f"{show(a) if show(a) == show(b) else f'{show(a)} to {show(b)}'}: {percent(s)}"
        for (a, b), s in zip(ends, shares, strict=True)
    ]
    labels = (show(low), show(high))
    summary = f"Values from {labels[0]} to {labels[1]}; the tallest bar is {percent(max(shares))}."
    return Figure(name, "bins", upright(shares, titles), labels, (), missing, summary)


def _categories(name: str, present: pd.Series[Any], rows: int, missing: float) -> Figure:
    counts = _counts(present)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    drawn = [(shorten(value, _TITLE), hits / rows) for value, hits in ranked[:MOST_CATEGORIES]]
    rest = ranked[MOST_CATEGORIES:]
    if rest:
        drawn.append((f"{len(rest):,} others", sum(hits for _, hits in rest) / rows))
    titles = [f"{value}: {percent(share)}" for value, share in drawn]
    return Figure(
        name,
        "categories",
        lying([share for _, share in drawn], titles),
        tuple(shorten(value, _LABEL) for value, _ in drawn),
        tuple(f"{100 * share:.1f}\u00a0%" for _, share in drawn),
        missing,
        f"{len(counts):,} distinct values; most frequent is {titles[0]}.",
    )


def _counts(present: pd.Series[Any]) -> Counter[str]:
    counts: Counter[str] = Counter()
    try:
        hits = present.value_counts()
    except TypeError:  # lists and the like have no hash
        return Counter(str(value) for value in present)
    for value, times in zip(hits.index, hits.to_numpy(), strict=True):
        counts[str(value)] += int(times)
    return Counter({value: times for value, times in counts.items() if times})
