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
    """Write ``secret`` durably to a file that only its owner can read: all of it or nothing."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
