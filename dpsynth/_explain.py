"""Reading a release back: what it promised, from its own ledger, without the data."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpsynth import bundle
from dpsynth._facts import page, promise_of, wrapped
from dpsynth.bundle import ReleaseError
from dpsynth.report import statement_html
from dpsynth_accounting import Replay, Statement, replay


@dataclass(frozen=True)
class Explanation:
    """What a verified release folder promised.

    Attributes:
        statement: Priced anew from the plans in the folder's ledger extract.
        account: The account that paid.
        made: When the release was made, as its report says.
        checked: What was verified, a sentence each.
        verdict: What the attacks on the release came to, in a sentence.
    """

    statement: Statement
    account: str
    made: str
    checked: tuple[str, ...]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain JSON data."""
        return {
            "account": self.account,
            "made": self.made,
            "statement": self.statement.to_json(),
            "verdict": self.verdict,
            "checked": list(self.checked),
        }

    def text(self) -> str:
        """Return the page as plain text."""
        return page(self.statement, self.verdict) + "\nChecked\n" + wrapped(self.checked)

    def html(self) -> str:
        """Return the page as one HTML document that loads nothing."""
        return statement_html(
            self.statement.to_json(),
            account=self.account,
            made=self.made,
            checked=[f"Attacks: {self.verdict}", *self.checked],
        )


def explain(
    folder: str | os.PathLike[str], public_key: str | os.PathLike[str] | None = None
) -> Explanation:
    """Return what a release promised, from the plans that its ledger charged.

    Args:
        folder: A release folder. Nothing else is read, and no row.
        public_key: PEM file of the Ed25519 key that the release should be signed with.

    Raises:
        ReleaseError: The folder does not verify, or its report promises something else than its
            ledger; the faults are named.
    """
    folder = Path(folder)
    found = bundle.verify(folder, Path(public_key) if public_key else None)
    if not found.ok:
        raise _refusal(folder, found.faults)
    manifest, extract, facts = (
        json.loads((folder / name).read_bytes())
        for name in (bundle.MANIFEST, bundle.EXTRACT, bundle.FACTS)
    )
    state = replay(extract["entries"], extract["account"])
    attempt = bundle.attempt_of(state, bundle.sha256(folder / bundle.MANIFEST))
    promise = promise_of(extract, manifest["reservations"], facts["columns"], attempt=attempt)
    _require_agreement(folder, promise, facts)
    shown = {
        "not shown": "not signed, so not who wrote it",
        "signed": "signed by the key it names; `--public-key` checks whose that is",
        "authentic": "signed by the key given",
    }[found.authenticity]
    checked = (
        f"Every file is the one of the manifest, and the ledger's chain and prices hold: {shown}.",
        found.summary[:1].upper() + found.summary[1:] + ".",
        approval(state, bundle.sha256(folder / bundle.MANIFEST)),
    )
    verdict = str(facts["verdict"]["sentence"])
    return Explanation(promise, str(extract["account"]), str(facts["created"]), checked, verdict)


def approval(state: Replay, manifest: str) -> str:
    """Return who approved the release, as far as the folder can know."""
    names = [
        f"{by} ({'signed' if signed else 'a name, not authenticated'})"
        for by, signed in state.approvals.get(manifest, [])
    ]
    if not names:
        wanted = state.policy is not None and bool(state.policy.approvers)
        asks = "asks" if wanted else "does not ask"
        return f"The folder records no approval; the account's policy {asks} for one."
    enough = "" if state.approved(manifest) else "; that is not enough under the policy"
    return f"Approved by {', '.join(names)}{enough}."


def _require_agreement(folder: Path, promise: Statement, facts: dict[str, Any]) -> None:
    """Refuse a report whose promise is not the one that its ledger's plans are priced at."""
    stated, priced = facts["statement"], promise.to_json()
    faults = [
        f"the report states another {name} than its ledger charged"
        for name in ("epsilon", "delta", "unit", "adjacency")
        if stated.get(name) != priced[name]
    ]
    if faults:
        raise _refusal(folder, tuple(faults))


def _refusal(folder: Path, faults: tuple[str, ...]) -> ReleaseError:
    return ReleaseError(
        f"The release {folder} was to be explained.",
        f"It does not verify: {'; '.join(faults)}.",
        "Rely on nothing in it; get it anew from whoever made it.",
    )
