"""The operating system's randomness, repeatable, so that no test fails by chance.

All secret randomness of the toolkit comes from ``os.urandom``, and no setting of it changes that.
The tests replace the function itself, in their own processes: each test draws what its name seeds.
``pytest --fresh`` leaves the operating system's in place, to look for tests that hold only nearly
always; a test marked ``fresh`` always has it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import runpy
import sys

_OF_THE_SYSTEM = os.urandom

_family = [0]
"""Forks of this process's ancestors, oldest first, and of this process: a child draws its own."""


def _count_fork() -> None:
    _family[-1] += 1


if hasattr(os, "register_at_fork"):  # where there is fork
    os.register_at_fork(before=_count_fork, after_in_child=lambda: _family.append(0))


def seed(text: str) -> None:
    """Let ``os.urandom`` and ``secrets`` repeat what a text seeds. What is drawn is not private."""
    used = itertools.count()
    _family[:] = [0]

    def drawn(count: int) -> bytes:
        return hashlib.shake_256(f"{text} {_family} {next(used)}".encode()).digest(count)

    _replace(drawn)


def restore() -> None:
    """Let the operating system be asked again."""
    _replace(_OF_THE_SYSTEM)


def _replace(source: object) -> None:
    os.urandom = source  # type: ignore[assignment]
    random._urandom = source  # type: ignore[attr-defined]  # of random.SystemRandom, hence secrets
    if (stream := sys.modules.get("dpsynth.vault._stream")) is not None:
        stream.SYSTEM._spare.words = []  # drawn ahead


def python(*words: object) -> list[str]:
    """Return a command: Python with ``-m``, ``-c`` or a file, which draws what a seed repeats."""
    return [sys.executable, __file__, os.urandom(8).hex(), *map(str, words)]


if __name__ == "__main__":
    _, text, *words = sys.argv
    seed(text)
    sys.path.pop(0)  # the folder of this file
    what = words[0]
    sys.argv[:] = words[1:] if what == "-m" else words
    if what == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        exec(sys.argv.pop(1), {"__name__": "__main__"})
    else:
        runpy.run_path(what, run_name="__main__")
