"""The commands that explain: a release, and an account over its life."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dpsynth._console import Json, print_json
from dpsynth_accounting import InvalidRequest
from dpsynth_accounting import odometer as read_odometer


def explain(
    release: Annotated[Path, typer.Argument(help="A release folder.")],
    as_json: Json = False,
    html: Annotated[
        Path | None, typer.Option(help="HTML file to write the page to; it must not exist.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file of the key it should be signed with.")
    ] = None,
) -> None:
    """Say what a release promised, from its own ledger, without the data."""
    from dpsynth._explain import explain as explain_folder

    found = explain_folder(release, public_key)
    if html is not None:
        _write_new(html, found.html())
    if as_json:
        print_json(found.to_json())
    elif html is None:
        typer.echo(found.text())


def odometer(
    ledger: Annotated[
        str, typer.Argument(help="The ledger: a file, or the URL of a PostgreSQL database.")
    ] = "ledger.db",
    account: Annotated[
        str | None, typer.Argument(help="The account; not needed if there is one alone.")
    ] = None,
    as_json: Json = False,
    plot: Annotated[
        Path | None, typer.Option(help="SVG file to draw it to; it must not exist.")
    ] = None,
    secret: Annotated[Path | None, typer.Option(help="File of the ledger's secret.")] = None,
) -> None:
    """Say what was spent on an account over its life: by release, mechanism and charge."""
    from dpsynth._cli_ledger import open_ledger

    book = open_ledger(ledger, secret)
    names = book.accounts()
    if account is None and len(names) != 1:
        raise InvalidRequest(
            "An odometer was asked for without naming an account.",
            f"The ledger has {len(names)} accounts.",
            f"Name one of: {', '.join(names) or 'none yet'}.",
        )
    found = read_odometer(book.existing(account or names[0]).extract())
    if plot is not None:
        from dpsynth.report import odometer_svg

        _write_new(plot, odometer_svg(found.to_json()))
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(found.text())


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InvalidRequest(
            f"A page was to be written to {path}.", "The file exists.", "Give a new name."
        ) from error
