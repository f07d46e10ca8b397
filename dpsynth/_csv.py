"""Writing tables as CSV, so that every text in them reads back."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import pandas as pd


def write_csv(table: pd.DataFrame, target: Path | TextIO) -> None:
    """Write a table in UTF-8, without its index; lines end with a line feed.

    The csv module puts a carriage return in quotes only where lines end with one; so they do, as
    RFC 4180 has it, if a text holds one.
    """
    texts = [str(name) for name in table.columns]
    for j in range(table.shape[1]):
        column = table.iloc[:, j]
        if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
            texts += [text for text in column.dropna().unique() if isinstance(text, str)]
    ending = "\r\n" if any("\r" in text for text in texts) else "\n"
    table.to_csv(target, index=False, lineterminator=ending)
