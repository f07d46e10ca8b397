"""CPU seconds and peak memory of a piece of work, child processes included."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Cost:
    """What a piece of work took.

    Attributes:
        cpu: CPU seconds, user and system, child processes included.
        wall: Wall seconds; noisy on a busy machine.
        peak: Peak memory of the process so far, in MB.
    """

    cpu: float = 0.0
    wall: float = 0.0
    peak: float = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """Yield a cost that is filled in when the block ends."""
    cost = Cost()
    cpu, wall = _cpu(), time.monotonic()
    yield cost
    cost.cpu, cost.wall = _cpu() - cpu, time.monotonic() - wall
    cost.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpu() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
