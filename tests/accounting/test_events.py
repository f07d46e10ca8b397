from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpsynth_accounting import (
    ApproxDP,
    DiscreteGaussian,
    Event,
    Exponential,
    Gaussian,
    InvalidRequest,
    Repeat,
    Sequence,
    canonical,
    digest,
    event_from_json,
    event_to_json,
    flatten,
)

positive = st.fractions(min_value=Fraction(1, 10**6), max_value=10**6)


@st.composite
def discrete(draw: st.DrawFn) -> DiscreteGaussian:
    shifts = draw(st.integers(1, 50))
    return DiscreteGaussian(draw(positive), shifts + draw(st.integers(0, 50)), shifts)


leaves = st.one_of(
    st.builds(Gaussian, positive, positive),
    discrete(),
    st.builds(Exponential, positive),
    st.builds(ApproxDP, positive, st.fractions(0, Fraction(999, 1000))),
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Repeat, inner, st.integers(1, 10**9)),
        st.builds(Sequence, st.lists(inner, max_size=4).map(tuple)),
    ),
    max_leaves=8,
)


@given(anything)
def test_an_event_survives_json_text(event: Event) -> None:
    text = json.dumps(event_to_json(event))
    assert event_from_json(json.loads(text)) == event


@given(anything, anything)
def test_the_digest_tells_events_apart(one: Event, other: Event) -> None:
    same = digest(event_to_json(one)) == digest(event_to_json(other))
    assert same == (one == other)


@given(anything)
def test_flattening_keeps_every_leaf_and_no_nest(event: Event) -> None:
    found = flatten(event)
    assert all(not isinstance(leaf, Repeat | Sequence) for leaf, _ in found)
    assert len({leaf for leaf, _ in found}) == len(found)
    doubled = flatten(Sequence((event, event)))
    assert doubled == [(leaf, 2 * count) for leaf, count in found]


json_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_data)
def test_the_canonical_form_is_one_and_reads_back(data: Any) -> None:
    if not _encodable(data):
        return
    text = canonical(data)
    assert canonical(json.loads(text)) == text


def _encodable(data: Any) -> bool:
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def test_the_canonical_form_by_hand() -> None:
    assert canonical({"é": [1, None, True], "a": 0.5}) == '{"a":0.5,"é":[1,null,true]}'.encode()
    # printf '{"a":2,"b":1}' | sha256sum
    assert digest({"b": 1, "a": 2}) == (
        "d3626ac30a87e6f7a6428233b3c68299976865fa5508e4267c5415c76af7a772"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_canonical_form_of_what_json_lacks(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": value})


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Gaussian, (Fraction(0),)),
        (Gaussian, (Fraction(1), Fraction(-1))),
        (Gaussian, (float("inf"),)),
        (Gaussian, (float("nan"),)),
        (Gaussian, (0.5,)),
        (Gaussian, (True,)),
        (DiscreteGaussian, (Fraction(0),)),
        (DiscreteGaussian, (Fraction(1), 1, 2)),
        (DiscreteGaussian, (Fraction(1), 1, 0)),
        (DiscreteGaussian, (Fraction(1), 1.5, 1)),
        (DiscreteGaussian, (1.0, 1, 1)),
        (Exponential, (Fraction(0),)),
        (Exponential, (float("nan"),)),
        (ApproxDP, (Fraction(-1), Fraction(0))),
        (ApproxDP, (Fraction(1), Fraction(1))),
        (ApproxDP, (Fraction(1), 1e-6)),
        (Repeat, (Exponential(Fraction(1)), 0)),
        (Repeat, (Exponential(Fraction(1)), 1.5)),
        (Repeat, (Exponential(Fraction(1)), True)),
    ],
)
def test_impossible_events_are_refused(kind: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        kind(*arguments)
    assert not refused.value.touched


GOOD = {"event": "discrete_gaussian", "sigma2": "4", "l2_squared": 2, "shifts": 2}


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        None,
        "exponential",
        {"event": "laplace"},
        {"event": ["exponential"]},
        {"event": "exponential"},
        {"event": "exponential", "epsilon": "1/0"},
        {"event": "exponential", "epsilon": 0.5},
        {"event": "exponential", "epsilon": "0.5"},
        {"event": "exponential", "epsilon": "1e9"},
        {"event": "exponential", "epsilon": "2/4"},
        {"event": "exponential", "epsilon": "1/2", "delta": "0"},
        {**GOOD, "l2_squared": 2.0},
        {**GOOD, "shifts": "2"},
        {**GOOD, "shifts": True},
        {"event": "repeat", "of": GOOD, "count": 1.9},
        {"event": "repeat", "of": GOOD},
        {"event": "sequence", "events": GOOD},
    ],
)
def test_json_that_is_no_event_in_its_one_form_is_refused(data: Any) -> None:
    with pytest.raises(InvalidRequest):
        event_from_json(data)


def test_a_bottomless_event_is_refused_rather_than_followed() -> None:
    data: dict[str, Any] = dict(GOOD)
    for _ in range(5000):
        data = {"event": "repeat", "of": data, "count": 1}
    with pytest.raises(InvalidRequest):
        event_from_json(data)
