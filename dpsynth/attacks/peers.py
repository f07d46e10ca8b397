"""Other tools on the same tables: their figures beside ours, for the custodian alone.

They decide nothing: verdict and exit code are those of our own tests. Install them by the extra
``peers``, best in an environment of its own.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth._values import numbers_of
from dpsynth._zones import zone_of
from dpsynth.attacks._peer_calls import CALLS, PeerFigure, Triple
from dpsynth.attacks.disclosure import hardest
from dpsynth.codec import NumericCodec
from dpsynth.domain import Domain
from dpsynth_accounting import InvalidRequest

PEERS = tuple(CALLS)
"""The tools that can be put beside ours, by the names of their distributions."""

MOST_ROWS = 20_000
"""Most rows of each table that they are given: their searches compare every pair of rows."""


@dataclass(frozen=True)
class PeerResult:
    """What another tool says of three tables: from private rows, never published.

    Attributes:
        peer: Its name.
        version: Which release of it.
        figures: What it says.
        stopped: Parts that did not finish, each with the class of the error that ended it.
    """

    peer: str
    version: str
    figures: tuple[PeerFigure, ...]
    stopped: dict[str, str]

    def sentences(self) -> list[str]:
        """Return the result in plain English, a line a figure."""
        told = []
        for each in self.figures:
            interval = ""
            if each.low is not None and each.high is not None:
                interval = f" (its 95 % interval {each.low:.3f} to {each.high:.3f})"
            told.append(
                f"{self.peer} {self.version}, {each.name}: {each.value:.3f}{interval}; "
                f"a leak makes it {each.leak}."
            )
        for part, error in self.stopped.items():
            told.append(f"{self.peer} {self.version}, {part}: did not finish ({error}).")
        return told


def require_peers(names: Sequence[str]) -> dict[str, str]:
    """Return the version of each tool.

    Raises:
        InvalidRequest: A tool is none of :data:`PEERS`, or is not installed.
    """
    found = {}
    for name in names:
        if name not in PEERS:
            raise InvalidRequest(
                f"Figures of {name!r} were asked for.",
                f"The tools that can be put beside ours are {' and '.join(PEERS)}.",
                "Name one of them.",
            )
        try:
            found[name] = version(name)
        except PackageNotFoundError as error:
            raise InvalidRequest(
                f"Figures of {name} were asked for.",
                "It is not installed.",
                "Run `pip install 'dpsynth[peers]'`, best in an environment of its own: it needs "
                "older releases of numpy and pandas.",
            ) from error
    return found


def peer_results(
    names: Sequence[str],
    domain: Domain,
    *,
    train: pd.DataFrame,
    holdout: pd.DataFrame,
    synthetic: pd.DataFrame,
    rng: np.random.Generator,
) -> list[PeerResult]:
    """Return what other tools say of three tables.

    They are given copies, cut to 20,000 rows each. Their own draws are not repeatable.

    Args:
        names: Some of :data:`PEERS`.
        domain: What the columns are.
        train: Rows that the synthetic table was made from; with every column of the domain.
        holdout: Rows like them that it was not made from.
        synthetic: The synthetic table.
        rng: Draws the rows that they are given.

    Charges: nothing. The figures are exact: for the custodian alone.

    Raises:
        InvalidRequest: A tool is unknown or not installed, or a table lacks a column.
    """
    versions = require_peers(names)
    if not versions:
        return []
    triple = as_triple(domain, train, holdout, synthetic, rng)
    found = []
    for name in versions:
        figures: list[PeerFigure] = []
        stopped: dict[str, str] = {}
        for part, call in CALLS[name].items():
            try:
                with _silent():
                    figures += call(triple.copied())
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # compiled code may panic with what is no Exception
                # Its message may hold a value of a row: only its class is told.
                stopped[part] = type(error).__name__
        found.append(PeerResult(name, versions[name], tuple(figures), stopped))
    return found


def as_triple(
    domain: Domain,
    train: pd.DataFrame,
    holdout: pd.DataFrame,
    synthetic: pd.DataFrame,
    rng: np.random.Generator,
) -> Triple:
    """Return tables in the form that other tools expect; those that are given are not changed.

    Text that is no category is that which the schema has for it. Dates and moments are numbers:
    days or seconds since the lower bound.
    """
    tables = [
        table.iloc[np.sort(rng.permutation(len(table))[:MOST_ROWS])]
        for table in (train, holdout, synthetic)
    ]
    codes = [domain.encode(table) for table in tables]
    labels = {f"c{place:03}": name for place, name in enumerate(domain.names)}
    columns: list[dict[str, pd.Series]] = [{}, {}, {}]
    numbers = []
    for key, name in labels.items():
        codec = domain.codecs[name]
        if isinstance(codec, NumericCodec):
            parts = _numbers([table[name] for table in tables], codec)
            numbers.append(key)
        else:
            texts = [codec.label(code) for code in range(codec.size - codec.missing)]
            values = np.array([*texts, None], dtype=object)
            parts = [pd.Series(values[each[name]], dtype=object) for each in codes]
        for column, part in zip(columns, parts, strict=True):
            column[key] = part
    released = np.column_stack([codes[2][name] for name in domain.names]).astype(np.int32)
    keys = list(labels)
    secrets = tuple(keys[place] for place, _ in hardest(domain, released))
    frames = [pd.DataFrame(each) for each in columns]
    return Triple(frames[0], frames[1], frames[2], tuple(numbers), secrets, labels)


def _numbers(values: Sequence[pd.Series], codec: NumericCodec) -> list[pd.Series]:
    """Return numbers of one type in all tables: whole ones only if none is missing in any.

    Moments are counted from the bound, since some tools reckon with an error relative to a number.
    """
    zone = zone_of(codec.zone) if codec.zone else None
    read = [numbers_of(each, codec.of, zone) for each in values]
    whole = codec.of != "real" and all(known.all() for _, known in read)
    start = 0 if codec.of in ("integer", "real") else int(codec.starts[0])
    parts: list[NDArray[np.int64] | NDArray[np.float64]] = []
    for numbers, known in read:
        if whole:
            parts.append(numbers.astype(np.int64) - start)
        else:
            floats = numbers.astype(np.float64) - start
            parts.append(np.where(known & np.isfinite(floats), floats, np.nan))
    return [pd.Series(part) for part in parts]


@contextmanager
def _silent() -> Iterator[None]:
    """Let a tool print, warn and log nothing: what it says may hold a value of a row.

    Compiled code writes past Python, so the process's own output and errors are turned away too.
    """
    disabled = logging.root.manager.disable
    kept = {place: os.dup(place) for place in (1, 2)}
    with (
        open(os.devnull, "w") as nowhere,  # noqa: PTH123  a device
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        for place in kept:
            os.dup2(nowhere.fileno(), place)
        try:
            yield
        finally:
            for place, before in kept.items():
                os.dup2(before, place)
                os.close(before)
            logging.disable(disabled)
