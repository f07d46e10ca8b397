"""From values to codes and back, one column at a time, whatever the values are.

Encoding is total and row-wise: any value of any type gets a code, and the code of a row depends on
that row alone. A refusal that depended on a row would be an answer that nobody paid for.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth._cells import leans
from dpsynth._values import DAY, Kind, distinct_texts, numbers_of
from dpsynth._zones import moments_in, zone_of
from dpsynth.grids import lattice

Shares = NDArray[np.float64] | None
"""The public probability of each code of a column, if it is known."""

NO_CATEGORY, NO_VALUE = -1, -2
"""What :meth:`CategoricalCodec.find` says of a value that is no category, and of a missing one."""


def _written_otherwise(value: str | int | bool) -> tuple[str, ...]:
    match value:
        case bool():
            return (str(value).lower(), str(value).upper())
        case str():
            return (_unpadded(value),)
        case _:
            return ()


def _unpadded(text: str) -> str:
    """Return a whole number's text without ``.0``; other text as it is."""
    return text.partition(".")[0] if re.fullmatch(r"-?[0-9]+\.0+", text) else text


@dataclass(frozen=True)
class CategoricalCodec:
    """Codes for a fixed list of categories.

    Attributes:
        texts: Canonical text of each category, in code order.
        values: What each category decodes to.
        fallback: Code of a value that is no category; -1 sends it where a missing one goes.
        default: Code of a missing value where none is allowed.
        missing: Whether a missing value has a code, the last one.
    """

    texts: tuple[str, ...]
    values: tuple[str | int | bool, ...]
    fallback: int
    default: int
    missing: bool
    kind: ClassVar[str] = "categorical"

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.texts) + self.missing

    @property
    def ordered(self) -> int:
        """Number of leading codes in natural order: none, categories have no order."""
        return 0

    def encode(self, values: pd.Series) -> NDArray[np.int32]:
        """Return int32 codes of shape (rows,)."""
        absent = len(self.texts) if self.missing else self.default
        found = self.find(values)
        found[found == NO_CATEGORY] = absent if self.fallback < 0 else self.fallback
        found[found == NO_VALUE] = absent
        return found

    def holds(self, values: pd.Series) -> NDArray[np.bool_]:
        """Return which values are categories, shape (rows,)."""
        return np.asarray(self.find(values) >= 0)

    def find(self, values: pd.Series) -> NDArray[np.int32]:
        """Return the int32 code of each value, or NO_CATEGORY, or NO_VALUE.

        Where a category is a whole number, so is the text 3.0, as a file of floats has it. Texts
        that are no category themselves also find the category 3.0 as 3, as a column of floats has
        it, and a truth value in lower or upper case, as other tools write it.
        """
        codes = {text: code for code, text in enumerate(self.texts)}
        for code, value in enumerate(self.values):
            for text in _written_otherwise(value):
                codes.setdefault(text, code)
        positions, distinct = distinct_texts(values)
        if any(isinstance(v, int) and not isinstance(v, bool) for v in self.values):
            found = [codes.get(text, codes.get(_unpadded(text), NO_CATEGORY)) for text in distinct]
        else:
            found = [codes.get(text, NO_CATEGORY) for text in distinct]
        return np.array([*found, NO_VALUE], dtype=np.int32)[positions]  # missing is at -1

    def decode(
        self, codes: NDArray[np.int32], rng: np.random.Generator, shares: Shares = None
    ) -> pd.Series:
        """Return the categories of codes, in the categories' own type; nothing is drawn."""
        del rng, shares
        table = np.array([*self.values, *([None] if self.missing else [])], dtype=object)
        kinds = {type(value) for value in self.values}
        dtype: Any = object
        if kinds == {int}:
            dtype = "Int64" if self.missing else "int64"
        elif kinds == {bool}:
            dtype = "boolean" if self.missing else "bool"
        elif kinds == {str}:
            dtype = pd.Series(["text"]).dtype  # what this pandas reads text as
        decoded: pd.Series = pd.Series(table[codes], dtype=dtype)
        return decoded

    def label(self, code: int) -> str:
        """Return a code's name for reports."""
        if code < len(self.texts):
            return self.texts[code]
        name = "(missing)"
        while name in self.texts:
            name = f"{name}_"
        return name

    def to_json(self) -> dict[str, Any]:
        """Return the codec as plain JSON data."""
        return {"codec": "categorical", **vars(self)}


@dataclass(frozen=True)
class BooleanCodec:
    """Codes 0 (false) and 1 (true) for what people write as truth values.

    Attributes:
        default: Code of a missing or unreadable value where none is allowed.
        missing: Whether a missing value has a code, the last one.
    """

    default: int
    missing: bool
    kind: ClassVar[str] = "boolean"
    _TRUE: ClassVar[frozenset[str]] = frozenset({"true", "1", "yes", "t", "y"})
    _FALSE: ClassVar[frozenset[str]] = frozenset({"false", "0", "no", "f", "n"})

    @property
    def size(self) -> int:
        """Number of codes."""
        return 2 + self.missing

    @property
    def ordered(self) -> int:
        """Number of leading codes in natural order: none."""
        return 0

    def encode(self, values: pd.Series) -> NDArray[np.int32]:
        """Return int32 codes of shape (rows,)."""
        absent = 2 if self.missing else self.default
        found = self._find(values)
        return np.where(found == NO_VALUE, absent, found).astype(np.int32)

    def holds(self, values: pd.Series) -> NDArray[np.bool_]:
        """Return which values are truth values, shape (rows,)."""
        return np.asarray(self._find(values) >= 0)

    def _find(self, values: pd.Series) -> NDArray[np.int32]:
        words = dict.fromkeys(self._TRUE, 1) | dict.fromkeys(self._FALSE, 0)
        positions, distinct = distinct_texts(values)
        found = [words.get(_unpadded(text.strip().lower()), NO_VALUE) for text in distinct]
        return np.array([*found, NO_VALUE], dtype=np.int32)[positions]

    def decode(
        self, codes: NDArray[np.int32], rng: np.random.Generator, shares: Shares = None
    ) -> pd.Series:
        """Return booleans, nullable ones if missing values are allowed; nothing is drawn."""
        del rng, shares
        if not self.missing:
            return pd.Series(codes == 1)
        return pd.Series(pd.array(codes == 1, dtype="boolean")).mask(pd.Series(codes == 2))

    def label(self, code: int) -> str:
        """Return a code's name for reports."""
        return ("false", "true", "(missing)")[code]

    def to_json(self) -> dict[str, Any]:
        """Return the codec as plain JSON data."""
        return {"codec": "boolean", "default": self.default, "missing": self.missing}


@dataclass(frozen=True)
class NumericCodec:
    """Codes for numbers, dates and times between two bounds.

    A code is a cell ``[starts[i], starts[i + 1])``, from public facts and answers that were paid
    for; the last cell ends at ``upper``, inclusive. Numbers are int64 for integers, dates (days
    since 1970) and datetimes (seconds since 1970, UTC if a zone is given), float64 for reals.

    Attributes:
        of: What the numbers are.
        starts: Lower ends of the cells, increasing.
        upper: The upper bound.
        step: Spacing of the values of a real, if declared.
        default: Number that stands for a missing value where none is allowed.
        missing: Whether a missing value has a code, the last one.
        zone: Name of the time zone of datetimes, if declared.
    """

    of: Kind
    starts: tuple[int, ...] | tuple[float, ...]
    upper: float | int
    step: float | None
    default: float | int
    missing: bool
    zone: str | None = None
    kind: ClassVar[str] = "numeric"

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.starts) + self.missing

    @property
    def ordered(self) -> int:
        """Number of leading codes in natural order: all but the missing one."""
        return len(self.starts)

    def encode(self, values: pd.Series) -> NDArray[np.int32]:
        """Return int32 codes of shape (rows,): clipped to the bounds, the unreadable missing."""
        numbers, known = self._numbers(values)
        absent = len(self.starts) if self.missing else self._cells(np.array([self.default]))[0]
        return np.where(known, self._cells(numbers), absent).astype(np.int32)

    def holds(self, values: pd.Series) -> NDArray[np.bool_]:
        """Return which values are numbers within the bounds, shape (rows,)."""
        numbers, known = self._numbers(values)
        return np.asarray(known & (numbers >= self.starts[0]) & (numbers <= self.upper))

    def _numbers(self, values: pd.Series) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        return numbers_of(values, self.of, zone_of(self.zone) if self.zone else None)

    def _cells(self, numbers: NDArray[Any]) -> NDArray[np.int64]:
        """Return the cell of each number, the nearest for those outside the bounds."""
        starts: NDArray[Any] = np.array(self.starts, dtype=self._dtype)
        if self.step is not None:
            # Values are declared on a lattice: count steps, or 0.1 + 0.2 would miss its cell.
            numbers, starts = self._places(numbers, self.step), self._places(starts, self.step)
        cells = np.searchsorted(starts, numbers, side="right") - 1
        return np.asarray(np.clip(cells, 0, len(starts) - 1), dtype=np.int64)

    @property
    def _dtype(self) -> type[np.int64 | np.float64]:
        return np.float64 if self.of == "real" else np.int64

    def _places(self, numbers: NDArray[Any], step: float) -> NDArray[np.int64]:
        """Return how many steps above the lower bound a number lies."""
        inside: NDArray[np.float64] = np.clip(numbers, self.starts[0], self.upper)
        return np.rint((inside - self.starts[0]) / step).astype(np.int64)

    def decode(
        self, codes: NDArray[np.int32], rng: np.random.Generator, shares: Shares = None
    ) -> pd.Series:
        """Return values drawn inside each code's cell, in the column's own type.

        Args:
            codes: int32 (rows,).
            rng: Source of the draws.
            shares: float64 (size,), probability of each code: then draws follow a density whose
                slope in a cell comes from the shares around it; without them it is flat.
        """
        gone = codes == len(self.starts)
        cell = np.minimum(codes, len(self.starts) - 1)
        starts, ends = self._ends()
        low, end = starts[cell], ends[cell]
        drawn = self._drawn(low, end, rng)
        if shares is not None:
            # A line is a mixture of a flat density and of the greater, or less, of two flat draws:
            # this is exact for whole numbers too, however wide the cell.
            lean = leans(self._widths(starts, ends), shares[: len(starts)])[cell]
            second = self._drawn(low, end, rng)
            leaned = np.where(lean > 0, np.maximum(drawn, second), np.minimum(drawn, second))
            drawn = np.where(rng.random(len(cell)) < np.abs(lean), leaned, drawn)
        if self.step is not None:
            drawn = np.minimum(lattice(float(self.starts[0]), drawn, self.step), self.upper)
        return _typed(drawn, gone, self)

    def _ends(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the first value of each cell and the first after it; places, on a lattice."""
        starts: NDArray[Any] = np.array(self.starts, dtype=self._dtype)
        if self.of == "real" and self.step is None:
            return starts, np.append(starts[1:], self.upper)
        if self.step is None:
            return starts, np.append(starts[1:], int(self.upper) + 1)
        starts = self._places(starts, self.step)
        last = math.floor((self.upper - self.starts[0]) / self.step + 1e-9)
        return starts, np.append(starts[1:], max(last, int(starts[-1])) + 1)

    def _widths(self, starts: NDArray[Any], ends: NDArray[Any]) -> NDArray[np.float64]:
        """Return the width of each cell, 0 where it holds one value."""
        if starts.dtype == np.int64:
            return np.where(ends - starts > 1, ends - starts, 0).astype(np.float64)
        return np.where(ends > np.nextafter(starts, np.inf), ends - starts, 0.0)

    def _drawn(
        self, low: NDArray[Any], end: NDArray[Any], rng: np.random.Generator
    ) -> NDArray[Any]:
        """Return values drawn uniformly, at least the first and less than the second."""
        if low.dtype == np.int64:
            whole: NDArray[np.int64] = rng.integers(low, end)
            return whole
        drawn = low + rng.random(len(low)) * (end - low)
        # The end belongs to the next cell; rounding may reach it where a cell is one value.
        inside: NDArray[Any] = np.maximum(np.minimum(drawn, np.nextafter(end, -np.inf)), low)
        return inside

    def label(self, code: int) -> str:
        """Return a code's name for reports: its value, or the range of its cell."""
        if code >= len(self.starts):
            return "(missing)"
        low = self.starts[code]
        high = self.starts[code + 1] if code + 1 < len(self.starts) else None
        if self.of == "real":
            return self._real_label(low, self.upper if high is None else high)
        last = self.upper if high is None else high - 1
        ends = [_show(int(end), self.of, self.zone) for end in (low, last)]
        return ends[0] if ends[0] == ends[1] else f"{ends[0]}..{ends[1]}"

    def _real_label(self, low: float, high: float) -> str:
        single = self.step if self.step is not None else math.ulp(low)
        if high - low < 1.5 * single:
            return f"{low:.12g}"
        after = math.nextafter(low, -math.inf)  # a cell that follows a single value leaves it out
        return (
            f"({after:.12g}, {high:.12g})" if after in self.starts else f"[{low:.12g}, {high:.12g})"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the codec as plain JSON data, without the zone if there is none."""
        facts = {key: value for key, value in vars(self).items() if key != "zone" or value}
        return {"codec": "numeric", **facts}


Codec = CategoricalCodec | BooleanCodec | NumericCodec
"""The closed union of codecs."""


def codec_from_json(data: dict[str, Any]) -> Codec:
    """Return the codec that :meth:`to_json` wrote."""
    data = dict(data)
    match data.pop("codec"):
        case "categorical":
            texts, values = tuple(data.pop("texts")), tuple(data.pop("values"))
            return CategoricalCodec(texts, values, **data)
        case "boolean":
            return BooleanCodec(**data)
        case "numeric":
            if data.get("zone") is not None:
                zone_of(data["zone"])
            return NumericCodec(starts=tuple(data.pop("starts")), **data)
        case other:
            raise ValueError(f"unknown codec {other!r}")


def _typed(numbers: NDArray[Any], gone: NDArray[np.bool_], codec: NumericCodec) -> pd.Series:
    if codec.of == "real":
        return pd.Series(np.where(gone, np.nan, numbers))
    if codec.of == "integer":
        if not codec.missing:
            return pd.Series(numbers.astype(np.int64))
        return pd.Series(pd.array(numbers, dtype="Int64")).mask(pd.Series(gone))
    if codec.zone is not None:
        return moments_in(numbers, zone_of(codec.zone)).mask(pd.Series(gone))
    seconds = numbers * (DAY if codec.of == "date" else 1)
    return pd.Series(seconds.astype("datetime64[s]")).mask(pd.Series(gone))


def _show(number: int, of: Kind, zone: str | None) -> str:
    if of == "integer":
        return str(number)
    if zone is not None:
        return datetime.fromtimestamp(number, zone_of(zone)).isoformat()
    seconds = number * (DAY if of == "date" else 1)
    return str(np.datetime64(seconds, "s").astype("datetime64[D]" if of == "date" else None))
