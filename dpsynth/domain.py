"""The domain: every modelled column as codes, from declared and discovered facts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.codec import (
    BooleanCodec,
    CategoricalCodec,
    Codec,
    NumericCodec,
    Shares,
    codec_from_json,
)
from dpsynth.columns import (
    Boolean,
    Categorical,
    Column,
    Date,
    Datetime,
    Drop,
    Integer,
    Key,
    Open,
    Ranged,
    Real,
    number_of,
    type_name,
    value_of,
)
from dpsynth.grids import chosen_starts, fine_starts, on_lattice
from dpsynth.ranges import Bounds, Starts, kind_of
from dpsynth.schema import Schema
from dpsynth_accounting import InvalidRequest

FORMAT_VERSION = 1

Clique = tuple[str, ...]
"""Names of distinct columns, in the order of a table's axes."""

DISCOVERED = "discovered (paid)"
"""What a column's facts say if nobody declared them."""

FOUND = "found privately, and paid for"
"""The source that a schema names for facts that a discovery found."""


@dataclass(frozen=True)
class Domain:
    """How rows become codes and codes become rows; public.

    Attributes:
        codecs: One codec a modelled column, in order.
        output: The columns of a decoded table, in order; keys among them.
        facts: Public facts a modelled column, for the statement.
        not_private: Whether it comes from a vault whose noise follows from a seed, or whose table
            holds canaries; then nothing made with it may be published, and every artefact that
            holds it says so.
    """

    codecs: Mapping[str, Codec]
    output: tuple[str, ...]
    facts: tuple[Mapping[str, Any], ...] = ()
    not_private: bool = False

    @classmethod
    def integers(cls, sizes: Mapping[str, int], ordered: Iterable[str] = ()) -> Domain:
        """Return a domain of columns coded 0, 1, ...; those in ``ordered`` as integers."""
        numbers = set(ordered)
        codecs: dict[str, Codec] = {}
        for name, size in sizes.items():
            values = tuple(range(size))
            if name in numbers:  # one code a value, however many
                codecs[name] = NumericCodec("integer", values, size - 1, None, 0, False)
            else:
                codecs[name] = CategoricalCodec(tuple(map(str, values)), values, 0, 0, False)
        return cls(codecs, tuple(sizes))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modelled columns, in order."""
        return tuple(self.codecs)

    def size(self, name: str) -> int:
        """Return the number of codes of a column."""
        return self.codecs[name].size

    def ordered(self, name: str) -> int:
        """Return how many leading codes of a column are in natural order; 0 if it is nominal."""
        return self.codecs[name].ordered

    def shape(self, clique: Sequence[str]) -> tuple[int, ...]:
        """Return the number of codes of each column of a clique."""
        return tuple(self.size(name) for name in clique)

    def cells(self, clique: Sequence[str]) -> int:
        """Return the number of cells of a clique's marginal."""
        return math.prod(self.shape(clique))

    def label(self, name: str, code: int) -> str:
        """Return a code's name for reports."""
        return self.codecs[name].label(code)

    def schema(self, declared: Schema) -> Schema:
        """Return a schema that says all: what was declared, and what was found in its place.

        It leads to the same codes without a discovery, and is as private as this domain.

        Args:
            declared: The schema that this domain was resolved from.
        """
        return Schema(
            {
                name: _found(column, self.codecs[name]) if name in declared.undeclared else column
                for name, column in declared.columns.items()
            }
        )

    def encode(self, frame: pd.DataFrame) -> dict[str, NDArray[np.int32]]:
        """Return int32 codes of shape (rows,) a column; total: any value has a code.

        Raises:
            InvalidRequest: The frame lacks a modelled column.
        """
        places = {str(name): place for place, name in enumerate(frame.columns)}
        lacking = [name for name in self.names if name not in places]
        if lacking:
            raise InvalidRequest(
                "A table was to be coded.",
                f"It lacks the columns {', '.join(map(repr, lacking))}.",
                "Give a table with every modelled column of the schema.",
            )
        return {n: c.encode(frame.iloc[:, places[n]]) for n, c in self.codecs.items()}

    def code(self, name: str, value: object) -> int:
        """Return the code of one public value, as :meth:`codes` does."""
        return int(self.codes(name, pd.Series([value], dtype=object))[0])

    def codes(self, name: str, values: pd.Series) -> NDArray[np.int32]:
        """Return the codes of public values, None being a missing one; of no others, unlike rows.

        Raises:
            InvalidRequest: There is no such column, or a value is none of its.
        """
        codec, gone = self.codecs.get(name), values.isna().to_numpy()
        if codec is None or not np.where(gone, codec.missing, codec.holds(values)).all():
            raise InvalidRequest(
                f"A value of the column {name!r} was given.",
                "It must be a modelled column, and the value one of its categories, or within its "
                "bounds, or missing where that is allowed.",
                f"Modelled columns are {', '.join(map(repr, self.names))}.",
            )
        return codec.encode(values)

    def decode(
        self,
        codes: Mapping[str, NDArray[np.integer[Any]]],
        *,
        rng: np.random.Generator,
        shares: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> pd.DataFrame:
        """Return the rows of codes: original types, schema order, fresh surrogates for keys.

        Args:
            codes: Integers of shape (rows,), one array a modelled column.
            rng: Source of the values inside cells.
            shares: For some columns float64 (size,), the public probability of each code, on any
                scale: numbers inside a cell are then denser towards the denser neighbour.

        Raises:
            InvalidRequest: A column is lacking, of another length, or holds what is no code of it;
                or shares are not of its size, finite and at least 0.
        """
        rows = max((len(np.atleast_1d(part)) for part in codes.values()), default=0)
        columns: dict[str, pd.Series] = {}
        for name in self.output:
            if name in self.codecs:
                part = self._checked(name, codes.get(name), rows)
                known = self._checked_shares(name, (shares or {}).get(name))
                columns[name] = self.codecs[name].decode(part, rng, known)
            else:
                columns[name] = pd.Series(np.arange(1, rows + 1, dtype=np.int64))
        return pd.DataFrame(columns)

    def _checked(self, name: str, codes: NDArray[Any] | None, rows: int) -> NDArray[np.int32]:
        part = np.asarray(codes)
        right = codes is not None and part.shape == (rows,) and part.dtype.kind in "iu"
        if not right or (rows and not 0 <= part.min() <= part.max() < self.size(name)):
            raise InvalidRequest(
                f"Codes of the column {name!r} were to be decoded.",
                f"There must be {rows} of them, each from 0 to {self.size(name) - 1}.",
                "Give codes that a model of this domain drew.",
            )
        return part.astype(np.int32)

    def _checked_shares(self, name: str, shares: Any) -> Shares:
        if shares is None:
            return None
        found = np.asarray(shares, dtype=np.float64)
        if found.shape != (self.size(name),) or not (np.isfinite(found) & (found >= 0)).all():
            raise InvalidRequest(
                f"The column {name!r} was to be decoded by the shares of its codes.",
                f"There must be {self.size(name)} of them, finite and at least 0.",
                "Give a model's one-way probabilities, or none.",
            )
        return found

    def public_facts(self) -> list[dict[str, Any]]:
        """Return what is public about each column, with its source and who attests it."""
        return [dict(each) for each in self.facts]

    def to_json(self) -> dict[str, Any]:
        """Return the domain as plain JSON data."""
        return {
            "format_version": FORMAT_VERSION,
            "columns": [{"name": n, **c.to_json()} for n, c in self.codecs.items()],
            "output": list(self.output),
            "facts": self.public_facts(),
            **({"not_private": True} if self.not_private else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Domain:
        """Return the domain that :meth:`to_json` wrote.

        Raises:
            InvalidRequest: It is of another format version, or no domain.
        """
        try:
            version = data["format_version"]
            if type(version) is not int or version != FORMAT_VERSION:
                raise ValueError
            if not data.keys() <= {"format_version", "columns", "output", "facts", "not_private"}:
                raise ValueError  # what nobody asked for may be anything, rows among it
            codecs = {}
            for each in data["columns"]:
                own = {key: value for key, value in each.items() if key != "name"}
                codecs[each["name"]] = codec_from_json(own)
            stamped = bool(data.get("not_private", False))
            return cls(codecs, tuple(data["output"]), tuple(data["facts"]), stamped)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(
                "A domain was to be read.",
                f"The data are no domain of format version {FORMAT_VERSION}.",
                "Use the version of dpsynth that wrote it, or a newer one.",
            ) from error


def resolve(
    schema: Schema,
    *,
    categories: Mapping[str, tuple[str, ...]],
    bounds: Mapping[str, Bounds],
    bins: Mapping[str, Starts] = MappingProxyType({}),
) -> Domain:
    """Join declared facts with discovered ones.

    Args:
        schema: The declared facts.
        categories: Discovered categories of open columns.
        bounds: Discovered bounds of numbers; declared ones go first.
        bins: Discovered starts of cells; columns without any get the public grid of their bounds.

    Raises:
        InvalidRequest: Something undeclared was not discovered.
    """
    lacking = [
        name
        for name in schema.undeclared
        if name not in (categories if isinstance(schema.columns[name], Open) else bounds)
    ]
    if lacking:
        raise InvalidRequest(
            "A domain was to be made of a schema that leaves columns open.",
            f"Not declared and not discovered: {', '.join(lacking)}.",
            "Discover them for a price, or declare them if they are public.",
        )
    codecs = {
        name: _codec(
            schema.columns[name], categories.get(name, ()), bounds.get(name), bins.get(name)
        )
        for name in schema.modelled
    }
    output = tuple(n for n, c in schema.columns.items() if not isinstance(c, Drop))
    facts = tuple(
        _public(name, schema.columns[name], name in categories or name in bounds, codec.size)
        for name, codec in codecs.items()
    )
    return Domain(codecs, output, facts)


def _codec(
    column: Column, found: tuple[str, ...], bounds: Bounds | None, bins: Starts | None
) -> Codec:
    match column:
        case Categorical(categories=values):
            texts = tuple(str(value) for value in values)
            default = texts.index(str(column.default)) if column.default is not None else 0
            other = texts.index(str(column.other)) if column.other is not None else None
            fallback = other if other is not None else (-1 if column.missing else default)
            return CategoricalCodec(texts, values, fallback, default, column.missing)
        case Open():
            name = "other"
            while name in found:
                name = f"{name}_"
            texts = (*found, name)
            return CategoricalCodec(texts, texts, len(found), len(found), column.missing)
        case Boolean():
            return BooleanCodec(int(column.default), column.missing)
        case Integer() | Real() | Date() | Datetime():
            return _numeric(column, bounds, bins)
        case Drop() | Key():
            raise TypeError("dropped columns and keys are not coded")


def _numeric(column: Ranged, bounds: Bounds | None, bins: Starts | None) -> NumericCodec:
    step = column.step if isinstance(column, Real) else None
    zone = column.zone if isinstance(column, Datetime) else None
    lower: float
    upper: float
    if column.lower is not None and column.upper is not None:
        lower, upper = number_of(column.lower, zone), number_of(column.upper, zone)
    elif bounds is None:
        raise TypeError("a range was resolved without bounds")
    elif step is None:
        lower, upper = bounds
    else:
        lower, upper, step = on_lattice(bounds[0], bounds[1], step)
    default = number_of(column.default, zone) if column.default is not None else lower
    default = min(max(default, lower), upper)
    kind = kind_of(column)
    if isinstance(column.bins, tuple):
        bins = tuple(number_of(each, zone) for each in column.bins)
    starts = fine_starts(kind, lower, upper, step)
    if bins is not None:
        starts = chosen_starts(bins, lower, upper, step)
    return NumericCodec(kind, starts, upper, step, default, column.missing, zone)


def _found(column: Column, codec: Codec) -> Column:
    """Return what a column would have to declare to be coded as it is."""
    if isinstance(codec, CategoricalCodec):
        other = codec.values[codec.fallback]
        return Categorical(
            codec.values, other=other, default=other, missing=column.missing, source=FOUND
        )
    if not (isinstance(codec, NumericCodec) and isinstance(column, Ranged)):
        raise TypeError("a column of this type has nothing to be found")
    value = partial(value_of, codec.of, aware=codec.zone is not None)
    usual = fine_starts(codec.of, codec.starts[0], codec.upper, codec.step)
    facts: dict[str, Any] = {
        "lower": value(codec.starts[0]),
        "upper": value(codec.upper),
        "bins": None if codec.starts == usual else tuple(map(value, codec.starts)),
        "source": FOUND,
    }
    if column.default is not None:
        facts["default"] = value(codec.default)
    if isinstance(column, Real):
        facts["step"] = codec.step
    return replace(column, **facts)


def _public(name: str, column: Column, discovered: bool, size: int) -> dict[str, Any]:
    match column:
        case Categorical():
            declared = "categories declared"
        case Boolean():
            declared = "type declared"
        case Open():
            declared = DISCOVERED
        case Integer() | Real() | Date() | Datetime() if column.lower is None:
            declared = DISCOVERED
        case _ if discovered:
            declared = f"bounds declared, cells {DISCOVERED}"
        case _:
            declared = "bounds declared"
    return {
        "name": name,
        "type": type_name(column),
        "declared": declared,
        "missing": column.missing,
        "size": size,
        "source": column.source,
        "attested_by": column.attested_by,
    }
