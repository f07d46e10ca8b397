"""The one byte form of JSON data, by which it is signed, chained and compared."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(data: Any) -> bytes:
    """Return the one byte form of JSON data: sorted keys, no spaces, UTF-8.

    >>> canonical({"b": 1, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    return json.dumps(
        data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(data: Any) -> str:
    """Return the SHA-256 of the canonical form of JSON data, in hexadecimal."""
    return hashlib.sha256(canonical(data)).hexdigest()
