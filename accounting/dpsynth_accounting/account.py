"""The account of one population: what it charges, declares, notes and gives out."""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsynth_accounting import _signing
from dpsynth_accounting._approval import approval, objection
from dpsynth_accounting._canonical import canonical, digest
from dpsynth_accounting._chain import FORMAT_VERSION, GENESIS, as_read
from dpsynth_accounting._errors import InvalidRequest, LedgerError
from dpsynth_accounting._standing import (
    Standing,
    read_attempts,
    read_entries,
    read_standing,
    require_open,
    total,
)
from dpsynth_accounting._store import Database
from dpsynth_accounting.attempts import Attempts, require_cap
from dpsynth_accounting.budget import (
    ADJACENCY,
    Budget,
    Number,
    checked_delta,
    checked_epsilon,
    exact,
)
from dpsynth_accounting.events import Event
from dpsynth_accounting.extract import replay
from dpsynth_accounting.filters import Charge
from dpsynth_accounting.policy import Policy, require_name
from dpsynth_accounting.reservation import Reservation, plan_facts

if TYPE_CHECKING:
    from dpsynth_accounting.ledger import Ledger


@dataclass(frozen=True)
class Account:
    """The account of one population in a ledger."""

    ledger: Ledger
    name: str
    policy: Policy

    @property
    def budget(self) -> Budget:
        """What may ever be spent on the population."""
        return self.policy.budget

    # -- balance ---------------------------------------------------------------------------------

    @property
    def spent(self) -> Charge:
        """All charges and declared spends, in the measure of the account's filter."""
        return self._read_standing().spent

    def remaining(self) -> tuple[Fraction, Fraction]:
        """Return the greatest epsilon that one further plan may claim, and at which delta.

        Where charges add up, that is the (epsilon, delta) that no charge has taken yet.
        """
        return self._read_standing().room

    def require(self, epsilon: Number, delta: Number) -> None:
        """Refuse a charge that would not be granted now; it may still be refused later.

        Raises:
            BudgetExceeded: The account has less left.
            InvalidRequest: The account's policy does not allow it.
        """
        standing = self._read_standing()
        epsilon, delta = checked_epsilon(epsilon), checked_delta(delta)
        standing.policy.check_size(epsilon, on=standing.today)
        if epsilon > standing.claimable(delta) or delta > standing.room[1]:
            raise standing.overspend(epsilon, delta)

    # -- charging --------------------------------------------------------------------------------

    def reserve(
        self,
        event: Event,
        epsilon: Number,
        delta: Number,
        *,
        unit: Mapping[str, Any],
        label: str,
        meta: Mapping[str, Any] | None = None,
        by: str | None = None,
    ) -> Reservation:
        """Charge the account for a plan, before anything is read.

        Args:
            event: The whole plan. Its price at ``delta`` is at most ``epsilon``; the account's
                filter and whoever verifies an extract price it again.
            epsilon: What is claimed, with ``delta``; the filter says what that takes.
            delta: What is claimed, with ``epsilon``.
            unit: The unit of privacy; an account keeps the one of its first charge.
            label: What the charge is for, in public terms.
            meta: Further public facts about the plan.
            by: Who prepares it, where the account's policy asks.

        Returns:
            The reservation, already charged.

        Raises:
            BudgetExceeded: The account has less left. Nothing is charged.
            InvalidRequest: The policy or the filter does not allow it, or the unit is another.
        """
        epsilon, delta = checked_epsilon(epsilon), checked_delta(delta)
        identity = secrets.token_hex(8)
        plan = plan_facts(event, epsilon, delta, unit, label=label)
        standing = self._read_standing()
        standing.policy.check(epsilon, unit=plan["unit"], by=by, on=standing.today)
        charge, cost = self._cost(standing, event, epsilon, delta)
        payload: dict[str, Any] = {
            "kind": "reserve",
            "reservation": identity,
            "plan": plan,
            "plan_digest": digest(plan),
            "meta": dict(meta or {}),
            **cost,
            **({} if by is None else {"by": by}),
        }
        with self._writing(f"A charge on account {self.name!r} was to be written.") as (db, found):
            standing = self._under(found, plan["unit"])
            after = replace(standing, spent=total(standing.spent + charge))
            if not after.spent.fits(standing.policy.capacity):
                raise standing.overspend(epsilon, delta, charge)
            self.ledger._append(db, after, payload)
        return Reservation(self, identity, as_read(payload["meta"]))

    def declare(
        self,
        event: Event,
        epsilon: Number,
        delta: Number,
        *,
        unit: Mapping[str, Any],
        adjacency: str,
        source: str,
        by: str,
    ) -> None:
        """Enter a spend that was made elsewhere: counted from now on, enforced by nobody.

        It may take more than is left; then nothing further is granted.

        Args:
            event: What was done, at most (epsilon, delta)-differentially private.
            epsilon: What was claimed for it, at least 0.
            delta: What was claimed for it, from 0 to below 1.
            unit: Its unit of privacy, which must be the account's.
            adjacency: Its adjacency, which must be the account's.
            source: Where the claim comes from: a tool, a paper, a release.
            by: Who declares it.

        Raises:
            InvalidRequest: The claim is under another unit or adjacency, or the account's filter
                cannot count it.
        """
        epsilon, delta = exact(epsilon), exact(delta)
        if adjacency != ADJACENCY or epsilon < 0 or not 0 <= delta < 1:
            raise InvalidRequest(
                f"A spend of epsilon {epsilon}, delta {delta} under {adjacency!r} was to be "
                "declared.",
                f"An account counts epsilon of at least 0 and delta in [0, 1) under {ADJACENCY}.",
                "Convert the claim first: replacing one unit is removing one and adding another.",
            )
        require_name(by, "A declared spend")
        plan = plan_facts(event, epsilon, delta, unit)
        charge, cost = self._cost(self._read_standing(), event, epsilon, delta)
        facts = {"plan": plan, "adjacency": adjacency, "source": source, "by": by, **cost}
        with self._writing(f"A spend on account {self.name!r} was to be declared.") as (db, found):
            standing = self._under(found, plan["unit"])
            after = replace(standing, spent=total(standing.spent + charge))
            self.ledger._append(db, after, {"kind": "declare", **facts})

    def _cost(
        self, standing: Standing, event: Event, epsilon: Fraction, delta: Fraction
    ) -> tuple[Charge, dict[str, Any]]:
        """Return what the filter takes, and the payload's word for it if it is not the claim."""
        policy = standing.policy
        charge = policy.filter.charge(event, epsilon, delta, policy.budget)
        if policy.filter.name == "additive":
            return charge, {}
        return charge, {"cost": {"cost": str(charge.cost), "delta": str(charge.delta)}}

    def _under(self, standing: Standing, unit: Mapping[str, Any]) -> Standing:
        """Return the account kept under a unit of privacy, or refuse another than it has."""
        text = canonical(unit).decode()
        if standing.unit not in (None, text):
            raise InvalidRequest(
                f"Account {self.name!r} was asked for under the unit of privacy {text}.",
                f"It is kept under {standing.unit}; charges under two units do not add up.",
                "Use the unit of the account, or open another account.",
            )
        return replace(standing, unit=text)

    def unfinished(
        self,
        event: Event,
        epsilon: Number,
        delta: Number,
        *,
        unit: Mapping[str, Any],
        label: str,
    ) -> Reservation | None:
        """Return the latest reservation of this very plan, to replay what it paid for."""
        plan = plan_facts(event, checked_epsilon(epsilon), checked_delta(delta), unit, label=label)
        with self.ledger._reading(f"Account {self.name!r} was to be read.") as db:
            rows = db.rows(
                "SELECT payload FROM entries WHERE account=:account AND kind='reserve' "
                "AND subject=:subject AND seq>=:since ORDER BY seq DESC",
                account=self.name,
                subject=digest(plan),
                since=self._standing(db).since,
            )
            for payload in (json.loads(row[0]) for row in rows):
                found = Reservation(self, payload["reservation"], payload["meta"])
                if not found._has(db, "void"):
                    return found
        return None

    # -- notes that charge nothing ---------------------------------------------------------------

    def record(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Append an entry that charges nothing: an inspection or a release.

        An inspection with a ``candidate`` is an attempt, refused beyond the cap; None says that it
        is not known of which candidate. A release with one gets the ``attempt`` that it is. Both
        are decided in the transaction that writes the entry.

        Raises:
            InvalidRequest: It is an attempt beyond the cap, or of another kind.
            LedgerError: A release states another attempt than it is by now.
        """
        if kind not in ("inspect", "release"):
            raise InvalidRequest(
                f"An entry of kind {kind!r} was to be recorded.",
                "Only inspections and releases are recorded without a charge.",
                "Reserve what reads rows.",
            )
        with self._writing(f"An entry on account {self.name!r} was to be written.") as (db, found):
            payload = read_attempts(db, self.name).checked({**facts, "kind": kind})
            self.ledger._append(db, found, payload)

    def attempts(self) -> Attempts:
        """Return the candidates whose exact results were read so far, and the cap."""
        with self.ledger._reading(f"Account {self.name!r} was to be read.") as db:
            return read_attempts(db, self.name)

    def allow_attempts(self, most: int, reason: str, by: str) -> None:
        """Set how many attempts the account allows from now on: for all to see, and why.

        Args:
            most: At least 1, and at most 1,000.
            reason: Why, in public terms.
            by: Who allows it.

        Raises:
            InvalidRequest: The number cannot be meant, or there is no reason or no name.
        """
        require_cap(most, reason, by)
        self._note({"kind": "attempts", "most": most, "reason": reason, "by": by})

    def attach(self, snapshot: str, table: str, *, by: str) -> None:
        """Note that a snapshot or table is of this population, under public names."""
        for name in (snapshot, table, by):
            require_name(name, "A snapshot or table")
        self._note({"kind": "attach", "snapshot": snapshot, "table": table, "by": by})

    def override(self, other: str, reason: str, by: str) -> None:
        """Note that another account is about the same people, and that this is accepted.

        What is spent on either then adds up for those people; no ledger adds it up for them.
        """
        require_name(by, "An override")
        if not reason.strip():
            raise InvalidRequest(
                f"The same people under account {other!r} were to be accepted.",
                "Somebody will ask why.",
                "Give a reason.",
            )
        self._note({"kind": "override", "other": other, "reason": reason, "by": by})

    def overrides(self) -> set[str]:
        """Return the accounts that are known and accepted to be about the same people."""
        with self.ledger._reading(f"Account {self.name!r} was to be read.") as db:
            rows = db.rows(
                "SELECT subject FROM entries WHERE account=:account AND kind='override'",
                account=self.name,
            )
        return {row[0] for row in rows}

    def approve(self, manifest_sha256: str, by: str, key: Path | None = None) -> None:
        """Note that someone approves a recorded release that others prepared.

        Args:
            manifest_sha256: The release's manifest, as its release entry names it.
            by: One of the policy's approvers.
            key: PEM file of the approver's Ed25519 private key, if the policy has the public one.

        Raises:
            InvalidRequest: The release is not recorded, ``by`` may not approve it, or the key is
                not the policy's.
        """
        asked = f"The approval of a release by {by} was to be recorded."
        facts = {"kind": "approve", "manifest": manifest_sha256, "by": by, "account": self.name}
        if key is not None:
            facts |= _signing.signature(key, approval(facts))
        with self._writing(asked) as (db, standing):
            limit = objection(standing.policy, facts) or self._against(db, manifest_sha256, by)
            if limit is not None:
                raise InvalidRequest(
                    asked, limit, "See the policy and the releases with `dpsynth ledger show`."
                )
            self.ledger._append(db, standing, facts)

    def _against(self, db: Database, manifest: str, by: str) -> str | None:
        """Return why a release cannot be approved by someone, or None."""
        state = replay(read_entries(db, self.name), self.name)
        if all(each.get("manifest") != manifest for each in state.releases):
            return "The account records no release with that manifest."
        if by in state.prepared_by(manifest):
            return f"{by} prepared it, and a release is approved by someone who did not."
        return None

    def _note(self, payload: Mapping[str, Any]) -> None:
        with self._writing(f"An entry on account {self.name!r} was to be written.") as (db, found):
            self.ledger._append(db, found, payload)

    # -- giving out ------------------------------------------------------------------------------

    def key(self, purpose: str) -> bytes:
        """Return a 32-byte key for one purpose, stable for the account and known to it alone."""
        message = canonical({"account": self.name, "purpose": purpose})
        return hmac.digest(self.ledger._secret, message, "sha256")

    def extract(self) -> dict[str, Any]:
        """Return the account's chain as JSON data that verifies without the ledger or the rows."""
        entries = self.ledger.entries(self.name)
        return {
            "format_version": FORMAT_VERSION,
            "account": self.name,
            "entries": entries,
            "head": entries[-1]["hash"] if entries else GENESIS,
        }

    def head(self) -> dict[str, Any]:
        """Return the chain's last entry and where it is kept: what a manifest quotes."""
        with self.ledger._reading(f"Account {self.name!r} was to be read.") as db:
            standing = self._standing(db)
            (place,) = db.rows("SELECT value FROM meta WHERE key='place'")[0]
        return {
            "account": self.name,
            "seq": standing.entries - 1,
            "head": standing.head,
            "time": standing.time,
            "ledger": self.ledger.identity,
            "place": place,
        }

    def signed_head(self, key: Path) -> dict[str, Any]:
        """Return the head with a signature: who wrote it, to whoever has the public key.

        Args:
            key: PEM file of an Ed25519 private key without a passphrase.
        """
        head = self.head()
        return {**head, **_signing.signature(key, head)}

    def move_out(self, to: str) -> dict[str, Any]:
        """Close the account here and return the extract with which one other ledger takes it in.

        Stored answers stay behind: finish what is unfinished first, since it cannot be resumed.

        Args:
            to: The identity of that ledger. Only it can take the account in, so that the budget
                is never in two ledgers.
        """
        asked = f"Account {self.name!r} was to be moved to another ledger."
        if to == self.ledger.identity or len(to) != 32:
            raise InvalidRequest(
                asked,
                "An account is moved to one other ledger, named by its identity.",
                "Give what `dpsynth ledger identity` prints of the other one.",
            )
        with self._writing(asked) as (db, standing):
            closed = replace(standing, moved=True)
            keys = self.key("moving").hex()
            self.ledger._append(db, closed, {"kind": "move", "to": to, "keys": keys})
        return self.extract()

    # -- plumbing --------------------------------------------------------------------------------

    def _standing(self, db: Database) -> Standing:
        """Return what the ledger says of the account; a policy in memory is never relied on."""
        standing = read_standing(db, self.name)
        if standing is None:
            raise LedgerError(
                f"Account {self.name!r} was to be used.",
                "The ledger has no account of that name.",
                "Open it with Ledger.account, which fixes its budget.",
            )
        return standing

    def _read_standing(self) -> Standing:
        asked = f"The balance of account {self.name!r} was to be read."
        with self.ledger._reading(asked) as db:
            return self._standing(db)

    @contextlib.contextmanager
    def _writing(self, asked: str, *, touched: bool = False) -> Iterator[tuple[Database, Standing]]:
        """Yield the writer's transaction and the account in it, if it is at home and open."""
        with self.ledger._writing(asked, touched=touched) as db:
            standing = self._standing(db)
            require_open(standing, touched=touched)
            yield db, standing
