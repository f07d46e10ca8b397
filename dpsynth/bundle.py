"""The release folder: written all at once or not at all, and verifiable by anyone for ever.

Order, so that nothing refers to itself: table, model and reports; their hashes in the manifest; the
manifest's hash in the ledger; the ledger's extract; its head, detached and signed where a key is
configured.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpsynth.choosing import Gate
from dpsynth_accounting import (
    Account,
    Attempt,
    DpsynthError,
    Policy,
    Replay,
    _signing,
    canonical,
    show,
    verify_extract,
)
from dpsynth_accounting.attempts import INFORMED, UNINFORMED

FORMAT_VERSION = 1
MANIFEST, EXTRACT, HEAD, FACTS = "manifest.json", "ledger.json", "head.json", "report.json"
TABLE, STATEMENT, PAGE = "table.csv", "statement.txt", "report.html"


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
    folder: Path,
    account: Account,
    facts: Mapping[str, Any],
    signing_key: Path | None = None,
    *,
    attempt: Attempt | None = None,
) -> None:
    """Close a folder of finished files: manifest, ledger entry, extract, head.

    The manifest quotes the ledger's head as it was just before: whoever keeps the manifest can
    tell a ledger that was cut, rewritten or copied since (`dpsynth ledger verify --manifest`).

    Args:
        folder: Holds the release's files, none of which changes hereafter.
        account: The account that paid; a `release` entry is appended to it.
        facts: Public facts for the manifest: at least the reservations that paid.
        signing_key: PEM file of an Ed25519 private key without a passphrase.
        attempt: Which one the files state that the table is; if it is another by now, nothing is
            recorded. None if they state none.

    Raises:
        InvalidRequest: The release is an attempt beyond the account's cap.
        LedgerError: It is another attempt than the files state.
    """
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    manifest = {**facts, "ledger": account.head(), "files": files}
    write_json(folder / MANIFEST, {"format_version": FORMAT_VERSION, **manifest})
    digest = sha256(folder / MANIFEST)
    paid = list(facts["reservations"])
    entry: dict[str, Any] = {"manifest": digest, "reservations": paid}
    if attempt is not None:
        entry |= {"candidate": files[TABLE], "attempt": attempt.entry()}
    account.record("release", entry)
    _write_head(folder, account, digest, signing_key)


def refresh(folder: Path, account: Account, signing_key: Path | None = None) -> None:
    """Write a release's extract and head again, with what was entered since: its approval.

    Args:
        folder: A release folder; manifest and files stay as they are.
        account: The account that paid.
        signing_key: PEM file of the key that signs the head; needed if the old head is signed.
    """
    with tempfile.TemporaryDirectory(dir=folder.resolve().parent, prefix=f".{folder.name}.") as new:
        _write_head(Path(new), account, sha256(folder / MANIFEST), signing_key)
        for name in (EXTRACT, HEAD):
            _sync(Path(new) / name)
            (Path(new) / name).replace(folder / name)
    _sync(folder)


def _write_head(folder: Path, account: Account, digest: str, signing_key: Path | None) -> None:
    """Write an account's extract and, apart from it, its head with the manifest's hash."""
    extract = account.extract()
    write_json(folder / EXTRACT, extract)
    last = extract["entries"][-1]
    head: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "account": account.name,
        "seq": last["payload"]["seq"],
        "head": extract["head"],
        "manifest": digest,
    }
    if signing_key is not None:
        head |= _signing.signature(signing_key, head)
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
    if all(release.get("manifest") != digest for release in state.releases):
        faults.append("the ledger does not record this manifest")
    faults.extend(_attempt_faults(folder, manifest, state, digest))
    faults.extend(_gate_faults(folder, manifest, extract))
    faults.extend(_quote_faults(manifest, extract))
    if (head["head"], head["manifest"], head["account"]) != (
        state.head,
        digest,
        extract["account"],
    ):
        faults.append("the head does not fit the ledger and the manifest")
    for identity in manifest["reservations"]:
        if identity not in state.charges:
            faults.append(f"reservation {identity} was never charged")
        elif state.plans[identity]["unit"].get("not_private"):
            faults.append(f"reservation {identity} is not private: its noise follows from a seed")
        elif state.plans[identity]["unit"].get("canaries"):
            faults.append(f"reservation {identity} is of an audit: its table holds canaries")
    if state.policy is None:
        faults.append("the ledger was never opened with a budget")
        return ""
    return _summary(extract["account"], state, state.policy, digest)


def _quote_faults(manifest: Mapping[str, Any], extract: Mapping[str, Any]) -> Iterator[str]:
    """Yield a fault if the head that the manifest quotes is not in the extract."""
    if "ledger" not in manifest:  # the first releases quoted none
        return
    head, entries = manifest["ledger"], extract["entries"]
    seq = int(head["seq"])
    there = 0 <= seq < len(entries) and entries[seq]["hash"] == head["head"]
    if not there or head["account"] != extract["account"]:
        yield "the ledger's head that the manifest quotes is not in the ledger's extract"


def attempt_of(state: Replay, digest: str) -> Attempt | None:
    """Return the attempt that a release was, as the chain counts it; None if none was counted."""
    for release in state.releases:
        if release.get("manifest") == digest and "attempt" in release:
            return Attempt.from_entry(release["attempt"])
    return None


def _attempt_faults(
    folder: Path, manifest: Mapping[str, Any], state: Replay, digest: str
) -> Iterator[str]:
    """Yield what in the folder states another attempt than the chain counts.

    The replay has counted the chain's own attempts. Releases of before they were counted state
    none, and their entries hold none.
    """
    table = manifest["files"].get(TABLE)
    recorded = [each for each in state.releases if each.get("manifest") == digest]
    if any(each.get("candidate", table) != table for each in recorded):
        yield "the ledger records this release for another table"
    found = attempt_of(state, digest)
    stated: Mapping[str, Any] = {}
    if (folder / FACTS).is_file():
        stated = json.loads((folder / FACTS).read_bytes()).get("statement") or {}
    if stated.get("attempt") != (None if found is None else found.to_json()):
        yield "the report states another attempt than the ledger counts"
    if found is None:
        return
    texts = {FACTS: " ".join(stated.get("sentences", ()))}
    for name in (STATEMENT, PAGE):
        if (folder / name).is_file():
            texts[name] = _plain((folder / name).read_text(encoding="utf-8"))
    for name, text in texts.items():
        once = text.count(UNINFORMED) + text.count(INFORMED) == 1
        if not (once and all(each in text for each in found.sentences())):
            yield f"{name} states another attempt than the ledger counts"


def _plain(text: str) -> str:
    """Return a page without its tags, and its white space folded."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def _gate_faults(
    folder: Path, manifest: Mapping[str, Any], extract: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what a gate that was fixed with a charge has against the report's noisy figures."""
    if not (folder / FACTS).is_file():
        return
    facts = json.loads((folder / FACTS).read_bytes())
    for entry in extract["entries"]:
        payload = entry["payload"]
        if payload["kind"] == "reserve" and payload["reservation"] in manifest["reservations"]:
            gate = Gate(**(payload.get("meta") or {}).get("gate", {}))
            yield from (f"the gate was shut: {reason}" for reason in gate.against(facts))


def _summary(account: str, state: Replay, policy: Policy, digest: str) -> str:
    """Return what an extract adds up to, and whether the release was approved."""
    capacity = policy.filter.capacity(policy.budget)
    measure = "epsilon" if policy.filter.name == "additive" else policy.filter.measure
    declared = f", {len(state.declared)} declared spend(s)" if state.declared else ""
    attempt = attempt_of(state, digest)
    counted = f"; attempt {attempt.number} of at most {attempt.most}" if attempt else ""
    since = state.attempts.made - (attempt.number - 1 + attempt.own) if attempt else 0
    if since:
        counted += f", exact results of {since} candidate(s) read since"
    return (
        f"account {account!r}: {measure} {show(state.spent.cost)} of {show(capacity.cost)} and "
        f"delta {show(state.spent.delta)} of {show(capacity.delta)} spent in "
        f"{len(state.charges)} charge(s){declared}, {len(state.releases)} release(s), "
        f"{state.inspections} inspection(s){counted}{_approval(state, policy, digest)}"
    )


def _approval(state: Replay, policy: Policy, digest: str) -> str:
    """Return how a release stands with the policy's approvers; nothing if it names none."""
    if not policy.approvers:
        return ""
    found = state.approvals.get(digest, [])
    by = ", ".join(f"{name} ({'signed' if signed else 'not signed'})" for name, signed in found)
    if state.approved(digest):
        return f"; approved by {by}"
    return f"; not approved yet (may approve: {', '.join(policy.approvers)})"


def _check_signature(head: Mapping[str, Any], public_key: Path | None, faults: list[str]) -> str:
    if "signature" not in head:
        if public_key is not None:
            faults.append("the release is not signed")
        return "not shown"
    try:
        fits = _signing.fits(head)
    except ImportError:
        faults.append("the signature cannot be checked: the package cryptography is not installed")
        return "not shown"
    if not fits:
        faults.append("the signature does not fit the head")
        return "not shown"
    if public_key is None:
        return "signed"
    if _signing.public_hex(public_key) != head["public_key"]:
        faults.append("the release is signed with another key than the one given")
        return "signed"
    return "authentic"


def require_apart(internal: Path, folder: Path) -> None:
    """Refuse a folder of exact results that is, or lies in, the release folder.

    Raises:
        ReleaseError: It does; whoever gets the release would get them.
    """
    mine, public = internal.resolve(), folder.resolve()
    if mine == public or public in mine.parents:
        raise ReleaseError(
            f"The internal report was to be written to {internal}.",
            f"That is part of the release folder {folder}, which is handed out.",
            "Give a folder beside it.",
        )


def require_no_release(folder: Path) -> None:
    """Refuse a folder of exact results that holds a release.

    Raises:
        ReleaseError: There is a manifest in it.
    """
    if (folder / MANIFEST).exists():
        raise ReleaseError(
            f"The internal report was to be written to {folder}.",
            "It holds a release, which is handed out.",
            "Give another folder.",
            touched=True,
        )


def require_key(path: Path) -> None:
    """Refuse a signing key that cannot be used, before anything is spent."""
    _signing.require_key(path)
