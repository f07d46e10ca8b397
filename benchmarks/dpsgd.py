"""One step of DP-SGD beside plain training and Opacus, all in one run.

    pip install opacus
    python benchmarks/dpsgd.py [--rounds 11] [--batches 512 4096]

The network is 120-256-256-120 with ReLU, its loss the squared error of reproducing a record, its
optimizer Adam. *ours* is our sum of clipped gradients, of units of one record and of four, with
Gaussian noise of torch.randn added: it times the step, and is not the noise that a vault adds.
*hooks* and *ghost* are Opacus' two ways, with its own noise.
Times are the CPU seconds of one step on one thread: medians of rounds in each of which every tool
takes two steps and the second counts, so that all meet the same load and none the caches of
another. Memory is the peak of steps in a fresh process over what it held before them (Linux).
Where torch sees a GPU, further tables give wall time and peak memory there by physical batch; where
it sees none, the benchmark says so.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from _results import add_out, keep
from torch import Tensor, nn

from dpsynth.vault._train import clipped_sum

Facts = dict[str, Any]
Step = Callable[[], object]
WIDTHS = (120, 256, 256, 120)
CLIP, SIGMA = 1.0, 1.0
PHYSICAL = 1024
TOOLS = ("plain", "ours", "ours, units of 4", "Opacus ghost", "Opacus hooks")
GPU_BATCHES = [2**power for power in range(9, 16)]


# -- what each tool does in a step -----------------------------------------------------------------


def network(device: str) -> nn.Module:
    torch.manual_seed(7)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(WIDTHS):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).to(device)


def loss(module: nn.Module, x: Tensor) -> Tensor:
    return (module(x) - x).square().mean(1)


def plain(x: Tensor) -> Step:
    module = network(str(x.device))
    optimizer = torch.optim.Adam(module.parameters())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(module, x).mean().backward()
        optimizer.step()

    return step


def ours(x: Tensor, size: int, physical: int) -> Step:
    module = network(str(x.device))
    optimizer = torch.optim.Adam(module.parameters())
    batch = len(x)
    units, count = torch.arange(batch, device=x.device) // size, -(-batch // size)

    def step() -> None:
        sums = clipped_sum(module, loss, x, units, count, CLIP, physical)
        for p, total in zip(module.parameters(), sums, strict=True):
            noisy = total.to(p.dtype).add_(torch.randn_like(p), alpha=SIGMA * CLIP)
            p.grad = noisy.div_(batch)
        optimizer.step()

    return step


def hooks(x: Tensor) -> Step:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    module = GradSampleModule(network(str(x.device)), loss_reduction="mean")
    optimizer = DPOptimizer(
        torch.optim.Adam(module.parameters()),
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        expected_batch_size=len(x),
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(module, x).mean().backward()
        optimizer.step()

    return step


def ghost(x: Tensor) -> Step:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

    module = GradSampleModuleFastGradientClipping(
        network(str(x.device)), loss_reduction="mean", max_grad_norm=CLIP, use_ghost_clipping=True
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.Adam(module.parameters()),
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        expected_batch_size=len(x),
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        DPTensorFastGradientClipping(module, optimizer, loss(module, x), "mean").backward()
        optimizer.step()

    return step


def made(tool: str, x: Tensor, physical: int = PHYSICAL) -> Step:
    match tool:
        case "plain":
            return plain(x)
        case "ours":
            return ours(x, 1, physical)
        case "ours, units of 4":
            return ours(x, 4, physical)
        case "Opacus ghost":
            return ghost(x)
        case _:
            return hooks(x)


# -- figures on the processor ----------------------------------------------------------------------


def seconds(step: Step) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def memory(key: str) -> float:
    """Return VmRSS or VmHWM in MB; unlike ru_maxrss, no process inherits it from its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def take_memory(tool: str, batch: int) -> None:
    """Print the peak of three steps of one tool over what there was before."""
    step = made(tool, torch.randn(batch, WIDTHS[0]))
    small = made(tool, torch.randn(4, WIDTHS[0]))
    small()  # libraries allocate on their first use
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    for _ in range(3):
        step()
    print(json.dumps(memory("VmHWM") - before))


def added(tool: str, batch: int) -> float:
    command = [sys.executable, "-W", "ignore", __file__, "--take", tool, str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def line(batch: int, rounds: int) -> Facts:
    """Return every tool's figures for one batch."""
    x = torch.randn(batch, WIDTHS[0])
    steps = {tool: made(tool, x) for tool in TOOLS}
    taken: dict[str, list[float]] = {tool: [] for tool in TOOLS}
    for _ in range(rounds):
        for tool, step in steps.items():
            step()  # the tool before it has left its caches and pages
            taken[tool].append(seconds(step))
    return with_ratios(
        {"batch": batch, "rounds": rounds},
        {
            tool: {"ms": statistics.median(times) * 1e3, "mb": added(tool, batch)}
            for tool, times in taken.items()
        },
    )


# -- figures on a GPU ------------------------------------------------------------------------------


def gpu_figure(tool: str, batch: int, rounds: int) -> Facts:
    try:
        torch.cuda.empty_cache()
        x = torch.randn(batch, WIDTHS[0], device="cuda")
        step = made(tool, x, batch)
        for _ in range(3):
            step()
        torch.cuda.reset_peak_memory_stats()
        before, taken = torch.cuda.memory_allocated(), []
        for _ in range(rounds):
            torch.cuda.synchronize()
            start = time.perf_counter()
            step()
            torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    except torch.OutOfMemoryError:
        return {"note": "out of memory"}
    added = (torch.cuda.max_memory_allocated() - before) / 2**20
    return {"ms": statistics.median(taken) * 1e3, "mb": added}


def gpu_line(batch: int, rounds: int) -> Facts:
    facts = {"batch": batch, "rounds": rounds, "device": torch.cuda.get_device_name()}
    return with_ratios(facts, {tool: gpu_figure(tool, batch, rounds) for tool in TOOLS})


# -- the table -------------------------------------------------------------------------------------


def with_ratios(facts: Facts, figures: dict[str, Facts]) -> Facts:
    for figure in figures.values():
        if "ms" in figure:
            figure["ratio"] = figure["ms"] / figures["plain"]["ms"]
            figure["records_per_second"] = facts["batch"] / figure["ms"] * 1e3
    return {**facts, "figures": figures}


def show(found: Facts, clock: str) -> None:
    place = found.get("device", "one thread")
    print(f"\nbatch {found['batch']:,}, {place}, median of {found['rounds']} rounds")
    print(f"  {'tool':18}{clock + ' ms':>10}{'/ plain':>9}{'records/s':>12}{'MB':>8}")
    for tool, figure in found["figures"].items():
        if "note" in figure:
            print(f"  {tool:18}  {figure['note']}")
            continue
        print(
            f"  {tool:18}{figure['ms']:10.2f}{figure['ratio']:9.2f}"
            f"{figure['records_per_second']:12,.0f}{figure['mb']:8.0f}",
            flush=True,
        )


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    return found | {name: importlib.metadata.version(name) for name in ("torch", "opacus")}


def main() -> None:
    """Run the benchmark, print its tables and write its figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=11)
    options.add_argument("--batches", type=int, nargs="*", default=[512, 4096])
    options.add_argument("--gpu-rounds", type=int, default=20)
    add_out(options)
    options.add_argument("--take", nargs=2, metavar=("TOOL", "BATCH"))
    chosen = options.parse_args()
    warnings.simplefilter("ignore")  # of Opacus' hooks and of its noise
    torch.set_num_threads(1)
    if chosen.take:
        take_memory(chosen.take[0], int(chosen.take[1]))
        return
    result: Facts = {"versions": versions(), "physical": PHYSICAL, "lines": [], "gpu": []}
    for batch in chosen.batches:
        result["lines"].append(line(batch, chosen.rounds))
        show(result["lines"][-1], "CPU")
    if torch.cuda.is_available():
        for batch in GPU_BATCHES:
            result["gpu"].append(gpu_line(batch, chosen.gpu_rounds))
            show(result["gpu"][-1], "wall")
    else:
        result["gpu"] = "none: torch saw no GPU"
        print("\nNo GPU: torch sees none here, so nothing was measured on one.")
    keep(chosen.out, "dpsgd", result)


if __name__ == "__main__":
    main()
