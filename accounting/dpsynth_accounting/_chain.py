"""The chain of an account: entries of canonical JSON, each hashed together with its predecessor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dpsynth_accounting._canonical import canonical

FORMAT_VERSION = 1
GENESIS = "0" * 64


def chain_hash(previous: str, payload: Mapping[str, Any]) -> str:
    """Return the hash of an entry: SHA-256 of the previous hash and the canonical payload."""
    return hashlib.sha256(previous.encode() + b"\n" + canonical(payload)).hexdigest()


def as_read(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as JSON gives them back: what is hashed must be what is later read."""
    read: dict[str, Any] = json.loads(canonical(facts))
    return read


def parsed(text: str, digest: str) -> dict[str, Any]:
    """Return an entry as read, its payload None where the text is not what an append writes."""
    try:
        payload = json.loads(text)
        written = canonical(payload).decode() == text
    except (ValueError, RecursionError):
        written = False
    return {"payload": payload if written else None, "hash": digest}


def sha256(value: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(value).hexdigest()


def moment(after: str, *, day: bool = False) -> str:
    """Return now, or ``after`` where the clock has gone back behind it: a chain's times never do.

    Args:
        after: The time of the chain's last entry; empty if there is none.
        day: Whether only the day is told: its beginning.
    """
    now = datetime.now(UTC)
    told = now.replace(hour=0, minute=0, second=0) if day else now
    # All in UTC and of one width, so that text orders as time does.
    return max(told.isoformat(timespec="seconds"), after)
