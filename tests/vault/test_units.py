"""Units: cut to their bound, drawn fairly and the same in every table of an account."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

import dpsynth as dp
from dpsynth.vault import Measure, _bound, _noise, _rows
from dpsynth.vault._bound import AUDIT_IN, HELD_OUT, TRAIN
from tests.vault.conftest import MakeVault

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


def keys(count: int) -> list[bytes]:
    return [hashlib.sha256(bytes([place])).digest() for place in range(count)]


def kept_places(persons: int, own: int, k: int, key: bytes) -> NDArray[np.int64]:
    """Return which of their rows persons keep, int64 (persons, k): numbers from 0 to own - 1."""
    frame = pd.DataFrame({"id": np.repeat(np.arange(persons), own), "x": np.arange(persons * own)})
    found = _rows.keep(frame, dp.Person("id", rows=k), share=0.0, rows_key=key, coins_key=key)
    return (found.frame["x"].to_numpy() % own).reshape(persons, k)


def uniform(choices: NDArray[np.int64], of: int) -> float:
    """Return the p-value of the hypothesis that every set of so many rows is as likely."""
    counts = Counter(tuple(sorted(choice)) for choice in choices.tolist())
    sets = itertools.combinations(range(of), choices.shape[1])
    return float(stats.chisquare([counts[each] for each in sets]).pvalue)


def test_the_rows_kept_are_a_uniform_choice() -> None:
    """Each of the 20 triples of six rows is as likely: over persons, and over keys for one."""
    assert uniform(kept_places(6000, 6, 3, KEY), 6) > 1e-6
    some = np.stack([kept_places(30, 6, 3, key) for key in keys(200)])
    assert min(uniform(some[:, person], 6) for person in range(30)) > 1e-6


def test_the_first_rows_are_no_uniform_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: the first rows of each person, as `head` keeps them."""
    monkeypatch.setattr(_bound, "words_of_rows", lambda columns, _: in_order(columns))
    assert uniform(kept_places(6000, 6, 3, KEY), 6) < 1e-6


def in_order(columns: Mapping[str, _bound.Column]) -> _bound.Words:
    """Words that follow the place of a row and nothing else."""
    places = np.arange(len(next(iter(columns.values()))[0]), dtype=np.uint64)
    return np.column_stack([places, places])


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


def follows_the_rows(frame: pd.DataFrame, unit: dp.Row | dp.Person) -> bool:
    """Say whether adding a unit anywhere changes nobody else's draw: the coupling of the proof."""
    base = by_content(kept(frame, unit))
    if by_content(kept(frame.sample(frac=1, random_state=2), unit)) != base:
        return False
    new = pd.DataFrame({"id": ["new"], "x": [1]})
    for place in (0, 150, 300):
        parts = [frame.iloc[:place], new, frame.iloc[place:]]
        more = by_content(kept(pd.concat(parts, ignore_index=True), unit))
        gone = more - base
        if base - more or [row[0] for row in gone.elements()] != ["new"]:
            return False
    return True


UNITS = [dp.Row(), dp.Person("id", rows=2)]


def some_rows(seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"id": rng.integers(0, 60, 300).astype(str), "x": rng.integers(0, 3, 300)})


@pytest.mark.parametrize("unit", UNITS, ids=["row", "person"])
def test_draws_follow_the_rows_and_not_their_places(unit: dp.Row | dp.Person) -> None:
    assert follows_the_rows(some_rows(), unit)


@pytest.mark.parametrize("unit", UNITS, ids=["row", "person"])
def test_a_draw_by_position_is_flagged(
    unit: dp.Row | dp.Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: roles, or rows of a person, by place tell two orders of one table apart."""

    def by_place(columns: Mapping[str, _bound.Column], key: bytes) -> _bound.Words:
        return _bound._enciphered(in_order(columns), key)

    monkeypatch.setattr(_bound, "words_of_rows", by_place)
    assert not follows_the_rows(some_rows(), unit)


def test_rows_that_share_a_hash_are_not_taken_for_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """For every key: should hashes meet, rows share a draw, and still nobody changes another's."""
    hashes = _bound._hashes

    def poor(texts: Iterable[str], key: bytes, about: str) -> _bound.Words:
        """Texts of one length have one hash."""
        return hashes((text if about == "number" else str(len(text)) for text in texts), key, about)

    monkeypatch.setattr(_bound, "_hashes", poor)
    assert follows_the_rows(some_rows(), dp.Row())

    def by_hash(columns: Sequence[_bound.Column]) -> NDArray[np.int64]:
        """The twin: rows are numbered among those of an equal hash."""
        lengths = [np.array([*map(len, texts), 0])[places] for places, texts in columns]
        return exactly([(each.astype(np.int32), [""] * 9) for each in lengths])

    exactly = _bound._numbers_among_equals
    monkeypatch.setattr(_bound, "_numbers_among_equals", by_hash)
    assert not follows_the_rows(some_rows(), dp.Row())


def rectangles(words: _bound.Words) -> NDArray[np.bool_]:
    """Return whether the coins of the corners of each rectangle come to an even number."""
    coins = (words[:, 1] >> np.uint64(63)).reshape(2, -1, 2)
    return np.asarray(coins.sum(axis=(0, 2)) % 2 == 0)


def test_coins_of_rows_alike_in_parts_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """(a, b), (a, b'), (a', b), (a', b'): what hashing column by column makes dependent."""
    many = 4000
    a = np.repeat(np.arange(2, dtype=np.int32), 2 * many)
    b = np.tile(np.arange(2 * many, dtype=np.int32), 2)
    columns = {"a": (a, ["0", "1"]), "b": (b, [str(each) for each in range(2 * many)])}
    even = int(rectangles(_bound.words_of_rows(columns, KEY)).sum())
    assert stats.binomtest(even, many).pvalue > 1e-6
    monkeypatch.setattr(_bound, "_enciphered", lambda words, _: words)
    assert rectangles(_bound.words_of_rows(columns, KEY)).all()  # the twin: no cipher


def test_words_are_distinct_and_look_drawn() -> None:
    """Rows that differ in little, or only by their number, share nothing."""
    columns = {"x": (np.arange(-1, 2**15, dtype=np.int32) // 8, [str(i) for i in range(2**12)])}
    words = _bound.words_of_rows(columns, KEY)
    assert len(np.unique(words[:, 0])) == len(np.unique(words[:, 1])) == len(words)
    for half in (0, 1):
        assert stats.kstest(words[:, half] / 2.0**64, "uniform").pvalue > 1e-6
        bits = np.unpackbits(words[:, [half]].view(np.uint8)).reshape(-1, 64).mean(axis=0)
        assert np.abs(bits - 0.5).max() < 6 * 0.5 / np.sqrt(len(words))
    assert abs(float(np.corrcoef(words[:-1, 1], words[1:, 1])[0, 1])) < 6 / np.sqrt(len(words))


def test_words_name_their_column_and_their_key() -> None:
    one = (np.zeros(1, dtype=np.int32), ["1"])
    gone = (np.full(1, -1, dtype=np.int32), ["1"])
    found = [
        _bound.words_of_rows({"x": one}, KEY),
        _bound.words_of_rows({"y": one}, KEY),
        _bound.words_of_rows({"x": gone}, KEY),
        _bound.words_of_rows({"x": one}, KEY[::-1] + b"x"),
        _bound.words_of_rows({"x": one, "y": gone}, KEY),
        _bound.words_of_persons(["1"], KEY),
    ]
    assert len(np.unique(np.concatenate(found)[:, 0])) == len(found)
    turned = {"y": gone, "x": one}
    assert np.array_equal(_bound.words_of_rows(turned, KEY), found[4])


def test_numbers_among_equals_are_exact_when_kinds_are_many() -> None:
    """Columns of so many texts that their product does not fit in 64 bits."""
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 4, (500, 9)).astype(np.int32) - 1
    texts = [str(i) for i in range(2**20)]
    columns = [(np.ascontiguousarray(rows[:, i]), texts) for i in range(9)]
    for some in (columns, columns[:4]):
        seen: Counter[tuple[int, ...]] = Counter()
        for number, row in zip(_bound._numbers_among_equals(some), rows.tolist(), strict=True):
            content = tuple(row[: len(some)])
            assert number == seen[content]
            seen[content] += 1


def test_equal_rows_are_separate_units() -> None:
    frame = pd.DataFrame({"x": [7] * 4000})
    roles = kept(frame, dp.Row(), share=0.5).roles
    assert abs(int((roles == TRAIN).sum()) - 2000) < 200


def test_the_bound_comes_before_anything_else(make_vault: MakeVault) -> None:
    """Rows beyond the bound are in no exact result either, whatever a caller asks."""
    frame = pd.DataFrame({"id": ["a"] * 50 + ["b"] * 2, "x": [1] * 50 + [2] * 2})
    vault = make_vault(
        frame, dp.Schema({"x": dp.Integer(0, 9)}), unit=dp.Person("id", rows=3), audit_share=0.5
    )
    rows = vault.inspect(
        lambda seen: np.concatenate([seen.train, seen.audit_in, seen.held_out])[:, 0], purpose="t"
    )
    assert Counter(rows.tolist()) == {1: 3, 2: 2}


def test_held_out_units_enter_no_answer(
    make_vault: MakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_noise, "discrete_gaussian", lambda _, s, *__: np.zeros(s, dtype=np.int64))
    frame = pd.DataFrame({"x": range(200)})
    vault = make_vault(frame, dp.Schema({"x": dp.Integer(0, 199)}), audit_share=0.5)
    with vault.reserve((Measure(1, 1.0),), epsilon=1, label="test") as block:
        (answer,) = block.measure([("x",)])
    held = vault.inspect(lambda rows: rows.held_out[:, 0], purpose="test")
    assert 20 < len(held) < 80
    assert answer.values[held].sum() == 0
    assert answer.values.sum() == 200 - len(held)
