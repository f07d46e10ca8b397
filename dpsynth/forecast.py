"""What a run will cost and the error to expect, before any data: for `dpsynth plan`."""

from __future__ import annotations

import math
from typing import Any

from dpsynth.recipe import Recipe
from dpsynth.vault import (
    Audit,
    Choose,
    Discover,
    Divide,
    Measure,
    Person,
    Select,
    Step,
    Train,
    Tune,
)
from dpsynth_accounting import InvalidRequest, statement


def forecast(recipe: Recipe, rows: int) -> dict[str, Any]:
    """Return the plan of a recipe with the error to expect on a table of ``rows`` rows.

    Args:
        recipe: The recipe; its schema may still be unconfirmed.
        rows: A public guess. Nothing here reads data.

    Returns:
        JSON data: epsilon, delta, unit, what an attacker can do, what is left of the account
        (None if it was never opened), and one line a step.
    """
    if rows < 1:
        raise InvalidRequest(
            f"A forecast for {rows} rows was asked for.",
            "Errors are relative to a number of rows of at least 1.",
            "Guess from public knowledge, such as 50000.",
        )
    plan = recipe.plan()
    unit = {**recipe.unit.to_json()}
    promise = statement(plan.event, plan.epsilon, plan.delta, unit)
    lines = [
        _line(step, facts, recipe, rows)
        for step, facts in zip(plan.steps, plan.describe(), strict=True)
    ]
    return {
        "epsilon": float(plan.epsilon),
        "delta": float(plan.delta),
        "unit": _unit(recipe),
        "sentences": promise.sentences(),
        "left": _left(recipe),
        "steps": lines,
    }


def _unit(recipe: Recipe) -> str:
    unit = recipe.unit
    return f"a person of at most {unit.rows} rows" if isinstance(unit, Person) else "a row"


def _left(recipe: Recipe) -> float | None:
    account = recipe.existing_account()
    return None if account is None else float(account.remaining()[0])


def _line(step: Step, facts: dict[str, Any], recipe: Recipe, rows: int) -> dict[str, str]:
    noise = facts.get("noise_sd", [])
    line = {"step": facts["step"], "noise": ", ".join(f"{sd:g}" for sd in noise) or "-"}
    match step:
        case Discover(categories, ranges, _):
            line["answers"] = f"{categories} columns' categories, {ranges} ranges"
            line["error"] = "cells of few units are merged" if ranges else ""
            if categories:
                least = " to ".join(f"{each:,}" for each in facts["shown_from"])
                line["error"] = f"categories of fewer than about {least} units stay hidden"
        case Measure(marginals, _):
            line["answers"] = f"{marginals} marginals"
            line["error"] = f"each cell within about {2 * noise[0] / rows:.2%} of the rows"
        case Select(rounds, _):
            line["answers"] = f"{rounds} choices"
            line["noise"] = f"epsilon {facts['epsilon_each']:g} each"
            slip = 2 * recipe.unit.rows / facts["epsilon_each"] * math.log(100)
            line["error"] = f"may prefer a pair worse by about {min(slip / (2 * rows), 1):.3f}"
        case Divide(answers, _):
            line["answers"] = f"at most {answers:,} scores and marginals"
            line["noise"] = f"{noise[0]:g} or more each"
            line["error"] = "divided as the answers suggest"
        case Train(rate, steps, _):
            line["answers"] = f"{steps:,} noisy gradients of {rate:.1%} of the units each"
            line["noise"] = f"{facts['noise_multiplier']:g} times the clip"
            line["error"] = "depends on what is learned"
        case Tune(candidates, runs, _):
            line["answers"] = f"the best of about {runs} runs of {len(candidates)} candidates"
            line["error"] = "that of the run which is selected"
        case Choose(candidates, marginals, _):
            line["answers"] = f"1 of {candidates} tables"
            line["noise"] = f"epsilon {facts['epsilon_each']:g}"
            k = recipe.unit.rows * marginals or 1
            slip = 2 * k / facts["epsilon_each"] * math.log(100 * candidates)
            line["error"] = (
                f"may prefer a table farther by about {min(slip / (2 * rows * marginals), 1):.3f}"
                if marginals
                else f"may prefer a table in which {slip:.0f} more units are found"
            )
        case Audit(statistics, marginals, _):
            line["answers"] = f"{statistics} counts on two sides, 1 distance"
            units = max(1.0, rows / recipe.unit.rows * recipe.audit_share / 2)
            line["error"] = f"rates within about {2 * noise[0] / units:.3f}"
    return line
