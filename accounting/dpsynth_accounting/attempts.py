"""Attempts: candidates for a release whose exact results somebody read, counted and capped.

No epsilon covers a choice that was made on exact results. So each candidate whose exact results
are read is an *attempt*, noted in the account's chain before a row is read; a release says which
attempt it is, of at most how many. Definition and bound: ``docs/explanation/attempts.md``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dpsynth_accounting._errors import InvalidRequest, LedgerError
from dpsynth_accounting.policy import require_name

MOST_ATTEMPTS = 3
"""Greatest number of attempts of an account, unless an entry of its chain says otherwise."""

TABLE_ALONE = "check of a table"
"""The purpose of an inspection that looks at no candidate, only at the table and its schema."""

UNINFORMED = "No exact result had been read when this release was entered in the ledger"
INFORMED = "This release is attempt"
"""How the sentence about attempts begins: every statement has one of the two, once."""

_GREATEST = 1000  # a cap that anybody could mean
_NAME = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Attempt:
    """What exact results had been read when a candidate was released.

    Attributes:
        number: 1 and the number of other candidates whose exact results had been read. An
            inspection that names no candidate counts as one of its own.
        most: Greatest number of attempts that the account allowed by then.
        own: Whether exact results of the very candidate had been read.
        checks: How often exact figures of the table alone had been read.
        bounded: Whether what the choice can tell has a bound: no inspection was of nobody knows
            how many candidates, and the cap was not changed in view of exact results.
    """

    number: int
    most: int
    own: bool
    checks: int
    bounded: bool = True

    @property
    def informed(self) -> bool:
        """Whether any exact result about a candidate had been read."""
        return self.own or self.number > 1

    @property
    def outcomes(self) -> int:
        """In how many ways one of ``most`` attempts can be released in view of some, or none.

        After j of them it is one of these, or, as long as j is below the cap, one not looked at.
        """
        return self.most * (self.most + 3) // 2

    @property
    def bits(self) -> float:
        """Greatest number of bits that the choice can tell; 0 if no exact result was read."""
        if not self.informed:
            return 0.0
        return math.log2(self.outcomes) if self.bounded else math.inf

    def require(self, *, touched: bool = False) -> Attempt:
        """Return the attempt, or refuse one beyond the cap.

        Raises:
            InvalidRequest: There were as many attempts before as the account allows.
        """
        if self.number > self.most:
            raise InvalidRequest(
                f"Attempt {self.number} at a release was asked for.",
                f"Exact results of {self.number - 1} other candidates were read under this "
                f"account, and it allows {self.most} attempts.",
                "Release one of those, or allow more with `dpsynth ledger attempts`: that takes a "
                "reason and a name, and both stand in every extract.",
                touched=touched,
            )
        return self

    def entry(self) -> dict[str, Any]:
        """Return the attempt as a release entry of the chain holds it."""
        return {
            "number": self.number,
            "most": self.most,
            "own": self.own,
            "checks": self.checks,
            "bounded": self.bounded,
        }

    @staticmethod
    def from_entry(data: Mapping[str, Any]) -> Attempt:
        """Return the attempt that a release entry holds."""
        number, most, checks = (int(data[key]) for key in ("number", "most", "checks"))
        return Attempt(number, most, bool(data["own"]), checks, bool(data["bounded"]))

    def to_json(self) -> dict[str, Any]:
        """Return the attempt as plain JSON data, as a statement holds it."""
        return {
            **self.entry(),
            "informed": self.informed,
            "bits_at_most": self._bits_up if self.bounded else None,
            "sentences": self.sentences(),
        }

    def sentences(self) -> list[str]:
        """Return the same in plain language.

        >>> Attempt(1, 3, False, 0).sentences()[0][:31]
        'No exact result had been read w'
        """
        checked = (
            f"Exact figures of the table alone, checked against its schema, were read "
            f"{self.checks} time(s) before."
        )
        return [self._of_candidates(), *([checked] if self.checks else [])]

    def _of_candidates(self) -> str:
        if not self.informed:
            return (
                f"{UNINFORMED}: it records no inspection of it or of any other candidate. What is "
                "read afterwards, before it is handed out, is not covered."
            )
        others = self.number - 1
        of = [f"{others} other candidate(s)"] if others else []
        of += ["this one"] if self.own else []
        bound = (
            "How much it can tell has no bound here: an inspection named no candidate, or the cap "
            "was changed when exact results had been read."
        )
        if self.bounded:
            bound = (
                "Which attempt is released, and after how many, tells at most "
                f"{self._bits_up:.2f} bits, a factor of {self.outcomes} in the chance of any "
                "guess, as long as exact results did not also decide how later attempts were made."
            )
        return (
            f"{INFORMED} {self.number} of at most {self.most}: exact results of "
            f"{' and of '.join(of)} were read before it was entered in the ledger. No epsilon "
            f"covers that choice. {bound}"
        )

    @property
    def _bits_up(self) -> float:
        return math.ceil(self.bits * 100) / 100


@dataclass(frozen=True)
class Attempts:
    """The attempts of an account so far, as its chain adds them up.

    Attributes:
        candidates: The candidates whose exact results were read, each once, oldest first.
        unnamed: How many inspections named no candidate; each counts as an attempt.
        checks: How many looked at the table alone.
        most: Greatest number of attempts.
        counted: Whether an inspection was entered that counts them: a release has to, from then on.
        bounded: As of an :class:`Attempt`.
    """

    candidates: tuple[str, ...] = ()
    unnamed: int = 0
    checks: int = 0
    most: int = MOST_ATTEMPTS
    counted: bool = False
    bounded: bool = True

    @property
    def made(self) -> int:
        """How many attempts there were."""
        return len(self.candidates) + self.unnamed

    def after(self, payload: Mapping[str, Any]) -> Attempts:
        """Return the attempts after an entry of the chain, whatever it is."""
        if payload["kind"] == "inspect" and "candidate" in payload and not self.counted:
            return replace(self, counted=True).after(payload)
        match payload["kind"]:
            case "attempts":
                most, bounded = int(payload["most"]), self.bounded and not self.made
                return replace(self, most=most, bounded=bounded)
            case "inspect" if payload.get("candidate") is not None:
                candidate = str(payload["candidate"])
                known = candidate in self.candidates
                return self if known else replace(self, candidates=(*self.candidates, candidate))
            case "inspect" if "for" in payload and "candidate" not in payload:
                return self  # whether two accounts hold the same people: no figure is shown
            case "inspect" if payload.get("purpose") == TABLE_ALONE and "candidate" not in payload:
                return replace(self, checks=self.checks + 1)
            case "inspect":
                return replace(self, unnamed=self.unnamed + 1, bounded=False)
        return self

    def of(self, candidate: str | None) -> Attempt:
        """Return which attempt a candidate would be if it were released now.

        Args:
            candidate: SHA-256 of its table as a release writes it; None for one not made yet.
        """
        own = candidate in self.candidates
        return Attempt(1 + self.made - own, self.most, own, self.checks, self.bounded)

    def checked(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return an entry as it is appended: refused beyond the cap, with the attempt it is.

        Args:
            payload: An inspection or a release; those that name no candidate are as they are.

        Raises:
            InvalidRequest: It is an attempt beyond the cap, or a release that hides which it is.
            LedgerError: A release states another attempt than it is by now.
        """
        if "candidate" not in payload:
            if payload["kind"] == "release" and (self.counted or "attempt" in payload):
                raise InvalidRequest(
                    "A release was to be recorded without its candidate.",
                    "Exact results were read under this account, so a release says which attempt "
                    "it is.",
                    "Write it with `Release.write`, which names it.",
                    touched=True,
                )
            return dict(payload)
        if not _is_name(payload):
            raise InvalidRequest(
                "An inspection or a release was to be recorded of a candidate of another name.",
                "A candidate is named by the SHA-256 of its table, 64 digits, so that one name is "
                "one table.",
                "Name it so, or give None: then nobody knows of which.",
            )
        attempt = self.of(payload["candidate"])
        attempt.require(touched=payload["kind"] == "release")
        if payload["kind"] == "inspect":
            return dict(payload)
        if payload.get("attempt", attempt.entry()) != attempt.entry():
            raise LedgerError(
                "A release was to be recorded.",
                "Exact results of another candidate were read since its statement was made.",
                "Write the release again: its statement will count them.",
                touched=True,
            )
        return {**payload, "attempt": attempt.entry()}

    def fault(self, payload: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the count in an entry that comes next, or None.

        Entries of before attempts were counted name no candidate, and nothing is wrong with them.
        """
        if payload["kind"] not in ("inspect", "release"):
            return None
        if "candidate" not in payload:
            hides = payload["kind"] == "release" and (self.counted or "attempt" in payload)
            return (
                f"the release in entry {payload['seq']} hides which attempt it is"
                if hides
                else None
            )
        if not _is_name(payload):
            return f"entry {payload['seq']} names a candidate by no hash of a table"
        attempt = self.of(payload["candidate"])
        if attempt.number > attempt.most:
            return f"entry {payload['seq']} is an attempt beyond the cap of {attempt.most}"
        if payload["kind"] == "release" and payload.get("attempt") != attempt.entry():
            return f"the release in entry {payload['seq']} states another attempt than it is"
        return None


def _is_name(payload: Mapping[str, Any]) -> bool:
    """Say whether an entry's candidate is named by a hash, or of an inspection by nothing."""
    candidate = payload["candidate"]
    if candidate is None:
        return bool(payload["kind"] == "inspect")
    return isinstance(candidate, str) and bool(_NAME.fullmatch(candidate))


def require_cap(most: int, reason: str, by: str) -> None:
    """Refuse a cap that nobody could mean, or one without a reason or a name.

    Raises:
        InvalidRequest: It is no whole number from 1 to 1,000, or there is no reason or no name.
    """
    require_name(by, "A cap of attempts")
    whole = isinstance(most, int) and not isinstance(most, bool)
    if not (whole and 1 <= most <= _GREATEST) or not reason.strip():
        raise InvalidRequest(
            f"A cap of {most!r} attempts was to be set.",
            f"It is a whole number from 1 to {_GREATEST}, and somebody will ask why.",
            "Give a number and a reason.",
        )
