"""The statement as one page of plain text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from collections.abc import Sequence as Several
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from dpsynth_accounting.budget import show

if TYPE_CHECKING:
    from dpsynth_accounting.odometer import SoFar
    from dpsynth_accounting.policy import Policy
    from dpsynth_accounting.statement import Belief, PublicFact, Statement

WIDTH = 96
_TERM = 16


def share(value: float) -> str:
    """Return an upper limit as a percentage, rounded up to a hundredth of a point.

    >>> share(0.1), share(0.00301), share(0.73)
    ('10.00%', '0.31%', '73.00%')
    """
    # The inner rounding keeps 0.1 * 10000 from counting as just above 1000.
    hundredths = math.ceil(round(min(value, 1.0) * 10_000, 6))
    return f"{hundredths / 100:.2f}%"


def text(promise: Statement) -> str:
    """Return the page."""
    from dpsynth_accounting.statement import NEIGHBOURS, NOT_COVERED, TERMS, TRUST_MODEL

    lines = ["STATEMENT OF DIFFERENTIAL PRIVACY", f"Terms: {TERMS}.", ""]
    lines += _part(
        "What was promised",
        [
            *_term("Parameters", f"epsilon {show(promise.epsilon)} at delta {show(promise.delta)}"),
            *_term("Unit of privacy", unit_in_words(promise.unit)),
            *_term("Neighbours", f"{NEIGHBOURS}; so their number is private"),
            *_term("Trust model", TRUST_MODEL),
        ],
    )
    words = [each for sentence in promise.sentences() for each in _item(sentence)]
    lines += _part("In words", words)
    lines += _part("What the best attacker can reach", _attacker(promise))
    lines += _part("What an attacker with prior knowledge can reach", _beliefs(promise.beliefs))
    if promise.spent is not None:
        lines += _part("What the releases so far add up to", _so_far(promise.spent))
    lines += _part("What was declared public", _public(promise.public))
    lines += _part("Who answers for it", _policy(promise.policy))
    lines += _part("Hazards not covered", [x for each in NOT_COVERED for x in _item(each)])
    return "\n".join(lines).rstrip() + "\n"


def unit_in_words(unit: Any) -> str:
    """Return whose presence is hidden, in words."""
    whom = _whom(unit)
    if unit.get("holdout"):
        whom += "; in the table or in the custodian's own holdout, which the audit compares with"
    if unit.get("not_private"):
        whom += "; NOT PRIVATE, the noise follows from a seed"
    if unit.get("canaries"):
        whom += "; NOT FOR RELEASE, the table holds the canaries of an audit"
    return whom


def _whom(unit: Any) -> str:
    if unit.get("unit") == "person":
        rows = unit.get("rows")
        by = f' (named by column "{unit["column"]}")' if unit.get("column") else ""
        return f"one person, with at most {rows} row{'' if rows == 1 else 's'} of theirs{by}"
    if unit.get("unit") == "row":
        return "one row, not one person: someone with several rows is less protected"
    return str(unit.get("unit") or "not given")


def policy_in_words(policy: Policy | None) -> dict[str, str]:
    """Return who prepares and approves, the limit of one release and the expiry, in words."""
    if policy is None:
        return {}
    approvers = sorted(policy.approvers)
    most = policy.per_release
    return {
        "Prepared by": ", ".join(policy.preparers) or "anyone who holds the ledger",
        "Approved by": " or ".join(approvers) or "nobody has to approve",
        "One release": f"at most epsilon {show(most)}"
        if most is not None
        else "no limit of its own",
        "Expiry": policy.expires.isoformat() if policy.expires else "none",
    }


def _part(title: str, lines: Iterable[str]) -> list[str]:
    found = [f"  {line}" for line in lines]
    return [title, *found, ""] if found else []


def _term(name: str, value: str) -> list[str]:
    first, *rest = textwrap.wrap(value, WIDTH - _TERM - 2) or [""]
    return [f"{name:<{_TERM}}{first}", *(" " * _TERM + line for line in rest)]


def _item(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, WIDTH - 4, initial_indent="- ", subsequent_indent="  ")


def table(rows: Several[Several[str]], left: int = 1) -> list[str]:
    """Return rows in columns as wide as their widest cell, the first ``left`` to the left.

    >>> table([["a", "1"], ["bcd", "22"]])
    ['a      1', 'bcd   22']
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "   ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _attacker(promise: Statement) -> list[str]:
    rows = [("accused wrongly", "recognised by guessing", "recognised at most")]
    rows += [(f"{fpr:.1%}", f"{fpr:.1%}", share(tpr)) for fpr, tpr in promise.rates.items()]
    return [
        *table(rows, left=0),
        f"Membership advantage (recognised less accused wrongly): at most "
        f"{share(promise.advantage)}.",
    ]


def _beliefs(beliefs: tuple[Belief, ...]) -> list[str]:
    if not beliefs:
        return []
    rates, rarely = list(beliefs[0].accused), list(beliefs[0].posteriors)
    rows = [
        ["believed", *("believed after" for _ in rarely), *("accused rightly" for _ in rates)],
        [
            "before",
            *(f"but for {show(each)}" for each in rarely),
            *(f"if {fpr:.1%} wrongly" for fpr in rates),
        ],
    ]
    rows += [
        [
            f"{float(each.prior):.0%}",
            *(share(most) for most in each.posteriors.values()),
            *(share(most) for most in each.accused.values()),
        ]
        for each in beliefs
    ]
    note = (
        "All are upper limits. Believed after: in all releases but a share of that probability. "
        "Accused rightly: the share of the accused who took part, if at least that share of those "
        "who did not is accused too."
    )
    return [*table(rows, left=0), *textwrap.wrap(note, WIDTH - 2)]


def _so_far(spent: SoFar) -> list[str]:
    return [x for line in spent.lines() for x in _term(*line)]


def _public(facts: tuple[PublicFact, ...]) -> list[str]:
    """Return what was declared, the names of equal declarations together."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for each in facts:
        key = each.fact, each.source or "no source given", each.attested_by or "nobody"
        groups.setdefault(key, []).append(each.name)
    return [
        line
        for (fact, source, by), names in groups.items()
        for line in _item(f"{', '.join(names)}: {fact} (source: {source}; attested by: {by})")
    ]


def _policy(policy: Policy | None) -> list[str]:
    return [x for name, value in policy_in_words(policy).items() for x in _term(name, value)]


def number(value: Fraction) -> float:
    """Return a rational as the float that is shown of it: never below it."""
    return float(show(value))
