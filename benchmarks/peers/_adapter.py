"""One fit and one table of one library, run inside that library's own environment.

    python _adapter.py METHOD IN.csv DOMAIN.json EPSILON DELTA SEED OUT.csv

It is a process of its own, so that its CPU seconds and peak memory, imports and compilation
included, are the library's alone. Options are the libraries' defaults, but for the noise of
``snsynth:dpctgan``: at its default, an epsilon of 1 takes half an hour.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pandas as pd


def dpsynth_(name: str, rows: pd.DataFrame, facts: dict[str, Any], budget: Any, seed: int) -> Any:
    """Return a table by a mechanism of ours."""
    import numpy as np

    import dpsynth as dp
    from dpsynth.synthesizer import named

    schema = dp.Schema(
        {
            column: dp.Integer(0, size - 1)
            if column in facts["ordinal"]
            else dp.Categorical(tuple(range(size)))
            for column, size in facts["sizes"].items()
        }
    )
    method = dp.recommend(schema, dp.Budget(*budget)) if name == "default" else named(name, {})
    with tempfile.TemporaryDirectory() as folder:
        account = dp.Ledger(Path(folder) / "ledger.db").account("x", dp.Budget(*budget))
        vault = dp.Vault(rows, schema, account, unit=dp.Row(), audit_share=0.0)
        model = method.fit(vault, epsilon=budget[0])
    return model.sample(rng=np.random.default_rng(seed))


def dpmm_(name: str, rows: pd.DataFrame, facts: dict[str, Any], budget: Any, seed: int) -> Any:
    """Return a table by dpmm, on coded columns, so that its binning has nothing to do."""
    from dpmm.models.aim import AIMGM
    from dpmm.models.mst import MSTGM
    from dpmm.models.priv_bayes import PrivBayesGM
    from dpmm.pipelines.base import GenerativePipeline

    kind = {"mst": MSTGM, "privbayes": PrivBayesGM, "aim": AIMGM}[name]
    pipeline = GenerativePipeline(kind(epsilon=budget[0], delta=budget[1]))
    pipeline.fit(rows, domain=facts["sizes"], random_state=seed)
    return pipeline.generate(n_records=len(rows), random_state=seed)


def snsynth_(name: str, rows: pd.DataFrame, facts: dict[str, Any], budget: Any, seed: int) -> Any:
    """Return a table by smartnoise-synth; its seed is numpy's."""
    import numpy as np
    from snsynth import Synthesizer

    np.random.seed(seed)  # noqa: NPY002  the library has no other
    del facts
    own = {"sigma": 1.5 if budget[0] < 5 else 0.7} if name == "dpctgan" else {}
    maker = Synthesizer.create(name, epsilon=budget[0], delta=budget[1], **own)
    return maker.fit_sample(rows, categorical_columns=list(rows), preprocessor_eps=0.0)


LIBRARIES = {"dpsynth": dpsynth_, "dpmm": dpmm_, "snsynth": snsynth_}


def main() -> None:
    """Read the words of the command line and write the table."""
    warnings.simplefilter("ignore")
    method, source, domain, epsilon, delta, seed, out = sys.argv[1:]
    library, name = method.split(":")
    facts = json.loads(Path(domain).read_text())
    budget = (float(epsilon), float(delta))
    table = LIBRARIES[library](name, pd.read_csv(source), facts, budget, int(seed))
    table.to_csv(out, index=False)


if __name__ == "__main__":
    main()
