"""What a model is to answer well: sets of columns, each with its weight.

A workload is a sum of terms, ``Workload.all(2) + 10 * Workload.about("income")``. It is public and
resolved against the names of the columns alone, before anything is charged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dpsynth.domain import Clique
from dpsynth_accounting import InvalidRequest


@dataclass(frozen=True)
class _Term:
    """All sets of ``width`` columns that contain those of ``clique``, each with a weight.

    Of a term of single columns the marginals are ``clique`` alone: ``width`` is its length. Where
    it is ``ranged``, codes of the first column are asked in runs.
    """

    clique: Clique
    width: int
    weight: float
    ranged: bool = False

    def importance(self, names: Sequence[str]) -> dict[str, float]:
        """Total weight of the term's marginals that contain each column."""
        width, given = min(self.width, len(names)), len(self.clique)
        free, wanted = len(names) - given, width - given
        others = math.comb(free - 1, wanted - 1) if wanted > 0 else 0
        return {
            name: self.weight * (math.comb(free, wanted) if name in self.clique else others)
            for name in names
        }

    def covers(self, clique: Clique) -> bool:
        """Whether a marginal of the term holds these columns."""
        return len(set(clique) | set(self.clique)) <= self.width


@dataclass(frozen=True)
class Workload:
    """The marginals that matter, and how much each does.

    Made by :meth:`all`, :meth:`about`, :meth:`of` and :meth:`ranges`, added up, and multiplied by
    weights.

    >>> likely = Workload.all(2) + 5 * Workload.about("income", 2)
    >>> likely.weights([("age", "sex"), ("age", "income")], ["age", "sex", "income"])
    {('age', 'sex'): 0.7368421052631579, ('age', 'income'): 1.0}
    """

    terms: tuple[_Term, ...]

    @classmethod
    def all(cls, width: int = 3) -> Workload:
        """All sets of ``width`` columns, or of all columns where there are fewer.

        Raises:
            InvalidRequest: The width is below 1.
        """
        return cls((_Term((), _checked_width(width, ()), 1.0),))

    @classmethod
    def about(cls, column: str, width: int = 3) -> Workload:
        """All sets of ``width`` columns that contain one: what a model that predicts it learns.

        Raises:
            InvalidRequest: The width is below 1.
        """
        return cls((_Term((column,), _checked_width(width, (column,)), 1.0),))

    @classmethod
    def of(cls, *cliques: Iterable[str]) -> Workload:
        """The marginals over these sets of columns, and no others.

        Raises:
            InvalidRequest: There is none, or one names no column, or one twice.
        """
        sets = tuple(tuple(clique) for clique in cliques)
        if not sets or any(not each or len(set(each)) != len(each) for each in sets):
            raise InvalidRequest(
                f"A workload of the marginals {sets} was asked for.",
                "Each is over one column or more, none of them twice.",
                "Name the sets of columns that you will look at.",
            )
        return cls(tuple(_Term(each, len(each), 1.0) for each in sets))

    @classmethod
    def ranges(cls, column: str, *others: str) -> Workload:
        """Counts of ranges of a column in order, prefixes too, in each cell of the others if any.

        A long range then has the noise of few counts: ``CliqueTree`` counts the column in blocks of
        16 codes, of 256 and so on; rounds measure it in coarse codes. A column without order is
        measured as any other.

        Raises:
            InvalidRequest: A column is named twice.
        """
        (term,) = cls.of((column, *others)).terms
        return cls((replace(term, ranged=True),))

    @classmethod
    def parse(cls, text: str) -> Workload:
        """Read what a recipe says: terms joined by ``+``, each with its weight in front if any.

        A term is ``all:WIDTH``, ``about:COLUMN:WIDTH``, ``of:COLUMN,COLUMN`` or
        ``ranges:COLUMN,COLUMN``; names that have one of ``+*:,`` in them can only be used from
        Python.

        Raises:
            InvalidRequest: A term is none of these.

        >>> Workload.parse("all:2 + 5 * about:income:2") == (
        ...     Workload.all(2) + 5 * Workload.about("income", 2))
        True
        """
        found = [_parsed(term.strip()) for term in text.split("+")]
        return cls(tuple(term for each in found for term in each.terms))

    def __add__(self, other: Workload) -> Workload:
        """Both: a marginal of both matters as much as its weights together."""
        return Workload(self.terms + other.terms)

    def __rmul__(self, weight: float) -> Workload:
        """The same with every weight multiplied.

        Raises:
            InvalidRequest: The weight is not a positive number.
        """
        if not (math.isfinite(weight) and weight > 0):
            raise InvalidRequest(
                f"A workload was to have the weight {weight}.",
                "A weight is a positive number.",
                "Leave out what does not matter.",
            )
        return Workload(tuple(replace(term, weight=term.weight * weight) for term in self.terms))

    def require(self, names: Sequence[str]) -> None:
        """Refuse a workload over columns that are not modelled.

        Raises:
            InvalidRequest: It names such a column.
        """
        named = {name for term in self.terms for name in term.clique}
        if unknown := sorted(named - set(names)):
            raise InvalidRequest(
                f"A workload over the column(s) {', '.join(unknown)} was asked for.",
                f"The modelled columns are {', '.join(names)}.",
                "Name modelled columns; one that is dropped or a key is not.",
            )

    def ranged(self, names: Sequence[str]) -> list[str]:
        """The columns that are asked in ranges, in the order of ``names``."""
        asked = {term.clique[0] for term in self.terms if term.ranged}
        return [name for name in names if name in asked]

    def covers(self, clique: Clique) -> bool:
        """Whether the columns lie together in a marginal that matters."""
        return any(term.covers(clique) for term in self.terms)

    def candidates(self, names: Sequence[str], width: int) -> list[Clique]:
        """The sets of columns whose measuring can help, in the order of the columns.

        They are the subsets of marginals that matter: those named by themselves whole, of the
        others as many columns as ``width``.
        """
        place = {name: i for i, name in enumerate(names)}
        found: set[Clique] = set()
        for term in self.terms:
            whole = term.width == len(term.clique)
            among = sorted(term.clique, key=place.__getitem__) if whole else names
            for size in range(1, min(term.width, term.width if whole else width) + 1):
                found.update(c for c in itertools.combinations(among, size) if term.covers(c))
        return sorted(found, key=lambda clique: (len(clique), [place[name] for name in clique]))

    def weights(self, candidates: Iterable[Clique], names: Sequence[str]) -> Mapping[Clique, float]:
        """How much measuring each candidate does for the workload, the greatest being 1.

        The weight of r is the sum over marginals s of weight(s) * |r & s| / |r|: that of McKenna,
        Mullins, Sheldon, Miklau (2022), "AIM", section 4.2, for each of its columns, so that a
        larger candidate is not worth more for its size alone.

        Args:
            candidates: Sets of columns.
            names: All modelled columns.
        """
        importance = dict.fromkeys(names, 0.0)
        for term in self.terms:
            for name, value in term.importance(names).items():
                importance[name] += value
        found = {c: math.fsum(importance[name] for name in c) / len(c) for c in candidates}
        most = max(found.values(), default=1.0)
        return {clique: value / most for clique, value in found.items()}


def _checked_width(width: int, clique: Clique) -> int:
    if width < max(len(clique), 1):
        raise InvalidRequest(
            f"A workload of marginals over {width} columns was asked for.",
            "A marginal is over one column or more.",
            "Use 2 for pairs, 3 for triples.",
        )
    return width


def _parsed(term: str) -> Workload:
    weight, _, body = term.rpartition("*")
    kind, _, words = (word.strip() for word in body.partition(":"))
    try:
        match kind:
            case "all":
                made = Workload.all(int(words))
            case "about":
                column, _, width = words.rpartition(":")
                made = Workload.about(column.strip(), int(width))
            case "of":
                made = Workload.of(name.strip() for name in words.split(","))
            case "ranges":
                made = Workload.ranges(*(name.strip() for name in words.split(",")))
            case _:
                raise ValueError
        return float(weight) * made if weight else made
    except InvalidRequest:
        raise
    except ValueError:
        raise InvalidRequest(
            f"A workload with the term {term!r} was asked for.",
            "A term is all:WIDTH, about:COLUMN:WIDTH, of:COLUMN,COLUMN or ranges:COLUMN,COLUMN, "
            "after WEIGHT * if any.",
            "For pairs, and all triples with a target, write 'all:2 + about:TARGET:3'.",
        ) from None


PAIRS = Workload.all(2)
TRIPLES = Workload.all(3)
