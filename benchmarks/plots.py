"""Figures of the results, as SVG beside them and in the docs.

    pip install matplotlib
    python benchmarks/plots.py

Reads ``results/*.json`` and writes ``docs/explanation/figures``: the error of each mechanism by
epsilon, and the error beside the CPU seconds of each peer.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from _results import FOLDER, kept
from matplotlib.figure import Figure

FIGURES = Path(__file__).parents[1] / "docs" / "explanation" / "figures"
STYLES = {  # told apart by shape as well as by colour
    "clique-tree": ("#0b559f", "o"),
    "aim": ("#c0392b", "s"),
    "mwem": ("#7d3c98", "^"),
    "privbayes": ("#b9770e", "D"),
    "mst": ("#1e8449", "v"),
    "independent": ("#555555", "x"),
}
PEERS = {
    "dpsynth:default": ("dpsynth, recommended", "#0b559f", "o"),
    "dpsynth:mst": ("dpsynth, mst", "#1e8449", "v"),
    "dpmm:mst": ("dpmm, mst", "#c0392b", "s"),
    "dpmm:privbayes": ("dpmm, privbayes", "#b9770e", "D"),
    "snsynth:mst": ("smartnoise-synth, mst", "#7d3c98", "^"),
}


def by_epsilon() -> Figure:
    """Return the error over pairs of each mechanism on Adult, at three epsilons."""
    lines = [each for each in kept(FOLDER, "adult_encoded") if not each["audit_share"]]
    figure, axes = _axes("epsilon (fit only, delta 1e-9)", "mean TVD over all pairs", 6.4)
    for method, (colour, mark) in STYLES.items():
        points = sorted(
            (each["epsilon"], each["tvd2"]) for each in lines if each["method"] == method
        )
        axes.plot(*zip(*points, strict=True), color=colour, marker=mark, label=method)
    axes.set_xscale("log")
    axes.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def by_time() -> Figure:
    """Return the error over pairs beside CPU seconds of each peer, on four tables."""
    lines = kept(FOLDER, "utility")
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    tables = {"adult": "Adult", "acs": "ACS", "kdd": "KDD census", "credit": "credit default"}
    for axes, (table, title) in zip(figure.subplots(2, 2).flat, tables.items(), strict=True):
        for each in lines:
            if each["table"] == table and each["epsilon"] == 1 and each["finished"]:
                label, colour, mark = PEERS[each["method"]]
                axes.plot(each["cpu"], each["tvd2"], mark, color=colour, markersize=8, label=label)
        axes.set(title=title, xlabel="CPU seconds of the process", ylabel="mean TVD over pairs")
        axes.set(xscale="log", xlim=(1, 1000))
        axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
        axes.set_ylim(bottom=0)
        _plain(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _axes(across: str, up: str, width: float) -> Any:
    figure = Figure(figsize=(width, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=across, ylabel=up)
    _plain(axes)
    return figure, axes


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def main() -> None:
    """Write the figures; equal results give equal files."""
    mpl.rcParams.update({"svg.hashsalt": "dpsynth", "svg.fonttype": "path", "font.size": 10})
    FIGURES.mkdir(exist_ok=True)
    for name, figure in (("by-epsilon", by_epsilon()), ("by-time", by_time())):
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None}, facecolor="white")
        clean = "\n".join(each.rstrip() for each in written.getvalue().splitlines())
        (FIGURES / f"{name}.svg").write_text(f"{clean}\n", encoding="utf-8")
        print(f"{name}.svg")


if __name__ == "__main__":
    main()
