"""The command line, run in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dpsynth import cli

Runner = Callable[..., tuple[int, str, str]]


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    """Run the command line in this process; return its exit code, output and errors."""
    monkeypatch.setattr("sys.argv", ["dpsynth", *map(str, words)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.fixture
def dpsynth(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Return what runs a command and gives its exit code, output and errors."""
    return lambda *words: call(capsys, monkeypatch, *words)
