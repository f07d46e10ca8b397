"""Units: cut to their bound, drawn fairly and the same in every table of an account."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from scipy import stats

import dpsynth as dp
from dpsynth.vault import Measure, _bound, _noise, _rows
from dpsynth.vault._bound import AUDIT_IN, HELD_OUT, TRAIN

KEY = b"k" * 32


def kept(frame: pd.DataFrame, unit: dp.Row | dp.Person, share: float = 0.4) -> _rows.Kept:
    return _rows.keep(frame, unit, share=share, rows_key=KEY, coins_key=KEY[::-1])


def test_a_person_keeps_at_most_the_bound() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": rng.integers(0, 40, 500).astype(str), "x": rng.integers(0, 9, 500)})
    found = kept(frame, dp.Person("id", rows=3))
    assert max(Counter(found.units.tolist()).values()) == 3
    sizes = frame["id"].value_counts().clip(upper=3).sum()
    assert len(found.frame) == sizes


def test_rows_without_an_id_are_dropped() -> None:
    frame = pd.DataFrame({"id": ["a", None, "", "a", "b"], "x": range(5)})
    assert sorted(kept(frame, dp.Person("id", rows=5)).frame["x"]) == [0, 3, 4]


def test_the_rows_kept_are_a_uniform_choice() -> None:
    hits = np.zeros(6)
    for person in range(3000):
        frame = pd.DataFrame({"id": [f"{person}"] * 6, "x": range(6)})
        for value in kept(frame, dp.Person("id", rows=2)).frame["x"]:
            hits[value] += 1
    assert stats.chisquare(hits).pvalue > 1e-6


def test_roles_are_fair_and_have_their_share() -> None:
    frame = pd.DataFrame({"x": range(40_000)})
    roles = kept(frame, dp.Row(), share=0.2).roles
    counts = [int((roles == role).sum()) for role in (TRAIN, AUDIT_IN, HELD_OUT)]
    assert stats.chisquare(counts, [32_000, 4_000, 4_000]).pvalue > 1e-6


def test_all_rows_of_a_person_share_one_role() -> None:
    frame = pd.DataFrame({"id": [str(i % 50) for i in range(500)], "x": range(500)})
    found = kept(frame, dp.Person("id", rows=4))
    for unit in np.unique(found.units):
        assert len(set(found.roles[found.units == unit].tolist())) == 1


def by_content(found: _rows.Kept) -> Counter[tuple[object, ...]]:
    rows = zip(*[found.frame[name] for name in found.frame], found.roles.tolist(), strict=True)
    return Counter(rows)


def test_draws_follow_the_rows_and_not_their_places() -> None:
    """Adding a unit anywhere changes nobody else's draw: the coupling of the proof."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"id": rng.integers(0, 60, 300).astype(str), "x": rng.integers(0, 3, 300)})
    for unit in (dp.Row(), dp.Person("id", rows=2)):
        base = by_content(kept(frame, unit))
        assert by_content(kept(frame.sample(frac=1, random_state=2), unit)) == base
        new = pd.DataFrame({"id": ["new"], "x": [1]})
        for place in (0, 150, 300):
            parts = [frame.iloc[:place], new, frame.iloc[place:]]
            more = by_content(kept(pd.concat(parts, ignore_index=True), unit))
            gone = more - base
            assert sum(gone.values()) == 1
            assert next(iter(gone))[0] == "new"
            assert not base - more


def test_equal_rows_are_separate_units() -> None:
    frame = pd.DataFrame({"x": [7] * 4000})
    roles = kept(frame, dp.Row(), share=0.5).roles
    assert abs(int((roles == TRAIN).sum()) - 2000) < 200


def test_a_draw_by_position_is_flagged() -> None:
    """The broken twin: roles numbered by place tell two orders of one table apart."""

    def by_place(frame: pd.DataFrame) -> Counter[tuple[object, ...]]:
        words = _bound.words_of_rows([np.arange(len(frame)).astype(str).astype(object)], KEY)
        return by_content(_rows.Kept(frame, np.arange(len(frame)), _bound.roles(words, 0.4)))

    frame = pd.DataFrame({"x": range(300)})
    assert by_place(frame) != by_place(frame.iloc[::-1].reset_index(drop=True))


def test_held_out_units_enter_no_answer(make_vault, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(_noise, "discrete_gaussian", lambda _, s: np.zeros(s, dtype=np.int64))
    frame = pd.DataFrame({"x": range(200)})
    vault = make_vault(frame, dp.Schema({"x": dp.Integer(0, 199)}), audit_share=0.5)
    with vault.reserve((Measure(1, 1.0),), epsilon=1, label="test") as block:
        (answer,) = block.measure([("x",)])
    held = vault.inspect(lambda rows: rows.held_out[:, 0], purpose="test")
    assert 20 < len(held) < 80
    assert answer.values[held].sum() == 0
    assert answer.values.sum() == 200 - len(held)
