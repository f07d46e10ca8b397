from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from dpsynth.domain import Domain
from dpsynth.vault import Step
from tests.marginal.fake_block import FakeBlock


class Plans(Protocol):
    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]: ...


MakeBlock = Callable[..., FakeBlock]


@pytest.fixture
def make_block() -> MakeBlock:
    """Build a block over integer codes that answers a synthesizer's plan."""

    def make(
        synthesizer: Plans,
        data: Mapping[str, NDArray[np.int64]],
        domain: Domain,
        *,
        mu: float = 1.0,
        seed: int = 0,
    ) -> FakeBlock:
        steps = synthesizer.steps(domain.names)
        return FakeBlock(domain, data, steps, mu, np.random.default_rng(seed))

    return make
