"""Standard errors against the spread of many fits, and against what least squares says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpsynth.domain import Domain
from dpsynth.marginal import AIM, MST, CliqueTree
from dpsynth.marginal.estimate import Observation
from dpsynth.marginal.precision import Precision
from dpsynth_accounting import InvalidRequest
from tests.marginal.conftest import MakeBlock

MAPS = {"a": np.array([0, 0, 1, 1, 1]), "b": np.arange(4), "c": np.arange(3)}


def table(clique: tuple[str, ...], shape: tuple[int, ...], variance: float) -> Observation:
    return Observation(clique, np.zeros(shape), np.full(shape, variance))


def test_variances_are_those_of_the_inverse_variance_mean() -> None:
    ones = [table((n,), m.shape, 5.0) for n, m in MAPS.items()]
    measured = [
        table(("a", "b"), (2, 4), 3.0),
        table(("b", "a"), (4, 2), 6.0),  # the same columns: 2.0 together
        table(("c", "a", "b"), (3, 2, 4), 7.0),
    ]
    precision = Precision.of(ones, measured)
    both = 1 / (1 / 2.0 + 1 / (3 * 7.0))
    assert precision.coarse(("b", "a"), MAPS) == pytest.approx(np.full((4, 2), both))
    alone = 1 / (np.array([1 / 10, 1 / 15]) + 1 / (4 * 2.0) + 1 / (12 * 7.0))
    assert precision.coarse(("a",), MAPS) == pytest.approx(alone)
    assert precision.coarse(("c", "b"), MAPS) == pytest.approx(np.full((3, 4), 2 * 7.0))
    assert Precision.of(ones, measured[:1]).coarse(("a", "c"), MAPS) is None


@pytest.mark.parametrize("kind", [CliqueTree, MST, AIM])
def test_they_are_about_the_spread_of_many_fits(make_block: MakeBlock, kind: Any) -> None:
    """Well away from 0, where a fit has nothing to gain from knowing that counts are positive."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, 20_000)
    data = {"a": a, "b": (a + rng.choice(4, 20_000, p=[0.4, 0.3, 0.2, 0.1])) % 4}
    data["wide"] = rng.integers(0, 40, 20_000)
    domain = Domain.integers({"a": 4, "b": 4, "wide": 40}, ordered=("wide",))
    asked = [("a",), ("b", "a"), ("wide",)]
    values: dict[Any, list[Any]] = {clique: [] for clique in asked}
    claims: dict[Any, list[Any]] = {clique: [] for clique in asked}
    for seed in range(60):
        model = kind().run(make_block(kind(), data, domain, mu=0.2, seed=seed))
        for clique in asked:
            values[clique].append(model.marginal(clique))
            claims[clique].append(model.standard_errors(clique))
    for clique in asked:
        spread = np.sqrt(np.var(values[clique], axis=0).mean())
        claimed = np.sqrt(np.mean(np.square(claims[clique])))
        assert 0.7 < spread / claimed < 1.15, clique


def test_what_was_not_measured_has_none(make_block: MakeBlock) -> None:
    rng = np.random.default_rng(0)
    data = {name: rng.integers(0, 3, 3000) for name in "abcd"}
    data["b"] = data["a"]
    domain = Domain.integers(dict.fromkeys("abcd", 3))
    model = MST().run(make_block(MST(), data, domain, mu=3.0))
    assert np.isfinite(model.standard_errors(("b", "a"))).all()
    assert np.isnan(model.standard_errors(("a", "b", "c", "d"))).all()
    assert np.isnan(model.given({"a": 1}).standard_errors(("a",))).all()
    for wrong in ((), ("z",), ("a", "a")):
        with pytest.raises(InvalidRequest):
            model.standard_errors(wrong)
