from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import numpy as np
import pandas as pd
import pytest

from dpsynth.attacks import check_validity, plugins, record_attacks, reference_attacks
from dpsynth.columns import Categorical, Integer, Key, Real
from dpsynth.domain import Domain, resolve
from dpsynth.schema import Schema
from dpsynth_accounting import InvalidRequest
from tests.attacks.recipes import DOMAIN, Rows, population
from tests.attacks.test_reference import _Learner


class Plugged:
    """A plug-in's attack, as an entry point names it."""

    @classmethod
    def build(
        cls, domain: Domain, release: Rows, *, reference: Rows, rng: np.random.Generator
    ) -> object:
        del domain, release, reference, rng
        return _Learner(name="plugged")


class NoAttack(Plugged):
    @classmethod
    def build(
        cls, domain: Domain, release: Rows, *, reference: Rows, rng: np.random.Generator
    ) -> object:
        return object()


def names(rows: Rows) -> list[str]:
    rng = np.random.default_rng(0)
    return [each.name for each in reference_attacks(DOMAIN, rows, reference=rows, rng=rng)]


def announce(patch: pytest.MonkeyPatch, kind: str, *, without: str = "") -> None:
    """Announce an attack of this module, and hide one of ours."""
    real = plugins.entry_points

    def points(*, group: str) -> EntryPoints:
        more = EntryPoint("plugged", f"{__name__}:{kind}", group)
        kept = [each for each in real(group=group) if each.name != without]
        return EntryPoints([*kept, more] if group == plugins.REFERENCE_GROUP else kept)

    patch.setattr(plugins, "entry_points", points)


def test_ours_come_through_the_door() -> None:
    rows = population(80, np.random.default_rng(0))
    assert len(names(rows)) == len(plugins.OURS[plugins.REFERENCE_GROUP])
    record = [each.name for each in record_attacks(DOMAIN, rows, rng=np.random.default_rng(0))]
    assert record == ["exact match", "nearest distance"]


def test_a_plug_in_comes_through_the_same_door(monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, "Plugged")
    assert "plugged" in names(population(80, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("kind", "without", "said"),
    [
        ("NoAttack", "", "not a ReferenceAttack"),
        ("Nothing", "", "nothing that can be imported"),
        ("Plugged", "distance-ratio", "announces none named distance-ratio"),
    ],
)
def test_a_door_that_is_broken_is_said(
    kind: str, without: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last is the worst: an attack that is not there would pass for one that found nothing."""
    announce(monkeypatch, kind, without=without)
    with pytest.raises(InvalidRequest, match=said):
        names(population(80, np.random.default_rng(0)))


def test_validity_by_hand() -> None:
    columns = {
        "id": Key(),
        "a": Integer(0, 4),
        "b": Categorical(("x", "y"), missing=True),
        "c": Real(0.1, 1.0, step=0.2),
    }
    domain = resolve(Schema(columns), categories={}, bounds={})
    table = pd.DataFrame(
        {
            "id": [1, 2, 3, 4, 4],
            "a": [0, 4, 5, 2, 1],
            "b": ["x", None, "y", "z", "y"],
            "c": [0.1 + 0.2 * 2, 1.0, 0.4, 1.5, np.nan],
        }
    )
    rule = pd.DataFrame({"a": [1, 0], "b": ["y", "y"]})
    other = pd.DataFrame({"b": ["x", "y"], "a": [1, 3]})
    before = table.copy()
    found = check_validity(domain, table, impossible=(rule, other))
    pd.testing.assert_frame_equal(table, before)
    assert [(each.rule, each.columns, each.broken) for each in found.rules] == [
        ("domain", ("a",), 1),
        ("not missing", ("a",), 0),
        ("domain", ("b",), 1),
        ("domain", ("c",), 1),
        ("not missing", ("c",), 1),
        ("step", ("c",), 1),
        ("unique", ("id",), 1),
        ("possible", ("a", "b"), 1),
        ("possible", ("b", "a"), 0),
    ]
    assert len(found.broken) == 7
    assert (found.rows, found.valid) == (5, pytest.approx(2 / 5))
    assert check_validity(domain, table.iloc[:2]).valid == 1.0
    assert check_validity(domain, table.iloc[:0]).valid == 1.0
    with pytest.raises(InvalidRequest, match="Impossible"):
        check_validity(domain, table, impossible=(pd.DataFrame({"d": [1]}),))
