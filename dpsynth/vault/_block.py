"""A block: a plan that has been paid for, and what each of its steps answers."""

from __future__ import annotations

import itertools
import json
import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique, Domain, resolve
from dpsynth.vault import _choose, _noise
from dpsynth.vault._bound import AUDIT_IN, HELD_OUT
from dpsynth.vault._choose import Judged
from dpsynth.vault._discover import Discovery
from dpsynth.vault._divide import Dividing
from dpsynth.vault._execution import Coarse, Execution, hashed
from dpsynth.vault._plan import (
    Audit,
    Choose,
    Discover,
    Divide,
    Measure,
    Measurement,
    Select,
    Train,
    Tune,
    epsilon_of,
    leaves,
    noise_of,
)
from dpsynth.vault._statistics import Audited, Counted, Statistic, units_over
from dpsynth_accounting import (
    DiscreteGaussian,
    GaussianBlock,
    SubsampledGaussian,
    canonical,
    digest,
)

if TYPE_CHECKING:
    from dpsynth.vault._train import Learner
    from dpsynth.vault._tune import Candidate, Tuned

_STATES = 10  # of a training are stored
_LOST = b""  # in the place of the state after a part of which nothing was stored

_T = TypeVar("_T")


class Block(Execution):
    """A paid plan and the steps it answers; made by :meth:`Vault.reserve`, used once, in order."""

    def discover(self) -> Domain:
        """Find the categories and ranges that the schema leaves open, and fix the domain.

        Charges: what the plan's Discover step says; the categories shown also take delta.
        """
        index, step, event = self._expect(Discover)
        schema = self._vault.schema
        request = digest({"discover": schema.only(schema.undeclared).to_json()})
        found = Discovery(schema)
        if (len(found.shown), len(found.ranges)) != (step.categories, step.ranges):
            raise self._refused("A discovery was to answer for other columns than were declared.")
        found.run(
            event,
            k=self.unit.rows,
            kept=self._vault._kept,
            answer=lambda part, draw: self._answer(index, part, request, draw),
            stream=self._vault.stream,
        )
        domain = resolve(schema, categories=found.shown, bounds=found.bounds(), bins=found.bins())
        self._vault._settle(domain)
        return self.domain

    def measure(self, cliques: Sequence[Clique], coarse: Coarse | None = None) -> list[Measurement]:
        """Return noisy counts of marginals: exact counts plus discrete Gaussian noise.

        Args:
            cliques: As many as the plan's next Measure step declares.
            coarse: For some columns, a public map from code to coarser code; the axes of those
                columns are then the coarse codes.

        Charges: the plan's next Measure step.
        """
        index, step, event = self._expect(Measure)
        if len(cliques) != step.marginals:
            raise self._refused("A step was to measure another number of marginals than declared.")
        shapes = [self._shape(clique, coarse) for clique in cliques]
        cells = sum(math.prod(shape) for shape in shapes)
        self._draw_samples(cells)
        sigma2 = noise_of(event)
        request = self._request(measure=[list(c) for c in cliques], coarse=coarse)
        stream = self._vault.stream

        def draw() -> bytes:
            parts = [
                self._count(clique, shape, coarse).ravel()
                for clique, shape in zip(cliques, shapes, strict=True)
            ]
            exact = np.concatenate(parts)
            noisy = exact + _noise.discrete_gaussian(sigma2, exact.shape, stream)
            return zlib.compress(noisy.astype("<i8").tobytes(), 1)

        stored = zlib.decompress(self._answer(index, 0, request, draw))
        noisy = np.frombuffer(stored, dtype="<i8").astype(np.int64)
        ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
        return [
            Measurement(clique, values.reshape(shape), math.sqrt(float(sigma2)))
            for clique, shape, values in zip(cliques, shapes, np.split(noisy, ends), strict=True)
        ]

    def select(
        self,
        candidates: Mapping[Clique, NDArray[np.int64]],
        eligible: Callable[[tuple[Clique, ...]], Collection[Clique]],
        coarse: Coarse | None = None,
    ) -> tuple[Clique, ...]:
        """Choose marginals that a model answers badly, by the exponential mechanism.

        The score of a candidate is the L1 distance between its exact counts and the model's
        integers; one unit moves each score by at most its number of rows.

        Args:
            candidates: The model's answer to each candidate marginal, rounded to integers.
            eligible: Which candidates a round may choose from, given those chosen before.
            coarse: As in :meth:`measure`.

        Charges: the plan's next Select step, one choice a round.
        """
        index, step, event = self._expect(Select)
        self._require_counts(candidates, coarse)
        request = self._request(select=True, coarse=coarse, candidates=candidates)
        epsilon, k, stream = epsilon_of(event), self.unit.rows, self._vault.stream
        scores: dict[Clique, int] = {}

        def draw(open_: Sequence[Clique]) -> bytes:
            if not scores:
                scores.update(self._distances(candidates, coarse))
            values = np.array([scores[clique] for clique in open_], dtype=np.int64)
            return canonical(list(open_[_noise.exponential(values, epsilon, k, stream)]))

        chosen: tuple[Clique, ...] = ()
        for part in range(step.rounds):
            open_ = sorted(set(eligible(chosen)))
            if not open_ or any(clique not in candidates for clique in open_):
                raise self._refused("A round of selection had no candidate, or an undeclared one.")
            answer = self._answer(index, part, request, partial(draw, open_))
            chosen = (*chosen, tuple(json.loads(answer)))
        return chosen

    def divide(self) -> Dividing:
        """Begin a step whose precision is divided as its answers suggest.

        Charges: the plan's next Divide step, whatever is asked of it.
        """
        index, _, event = self._expect(Divide)
        if not isinstance(event, GaussianBlock):
            raise TypeError("a Divide step is a Gaussian block")
        return Dividing(self, index, event)

    def train(self, learner: Learner, *, clip: float, rows: float) -> None:
        """Train by DP-SGD: the plan's next Train step, all of it.

        Each step samples units, clips the sum of the gradients of a unit's rows, adds noise, and
        gives the learner the noisy mean. The learner is tried on made-up records first. The
        steps are taken in ten parts, and the learner's state is stored after each. The learner
        sees gradients before that, so a part that was interrupted, by whatever, is lost: a resumed
        block goes on with the next part from the last state that was stored. The steps of the lost
        one stay paid and are never taken again.

        Args:
            learner: What is trained; see :class:`dpsynth.vault._train.Learner`.
            clip: Greatest L2 norm of a unit's gradient.
            rows: A public or noisy number of rows, for the mean: what a sum is divided by is
                ``rate * rows``, whatever a batch holds.

        Charges: the plan's next Train step.

        Raises:
            InvalidRequest: The learner cannot be trained privately; no row was read for it.
            LedgerError: Another run of this plan went on meanwhile. What this one drew since its
                last stored state is lost, and no part is drawn twice.
        """
        index, step, event = self._expect(Train)
        if not isinstance(event, SubsampledGaussian):
            raise TypeError("a Train step is a subsampled Gaussian")
        from dpsynth.vault import _train

        shapes = _train.shapes(learner)
        steps = _train.Steps(event.rate, event.sigma, clip, float(event.rate) * rows, shapes)
        _train.require(learner, steps, self.domain, self.unit.rows)
        # Twice: a sample's distance from its law, and from continuous noise that was rounded.
        self._draw_samples(2 * step.steps * sum(math.prod(shape) for shape in shapes))
        request = self._request(coarse=None, train=shapes, clip=clip, rows=rows)
        ends = [step.steps * part // _STATES for part in range(_STATES + 1)]
        for part, (start, end) in enumerate(itertools.pairwise(ends)):
            drawn: list[int] = []

            def told(done: int, norm: float, start: int = start) -> None:
                self.notice(f"training, noisy gradient {norm:.2g}", start + done, step.steps)

            def draw(
                count: int = end - start,
                drawn: list[int] = drawn,
                told: Callable[[int, float], None] = told,
            ) -> bytes:
                records, units = self._vault._records()
                drawn.append(count)
                return _train.run(learner, records, units, steps, count, self._vault.stream, told)

            state = self._answer(index, part, request, draw, lost=_LOST)
            if not drawn:
                if state != _LOST:
                    _train.resume(learner, state)
                self.notice("training, as stored", end, step.steps)

    def tune(self, candidates: Mapping[str, Candidate[_T]]) -> Tuned[_T]:
        """Run candidates a secret number of times and return the run of the greatest score.

        A run is a candidate drawn uniformly, called with a block of its own. The answers of the
        best run are stored, and what is returned is made anew from them; the others, and how many
        they were, are kept nowhere. A run that fails ends the step, as if it had the greatest
        score, which is stored. The candidates saw answers before the best was stored, so a step
        that was interrupted is spent: it is never run again, and the plan is to be reserved anew.

        Args:
            candidates: By name, in the order of the plan's next Tune step. Each is called anew
                for every run of it, must ask the steps declared for it, and returns a score and
                what it made; it must keep, print and log nothing, since no run but the best may be
                seen. The score is to follow from the run's answers, and no name is empty.

        Charges: the plan's next Tune step, however many runs there are.

        Raises:
            InvalidRequest: There are other candidates than were declared, or a score is no number.
            LedgerError: The step began before and was interrupted, or another run is in it.
        """
        from dpsynth.vault import _tune

        index, step, event = self._expect(Tune)
        if len(candidates) != len(step.candidates):
            raise self._refused("A Tune step was to run other candidates than were declared.")
        request = self._request(coarse=None, tune=list(candidates))
        failures: list[Exception] = []
        draw = partial(_tune.select_best, self, step, event, candidates, failures)
        self._tuning = True  # answers beside those of the runs would tell how many there were
        try:
            stored = self._answer(index, 0, request, draw, once=True)
        finally:
            self._tuning = False
        if failures:
            raise failures[0]
        return _tune.replay(self, step, event, candidates, stored)

    def audit(
        self,
        statistics: Sequence[Statistic],
        answers: Mapping[Clique, NDArray[np.int64]],
        *,
        about: str,
        coarse: Coarse | None = None,
    ) -> Audited:
        """Attack a finished table: noisy counts of units over thresholds, and one distance.

        Args:
            statistics: As many as the plan's Audit step declares.
            answers: The table's marginals in rows, as int64; as many as the step declares.
            about: Digest of the table, which names the request.
            coarse: As in :meth:`measure`, for the distance.

        Charges: the plan's next Audit step.
        """
        index, step, event = self._expect(Audit)
        if (len(statistics), len(answers)) != (step.statistics, step.marginals):
            raise self._refused("An audit was to answer more or less than was declared.")
        self._require_counts(answers, coarse)
        least = [float(s.of.threshold) for s in statistics]
        names = [[s.of.name, t, s.first_row] for s, t in zip(statistics, least, strict=True)]
        cliques = [list(clique) for clique in answers]
        request = self._request(audit=about, of=names, cliques=cliques, coarse=coarse)
        self._draw_samples(2 * len(statistics) + 1)
        parts = [leaf for leaf in leaves(event) if isinstance(leaf, DiscreteGaussian)]
        count_noise = parts[0].sigma2 if statistics else Fraction(1)
        distance_noise = parts[-1].sigma2 if answers else Fraction(1)
        stream = self._vault.stream

        def draw() -> bytes:
            coded = self._vault._coded()
            exact = np.zeros((2, len(statistics)), dtype=np.int64)
            for side, role in enumerate((AUDIT_IN, HELD_OUT)):
                for place, (each, over) in enumerate(zip(statistics, least, strict=True)):
                    records = coded.records(self.domain, role)
                    exact[side, place] = units_over(each, over, *records)
            noisy = exact + _noise.discrete_gaussian(count_noise, exact.shape, stream)
            far = None
            if answers:
                total = sum(self._distances(answers, coarse).values())
                far = total + int(_noise.discrete_gaussian(distance_noise, (1,), stream)[0])
            return canonical({"counts": noisy.tolist(), "distance": far})

        found = json.loads(self._answer(index, 0, request, draw))
        sigma = math.sqrt(float(count_noise))
        counts = tuple(
            Counted(each.of.name, found["counts"][0][i], found["counts"][1][i], sigma)
            for i, each in enumerate(statistics)
        )
        return Audited(counts, found["distance"], math.sqrt(float(distance_noise)))

    def choose(self, tables: Sequence[Judged], coarse: Coarse | None = None) -> int:
        """Return the place of one of several finished tables, chosen by what its rows are like.

        Args:
            tables: As many as the plan's Choose step declares. All are made of paid answers or
                public, and so all of them may be seen: the price is of which one is chosen.
            coarse: As in :meth:`measure`, for distances.

        Charges: the plan's next Choose step, however many tables there are.
        """
        index, step, event = self._expect(Choose)
        if not _choose.fits(step, tables):
            raise self._refused("A choice was to be made among other tables than were declared.")
        for each in tables:
            self._require_counts(each.answers, coarse)
        request = self._request(choose=[_named(each) for each in tables], coarse=coarse)
        draw = _choose.drawing(self, step, event, tables, coarse)
        return int(json.loads(self._answer(index, 0, request, lambda: canonical(draw()))))


def _named(table: Judged) -> list[object]:
    """Return what names a table that a choice judges: its digest, its answers, its attack."""
    answers = [[list(clique), hashed(model)] for clique, model in table.answers.items()]
    attack = table.statistic
    if attack is None:
        return [table.about, answers]
    return [table.about, answers, attack.of.name, float(attack.of.threshold), attack.first_row]
