"""The report to publish: from paid or public facts and the synthetic table, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dpsynth.report._page import render, sequence
from dpsynth.report.columns import MOST_FIGURES, figures
from dpsynth.report.facts import budget, discovery, mapping, roc, steps, top


def public_html(facts: Mapping[str, Any], table: pd.DataFrame) -> str:
    """Return the public report as one HTML page that loads nothing and runs nothing.

    Args:
        facts: The facts of a release, as its ``report.json`` holds them; public or paid for. A
            fact that is missing is left out or shown as not given.
        table: The synthetic rows; not changed.

    Charges: nothing; it is post-processing.
    """
    columns = [mapping(each) for each in sequence(facts.get("columns"))]
    keys = {str(each.get("name")) for each in columns if each.get("type") == "key"}
    return render(
        "public.html",
        facts=facts,
        top=top(facts),
        roc=roc(mapping(facts.get("statement"))),
        budget=budget(facts),
        steps=steps(facts),
        discovery=discovery(facts),
        columns=columns,
        figures=figures(table, keys),
        drawn_of=table.shape[1],
        most=MOST_FIGURES,
    )
