"""Broken variants of the vault, each with one known class of defect: what the tests must flag."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from dpsynth._values import text_of
from dpsynth.domain import Domain
from dpsynth.vault import Vault, _rows

Twin = Callable[[pytest.MonkeyPatch], None]
"""Breaks something while a patch lasts."""


def settling(change: Callable[[Domain, pd.DataFrame], Domain]) -> Twin:
    """Return a twin whose domain takes something from the rows."""

    def breaks(patch: pytest.MonkeyPatch) -> None:
        settle = Vault._settle
        patch.setattr(
            Vault, "_settle", lambda self, domain: settle(self, change(domain, self._kept().frame))
        )

    return breaks


@settling
def bounds_from_the_data(domain: Domain, rows: pd.DataFrame) -> Domain:
    """Let incomes reach up to the greatest."""
    codec = domain.codecs["income"]
    most = pd.to_numeric(pd.Series(text_of(rows["income"])), errors="coerce").max()
    wider = replace(codec, upper=max(float(most), codec.upper))  # type: ignore[union-attr,type-var]
    return replace(domain, codecs={**domain.codecs, "income": wider})


@settling
def categories_from_the_data(domain: Domain, rows: pd.DataFrame) -> Domain:
    """Name what is behind the rest of the cities."""
    codec = domain.codecs["city"]
    rest = sorted({text for text in text_of(rows["city"]) if text} - set(codec.texts))  # type: ignore[union-attr]
    texts = (*codec.texts[:-1], ", ".join(["other", *rest]))  # type: ignore[union-attr]
    named = replace(codec, texts=texts, values=texts)  # type: ignore[type-var]
    return replace(domain, codecs={**domain.codecs, "city": named})


@settling
def missing_from_the_data(domain: Domain, rows: pd.DataFrame) -> Domain:
    """Say of each column whether something is missing in it."""
    facts = tuple(
        {**each, "missing": None in text_of(rows[each["name"]]).tolist()} for each in domain.facts
    )
    return replace(domain, facts=facts)


def types_from_the_data(patch: pytest.MonkeyPatch) -> None:
    """Give ages, once decoded, the type of the column that was read."""
    keep, decode = _rows.keep, Domain.decode
    kinds: dict[str, Any] = {}

    def remember(frame: pd.DataFrame, *words: Any, **facts: Any) -> Any:
        kinds.update(age=frame["age"].dtype)
        return keep(frame, *words, **facts)

    patch.setattr(_rows, "keep", remember)
    patch.setattr(Domain, "decode", lambda *w, **f: decode(*w, **f).astype(kinds))
