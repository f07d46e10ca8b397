"""``python -m dpsynth``: the command line."""

from __future__ import annotations

from dpsynth.cli import main

main()
