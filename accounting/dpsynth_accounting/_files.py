"""The few things the ledger needs from the file system."""

from __future__ import annotations

import os
from pathlib import Path


def filesystem_type(path: Path) -> str:
    """Return the type of the file system that holds ``path``, or "" where it cannot be told."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return ""
    best, kind = "", ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        mount_point = before.split()[4].replace("\\040", " ")
        prefix = mount_point.rstrip("/") + "/"
        if (str(path) + "/").startswith(prefix) and len(prefix) >= len(best):
            best, kind = prefix, after.split()[0]
    return kind


def write_secret(path: Path, secret: bytes) -> None:
    """Write ``secret`` durably to a new file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
