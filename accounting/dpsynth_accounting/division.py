"""Dividing a fixed total of Gaussian noise adaptively: the run-time side of a GaussianBlock."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from dpsynth_accounting._bounds import pure_mu, pure_mu_inverse
from dpsynth_accounting._errors import BudgetExceeded, InvalidRequest
from dpsynth_accounting.budget import show
from dpsynth_accounting.curves import SMOOTHING
from dpsynth_accounting.events import DiscreteGaussian, Exponential, GaussianBlock

_GRAIN = 1 << 60  # costs that are not rational by nature are rounded up to a multiple of 1 / this


def cost_of(answer: DiscreteGaussian | Exponential) -> Fraction:
    """Return what an answer takes of a block: the squared mu of a Gaussian one that dominates it.

    Of counts, l2_squared over their variance once smoothed. Of a choice, that of epsilon / 2-DP.
    """
    if isinstance(answer, Exponential):
        mu2 = Fraction(pure_mu(float(answer.epsilon) / 2) ** 2 * (1 + 1e-12))
        return Fraction(math.ceil(mu2 * _GRAIN), _GRAIN)
    return Fraction(answer.l2_squared) / (answer.sigma2 - Fraction(SMOOTHING))


def choice_within(cost: Fraction) -> Exponential:
    """Return a choice that takes ``cost`` of a block, but for a part of 1e-6 at most.

    It may be above, as costs are rounded up: :meth:`Division.take` refuses what exceeds the rest.

    Raises:
        InvalidRequest: The cost is not above 0, or so small that the choice would be blind.
    """
    epsilon = 2 * pure_mu_inverse(math.sqrt(cost)) * (1 - 1e-9) if cost > 0 else 0.0
    if math.floor(epsilon * _GRAIN) < 1:
        raise InvalidRequest(
            f"A choice at a cost of {show(cost) if cost > 0 else 'nothing'} was to be made.",
            "It would be blind.",
            "Give it more of the block's precision.",
        )
    return Exponential(Fraction(math.floor(epsilon * _GRAIN), _GRAIN))


@dataclass
class Division:
    """What is left of a :class:`GaussianBlock` that is being carried out.

    Noise, number and order of the answers may depend on all answers so far; only the totals are
    fixed. The block was charged as a whole, so taking from it charges nothing further. Proof
    (Smith and Thakurta 2022, Theorem 1.1): ``docs/explanation/filters.md``.

    Args:
        block: What was charged.

    >>> division = Division(GaussianBlock(Fraction(1, 50), Fraction(100), 2))
    >>> division.take(DiscreteGaussian(Fraction(203, 2)))
    >>> division.left
    Fraction(1, 100)
    """

    block: GaussianBlock
    left: Fraction = field(init=False)
    shifts_left: int = field(init=False)

    def __post_init__(self) -> None:
        """Start with all of the block."""
        self.left, self.shifts_left = self.block.precision, self.block.shifts

    def take(self, answer: DiscreteGaussian | Exponential) -> None:
        """Take an answer from what is left, before it is drawn.

        Raises:
            InvalidRequest: The answer has less noise than the block's least.
            BudgetExceeded: It takes more than is left of the precision or of the shifts.
        """
        shifts = answer.shifts if isinstance(answer, DiscreteGaussian) else 0
        if isinstance(answer, DiscreteGaussian) and (
            answer.sigma2 < self.block.least_sigma2 or answer.sigma2 <= SMOOTHING
        ):
            raise InvalidRequest(
                f"An answer with sigma2 {show(answer.sigma2)} was to be taken from a block.",
                f"The block was priced for a sigma2 of at least {show(self.block.least_sigma2)}.",
                "Use that much noise.",
            )
        cost = cost_of(answer)
        if cost > self.left or shifts > self.shifts_left:
            raise BudgetExceeded(
                f"An answer of precision {show(cost)} and {shifts} shift(s) was to be "
                "taken from a block.",
                f"It has precision {show(self.left, up=False) if self.left else 0} and "
                f"{self.shifts_left} shift(s) left.",
                "Use more noise, or stop here: what is left of a block is not refunded.",
            )
        self.left -= cost
        self.shifts_left -= shifts
