"""The odometer's drawing: where its curves lie, and that it is a safe, readable document."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from dpsynth.report import odometer_svg
from dpsynth.report.odometer import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, steps
from tests.report.report_page import HOSTILE

NAME = "{http://www.w3.org/2000/svg}"


def facts(*amounts: float, declared: tuple[int, ...] = (), **changes: Any) -> dict[str, Any]:
    """Facts of an account with these charges, those at some places declared."""
    charges, sums = [], [0.0, 0.0]
    for place, amount in enumerate(amounts):
        sums[place in declared] += amount
        charges.append(
            {
                "time": f"2026-0{1 + place % 9}-11T10:00:00+00:00",
                "label": f"run {place}",
                "epsilon": amount,
                "enforced": place not in declared,
                "enforced_so_far": sums[0],
                "declared_so_far": sums[1],
            }
        )
    return {
        "account": "patients",
        "measure": "epsilon",
        "capacity": 3.0,
        "charges": charges,
        "by_release": [{"name": "release 1", "charges": 2, "time": "2026"}],
        "faults": [],
    } | changes


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (each.split(",") for each in path.split())]


def amount(y: float, greatest: float) -> float:
    return (HEIGHT - BOTTOM - y) / (HEIGHT - TOP - BOTTOM) * greatest


def test_steps_rise_by_each_charge_and_never_fall() -> None:
    found = steps(facts(0.5, 0.25, 1.0))
    line = places(found.line)
    greatest = 3.0 * 1.04
    levels = sorted({round(amount(y, greatest), 2) for _, y in line})
    assert levels == [0.0, 0.5, 0.75, 1.75]
    assert line == sorted(line, key=lambda p: (p[0], -p[1]))
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in line)
    assert amount(found.budget.y, greatest) == pytest.approx(3.0, abs=0.02)


def test_declared_charges_lie_on_top_and_are_drawn_apart() -> None:
    found = steps(facts(0.5, 0.25, 1.0, declared=(1,)))
    greatest = 3.0 * 1.04
    assert amount(places(found.line)[-1][1], greatest) == pytest.approx(1.5, abs=0.02)
    assert amount(places(found.upper)[-1][1], greatest) == pytest.approx(1.75, abs=0.02)
    assert "declared: counted, not enforced" in odometer_svg(facts(0.5, declared=(0,)))
    assert "declared" not in odometer_svg(facts(0.5)).split("</defs>")[1]


def test_an_overdrawn_account_stays_inside_the_drawing() -> None:
    found = steps(facts(0.5, 9.0, declared=(1,)))
    assert min(y for _, y in places(found.upper)) >= TOP
    assert found.budget.y > min(y for _, y in places(found.upper))


def test_releases_stand_after_their_last_charge() -> None:
    made = [{"charges": 1, "time": "a"}, {"charges": 2, "time": "b"}, {"charges": 1}]
    found = steps(facts(0.1, 0.1, 0.1, 0.1, by_release=made))
    width = WIDTH - LEFT - RIGHT
    assert [each.x for each in found.releases] == [
        pytest.approx(LEFT + width / 4, abs=0.1),
        pytest.approx(LEFT + width * 3 / 4, abs=0.1),
    ]


def test_many_releases_are_not_all_labelled() -> None:
    made = [{"charges": 1, "time": "a"}] * 100
    labels = [each.label for each in steps(facts(*[0.01] * 100, by_release=made)).releases]
    assert len(labels) == 100
    assert 0 < sum(map(bool, labels)) <= 12


@pytest.mark.parametrize("count", [0, 1, 7, 60, 500])
def test_it_is_one_self_contained_document_with_words(count: int) -> None:
    page = odometer_svg(facts(*[0.005] * count))
    root = ET.fromstring(page)
    assert root.tag == f"{NAME}svg"
    assert root.get("role") == "img"
    words = root.find(f"{NAME}desc")
    assert words is not None
    assert f"over {count} charges" in str(words.text)
    assert "of a budget of 3" in str(words.text)
    numbered = root.get("aria-labelledby", "").split()
    assert {each.get("id") for each in root if each.get("id")} == set(numbered)
    tags = {each.tag.removeprefix(NAME) for each in root.iter()}
    assert not tags & {"script", "image", "style", "foreignObject", "use", "a"}
    for each in root.iter():
        assert not any("http" in value or name.endswith("href") for name, value in each.items())


def test_names_are_escaped_and_shortened() -> None:
    page = odometer_svg(facts(0.5, account=HOSTILE * 50))
    root = ET.fromstring(page)  # it would not parse if markup came through
    title = root.find(f"{NAME}title")
    assert title is not None
    assert len(str(title.text)) < 100


@pytest.mark.parametrize("broken", [None, "x", math.nan, [None], {"enforced_so_far": "much"}])
def test_a_broken_fact_breaks_nothing(broken: Any) -> None:
    for key in ("account", "measure", "capacity", "charges", "by_release", "faults"):
        ET.fromstring(odometer_svg(facts(0.5, **{key: broken})))


def test_faults_of_the_chain_are_shown() -> None:
    assert "chain has faults" in odometer_svg(facts(0.5, faults=["entry 1 was altered"]))
    assert "chain has faults" not in odometer_svg(facts(0.5))
