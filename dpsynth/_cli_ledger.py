"""The `dpsynth ledger` commands: reading the account book, and what people write into it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dpsynth._cli_explain import odometer
from dpsynth._console import Json, print_json, say
from dpsynth_accounting import (
    ADJACENCY,
    ApproxDP,
    Event,
    InvalidRequest,
    Ledger,
    checked_delta,
    checked_epsilon,
    replay,
    show,
)

app = typer.Typer(help="Read the account book, and write into it.", no_args_is_help=True)
app.command()(odometer)

Book = Annotated[
    str, typer.Argument(metavar="LEDGER", help="A file, or the URL of a PostgreSQL database.")
]
Secret = Annotated[
    Path | None,
    typer.Option(help="File of the ledger's secret; for a ledger file, LEDGER.secret if not told."),
]
Name = Annotated[str, typer.Argument(help="The account: the population's name.")]
By = Annotated[str, typer.Option(help="Who does this. The name is written down, not checked.")]
Reason = Annotated[str, typer.Option(help="Why, in public terms: it is in every extract.")]
Manifest = Annotated[
    Path | None,
    typer.Option(help="Manifest of a release, kept apart from the ledger, to hold it against."),
]
NewFile = Annotated[Path | None, typer.Option(help="JSON file to write; it must not exist.")]

LEDGER = "ledger.db"


def open_ledger(ledger: str, secret: Path | None = None) -> Ledger:
    """Return a ledger that is there already.

    Args:
        ledger: Path of a file, or URL of a PostgreSQL database.
        secret: File of its secret, if that is not beside the file.

    Raises:
        InvalidRequest: There is no such file.
    """
    if "://" not in ledger and not Path(ledger).exists():
        raise InvalidRequest(
            f"The ledger {ledger} was to be read.", "There is no such file.", "Give its path."
        )
    return Ledger(ledger, secret=secret)


# -- reading -------------------------------------------------------------------------------------


@app.command("show")
def show_accounts(ledger: Book = LEDGER, secret: Secret = None, as_json: Json = False) -> None:
    """List the accounts: their policy, what was spent and declared, on what, and what is left."""
    from dpsynth._ledger_view import account_facts, account_lines

    book = open_ledger(ledger, secret)
    found = [account_facts(book.existing(name)) for name in book.accounts()]
    if as_json:
        print_json(found)
        return
    for facts in found:
        say("\n".join(account_lines(facts)))


@app.command()
def verify(
    ledger: Book = LEDGER,
    manifest: Manifest = None,
    secret: Secret = None,
    as_json: Json = False,
) -> None:
    """Check the chains, totals and stored answers: integrity; with a manifest, history too.

    A manifest quotes the ledger as it was when the release was sealed. Held against it, a tail
    that was removed, history that was rewritten, a copied ledger and a back-dated entry show.
    """
    book = open_ledger(ledger, secret)
    against = None if manifest is None else _read_json(manifest, "manifest")
    sealed = None if against is None else _account_of(against)
    names = book.accounts()
    if sealed is not None and sealed not in names:
        names = sorted([*names, sealed])  # its whole account is gone: the book says so
    faults = {name: book.verify(name, against if name == sealed else None) for name in names}
    if as_json:
        print_json(faults)
    else:
        for name, found in faults.items():
            shown = "integrity, and history since the manifest" if name == sealed else "integrity"
            typer.echo(f"{name}: " + ("; ".join(found) or f"ok ({shown})"))
    if any(faults.values()):
        raise typer.Exit(2)


@app.command()
def head(
    ledger: Book,
    account: Name,
    sign: Annotated[
        Path | None, typer.Option(help="PEM file of an Ed25519 key that signs the head.")
    ] = None,
    secret: Secret = None,
) -> None:
    """Print the last entry's number, hash and time, as JSON: keep it where the ledger is not."""
    found = open_ledger(ledger, secret).existing(account)
    print_json(found.head() if sign is None else found.signed_head(sign))


@app.command()
def export(ledger: Book, account: Name, out: NewFile = None, secret: Secret = None) -> None:
    """Print or write an account's extract: anyone can verify it without the ledger or the rows."""
    extract = open_ledger(ledger, secret).existing(account).extract()
    if out is None:
        print_json(extract)
    else:
        _reserve_file(out)
        _fill(out, extract)


# -- places --------------------------------------------------------------------------------------


@app.command()
def identity(ledger: Book = LEDGER, secret: Secret = None) -> None:
    """Print the ledger's identity, to which another ledger moves an account."""
    typer.echo(open_ledger(ledger, secret).identity)


@app.command()
def move_out(
    ledger: Book,
    account: Name,
    to: Annotated[str, typer.Option(help="What `dpsynth ledger identity` prints of the other.")],
    out: Annotated[Path, typer.Option(help="JSON file to write; it must not exist.")],
    secret: Secret = None,
) -> None:
    """Close an account here for good and write the extract that one other ledger takes in."""
    found = open_ledger(ledger, secret).existing(account)
    _reserve_file(out)  # before the account is closed: afterwards a full disk would be a pity
    try:
        extract = found.move_out(to)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    _fill(out, extract)
    say(f"{account} is closed here. Take it in with: dpsynth ledger take-in LEDGER {out}")


@app.command()
def take_in(
    ledger: Book,
    extract: Annotated[Path, typer.Argument(help="What `dpsynth ledger move-out` wrote.")],
    secret: Secret = None,
) -> None:
    """Take in an account that another ledger moved out to this one."""
    found = open_ledger(ledger, secret).take_in(_read_json(extract, "extract"))
    left = found.remaining()
    say(
        f"{found.name} is here, with epsilon {show(left[0], up=False)} and delta "
        f"{show(left[1], up=False)} left"
    )


@app.command()
def adopt(ledger: Book, reason: Reason, by: By, secret: Secret = None) -> None:
    """Accept a ledger that was copied, restored or moved: the original must not be used again."""
    book = open_ledger(ledger, secret)
    book.adopt(reason, by)
    say(f"adopted, and written into {len(book.accounts())} account(s)")


# -- what people write ---------------------------------------------------------------------------


@app.command()
def attach(
    ledger: Book,
    account: Name,
    snapshot: Annotated[str, typer.Argument(help="A public name, such as 2026-03.")],
    table: Annotated[str, typer.Argument(help="A public name, such as visits.")],
    by: By,
    secret: Secret = None,
) -> None:
    """Note that a table of a snapshot is about the account's population."""
    open_ledger(ledger, secret).existing(account).attach(snapshot, table, by=by)
    say(f"{account} holds table {table} of snapshot {snapshot}")


@app.command()
def override(
    ledger: Book,
    account: Name,
    other: Annotated[str, typer.Argument(help="The account that holds the same people.")],
    reason: Reason,
    by: By,
    secret: Secret = None,
) -> None:
    """Accept that another account is about the same people: what both spend adds up for them."""
    book = open_ledger(ledger, secret)
    found = book.existing(account)
    if other == account or other not in book.accounts():
        names = ", ".join(name for name in book.accounts() if name != account)
        raise InvalidRequest(
            f"The same people under account {other!r} were to be accepted.",
            "The ledger has no other account of that name.",
            f"It has: {names or 'none'}.",
        )
    found.override(other, reason, by)
    say(f"{account} accepts the people of {other}")


@app.command()
def attempts(
    ledger: Book,
    account: Name,
    most: Annotated[int, typer.Argument(help="How many attempts are allowed from now on.")],
    reason: Reason,
    by: By,
    secret: Secret = None,
) -> None:
    """Set how many candidates' exact results may be read before a release: for all to see."""
    found = open_ledger(ledger, secret).existing(account)
    found.allow_attempts(most, reason, by)
    say(f"{account}: {found.attempts().made} attempt(s) so far, {most} allowed")


@app.command()
def declare(
    ledger: Book,
    account: Name,
    source: Annotated[str, typer.Option(help="Where the spend was made, in public terms.")],
    by: By,
    adjacency: Annotated[
        str, typer.Option(help=f"What the claim is about; an account counts {ADJACENCY}.")
    ],
    delta: Annotated[str, typer.Option(help="The delta that was spent.")],
    epsilon: Annotated[
        str | None, typer.Option(help="The epsilon that was spent; or give --opacus.")
    ] = None,
    opacus: Annotated[
        Path | None,
        typer.Option(help="JSON of an Opacus accountant's history: [[noise, rate, steps], ...]."),
    ] = None,
    secret: Secret = None,
) -> None:
    """Enter a spend made elsewhere on the same people: counted from now on, enforced by nobody.

    It is taken to be under the account's unit of privacy. Whoever declares it vouches for that.
    """
    found = open_ledger(ledger, secret).existing(account)
    unit = replay(found.extract()["entries"], account).unit
    if unit is None:
        raise InvalidRequest(
            f"A spend on account {account!r} was to be declared.",
            "Its unit of privacy is not fixed yet, so nobody can tell whether the spend is "
            "under the same.",
            "Fix it in the account's policy, or declare after the first run.",
        )
    event, spent = _declared(epsilon, delta, opacus)
    found.declare(event, spent, delta, unit=unit, adjacency=adjacency, source=source, by=by)
    left = found.remaining()
    say(f"declared epsilon {show(spent)}; epsilon {show(left[0], up=False)} is left of {account}")


def _declared(epsilon: str | None, delta: str, opacus: Path | None) -> tuple[Event, Any]:
    """Return what was done elsewhere, and the epsilon it spent at delta."""
    if (epsilon is None) == (opacus is None):
        raise InvalidRequest(
            "A spend was to be declared.",
            "It is told either by its epsilon or by an Opacus history.",
            "Give --epsilon, or --opacus with the accountant's history as JSON.",
        )
    if opacus is None:
        spent = checked_epsilon(str(epsilon))
        return ApproxDP(spent, checked_delta(delta)), spent
    from dpsynth_accounting import from_opacus_history, least_epsilon

    event = from_opacus_history(_read_json(opacus, "history", kinds=(dict, list)))
    return event, least_epsilon(event, checked_delta(delta))


@app.command()
def approve(
    release: Annotated[Path, typer.Argument(help="A release folder.")],
    by: By,
    ledger: Annotated[str, typer.Option(help="The ledger that paid for it.")] = LEDGER,
    key: Annotated[
        Path | None,
        typer.Option(help="PEM file of the approver's key, where the policy holds its public one."),
    ] = None,
    signing_key: Annotated[
        Path | None, typer.Option(help="PEM file of the key that signs the release's head.")
    ] = None,
    secret: Secret = None,
) -> None:
    """Approve a release that somebody else prepared, and write that into the release's extract."""
    from dpsynth import bundle

    found = bundle.verify(release)
    if not found.ok:
        raise InvalidRequest(
            f"The release {release} was to be approved.",
            f"It does not verify: {found.faults[0]}.",
            "Approve a release as it was written, or run it again.",
        )
    if found.authenticity != "not shown" and signing_key is None:
        raise InvalidRequest(
            f"The release {release} was to be approved.",
            "Its head is signed, and the approval gives it another head.",
            "Give the key that signs it as --signing-key.",
        )
    if signing_key is not None:
        bundle.require_key(signing_key)
    manifest = _read_json(release / bundle.MANIFEST, "manifest")
    account = open_ledger(ledger, secret).existing(_account_of(manifest))
    account.approve(bundle.sha256(release / bundle.MANIFEST), by, key)
    bundle.refresh(release, account, signing_key)
    say(bundle.verify(release).summary)


# -- files ---------------------------------------------------------------------------------------


def _read_json(path: Path, what: str, kinds: tuple[type, ...] = (dict,)) -> Any:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, kinds):
            raise ValueError
    except (OSError, ValueError, RecursionError):
        data = None
    if data is None:
        raise InvalidRequest(
            f"The {what} {path} was to be read.",
            "There is no such file, or it is not JSON of that kind.",
            f"Give the path of a {what} as it was written.",
        )
    return data


def _account_of(manifest: Mapping[str, Any]) -> str:
    """Return the account that a manifest quotes the head of."""
    head = manifest.get("ledger")
    if not isinstance(head, dict) or not isinstance(head.get("account"), str):
        raise InvalidRequest(
            "A manifest was to be held against the ledger.",
            "It does not quote the ledger's head: it is no manifest, or of the first releases.",
            "Give manifest.json of a release folder.",
        )
    return str(head["account"])


def _reserve_file(path: Path) -> None:
    """Make a file that must not be there yet, so that it can be written later."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError as error:
        raise InvalidRequest(
            f"An extract was to be written to {path}.", "The file exists.", "Give a new name."
        ) from error


def _fill(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON data durably into a file that was made for them."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
