"""Choosing among finished tables privately, and a gate on what the paid audit found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from dpsynth._audit import ATTACKS, answers_of, as_array, attack_of, coarse_maps, coded, digest_of
from dpsynth.domain import Domain
from dpsynth.evaluation import pair_cliques
from dpsynth.synthesizer import Model
from dpsynth.vault import Block, Choose, Judged, Statistic, Vault
from dpsynth_accounting import InvalidRequest
from dpsynth_accounting.budget import Number

CRITERIA = ("distance", *ATTACKS)
"""By what tables may be compared with private rows, for a price."""

Drawn = tuple[Model, pd.DataFrame]
"""A table with the model that it was drawn from."""


def choose(
    vault: Vault,
    candidates: Sequence[Drawn],
    *,
    epsilon: Number,
    delta: Number | None = None,
    by: str = "distance",
    seed: int = 0,
    prepared_by: str | None = None,
) -> int:
    """Return the place of the best of several tables, chosen privately by private rows.

    The exponential mechanism (McSherry and Talwar 2007): one price, however many tables there are.
    No exact result is read, so it is no attempt at a release. What wins is likely near the best,
    not certainly: see ``docs/explanation/attempts.md``.

    Args:
        vault: Holds the rows.
        candidates: Tables with their models: samples of one, or of several, each fitted to the
            vault and paid for.
        epsilon: What the choice spends.
        delta: By default the account's delta times epsilon's share.
        by: ``distance``, the mean over pairs of columns; or an attack, one of
            ``exact match``, ``nearest distance`` and ``distance ratio``: how many more units it
            finds among those that were in than among those held out.
        seed: Of the public choices of the attacks; no privacy rests on it.
        prepared_by: Who prepares it; needed where the account's policy names preparers.

    Charges: epsilon and delta, for one Choose step.

    Raises:
        InvalidRequest: There is no table, a column is missing, the criterion is unknown, or no
            unit is audited for an attack.
        BudgetExceeded: The account cannot pay. No row was read.
    """
    require_criterion(by, vault.audit_share, len(candidates))
    tables, coarse = judged(vault.domain, candidates, by, seed)
    return vault.choose(tables, epsilon=epsilon, delta=delta, coarse=coarse, by=prepared_by)


def require_criterion(by: str, audit_share: float, tables: int) -> None:
    """Refuse a choice that cannot be made, before anything is charged.

    Raises:
        InvalidRequest: The criterion is unknown, no unit is audited, or there is no table.
    """
    if by not in CRITERIA or tables < 1 or (by != "distance" and audit_share == 0):
        raise InvalidRequest(
            f"One of {tables} tables was to be chosen by {by!r}.",
            f"There is at least one, and they are compared by one of {', '.join(CRITERIA)}; by an "
            "attack only if units are audited.",
            "Choose by 'distance', or set the audit share above 0.",
        )


@dataclass(frozen=True)
class Choice:
    """What a run chooses its table from: samples of its model, in the run's own plan.

    Attributes:
        samples: How many are drawn.
        by: As for :func:`choose`.
    """

    samples: int
    by: str = "distance"

    def step(self, columns: Sequence[str], weight: float) -> Choose:
        """Return what the choice asks of the vault, from public facts alone."""
        pairs = len(pair_cliques(columns)) if self.by == "distance" else 0
        return Choose(self.samples, pairs, weight)

    def made(self, block: Block, model: Model, rows: int, seed: int) -> pd.DataFrame:
        """Draw the samples and return the one that the block's next step chooses."""
        tables = [
            model.sample(rows, rng=np.random.default_rng((seed, i))) for i in range(self.samples)
        ]
        drawn = [(model, table) for table in tables]
        return tables[block.choose(*judged(block.domain, drawn, self.by, seed))]


def judged(
    domain: Domain, candidates: Sequence[Drawn], by: str, seed: int
) -> tuple[list[Judged], Mapping[str, Any]]:
    """Return the tables as a choice judges them, and the coarse codes of their distances."""
    coarse, cliques = coarse_maps(domain), pair_cliques(domain.names)
    found = []
    for model, table in candidates:
        codes = coded(domain, table)
        about = digest_of(codes)
        if by == "distance":
            rows = max(round(model.rows), 1)
            found.append(Judged(about, answers_of(domain, codes, coarse, cliques, rows)))
        else:
            rng = np.random.default_rng(seed)
            fresh = as_array(domain, model.sample_codes(max(len(table), 1), rng=rng))
            attack = attack_of(by, domain, codes, fresh, rng)
            found.append(Judged(about, statistic=Statistic(attack)))
    return found, coarse if by == "distance" else {}


@dataclass(frozen=True)
class Gate:
    """Limits on what the paid audit finds; beyond them nothing is released.

    It looks at noisy figures that were paid for, so it costs nothing more, and whether there is a
    release tells nothing more. Fix it beforehand: it stands with the charge in the ledger.

    Attributes:
        excess: Greatest noisy excess of any attack, as a share of the audited units.
        distance: Greatest noisy mean distance of pairs, from 0 to 1.

    Raises:
        InvalidRequest: A limit is no number between 0 and 1.
    """

    excess: float | None = None
    distance: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that could not hold, or always would."""
        for name, limit in asdict(self).items():
            if limit is not None and not 0 < limit < 1:
                raise InvalidRequest(
                    f"A gate was asked for with {name} = {limit!r}.",
                    "A limit is a share between 0 and 1.",
                    "Leave it out for none.",
                )

    def to_json(self) -> dict[str, float]:
        """Return the limits that are set."""
        return {name: limit for name, limit in asdict(self).items() if limit is not None}

    def against(self, facts: Mapping[str, Any]) -> list[str]:
        """Return what in the public facts of a release stands against it; nothing if it may go.

        A figure that was not measured stands against its limit too.
        """
        found = []
        if self.excess is not None:
            excesses = {
                str(each["name"]): float(each["excess"]) for each in facts["verdict"]["findings"]
            }
            over = [name for name, excess in excesses.items() if excess > self.excess]
            if over or not excesses:
                found.append(
                    f"the noisy excess of {', '.join(over) or 'every attack, not tested,'} is "
                    f"above {self.excess:g}"
                )
        mean = facts["fidelity"]["mean_tvd"]
        if self.distance is not None and (mean is None or mean > self.distance):
            found.append(f"the noisy distance of pairs is above {self.distance:g}")
        return found


OPEN = Gate()
"""No limit: what a recipe without a gate has."""
