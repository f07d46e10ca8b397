"""The command line: one recipe in, one release folder out, and an exit code that can say no.

Exit codes: 0 done or released, 1 error, 2 refused or failed verdict.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dpsynth import _cli_ledger
from dpsynth._cli_attack import attack
from dpsynth._cli_audit import audit
from dpsynth._cli_explain import explain
from dpsynth._console import Json
from dpsynth._console import err as _err
from dpsynth._console import out as _out
from dpsynth._console import print_json as _print
from dpsynth_accounting import BudgetExceeded, DpsynthError, InvalidRequest, SamePeople

app = typer.Typer(
    name="dpsynth",
    help="Differentially private synthesis of tables: charged first, attacked always.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
schema_app = typer.Typer(help="Write and check schemas.", no_args_is_help=True)
app.add_typer(schema_app, name="schema")
app.add_typer(_cli_ledger.app, name="ledger")
app.command()(attack)
app.command()(audit)
app.command()(explain)

_INTERRUPTED = 130  # what typer makes of Ctrl-C

RecipePath = Annotated[Path, typer.Argument(help="The recipe, release.toml.")]
TablePath = Annotated[Path, typer.Argument(help="The private table, CSV or Parquet.")]


def main() -> None:
    """Run the command line and turn every expected error into a message and an exit code."""
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        code = app(standalone_mode=False)
    except DpsynthError as error:
        _say(f"dpsynth: {error}")
        return 2 if isinstance(error, BudgetExceeded | InvalidRequest | SamePeople) else 1
    except OSError as error:
        _say(f"dpsynth: the file system refused: {error.strerror}.")
        return 1
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:
        if error.__class__.__module__.startswith(("click", "typer")):  # wrong words on the line
            _say(f"dpsynth: {getattr(error, 'message', error)}")
            return int(getattr(error, "exit_code", 1))
        # The text of an unforeseen error could carry a private value: name its kind and place.
        last = traceback.extract_tb(error.__traceback__)[-1]
        _say(
            f"dpsynth: unexpected {type(error).__name__} at {Path(last.filename).name}:"
            f"{last.lineno}. This is a defect; please report it. The ledger is valid; --resume "
            "continues at no further charge."
        )
        return 1
    if code == _INTERRUPTED:
        _say(
            "dpsynth: interrupted. The ledger is valid; what was charged stays charged. "
            "Run again with --resume to finish at no further charge."
        )
        return 1
    return code if isinstance(code, int) else 0


def _say(text: str) -> None:
    _err.print(text, markup=False, style="red")


@schema_app.command("draft")
def schema_draft(table: TablePath) -> None:
    """Write a first schema, every guess marked to be confirmed. It reads private rows: keep it."""
    from dpsynth._draft import draft

    typer.echo(draft(table), nl=False)


@app.command()
def check(recipe: RecipePath, table: TablePath, as_json: Json = False) -> None:
    """Compare a table with its schema, exactly. For the custodian's eyes only."""
    from dpsynth._check import check_table
    from dpsynth.recipe import Recipe

    report = check_table(Recipe.load(recipe), table)
    if as_json:
        _print(report.to_json())
    else:
        _err.print("Exact figures from private rows: do not publish them.", style="yellow")
        typer.echo(report.text())
    if not report.ok:
        raise typer.Exit(2)


@app.command()
def plan(
    recipe: RecipePath,
    rows: Annotated[int, typer.Option(help="A public guess of the number of rows.")],
    as_json: Json = False,
) -> None:
    """Say what each step of a run will cost and the error to expect. Reads no data."""
    from dpsynth.forecast import forecast
    from dpsynth.recipe import Recipe

    found = forecast(Recipe.load(recipe), rows)
    if as_json:
        _print(found)
        return
    _out.print(
        f"epsilon {found['epsilon']:g} at delta {found['delta']:g} for {found['unit']}",
        markup=False,
    )
    table = Table("step", "answers", "noise (sd)", "error to expect")
    for line in found["steps"]:
        table.add_row(line["step"], line["answers"], line["noise"], line["error"])
    _out.print(table)
    if found["left"] is not None:
        _out.print(f"The account has epsilon {found['left']:g} left.", markup=False)


@app.command()
def run(
    recipe: RecipePath,
    table: TablePath,
    out: Annotated[Path, typer.Option(help="Release folder to write; it must not exist.")],
    holdout: Annotated[
        Path | None,
        typer.Option(help="Rows you kept out, drawn like the table: the audit compares with them."),
    ] = None,
    internal: Annotated[
        Path | None, typer.Option(help="Folder of the internal report (default: OUT-internal).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was interrupted, free.")
    ] = False,
    signing_key: Annotated[
        Path | None, typer.Option(help="PEM file of an Ed25519 key that signs the release.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Carry out a recipe: charge, discover, fit, sample, attack, and write the release."""
    from dpsynth.recipe import Recipe
    from dpsynth.run import run_recipe

    result = run_recipe(
        Recipe.load(recipe),
        table,
        out,
        holdout=holdout,
        internal=internal,
        resume=resume,
        signing_key=signing_key,
        console=_err,
    )
    if as_json:
        _print(result.to_json())
    else:
        typer.echo(result.text())
    if not result.released:
        raise typer.Exit(2)


@app.command()
def sample(
    release: Annotated[Path, typer.Argument(help="A release folder.")],
    rows: Annotated[int, typer.Option("-n", "--rows", min=0, help="How many rows to draw.")],
    out: Annotated[Path | None, typer.Option(help="CSV to write (default: print).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling; no privacy rests on it.")] = 0,
) -> None:
    """Draw more rows from a released model: post-processing, free."""
    from dpsynth._csv import write_csv
    from dpsynth.standalone import sample_release

    table = sample_release(release, rows, seed)
    if out is None:
        write_csv(table, sys.stdout)
    elif out.exists():
        raise InvalidRequest(
            f"Rows were to be written to {out}.", "The file exists.", "Give a new name."
        )
    else:
        write_csv(table, out)


@app.command()
def verify(
    release: Annotated[Path, typer.Argument(help="A release folder.")],
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file of the key it should be signed with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute a release's hashes, chain and epsilon, without the data."""
    from dpsynth.bundle import verify as verify_folder

    found = verify_folder(release, public_key)
    if as_json:
        _print(
            {"ok": found.ok, "faults": found.faults, "authenticity": found.authenticity}
            | {"summary": found.summary}
        )
    elif found.ok:
        shown = {
            "not shown": "integrity shown; not signed, so not who wrote it",
            "signed": "integrity shown; signed by the key it names (--public-key checks whose)",
            "authentic": "integrity and authenticity shown",
        }[found.authenticity]
        typer.echo(f"ok: {shown}\n{found.summary}")
    else:
        typer.echo("FAILED: " + "; ".join(found.faults))
    if not found.ok:
        raise typer.Exit(2)


@app.command()
def selftest(
    seed: Annotated[int, typer.Option(help="Of the tables that are made and attacked.")] = 0,
    classifier: Annotated[
        bool, typer.Option(help="Try the classifier, the slowest of the attacks.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Attack tables that leak in known ways, and one that does not: are they told apart?"""
    from dpsynth.selftest import self_test

    results = []
    for each in self_test(seed=seed, classifier=classifier):
        results.append(each)
        if not as_json:
            typer.echo(each.text())
    if as_json:
        _print([each.to_json() for each in results])
    if not all(each.ok for each in results):
        raise typer.Exit(2)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Release folder to write; must not exist.")] = Path(
        "release"
    ),
    method: Annotated[str, typer.Option(help="The method of the recipe.")] = "clique-tree",
) -> None:
    """Release the RAND Health Insurance Experiment privately, from the statsmodels wheel."""
    from dpsynth.demo import run_demo

    result = run_demo(out, method, _err)
    typer.echo(result.text())
    if not result.released:
        raise typer.Exit(2)
