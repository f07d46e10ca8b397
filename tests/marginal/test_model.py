from __future__ import annotations

import io
import itertools
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dpsynth.marginal.elimination as elimination
from dpsynth.domain import Clique, Domain
from dpsynth.marginal.compress import Coarsening
from dpsynth.marginal.estimate import Observation, estimate
from dpsynth.marginal.model import MarginalModel
from dpsynth.marginal.propagation import Propagation
from dpsynth_accounting import InvalidRequest
from tests.marginal.brute_force import explicit, project

SIZES = {"a": 4, "b": 3, "c": 2, "d": 5, "e": 1}
MAPS = {
    "a": np.array([0, 1, 1, 2]),
    "b": np.arange(3),
    "c": np.arange(2),
    "d": np.array([0, 0, 1, 1, 2]),
    "e": np.zeros(1, dtype=np.int64),
}


def make_model(cliques: list[Clique], seed: int = 0) -> MarginalModel:
    rng = np.random.default_rng(seed)
    domain = Domain.integers(SIZES, ordered=("a", "d"))
    coarsening = Coarsening(MAPS)
    ones = [Observation((n,), rng.uniform(20, 60, s), np.full(s, 4.0)) for n, s in SIZES.items()]
    sizes = coarsening.sizes
    shapes = {clique: tuple(sizes[c] for c in clique) for clique in cliques}
    seen = [Observation(c, rng.uniform(5, 50, s), np.full(s, 4.0)) for c, s in shapes.items()]
    coarse = [coarsening.observe(one) for one in ones]
    fit = estimate(coarse + seen, sizes, total=120.0, tolerance=1e-3)
    return MarginalModel.of(domain, fit, coarsening, ones)


def fine_joint(model: MarginalModel) -> np.ndarray:
    """Every fine cell of the model's distribution, written out."""
    sizes = Coarsening(model.maps).sizes
    propagation = Propagation(model.tree, sizes)
    logs = propagation.potentials([f.values for f in model.marginals], 1e-300)
    joint = explicit(dict(zip(model.tree.cliques, logs, strict=True)), sizes, model.rows)
    names = list(SIZES)
    fine = joint[np.ix_(*(model.maps[n] for n in names))]
    for axis, name in enumerate(names):
        fine = fine * model.shares[name].reshape([-1 if i == axis else 1 for i in range(5)])
    return np.asarray(fine)


TREES: list[list[Clique]] = [
    [],
    [("a", "b"), ("b", "c"), ("c", "d")],
    [("a", "b"), ("c", "d")],
    [("b", "a"), ("b", "c"), ("b", "d"), ("b", "e")],
    [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")],
]


@pytest.mark.parametrize("cliques", TREES)
def test_every_marginal_matches_the_joint_written_out(cliques: list[Clique]) -> None:
    model = make_model(cliques)
    joint = fine_joint(model)
    for width in range(1, 6):
        for clique in itertools.permutations(SIZES, width):
            if width > 2 and list(clique) != sorted(clique, reverse=True):
                continue
            want = project(joint, list(SIZES), clique)
            np.testing.assert_allclose(model.marginal(clique), want, atol=1e-7)


def test_the_empty_marginal_is_the_number_of_rows() -> None:
    assert make_model(TREES[1]).marginal(()) == pytest.approx(120.0)


def test_refuses_unknown_and_repeated_columns() -> None:
    model = make_model(TREES[1])
    for clique in (("z",), ("a", "a")):
        with pytest.raises(InvalidRequest, match="distinct"):
            model.marginal(clique)


def test_refuses_a_table_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(TREES[1])
    monkeypatch.setattr(elimination, "MOST_CELLS", 19)
    with pytest.raises(InvalidRequest, match="fewer columns"):
        model.marginal(("a", "d"))
    assert model.marginal(("a", "b")).shape == (4, 3)


@pytest.mark.parametrize("cliques", TREES)
def test_given_values_leave_the_rows_that_have_them(cliques: list[Clique]) -> None:
    """Against the joint written out, of every value of one column and of pairs of columns."""
    model = make_model(cliques)
    joint, names = fine_joint(model), list(SIZES)
    for width in (1, 2, 5):
        for chosen in itertools.combinations(names, width):
            for codes in itertools.product(*(range(SIZES[name]) for name in chosen)):
                values: dict[str, object] = dict(zip(chosen, codes, strict=True))
                place = tuple(values.get(name, slice(None)) for name in names)
                want = np.zeros_like(joint)
                want[place] = joint[place]  # type: ignore[index]
                if want.sum() < 1e-9:
                    continue
                found = model.given(values)
                assert found.rows == pytest.approx(want.sum())
                for asked in (("a", "d"), ("e", "c"), ("b",)):
                    wanted = project(want, names, asked)
                    np.testing.assert_allclose(found.marginal(asked), wanted, atol=1e-7)


def test_rows_are_drawn_with_the_given_values_only(tmp_path: Path) -> None:
    model = make_model(TREES[1])
    drawn = model.sample(50, rng=np.random.default_rng(0), given={"a": 2, "c": 1})
    assert len(drawn) == 50
    assert set(map(int, drawn["a"])) == {2}
    assert set(map(int, drawn["c"])) == {1}
    assert len(set(drawn["b"])) > 1
    found = model.given({"a": 2, "c": 1})
    assert len(found.sample(rng=np.random.default_rng(0))) == round(found.rows)
    found.save(tmp_path / "model.npz")
    loaded = MarginalModel.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.marginal(("a", "b")), found.marginal(("a", "b")))


def test_values_that_no_column_has_are_refused() -> None:
    model = make_model(TREES[1])
    for wrong in ({"a": 4}, {"a": -1}, {"b": "x"}, {"b": None}, {"f": 0}):
        with pytest.raises(InvalidRequest, match="one of its categories, or within its bounds"):
            model.given(wrong)
    none = np.zeros_like(model.shares["b"])
    none[0] = 1.0
    sure = replace(model, shares=dict(model.shares) | {"b": none})
    sure = replace(sure, maps=dict(model.maps) | {"b": np.zeros(3, dtype=np.int64)})
    with pytest.raises(InvalidRequest, match="there are none"):
        sure.given({"b": 1})


@pytest.mark.parametrize("cliques", TREES)
def test_log_probabilities_match_the_joint_written_out(cliques: list[Clique]) -> None:
    model = make_model(cliques)
    joint = fine_joint(model)
    cells = np.array(list(itertools.product(*(range(size) for size in SIZES.values()))))
    found = model.log_probability(pd.DataFrame(cells, columns=list(SIZES)))
    likely = joint.ravel() > 1e-12
    np.testing.assert_allclose(np.exp(found[likely]), joint.ravel()[likely] / model.rows, rtol=1e-6)
    assert np.exp(found).sum() == pytest.approx(1.0)
    never = model.given({"a": 1}).log_probability(pd.DataFrame(cells, columns=list(SIZES)))
    assert np.isneginf(never[cells[:, 0] != 1]).all()


def test_samples_have_the_models_marginals_and_types() -> None:
    model = make_model(TREES[1])
    codes = model.sample_codes(20_000, rng=np.random.default_rng(1))
    assert list(codes) == list(SIZES)
    for name, size in SIZES.items():
        assert codes[name].dtype == np.int32
        got = np.bincount(codes[name], minlength=size) / 20_000
        np.testing.assert_allclose(got, model.marginal((name,)) / 120.0, atol=0.002)


def test_sample_decodes_as_many_rows_as_the_noisy_count() -> None:
    model = make_model(TREES[1])
    table = model.sample(rng=np.random.default_rng(2))
    assert len(table) == 120
    assert list(table.columns) == list(SIZES)
    assert len(model.sample(0, rng=np.random.default_rng(2))) == 0
    with pytest.raises(InvalidRequest, match="0 rows or more"):
        model.sample(-1, rng=np.random.default_rng(2))


def test_save_and_load_keep_everything(tmp_path: Path) -> None:
    model = make_model(TREES[4])
    model.save(tmp_path / "model.npz")
    again = MarginalModel.load(tmp_path / "model.npz")
    assert again.rows == model.rows
    assert again.tree == model.tree
    assert again.domain.to_json() == model.domain.to_json()
    for clique in (("a", "d"), ("e",), ("c", "b", "a")):
        np.testing.assert_array_equal(again.marginal(clique), model.marginal(clique))
    one = model.sample_codes(50, rng=np.random.default_rng(3))
    two = again.sample_codes(50, rng=np.random.default_rng(3))
    assert all((one[name] == two[name]).all() for name in SIZES)


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    make_model(TREES[1]).save(tmp_path / "one.npz")
    make_model(TREES[1]).save(tmp_path / "two.npz")
    MarginalModel.load(tmp_path / "one.npz").save(tmp_path / "three.npz")
    first = (tmp_path / "one.npz").read_bytes()
    assert first == (tmp_path / "two.npz").read_bytes()
    assert first == (tmp_path / "three.npz").read_bytes()


def rewrite(path: Path, **changes: object) -> None:
    """Replace entries of a saved model's header, or whole arrays (by ``name=array``)."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays["header"].tobytes())
    for name, value in changes.items():
        if isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            header[name] = value
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with path.open("wb") as out:
        np.savez(out, **arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 3},
        {"noise_of_codes": {"z": 1.0}},
        {"noise_of_cells": [[["a", "z"], 1.0]]},
        {"noise_of_cells": [[["a", "b"], -1.0]]},
        {"noise_of_cells": [[["a", "b"], "x"]]},
        {"format": "another"},
        {"rows": 7.0},
        {"columns": ["a", "b"]},
        {"cliques": [["a", "b"], ["b", "c"], ["c", "d"], ["z"]]},
        {"edges": []},
        {"edges": [[3, 0, []], [2, 0, []], [1, 0, ["b"]]]},
        {"map_0": np.array([0, 1, 1, 3])},
        {"map_0": np.array([0.0, 1.0, 1.0, 2.0])},
        {"share_0": np.array([1.0, 0.5, 0.6, 1.0])},
        {"table_0": np.full((3, 3), -1.0)},
        {"table_0": np.full((3, 3), np.nan)},
        {"table_0": np.array([[object()]], dtype=object)},
    ],
)
def test_load_refuses_what_does_not_fit(changes: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    make_model(TREES[1]).save(path)
    rewrite(path, **changes)
    with pytest.raises(InvalidRequest, match="read as a model"):
        MarginalModel.load(path)


def test_load_names_the_version_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    make_model(TREES[1]).save(path)
    rewrite(path, format_version=99)
    with pytest.raises(InvalidRequest, match="format versions 1 to 2 only"):
        MarginalModel.load(path)


def test_the_first_format_is_still_read(tmp_path: Path) -> None:
    path, model = tmp_path / "model.npz", make_model(TREES[1])
    model.save(path)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays["header"].tobytes())
    del header["noise_of_codes"], header["noise_of_cells"]
    header["format_version"] = 1
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with path.open("wb") as out:
        np.savez(out, **arrays)
    old = MarginalModel.load(path)
    assert old.marginal(("a", "d")) == pytest.approx(model.marginal(("a", "d")))
    assert np.isnan(old.standard_errors(("a",))).all()


def plain_array() -> bytes:
    whole = io.BytesIO()
    np.save(whole, np.zeros(3))
    return whole.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"not a zip file", b"PK\x03\x04 cut short", plain_array()]
)
def test_load_refuses_other_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match="read as a model"):
        MarginalModel.load(path)


def test_the_file_holds_no_clock(tmp_path: Path) -> None:
    make_model(TREES[0]).save(tmp_path / "model.npz")
    with zipfile.ZipFile(io.BytesIO((tmp_path / "model.npz").read_bytes())) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
