"""Other tools beside ours: what they are given, and that they can neither change nor stop anything.

The tools are not installed where the tests usually run, so small fakes stand for them; the last
tests need the extra ``peers`` and are skipped without it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dpsynth import standalone
from dpsynth.attacks import PEERS, PeerResult, _peer_calls, peer_results, peers, require_peers
from dpsynth.attacks._peer_calls import Triple
from dpsynth.columns import Boolean, Categorical, Date, Integer, Real
from dpsynth.domain import Domain, resolve
from dpsynth.schema import Schema
from dpsynth_accounting import InvalidRequest

DOMAIN = resolve(
    Schema(
        {
            "age": Integer(0, 99),
            "in-come": Real(0, 10_000, missing=True),
            "town": Categorical(("Spring'field", 'Shelby"ville', "Ogden"), missing=True),
            "seen": Date(pd.Timestamp("2024-01-01").date(), pd.Timestamp("2026-12-31").date()),
            "ok": Boolean(),
        }
    ),
    categories={},
    bounds={},
)
Made = Callable[..., list[PeerResult]]
SECRET = "the value 4711"


def people(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 95, rows)
    table = pd.DataFrame(
        {
            "age": age,
            "in-come": np.round(rng.gamma(2, 300 + age), 1),
            "town": rng.choice(["Spring'field", 'Shelby"ville', "Ogden"], rows).astype(object),
            "seen": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 900, rows), "D"),
            "ok": rng.random(rows) < 0.3,
        }
    )
    table.loc[::7, "in-come"] = np.nan
    table.loc[::5, "town"] = None
    return table


TABLES = {"train": people(60, 1), "holdout": people(40, 2), "synthetic": people(50, 3)}


def results(names: tuple[str, ...] = PEERS, domain: Domain = DOMAIN) -> list[PeerResult]:
    return peer_results(names, domain, rng=np.random.default_rng(0), **TABLES)


class Fakes:
    """Both tools, as far as they are called: they keep what they are given, and then spoil it."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []
        self.fail = ""
        self.error: type[BaseException] = ValueError

    def _take(self, name: str, given: dict[str, Any]) -> None:
        frames = {key: each for key, each in given.items() if isinstance(each, pd.DataFrame)}
        self.given.append({**given, **{k: f.copy() for k, f in frames.items()}, "of": name})
        for frame in frames.values():
            frame.iloc[:, 0] = -1
        print(SECRET)
        os.write(2, SECRET.encode())  # as compiled code does
        logging.getLogger("anonymeter").warning(SECRET)
        warnings.warn(SECRET, stacklevel=1)
        if name == self.fail:
            raise self.error(SECRET)

    def evaluator(self, name: str) -> type:
        fakes = self

        class Evaluator:
            def __init__(self, **given: Any) -> None:
                fakes._take(name, given)

            def evaluate(self, **_: Any) -> None:
                pass

            def risk(self, *, confidence_level: float) -> Any:
                assert confidence_level == 0.95
                return SimpleNamespace(value=0.25, ci=(0.125, 0.5))

        return Evaluator

    def metric(self, name: str) -> Any:
        def compute_breakdown(**given: Any) -> dict[str, float]:
            self._take(name, given)
            return {"score": 0.75}

        return SimpleNamespace(compute_breakdown=compute_breakdown)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        evaluators = ModuleType("anonymeter.evaluators")
        for name in ("SinglingOutEvaluator", "LinkabilityEvaluator", "InferenceEvaluator"):
            setattr(evaluators, name, self.evaluator(name))
        metrics = ModuleType("sdmetrics.single_table")
        for name in _peer_calls.CALLS["sdmetrics"]:
            setattr(metrics, name, self.metric(name))
        for module in (evaluators, metrics):
            package = module.__name__.split(".")[0]
            patch.setitem(sys.modules, package, ModuleType(package))
            patch.setitem(sys.modules, module.__name__, module)
        patch.setattr(peers, "version", lambda name: {"anonymeter": "1.1", "sdmetrics": "2"}[name])

    def frames(self) -> list[pd.DataFrame]:
        return [each for given in self.given for each in given.values() if _is_frame(each)]


def _is_frame(each: object) -> bool:
    return isinstance(each, pd.DataFrame)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    made = Fakes()
    made.install(monkeypatch)
    return made


def test_figures_are_read(fakes: Fakes) -> None:
    anonymeter, sdmetrics = results()
    assert (anonymeter.peer, anonymeter.version, anonymeter.stopped) == ("anonymeter", "1.1", {})
    risks = {each.name for each in anonymeter.figures}
    assert {"singling out by one column", "singling out by four columns", "linkability"} < risks
    assert sum(name.startswith("inference of ") for name in risks) == 3
    assert all(name.removeprefix("inference of ") in DOMAIN.names for name in risks if "of" in name)
    assert {(e.value, e.low, e.high, e.leak) for e in anonymeter.figures} == {
        (0.25, 0.125, 0.5, "high")
    }
    assert {(e.value, e.low, e.high, e.leak) for e in sdmetrics.figures} == {
        (0.75, None, None, "low")
    }
    assert len(sdmetrics.figures) == 4
    assert anonymeter.sentences()[2] == (
        "anonymeter 1.1, linkability: 0.250 (its 95 % interval 0.125 to 0.500); "
        "a leak makes it high."
    )
    assert sdmetrics.sentences()[0] == ("sdmetrics 2, NewRowSynthesis: 0.750; a leak makes it low.")
    json.dumps([asdict(each) for each in (anonymeter, sdmetrics)])


def test_tables_have_the_form_that_the_tools_expect(fakes: Fakes) -> None:
    results()
    linked = next(each for each in fakes.given if each["of"] == "LinkabilityEvaluator")
    for frame, source in (("ori", "train"), ("control", "holdout"), ("syn", "synthetic")):
        table, private = linked[frame], TABLES[source]
        assert list(table) == ["c000", "c001", "c002", "c003", "c004"]
        assert [dtype.kind for dtype in table.dtypes] == ["i", "f", "O", "i", "O"]
        assert table["c000"].tolist() == private["age"].tolist()
        assert table["c001"].isna().tolist() == private["in-come"].isna().tolist()
        assert [None if pd.isna(each) else each for each in private["town"]] == (
            table["c002"].tolist()
        )
        days = (private["seen"] - pd.Timestamp("2024-01-01")).dt.days
        assert table["c003"].tolist() == days.tolist()  # from the public lower bound
        assert set(table["c004"]) == {"true", "false"}
    assert linked["n_attacks"] == 40  # no more than there are rows
    assert sorted([*linked["aux_cols"][0], *linked["aux_cols"][1]]) == list(linked["ori"])
    disclosed = fakes.given[-1]
    assert disclosed["of"] == "DisclosureProtectionEstimate"
    assert not {*disclosed["known_column_names"]} & {*disclosed["sensitive_column_names"]}
    kinds = {each["of"]: each["metadata"] for each in fakes.given if "metadata" in each}
    assert kinds["NewRowSynthesis"]["columns"]["c001"] == {"sdtype": "numerical"}
    assert kinds["NewRowSynthesis"]["columns"]["c002"] == {"sdtype": "categorical"}
    secrets = [each for each in fakes.given if each["of"] == "InferenceEvaluator"]
    assert [each["regression"] for each in secrets] == [
        each["secret"] in ("c000", "c001", "c003") for each in secrets
    ]


def test_a_whole_number_that_is_missing_makes_the_column_one_of_floats_in_all_tables() -> None:
    some = people(20, 4)
    some["age"] = [None, *some["age"][1:]]
    triple = peers.as_triple(
        DOMAIN, some, TABLES["holdout"], TABLES["synthetic"], np.random.default_rng(0)
    )
    tables = (triple.train, triple.holdout, triple.synthetic)
    assert [table["c000"].dtype.kind for table in tables] == ["f", "f", "f"]
    assert triple.train["c000"].isna().sum() == 1


def test_an_infinite_number_is_a_missing_one() -> None:
    some = people(20, 4)
    some["in-come"] = [np.inf, *some["in-come"][1:]]
    triple = peers.as_triple(
        DOMAIN, some, TABLES["holdout"], TABLES["synthetic"], np.random.default_rng(0)
    )
    assert not np.isinf(triple.train["c001"]).any()
    assert pd.isna(triple.train["c001"][0])


def test_tables_are_cut_blindly(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MOST_ROWS", 30)
    results(("anonymeter",))
    assert {len(frame) for frame in fakes.frames()} == {30}
    cut = fakes.given[0]["ori"]["c000"].tolist()
    assert cut != TABLES["train"]["age"][:30].tolist()


def spoilt(fakes: Fakes) -> bool:
    """Run all parts on tools that spoil their tables; does a later part see an earlier's work?"""
    before = {name: table.copy() for name, table in TABLES.items()}
    results()
    for name, table in before.items():
        pd.testing.assert_frame_equal(TABLES[name], table)
    return any((frame.iloc[:, 0].astype(str) == "-1").all() for frame in fakes.frames())


def test_no_tool_changes_a_table(fakes: Fakes) -> None:
    assert not spoilt(fakes)


def test_tables_that_are_shared_are_found_spoilt(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: all parts get the same tables."""
    monkeypatch.setattr(Triple, "copied", lambda self: self)
    assert spoilt(fakes)


@pytest.mark.parametrize("part", ["LinkabilityEvaluator", "DCROverfittingProtection"])
def test_a_part_that_crashes_is_said_by_its_class_alone(
    part: str, fakes: Fakes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    fakes.fail = part
    found = results()
    stopped = {name: error for each in found for name, error in each.stopped.items()}
    named = {"LinkabilityEvaluator": "linkability"}.get(part, part)
    assert stopped == {named: "ValueError"}
    lines = [line for each in found for line in each.sentences()]
    assert sum(line.endswith(f"{named}: did not finish (ValueError).") for line in lines) == 1
    assert sum(len(each.figures) for each in found) == 9
    told = json.dumps([asdict(each) for each in found]) + "".join(lines)
    out, err = capfd.readouterr()
    assert SECRET not in told + out + err + caplog.text
    assert logging.root.manager.disable == logging.NOTSET


class Panic(BaseException):
    """What compiled code may raise."""


def test_a_panic_of_compiled_code_is_a_crash_and_an_interruption_is_none(fakes: Fakes) -> None:
    fakes.fail, fakes.error = "NewRowSynthesis", Panic
    assert results(("sdmetrics",))[0].stopped == {"NewRowSynthesis": "Panic"}
    fakes.error = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        results(("sdmetrics",))


def test_the_fakes_do_tell_what_they_must_not(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The broken twin: without silence the test before would see the value."""
    from contextlib import nullcontext

    monkeypatch.setattr(peers, "_silent", nullcontext)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results()
    out, err = capfd.readouterr()
    assert SECRET in out
    assert SECRET in err


def test_what_is_not_known_or_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(peers, "version", nothing)
    with pytest.raises(InvalidRequest, match=r"not installed.*dpsynth\[peers\]"):
        require_peers(["sdmetrics"])
    with pytest.raises(InvalidRequest, match="anonymeter and sdmetrics"):
        require_peers(["other"])
    assert require_peers([]) == {}


@pytest.mark.parametrize("name", ["anonymeter", "other"])
def test_it_is_refused_before_a_file_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("a file was read")

    def nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(peers, "version", nothing)
    for reader in ("column_names", "load_table"):
        monkeypatch.setattr(standalone, reader, read)
    with pytest.raises(InvalidRequest, match="were asked for"):
        standalone.attack_triple("a.csv", "b.csv", "c.csv", peers=[name])
    with pytest.raises(AssertionError, match="a file was read"):
        standalone.attack_triple("a.csv", "b.csv", "c.csv")


def test_figures_stand_beside_ours_and_decide_nothing(fakes: Fakes, tmp_path: Path) -> None:
    paths = []
    for name, table in TABLES.items():
        paths.append(tmp_path / f"{name}.csv")
        table.to_csv(paths[-1], index=False)
    (tmp_path / "schema.toml").write_text(
        "format_version = 1\n[columns.age]\ntype = 'integer'\nlower = 0\nupper = 99\n"
        "[columns.ok]\ntype = 'boolean'\n"
    )
    alone = standalone.attack_triple(*paths, tmp_path / "schema.toml", classifier=False)
    found = standalone.attack_triple(
        *paths, tmp_path / "schema.toml", classifier=False, peers=["sdmetrics"]
    )
    assert alone["peers"] == []
    assert [each["peer"] for each in found["peers"]] == ["sdmetrics"]
    assert {**found, "peers": [], "sentences": found["sentences"][:-4]} == alone
    assert all(line.startswith("sdmetrics 2, ") for line in found["sentences"][-4:])


def _installed() -> bool:
    try:
        return all(version(name) for name in PEERS)
    except PackageNotFoundError:
        return False


real = pytest.mark.skipif(not _installed(), reason="the extra peers is not installed")


@real
def test_the_tools_themselves_see_a_gross_copy(capfd: pytest.CaptureFixture[str]) -> None:
    """Half of the rows are copies: no interval of a sound attack reaches down to 0 then.

    The draws are the tools' own. Some 150 of 300 copies are linked, in place of about none: an
    interval that reached 0 would be more than ten standard deviations away.
    """
    train, holdout, made = people(300, 1), people(300, 2), people(300, 3)
    made.iloc[:150] = train.iloc[:150]
    found = peer_results(
        PEERS,
        DOMAIN,
        train=train,
        holdout=holdout,
        synthetic=made,
        rng=np.random.default_rng(0),
    )
    assert [each.stopped for each in found] == [{}, {}]
    figures = {each.name: each for peer in found for each in peer.figures}
    assert len(figures) == 10
    assert figures["linkability"].low is not None
    assert figures["linkability"].low > 0
    assert figures["NewRowSynthesis"].value < 0.7
    assert capfd.readouterr().out == ""


@real
def test_the_tools_themselves_do_not_stop_us_where_the_output_is_the_input() -> None:
    train, holdout = people(300, 1), people(200, 2)
    found = peer_results(
        PEERS,
        DOMAIN,
        train=train,
        holdout=holdout,
        synthetic=train,
        rng=np.random.default_rng(0),
    )
    assert [each.peer for each in found] == list(PEERS)
    assert all(error.isidentifier() for each in found for error in each.stopped.values())
    assert sum(len(each.figures) + len(each.stopped) for each in found) >= 8
