"""Facts of a made-up release, and a reader that checks what a browser would take from a page."""

from __future__ import annotations

import copy
from html.parser import HTMLParser
from typing import Any

HOSTILE = "</title><script>alert('1')</script>\" onload=\"x' <b>&amp;"

_VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

_FACTS: dict[str, Any] = {
    "format_version": 1,
    "dpsynth": "0.1.7",
    "created": "2026-02-03T04:05:06Z",
    "account": "clinic-2026",
    "unit": {"unit": "person", "column": "patient", "rows": 5, "audit_share": 0.2},
    "method": "mst",
    "reservations": ["res-77aa", "res-88bb"],
    "statement": {
        "epsilon": 1.25,
        "delta": 1e-06,
        "adjacency": "add_or_remove_one_unit",
        "unit": {"unit": "person", "column": "patient", "rows": 5},
        "attacker": [
            {"false_positive_rate": 0.001, "true_positive_rate_at_most": 0.0032},
            {"false_positive_rate": 0.01, "true_positive_rate_at_most": 0.0321},
        ],
        "trust_model": "central",
        "terms": "NIST SP 800-226",
        "membership_advantage_at_most": 0.1357,
        "prior_knowledge": [
            {
                "prior": 0.1,
                "posterior": [
                    {"at_most": 0.2468, "except_with_probability": 0.001},
                    {"at_most": 0.3579, "except_with_probability": 2e-06},
                ],
                "accused_who_took_part": [
                    {"false_positive_rate": 0.001, "share_at_most": 0.2622},
                    {"false_positive_rate": 0.01, "share_at_most": 0.2629},
                ],
            }
        ],
        "declared_public": [
            {
                "name": name,
                "fact": "integer, bounds declared",
                "source": "code book",
                "attested_by": "A. Steward",
            }
            for name in ("age", "weight")
        ],
        "so_far": {
            "account": "clinic-2026",
            "releases": 4,
            "charges": 7,
            "enforced": {"epsilon": 2.0625, "delta": 1.7e-06},
            "budget": {"epsilon": 3.5, "delta": 4e-06},
            "declared": [
                {
                    "epsilon": 0.4375,
                    "delta": 3e-07,
                    "source": "the 2019 survey",
                    "by": "B. Clerk",
                    "enforced": False,
                }
            ],
            "attacker": [{"false_positive_rate": 0.01, "true_positive_rate_at_most": 0.1119}],
        },
        "oversight": {"Prepared by": "ada", "Approved by": "grace", "Expiry": "2027-01-31"},
        "sentences": ["The release is (1.25, 1e-06)-differentially private.", "At most 3.21%."],
        "not_covered": ["Side channels of the machine.", "Other accounts."],
    },
    "account_spent": {
        "epsilon": 2.0625,
        "delta": 1.7e-06,
        "budget_epsilon": 3.5,
        "budget_delta": 4e-06,
    },
    "steps": [
        {"step": "discover", "categories": 3, "ranges": 2, "noise_sd": [33.1]},
        {"step": "measure", "marginals": 17, "noise_sd": [20.5]},
        {"step": "select", "rounds": 13, "epsilon_each": 0.0525},
        {"step": "divide", "answers": 1234, "noise_sd": [6.125]},
        {"step": "train", "rate": 0.05, "steps": 600, "noise_multiplier": 4.92},
        {"step": "audit", "statistics": 6, "marginals": 91, "noise_sd": [8.15, 214.6]},
    ],
    "discovery": {
        "epsilon": 0.3117,
        "delta": 1e-06,
        "noise_sd": [11.25, 13.75],
        "shown_from": [57, 142],
        "columns": [
            {
                "name": "town",
                "size": 43,
                "categories": [*(f"town {i}" for i in range(42)), "other"],
                "lower": None,
                "upper": None,
            },
            {"name": "rent", "size": 37, "categories": None, "lower": 200, "upper": 4999},
        ],
        "sentence": "by itself the discovery is (0.312, 1e-06)-differentially private.",
    },
    "columns": [
        {
            "name": "age",
            "type": "integer",
            "declared": "bounds declared",
            "size": 111,
            "source": "code book",
            "attested_by": "A. Steward",
        },
        {
            "name": "town",
            "type": "open",
            "declared": "discovered (paid)",
            "size": 43,
            "source": None,
            "attested_by": None,
        },
    ],
    "rows": {"estimated": 48838.4, "released": 30123},
    "fidelity": {
        "mean_tvd": 0.0341,
        "sd": 0.0021,
        "marginals": 92,
        "sentence": "over 92 pairs the tables differ in 3.4%.",
    },
    "utility": {
        "target": "outcome",
        "accuracy": 0.8231,
        "baseline": 0.7607,
        "sd": 0.0078,
        "sentence": "a classifier is right in 82.3%.",
    },
    "verdict": {
        "outcome": "review",
        "sentence": "Review: distance ratio found an excess.",
        "findings": [
            {
                "name": "exact match",
                "outcome": "not detected",
                "rate_in": 0.0202,
                "rate_out": 0.0185,
                "excess": 0.0017,
                "excess_low": -0.0088,
                "excess_high": 0.0123,
                "p_value": 0.3779,
                "adjusted_p_value": 0.7559,
                "smallest_detectable": 0.0178,
                "sentence": "Exact match: an excess of 0.17 points.",
            },
            {
                "name": "distance ratio",
                "outcome": "review",
                "rate_in": 0.0444,
                "rate_out": 0.0111,
                "excess": 0.0333,
                "excess_low": 0.0222,
                "excess_high": 0.0555,
                "p_value": 0.0161,
                "adjusted_p_value": 0.0323,
                "smallest_detectable": 0.0163,
                "sentence": "Distance ratio: an excess of 3.33 points.",
            },
        ],
    },
}


def sample_facts(**changes: Any) -> dict[str, Any]:
    """Return complete facts, some replaced."""
    return {**copy.deepcopy(_FACTS), **changes}


def without(data: Any, path: tuple[str, ...]) -> Any:
    """Return a copy of nested data without the value at a path."""
    data = copy.deepcopy(data)
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return data


def paths(data: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the path of every value in nested mappings."""
    found = []
    if isinstance(data, dict):
        for key, value in data.items():
            found += [(*before, key), *paths(value, (*before, key))]
    return found


class Page(HTMLParser):
    """What a browser takes from a page: its elements, attributes and visible text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(source)
        self.close()
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that closes itself."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Note an end that nothing began."""
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.unbalanced.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        """Keep text, but no style."""
        if "style" not in self._open:
            self._text.append(data)

    @property
    def text(self) -> str:
        """The text, with every run of space as one space."""
        return " ".join(" ".join(self._text).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def faults(page: Page) -> list[str]:
    """Return what makes a page unsound, unsafe to open, or hard to read aloud."""
    found = [f"unbalanced {tag}" for tag in page.unbalanced]
    found += [f"two elements with id {each}" for each in set(page.ids) if page.ids.count(each) > 1]
    for tag, attributes in page.elements:
        if tag in ("script", "iframe", "object", "embed", "link", "img", "form", "b"):
            found.append(f"element {tag}")
        for key, value in attributes.items():
            if key.startswith("on") or key in ("href", "src", "srcset", "action", "xlink:href"):
                found.append(f"attribute {key}={value}")
            if key == "aria-labelledby" and value not in page.ids:
                found.append(f"label {value} is nowhere")
    for attributes in page.all("svg"):
        if attributes.get("role") != "img" or not attributes.get("aria-label"):
            found.append("a drawing without a name")
    if len(page.all("table")) != len(page.all("caption")):
        found.append("a table without a caption")
    if len(page.all("h1")) != 1:
        found.append("not one main heading")
    lowered = page.source.lower()
    found += [
        f"mentions {word}" for word in ("http:", "https:", "url(", "@import") if word in lowered
    ]
    return found
