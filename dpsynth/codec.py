"""From values to codes and back, one column at a time, whatever the values are.

Encoding is total and row-wise: any value of any type gets a code, and the code of a row depends on
that row alone. A refusal that depended on a row would be an answer that nobody paid for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Kind = Literal["integer", "real", "date", "datetime"]

MOST_FINE = 512
"""Up to so many possible values, each has a code of its own; beyond, cells of a public grid."""

_UNIFORM = 128  # cells of the uniform part of a grid
_SECONDS, _DAYS = 1, 86_400


def text_of(values: pd.Series) -> NDArray[np.object_]:
    """Return the canonical text of each value, None for a missing one.

    Whole floats read as integers, so that a column of 1, 2, 3 has the same categories whether or
    not a missing value made it floating point. Other text is taken as it is, unstripped; the empty
    string is missing, as in a CSV.

    >>> text_of(pd.Series([3.0, None, "a "], dtype=object)).tolist()
    ['3', None, 'a ']
    """
    objects = values.astype(object).to_numpy(dtype=object)
    distinct: dict[Any, str | None] = {}
    out = np.empty(len(objects), dtype=object)
    for position, value in enumerate(objects):
        key = (type(value), value)
        try:
            out[position] = distinct[key]
        except KeyError:
            out[position] = distinct[key] = _text(value)
        except TypeError:  # unhashable: not worth remembering
            out[position] = _text(value)
    return out


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


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
        unknown = absent if self.fallback < 0 else self.fallback
        codes: dict[str | None, int] = {text: code for code, text in enumerate(self.texts)}
        codes[None] = absent
        texts = text_of(values)
        found = (codes.get(text, unknown) for text in texts)
        return np.fromiter(found, dtype=np.int32, count=len(texts))

    def decode(self, codes: NDArray[np.int32], rng: np.random.Generator) -> pd.Series:
        """Return the categories of codes, in the categories' own type."""
        del rng
        table: list[Any] = [*self.values, *([None] if self.missing else [])]
        whole = all(isinstance(v, int) and not isinstance(v, bool) for v in self.values)
        truth = all(isinstance(v, bool) for v in self.values)
        picked = np.array(table, dtype=object)[codes]
        if whole or truth:
            wide = ("Int64" if whole else "boolean") if self.missing else None
            return pd.Series(picked).astype(wide or ("int64" if whole else "bool"))
        return pd.Series(picked, dtype=object)

    def label(self, code: int) -> str:
        """Return a code's name for reports."""
        return self.texts[code] if code < len(self.texts) else "(missing)"

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
        codes = np.full(len(values), absent, dtype=np.int32)
        texts = pd.Series(text_of(values), dtype=object).fillna("").str.strip().str.lower()
        codes[texts.isin(self._TRUE).to_numpy()] = 1
        codes[texts.isin(self._FALSE).to_numpy()] = 0
        return codes

    def decode(self, codes: NDArray[np.int32], rng: np.random.Generator) -> pd.Series:
        """Return booleans; nullable ones if missing values are allowed."""
        del rng
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

    A code is a cell ``[starts[i], starts[i + 1])`` of a grid that follows from public facts alone;
    the last cell ends at ``upper``, inclusive. Numbers are int64 for integers, dates (days since
    1970) and datetimes (seconds since 1970, UTC), float64 for reals.

    Attributes:
        of: What the numbers are.
        starts: Lower ends of the cells, increasing.
        upper: The upper bound.
        step: Spacing of the values of a real, if declared.
        default: Number that stands for a missing value where none is allowed.
        missing: Whether a missing value has a code, the last one.
    """

    of: Kind
    starts: tuple[int, ...] | tuple[float, ...]
    upper: float | int
    step: float | None
    default: float | int
    missing: bool
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
        numbers, known = numbers_of(values, self.of)
        starts = np.array(self.starts, dtype=numbers.dtype)
        if self.step is not None:
            # Values are declared on a lattice: move each to it, or 0.1 + 0.2 would miss its cell.
            low = float(self.starts[0])
            numbers = low + np.rint((numbers - low) / self.step) * self.step
            starts = starts - self.step / 2
        clipped = np.clip(numbers, self.starts[0], self.upper)
        codes = np.searchsorted(starts, clipped, side="right") - 1
        absent: int | NDArray[np.int64] = len(self.starts)
        if not self.missing:
            absent = np.searchsorted(starts, self.default, side="right") - 1
        return np.where(known, np.maximum(codes, 0), absent).astype(np.int32)

    def decode(self, codes: NDArray[np.int32], rng: np.random.Generator) -> pd.Series:
        """Return values drawn uniformly inside each code's cell, in the column's own type."""
        gone = codes == len(self.starts)
        cell = np.minimum(codes, len(self.starts) - 1)
        if self.of == "real":
            ends = np.append(self.starts[1:], self.upper).astype(np.float64)
            low = np.array(self.starts, dtype=np.float64)
            numbers = low[cell] + rng.random(len(cell)) * (ends - low)[cell]
            if self.step is not None:
                lattice = low[0] + np.floor((numbers - low[0]) / self.step + 1e-9) * self.step
                digits = max(0, -math.floor(math.log10(self.step)) + 6)
                numbers = np.round(np.maximum(lattice, low[cell]), digits)
            return _typed(np.clip(numbers, low[0], self.upper), gone, self.of, self.missing)
        low_ = np.array(self.starts, dtype=np.int64)
        ends_ = np.append(self.starts[1:], int(self.upper) + 1).astype(np.int64)
        whole = rng.integers(low_[cell], ends_[cell])
        return _typed(whole, gone, self.of, self.missing)

    def label(self, code: int) -> str:
        """Return a code's name for reports: its value, or the range of its cell."""
        if code >= len(self.starts):
            return "(missing)"
        low = self.starts[code]
        last = code + 1 == len(self.starts)
        high = self.upper if last else self.starts[code + 1]
        if self.of == "real":
            return f"{low:.6g}" if high == low else f"[{low:.6g}, {high:.6g})"
        top = int(high) if last else int(high) - 1
        ends = [_show(int(end), self.of) for end in (low, top)]
        return ends[0] if ends[0] == ends[1] else f"{ends[0]}..{ends[1]}"

    def to_json(self) -> dict[str, Any]:
        """Return the codec as plain JSON data."""
        return {"codec": "numeric", **vars(self)}


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
            return NumericCodec(starts=tuple(data.pop("starts")), **data)
        case other:
            raise ValueError(f"unknown codec {other!r}")


# -- numbers -------------------------------------------------------------------------------------


def numbers_of(values: pd.Series, of: Kind) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return each value as a number, and whether it is one; row-wise, and never an exception.

    Returns:
        int64 (integer, date, datetime) or float64 (real) of shape (rows,), and bool (rows,).
    """
    if of in ("date", "datetime"):
        return _times_of(values, of)
    if pd.api.types.is_integer_dtype(values.dtype) and not values.isna().any():
        raw = values.to_numpy()
        if of == "integer" and raw.dtype.kind == "i":
            return raw.astype(np.int64), np.ones(len(raw), dtype=bool)
    if values.dtype == object or not pd.api.types.is_numeric_dtype(values.dtype):
        values = pd.Series(text_of(values), dtype=object).replace({"True": "1", "False": "0"})
    floats = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    known = ~np.isnan(floats)
    if of == "real":
        return np.where(known, floats, 0.0), known
    bounded = np.clip(np.where(known, floats, 0.0), -(2.0**62), 2.0**62)
    return np.rint(bounded).astype(np.int64), known


def _times_of(values: pd.Series, of: Kind) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return days or seconds since 1970, in UTC; a text is read as ISO 8601."""
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        times = values
    else:
        texts = pd.Series(text_of(values), dtype=object)
        times = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
    if getattr(times.dt, "tz", None) is not None:
        times = times.dt.tz_convert("UTC").dt.tz_localize(None)
    known = times.notna().to_numpy(dtype=bool)
    filled = times.where(times.notna(), pd.Timestamp(0)).to_numpy(dtype="datetime64[s]")
    seconds = filled.astype(np.int64)
    unit = _DAYS if of == "date" else _SECONDS
    return np.floor_divide(seconds, unit), known


def _typed(numbers: NDArray[Any], gone: NDArray[np.bool_], of: Kind, missing: bool) -> pd.Series:
    if of == "real":
        return pd.Series(np.where(gone, np.nan, numbers))
    if of == "integer":
        if not missing:
            return pd.Series(numbers.astype(np.int64))
        return pd.Series(pd.array(numbers, dtype="Int64")).mask(pd.Series(gone))
    seconds = numbers * (_DAYS if of == "date" else _SECONDS)
    return pd.Series(seconds.astype("datetime64[s]")).mask(pd.Series(gone))


def _show(number: int, of: Kind) -> str:
    if of == "integer":
        return str(number)
    seconds = number * (_DAYS if of == "date" else _SECONDS)
    return str(np.datetime64(seconds, "s").astype("datetime64[D]" if of == "date" else None))


# -- grids: cells from public facts alone --------------------------------------------------------


def fine_starts(
    of: Kind, lower: float | int, upper: float | int, step: float | None
) -> tuple[int, ...] | tuple[float, ...]:
    """Return the starts of the cells of a column with public bounds.

    Few possible values: one cell each. Many: a uniform grid joined with one that is geometric
    around zero, since amounts spread over orders of magnitude; zero and both bounds have cells of
    their own, since zeros and top codes are common.
    """
    if of == "real":
        if step is not None and (upper - lower) / step <= MOST_FINE - 1:
            count = math.floor((upper - lower) / step + 1e-9) + 1
            return tuple(float(np.round(lower + i * step, 12)) for i in range(count))
        return _real_starts(float(lower), float(upper), step)
    low, high = int(lower), int(upper)
    if high - low < MOST_FINE:
        return tuple(range(low, high + 1))
    edges = {low + (high - low) * i // _UNIFORM for i in range(_UNIFORM)}
    if of == "integer":
        edges |= {int(e) for e in _geometric(low, high, 1.0)}
        edges |= {0, 1} if low <= 0 <= high else set()
    edges |= {low, low + 1, high}
    return tuple(sorted(e for e in edges if low <= e <= high))


def _real_starts(lower: float, upper: float, step: float | None) -> tuple[float, ...]:
    unit = step if step is not None else (upper - lower) * 1e-6
    edges = set(np.linspace(lower, upper, _UNIFORM, endpoint=False).tolist())
    edges |= set(_geometric(lower, upper, unit))
    # A single value is a cell whose width is the smallest step.
    singles = [lower, *([0.0] if lower < 0 < upper or lower == 0.0 else [])]
    edges |= {s for single in singles for s in (single, single + unit)} | {upper}
    if step is not None:
        edges = {lower + round((e - lower) / step) * step for e in edges}
    inside = sorted(e for e in edges if lower <= e <= upper)
    kept = [inside[0]]
    for edge in inside[1:]:
        if edge - kept[-1] >= unit / 2:
            kept.append(edge)
    return tuple(float(np.round(e, 12)) if step is not None else e for e in kept)


def _geometric(lower: float, upper: float, unit: float) -> list[float]:
    """Return edges +-unit * 2**(j / 4) inside the bounds; those of a range without 0, by ratio."""
    reach = max(abs(lower), abs(upper))
    octaves = math.ceil(math.log2(max(reach / unit, 2.0)))
    sizes = [unit * 2 ** (j / 4) for j in range(4 * octaves + 1)]
    return [s for size in sizes for s in (size, -size) if lower <= s <= upper]


@dataclass(frozen=True)
class Grid:
    """A public grid over everything a column without declared bounds could hold.

    Attributes:
        of: What the numbers are.
        starts: Lower ends of the cells, increasing; the first also takes all that lies below.
        size: Number of codes: the cells, and one for what is missing, the last.
    """

    of: Kind
    starts: tuple[int, ...] | tuple[float, ...]

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.starts) + 1

    def encode(self, values: pd.Series) -> NDArray[np.int64]:
        """Return int64 codes of shape (rows,)."""
        numbers, known = numbers_of(values, self.of)
        starts = np.array(self.starts, dtype=numbers.dtype)
        codes = np.maximum(np.searchsorted(starts, numbers, side="right") - 1, 0)
        return np.where(known, codes, len(self.starts)).astype(np.int64)


def widest_grid(of: Kind) -> Grid:
    """Return the grid for a column of which only the type is public."""
    if of == "integer":
        sizes = sorted({round(2 ** (j / 4)) for j in range(4 * 62)})
        return Grid(of, tuple([-s for s in reversed(sizes)] + [0] + sizes))
    if of == "real":
        magnitudes = [2.0 ** (j / 4) for j in range(-4 * 20, 4 * 60)]
        return Grid(of, tuple([-m for m in reversed(magnitudes)] + [0.0] + magnitudes))
    months = np.arange("1800-01", "2200-01", 6, dtype="datetime64[M]").astype("datetime64[D]")
    unit = 1 if of == "date" else _DAYS
    return Grid(of, tuple(int(day) * unit for day in months.astype(np.int64)))


def bounds_from_histogram(
    grid: Grid, counts: NDArray[np.int64], sigma: float
) -> tuple[float, float] | tuple[int, int]:
    """Return bounds that hold all cells that stand out of the noise: post-processing.

    Args:
        grid: The grid that was counted.
        counts: int64 noisy counts, one a code.
        sigma: Standard deviation of the noise.

    Returns:
        The start of the first such cell and the end of the last; cells around zero (the present
        day, for dates) if none stands out. Never the least or greatest value itself.
    """
    level = sigma * (math.sqrt(2 * math.log(2 * grid.size)) + 1)
    found = np.flatnonzero(counts[: len(grid.starts)] > level)
    if not len(found):
        middle = len(grid.starts) // 2
        found = np.array([middle - 4, middle + 4])
    low = grid.starts[int(found[0])]
    after = int(found[-1]) + 1
    if grid.of == "real":
        return float(low), float(grid.starts[min(after, len(grid.starts) - 1)])
    # The cell of one integer ends at that integer: its successor belongs to the next.
    high = grid.starts[after] - 1 if after < len(grid.starts) else grid.starts[-1]
    return int(low), int(max(high, low + 1))
