"""The release folder: written all at once or not at all, and verifiable by anyone for ever.

Order, so that nothing refers to itself: table, model and reports; their hashes in the manifest; the
manifest's hash in the ledger; the ledger's extract; its head, detached and signed where a key is
configured.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsynth_accounting import (
    Account,
    DpsynthError,
    InvalidRequest,
    canonical,
    show,
    verify_extract,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT_VERSION = 1
MANIFEST, EXTRACT, HEAD, FACTS = "manifest.json", "ledger.json", "head.json", "report.json"


class ReleaseError(DpsynthError):
    """A release folder that cannot be written or read."""


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        faults: What does not hold; empty if everything does.
        authenticity: "not shown" (no signature), "signed" (by a key the folder itself names) or
            "authentic" (by a key the verifier supplied).
        summary: What the ledger's extract adds up to, in one sentence.
    """

    faults: tuple[str, ...]
    authenticity: str
    summary: str

    @property
    def ok(self) -> bool:
        """Whether everything that was checked holds."""
        return not self.faults


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, data: Any) -> None:
    """Write JSON data in their one canonical byte form, so that any changed byte shows."""
    path.write_bytes(canonical(data) + b"\n")


def require_new(folder: Path) -> None:
    """Refuse a folder that exists or cannot be made.

    Raises:
        ReleaseError: It exists, or its parent is no folder that can be written.
    """
    if folder.exists() or folder.is_symlink():
        raise ReleaseError(
            f"A release was to be written to {folder}.",
            "It exists already, and a release is never overwritten.",
            "Give a new name, or verify the one that is there with `dpsynth verify`.",
        )
    parent = folder.resolve().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ReleaseError(
            f"A release was to be written to {folder}.",
            "Its parent folder does not exist or cannot be written.",
            "Make the parent folder first.",
        )


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a scratch folder beside ``folder`` that becomes it if all goes well, else vanishes.

    Raises:
        ReleaseError: The disk is full, or a file could not be written. Nothing half-written stays.
    """
    scratch = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(mode=0o755)
        yield scratch
        for path in scratch.iterdir():
            _sync(path)
        _sync(scratch)
        scratch.rename(folder)
        _sync(folder.resolve().parent)
    except OSError as error:
        raise ReleaseError(
            f"A release was to be written to {folder}.",
            f"The file system refused ({error.strerror or type(error).__name__}).",
            "Free some space or choose another place, then run again with --resume: what was paid "
            "for is stored in the ledger and is not charged twice.",
            touched=True,
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(
    folder: Path, account: Account, facts: Mapping[str, Any], signing_key: Path | None = None
) -> None:
    """Close a folder of finished files: manifest, ledger entry, extract, head.

    Args:
        folder: Holds the release's files, none of which changes hereafter.
        account: The account that paid; a `release` entry is appended to it.
        facts: Public facts for the manifest: at least the reservations that paid.
        signing_key: PEM file of an Ed25519 private key without a passphrase.
    """
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    write_json(folder / MANIFEST, {"format_version": FORMAT_VERSION, **facts, "files": files})
    digest = sha256(folder / MANIFEST)
    last = account.extract()["entries"][-1]["payload"]
    if last.get("kind") != "release" or last.get("manifest") != digest:
        account.record("release", {"manifest": digest})
    extract = account.extract()
    write_json(folder / EXTRACT, extract)
    head: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "account": account.name,
        "head": extract["head"],
        "manifest": digest,
    }
    if signing_key is not None:
        head |= _signature(_private_key(signing_key), head)
    write_json(folder / HEAD, head)


def verify(folder: str | os.PathLike[str], public_key: Path | None = None) -> Verification:
    """Recompute a release's hashes, chain and epsilon, without the data.

    Integrity is that every part fits every other. Authenticity, that a known party wrote it, is
    shown only against a public key the verifier got elsewhere.

    Args:
        folder: The release folder.
        public_key: PEM file of the Ed25519 public key the release should be signed with.

    Raises:
        ReleaseError: There is no release folder there.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise ReleaseError(
            f"The release {folder} was to be verified.",
            "There is no manifest in it.",
            "Give the folder that `dpsynth run` wrote.",
        )
    faults: list[str] = []
    manifest = _load(folder / MANIFEST, faults)
    extract = _load(folder / EXTRACT, faults)
    head = _load(folder / HEAD, faults)
    if faults:
        return Verification(tuple(faults), "not shown", "")
    try:
        summary = _check_parts(folder, manifest, extract, head, faults)
        authenticity = _check_signature(head, public_key, faults)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        faults.append(f"a part of the release cannot be read ({type(error).__name__})")
        return Verification(tuple(faults), "not shown", "")
    return Verification(tuple(faults), authenticity, summary)


def _load(path: Path, faults: list[str]) -> dict[str, Any]:
    """Read a canonical JSON file; any byte that is not canonical is a fault."""
    try:
        raw = path.read_bytes()
        data = json.loads(raw)
        if not isinstance(data, dict) or canonical(data) + b"\n" != raw:
            raise ValueError
    except (OSError, ValueError, RecursionError):
        faults.append(f"{path.name} is missing or was altered")
        return {}
    return data


def _check_parts(
    folder: Path,
    manifest: Mapping[str, Any],
    extract: Mapping[str, Any],
    head: Mapping[str, Any],
    faults: list[str],
) -> str:
    newest = max(int(part["format_version"]) for part in (manifest, extract, head))
    if newest > FORMAT_VERSION:
        faults.append("the release is of a newer format than this dpsynth knows")
    present = {path.name for path in folder.iterdir()} - {MANIFEST, EXTRACT, HEAD}
    for name, digest in manifest["files"].items():
        if name not in present:
            faults.append(f"{name} is missing")
        elif sha256(folder / name) != digest:
            faults.append(f"{name} was altered")
    faults.extend(f"{name} is not part of the release" for name in present - set(manifest["files"]))
    digest = sha256(folder / MANIFEST)
    state = verify_extract(extract)
    faults.extend(f"ledger: {fault}" for fault in state.faults)
    if not state.releases or state.releases[-1].get("manifest") != digest:
        faults.append("the ledger does not record this manifest")
    if (head["head"], head["manifest"], head["account"]) != (
        state.head,
        digest,
        extract["account"],
    ):
        faults.append("the head does not fit the ledger and the manifest")
    for identity in manifest["reservations"]:
        if identity not in state.charges:
            faults.append(f"reservation {identity} was never charged")
    if state.budget is None:
        faults.append("the ledger was never opened with a budget")
        return ""
    return (
        f"account {extract['account']!r}: epsilon {show(state.spent_epsilon)} of "
        f"{show(state.budget.epsilon)} and delta {show(state.spent_delta)} of "
        f"{show(state.budget.delta)} spent in {len(state.charges)} charge(s), "
        f"{len(state.releases)} release(s), {state.inspections} inspection(s)"
    )


def _check_signature(head: Mapping[str, Any], public_key: Path | None, faults: list[str]) -> str:
    if "signature" not in head:
        if public_key is not None:
            faults.append("the release is not signed")
        return "not shown"
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    unsigned = {k: v for k, v in head.items() if k not in ("signature", "public_key")}
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(head["public_key"]))
    try:
        key.verify(bytes.fromhex(head["signature"]), canonical(unsigned))
    except InvalidSignature:
        faults.append("the signature does not fit the head")
        return "not shown"
    if public_key is None:
        return "signed"
    if _public_hex(public_key) != head["public_key"]:
        faults.append("the release is signed with another key than the one given")
        return "signed"
    return "authentic"


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _no_key(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path)
    return key


def require_key(path: Path) -> None:
    """Refuse a signing key that cannot be used, before anything is spent."""
    _private_key(path)


def _public_hex(path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _no_key(path) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path)
    return key.public_bytes_raw().hex()


def _no_key(path: Path) -> InvalidRequest:
    return InvalidRequest(
        f"The key {path} was to be used for a signature.",
        "It is no Ed25519 key in a PEM file without a passphrase.",
        "Make one with `openssl genpkey -algorithm ed25519`.",
    )


def _signature(key: Ed25519PrivateKey, head: Mapping[str, Any]) -> dict[str, str]:
    return {
        "signature": key.sign(canonical(dict(head))).hex(),
        "public_key": key.public_key().public_bytes_raw().hex(),
    }
