"""Record the charged answers of one vault and play them to another: for tests only.

On playing, every draw is carried out on the other vault's rows, so that all code that reads runs;
then its answer is thrown away and the recorded one is returned. What is left of the difference
between the tables is what reached the public by another way.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from dpsynth.vault import Block


@dataclass
class Tape:
    """The charged answers of one vault, in order.

    Attributes:
        answers: What was returned.
        asked: The step, part and request of each, and the form of what was drawn.
    """

    answers: list[bytes] = field(default_factory=list)
    asked: list[tuple[int, int, str, str]] = field(default_factory=list)

    @contextlib.contextmanager
    def recording(self) -> Iterator[Tape]:
        """Keep each answer drawn meanwhile."""
        with _drawing(self._keep):
            yield self

    @contextlib.contextmanager
    def playing(self) -> Iterator[Tape]:
        """Return the recorded answers in order, and yield a tape of what was asked instead.

        Once it is played out, answers are as they were drawn.
        """
        seen = Tape()

        def give(key: tuple[int, int, str], drawn: bytes) -> bytes:
            at = len(seen.answers)
            return seen._keep(key, drawn, self.answers[at] if at < len(self.answers) else drawn)

        with _drawing(give):
            yield seen

    def _keep(self, key: tuple[int, int, str], drawn: bytes, given: bytes | None = None) -> bytes:
        self.asked.append((*key, form_of(drawn)))
        self.answers.append(drawn if given is None else given)
        return self.answers[-1]


@contextlib.contextmanager
def _drawing(use: Callable[[tuple[int, int, str], bytes], bytes]) -> Iterator[None]:
    """Pass what any block draws through ``use``, before it is stored or returned."""
    answer = Block._answer

    def through(
        self: Block, index: int, part: int, request: str, draw: Callable[[], bytes]
    ) -> bytes:
        return answer(self, index, part, request, lambda: use((index, part, request), draw()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Block, "_answer", through)
        yield


def form_of(answer: bytes) -> str:
    """Return what is public of an answer's form: the number of its cells, not what is in them.

    How many categories are shown is what was paid for; how many counts there are is not.
    """
    with contextlib.suppress(zlib.error):
        answer = zlib.decompress(answer)
    try:
        return json.dumps(_form(json.loads(answer)))
    except ValueError:  # bytes of counts
        return f"{len(answer) // 8} counts"


def _form(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _form(value) for key, value in data.items()}
    if isinstance(data, list):
        texts = any(isinstance(each, str) for each in data)
        return "names" if texts or not data else [_form(each) for each in data]
    return type(data).__name__
