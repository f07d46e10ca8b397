"""One part of one tool on three tables, run inside that tool's own environment.

    python _attack.py TOOL:PART FOLDER OUT.json

It is a process of its own, so that its CPU seconds and peak memory, imports and compilation
included, are the tool's alone. anonymeter and SDMetrics are called by the very code that
``dpsynth attack --peer`` calls. FOLDER holds ``train.csv``, ``holdout.csv``, ``synthetic.csv`` and
``facts.json``. Written: the figures, each with the tool's own interval where it gives one.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

CALLS = Path(__file__).parents[2] / "dpsynth" / "attacks" / "_peer_calls.py"


def calls() -> Any:
    """Return the module of calls, without the package that it is a part of."""
    spec = importlib.util.spec_from_file_location("_peer_calls", CALLS)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(CALLS.name)
    module = importlib.util.module_from_spec(spec)
    sys.modules["_peer_calls"] = module
    spec.loader.exec_module(module)
    return module


def mostlyai(triple: Any) -> list[dict[str, Any]]:
    """Return what the full report says of copying; each beside its own reference, the holdout."""
    from mostlyai import qa

    with tempfile.TemporaryDirectory() as folder:
        _, metrics = qa.report(
            syn_tgt_data=triple.synthetic,
            trn_tgt_data=triple.train,
            hol_tgt_data=triple.holdout,
            report_path=Path(folder) / "report.html",
        )
    if metrics is None:
        raise ValueError("the report ended early")
    far = metrics.distances
    similar = metrics.similarity
    found = {
        "identical matches, training less holdout": (far.ims_training - far.ims_holdout, "high"),
        "share nearer to training": (far.dcr_share, "high"),
        "nearest to second nearest, training over holdout": (
            far.nndr_training / far.nndr_holdout,
            "low",
        ),
        "cosine similarity, synthetic less holdout": (
            similar.cosine_similarity_training_synthetic
            - similar.cosine_similarity_training_holdout,
            "high",
        ),
        "accuracy, synthetic less holdout": (
            metrics.accuracy.overall - metrics.accuracy.overall_max,
            "high",
        ),
    }
    return [
        {"name": name, "value": float(value), "low": None, "high": None, "leak": leak}
        for name, (value, leak) in found.items()
    ]


def main() -> None:
    """Read the words of the command line, call the tool, and write its figures."""
    warnings.simplefilter("ignore")
    call, folder, out = sys.argv[1:]
    tool, part = call.split(":")
    facts = json.loads((Path(folder) / "facts.json").read_text())
    types = {name: "int64" if name in facts["numbers"] else "object" for name in facts["columns"]}
    module = calls()
    tables = [
        pd.read_csv(Path(folder) / f"{name}.csv", dtype=types, keep_default_na=False)
        for name in ("train", "holdout", "synthetic")
    ]
    labels = {name: name for name in facts["columns"]}
    triple = module.Triple(*tables, tuple(facts["numbers"]), tuple(facts["secrets"]), labels)
    if tool == "mostlyai":
        found = mostlyai(triple)
    else:
        found = [asdict(each) for each in module.CALLS[tool][part](triple)]
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
