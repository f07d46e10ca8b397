"""What an account allows, fixed when it is opened: budget, filter, and who may do what until when.

The names of preparers and approvers are declared, not authenticated: whoever can write the ledger
can write any name. Only an approver with a public key is more than a name, since an approval then
carries a signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from functools import lru_cache
from typing import Any

from dpsynth_accounting._canonical import canonical
from dpsynth_accounting._chain import as_read
from dpsynth_accounting._errors import InvalidRequest
from dpsynth_accounting.budget import Budget, Number, checked_epsilon, show
from dpsynth_accounting.filters import ADDITIVE, Charge, Filter

FIELDS = ("budget", "filter", "unit", "per_release", "expires", "preparers", "approvers")
"""Every key that :meth:`Policy.to_json` can write."""


@dataclass(frozen=True)
class Policy:
    """What an account allows. A plain :class:`Budget` is the policy of that budget alone.

    Args:
        budget: What may ever be spent.
        filter: How charges add up.
        unit: The unit of privacy of every charge; None leaves it to the first charge.
        per_release: Greatest epsilon of one reservation.
        expires: Last day (UTC) on which something may be reserved.
        preparers: Who may reserve; empty lets anyone.
        approvers: Who may approve a release, each with an Ed25519 public key (64 hexadecimal
            digits) or None. If there are any, a release counts as approved only by one of them who
            did not prepare it, so every reservation has to say who prepares.

    Raises:
        InvalidRequest: A name is empty or doubled, a key is no key, nobody could ever approve, or
            the filter can grant nothing of the budget.

    >>> Policy(Budget(3, 1e-6), per_release=1, preparers=("ada",)).to_json()["per_release"]
    '1'
    """

    budget: Budget
    filter: Filter
    unit: Mapping[str, Any] | None
    per_release: Fraction | None
    expires: date | None
    preparers: tuple[str, ...]
    approvers: Mapping[str, str | None]
    capacity: Charge = field(repr=False, compare=False)

    def __init__(
        self,
        budget: Budget,
        *,
        filter: Filter = ADDITIVE,  # noqa: A002
        unit: Mapping[str, Any] | None = None,
        per_release: Number | None = None,
        expires: date | None = None,
        preparers: Iterable[str] = (),
        approvers: Iterable[str] | Mapping[str, str | None] = (),
    ) -> None:
        keys = approvers if isinstance(approvers, Mapping) else dict.fromkeys(_names(approvers))
        set_ = object.__setattr__
        set_(self, "budget", budget)
        set_(self, "filter", filter)
        set_(self, "unit", None if unit is None else as_read(unit))
        set_(self, "per_release", None if per_release is None else checked_epsilon(per_release))
        set_(self, "expires", expires)
        set_(self, "preparers", _names(preparers))
        set_(self, "approvers", {name: _key(keys[name]) for name in _names(keys)})
        set_(self, "capacity", _capacity(filter, budget))
        if len(self.approvers) == 1 and set(self.preparers) == set(self.approvers):
            raise InvalidRequest(
                "A policy was asked for whose only preparer is its only approver.",
                "A release is approved by someone who did not prepare it.",
                "Name a second approver.",
            )

    def __hash__(self) -> int:
        return hash(canonical(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Return the policy as plain JSON data; what it leaves open is left out."""
        data: dict[str, Any] = {"budget": self.budget.to_json(), "filter": self.filter.name}
        if self.unit is not None:
            data["unit"] = dict(self.unit)
        if self.per_release is not None:
            data["per_release"] = str(self.per_release)
        if self.expires is not None:
            data["expires"] = self.expires.isoformat()
        if self.preparers:
            data["preparers"] = list(self.preparers)
        if self.approvers:
            data["approvers"] = dict(self.approvers)
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Policy:
        """Return the policy written by :meth:`to_json`.

        Raises:
            InvalidRequest: It holds a rule that this version does not know.
        """
        unknown = set(data) - set(FIELDS)
        if unknown:
            raise InvalidRequest(
                "A policy was to be read.",
                f"It holds rules this version does not know: {', '.join(sorted(unknown))}.",
                "Use a newer version of dpsynth.",
            )
        rest = {key: data[key] for key in ("unit", "per_release", "preparers") if key in data}
        return Policy(
            Budget.from_json(data["budget"]),
            filter=Filter.named(data["filter"]),
            expires=date.fromisoformat(data["expires"]) if "expires" in data else None,
            approvers=dict(data.get("approvers", {})),
            **rest,
        )

    def check(
        self, epsilon: Fraction, *, unit: Mapping[str, Any], by: str | None, on: date
    ) -> None:
        """Refuse a reservation that the policy does not allow, whatever is left of the budget.

        Args:
            epsilon: What it claims.
            unit: Its unit of privacy.
            by: Who prepares it.
            on: The day it is made, UTC.

        Raises:
            InvalidRequest: It is over the cap, too late, under another unit, or by nobody who may.
        """
        self.check_size(epsilon, on=on)
        if self.unit is not None and canonical(unit) != canonical(self.unit):
            raise InvalidRequest(
                f"A charge was asked for under the unit {canonical(unit).decode()}.",
                f"The account's policy fixes {canonical(self.unit).decode()}.",
                "Use that unit, or open another account.",
            )
        if by is None and (self.preparers or self.approvers):
            raise InvalidRequest(
                "A charge was asked for without saying who prepares it.",
                "The account's policy says who prepares and who approves.",
                f"Name the preparer: {', '.join(self.preparers) or 'anyone but the approver'}.",
            )
        if self.preparers and by not in self.preparers:
            raise InvalidRequest(
                f"A charge was asked for by {by}.",
                f"The account's policy lets prepare: {', '.join(self.preparers)}.",
                "Have one of them run it, or open an account with another policy.",
            )

    def check_size(self, epsilon: Fraction, *, on: date) -> None:
        """Refuse what no preparer could reserve: too much at once, or too late."""
        if self.expires is not None and on > self.expires:
            raise InvalidRequest(
                f"A charge was asked for on {on.isoformat()}.",
                f"The account's policy ended with {self.expires.isoformat()}.",
                "What was released stays released; open another account for further releases.",
            )
        if self.per_release is not None and epsilon > self.per_release:
            raise InvalidRequest(
                f"A charge of epsilon {show(epsilon)} was asked for.",
                f"The account's policy allows {show(self.per_release, up=False)} at a time.",
                "Ask for no more than that.",
            )


@lru_cache(maxsize=256)
def _capacity(how: Filter, budget: Budget) -> Charge:
    """Return all that an account holds; found by search, so once for each policy."""
    return how.capacity(budget)


def _names(names: Iterable[str]) -> tuple[str, ...]:
    found = (names,) if isinstance(names, str) else tuple(names)
    for name in found:
        require_name(name, "A preparer or approver")
    if len(set(found)) != len(found):
        raise InvalidRequest(
            "A policy was asked for that names someone twice.",
            "Each preparer and each approver is named once.",
            "Remove the second mention.",
        )
    return found


def require_name(name: str, what: str) -> str:
    """Return a name, unless it cannot be told apart from another or cannot be printed."""
    fine = isinstance(name, str) and name == name.strip() and name.isprintable()
    if not fine or not 1 <= len(name) <= 200:
        raise InvalidRequest(
            f"{what} was asked for without a usable name.",
            "A name has 1 to 200 printable characters and no space at either end.",
            "Give a name such as 'patients-2026' or 'ada@example.org'.",
        )
    return name


def _key(key: str | None) -> str | None:
    if key is None or (len(key) == 64 and set(key) <= set("0123456789abcdef")):
        return key
    raise InvalidRequest(
        "An approver was to be named with a public key.",
        "An Ed25519 public key is 64 hexadecimal digits in lower case.",
        "Leave the key out, or give what `public_hex` reads from its PEM file.",
    )
