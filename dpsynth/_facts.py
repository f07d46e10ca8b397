"""What a report says: public facts alone, each paid for or declared."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import pandas as pd

from dpsynth import bundle
from dpsynth._audit import ATTACKS, FIDELITY_CODES
from dpsynth._version import __version__
from dpsynth.attacks import Claim, Verdict
from dpsynth.domain import DISCOVERED, Domain
from dpsynth.evaluation import mean_tvd, pair_cliques, tvd_per_l1
from dpsynth.schema import Schema
from dpsynth.synthesizer import Model
from dpsynth.vault import Audited, Vault
from dpsynth_accounting import (
    ApproxDP,
    Attempt,
    Event,
    PublicFact,
    Replay,
    Statement,
    curve,
    event_from_json,
    odometer,
    replay,
    statement,
)
from dpsynth_accounting import Sequence as SequenceEvent


def facts_of(
    vault: Vault,
    model: Model,
    table: pd.DataFrame,
    audited: Audited,
    verdict: Verdict,
    target: str | None,
    paid: Sequence[Mapping[str, Any]],
    promise: Statement,
) -> dict[str, Any]:
    """Return everything public about a release, as JSON data."""
    account = vault.account
    left_epsilon, left_delta = account.remaining()
    budget = account.budget
    return {
        "format_version": bundle.FORMAT_VERSION,
        "dpsynth": __version__,
        "created": paid[-1]["time"],
        "account": account.name,
        "unit": paid[-1]["plan"]["unit"],
        "method": _method(paid),
        "reservations": [each["reservation"] for each in paid],
        "statement": promise.to_json(),
        "account_spent": {
            "epsilon": float(budget.epsilon - left_epsilon),
            "delta": float(budget.delta - left_delta),
            "budget_epsilon": float(budget.epsilon),
            "budget_delta": float(budget.delta),
        },
        "steps": [line for each in paid for line in each["meta"].get("steps", [])],
        "discovery": _discovery(paid, vault.schema, model.domain),
        "columns": model.domain.public_facts(),
        "rows": {"estimated": round(model.rows, 1), "released": len(table)},
        "fidelity": _fidelity(model, audited),
        "utility": _utility(audited, target),
        "verdict": verdict.to_json(),
    }


def _discovery(
    paid: Sequence[Mapping[str, Any]], declared: Schema, domain: Domain
) -> dict[str, Any] | None:
    """Return what was found of the columns, and for how much; None if all was declared."""
    found = [
        (event, line, each["plan"]["charge"])
        for each in paid
        for event, line in zip(_events(each["plan"]), each["meta"].get("steps", []), strict=False)
        if line["step"] == "discover"
    ]
    if not found or not declared.undeclared:
        return None
    event, line, charge = found[0]
    delta = Fraction(charge["delta"])
    epsilon = curve(event).epsilon(delta)
    columns = domain.schema(declared).to_json()["columns"]
    return {
        "epsilon": epsilon,
        "delta": float(delta),
        "noise_sd": line["noise_sd"],
        "shown_from": line.get("shown_from"),
        "columns": [
            {
                "name": name,
                "size": domain.size(name),
                **{key: columns[name].get(key) for key in ("categories", "lower", "upper")},
            }
            for name in declared.undeclared
        ],
        "sentence": (
            f"by itself the discovery is ({epsilon:.3g}, {float(delta):.3g})-differentially "
            "private; its price is part of the whole."
        ),
    }


def _events(plan: Mapping[str, Any]) -> Sequence[Event]:
    """Return the events of a plan's steps, in order."""
    event = event_from_json(plan["event"])
    return event.events if isinstance(event, SequenceEvent) else (event,)


def charges_of(
    entries: Iterable[Mapping[str, Any]], reservations: Collection[str] | None
) -> list[dict[str, Any]]:
    """Return the ledger's entries of some charges, or of all that the account ever made."""
    return [
        payload
        for entry in entries
        if (payload := entry["payload"])["kind"] == "reserve"
        and (reservations is None or payload["reservation"] in reservations)
    ]


def _method(paid: Sequence[Mapping[str, Any]]) -> str:
    """Return the mechanisms that the charges were for; the audit is none."""
    labels = [each["plan"]["label"] for each in paid]
    names = [label.split(" ", 1)[1] for label in labels if label.startswith(("fit ", "run "))]
    return ", ".join(dict.fromkeys(names)) or labels[-1]


def claim_of(extract: Mapping[str, Any], reservations: Collection[str]) -> Claim:
    """Return points of the privacy curve of everything that a release came from.

    At the delta that was charged, and at a millionth of it: the bound from the coins loses as much
    as the number of units times delta, and says little at the first if there are many units.
    """
    event, epsilon, delta, _ = _charged(
        replay(extract["entries"], extract["account"]), reservations
    )
    points: list[tuple[float | None, float]] = [(float(epsilon), float(delta))]
    smaller = float(delta) / 1e6
    at = curve(event).epsilon(smaller)
    if math.isfinite(at) and delta:
        points.append((at, smaller))
    return Claim(tuple(points))


def promise_of(
    extract: Mapping[str, Any],
    reservations: Collection[str],
    columns: Iterable[Mapping[str, Any]],
    *,
    releasing: bool = False,
    attempt: Attempt | None = None,
) -> Statement:
    """Return the statement about a release, from the plans that its ledger charged.

    One charge is priced as itself, several as their sum.

    Args:
        extract: The account's extract.
        reservations: The charges that the release came from.
        columns: The public facts of the columns.
        releasing: Whether the release is still to be recorded in the extract.
        attempt: What exact results had been read when the release was chosen.
    """
    state, meter = replay(extract["entries"], extract["account"]), odometer(extract)
    event, epsilon, delta, unit = _charged(state, reservations)
    return statement(
        event,
        epsilon,
        delta,
        unit,
        spent=meter.so_far(releasing=releasing),
        public=[
            *_sizes(charges_of(extract["entries"], reservations)),
            *(_declared(each) for each in columns if each.get("declared") != DISCOVERED),
        ],
        policy=meter.policy,
        attempt=attempt,
    )


def _charged(
    state: Replay, reservations: Collection[str]
) -> tuple[Event, Fraction, Fraction, Mapping[str, Any]]:
    """Return the event, epsilon, delta and unit of what a release came from, all together."""
    plans = [plan for identity, plan in state.plans.items() if identity in reservations]
    charges = [plan["charge"] for plan in plans]
    epsilon = sum((Fraction(charge["epsilon"]) for charge in charges), Fraction(0))
    delta = sum((Fraction(charge["delta"]) for charge in charges), Fraction(0))
    event = event_from_json(plans[0]["event"]) if len(plans) == 1 else ApproxDP(epsilon, delta)
    return event, epsilon, delta, plans[-1]["unit"]


def page(statement: Statement, verdict: str) -> str:
    """Return a statement as plain text, with what the attacks on the release came to."""
    return f"{statement.text()}\nAttacks\n{wrapped([verdict])}"


def wrapped(sentences: Iterable[str]) -> str:
    """Return sentences as a list in plain text."""
    return "".join(
        textwrap.fill(each, 96, initial_indent="  - ", subsequent_indent="    ") + "\n"
        for each in sentences
    )


def _sizes(charges: Iterable[Mapping[str, Any]]) -> list[PublicFact]:
    """Return the number of units that was declared public, if one was."""
    found = {each["meta"].get("declared_units") for each in charges} - {None}
    return [PublicFact("number of units", f"{units:,} declared") for units in sorted(found)]


def _declared(column: Mapping[str, Any]) -> PublicFact:
    return PublicFact(
        str(column["name"]),
        f"{column['type']}, {column['declared']}",
        column.get("source"),
        column.get("attested_by"),
    )


def _fidelity(model: Model, audited: Audited) -> dict[str, Any]:
    """Return the mean distance over pairs, with the noise that was paid for on it."""
    pairs = len(pair_cliques(model.domain.names))
    if audited.distance is None:
        return {"mean_tvd": None, "sd": None, "marginals": 0, "sentence": "not measured"}
    rows = max(model.rows, 1.0)
    found = min(max(mean_tvd(audited.distance, rows, pairs), 0.0), 1.0)
    spread = audited.distance_sigma * tvd_per_l1(rows, pairs)
    return {
        "mean_tvd": round(found, 5),
        "sd": round(spread, 5),
        "marginals": pairs,
        "sentence": (
            f"over {pairs} pairs of columns, each column in at most about {FIDELITY_CODES} groups "
            f"of values, the synthetic and the real table place {found:.1%} of their rows in "
            f"different cells (noise on this figure: +-{2 * spread:.1%}); 0% is identical, 100% "
            "disjoint."
        ),
    }


def _utility(audited: Audited, target: str | None) -> dict[str, Any] | None:
    """Return the accuracy on held-out units of a classifier trained on the synthetic table."""
    if target is None:
        return None
    everyone = audited.counts[0]
    right, guessed = audited.counts[1 + len(ATTACKS) :]
    units = everyone.held_out
    if units < 4 * everyone.sigma:
        return {
            "target": target,
            "accuracy": None,
            "baseline": None,
            "sd": None,
            "sentence": f"too few held-out units to measure how well {target} is predicted.",
        }
    accuracy = min(max(right.held_out / units, 0.0), 1.0)
    baseline = min(max(guessed.held_out / units, 0.0), 1.0)
    spread = math.hypot(right.sigma / units, math.sqrt(max(accuracy * (1 - accuracy), 0) / units))
    return {
        "target": target,
        "accuracy": round(accuracy, 4),
        "baseline": round(baseline, 4),
        "sd": round(spread, 4),
        "sentence": (
            f"a classifier trained on the synthetic table predicts {target} of held-out units "
            f"right in {accuracy:.1%} (+-{2 * spread:.1%}); always guessing the commonest class "
            f"is right in {baseline:.1%}."
        ),
    }
