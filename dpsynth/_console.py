"""What every command prints with: one console for results, one for people, JSON for machines."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
"""Results: standard output."""

err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Errors, warnings and progress: standard error."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def say(text: str) -> None:
    """Print a text as it is, which may hold brackets."""
    out.print(text, markup=False)


def print_json(data: Any) -> None:
    """Print JSON data, indented."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
