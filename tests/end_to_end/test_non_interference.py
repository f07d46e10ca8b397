"""Two tables that differ in one person look alike to everybody, once the charged answers are alike.

The charged answers of a whole run are recorded and played to a run on a neighbour, whose further
person has values outside every bound, new categories and missing values. Then every byte that an
outsider could see must be the same: files, prints, progress, logs, errors, plan, exit code. A twin
that takes one fact from the rows is flagged by the same comparison.

Wall time and memory are not covered: see docs/explanation/threat-model.md.
"""

from __future__ import annotations

import datetime
import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from dpsynth import _facts, cli, release, run
from dpsynth._values import text_of
from dpsynth.attacks import NearestDistance
from dpsynth.vault import Block, Vault, _execution, _rows, _vault, make_plan
from dpsynth_accounting import InvalidRequest, statement
from tests.end_to_end import public_view
from tests.end_to_end.conftest import RECIPE, SCHEMA, Project, people
from tests.end_to_end.public_view import View, differences, play, record, run_frame, run_project
from tests.vault import twins
from tests.vault.replay import Tape
from tests.vault.twins import Twin

MARK = "Zaphod"
"""In texts of the stranger alone."""

ORDINARY = people(250, 1)
STRANGER = pd.DataFrame(
    {
        "person": ["stranger"] * 3,
        "age": ["10000000000000000000000", "NaN", MARK],
        "sex": ["no such sex", "", MARK],
        "answer": [MARK, "", "NaN"],
        "city": [MARK] * 3,
        "income": ["1e300", "-inf", MARK],
        "visit": ["9999-12-31", "-1000-01-01", MARK],
        "smoker": [MARK, "", "2"],
    }
)
TYPED = STRANGER.assign(
    age=[2.0**60, -(2.0**60), np.nan],
    income=[1e300, np.nan, -np.inf],
    visit=[datetime.date.max, datetime.date.min, None],
)
"""The same person in a table that has types."""

Table = pd.DataFrame
Write = Callable[[Path, Table], Path]


def write_csv(folder: Path, table: Table) -> Path:
    path = folder / "table.csv"
    table.to_csv(path, index=False)
    return path


def write_parquet(folder: Path, table: Table) -> Path:
    """Write the table with types that are declared: the public form of the file."""
    import pyarrow as pa
    import pyarrow.parquet

    texts = {name: pa.string() for name in table}
    kinds = {**texts, "age": pa.int64(), "income": pa.float64(), "visit": pa.date32()}
    columns = {
        name: pa.array([None if each != each else each for each in table[name]], kind)
        if name != "age"
        else pa.array([None if each != each else int(each) for each in table[name]], kind)
        for name, kind in kinds.items()
    }
    path = folder / "table.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def with_types(table: Table) -> Table:
    """Return the ordinary table with dates as dates."""
    return table.assign(visit=pd.to_datetime(table["visit"]).dt.date)


def joined(table: Table, more: Table) -> Table:
    return pd.concat([table, more], ignore_index=True)


CHEAP = RECIPE.replace('target = "sex"', "") + '\n[method]\nname = "independent"\n'
BY_ROWS = RECIPE.replace('kind = "person"\ncolumn = "person"\nrows = 3', 'kind = "row"')


class Projects:
    """Makes projects that differ in their table alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def new(self) -> Path:
        """Return a new, empty folder."""
        self.made += 1
        folder = self.folder / str(self.made)
        folder.mkdir()
        return folder

    def of(self, table: Table, write: Write = write_csv, recipe: str = RECIPE) -> InFolder:
        """Return a project with a table."""
        folder = self.new()
        path = write(folder, table)
        (folder / "schema.toml").write_text(SCHEMA)
        (folder / "release.toml").write_text(recipe)
        return InFolder(folder, path.name)


class InFolder(Project):
    """A project whose table has another name."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder)
        object.__setattr__(self, "_name", name)

    @property
    def table(self) -> Path:
        return self.folder / self._name  # type: ignore[attr-defined,no-any-return]


@pytest.fixture
def projects(tmp_path: Path) -> Projects:
    return Projects(tmp_path)


@pytest.fixture(autouse=True)
def priced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Price a plan once for all runs that declare the same one."""
    monkeypatch.setattr(_vault, "make_plan", PLANS)
    monkeypatch.setattr(_facts, "statement", stated)


PLANS = functools.lru_cache(make_plan)
STATED: dict[str, object] = {}


def stated(*words: object, **facts: object) -> object:
    key = repr((words, facts))
    if key not in STATED:
        STATED[key] = statement(*words, **facts)  # type: ignore[arg-type]
    return STATED[key]


CASES: dict[str, tuple[Write, str, Table, Table]] = {
    "a stranger": (write_csv, RECIPE, ORDINARY, joined(ORDINARY, STRANGER)),
    "one person more": (write_csv, RECIPE, ORDINARY, joined(ORDINARY, people(1, 4))),
    "nobody": (write_csv, RECIPE, ORDINARY, ORDINARY.head(0)),
    "a stranger's row": (write_csv, BY_ROWS, ORDINARY, joined(ORDINARY, STRANGER.tail(1))),
    "one row more": (write_csv, BY_ROWS, ORDINARY, joined(ORDINARY, ORDINARY.tail(1))),
    "a stranger in a Parquet file": (
        write_parquet,
        RECIPE,
        with_types(ORDINARY),
        joined(with_types(ORDINARY), TYPED),
    ),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Tape, View]]:
    """Return a maker of runs on the ordinary table, each made once, with their charged answers."""
    projects = Projects(tmp_path_factory.mktemp("recorded"))

    @functools.cache
    def make(write: Write, recipe: str) -> tuple[Tape, View]:
        tape = Tape()
        table = next(t for w, r, t, _ in CASES.values() if (w, r) == (write, recipe))
        return tape, record(tape, lambda: run_project(projects.of(table, write, recipe)))

    return make


@pytest.mark.parametrize("case", CASES)
def test_a_whole_run(
    case: str, projects: Projects, recorded: Callable[..., tuple[Tape, View]]
) -> None:
    write, recipe, _, neighbour = CASES[case]
    tape, first = recorded(write, recipe)
    other = play(tape, lambda: run_project(projects.of(neighbour, write, recipe)))
    assert differences(first, other) == []
    assert (first["exit code"], first["stderr"]) == (0, "")
    assert MARK not in repr(other)


def test_a_holdout_of_the_owners(projects: Projects) -> None:
    """A stranger in the table that was kept out, which the audit alone reads."""

    def apart(holdout: Table) -> View:
        project = projects.of(ORDINARY, recipe=CHEAP)
        holdout.to_csv(project.folder / "holdout.csv", index=False)
        return run_project(project, "--holdout", "holdout.csv")

    holdout, tape = people(60, 3).assign(person=lambda t: "H" + t["person"]), Tape()
    first = record(tape, lambda: apart(holdout))
    other = play(tape, lambda: apart(joined(holdout, STRANGER)))
    assert differences(first, other) == []
    assert (first["exit code"], first["stderr"]) == (0, "")


FRAMES: dict[str, Table] = {
    "a stranger, and no whole number is left": joined(ORDINARY, TYPED),
    "a stranger, and no number is left": joined(ORDINARY, STRANGER),
    "a stranger in numbers that allow for missing ones": joined(
        ORDINARY.astype({"age": "Int64"}), STRANGER.assign(age=[2**62, pd.NA, -5])
    ),
    "a stranger among declared categories": joined(ORDINARY, STRANGER).astype(
        {"sex": "category", "city": "category"}
    ),
    "an index that repeats": ORDINARY.set_axis([7] * len(ORDINARY)),
    "nobody": ORDINARY.head(0),
}


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tape, View]:
    """Return a release of the ordinary table through the library, with its charged answers."""
    tape = Tape()
    return tape, record(tape, lambda: run_frame(tmp_path_factory.mktemp("frame"), ORDINARY))


@pytest.mark.parametrize("case", FRAMES)
def test_a_table_in_memory(case: str, projects: Projects, in_memory: tuple[Tape, View]) -> None:
    tape, first = in_memory
    other = play(tape, lambda: run_frame(projects.new(), FRAMES[case]))
    assert differences(first, other) == []
    assert "release/table.csv" in first
    assert MARK not in repr(other)


# -- errors --------------------------------------------------------------------------------------


def test_a_statistic_that_fails(projects: Projects, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vault says that it failed, and nothing of what it failed on."""

    def fail(_: object, records: NDArray[np.int32]) -> None:
        raise ValueError(f"{len(records)} records, the first {records[:1]}")

    monkeypatch.setattr(NearestDistance, "score", fail)
    one, other = neighbours(projects, CHEAP)
    assert differences(one, other) == []
    assert one["exit code"] == 2
    assert "The statistic 'nearest distance' was to score private records." in str(one["screen"])


def test_code_that_breaks_while_it_reads(
    projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unforeseen error, of a library perhaps, that quotes a row."""

    def fail(codes: Mapping[str, NDArray[np.int32]], *_: object) -> None:
        raise ValueError(f"{len(codes['age'])} rows, the last {codes['age'][-1:]}")

    monkeypatch.setattr(_execution, "marginal_counts", fail)
    one, other = neighbours(projects, CHEAP)
    assert differences(one, other) == []
    assert one["exit code"] == 1
    assert "unexpected ValueError at test_non_interference.py" in str(one["screen"])


def test_an_exhausted_budget(projects: Projects) -> None:
    def twice(table: Table) -> View:
        project = projects.of(table, recipe=CHEAP)
        run_project(project)
        return public_view.command(project, "run", "release.toml", "table.csv", "--out", "release2")

    tape = Tape()
    one = record(tape, lambda: twice(ORDINARY))
    other = play(tape, lambda: twice(joined(ORDINARY, STRANGER)))
    assert differences(one, other) == []
    assert one["exit code"] == 2
    assert "epsilon 0" in str(one["screen"])


def neighbours(projects: Projects, recipe: str) -> tuple[View, View]:
    """Return what is seen of a run and of the same run with a stranger in the table."""
    tape = Tape()
    one = record(tape, lambda: run_project(projects.of(ORDINARY, recipe=recipe)))
    more = joined(ORDINARY, STRANGER)
    return one, play(tape, lambda: run_project(projects.of(more, recipe=recipe)))


# -- the broken twins ----------------------------------------------------------------------------


def log(patch: pytest.MonkeyPatch) -> None:
    """A log of how many rows were read."""
    keep = _rows.keep

    def tell(frame: Table, *words: Any, **facts: Any) -> Any:
        logging.getLogger("dpsynth").debug("read %d rows", len(frame))
        return keep(frame, *words, **facts)

    patch.setattr(_rows, "keep", tell)


def progress(patch: pytest.MonkeyPatch) -> None:
    """A progress bar over the rows."""
    count = _execution.marginal_counts

    def counting(codes: Mapping[str, NDArray[np.int32]], *words: Any) -> Any:
        with run.Progress(console=cli._err) as bar:
            bar.add_task("counting", total=len(codes["age"]))
        return count(codes, *words)

    patch.setattr(_execution, "marginal_counts", counting)


def error(patch: pytest.MonkeyPatch) -> None:
    """A refusal that shows what it refused."""

    def refuse(codes: Mapping[str, NDArray[np.int32]], *_: object) -> None:
        raise InvalidRequest("A row was read.", f"Its age is {codes['age'][-1]}.", "Mend it.")

    patch.setattr(_execution, "marginal_counts", refuse)


def refusal(patch: pytest.MonkeyPatch) -> None:
    """A refusal that follows from a row."""
    keep = _rows.keep

    def strict(frame: Table, *words: Any, **facts: Any) -> Any:
        if set(text_of(frame["sex"])) - {"F", "M"}:
            raise InvalidRequest("A table was read.", "It has a category too many.", "Mend it.")
        return keep(frame, *words, **facts)

    patch.setattr(_rows, "keep", strict)


def seed(patch: pytest.MonkeyPatch) -> None:
    """A seed of sampling that follows from the rows."""
    keep, seeds = _rows.keep, [0]

    def remember(frame: Table, *words: Any, **facts: Any) -> Any:
        seeds.append(len(frame))
        return keep(frame, *words, **facts)

    patch.setattr(_rows, "keep", remember)
    patch.setattr(run, "_seed", lambda _: seeds[-1])


def form(patch: pytest.MonkeyPatch) -> None:
    """A request that says how many rows it is about."""
    request = Block._request
    patch.setattr(
        Block,
        "_request",
        lambda self, **facts: request(self, **facts, rows=len(self._vault._coded().units)),
    )


def exact_results(patch: pytest.MonkeyPatch) -> None:
    """A public report that says how many rows and units are compared exactly."""
    facts_of = release.facts_of

    def tell(vault: Vault, *words: Any) -> dict[str, Any]:
        held = vault.inspect(lambda rows: len(set(rows.held_out_units.tolist())), purpose="a twin")
        used = vault.inspect(lambda rows: len(rows.train), purpose="a twin")
        return {**facts_of(vault, *words), "units_out": held, "reference": used}

    patch.setattr(release, "facts_of", tell)


TWINS: dict[str, tuple[Twin, str]] = {
    "bounds from the data's maximum": (twins.bounds_from_the_data, "release/domain.json"),
    "categories from the data": (twins.categories_from_the_data, "release/domain.json"),
    "missing where something is missing": (twins.missing_from_the_data, "release/domain.json"),
    "a log of the number of rows": (log, "log"),
    "a progress bar over the rows": (progress, "progress"),
    "an error that shows a value": (error, "screen"),
    "a refusal that follows from a row": (refusal, "exit code"),
    "a seed from the number of rows": (seed, "release/table.csv"),
    "a request with the number of rows": (form, "release/ledger.json"),
    "a figure of the exact attacks": (exact_results, "release/report.json"),
}


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_that_takes_a_fact_from_the_rows_is_flagged(
    twin: str, projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks, place = TWINS[twin]
    breaks(monkeypatch)
    one, other = neighbours(projects, CHEAP)
    assert place in differences(one, other)


def test_types_from_the_data_are_flagged(
    projects: Projects, in_memory: tuple[Tape, View], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of a table in memory: what is decoded has the type of the column that was read."""
    twins.types_from_the_data(monkeypatch)
    tape, first = in_memory
    other = play(tape, lambda: run_frame(projects.new(), joined(ORDINARY, TYPED)))
    assert {"types", "release/table.csv"} <= set(differences(first, other))
