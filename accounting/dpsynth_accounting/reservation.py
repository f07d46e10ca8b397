"""A charged plan: it begins, stores its answers before they are shown, and is carried out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from dpsynth_accounting._chain import as_read, sha256
from dpsynth_accounting._errors import InvalidRequest, LedgerError
from dpsynth_accounting._event_json import event_to_json
from dpsynth_accounting._standing import Standing, total
from dpsynth_accounting._store import Database
from dpsynth_accounting.events import Event
from dpsynth_accounting.extract import cost_of

if TYPE_CHECKING:
    from dpsynth_accounting.account import Account


def plan_facts(
    event: Event,
    epsilon: Fraction,
    delta: Fraction,
    unit: Mapping[str, Any],
    **label: str,
) -> dict[str, Any]:
    """Return what identifies a plan: two of the same facts are the same plan."""
    return as_read(
        {
            "event": event_to_json(event),
            "unit": dict(unit),
            "charge": {"epsilon": str(epsilon), "delta": str(delta)},
            **label,
        }
    )


@dataclass(frozen=True)
class Reservation:
    """A charged plan, with the answers it has given so far."""

    account: Account
    identity: str
    meta: Mapping[str, Any]

    def answer(self, step: int, part: int, request: str) -> bytes | None:
        """Return the stored answer of a step, or None if it was never stored.

        Raises:
            InvalidRequest: The stored answer belongs to another request.
        """
        with self.account.ledger._reading("A stored answer was to be read.", touched=True) as db:
            stored = self._stored(db, step, part)
        if stored is None:
            return None
        if stored[0] != request:
            raise InvalidRequest(
                "A paid answer was to be replayed for a different question.",
                "An answer belongs to the request it was drawn for.",
                "Resume with the same recipe, schema and version, or start a new run.",
                touched=True,
            )
        return bytes(stored[1])

    def begun(self, step: int, part: int) -> bool:
        """Say whether a part of a step was noted to begin, by whichever process."""
        with self.account.ledger._reading("A step was to be looked up.", touched=True) as db:
            return not {part, None}.isdisjoint(self._parts(db, step))

    def begin(self, step: int, request: str, part: int | None = None) -> None:
        """Note, durably, that a step is about to read rows.

        Args:
            step: Its place in the plan.
            request: What will be asked.
            part: Given where outside code sees draws before they are stored: that part of the
                step is about to be drawn, and no process may begin it again.

        Raises:
            InvalidRequest: The charge was handed back, by this process or by another.
            LedgerError: The part began before.
        """
        with self._writing("A step was to be noted in the ledger.") as (db, standing):
            reserved = self._reserved(db)
            if reserved is None or reserved < standing.since or self._has(db, "void"):
                raise InvalidRequest(
                    "A step of a plan was to begin.",
                    "The plan's charge was handed back or was made in another ledger, so nothing "
                    "pays for the step.",
                    "Reserve the plan again.",
                )
            facts: dict[str, Any] = {"kind": "begin", "step": step, "request": request}
            if part is not None:
                # One that began as a whole, in an earlier version, began in all parts.
                if not {part, None}.isdisjoint(self._parts(db, step)):
                    raise LedgerError(
                        "A part of a step was to begin that began before.",
                        "Another run of the plan draws it, or was interrupted in it, and outside "
                        "code may have seen what was drawn: no part is drawn twice.",
                        "Let the other run end. A training then goes on with --resume; a tuning "
                        "that was interrupted is to be reserved anew.",
                        touched=True,
                    )
                facts["part"] = part
            self._append(db, standing, facts)

    def store(self, step: int, part: int, request: str, value: bytes) -> None:
        """Store a noisy answer, durably, before it is shown to anyone."""
        with self._writing("A paid answer was to be stored.") as (db, standing):
            reserved = self._reserved(db)
            if reserved is None or reserved < standing.since or not self._has(db, "begin", step):
                raise InvalidRequest(
                    "An answer of a step was to be stored.",
                    "The step was never noted in this ledger before it read rows.",
                    "Call begin before reading.",
                    touched=True,
                )
            if self._stored(db, step, part) is not None:
                raise LedgerError(
                    "A paid answer was to be stored.",
                    "Another run of the same plan stored that answer first, and only one is kept.",
                    "Run again with --resume, alone: it replays what is stored.",
                    touched=True,
                )
            db.run(
                "INSERT INTO answers VALUES(:reservation, :step, :part, :request, :value)",
                reservation=self.identity,
                step=step,
                part=part,
                request=request,
                value=value,
            )
            hashes = {"request_sha256": sha256(request.encode()), "sha256": sha256(value)}
            self._append(db, standing, {"kind": "answer", "step": step, "part": part, **hashes})

    def commit(self) -> None:
        """Note that the plan has been carried out."""
        with self._writing("A plan was to be noted as carried out.") as (db, standing):
            if not self._has(db, "commit"):
                self._append(db, standing, {"kind": "commit"})

    def void(self) -> bool:
        """Hand the charge back if, and only if, no step has begun; say whether it was.

        Once a step has begun its rows may have been read, and the charge stands for ever.
        """
        with self._writing("An unused charge was to be handed back.") as (db, standing):
            if any(self._has(db, kind) for kind in ("begin", "answer", "commit", "void")):
                return False
            rows = db.rows(
                "SELECT seq, payload FROM entries WHERE account=:account "
                "AND reservation=:reservation AND kind='reserve'",
                **self._mine,
            )
            if not rows or rows[0][0] < standing.since:
                return False
            spent = total(standing.spent - cost_of(json.loads(rows[0][1])))
            self._append(db, replace(standing, spent=spent), {"kind": "void"})
        return True

    # -- plumbing --------------------------------------------------------------------------------

    @property
    def _mine(self) -> dict[str, object]:
        return {"account": self.account.name, "reservation": self.identity}

    def _reserved(self, db: Database) -> int | None:
        """Return the number of the entry that made the reservation."""
        rows = db.rows(
            "SELECT seq FROM entries WHERE account=:account AND reservation=:reservation "
            "AND kind='reserve'",
            **self._mine,
        )
        return int(rows[0][0]) if rows else None

    def _has(self, db: Database, kind: str, step: int | None = None) -> bool:
        """Say whether the chain holds an entry of a kind (and step) of this reservation."""
        wanted, values = ("", {}) if step is None else ("AND step=:step", {"step": step})
        rows = db.rows(
            "SELECT 1 FROM entries WHERE account=:account AND reservation=:reservation "
            f"AND kind=:kind {wanted} LIMIT 1",
            kind=kind,
            **values,
            **self._mine,
        )
        return bool(rows)

    def _parts(self, db: Database, step: int) -> set[int | None]:
        """Return the parts of a step that began; None is among them if the whole step did."""
        rows = db.rows(
            "SELECT payload FROM entries WHERE account=:account AND reservation=:reservation "
            "AND kind='begin' AND step=:step",
            step=step,
            **self._mine,
        )
        return {json.loads(payload).get("part") for (payload,) in rows}

    def _stored(self, db: Database, step: int, part: int) -> tuple[str, bytes] | None:
        rows = db.rows(
            "SELECT request, value FROM answers WHERE reservation=:reservation AND step=:step "
            "AND part=:part",
            reservation=self.identity,
            step=step,
            part=part,
        )
        return (rows[0][0], rows[0][1]) if rows else None

    @contextlib.contextmanager
    def _writing(self, asked: str) -> Iterator[tuple[Database, Standing]]:
        """Yield a transaction with the account in it; the charge stands whatever fails there."""
        with self.account._writing(asked, touched=True) as (db, standing):
            yield db, standing

    def _append(self, db: Database, standing: Standing, facts: Mapping[str, Any]) -> None:
        self.account.ledger._append(db, standing, {**facts, "reservation": self.identity})
