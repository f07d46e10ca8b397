"""The command that audits a recipe's mechanism with canaries, on rows that are not private."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpsynth._console import Json, print_json


def audit(
    recipe: Annotated[Path, typer.Argument(help="The recipe, release.toml.")],
    surrogate: Annotated[
        Path | None,
        typer.Option(
            help="Rows that are NOT private: public ones, or drawn from an earlier release "
            "(default: simulated from the schema)."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows to simulate.")] = 1000,
    canaries: Annotated[int, typer.Option(min=10, help="Canaries of each run.")] = 100,
    runs: Annotated[int, typer.Option(min=1, help="How many fits.")] = 12,
    seed: Annotated[int, typer.Option(help="Of the canaries and simulated rows; not coins.")] = 0,
    as_json: Json = False,
) -> None:
    """Audit a recipe's mechanism with canaries. Costs no budget; exit code 2 if it is refuted."""
    import numpy as np

    from dpsynth.attacks import canary_audit
    from dpsynth.recipe import Recipe
    from dpsynth.vault import load_table, needed_columns

    read = Recipe.load(recipe)
    read.schema.require_confirmed()
    table = None
    if surrogate is not None:
        table = load_table(surrogate, needed_columns(read.schema, read.unit))
    found = canary_audit(
        read.synthesizer,
        read.schema,
        epsilon=read.epsilon,
        delta=read.delta,
        unit=read.unit,
        surrogate=rows if table is None else table,
        canaries=canaries,
        runs=runs,
        rng=np.random.default_rng(seed),
    )
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(found.sentence)
    if found.failed:
        raise typer.Exit(2)
