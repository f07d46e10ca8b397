"""Where the benchmarks keep what they found: a JSON file each, in one folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the folder."""
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")


def kept(folder: Path, name: str) -> Any:
    """Return what an earlier run kept, or None."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def keep(folder: Path, name: str, found: Any) -> None:
    """Keep what was found, in the place of what an earlier run kept."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
