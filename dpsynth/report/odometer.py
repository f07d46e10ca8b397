"""The drawing of an account's odometer: what was spent, charge by charge, against its budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpsynth.report._page import finite, number, render, sequence, shorten
from dpsynth.report.facts import mapping
from dpsynth.report.svg import Point

WIDTH, HEIGHT = 760.0, 372.0
"""Size of the drawing, in SVG units."""

LEFT, RIGHT, TOP, BOTTOM = 58.0, 22.0, 44.0, 66.0
"""Room around the curves: axis labels, the key, releases and dates."""

_TICKS = 5
_MOST_RELEASE_LABELS = 12
_NAME = 60


@dataclass(frozen=True)
class Steps:
    """Step curves of what was spent, in SVG units.

    Attributes:
        ticks_x: Charges by number.
        ticks_y: Amounts.
        enforced: Outline of the area under the enforced charges.
        declared: Outline of the area that declared charges add on top; empty without any.
        line: The step curve of the enforced charges.
        upper: The step curve of all charges; empty without declared ones.
        budget: Where the budget lies, with its label.
        releases: Where a release was recorded, with its label (empty where they are too dense).
        marks: One a charge, at the curve, with its title.
        end: The end of the uppermost curve, with the total.
    """

    ticks_x: tuple[Point, ...]
    ticks_y: tuple[Point, ...]
    enforced: str
    declared: str
    line: str
    upper: str
    budget: Point
    releases: tuple[Point, ...]
    marks: tuple[Point, ...]
    end: Point


def odometer_svg(facts: Mapping[str, Any]) -> str:
    """Return the drawing as one SVG document that loads nothing and runs nothing.

    Args:
        facts: :meth:`dpsynth_accounting.Odometer.to_json`.
    """
    drawing = steps(facts)
    charges = [mapping(each) for each in sequence(facts.get("charges"))]
    days = [str(each.get("time") or "")[:10] for each in charges]
    return render(
        "odometer.svg",
        account=shorten(facts.get("account") or "", _NAME),
        measure=_measure(facts),
        drawing=drawing,
        width=WIDTH,
        height=HEIGHT,
        floor=HEIGHT - BOTTOM,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        first=days[0] if days else "",
        last=days[-1] if days else "",
        summary=_summary(facts),
        has_declared=bool(drawing.upper),
        faults=len(sequence(facts.get("faults"))),
    )


def steps(facts: Mapping[str, Any]) -> Steps:
    """Return the geometry of the drawing."""
    charges = [mapping(each) for each in sequence(facts.get("charges"))]
    enforced = [finite(each.get("enforced_so_far")) or 0.0 for each in charges]
    declared = [finite(each.get("declared_so_far")) or 0.0 for each in charges]
    totals = [a + b for a, b in zip(enforced, declared, strict=True)]
    budget = finite(facts.get("capacity")) or 0.0
    greatest = max([budget, *totals]) * 1.04 or 1.0
    count = max(len(charges), 1)

    def x(place: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * place / count, 2)

    def y(amount: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * amount / greatest, 2)

    def curve(amounts: Sequence[float]) -> list[tuple[float, float]]:
        """Rise at the middle of each charge's place."""
        places, level = [(x(0), y(0.0))], 0.0
        for j, amount in enumerate(amounts):
            places += [(x(j + 0.5), y(level)), (x(j + 0.5), y(amount))]
            level = amount
        return [*places, (x(count), y(level))]

    lower, upper = curve(enforced), curve(totals)
    label = f"budget {number(budget)}"
    end = totals[-1] if totals else 0.0
    return Steps(
        tuple(Point(x(j - 0.5), y(0.0), f"{j}") for j in _whole_ticks(len(charges))),
        tuple(Point(x(0), y(value), number(value)) for value in _ticks(greatest)),
        _path([*lower, (x(count), y(0.0))]),
        _path([*upper, *reversed(lower)]) if any(declared) else "",
        _path(lower),
        _path(upper) if any(declared) else "",
        Point(x(count), y(budget), label),
        _releases(facts, x),
        tuple(
            Point(x(j + 0.5), y(total), _title(j + 1, each, total))
            for j, (each, total) in enumerate(zip(charges, totals, strict=True))
        ),
        Point(x(count), y(end), number(end)),
    )


def _releases(facts: Mapping[str, Any], x: Any) -> tuple[Point, ...]:
    """Return one place a release: after its last charge."""
    parts = [mapping(each) for each in sequence(facts.get("by_release"))]
    made = [each for each in parts if each.get("time")]
    every = max(1, math.ceil(len(made) / _MOST_RELEASE_LABELS))
    found, place = [], 0
    for j, each in enumerate(made):
        place += int(finite(each.get("charges")) or 0)
        label = f"release {j + 1}" if len(made) <= 6 else f"R{j + 1}"
        found.append(Point(x(place), TOP, label if j % every == 0 else ""))
    return tuple(found)


def _title(place: int, charge: Mapping[str, Any], total: float) -> str:
    kind = "" if charge.get("enforced", True) else ", declared"
    return (
        f"charge {place}{kind}: {shorten(charge.get('label') or '', _NAME)}, epsilon "
        f"{number(charge.get('epsilon'))}, {number(total)} so far"
    )


def _measure(facts: Mapping[str, Any]) -> str:
    return shorten(facts.get("measure") or "epsilon", _NAME)


def _summary(facts: Mapping[str, Any]) -> str:
    """Return the drawing in words, for whoever cannot see it."""
    charges = [mapping(each) for each in sequence(facts.get("charges"))]
    last = charges[-1] if charges else {}
    account = shorten(facts.get("account") or "", _NAME)
    words = (
        f"{_measure(facts).capitalize()} spent on account {account} "
        f"over {len(charges)} charges: {number(last.get('enforced_so_far') or 0.0)} enforced"
    )
    declared = finite(last.get("declared_so_far")) or 0.0
    if declared:
        words += f", {number(declared)} declared and not enforced"
    return f"{words}, of a budget of {number(facts.get('capacity'))}."


def _ticks(greatest: float) -> list[float]:
    """Return round amounts from 0 to the greatest.

    >>> _ticks(3.1)
    [0.0, 1.0, 2.0, 3.0]
    """
    raw = greatest / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * each for each in (1.0, 2.0, 2.5, 5.0, 10.0) if power * each >= raw)
    return [round(step * j, 12) for j in range(int(greatest / step) + 1)]


def _whole_ticks(count: int) -> list[int]:
    """Return numbers of charges, at most about ten.

    >>> _whole_ticks(3), _whole_ticks(55)
    ([1, 2, 3], [1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55])
    """
    step = next(
        s * 10**p for p in range(12) for s in (1, 2, 5) if count <= 12 * s * 10**p or p == 11
    )
    return [1, *range(step, count + 1, step)] if step > 1 else list(range(1, count + 1))


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)
