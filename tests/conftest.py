"""Settings for all tests: each draws the same noise in every run, unless fresh noise is asked for.

In CI, property tests try the same examples in every run, too.
"""

from __future__ import annotations

import os

# One thread each: the tests' arrays are small, and on a busy machine threads wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests import repeatable

settings.register_profile("here", derandomize=bool(os.environ.get("CI")), deadline=None)
settings.load_profile("here")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that leaves the operating system's randomness in place."""
    told = "draw noise and coins from the operating system, not from each test's name"
    parser.addoption("--fresh", action="store_true", help=told)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seed what a test and its fixtures draw by its name."""
    if item.config.getoption("fresh") or item.get_closest_marker("fresh") is not None:
        repeatable.restore()
    else:
        repeatable.seed(item.nodeid)
