"""The stream: uniform, and never the same twice in any thread, fork, process or signal handler.

Every check is a function that a broken stream must fail too. Statistical checks reject at 1e-6.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from dpsynth.vault import _noise, _stream
from dpsynth.vault._stream import SYSTEM, SeededStream, Stream

P = 1e-6

# -- the cipher ----------------------------------------------------------------------------------


class ZeroKeyed(Stream):
    """The stream of RFC 8439, appendix A.1: a key and a nonce of zeros."""

    keys = 0

    def _key(self) -> bytes:
        self.keys += 1
        return bytes(32)


def test_words_are_the_key_stream_of_the_standard() -> None:
    """Blocks 0 and 1: RFC 8439, appendix A.1, vectors 1 and 2."""
    wanted = bytes.fromhex(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )
    assert ZeroKeyed().words(16).tobytes() == wanted


def test_each_chunk_has_a_key_of_its_own() -> None:
    stream = ZeroKeyed()
    chunk = _stream._CHUNK // 8
    found = stream.words(3 * chunk + 1)
    assert stream.keys == 4
    assert np.array_equal(found[:chunk], found[chunk : 2 * chunk])  # as it is one and the same key
    fresh = SYSTEM.words(3 * chunk + 1)
    assert len(np.unique(fresh)) == len(fresh)


def test_words_have_the_asked_number_and_can_be_written() -> None:
    for count in (0, 1, 7, 100_000):
        found = SYSTEM.words(count)
        assert (found.shape, found.dtype) == ((count,), np.uint64)
        found[:] = 0


# -- uniform -------------------------------------------------------------------------------------


def uniform_bytes(words: NDArray[np.uint64]) -> float:
    seen = np.bincount(words.view(np.uint8), minlength=256)
    return float(stats.chisquare(seen).pvalue)


def uniform_below(draw: Callable[[int], int], n: int, count: int = 20_000) -> float:
    """Return the p-value of draws below n, in at most 64 cells."""
    cells = min(n, 64)
    seen = np.bincount([draw(n) * cells // n for _ in range(count)], minlength=cells)
    sizes = np.diff([-(-n * cell // cells) for cell in range(cells + 1)]).astype(float)
    return float(stats.chisquare(seen, sizes / sizes.sum() * count).pvalue)


def by_remainder(n: int) -> int:
    """Return a biased integer: the usual mistake."""
    return SYSTEM.bits(n.bit_length()) % n


def test_words_are_uniform() -> None:
    assert uniform_bytes(SYSTEM.words(1_000_000)) > P
    assert uniform_bytes(SYSTEM.words(1_000_000) | np.uint64(1 << 20)) < P
    assert uniform_bytes(np.where(np.arange(1_000_000) % 50 == 0, 0, SYSTEM.words(1_000_000))) < P


@pytest.mark.parametrize("n", [2, 3, 10, 11 * (1 << 61), (1 << 200) * 5 // 7])
def test_below_is_uniform(n: int) -> None:
    assert uniform_below(SYSTEM.below, n) > P


@pytest.mark.parametrize("n", [3, 11 * (1 << 61), (1 << 200) * 5 // 7])
def test_a_remainder_is_rejected(n: int) -> None:
    assert uniform_below(by_remainder, n) < P


@pytest.mark.parametrize("n", range(1, 35))
def test_below_is_exact(n: int) -> None:
    """Every value of the bits below n is passed on once, and every other one is drawn again."""
    found = []
    for value in range(1 << (n - 1).bit_length()):
        script = iter([value, n - 1])
        stream = Stream()
        stream.bits = lambda _, script=script: next(script)  # type: ignore[method-assign, misc]
        found.append(stream.below(n))
    rest = len(found) - n
    assert sorted(found) == sorted([*range(n), *[n - 1] * rest])


def test_bits_fill_their_range() -> None:
    for k in (0, 1, 2, 63, 64, 65, 192, 1_000):
        found = [SYSTEM.bits(k) for _ in range(200)]
        assert all(0 <= value < 1 << k for value in found)
        ones = sum(value.bit_count() for value in found)
        assert k == 0 or stats.binomtest(ones, 200 * k).pvalue > P
        assert k == 0 or max(found).bit_length() == k


def test_nothing_is_below_nothing() -> None:
    for n in (0, -3):
        with pytest.raises(ValueError, match="no integer"):
            SYSTEM.below(n)


# -- never twice ---------------------------------------------------------------------------------

FORKS = """
import json, os
from dpsynth.vault import _stream
from dpsynth.vault._stream import SYSTEM, SeededStream

def forked(work):
    out, into = os.pipe()
    if os.fork() == 0:
        os.close(out)
        os.write(into, json.dumps(work()).encode())
        os._exit(0)
    os.close(into)
    return out

def family(stream):
    draw = lambda: [stream.bits(64), int(stream.words(1)[0])]
    draw()  # so that there are words to hand down
    children = [forked(draw) for _ in range(2)]
    return [draw(), *(json.loads(os.fdopen(child).read()) for child in children)]

def without(*signs):
    if "count" in signs:
        _stream._count_fork.__code__ = (lambda: None).__code__
    if "number" in signs:
        os.getpid = lambda: 1
    return family(SYSTEM)

print(json.dumps({
    name: json.loads(os.fdopen(forked(work)).read())
    for name, work in {
        "shipped": lambda: without(),
        "without count": lambda: without("count"),
        "without number": lambda: without("number"),
        "without both": lambda: without("count", "number"),
        "seeded": lambda: family(SeededStream(7)),
    }.items()
}))
"""

SPAWN = """
import json, random
import numpy as np
from dpsynth.vault._stream import SYSTEM, SeededStream
random.seed(0)
np.random.seed(0)
streams = {"shipped": SYSTEM, "seeded": SeededStream(7)}
print(json.dumps({name: [s.bits(64), int(s.words(1)[0])] for name, s in streams.items()}))
"""


def run(script: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def repeats(draws: list[list[int]]) -> bool:
    """Say whether two of the processes drew the same, by either method."""
    return any(len(set(column)) < len(column) for column in zip(*draws, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_two_children_and_their_parent_draw_differently() -> None:
    """Either of the two signs of a fork is enough; without both, words are handed down."""
    found = {name: repeats(draws) for name, draws in run(FORKS).items()}
    assert found == {
        "shipped": False,
        "without count": False,
        "without number": False,
        "without both": True,
        "seeded": True,
    }


def test_fresh_processes_draw_differently() -> None:
    one, two = run(SPAWN), run(SPAWN)
    assert not repeats([one["shipped"], two["shipped"]])
    assert repeats([one["seeded"], two["seeded"]])


def drawn_by_threads(stream: Stream, threads: int = 8, count: int = 5_000) -> list[int]:
    """Return what threads draw at once, by both methods."""
    found: list[list[int]] = [[] for _ in range(threads)]
    start = threading.Barrier(threads)

    def draw(into: list[int]) -> None:
        start.wait()
        into += [stream.bits(64) for _ in range(count)]
        into += stream.words(count).tolist()

    running = [threading.Thread(target=draw, args=(each,)) for each in found]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return [word for each in found for word in each]


def test_threads_never_share_a_word() -> None:
    assert len(set(drawn_by_threads(SYSTEM))) == 8 * 10_000
    assert len(set(drawn_by_threads(SeededStream(1)))) == 8 * 10_000
    assert len(set(drawn_by_threads(ZeroKeyed()))) < 8 * 10_000


class Careless(Stream):
    """A stream that reads a word and moves on in two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn, self.used = SYSTEM.words(10_000).tolist(), 0

    def _word(self) -> int:
        found = self.drawn[self.used]
        self.used += 1
        return int(found)


def drawn_while_interrupted(stream: Stream) -> list[int]:
    """Return what is drawn when a handler draws too, before each line of the stream's own."""
    found: list[int] = []
    own = type(stream)._word.__code__
    inside = False

    def handler(frame: FrameType, event: str, _: object) -> Any:
        nonlocal inside
        if frame.f_code is own and event == "line" and not inside:
            inside = True
            found.append(stream.bits(64))
            inside = False
        return handler

    before = sys.gettrace()
    sys.settrace(handler)
    try:
        for _ in range(_stream._SPARE):
            found.append(stream.bits(64))
    finally:
        sys.settrace(before)
    return found


def test_a_signal_handler_gets_words_of_its_own() -> None:
    found = drawn_while_interrupted(Stream())
    assert len(set(found)) == len(found) > 2 * _stream._SPARE
    broken = drawn_while_interrupted(Careless())
    assert len(set(broken)) < len(broken)


def test_a_word_is_forgotten_when_it_is_handed_out() -> None:
    stream = Stream()
    found = [stream.bits(64) for _ in range(10)]
    assert not set(found) & set(stream._spare.words)
    assert not any(isinstance(value, bytes) for value in vars(stream).values())


# -- seeds ---------------------------------------------------------------------------------------


class FromPython(Stream):
    def words(self, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(random.randbytes(8 * count), dtype=np.uint64)


class FromNumpy(Stream):
    def words(self, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(np.random.bytes(8 * count), dtype=np.uint64)  # noqa: NPY002


class FromTorch(Stream):
    def words(self, count: int) -> NDArray[np.uint64]:
        drawn = sys.modules["torch"].randint(-(2**63), 2**63 - 1, (count,))
        return np.array(drawn.tolist(), dtype=np.int64).view(np.uint64)


def seed_reaches(make: Callable[[], Stream], seed: Callable[[int], object]) -> bool:
    """Say whether the seed repeats what streams made after it draw."""

    def draw() -> list[int]:
        seed(1)
        stream = make()
        noise = _noise.discrete_gaussian(Fraction(400), (50,), stream)
        return [*noise.tolist(), _noise.exponential(noise, Fraction(1, 99), 1, stream)]

    return draw() == draw()


def test_seeds_of_python_and_numpy_do_not_reach_the_noise() -> None:
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        for seed, broken in ((random.seed, FromPython), (np.random.seed, FromNumpy)):
            assert not seed_reaches(Stream, seed)
            assert not seed_reaches(lambda: SYSTEM, seed)
            assert seed_reaches(broken, seed)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def test_seeds_of_torch_do_not_reach_the_noise() -> None:
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng(devices=[]):
        assert not seed_reaches(Stream, torch.manual_seed)
        assert not seed_reaches(lambda: SYSTEM, torch.manual_seed)
        assert seed_reaches(FromTorch, torch.manual_seed)


def test_noise_comes_from_the_system_unless_another_stream_is_given() -> None:
    for sampler in (_noise.discrete_gaussian, _noise.discrete_laplace, _noise.exponential):
        defaults = sampler.__defaults__
        assert defaults is not None
        assert defaults[-1] is SYSTEM
    assert type(SYSTEM) is Stream


def everything(stream: Stream) -> list[Any]:
    return [
        stream.words(5).tolist(),
        stream.bits(300),
        [stream.below(1_000) for _ in range(600)],
        stream.words(_stream._CHUNK // 8 + 1).tolist(),
        _noise.discrete_gaussian(Fraction(10**7), (9,), stream).tolist(),
        _noise.discrete_laplace(Fraction(100), (9,), stream).tolist(),
        _noise.exponential(np.arange(50), Fraction(1, 9), 1, stream),
    ]


def test_a_seed_repeats_and_another_does_not() -> None:
    assert everything(SeededStream(3)) == everything(SeededStream(3))
    for one, two in ((SeededStream(3), SeededStream(4)), (SeededStream(33), SeededStream(-33))):
        ours, theirs = everything(one), everything(two)
        assert all(a != b for a, b in zip(ours[:-1], theirs[:-1], strict=True))
    one = SeededStream(3)
    assert everything(one) != everything(one)
