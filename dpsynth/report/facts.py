"""What the top of either report shows, made from the public facts alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from dpsynth.report import svg
from dpsynth.report._page import count, finite, limit, number, percent, points, rounded_up, sequence

_TWO_SIDED = 1.96  # standard normal, 95 %
_MOST_LISTED = 12  # categories that a row of the report names
_LARGEST_EPSILON = 100.0  # beyond it no limit is worth drawing

NOT_TESTED = (
    "Attackers who hold other tables about the same people, or several releases at once.",
    "Attacks on the model's own parameters, or trained on many tables of the same kind.",
    "Guessing one attribute of a person from the others.",
    "Groups of people by themselves: the rates are over all audited units.",
)
"""What the attacks leave out, unless the facts hold a list of their own under ``not_tested``."""

_VERDICTS = {
    "not detected": ("Not detected", "none"),
    "review": ("For review", "review"),
    "fail": ("Fail", "fail"),
    "not tested": ("Not tested", "untested"),
}


def top(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the templates need besides the facts: sentences, intervals and drawings.

    Any fact may be missing; what is not there is not shown, or shown as not given.
    """
    promise, verdict = mapping(facts.get("statement")), mapping(facts.get("verdict"))
    found = findings(verdict)
    return {
        "unit": unit_in_words(mapping(facts.get("unit")) or mapping(promise.get("unit"))),
        "whom": "rows" if mapping(facts.get("unit")).get("unit") == "row" else "people",
        "odds": _odds(promise),
        "strongest": _strongest(promise),
        "verdict": _verdict(verdict),
        "fidelity": _fidelity(mapping(facts.get("fidelity"))),
        "utility": _utility(mapping(facts.get("utility"))),
        "findings": found,
        "not_tested": _not_tested(verdict, found),
        "not_covered": sequence(promise.get("not_covered")),
    }


def unit_in_words(unit: Mapping[str, Any]) -> str:
    """Return whose presence is hidden, in words; empty if it is not given."""
    if unit.get("unit") == "person":
        rows = count(unit.get("rows"))
        return f"one person, with at most {rows} row{'' if rows == '1' else 's'} of theirs"
    if unit.get("unit") == "row":
        return "one row, not one person"
    return str(unit.get("unit") or "")


def roc(promise: Mapping[str, Any]) -> svg.RocBound | None:
    """Return the drawing of what any attacker can reach, or None without a promise."""
    epsilon, delta = finite(promise.get("epsilon")), finite(promise.get("delta"))
    if epsilon is None or delta is None or not 0 <= epsilon < _LARGEST_EPSILON:
        return None
    marked = [(fpr, tpr, f"at most {limit(tpr)}") for fpr, tpr in _rates(promise)]
    return svg.roc_bound(marked, epsilon, delta)


def budget(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the account's epsilon in parts: spent before, by this release, and left."""
    account = mapping(facts.get("account_spent"))
    spent, whole = finite(account.get("epsilon")), finite(account.get("budget_epsilon"))
    if spent is None or whole is None:
        return None
    # A rounded sum may fall short of its own part.
    here = min(finite(mapping(facts.get("statement")).get("epsilon")) or 0.0, max(spent, 0.0))
    parts = {
        "other": ("Other charges", spent - here),
        "this": ("This release", here),
        "left": ("Left", max(whole - spent, 0.0)),
    }
    titles = [f"{title}: epsilon {number(value)}" for title, value in parts.values()]
    bars = svg.segments([value for _, value in parts.values()], whole, titles)
    return {"bars": list(zip(parts, bars, strict=True)), "summary": "; ".join(titles)}


def steps(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one row a step: its name, what it did in words, and its noise."""
    rows = []
    for each in sequence(facts.get("steps")):
        step = mapping(each)
        name = str(step.get("step", ""))
        noise = _noise(step)
        rows.append({"name": name.capitalize(), "what": _in_words(name, step), "noise": noise})
    return rows


def discovery(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what was found of the columns and for how much, or None if all was declared."""
    found = mapping(facts.get("discovery"))
    if not found:
        return None
    rows = []
    for each in map(mapping, sequence(found.get("columns"))):
        listed = [str(text) for text in sequence(each.get("categories"))]
        if listed:
            what = ", ".join(listed[:_MOST_LISTED])
            more = len(listed) - _MOST_LISTED
            what += f" and {count(more)} more" if more > 0 else ""
        else:
            what = f"{each.get('lower')} to {each.get('upper')}"
        rows.append({"name": each.get("name"), "what": what, "size": each.get("size")})
    least = [count(each) for each in sequence(found.get("shown_from"))]
    return {
        "epsilon": found.get("epsilon"),
        "delta": found.get("delta"),
        "noise": " and ".join(number(each) for each in sequence(found.get("noise_sd"))),
        "least": " to ".join(least),
        "rows": rows,
    }


def findings(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row an attack, its excess with an interval where there is one."""
    rows = []
    for each in sequence(verdict.get("findings")):
        found = mapping(each)
        rate_in, rate_out = finite(found.get("rate_in")), finite(found.get("rate_out"))
        excess = finite(found.get("excess"))
        if excess is None and rate_in is not None and rate_out is not None:
            excess = rate_in - rate_out
        rows.append(
            {
                "name": str(_first(found, "name", "attack") or "unnamed").capitalize(),
                "outcome": _label(found.get("outcome"))[0] if found.get("outcome") else "",
                "rate_in": rate_in,
                "rate_out": rate_out,
                "audit_in": found.get("audit_in"),
                "held_out": found.get("held_out"),
                "excess": excess,
                "low": finite(found.get("excess_low")),
                "high": finite(found.get("excess_high")),
                "p": found.get("p_value"),
                "adjusted": _first(found, "adjusted_p_value", "p_holm"),
                "smallest": finite(_first(found, "smallest_detectable", "smallest_effect")),
                "sentence": str(found.get("sentence") or ""),
                "whisker": None,
            }
        )
    _add_whiskers(rows)
    return rows


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping as it is, and anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def sentence(text: object) -> str:
    """Return text that begins with a capital.

    >>> sentence("over 3 pairs")
    'Over 3 pairs'
    """
    words = str(text or "")
    return words[:1].upper() + words[1:]


def _first(found: Mapping[str, Any], *names: str) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def _rates(promise: Mapping[str, Any]) -> list[tuple[float, float]]:
    rates = []
    for each in sequence(promise.get("attacker")):
        fpr = finite(mapping(each).get("false_positive_rate"))
        tpr = finite(mapping(each).get("true_positive_rate_at_most"))
        if fpr is not None and tpr is not None:
            rates.append((fpr, tpr))
    return rates


def _odds(promise: Mapping[str, Any]) -> str:
    epsilon = finite(promise.get("epsilon"))
    if epsilon is None or not 0 <= epsilon < _LARGEST_EPSILON:
        return ""
    return f"{rounded_up(Decimal(repr(math.exp(epsilon))), 3):,f}"


def _strongest(promise: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the stated attacker with the most false accusations: the easiest to picture."""
    rates = _rates(promise)
    return dict(zip(("fpr", "tpr"), max(rates), strict=True)) if rates else None


def _label(outcome: object) -> tuple[str, str]:
    return _VERDICTS.get(str(outcome), (sentence(outcome) or "Not given", "untested"))


def _verdict(verdict: Mapping[str, Any]) -> dict[str, str]:
    label, style = _label(verdict.get("outcome"))
    words = str(verdict.get("sentence") or "")
    # The label stands before the sentence already.
    begun = f"{verdict.get('outcome')}:"
    if words.lower().startswith(begun.lower()):
        words = words[len(begun) :].lstrip()
    return {"label": label, "style": style, "sentence": sentence(words)}


def _fidelity(found: Mapping[str, Any]) -> dict[str, Any]:
    value, spread = finite(found.get("mean_tvd")), finite(found.get("sd"))
    return {
        "value": value,
        "sd": spread,
        "interval": _interval(value, spread, number),
        "marginals": found.get("marginals"),
        "sentence": sentence(found.get("sentence")),
    }


def _utility(found: Mapping[str, Any]) -> dict[str, Any] | None:
    if not found:
        return None
    value, spread = finite(found.get("accuracy")), finite(found.get("sd"))
    return {
        "value": value,
        "sd": spread,
        "interval": _interval(value, spread, percent),
        "target": found.get("target"),
        "baseline": finite(found.get("baseline")),
        "sentence": sentence(found.get("sentence")),
    }


def _interval(value: float | None, spread: float | None, show: Callable[[object], str]) -> str:
    """Return the 95 % interval of a share as text; empty if it cannot be given."""
    if value is None or spread is None:
        return ""
    low, high = max(value - _TWO_SIDED * spread, 0.0), min(value + _TWO_SIDED * spread, 1.0)
    return f"{show(round(low, 4))} to {show(round(high, 4))}"


def _not_tested(verdict: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [str(each) for each in sequence(verdict.get("not_tested"))] or list(NOT_TESTED)
    least = [each["smallest"] for each in found if each["smallest"] is not None]
    if not found:
        return ["Membership: no attack was compared with units held out.", *lines]
    if not least or max(least) >= 1:
        return lines
    small = f"Excesses below {points(max(least))} points: some attack might well not find them."
    return [small, *lines]


def _add_whiskers(rows: Sequence[dict[str, Any]]) -> None:
    with_interval = [row for row in rows if None not in (row["low"], row["excess"], row["high"])]
    drawn = svg.whiskers([(row["low"], row["excess"], row["high"]) for row in with_interval])
    for row, whisker in zip(with_interval, drawn, strict=True):
        row["whisker"] = whisker


def _noise(step: Mapping[str, Any]) -> str:
    if "epsilon_each" in step:
        return f"exponential mechanism, epsilon {number(step['epsilon_each'])} each"
    if "noise_multiplier" in step:
        return f"{number(step['noise_multiplier'])} times the clip, on every coordinate"
    scales = [number(each) for each in sequence(step.get("noise_sd"))]
    more = " or more" if step.get("step") == "divide" else ""
    return f"standard deviation {' and '.join(scales)}{more}" if scales else ""


def _in_words(name: str, step: Mapping[str, Any]) -> str:
    def of(key: str) -> str:
        return count(step.get(key, 0))

    match name:
        case "measure":
            return f"Counted rows in {of('marginals')} marginal tables, with noise on every count."
        case "select":
            return f"Chose, {of('rounds')} times, which columns to count together."
        case "divide":
            return (
                f"Scored and counted at most {of('answers')} marginal tables, the noise on each "
                "following from the answers before."
            )
        case "train":
            return (
                f"Trained in {of('steps')} steps, each on the units that a coin of "
                f"{number(step.get('rate', 0))} drew; a unit's gradient was clipped, and the sum "
                "got noise. Gradients are added up in float64, to a bound that the proof allows "
                "for; the last bits of a unit's gradient may depend on the units beside it, and "
                "the proof takes them for its own."
            )
        case "discover":
            return (
                f"Found what the schema left open: categories ({of('categories')} columns) and "
                f"ranges ({of('ranges')} columns)."
            )
        case "tune":
            return (
                f"Tried {count(len(sequence(step.get('candidates'))))} sets of parameters in a "
                f"secret number of runs, about {of('runs')}, and kept the best run's answers."
            )
        case "choose":
            judged = (
                f"their distance over {of('marginals')} marginal tables"
                if step.get("marginals")
                else "how many audited units an attack finds in them"
            )
            return f"Chose one of {of('candidates')} synthetic tables, by {judged}."
        case "audit":
            return (
                f"Counted audited units by {of('statistics')} scores, and compared "
                f"{of('marginals')} marginal tables with the synthetic one."
            )
        case _:
            facts = {k: v for k, v in step.items() if k not in ("step", "noise_sd", "epsilon_each")}
            return "; ".join(f"{key}: {value}" for key, value in facts.items())
