"""Columns that hold each of their values once, and a small number a row: Arrow's dictionaries.

Which values a dictionary holds depends on all rows; what a row reads as depends on that row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def column_of(positions: NDArray[np.int32], texts: Sequence[str]) -> pd.Series:
    """Return a column of texts that holds each of them once.

    Args:
        positions: int32, where in the texts each value is; -1 for a missing one.
        texts: Distinct texts, all of them Unicode.
    """
    import pyarrow

    places = pyarrow.array(positions, mask=positions < 0)
    distinct = pyarrow.array(texts, pyarrow.large_string())
    return numbered(pyarrow.DictionaryArray.from_arrays(places, distinct))


def numbered(column: Any) -> pd.Series:
    """Return an Arrow column as one that holds each of its values once."""
    return pd.Series(pd.arrays.ArrowExtensionArray(_dictionary(column)))


def is_arrow(kind: Any) -> bool:
    """Say whether a column's type is Arrow's, of texts or of a dictionary that Python can show."""
    if isinstance(kind, pd.StringDtype):
        return kind.storage != "python"
    if not isinstance(kind, pd.ArrowDtype):
        return False
    from pyarrow import types

    held = kind.pyarrow_dtype
    if types.is_dictionary(held):
        return not (types.is_temporal(held.value_type) or types.is_nested(held.value_type))
    return bool(types.is_string(held) or types.is_large_string(held))


def distinct_of(values: pd.Series) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Return where each value of such a column is among fewer, -1 if it is missing, and those."""
    import pyarrow

    column = _dictionary(pyarrow.array(values.array))
    places, distinct = [np.empty(0, dtype=np.int64)], list[Any]()
    for chunk in column.chunks if isinstance(column, pyarrow.ChunkedArray) else [column]:
        within = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        places.append(np.where(within < 0, -1, within + len(distinct)))
        distinct += chunk.dictionary.to_pylist()
    objects = np.empty(len(distinct), dtype=object)
    objects[:] = distinct
    return np.concatenate(places), objects


def _dictionary(column: Any) -> Any:
    """Return an Arrow column as places in a dictionary, in one chunk unless it was given so."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        return column
    column = column.dictionary_encode()  # all its chunks have one dictionary
    return column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column
