"""The command that audits a recipe's mechanism by attacks, on rows that are not private."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dpsynth._console import Json, print_json
from dpsynth_accounting import InvalidRequest


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
    shadow: Annotated[
        bool,
        typer.Option(
            "--shadow",
            help="Attack isolated units of the surrogate, and reconstruct a column, in place of "
            "canaries.",
        ),
    ] = False,
    canaries: Annotated[
        int | None, typer.Option(min=10, help="Canaries of each run (default: 100).")
    ] = None,
    targets: Annotated[
        int | None, typer.Option(min=1, help="Units that --shadow attacks (default: 20).")
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            help="The column that --shadow reconstructs (default: the one of fewest values)."
        ),
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, help="How many fits (default: 12; 128 with --shadow).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the canaries and simulated rows; not coins.")] = 0,
    as_json: Json = False,
) -> None:
    """Audit a recipe's mechanism by attacks. Costs no budget; exit code 2 if it is refuted."""
    if (canaries if shadow else targets or secret) is not None:
        raise InvalidRequest(
            f"An audit was asked for {'with' if shadow else 'without'} --shadow.",
            "Canaries are made up without it, targets and a secret are chosen with it.",
            "Leave out --canaries."
            if shadow
            else "Leave out --targets and --secret, or add --shadow.",
        )
    import numpy as np

    from dpsynth import attacks
    from dpsynth.recipe import Recipe
    from dpsynth.vault import load_table, needed_columns

    read = Recipe.load(recipe)
    read.schema.require_confirmed()
    table = None
    if surrogate is not None:
        table = load_table(surrogate, needed_columns(read.schema, read.unit))
    words: dict[str, Any] = {
        "epsilon": read.epsilon,
        "delta": read.delta,
        "unit": read.unit,
        "surrogate": rows if table is None else table,
        "rng": np.random.default_rng(seed),
    }
    if shadow and secret is not None and secret not in read.schema.modelled:
        raise InvalidRequest(
            f"The column {secret!r} was to be reconstructed.",
            f"The modelled columns are {', '.join(read.schema.modelled)}.",
            "Name one of them.",
        )
    counts = {"targets": targets, "fits": runs} if shadow else {"canaries": canaries, "runs": runs}
    words |= {name: count for name, count in counts.items() if count is not None}
    attack = attacks.shadow_attack if shadow else attacks.canary_audit
    found = attack(read.synthesizer, read.schema, **words)
    sentences, facts, failed = [found.sentence], found.to_json(), found.failed
    if shadow and len(read.schema.modelled) > 1:
        words = {name: words[name] for name in words if name not in counts}
        told = attacks.reconstruction_attack(read.synthesizer, read.schema, secret=secret, **words)
        sentences.append(told.sentence)
        facts["reconstruction"] = told.to_json()
        failed = failed or told.failed
    if as_json:
        print_json(facts)
    else:
        typer.echo("\n".join(sentences))
    if failed:
        raise typer.Exit(2)
