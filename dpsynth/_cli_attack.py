"""The command that attacks: a table of any tool, or what a mechanism makes of rows not private."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpsynth._cli_audit import SimulatedRows, Surrogate, claim_of, given, tell
from dpsynth._cli_ledger import open_ledger
from dpsynth._console import Json, err
from dpsynth_accounting import InvalidRequest

_TABLE = "A synthetic table"
_DEEP = "A mechanism, with --deep"

_OF_TABLE = (
    *("train", "holdout", "synthetic", "schema", "claimed_epsilon", "delta", "classifier"),
    *("ledger", "account", "peer"),
)
_OF_DEEP = ("surrogate", "rows", "targets", "secret", "fits", "seed")


def attack(
    context: typer.Context,
    train: Annotated[
        Path | None,
        typer.Option(help="Rows the table was made from.", rich_help_panel=_TABLE),
    ] = None,
    holdout: Annotated[
        Path | None,
        typer.Option(help="Rows it was not made from, equal in law.", rich_help_panel=_TABLE),
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="The table, of any tool.", rich_help_panel=_TABLE)
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            help="Schema of the tables (default: guessed from all three).", rich_help_panel=_TABLE
        ),
    ] = None,
    claimed_epsilon: Annotated[
        float | None,
        typer.Option(help="Epsilon that the tool claims for one row.", rich_help_panel=_TABLE),
    ] = None,
    delta: Annotated[float, typer.Option(help="Of that claim.", rich_help_panel=_TABLE)] = 0.0,
    classifier: Annotated[
        bool,
        typer.Option(
            help="Try the classifier, the slowest of the attacks.", rich_help_panel=_TABLE
        ),
    ] = True,
    ledger: Annotated[
        str | None,
        typer.Option(
            help="Ledger of the rows' account: the attack is noted there.", rich_help_panel=_TABLE
        ),
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="That account.", rich_help_panel=_TABLE)
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="Show another tool's figures too: anonymeter, sdmetrics; repeatable.",
            rich_help_panel=_TABLE,
        ),
    ] = None,
    deep: Annotated[
        Path | None,
        typer.Option(
            help="Attack the mechanism of a recipe, release.toml, by many fits. Costs no budget.",
            rich_help_panel=_DEEP,
        ),
    ] = None,
    surrogate: Surrogate = None,
    rows: SimulatedRows = 1000,
    targets: Annotated[
        int | None,
        typer.Option(
            min=1, help="Isolated units that are attacked (default: 20).", rich_help_panel=_DEEP
        ),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            help="The column that is reconstructed (default: the one of fewest values).",
            rich_help_panel=_DEEP,
        ),
    ] = None,
    fits: Annotated[
        int | None, typer.Option(min=1, help="How many (default: 128).", rich_help_panel=_DEEP)
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of targets and simulated rows; not coins.", rich_help_panel=_DEEP)
    ] = 0,
    as_json: Json = False,
) -> None:
    """Attack a table of any tool, or with --deep the mechanism of a recipe.

    The first gives exact results about private rows, for the custodian only. The second reads no
    private row. Exit code 2 if a table fails or a claim is refuted.
    """
    _require_one_kind(context, deep is not None)
    if deep is not None:
        _attack_mechanism(deep, surrogate, rows, targets, secret, fits, seed, as_json)
        return
    if train is None or holdout is None or synthetic is None:
        raise InvalidRequest(
            "An attack on a table was asked for without all of --train, --holdout, --synthetic.",
            "What is told of rows that were used is compared with rows that were not.",
            "Give all three, or a recipe with --deep.",
        )
    if (ledger is None) != (account is None):
        raise InvalidRequest(
            "An attack was to be noted in a ledger.",
            "It is noted in one account of one ledger.",
            "Give both --ledger and --account, or neither.",
        )
    from dpsynth.standalone import attack_triple

    noted = None if ledger is None else open_ledger(ledger).existing(str(account))
    found = attack_triple(
        train,
        holdout,
        synthetic,
        schema,
        epsilon=claimed_epsilon,
        delta=delta,
        classifier=classifier,
        account=noted,
        peers=peer or (),
    )
    if not as_json:
        err.print("Exact figures from private rows: do not publish them.", style="yellow")
        for note in found["notes"]:
            err.print(note, markup=False, style="yellow")
    tell(found["sentences"], found, found["outcome"] == "fail", as_json)


def _require_one_kind(context: typer.Context, deep: bool) -> None:
    """Refuse options of the other kind of attack."""
    of_other = [
        f"--{name.replace('_', '-')}"
        for name in (_OF_TABLE if deep else _OF_DEEP)
        if str(context.get_parameter_source(name)).endswith("COMMANDLINE")
    ]
    if of_other:
        raise InvalidRequest(
            f"An attack {'with' if deep else 'without'} --deep was asked for with "
            f"{', '.join(of_other)}.",
            "With it a mechanism is attacked, without it a table.",
            f"Leave these out, or {'--deep' if deep else 'add --deep'}.",
        )


def _attack_mechanism(
    recipe: Path,
    surrogate: Path | None,
    rows: int,
    targets: int | None,
    secret: str | None,
    fits: int | None,
    seed: int,
    as_json: bool,
) -> None:
    from dpsynth.attacks import reconstruction_attack, shadow_attack

    read, words = claim_of(recipe, surrogate, rows, seed)
    if secret is not None and secret not in read.schema.modelled:
        raise InvalidRequest(
            f"The column {secret!r} was to be reconstructed.",
            f"The modelled columns are {', '.join(read.schema.modelled)}.",
            "Name one of them.",
        )
    counts = given(targets=targets, fits=fits)
    shadow = shadow_attack(read.synthesizer, read.schema, **words | counts)
    sentences, facts, failed = [shadow.sentence], shadow.to_json(), shadow.failed
    if len(read.schema.modelled) > 1:
        told = reconstruction_attack(read.synthesizer, read.schema, secret=secret, **words)
        sentences.append(told.sentence)
        facts["reconstruction"] = told.to_json()
        failed = failed or told.failed
    tell(sentences, facts, failed, as_json)
