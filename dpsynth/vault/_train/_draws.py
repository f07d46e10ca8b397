"""What outside code draws by torch while it sees private rows: bits of the stream, and no trace."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from dpsynth.vault._stream import Stream

_WORDS = 624  # of the state of a Mersenne twister
_STATE = 5056  # bytes of what torch calls its state on a CPU
_LEFT, _FIRST = 8, 24  # where in it the count of words not yet used lies, and the first of them


@contextmanager
def own_draws(stream: Stream, device: torch.device | None = None) -> Iterator[None]:
    """Let torch's generators follow from the stream, and leave them as they were.

    A seed set outside would make draws public, and one record more would shift those of the others;
    and how far a generator has gone would tell how much was drawn.

    Args:
        stream: The vault's.
        device: Where rows are, besides the CPU.
    """
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        seed(stream)
        for each in cuda:
            index = torch.cuda.current_device() if each.index is None else each.index
            torch.cuda.default_generators[index].manual_seed(stream.bits(63))
        yield


def seed(stream: Stream) -> None:
    """Give torch's generator of the CPU a state of the stream's bits.

    All of the state: a seed that is a number keeps 32 bits of it, few enough to be tried in turn.

    Raises:
        RuntimeError: This build of torch keeps another kind of state.
    """
    torch.default_generator.manual_seed(0)  # no half of a pair of normal numbers is left over
    state = bytearray(torch.default_generator.get_state().numpy().tobytes())
    if len(state) != _STATE:
        raise RuntimeError("torch keeps a state of its generator that is not known here")
    words = (stream.words(_WORDS) & np.uint64(0xFFFFFFFF)).astype("<u8").tobytes()
    state[_FIRST : _FIRST + len(words)] = words
    struct.pack_into("<i", state, _LEFT, 1)  # none of them is used before it is mixed
    torch.default_generator.set_state(torch.frombuffer(state, dtype=torch.uint8))
