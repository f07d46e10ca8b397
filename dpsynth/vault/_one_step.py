"""Answers that need no plan: each is a block of one step."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dpsynth.domain import Clique
from dpsynth.vault._block import Block
from dpsynth.vault._choose import Judged
from dpsynth.vault._execution import Coarse
from dpsynth.vault._plan import Audit, Choose, Measure, Measurement, Select, Step, Train
from dpsynth.vault._statistics import Audited, Statistic
from dpsynth_accounting.budget import Number

if TYPE_CHECKING:
    from dpsynth.vault._train import Learner


class OneStep(abc.ABC):
    """The steps of a block as methods: each reserves, asks once and commits."""

    @abc.abstractmethod
    def reserve(
        self,
        steps: Sequence[Step],
        *,
        epsilon: Number,
        delta: Number | None = None,
        label: str,
        by: str | None = None,
    ) -> AbstractContextManager[Block]:
        """Charge the account for a plan, then let it be carried out."""

    def measure(
        self,
        cliques: Sequence[Clique],
        *,
        epsilon: Number,
        delta: Number | None = None,
        coarse: Coarse | None = None,
    ) -> list[Measurement]:
        """Return noisy marginals, as a block of one step; see :meth:`Block.measure`.

        Charges: epsilon and delta.
        """
        steps = (Measure(len(cliques), 1.0),)
        with self.reserve(steps, epsilon=epsilon, delta=delta, label="measure") as block:
            return block.measure(cliques, coarse)

    def select(
        self,
        candidates: Mapping[Clique, NDArray[np.int64]],
        eligible: Callable[[tuple[Clique, ...]], Collection[Clique]],
        *,
        rounds: int,
        epsilon: Number,
        delta: Number | None = None,
        coarse: Coarse | None = None,
    ) -> tuple[Clique, ...]:
        """Choose marginals a model answers badly, as a block of one step.

        Charges: epsilon and delta; see :meth:`Block.select`.
        """
        steps = (Select(rounds, 1.0),)
        with self.reserve(steps, epsilon=epsilon, delta=delta, label="select") as block:
            return block.select(candidates, eligible, coarse)

    def train(
        self,
        learner: Learner,
        *,
        rate: float,
        steps: int,
        clip: float,
        rows: float,
        epsilon: Number,
        delta: Number | None = None,
    ) -> None:
        """Train by DP-SGD, as a block of one step; see :meth:`Block.train`.

        Charges: epsilon and delta.
        """
        plan = (Train(rate, steps, 1.0),)
        with self.reserve(plan, epsilon=epsilon, delta=delta, label="train") as block:
            block.train(learner, clip=clip, rows=rows)

    def audit(
        self,
        statistics: Sequence[Statistic],
        answers: Mapping[Clique, NDArray[np.int64]],
        *,
        about: str,
        epsilon: Number,
        delta: Number | None = None,
        coarse: Coarse | None = None,
    ) -> Audited:
        """Attack a finished table, as a block of one step; see :meth:`Block.audit`.

        Charges: epsilon and delta.
        """
        steps = (Audit(len(statistics), len(answers), 1.0),)
        with self.reserve(steps, epsilon=epsilon, delta=delta, label="audit") as block:
            return block.audit(statistics, answers, about=about, coarse=coarse)

    def choose(
        self,
        tables: Sequence[Judged],
        *,
        epsilon: Number,
        delta: Number | None = None,
        coarse: Coarse | None = None,
        by: str | None = None,
    ) -> int:
        """Choose one of several finished tables, as a block of one step; see :meth:`Block.choose`.

        Charges: epsilon and delta.
        """
        marginals = len(tables[0].answers) if tables else 0
        steps = (Choose(len(tables), marginals, 1.0),)
        with self.reserve(steps, epsilon=epsilon, delta=delta, label="choose", by=by) as block:
            return block.choose(tables, coarse)
