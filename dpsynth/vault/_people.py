"""Whether a table's people are in another account too: one exact look, for the custodian.

Budgets of two accounts add up for whoever is in both, and neither account knows. So before the
first answer about a table is drawn, a keyed sketch of its units is compared with those of the
ledger's other accounts. The comparison is exact and nobody paid for it: that it was made is in the
chain, whatever it finds; the sketch stays in the ledger file, beside the chain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from dpsynth._values import distinct_texts
from dpsynth.vault import _bound
from dpsynth.vault._rows import Kept
from dpsynth_accounting import Account
from dpsynth_accounting.population import SamePeople, alike, sketch

PURPOSE = "population sketch, for the custodian only"
"""What the ledger calls the look in its inspection entry."""


def inspected(account: Account, reservation: str) -> bool:
    """Say whether the look was noted for a reservation, before it was resumed."""
    return any(
        (entry["payload"]["kind"], entry["payload"].get("for")) == ("inspect", reservation)
        for entry in account.ledger.entries(account.name)
    )


def begun(account: Account, reservation: str) -> bool:
    """Say whether a step of a reservation has begun, hence whether the look found nothing."""
    return any(
        (entry["payload"]["kind"], entry["payload"].get("reservation")) == ("begin", reservation)
        for entry in account.ledger.entries(account.name)
    )


def note(account: Account, reservation: str) -> None:
    """Write into the chain that rows are about to be looked at."""
    account.record("inspect", {"purpose": PURPOSE, "for": reservation})


def refuse_same_people(account: Account, kept: Kept, unit: _bound.Unit) -> None:
    """Compare a table's units with those of other accounts, and store their sketch.

    A table whose very sketch the account holds is not compared again: it was, at its first use.

    Raises:
        SamePeople: Another account holds the same people, and the account has no override for it.
    """
    ledger = account.ledger
    key = ledger.key("population sketch")
    own = sketch(_identities(kept, unit, key), key)
    name = hashlib.sha256(own).hexdigest()[:16]
    held = ledger.sketches()
    if (account.name, name) in held:
        return
    known = {account.name, *account.overrides()}
    for (other, _), theirs in sorted(held.items()):
        if other not in known and alike(own, theirs):
            raise SamePeople(account.name, other)
    ledger.put_sketch(account.name, name, own)


def _identities(kept: Kept, unit: _bound.Unit, key: bytes) -> Iterator[bytes]:
    """Yield what names each unit: a person's id, or what a row says and its number among equals.

    Both are the texts that the bound goes by. A row's columns are taken by name, in no order, so
    that the same text in another column does not count as equal. A holdout's units are among them:
    they are behind the same promise.
    """
    for table in kept.tables:
        match unit:
            case _bound.Person(column, _):
                for text in distinct_texts(table.frame[column])[1]:
                    yield text.encode("utf-8", "surrogatepass")
            case _bound.Row():
                columns = {name: distinct_texts(table.frame[name]) for name in table.frame.columns}
                for word in _bound.words_of_rows(columns, key):
                    yield word.tobytes()
