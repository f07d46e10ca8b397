"""The demonstration: real people, their doctors' visits and their spending, released privately.

The RAND Health Insurance Experiment (1974 to 1982, public domain) lies inside the statsmodels
wheel: 20,190 person-years of 5,912 people. The demo goes the way any table goes: it writes a table,
a schema and a recipe, and runs them.
"""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
from rich.console import Console

from dpsynth.columns import Boolean, Categorical, Column, Integer, Key, Open, Real
from dpsynth.recipe import Recipe
from dpsynth.run import RunResult, run_recipe
from dpsynth.schema import Schema
from dpsynth_accounting import InvalidRequest

_DESIGN = "RAND HIE: design of the study"
_DOCS = "RAND HIE: codebook"
_US = "general knowledge"

_SCHEMA: dict[str, Column] = {
    "zper": Key(source=_DOCS),
    "site": Categorical(tuple(range(1, 7)), source=_DESIGN),
    "plan": Open(),
    "coins": Categorical((0, 25, 50, 95, 100), source=_DESIGN),
    "year": Integer(1, 5, source=_DESIGN),
    "age": Integer(0, 65, source=_DESIGN),
    "female": Boolean(source=_DOCS),
    "black": Boolean(source=_DOCS),
    "education": Integer(0, 25, missing=True, source=_US),
    "family": Integer(1, 14, source=_US),
    "income": Real(),
    "mental_health": Integer(0, 100, source=_DOCS),
    "general_health": Integer(0, 100, missing=True, source=_DOCS),
    "doctor_visits": Integer(0, 100, source=_US),
    "therapy_visits": Integer(0, 100, source=_US),
    "admissions": Integer(0, 10, source=_US),
    "outpatient_dollars": Real(0, 50_000, step=0.01, source=_US),
    "drug_dollars": Real(0, 50_000, step=0.01, source=_US),
    "inpatient_dollars": Real(0, 50_000, step=0.01, source=_US),
}

_RECIPE = """\
format_version = 1
schema = "schema.toml"

[account]
ledger = "ledger.db"
name = "rand-hie"
epsilon = 3.0
delta = 1e-6

[unit]
{unit}

[release]
epsilon = 3.0
target = "{target}"
declared_units = {units}
shares = {{ fit = 95, audit = 5 }}

[method]
name = "{method}"
"""


def run_demo(out: Path, method: str, console: Console) -> RunResult:
    """Write the demo's table, schema and recipe into a folder beside ``out``, and run them.

    Raises:
        InvalidRequest: statsmodels is not installed, or a demo was run here before.
    """
    if find_spec("statsmodels") is None:
        raise InvalidRequest(
            "The demo was asked for.",
            "Its data come inside the package statsmodels (0.15 or newer), which is not installed.",
            "Run `pip install 'dpsynth[demo]'`, or `make demo`.",
        )
    folder = out.with_name(f"{out.name}-demo")
    if folder.exists():
        raise InvalidRequest(
            f"The demo was to be run into {out}.",
            f"{folder} holds an earlier demo and its ledger; a spent account stays spent.",
            f"Look at it with `dpsynth ledger show {folder}/ledger.db`, or remove {folder}, {out} "
            f"and {out}-internal to start over.",
        )
    people = _person_years()
    folder.mkdir(parents=True)
    if people is None:
        console.print(
            "This statsmodels holds only the ten-column table without person ids: the unit of "
            "privacy is one row, not one person.",
            style="yellow",
        )
        table, schema = _without_persons()
        unit, target, units = 'kind = "row"', "mdvis", 10_000
    else:
        table, schema = people, Schema(_SCHEMA)
        unit, target, units = 'kind = "person"\ncolumn = "zper"\nrows = 5', "doctor_visits", 5_000
    table.to_csv(folder / "table.csv", index=False)
    (folder / "schema.toml").write_text(schema.dump(), encoding="utf-8")
    recipe = folder / "release.toml"
    recipe.write_text(
        _RECIPE.format(unit=unit, target=target, units=units, method=method), encoding="utf-8"
    )
    return run_recipe(Recipe.load(recipe), folder / "table.csv", out, console=console)


def _person_years() -> pd.DataFrame | None:
    """Return the person-years with readable names, or None if the wheel does not hold them."""
    file = resources.files("statsmodels.datasets.randhie") / "src" / "randhie.csv"
    if not file.is_file():
        return None
    with resources.as_file(file) as path:
        raw = pd.read_csv(path)
    if "zper" not in raw.columns:
        return None
    names = {
        "xage": "age",
        "educdec": "education",
        "num": "family",
        "mhi": "mental_health",
        "ghindx": "general_health",
        "mdvis": "doctor_visits",
        "mentvis": "therapy_visits",
        "totadm": "admissions",
        "outpdol": "outpatient_dollars",
        "drugdol": "drug_dollars",
        "inpdol": "inpatient_dollars",
    }
    table = raw.rename(columns=names)[list(_SCHEMA)]
    table["black"] = table["black"].round()
    for name in ("age", "education", "mental_health", "general_health"):
        table[name] = table[name].round().astype("Int64")
    for name in ("outpatient_dollars", "drug_dollars", "inpatient_dollars"):
        table[name] = table[name].round(2)
    return table


def _without_persons() -> tuple[pd.DataFrame, Schema]:
    """Return the ten-column table that every statsmodels holds, with its schema."""
    from statsmodels.datasets import randhie

    table: pd.DataFrame = randhie.load_pandas().data
    columns: dict[str, Column] = {name: Real(source=_DOCS) for name in table.columns}
    columns |= {
        "mdvis": Integer(0, 100, source=_US),
        "idp": Boolean(source=_DOCS),
        "physlm": Real(0, 1, source=_DOCS),
        "disea": Real(0, 100, source=_DOCS),
        "lncoins": Real(0, 5, source=_DOCS),
        "lpi": Real(0, 10, source=_DOCS),
        "fmde": Real(0, 10, source=_DOCS),
        **{name: Boolean(source=_DOCS) for name in ("hlthg", "hlthf", "hlthp")},
    }
    return table, Schema(columns)
