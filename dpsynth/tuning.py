"""Choosing hyper-parameters privately: several synthesizers tried, the best fit kept, all paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dpsynth._audit import answers_of, as_array, coarse_maps
from dpsynth.evaluation import pair_cliques
from dpsynth.synthesizer import Model, Synthesizer, named
from dpsynth.vault import Audit, Block, Step, Tune, Vault, scaled
from dpsynth_accounting import InvalidRequest
from dpsynth_accounting.budget import Number

_MOST_RUNS = 1000


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Tries synthesizers, or one with several hyper-parameters, and keeps the best fit.

    A secret number of fits, geometric of mean ``runs``, each of a candidate drawn at random and
    scored by the noisy distance between its marginals of two columns and the table's. Nothing of
    the other fits is shown or stored. The whole costs more than one fit of the same noise and far
    less than all of them (Papernot and Steinke 2022): of five runs each gets about seven tenths of
    the epsilon that a fit would have by itself. It pays where candidates differ by more than that;
    the defaults of the synthesizers are meant to need no tuning.

    Attributes:
        candidates: The synthesizers; in a recipe, tables of ``name`` and parameters.
        runs: Mean number of fits. Candidates are drawn with replacement, so give at least as many
            as there are candidates.
        score: Share of a run's precision for its score, above 0 and below 1.

    Raises:
        InvalidRequest: A parameter is out of its range.
    """

    candidates: Sequence[Synthesizer]
    runs: int = 5
    score: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what makes no plan, and make candidates of what a recipe names."""
        made = tuple(
            _of_recipe(each) if isinstance(each, Mapping) else each for each in self.candidates
        )
        object.__setattr__(self, "candidates", made)
        counted = isinstance(self.runs, int) and not isinstance(self.runs, bool)
        if not (made and counted and 1 <= self.runs <= _MOST_RUNS and 0 < self.score < 1):
            raise InvalidRequest(
                f"A tuning was asked for of {len(made)} candidates, in {self.runs!r} runs, with a "
                f"share of {self.score!r} for the scores.",
                f"It has at least one candidate, 1 to {_MOST_RUNS} runs on average and a share "
                "between 0 and 1.",
                "Leave all but the candidates at their defaults.",
            )

    @property
    def name(self) -> str:
        """The mechanism's name, as recipes and ledgers write it."""
        return "tuning"

    def steps(self, columns: Sequence[str]) -> tuple[Step, ...]:
        """Return what a fit asks of the vault: runs, each of a candidate's steps and a score."""
        distance = Audit(0, len(pair_cliques(columns)), self.score)
        runs = (
            (*scaled(each.steps(columns), round(1 - self.score, 12)), distance)
            for each in self.candidates
        )
        return (Tune(tuple(runs), self.runs, 1.0),)

    def run(self, block: Block) -> Model:
        """Ask the declared steps of a block and return the best fit's model."""
        seed = int(str(block.meta.get("sampling_seed", 0)))
        names = [f"{i}: {each!r}" for i, each in enumerate(self.candidates)]
        return block.tune(
            {
                name: partial(_fitted, each, seed)
                for name, each in zip(names, self.candidates, strict=True)
            }
        ).made

    def fit(self, vault: Vault, *, epsilon: Number, delta: Number | None = None) -> Model:
        """Fit a model to a vault's rows. Charges: epsilon and delta, before a row is read."""
        return vault.fit(self, epsilon=epsilon, delta=delta)


def _of_recipe(facts: Mapping[str, Any]) -> Synthesizer:
    parameters = dict(facts)
    return named(str(parameters.pop("name", "")), parameters)


def _fitted(candidate: Synthesizer, seed: int, block: Block) -> tuple[float, Model]:
    """Carry out one run: a fit, and minus the noisy distance of its pairs from the table's."""
    model = candidate.run(block)
    domain, rows = block.domain, max(round(model.rows), 1)
    rng = np.random.default_rng(seed)  # the same for all: what differs is the model
    codes = as_array(domain, model.sample_codes(rows, rng=rng))
    coarse, cliques = coarse_maps(domain), pair_cliques(domain.names)
    answers = answers_of(domain, codes, coarse, cliques, rows)
    found = block.audit((), answers, about="score of a run", coarse=coarse)
    return -float(found.distance or 0) / (2 * rows * len(cliques)), model
