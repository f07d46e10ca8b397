"""The model that marginal mechanisms return: consistent tables on a junction tree, and leaves.

It holds no row and no vault, and is built from noisy answers alone, so it can be published.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dpsynth.domain import Clique, Domain
from dpsynth.marginal.compress import Coarsening, fine_shares
from dpsynth.marginal.elimination import conditioned, joint, require_cells
from dpsynth.marginal.estimate import Fit, Observation
from dpsynth.marginal.exchange import exchanged
from dpsynth.marginal.factor import Factor, union
from dpsynth.marginal.junction import Edge, JunctionTree
from dpsynth.marginal.precision import Precision, standard_errors
from dpsynth.marginal.sampling import sample_codes
from dpsynth_accounting import InvalidRequest

_UNKNOWN = Precision()

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

FORMAT = "dpsynth-marginal-model"
FORMAT_VERSION = 2


@dataclass(frozen=True, eq=False)
class MarginalModel:
    """A distribution over coarse codes on a junction tree, with fine codes as leaves.

    Attributes:
        domain: What the fine codes mean.
        rows: Noisy number of rows of the table it was fitted to.
        tree: The junction tree over every column.
        marginals: Consistent tables of the tree's cliques over coarse codes, each of sum ``rows``.
        maps: For each column, int64: the coarse code of each fine code.
        shares: For each column, float64: probability of each fine code given its coarse code.
        precision: How noisily what it was fitted to was measured, if known.
    """

    domain: Domain
    rows: float
    tree: JunctionTree
    marginals: tuple[Factor, ...]
    maps: Mapping[str, Codes]
    shares: Mapping[str, Array]
    precision: Precision = _UNKNOWN

    @property
    def suffix(self) -> str:
        """How the name of a saved model ends."""
        return ".npz"

    @classmethod
    def of(
        cls,
        domain: Domain,
        fit: Fit,
        coarsening: Coarsening,
        ones: Sequence[Observation],
        measured: Sequence[Observation] = (),
    ) -> MarginalModel:
        """The model of a fit on coarse codes, its leaves taken from the fine one-way marginals.

        Args:
            domain: What the fine codes mean.
            fit: The fit, over every column of the domain.
            coarsening: The coarse codes it was made on.
            ones: The fine one-way observation of every column.
            measured: What else was measured, over coarse codes.
        """
        tables = dict(zip(fit.tree.cliques, fit.marginals, strict=True))
        shares = {}
        for one in ones:
            (name,) = one.clique
            holder = fit.tree.cliques[_held(fit.tree, (name,))]
            mass = tables[holder].project((name,)).values
            shares[name] = fine_shares(one, coarsening.maps[name], mass)
        maps = {name: coarsening.maps[name] for name in domain.names}
        ordered = {name: shares[name] for name in domain.names}
        precision = Precision.of(ones, measured)
        return cls(domain, fit.total, fit.tree, fit.marginals, maps, ordered, precision)

    def sample_codes(self, n: int, *, rng: np.random.Generator) -> dict[str, NDArray[np.int32]]:
        """Draw ``n`` rows as codes, one int32 array (n,) a column; nothing is charged."""
        if n < 0:
            raise InvalidRequest(
                f"{n} rows were asked of a model.",
                "A table has 0 rows or more.",
                "Ask for 0 or more.",
            )
        codes = sample_codes(self.tree, self.marginals, self.maps, self.shares, n, rng=rng)
        return exchanged(codes, self.tree, self.maps, self.marginal, rng=rng)

    def sample(
        self,
        n: int | None = None,
        *,
        rng: np.random.Generator,
        given: Mapping[str, object] | None = None,
    ) -> pd.DataFrame:
        """Draw ``n`` rows, by default the noisy number of rows; nothing is charged.

        Args:
            n: Number of rows; by default the model's, or that of those ``given`` describes.
            rng: Source of the sampling.
            given: Values that some columns are to have, as of :meth:`given`.
        """
        if given:
            return self.given(given).sample(n, rng=rng)
        count = round(max(self.rows, 0.0)) if n is None else n
        return self.domain.decode(self.sample_codes(count, rng=rng), rng=rng, shares=self.one_ways)

    @cached_property
    def one_ways(self) -> Mapping[str, Array]:
        """The one-way marginals: float64 (size,) a column, of sum ``rows``; made once."""
        return {name: self.marginal((name,)) for name in self.domain.names}

    def marginal(self, clique: Clique) -> Array:
        """Expected counts of a marginal at fine resolution, of sum ``rows``.

        Exact under the model, by variable elimination if no clique of the tree holds the columns.

        Args:
            clique: Distinct columns, in the order of the axes.

        Raises:
            InvalidRequest: If a column is unknown or repeated, or a table on the way is too large.
        """
        self._require(clique)
        coarse = joint(self.tree, self.marginals, clique).values
        if not clique:
            return coarse
        fine = coarse[np.ix_(*(self.maps[name] for name in clique))]
        for axis, name in enumerate(clique):
            shape = [-1 if i == axis else 1 for i in range(len(clique))]
            fine = fine * self.shares[name].reshape(shape)
        return fine

    def standard_errors(self, clique: Clique) -> Array:
        """Standard deviations that noise leaves in :meth:`marginal`, float64 of its shape, in rows.

        To first order, from the noise of the measured marginals that hold all the columns, each by
        itself: a fit that also uses the others, and knows that counts are not negative, is closer.
        They do not tell how far a model is off by what it left out. So they are NaN where no
        measured marginal holds the columns, and after :meth:`given`.

        Args:
            clique: Distinct columns, in the order of the axes; one or more.

        Raises:
            InvalidRequest: As :meth:`marginal`, and of no column.
        """
        self._require(clique)
        if not clique:
            raise InvalidRequest(
                "Standard errors over no columns were asked of a model.",
                "They are those of the cells of a marginal.",
                "Name a column.",
            )
        coarse = joint(self.tree, self.marginals, clique).values
        ones = [joint(self.tree, self.marginals, (name,)).values for name in clique]
        return standard_errors(clique, coarse, self.precision, self.maps, self.shares, ones)

    def _require(self, clique: Clique) -> None:
        unknown = [name for name in clique if name not in self.maps]
        if unknown or len(set(clique)) != len(clique):
            raise InvalidRequest(
                f"A marginal over {clique} was asked of a model.",
                f"Its columns must be distinct and among {tuple(self.maps)}.",
                "Name each column once.",
            )
        require_cells(clique, math.prod(self.maps[name].size for name in clique))

    def given(self, values: Mapping[str, object]) -> MarginalModel:
        """The distribution of the rows that have some values: exact, and free.

        Evidence is taken into the tables, then passed along the junction tree (Koller and
        Friedman 2009, section 10.3.3.1). A number stands for the cell of its column that holds it.

        Args:
            values: For some columns a value; None is a missing one. Public values: nothing here
                protects whom they are of.

        Returns:
            A model whose ``rows`` is the expected number of such rows.

        Raises:
            InvalidRequest: A value is none of its column's, or the model holds no such row.
        """
        codes = {name: self.domain.code(name, value) for name, value in values.items()}
        coarse = {name: int(self.maps[name][code]) for name, code in codes.items()}
        within = math.prod(float(self.shares[name][code]) for name, code in codes.items())
        tables = conditioned(self.tree, self.marginals, coarse)
        rows = float(tables[0].values.sum()) * within
        if not rows > 0:
            raise InvalidRequest(
                f"Rows with given values of {', '.join(map(repr, values))} were asked of a model.",
                "It holds that there are none.",
                "Give fewer values, or others.",
            )
        shares = dict(self.shares)
        for name, code in codes.items():
            # Only within the coarse code: what lies in the others has no mass any more.
            alike = self.maps[name] == coarse[name]
            shares[name] = np.where(alike, 0.0, shares[name])
            shares[name][code] = 1.0
        scaled = tuple(Factor(table.clique, table.values * within) for table in tables)
        return replace(self, rows=rows, marginals=scaled, shares=shares, precision=_UNKNOWN)

    def log_probability(self, frame: pd.DataFrame) -> Array:
        """Natural logarithm of the probability of the codes of each row, float64 (rows,).

        Minus infinity where the model holds a row for impossible. Free for the model, but an
        answer about the rows of ``frame``: where those are private, so is it.

        Args:
            frame: Rows with every modelled column, coded as those of a fit are.

        Raises:
            InvalidRequest: The frame lacks a modelled column.
        """
        codes = self.domain.encode(frame)
        coarse = {name: self.maps[name][codes[name]] for name in codes}
        found = np.full(len(frame), -math.log(self.rows))
        with np.errstate(divide="ignore"):
            for table in self.marginals:
                found += np.log(table.values[tuple(coarse[name] for name in table.clique)])
            for name, share in self.shares.items():
                found += np.log(share[codes[name]])
            impossible = np.isneginf(found)
            for edge in self.tree.edges:
                separator = self.marginals[edge.child].project(edge.separator).values
                found -= np.log(separator[tuple(coarse[name] for name in edge.separator)])
        return np.where(impossible, -np.inf, found)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as an ``.npz`` of plain arrays and a JSON header.

        Equal models give equal bytes, on any machine.

        Args:
            path: The file to write, replaced if it exists.
        """
        header = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "domain": self.domain.to_json(),
            "rows": self.rows,
            "cliques": [list(clique) for clique in self.tree.cliques],
            "edges": [[e.child, e.parent, list(e.separator)] for e in self.tree.edges],
            "columns": list(self.maps),
            "noise_of_codes": dict(self.precision.codes),
            "noise_of_cells": [[list(c), v] for c, v in self.precision.cells.items()],
        }
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        arrays: dict[str, NDArray[Any]] = {"header": np.frombuffer(text.encode(), dtype=np.uint8)}
        for i, factor in enumerate(self.marginals):
            arrays[f"table_{i}"] = factor.values
        for i, name in enumerate(self.maps):
            arrays[f"map_{i}"] = self.maps[name]
            arrays[f"share_{i}"] = self.shares[name]
        Path(path).write_bytes(_npz(arrays))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MarginalModel:
        """Read a model that ``save`` wrote; no code in the file is ever run.

        Raises:
            InvalidRequest: If the file is not such a model, or of another format version.
        """
        try:
            with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays.pop("header").tobytes().decode())
            version = header["format_version"] if header["format"] == FORMAT else None
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise _not_a_model("It is not a model that was saved by dpsynth.") from error
        if version == 1:  # did not say how noisily it was measured
            header |= {"noise_of_codes": {}, "noise_of_cells": []}
        elif version != FORMAT_VERSION:
            raise _not_a_model(f"This release reads format versions 1 to {FORMAT_VERSION} only.")
        try:
            return _checked(cls._from(header, arrays))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise _not_a_model("Its header and its arrays do not fit together.") from error

    @classmethod
    def _from(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> MarginalModel:
        cliques = tuple(tuple(clique) for clique in header["cliques"])
        edges = tuple(Edge(int(c), int(p), tuple(s)) for c, p, s in header["edges"])
        names = header["columns"]
        # A file may hold what a model is made of and nothing beside it.
        fields = {"format", "format_version", "domain", "rows", "cliques", "edges", "columns"}
        fields |= {"noise_of_codes", "noise_of_cells"}
        tables = {f"table_{i}" for i in range(len(cliques))}
        tables |= {f"{part}_{i}" for part in ("map", "share") for i in range(len(names))}
        if header.keys() != fields or arrays.keys() != tables:
            raise ValueError
        return cls(
            Domain.from_json(header["domain"]),
            float(header["rows"]),
            JunctionTree(cliques, edges),
            tuple(Factor(c, arrays[f"table_{i}"]) for i, c in enumerate(cliques)),
            {name: arrays[f"map_{i}"] for i, name in enumerate(names)},
            {name: arrays[f"share_{i}"] for i, name in enumerate(names)},
            Precision(
                {name: float(value) for name, value in header["noise_of_codes"].items()},
                {tuple(clique): float(value) for clique, value in header["noise_of_cells"]},
            ),
        )


def _held(tree: JunctionTree, clique: Clique) -> int:
    holder = tree.holder(clique)
    if holder is None:
        raise InvalidRequest(
            f"A model over {clique} was asked of a fit without it.",
            "Every column of a domain must be in the fit.",
            "Give the fit the sizes of every column.",
        )
    return holder


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An uncompressed ``.npz`` without a clock, a user or a platform in it."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(values), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, member.getvalue())
    return whole.getvalue()


def _checked(model: MarginalModel) -> MarginalModel:
    """The model, if its parts fit; else ValueError."""
    names = model.domain.names
    sizes = {}
    for name in names:
        codes, shares = model.maps[name], model.shares[name]
        size = model.domain.size(name)
        if codes.shape != (size,) or shares.shape != (size,) or codes.dtype != np.int64:
            raise ValueError("a column's leaves do not have its size")
        sizes[name] = int(codes.max()) + 1
        if not np.array_equal(np.unique(codes), np.arange(sizes[name])):
            raise ValueError("coarse codes are not 0..k-1")
        if not _valid(shares) or not np.allclose(np.bincount(codes, weights=shares), 1.0):
            raise ValueError("the shares of a coarse code do not sum to 1")
    if tuple(model.maps) != names or set(union(model.tree.cliques)) != set(names):
        raise ValueError("the columns are not the domain's")
    for factor in model.marginals:
        shape = tuple(sizes[c] for c in factor.clique)
        whole = float(factor.values.sum())
        if factor.values.shape != shape or not _valid(factor.values):
            raise ValueError("a table does not fit its columns")
        if not math.isclose(whole, model.rows, rel_tol=1e-6):
            raise ValueError("a table does not sum to the number of rows")
    _check_tree(model.tree)
    noise = model.precision
    if not set(union(noise.cells)) | set(noise.codes) <= set(names):
        raise ValueError("a noise is of another column")
    if not all(v > 0 and math.isfinite(v) for v in (*noise.cells.values(), *noise.codes.values())):
        raise ValueError("a noise is not a positive number")
    return model


def _valid(values: NDArray[Any]) -> bool:
    return bool(values.dtype == np.float64 and np.isfinite(values).all() and (values >= 0).all())


def _check_tree(tree: JunctionTree) -> None:
    reached = {0}
    for edge in tree.outward:
        child, parent = tree.cliques[edge.child], tree.cliques[edge.parent]
        if edge.parent not in reached or edge.child in reached:
            raise ValueError("the edges are not a tree from clique 0")
        if edge.separator != tuple(c for c in child if c in parent):
            raise ValueError("a separator is not what its cliques share")
        seen = {c for i in reached for c in tree.cliques[i]}
        if seen & set(child) - set(parent):
            raise ValueError("the tree has not the running-intersection property")
        reached.add(edge.child)
    if len(reached) != len(tree.cliques):
        raise ValueError("the edges do not reach every clique")


def _not_a_model(limit: str) -> InvalidRequest:
    return InvalidRequest(
        "A file was to be read as a model.", limit, "Give a file written by a model's save()."
    )
