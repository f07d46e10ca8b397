"""Approvals: what an approver signs, and whether one may approve at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpsynth_accounting import _signing
from dpsynth_accounting.policy import Policy

_FIELDS = ("kind", "account", "manifest", "by", "signature", "public_key")


def approval(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an approver signs, with the signature if there is one yet."""
    return {name: payload[name] for name in _FIELDS if name in payload}


def objection(policy: Policy, payload: Mapping[str, Any]) -> str | None:
    """Return why an approval does not count under the policy, whatever it approves; or None."""
    by = payload["by"]
    if by not in policy.approvers:
        return f"The account's policy lets approve: {', '.join(policy.approvers) or 'nobody'}."
    key = policy.approvers[by]
    if key is None:
        return None if "signature" not in payload else f"The policy holds no public key of {by}."
    if payload.get("public_key") != key:
        return f"It is not signed with the key that the policy holds of {by}."
    try:
        fits = _signing.fits(approval(payload))
    except ImportError:
        return "Its signature cannot be checked: the package cryptography is not installed."
    return None if fits else f"Its signature is not by the key of {by}."
