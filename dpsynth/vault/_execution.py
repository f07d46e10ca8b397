"""What every step of a block rests on: one place in the plan, one store, one count of noise.

Every answer is stored in the ledger before it is returned. In a resumed block, answers that were
stored are replayed and their rows are not read again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique, Domain
from dpsynth.engines import marginal_counts
from dpsynth.vault import _choose
from dpsynth.vault._bound import Unit
from dpsynth.vault._plan import SAMPLES, Plan, Step
from dpsynth_accounting import Event, InvalidRequest, Reservation, SamePeople, digest

if TYPE_CHECKING:
    from dpsynth.vault._vault import Vault

Coarse = Mapping[str, NDArray[np.int64]]

Notice = Callable[[str, int, int], None]
"""Is told what a block does, how many parts of it are done, and of how many: public facts alone."""

MOST_CELLS = 1 << 27
"""Greatest number of cells of one answer: a GiB of int64."""

MOST_KEPT = 1 << 25
"""Greatest number of cells of the exact counts that a block keeps to compare again: 256 MiB."""

_S = TypeVar("_S", bound=Step)


class Execution:
    """A paid plan being carried out: which step is next, what is stored, what was counted.

    Attributes:
        plan: What was paid for.
        refused: Whether the charge was handed back, since another account holds the same people.
        notice: Is told how far long steps are, by public facts and noisy answers alone.
    """

    def __init__(self, vault: Vault, reservation: Reservation, plan: Plan) -> None:
        self._vault = vault
        self._reservation = reservation
        self._next = 0
        self._samples = 0
        self._begun: set[int] = set()
        self._kept: dict[tuple[Clique, tuple[str, ...]], NDArray[np.int64]] = {}
        self._counts_of: Mapping[str, NDArray[np.int32]] | None = None
        self._room = MOST_KEPT
        self._tuning = False
        self.refused = False
        self.plan = plan
        self.notice: Notice = _quiet

    def __repr__(self) -> str:
        """Name the plan's position and nothing private."""
        return f"Block(step {self._next} of {len(self.plan.steps)})"

    @property
    def domain(self) -> Domain:
        """The domain that rows are coded in; known once discovery, if any is needed, was paid."""
        return self._vault.domain

    @property
    def unit(self) -> Unit:
        """The unit of privacy."""
        return self._vault.unit

    @property
    def meta(self) -> Mapping[str, object]:
        """The public facts that the reservation was made with."""
        return self._reservation.meta

    @property
    def identity(self) -> str:
        """The reservation's name in the ledger."""
        return self._reservation.identity

    def end(self) -> None:
        """Drop the exact counts that were kept, and keep no more; called where the block ends."""
        self._kept.clear()
        self._room = 0

    def _expect(self, kind: type[_S]) -> tuple[int, _S, Event]:
        """Return the next declared step, which must be of this kind, and move on."""
        if self._tuning:
            raise self._refused("A run asked the block of its tuning, not the one it was given.")
        index = self._next
        if index >= len(self.plan.steps):
            raise self._refused("A step was asked for beyond the end of the plan.")
        step = self.plan.steps[index]
        if not isinstance(step, kind):
            raise self._refused(
                f"A {kind.__name__} step was asked for where the plan declares a "
                f"{type(step).__name__} step."
            )
        self._next += 1
        return index, step, self.plan.events[index]

    def _answer(
        self,
        index: int,
        part: int,
        request: str,
        draw: Callable[[], bytes],
        *,
        once: bool = False,
        lost: bytes | None = None,
    ) -> bytes:
        """Replay a stored answer, or note the step, read the rows, and store before returning.

        Args:
            index: The step.
            part: The answer's place in it.
            request: What is asked.
            draw: Draws the answer.
            once: Whether outside code sees what is drawn before it is stored. The part is then
                noted by itself, and the ledger refuses to begin it again.
            lost: What is stored for such a part that began before and has no answer.
        """
        stored = self._reservation.answer(index, part, request)
        if stored is not None:
            return stored
        once = once or lost is not None
        if lost is not None and self._reservation.begun(index, part):
            self._begun.add(index)
            value = lost
        else:
            if once or index not in self._begun:
                self._recognise()
                self._reservation.begin(index, request, *([part] if once else []))
                self._begun.add(index)
            value = draw()
        self._reservation.store(index, part, request, value)
        return value

    def _recognise(self) -> None:
        """Have the vault look for its people in other accounts; if they are there, end here."""
        try:
            self._vault._recognise(self._reservation)
        except SamePeople:
            self.refused = True
            self._reservation.void()
            raise

    def _request(
        self,
        *,
        coarse: Coarse | None,
        candidates: Mapping[Clique, NDArray[np.int64]] | None = None,
        **facts: object,
    ) -> str:
        """Return what names a request in the ledger: the same codes may mean something else."""
        maps = {name: hashed(values) for name, values in (coarse or {}).items()}
        facts |= {"coarse": maps, "domain": self.domain.to_json()}
        if candidates is not None:
            facts["candidates"] = [[list(c), hashed(model)] for c, model in candidates.items()]
        return digest(facts)

    def _require_counts(
        self, answers: Mapping[Clique, NDArray[np.int64]], coarse: Coarse | None
    ) -> None:
        """Refuse answers of a model that are no counts, or so great that a distance overflows."""
        for clique, model in answers.items():
            if model.shape != self._shape(clique, coarse) or model.dtype != np.int64:
                raise self._refused("An answer was not an int64 array of its clique's shape.")
            if max(int(model.max()), -int(model.min())) > _choose.MOST_TOTAL // model.size:
                raise self._refused("An answer was to be compared that is no count of rows.")

    def _shape(self, clique: Clique, coarse: Coarse | None) -> tuple[int, ...]:
        """Return the axis lengths of a clique's answer; refuse cliques and maps that have none."""
        unknown = [name for name in clique if name not in self.domain.names]
        if unknown or len(set(clique)) != len(clique) or not clique:
            raise self._refused("A marginal was asked for over unknown, repeated or no columns.")
        shape = []
        for name in clique:
            size = self.domain.size(name)
            if coarse is not None and name in coarse:
                map_ = coarse[name]
                if map_.shape != (size,) or map_.dtype != np.int64 or map_.min() < 0:
                    raise self._refused("A coarse map was not an int64 array, one entry a code.")
                size = int(map_.max()) + 1
            shape.append(size)
        if math.prod(shape) > MOST_CELLS:
            raise self._refused(f"A marginal of more than {MOST_CELLS} cells was asked for.")
        return tuple(shape)

    def _draw_samples(self, count: int) -> None:
        self._samples += count
        if self._samples > SAMPLES:
            raise self._refused("A block was to draw more noise than its slack in delta covers.")

    def _distances(
        self, answers: Mapping[Clique, NDArray[np.int64]], coarse: Coarse | None
    ) -> dict[Clique, int]:
        """Return the exact L1 distance between each real marginal and the given integers."""
        return {
            clique: int(np.abs(self._counted(clique, model.shape, coarse) - model).sum())
            for clique, model in answers.items()
        }

    def _count(
        self, clique: Clique, shape: tuple[int, ...], coarse: Coarse | None
    ) -> NDArray[np.int64]:
        """Return the exact counts of a marginal: rows are read."""
        return marginal_counts(self._vault._training(), clique, shape, coarse)

    def _counted(
        self, clique: Clique, shape: tuple[int, ...], coarse: Coarse | None
    ) -> NDArray[np.int64]:
        """Return exact counts, kept while there is room: a mechanism of many rounds asks again."""
        codes, maps = self._vault._training(), coarse or {}
        if codes is not self._counts_of:  # coded in another domain since
            self._room += sum(each.size for each in self._kept.values())
            self._kept.clear()
            self._counts_of = codes
        key = (clique, tuple(hashed(maps[name]) if name in maps else "" for name in clique))
        counts = self._kept.get(key)
        if counts is None:
            counts = self._count(clique, shape, coarse)
            if counts.size <= self._room:
                self._room -= counts.size
                self._kept[key] = counts
        return counts

    def _refused(self, asked: str) -> InvalidRequest:
        return InvalidRequest(
            asked,
            "A block answers exactly the steps that were declared when it was reserved.",
            "Declare what the mechanism asks in its steps.",
            touched=bool(self._begun),
        )


def _quiet(what: str, done: int, of: int) -> None:
    """Tell nobody."""


def hashed(values: NDArray[np.int64]) -> str:
    return hashlib.sha256(values.astype("<i8").tobytes()).hexdigest()
