"""The custodian's report: exact results, computed from private rows and never published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpsynth.report._page import finite, number, percent, render
from dpsynth.report.facts import mapping, sentence, top

BANNER = (
    "Derived from personal data without differential privacy. "
    "For the custodian only: do not distribute."
)
"""What every page of the report carries."""

MOST_ROWS = 200
"""Most rows of a table, and most values of a list, that are shown."""

_DEEPEST = 5

_LABELS = {
    "about": "How",
    "adjusted_p_value": "p-value, corrected",
    "attacks": "Attacks",
    "auc": "Area under the ROC curve",
    "baseline": "Baseline",
    "bound": "At least, with 95 %",
    "broken": "Rows that break it",
    "claim": "Claimed",
    "comparison": "Main attack against control",
    "copies": "Copy detector",
    "disclosure": "Singling out, linkability, inference",
    "epsilon": "Lower bound on epsilon from the coins",
    "exact": "All units",
    "fidelity": "Exact fidelity",
    "findings": "Every test, the smallest p-value first",
    "groups": "Groups of columns",
    "guesses": "Numbers of guesses tried",
    "hard_bound": "At least, with 99.9 %",
    "hard_possible": "The most that could be shown, with 99.9 %",
    "hits_in": "Hits among units that were in",
    "hits_out": "Hits among units held out",
    "isolated": "Membership attacks on the most isolated units",
    "look": "Best look",
    "matches": "Exact matches",
    "membership": "Membership attacks",
    "nearest": "Nearest distance",
    "nearest_to_second": "Nearest distance over that to the second nearest",
    "one_way": "Single columns: mean total-variation distance",
    "one_way_reference": "Single columns: the same for held-out rows",
    "p_value": "p-value, one-sided",
    "points": "Bounds",
    "possible": "The most that could be shown, with 95 %",
    "rate_in": "Rate of units that were in",
    "rate_out": "Rate of units held out",
    "records": "Attacks by their own thresholds",
    "reference": "Rows of the reference",
    "right": "Right guesses, or area",
    "risk": "Risk",
    "rule": "Rule",
    "rules": "Rules of the schema",
    "share": "Nearer to a unit that was in",
    "smallest_detectable": "Smallest effect that would be found",
    "tied": "Equally near to both",
    "tpr_01_percent": "Found at 0.1 % false positives",
    "tpr_1_percent": "Found at 1 % false positives",
    "two_way": "Pairs of columns: mean total-variation distance",
    "two_way_reference": "Pairs of columns: the same for held-out rows",
    "unique": "Rows that occur once",
    "units_in": "Units that were in",
    "units_out": "Units held out",
    "valid": "Share of valid rows",
    "validity": "Validity of the synthetic rows",
    "verdict": "Verdict of the exact tests",
    "worst": "Columns and pairs farthest from the data",
}

_NOTES = {
    "copies": "Finds rows that were copied, whole or in part. That it finds none is no measure of "
    "privacy. The share is 0.5 without copying; its interval is over synthetic rows alone.",
    "disclosure": "Success on units that were in (main), on units held out (control), and by a "
    "guess without any link (baseline). Risk is what main gains over control, of what could be.",
    "epsilon": "If fair coins decided who is in, epsilon is above the bound with that confidence. "
    "A bound above the claim refutes it; a bound below it confirms nothing.",
    "fidelity": "Held-out rows show the distance that chance alone gives.",
    "isolated": "The same, on the twentieth of the units that is farthest from all others.",
    "matches": "Units with a row that occurs in the synthetic table. Held-out ones match by "
    "coincidence: only more matches on the other side tell of copying.",
    "membership": "Each scores a unit by the synthetic table, against rows that were not audited. "
    "Look at low false-positive rates; the area says little about the most exposed.",
    "records": "What the paid audit counts with noise, here exactly.",
    "verdict": "It is no public verdict: a decision made on it is not covered by epsilon.",
}


@dataclass(frozen=True)
class Grid:
    """A table of texts, one header a column."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int


@dataclass(frozen=True)
class Section:
    """Results of one kind: single figures, a table of likes, and parts of their own.

    Attributes:
        title: What they are.
        note: How to read them; empty if there is nothing to say.
        values: Label and text of each single figure.
        grid: Likes under one another; None if there are none.
        parts: Sections within this one.
    """

    title: str
    note: str
    values: tuple[tuple[str, str], ...]
    grid: Grid | None
    parts: tuple[Section, ...]


def internal_html(facts: Mapping[str, Any], internal: Mapping[str, Any]) -> str:
    """Return the custodian's report as one HTML page that loads nothing and runs nothing.

    Args:
        facts: The facts of the release, as for the public report.
        internal: Exact results as JSON data. Known figures are explained; any others are shown
            under their own names.

    Charges: nothing by itself. The results are outside the guarantee: an inspection made them.
    """
    return render(
        "internal.html",
        facts=facts,
        top=top(facts),
        results=section("Exact results", "", internal),
        banner=BANNER,
    )


def section(title: str, note: str, data: Mapping[str, Any], depth: int = 0) -> Section:
    """Return nested results as a section, whatever their names."""
    values: list[tuple[str, str]] = []
    parts: list[Section] = []
    flat = {key: each for key, each in data.items() if _is_flat(each)}
    likes = flat if len(flat) > 1 and len({tuple(each) for each in flat.values()}) == 1 else {}
    for key, each in data.items():
        name = str(key)
        if key in likes:
            continue
        if isinstance(each, Mapping) and not _is_figure(each) and each and depth < _DEEPEST:
            parts.append(section(_label(name), _NOTES.get(name, ""), each, depth + 1))
        elif _is_records(each):
            parts.append(Section(_label(name), _NOTES.get(name, ""), (), _records(each), ()))
        else:
            values.append((_label(name), text(each)))
    return Section(title, note, tuple(values), _likes(likes), tuple(parts))


def text(value: Any) -> str:
    """Return a figure, an interval, a list or anything else in short.

    >>> text({"low": 0.25, "high": 0.5, "level": 0.95}).replace("\\u00a0", " ")
    '0.25 to 0.5 (95 % interval)'
    """
    if value is None:
        return "not computed"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value) if finite(value) is not None else str(value)
    if isinstance(value, Mapping) and _is_interval(value):
        level = finite(value.get("level"))
        kind = f"{percent(level)} interval" if level is not None else "interval"
        return f"{number(value['low'])} to {number(value['high'])} ({kind})"
    if isinstance(value, Mapping) and _is_figure(value):
        return f"{number(value['value'])}; {text(value['interval'])}"
    if isinstance(value, list | tuple) and all(_is_scalar(each) for each in value):
        shown = ", ".join(text(each) for each in value[:MOST_ROWS])
        more = len(value) - MOST_ROWS
        return f"{shown}, and {more:,} more" if more > 0 else shown or "none"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str, ensure_ascii=False) if value else "none"
    return str(value)


def _label(key: str) -> str:
    return _LABELS.get(key) or sentence(key.replace("_", " "))


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_interval(value: Mapping[str, Any]) -> bool:
    ends = finite(value.get("low")), finite(value.get("high"))
    return None not in ends and set(value) <= {"low", "high", "level"}


def _is_figure(value: Any) -> bool:
    """Say whether a mapping reads as one figure: an interval, or a value with one."""
    if not isinstance(value, Mapping):
        return False
    alone = set(value) == {"value", "interval"} and finite(value.get("value")) is not None
    return _is_interval(value) or (alone and _is_interval(mapping(value["interval"])))


def _is_flat(value: Any) -> bool:
    """Say whether a mapping makes one row of a table."""
    if not isinstance(value, Mapping) or not value or _is_figure(value):
        return False
    return all(_is_scalar(each) or _is_figure(each) for each in value.values())


def _is_records(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(each, Mapping) for each in value)
    )


def _records(value: Sequence[Mapping[str, Any]]) -> Grid:
    keys = list(dict.fromkeys(str(key) for each in value for key in each))
    rows = [
        tuple(text(each[key]) if key in each else "" for key in keys) for each in value[:MOST_ROWS]
    ]
    return Grid(tuple(_label(key) for key in keys), tuple(rows), max(len(value) - MOST_ROWS, 0))


def _likes(likes: Mapping[str, Mapping[str, Any]]) -> Grid | None:
    if not likes:
        return None
    header = ("", *(_label(str(key)) for key in next(iter(likes.values()))))
    rows = [
        (_label(str(name)), *(text(each) for each in found.values()))
        for name, found in list(likes.items())[:MOST_ROWS]
    ]
    return Grid(header, tuple(rows), max(len(likes) - MOST_ROWS, 0))
