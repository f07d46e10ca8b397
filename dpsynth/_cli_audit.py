"""The command that audits a recipe's mechanism with canaries, on rows that are not private."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpsynth._console import Json, print_json

if TYPE_CHECKING:
    from dpsynth.recipe import Recipe

_NOT_PRIVATE = "Rows a mechanism is tried on"

Surrogate = Annotated[
    Path | None,
    typer.Option(
        help="Rows that are NOT private: public ones, or drawn from an earlier release "
        "(default: simulated from the schema).",
        rich_help_panel=_NOT_PRIVATE,
    ),
]
SimulatedRows = Annotated[
    int,
    typer.Option("--rows", min=1, help="How many rows to simulate.", rich_help_panel=_NOT_PRIVATE),
]


def audit(
    recipe: Annotated[Path, typer.Argument(help="The recipe, release.toml.")],
    surrogate: Surrogate = None,
    rows: SimulatedRows = 1000,
    canaries: Annotated[
        int | None, typer.Option(min=10, help="Canaries of each run (default: 100).")
    ] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="How many fits (default: 12).")] = None,
    seed: Annotated[int, typer.Option(help="Of the canaries and simulated rows; not coins.")] = 0,
    as_json: Json = False,
) -> None:
    """Audit a recipe's mechanism with canaries. Costs no budget; exit code 2 if it is refuted."""
    from dpsynth.attacks import canary_audit

    read, words = claim_of(recipe, surrogate, rows, seed)
    words |= given(canaries=canaries, runs=runs)
    found = canary_audit(read.synthesizer, read.schema, **words)
    tell([found.sentence], found.to_json(), found.failed, as_json)


def claim_of(
    recipe: Path, surrogate: Path | None, rows: int, seed: int
) -> tuple[Recipe, dict[str, Any]]:
    """Return a recipe, and its claim and the surrogate as an attack on a mechanism takes them."""
    import numpy as np

    from dpsynth.recipe import Recipe
    from dpsynth.vault import load_table, needed_columns

    read = Recipe.load(recipe)
    read.schema.require_confirmed()
    table = None
    if surrogate is not None:
        table = load_table(surrogate, needed_columns(read.schema, read.unit))
    return read, {
        "epsilon": read.epsilon,
        "delta": read.delta,
        "unit": read.unit,
        "surrogate": rows if table is None else table,
        "rng": np.random.default_rng(seed),
    }


def given(**options: int | None) -> dict[str, int]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def tell(sentences: list[str], facts: dict[str, Any], failed: bool, as_json: bool) -> None:
    """Print what was found; exit code 2 if a claim is refuted."""
    if as_json:
        print_json(facts)
    else:
        typer.echo("\n".join(sentences))
    if failed:
        raise typer.Exit(2)
