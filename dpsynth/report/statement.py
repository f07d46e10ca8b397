"""The statement as a page of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpsynth.report._page import render, sequence
from dpsynth.report.facts import mapping, roc, unit_in_words


def statement_html(
    promise: Mapping[str, Any], *, account: str = "", made: str = "", checked: Sequence[str] = ()
) -> str:
    """Return the statement as one HTML page that loads nothing and runs nothing.

    Args:
        promise: :meth:`dpsynth_accounting.Statement.to_json`; what is missing is not shown.
        account: The account that paid.
        made: When the release was made.
        checked: What was verified about the folder, a sentence each.
    """
    return render(
        "statement.html",
        promise={**promise, "declared_public": _together(promise)},
        account=account,
        made=made,
        unit=unit_in_words(mapping(promise.get("unit"))),
        roc=roc(promise),
        checked=list(checked),
    )


def _together(promise: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was declared public, the names of equal declarations in one line."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for each in map(mapping, sequence(promise.get("declared_public"))):
        key = tuple(each.get(name) for name in ("fact", "source", "attested_by"))
        groups.setdefault(key, []).append(str(each.get("name") or ""))
    return [
        {"name": ", ".join(names), "fact": fact, "source": source, "attested_by": by}
        for (fact, source, by), names in groups.items()
    ]
