"""One index and one search of one library, run inside that library's own environment.

    python _neighbours.py METHOD TABLE.npz QUERIES OUT.npy

It is a process of its own, so that its CPU seconds and peak memory, imports included, are the
library's alone. Printed: CPU seconds of the imports, of the index and of the search, and the peak.
Written: the distance of each query to its nearest row, in columns (Gower's distance times the
number of columns), or the square of a Euclidean one where that is what the method gives.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Search = Callable[[Any], Any]


def flat(codes: Any, sizes: Any, ordered: Any, weight: float) -> Any:
    """Return rows as float32: numbers from 0 to 1, names as one column a code."""
    parts = []
    for j, (size, number) in enumerate(zip(sizes, ordered, strict=True)):
        if number:
            parts.append((codes[:, j] / (size - 1))[:, None])
        else:
            parts.append(np.eye(size, dtype=np.float32)[codes[:, j]] * weight)
    return np.ascontiguousarray(np.hstack(parts), dtype=np.float32)


def dpsynth_(path: str, reference: Any, sizes: Any, ordered: Any) -> Search:
    """Return a search by ours: compiled, or by numpy alone."""
    from dpsynth.attacks import neighbours
    from dpsynth.domain import Domain

    neighbours._WORTH_COMPILING = 0 if path == "compiled" else 1 << 62
    neighbours._WORTH_CALLING = neighbours._WORTH_COMPILING
    names = [f"c{j}" for j in range(len(sizes))]
    numbers = [name for name, number in zip(names, ordered, strict=True) if number]
    domain = Domain.integers(dict(zip(names, map(int, sizes), strict=True)), ordered=numbers)
    index = neighbours.Neighbours(reference, domain)
    return lambda queries: index.distances(queries, 2)[:, 0] / index.gower.scale


def sklearn_(algorithm: str, reference: Any, sizes: Any, ordered: Any) -> Search:
    """Return a search by scikit-learn: two codes that differ are 1/2 + 1/2 apart."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=2, algorithm=algorithm, metric="manhattan", n_jobs=1)
    index.fit(flat(reference, sizes, ordered, 0.5))
    return lambda queries: index.kneighbors(flat(queries, sizes, ordered, 0.5))[0][:, 0]


def faiss_(metric: str, reference: Any, sizes: Any, ordered: Any) -> Search:
    """Return a search by faiss: Gower's distance, L1 on one-hot codes, or squared L2 on them."""
    import faiss

    faiss.omp_set_num_threads(1)
    if metric == "gower":  # it takes names as negative numbers
        numbers = np.array(ordered, dtype=bool)
        scale = np.where(numbers, 1.0 / np.maximum(np.array(sizes) - 1, 1), -1.0)

        def made(codes: Any) -> Any:
            return np.ascontiguousarray((codes + ~numbers) * scale, dtype=np.float32)

        index = faiss.IndexFlat(len(sizes), faiss.METRIC_GOWER)
    else:
        weight = {"l1": 0.5, "l2": 0.5**0.5}[metric]

        def made(codes: Any) -> Any:
            return flat(codes, sizes, ordered, weight)

        kind = {"l1": faiss.METRIC_L1, "l2": faiss.METRIC_L2}[metric]
        index = faiss.IndexFlat(made(reference[:1]).shape[1], kind)
    index.add(made(reference))
    times = len(sizes) if metric == "gower" else 1
    return lambda queries: index.search(made(queries), 2)[0][:, 0] * times


def sdmetrics_(_: str, reference: Any, sizes: Any, ordered: Any) -> Search:
    """Return a search by SDMetrics' distance to the closest record."""
    import pandas as pd
    from sdmetrics.single_table.privacy.dcr_utils import calculate_dcr

    names = [f"c{j}" for j in range(len(sizes))]
    kinds = {
        name: {"sdtype": "numerical" if number else "categorical"}
        for name, number in zip(names, ordered, strict=True)
    }

    def table(codes: Any) -> Any:
        found = {
            name: codes[:, j] / (sizes[j] - 1) if ordered[j] else codes[:, j].astype(str)
            for j, name in enumerate(names)
        }
        return pd.DataFrame(found)

    rows = table(reference)
    return lambda queries: (
        calculate_dcr(
            dataset=table(queries), reference_dataset=rows, metadata={"columns": kinds}
        ).to_numpy()
        * len(sizes)
    )


MAKERS = {"dpsynth": dpsynth_, "sklearn": sklearn_, "faiss": faiss_, "sdmetrics": sdmetrics_}
MODULES = {
    "dpsynth": ("dpsynth.attacks",),
    "sklearn": ("sklearn.neighbors",),
    "faiss": ("faiss",),
    "sdmetrics": ("pandas", "sdmetrics.single_table"),
}


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Read the words of the command line, search, and print what it took."""
    import importlib

    method, source, count, out = sys.argv[1:]
    library, name = method.split(":")
    with np.load(source) as file:
        reference, queries = file["reference"], file["queries"][: int(count)]
        sizes, ordered = file["sizes"].tolist(), file["ordered"].tolist()
    start = cpu()
    for module in MODULES[library]:
        importlib.import_module(module)
    if method == "dpsynth:compiled":
        importlib.import_module("numba")
    imported = cpu()
    if method == "dpsynth:compiled":  # the cache is warm, as it is from a second run on
        few = dpsynth_(name, reference[:300], sizes, ordered)
        few(queries[:3])
    loaded = cpu()
    before = time.monotonic()
    search = MAKERS[library](name, reference, sizes, ordered)
    built = cpu()
    found = search(queries)
    done = cpu()
    np.save(out, np.asarray(found, dtype=np.float64))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {
        "imports": imported - start,
        "loading": loaded - imported,
        "build": built - loaded,
        "search": done - built,
        "wall": time.monotonic() - before,
        "peak": peak,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
