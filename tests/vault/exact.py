"""What the tests of exact answers share: no noise, known coins, plans priced once."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpsynth.vault import Block, _discover, _noise, make_plan
from dpsynth_accounting import Account, Budget, Policy

PLANS = lru_cache(make_plan)
"""Calibration, for tests of something else."""


def without_noise(patch: pytest.MonkeyPatch) -> None:
    """Have vaults add nothing to counts, and choose the best of the candidates."""

    def nothing(_: Fraction, shape: tuple[int, ...], *__: object) -> NDArray[np.int64]:
        return np.zeros(shape, dtype=np.int64)

    patch.setattr(_noise, "discrete_gaussian", nothing)
    patch.setattr(_noise, "exponential", lambda scores, *_: int(np.argmax(scores)))


def with_known_coins(patch: pytest.MonkeyPatch) -> None:
    """Give all accounts the same secret, so that a unit has the same coins in all tables."""
    patch.setattr(Account, "key", lambda _, purpose: hashlib.sha256(purpose.encode()).digest())


@dataclass(frozen=True)
class HasCode:
    """Counts records with a code in the first column."""

    code: int
    threshold: float = 0.5

    @property
    def name(self) -> str:
        return f"code {self.code}"

    def score(self, records: NDArray[np.int32]) -> NDArray[np.float64]:
        return (records[:, 0] == self.code).astype(np.float64)


def with_threshold(
    patch: pytest.MonkeyPatch, least_of: Callable[[Fraction, Fraction, int, int], int]
) -> None:
    """Have discovery show the categories whose noisy counts reach another threshold."""
    for name, module in list(sys.modules.items()):
        if name.startswith("dpsynth.vault.") and hasattr(module, "threshold"):
            patch.setattr(module, "threshold", least_of)


# -- an account that costs no time ---------------------------------------------------------------


class FreeLedger:
    """A ledger that keeps nothing and compares no people."""

    def key(self, purpose: str) -> bytes:
        return hashlib.sha256(purpose.encode()).digest()

    def sketches(self) -> dict[tuple[str, str], bytes]:
        return {}

    def put_sketch(self, *_: object) -> None:
        """Keep nothing."""


@dataclass
class FreeReservation:
    """A reservation whose answers are never stored."""

    meta: Mapping[str, Any]
    identity: str = "free"

    def answer(self, *_: object) -> None:
        return None

    def begun(self, *_: object) -> bool:
        return False

    def begin(self, *_: object) -> None:
        """Note nothing."""

    store = commit = void = begin


class FreeAccount:
    """Grants every plan and writes nothing down: for many small vaults with the same coins."""

    name = "free"
    budget = Budget(64, Fraction(1, 1000))
    policy = Policy(budget)
    ledger = FreeLedger()
    key = FreeLedger.key

    def require(self, *_: object) -> None:
        """Grant it."""

    def unfinished(self, *_: object, **__: object) -> None:
        return None

    def record(self, *_: object) -> None:
        """Write nothing."""

    def overrides(self) -> list[str]:
        return []

    def reserve(self, *_: object, meta: Mapping[str, Any], **__: object) -> FreeReservation:
        return FreeReservation(meta)


# -- what noise is added to ----------------------------------------------------------------------


class _Nothing(np.ndarray):  # type: ignore[type-arg]
    """Zeros that tell what they are added to."""

    tell: Callable[[NDArray[np.int64]], object]

    def __array_finalize__(self, of: Any) -> None:
        self.tell = getattr(of, "tell", lambda _: None)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **how: Any) -> Any:
        plain = [np.asarray(each) if isinstance(each, _Nothing) else each for each in inputs]
        if ufunc is np.add:
            for each, one in zip(inputs, plain, strict=True):
                if each is one:
                    self.tell(np.array(one, dtype=np.int64))
        return getattr(ufunc, method)(*plain, **how)


@dataclass
class Exact:
    """What one answer of a block was before noise.

    Attributes:
        index: The step.
        part: Which of its answers.
        counts: The counts that noise was to be added to, with its sigma squared.
        scores: The scores that were chosen from, with epsilon and sensitivity.
        texts: What the first counts of a round of a discovery are counts of.
        drawn: What was answered.
    """

    index: int
    part: int
    counts: list[tuple[Fraction, NDArray[np.int64]]]
    scores: list[tuple[Fraction, int, NDArray[np.int64]]]
    texts: list[list[str]]
    drawn: bytes = b""


@contextlib.contextmanager
def seen_exactly() -> Iterator[list[Exact]]:
    """Switch noise off, and yield what each answer is before noise."""
    answered: list[Exact] = []
    answer = Block._answer

    def look(self: Block, index: int, part: int, request: str, draw: Callable[[], bytes]) -> bytes:
        def drawn() -> bytes:
            answered.append(Exact(index, part, [], [], []))
            answered[-1].drawn = draw()
            return answered[-1].drawn

        return answer(self, index, part, request, drawn)

    def count(sigma2: Fraction, shape: tuple[int, ...], *_: object) -> NDArray[np.int64]:
        nothing = np.zeros(shape, dtype=np.int64).view(_Nothing)
        nothing.tell = lambda exact: answered[-1].counts.append((sigma2, exact))
        return nothing

    def choose(scores: NDArray[np.int64], epsilon: Fraction, sensitivity: int, *_: object) -> int:
        answered[-1].scores.append((epsilon, sensitivity, scores))
        return int(np.argmax(scores))

    def asked(column: tuple[NDArray[np.int32], list[str]], *words: Any) -> Any:
        answered[-1].texts.append(column[1])
        return without(column, *words)

    without = _discover._without
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_discover, "_without", asked)
        patch.setattr(_noise, "discrete_gaussian", count)
        patch.setattr(_noise, "exponential", choose)
        patch.setattr(Block, "_answer", look)
        yield answered
