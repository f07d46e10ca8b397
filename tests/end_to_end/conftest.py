"""A small project as a user would have it: a table made from a recipe, a schema, a release.toml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCHEMA = """\
format_version = 1

[columns.person]
type = "key"

[columns.age]
type = "integer"
lower = 0
upper = 110
source = "general knowledge"
attested_by = "the data officer"

[columns.sex]
type = "categorical"
categories = ["F", "M"]

[columns.answer]
type = "categorical"
categories = ["no", "NA", "yes, but"]
missing = true

[columns.city]
type = "open"

[columns.income]
type = "real"

[columns.visit]
type = "date"
lower = 2020-01-01
upper = 2023-12-31

[columns.smoker]
type = "boolean"
missing = true
"""

RECIPE = """\
format_version = 1
schema = "schema.toml"

[account]
ledger = "ledger.db"
name = "people"
epsilon = 2.0
delta = 1e-6

[unit]
kind = "person"
column = "person"
rows = 3

[release]
epsilon = 2.0
target = "sex"
"""


@dataclass(frozen=True)
class Project:
    """Paths of a project."""

    folder: Path

    @property
    def table(self) -> Path:
        return self.folder / "table.csv"

    @property
    def recipe(self) -> Path:
        return self.folder / "release.toml"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.db"

    @property
    def out(self) -> Path:
        return self.folder / "release"

    def edit(self, old: str, new: str) -> None:
        """Replace a text in the recipe; it must be there."""
        text = self.recipe.read_text()
        if old not in text:
            raise ValueError(old)
        self.recipe.write_text(text.replace(old, new))


def people(persons: int, seed: int) -> pd.DataFrame:
    """Return a table of persons with one to three rows, with dependent columns of every type."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 4, persons)
    person = np.repeat(np.arange(persons), rows)
    n = len(person)
    age = np.clip(rng.normal(45, 18, persons), 0, 110).astype(int)[person]
    sex = np.where(rng.random(persons) < 0.5, "F", "M")[person]
    answer = np.where(age > 50, "yes, but", np.where(rng.random(n) < 0.5, "no", "NA"))
    answer = np.where(rng.random(n) < 0.05, "", answer)
    income = np.round(np.exp(rng.normal(9 + (sex == "M") * 0.5, 0.5)), 2)
    day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1400, n), unit="D")
    return pd.DataFrame(
        {
            "person": [f"P{each:05d}" for each in person],
            "age": age,
            "sex": sex,
            "answer": answer,
            "city": rng.choice(
                ["Springfield", "Shelbyville", 'Ogden "Ville"'], n, p=[0.6, 0.3, 0.1]
            ),
            "income": income,
            "visit": day.strftime("%Y-%m-%d"),
            "smoker": rng.choice(["yes", "no", ""], n, p=[0.3, 0.6, 0.1]),
        }
    )


def make_project(folder: Path) -> Project:
    """Write a project of 1,500 persons into a folder."""
    made = Project(folder)
    people(1500, 1).to_csv(made.table, index=False)
    (folder / "schema.toml").write_text(SCHEMA)
    made.recipe.write_text(RECIPE)
    return made


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a fresh project."""
    return make_project(tmp_path)
