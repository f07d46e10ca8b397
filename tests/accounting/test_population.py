"""Sketches of populations: against exact set operations, with twins that must fail."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpsynth_accounting import LedgerCorrupt
from dpsynth_accounting.population import ALIKE, K, SamePeople, alike, shared, sketch

KEY = b"k" * 32

units = st.sets(st.binary(max_size=6), max_size=40)


def people(first: int, last: int) -> list[bytes]:
    return [f"person {i}".encode() for i in range(first, last)]


def fractions(a: list[bytes], b: list[bytes]) -> tuple[float, float]:
    return shared(sketch(a, KEY), sketch(b, KEY))


@given(units, units)
def test_small_sets_are_compared_exactly(a: set[bytes], b: set[bytes]) -> None:
    found = shared(sketch(a, KEY), sketch(b, KEY))
    both = len(a & b)
    assert found == (both / max(len(a), 1), both / max(len(b), 1))


def test_a_sketch_is_the_least_hashes_in_order() -> None:
    """An independent statement of what the bytes are, since files hold them for years."""
    some = people(0, 1000)
    hashes = sorted(
        hashlib.blake2b(one, key=KEY, digest_size=8, person=b"kmv\x01").digest() for one in some
    )
    assert sketch(some, KEY) == b"kmv\x01" + b"".join(hashes[:K])


@given(st.lists(st.binary(max_size=3), max_size=30), st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(some: list[bytes], random: object) -> None:
    mixed = [*some, *some[::2]]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert sketch(mixed, KEY) == sketch(some, KEY)


def test_batches_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sketch(people(0, 3000), KEY)
    monkeypatch.setattr("dpsynth_accounting.population._BATCH", 7)
    assert sketch(iter(people(0, 3000)), KEY) == whole


@pytest.mark.parametrize(("overlap", "sizes"), [(0.0, (9000, 4000)), (0.3, (5000, 5000))])
def test_large_sets_are_estimated(overlap: float, sizes: tuple[int, int]) -> None:
    a = people(0, sizes[0])
    start = round(sizes[0] - overlap * sizes[1])
    b = people(start, start + sizes[1])
    in_b, in_a = fractions(a, b)
    true = len(set(a) & set(b))
    assert abs(in_b - true / len(a)) < 0.15  # five standard deviations of a fraction of 255
    assert abs(in_a - true / len(b)) < 0.15


def test_the_estimate_is_unbiased() -> None:
    """Over many keys the mean error vanishes, and its spread is the one the docstring gives."""
    a, b = people(0, 900), people(600, 1500)
    found = [shared(sketch(a, bytes([i])), sketch(b, bytes([i])))[0] for i in range(1, 250)]
    error = np.mean(found) - 1 / 3
    assert abs(error) < 5 * np.std(found) / np.sqrt(len(found))
    assert np.std(found) == pytest.approx(np.sqrt(1 / 3 * 2 / 3 / K), rel=0.25)


def test_another_key_shares_nothing() -> None:
    """The broken twin: sketches under two keys say that the same people are strangers."""
    some = people(0, 2000)
    assert shared(sketch(some, KEY), sketch(some, KEY)) == (1.0, 1.0)
    assert shared(sketch(some, KEY), sketch(some, KEY[:-1] + b"x")) == (0.0, 0.0)


def test_alike_is_half_of_the_smaller() -> None:
    def judge(a: list[bytes], b: list[bytes]) -> bool:
        one, two = sketch(a, KEY), sketch(b, KEY)
        assert alike(one, two) == alike(two, one)
        return alike(one, two)

    assert ALIKE == 0.5
    assert judge(people(0, 100), people(0, 100))
    assert judge(people(0, 100), people(90, 110))  # ten of the twenty
    assert not judge(people(0, 100), people(91, 111))  # nine of the twenty
    assert judge(people(0, 20_000), people(0, 5_000))  # a part of a large set
    assert not judge(people(0, 20_000), people(19_000, 25_000))
    assert not judge([], people(0, 10))
    assert not judge([], [])


def test_nobody_is_a_set_too() -> None:
    assert shared(sketch([], KEY), sketch(people(0, 5), KEY)) == (0.0, 0.0)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"kmv\x02",
        sketch(people(0, 9), KEY)[:-1],
        sketch(people(0, 9), KEY)[:4] + b"\xff" * 16,
        sketch(people(0, 999), KEY) + b"\xff" * 8,
    ],
)
def test_what_is_no_sketch_is_refused(raw: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        shared(raw, sketch([], KEY))


def test_the_refusal_names_public_facts_and_says_what_was_read() -> None:
    told = str(SamePeople("b", "a"))
    assert "account 'a'" in told
    assert "dpsynth ledger override" in told
    assert "nothing was spent or answered" in told
    assert "charge stands" not in told
