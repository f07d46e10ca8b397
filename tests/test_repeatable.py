"""What a test draws is the same in every run, and drawn by the operating system when asked."""

from __future__ import annotations

import os
import secrets
import subprocess

import pytest

from dpsynth.vault._stream import SYSTEM
from tests import repeatable

DRAW = """
import os
import secrets
from dpsynth.vault._stream import SYSTEM
print(SYSTEM.bits(64), secrets.token_hex())
"""


def drawn() -> tuple[int, int, str]:
    return SYSTEM.bits(64), secrets.randbits(64), secrets.token_hex()


def test_a_seed_repeats_noise_and_coins() -> None:
    repeatable.seed("one")
    first, then = drawn(), drawn()
    repeatable.seed("one")
    assert (drawn(), drawn()) == (first, then)
    repeatable.seed("another")
    found = drawn()
    assert len({*first, *then, *found}) == 9


@pytest.mark.fresh
def test_a_fresh_test_draws_from_the_operating_system() -> None:
    repeatable.seed("one")
    first = drawn()
    repeatable.restore()
    found = drawn()
    repeatable.seed("one")
    assert not {*found} & {*first}
    assert drawn() == first


def test_a_process_is_seeded_too(request: pytest.FixtureRequest) -> None:
    def told() -> str:
        return subprocess.run(
            repeatable.python("-c", DRAW), capture_output=True, text=True, check=True
        ).stdout

    repeatable.seed("one")
    first, then = told(), told()
    repeatable.seed("one")
    assert told() == first != then


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_children_draw_each_their_own() -> None:
    def child() -> str:
        out, into = os.pipe()
        if os.fork() == 0:
            os.write(into, secrets.token_hex().encode())
            os._exit(0)
        os.close(into)
        with os.fdopen(out) as told:
            found = told.read()
        os.wait()
        return found

    def family() -> list[str]:
        repeatable.seed("one")
        return [child(), child(), secrets.token_hex()]

    found = family()
    assert len(set(found)) == 3
    assert family() == found
