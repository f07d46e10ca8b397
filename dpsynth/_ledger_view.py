"""An account as `dpsynth ledger show` tells it: its rules, what happened to it, what is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from dpsynth_accounting import MOST_ATTEMPTS, Account, Policy, Replay, replay, show


def account_facts(account: Account) -> dict[str, Any]:
    """Return what an account was opened with, what happened to it and what is left, as JSON."""
    extract = account.extract()
    state = replay(extract["entries"], account.name)
    epsilon, delta = account.remaining()
    return {
        "account": account.name,
        "epsilon": float(account.budget.epsilon),
        "delta": float(account.budget.delta),
        "epsilon_left": float(show(epsilon, up=False)),
        "delta_left": float(show(delta, up=False)),
        "policy": account.policy.to_json(),
        "unit": state.unit,
        "charges": [
            {"time": each["time"], "label": each["plan"]["label"]} | _claim(each) | _by(each)
            for entry in extract["entries"]
            if (each := entry["payload"])["kind"] == "reserve"
            and each["reservation"] in state.charges
        ],
        "declared": [
            _chosen(each, "time", "source", "by") | _claim(each) for each in state.declared
        ],
        "attached": [_chosen(each, "time", "snapshot", "table", "by") for each in state.attached],
        "overrides": [_chosen(each, "time", "other", "reason", "by") for each in state.overrides],
        "releases": [
            {"time": each["time"], "manifest": each["manifest"]}
            | ({"attempt": each["attempt"]["number"]} if "attempt" in each else {})
            | _approvals(state, each)
            for each in state.releases
        ],
        "inspections": state.inspections,
        "attempts": {"made": state.attempts.made, "most": state.attempts.most},
        "moved": state.moved,
    }


def account_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that say the same to a person."""
    yield (
        f"{facts['account']}: epsilon {facts['epsilon_left']:g} left of {facts['epsilon']:g}, "
        f"delta {facts['delta_left']:.3g} left of {facts['delta']:g}"
    )
    if facts["moved"]:
        yield "  moved to another ledger: nothing is granted here"
    yield from (f"  {rule}" for rule in _rules(Policy.from_json(facts["policy"])))
    for each in facts["charges"]:
        yield f"  {each['time']}  {each['label']}  {_spent(each)}" + (
            f"  by {each['by']}" if "by" in each else ""
        )
    for each in facts["declared"]:
        yield f"  {each['time']}  declared, not enforced: {_spent(each)}  from {each['source']}"
    for each in facts["attached"]:
        yield f"  {each['time']}  holds table {each['table']} of snapshot {each['snapshot']}"
    for each in facts["overrides"]:
        yield f"  {each['time']}  same people as {each['other']}, accepted: {each['reason']}"
    attempts = facts["attempts"]
    if attempts["made"] or attempts["most"] != MOST_ATTEMPTS:
        yield f"  attempts at a release: {attempts['made']} of at most {attempts['most']}"
    for each in facts["releases"]:
        approved = {None: "", True: "  approved", False: "  not approved yet"}[each["approved"]]
        attempt = f"  attempt {each['attempt']}" if "attempt" in each else ""
        yield f"  {each['time']}  released {each['manifest'][:12]}{attempt}{approved}" + (
            f" by {', '.join(each['approvals'])}" if each["approvals"] else ""
        )


def _rules(policy: Policy) -> Iterator[str]:
    """Yield what a policy asks beyond its budget, a line each."""
    if policy.filter.name != "additive":
        yield f"charges add up in {policy.filter.measure} (filter {policy.filter.name})"
    if policy.per_release is not None:
        yield f"at most epsilon {show(policy.per_release, up=False)} at a time"
    if policy.expires is not None:
        yield f"until {policy.expires.isoformat()}"
    if policy.preparers:
        yield f"prepared by {', '.join(policy.preparers)}"
    if policy.approvers:
        keyed = [f"{name} (signs)" if key else name for name, key in policy.approvers.items()]
        yield f"approved by {', '.join(keyed)}"


def _claim(payload: Mapping[str, Any]) -> dict[str, float]:
    claim = payload["plan"]["charge"]
    return {name: float(show(Fraction(claim[name]))) for name in ("epsilon", "delta")}


def _by(payload: Mapping[str, Any]) -> dict[str, str]:
    return {"by": payload["by"]} if "by" in payload else {}


def _chosen(payload: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: payload[name] for name in names}


def _approvals(state: Replay, release: Mapping[str, Any]) -> dict[str, Any]:
    """Return who approved a release, and whether it counts; None where nobody has to."""
    manifest = release["manifest"]
    asked = state.policy is not None and bool(state.policy.approvers)
    return {
        "approved": state.approved(manifest) if asked else None,
        "approvals": [name for name, _ in state.approvals.get(manifest, [])],
    }


def _spent(facts: Mapping[str, Any]) -> str:
    return f"epsilon {facts['epsilon']:g}, delta {facts['delta']:.3g}"
