"""Events: what a mechanism does to private rows, as small frozen values.

An event is data, not behaviour: it has equality, a canonical JSON form and nothing else. The set is
closed, so every function that prices events is exhaustive. The meaning of an event and of its
fields never changes once released, since ledgers hold them for ever.

All parameters that carry a proof are exact rationals. Adjacency is *add or remove one unit*.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction

from dpsynth_accounting._errors import InvalidRequest


def _rational(*values: object) -> bool:
    """Say whether every value is an exact rational: a float would carry no proof."""
    return all(isinstance(v, int | Fraction) and not isinstance(v, bool) for v in values)


def _whole(*values: object) -> bool:
    return all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _require(condition: bool, asked: str, limit: str, instead: str) -> None:
    if not condition:
        raise InvalidRequest(asked, limit, instead)


def _keep_exact(event: object) -> None:
    """Keep whole numbers as fractions: divided by one another they would become floats."""
    for each in fields(event):  # type: ignore[arg-type]
        if each.type == "Fraction":
            object.__setattr__(event, each.name, Fraction(getattr(event, each.name)))


@dataclass(frozen=True)
class Gaussian:
    """Continuous Gaussian noise on a vector whose L2 sensitivity is ``sensitivity``.

    Attributes:
        sigma: Standard deviation of the noise on each coordinate.
        sensitivity: Greatest L2 change one unit can make.
    """

    sigma: Fraction
    sensitivity: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        """Refuse scales that carry no guarantee."""
        _require(
            _rational(self.sigma, self.sensitivity) and self.sigma > 0 and self.sensitivity > 0,
            "A Gaussian event was asked for with an impossible scale.",
            "Both sigma and sensitivity must be rationals above 0.",
            "Give the noise's standard deviation and the L2 sensitivity.",
        )
        _keep_exact(self)


@dataclass(frozen=True)
class DiscreteGaussian:
    """Independent discrete Gaussian noise N_Z(0, sigma2) on a vector of integers.

    One unit moves at most ``shifts`` coordinates, each by an integer, and the whole vector by at
    most the square root of ``l2_squared`` in L2 norm.

    Attributes:
        sigma2: The parameter sigma squared (Canonne, Kamath, Steinke 2020, Definition 1).
        l2_squared: Square of the L2 sensitivity, an integer since the vectors are.
        shifts: Greatest number of coordinates that one unit can move.
    """

    sigma2: Fraction
    l2_squared: int = 1
    shifts: int = 1

    def __post_init__(self) -> None:
        """Refuse scales that carry no guarantee."""
        _require(
            _rational(self.sigma2)
            and _whole(self.l2_squared, self.shifts)
            and self.sigma2 > 0
            and self.l2_squared >= self.shifts >= 1,
            "A discrete Gaussian event was asked for with impossible parameters.",
            "sigma2 must be a rational above 0, shifts a whole number of at least 1 and "
            "l2_squared one of at least shifts.",
            "An integer shift that is not zero moves its coordinate by at least 1.",
        )
        _keep_exact(self)


@dataclass(frozen=True)
class Laplace:
    """Continuous Laplace noise on one number.

    Attributes:
        scale: Mean absolute value of the noise.
        sensitivity: Greatest change of the number by one unit.
    """

    scale: Fraction
    sensitivity: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        """Refuse scales that carry no guarantee."""
        _require(
            _rational(self.scale, self.sensitivity) and self.scale > 0 and self.sensitivity > 0,
            "A Laplace event was asked for with an impossible scale.",
            "Both scale and sensitivity must be rationals above 0.",
            "Give the noise's mean absolute value and the greatest change of the number.",
        )
        _keep_exact(self)


@dataclass(frozen=True)
class DiscreteLaplace:
    """Discrete Laplace (two-sided geometric) noise on one integer: P(x) ~ exp(-|x| / scale).

    Attributes:
        scale: Inverse of the rate of decay.
        sensitivity: Greatest change of the integer by one unit.
    """

    scale: Fraction
    sensitivity: int = 1

    def __post_init__(self) -> None:
        """Refuse scales that carry no guarantee."""
        _require(
            _rational(self.scale)
            and _whole(self.sensitivity)
            and self.scale > 0
            and self.sensitivity >= 1,
            "A discrete Laplace event was asked for with an impossible scale.",
            "The scale must be a rational above 0 and the sensitivity a whole number above 0.",
            "Give the noise's scale and the greatest change of the integer.",
        )
        _keep_exact(self)


@dataclass(frozen=True)
class SubsampledGaussian:
    """``steps`` Gaussian answers, each on its own Poisson sample: DP-SGD.

    In each step every record joins with probability ``rate``, independently; the sum of the
    joined records' vectors, each of L2 norm at most 1, gets noise of standard deviation ``sigma``.

    Attributes:
        rate: Sampling probability q.
        sigma: Noise multiplier: standard deviation over the clipping norm.
        steps: How many such answers.
        group: Records that one unit brings, each sampled by itself. A unit that is sampled as a
            whole and clipped as a whole is one.
    """

    rate: Fraction
    sigma: Fraction
    steps: int
    group: int = 1

    def __post_init__(self) -> None:
        """Refuse parameters that carry no guarantee."""
        _require(
            _rational(self.rate, self.sigma)
            and _whole(self.steps, self.group)
            and 0 < self.rate <= 1
            and self.sigma > 0
            and self.steps >= 1
            and self.group >= 1,
            "A subsampled Gaussian event was asked for with impossible parameters.",
            "The rate must be in (0, 1], sigma a rational above 0, steps and group at least 1.",
            "Give the sampling probability, the noise multiplier and the number of steps.",
        )
        _keep_exact(self)


@dataclass(frozen=True)
class GaussianBlock:
    """Integer answers whose Gaussian noise is divided adaptively, up to a fixed total; and choices.

    Each answer adds its squared L2 sensitivity over its smoothed variance, sigma2 - 3/2, to what
    was used; a choice by the exponential mechanism adds the squared mu of a Gaussian answer that
    dominates it. A :class:`~dpsynth_accounting.Division` refuses what would take more than is left.

    Attributes:
        precision: Total of l2_squared / (sigma2 - 3/2) over all answers, and of choices' mu^2.
        least_sigma2: No answer's sigma2 is below this; above 3 it has a price in closed form.
        shifts: Greatest number of coordinates that one unit can move, over all answers.
    """

    precision: Fraction
    least_sigma2: Fraction
    shifts: int

    def __post_init__(self) -> None:
        """Refuse parameters that carry no guarantee."""
        _require(
            _rational(self.precision, self.least_sigma2)
            and _whole(self.shifts)
            and self.precision > 0
            and self.least_sigma2 > 0
            and self.shifts >= 1,
            "A Gaussian block was asked for with impossible parameters.",
            "Its precision and least sigma2 must be rationals above 0, its shifts at least 1.",
            "Give the total of l2_squared / (sigma2 - 3/2) and the least sigma2 of any answer.",
        )
        _keep_exact(self)


@dataclass(frozen=True)
class Exponential:
    """A choice by the exponential mechanism, whose log-probabilities have range ``epsilon``.

    Choosing candidate c with probability proportional to exp(epsilon * score(c) / (2 * D)), where
    D bounds the change of any score, is epsilon-bounded-range (Durfee and Rogers 2019, section 3).
    """

    epsilon: Fraction

    def __post_init__(self) -> None:
        """Refuse parameters that carry no guarantee."""
        _require(
            _rational(self.epsilon) and self.epsilon > 0,
            "An exponential-mechanism event was asked for with an impossible epsilon.",
            "Its epsilon must be a rational above 0.",
            "Leave the event out if nothing is selected.",
        )
        _keep_exact(self)


@dataclass(frozen=True)
class ApproxDP:
    """Any mechanism known only to be (epsilon, delta)-differentially private."""

    epsilon: Fraction
    delta: Fraction

    def __post_init__(self) -> None:
        """Refuse parameters that carry no guarantee."""
        _require(
            _rational(self.epsilon, self.delta) and self.epsilon >= 0 and 0 <= self.delta < 1,
            "An (epsilon, delta) event was asked for outside the meaning of the definition.",
            "epsilon must be a rational of at least 0 and delta one in [0, 1).",
            "Give the mechanism's own proved parameters.",
        )
        _keep_exact(self)


@dataclass(frozen=True)
class Concentrated:
    """Any mechanism known only to be rho-zCDP (Bun and Steinke 2016, Definition 1.1)."""

    rho: Fraction

    def __post_init__(self) -> None:
        """Refuse parameters that carry no guarantee."""
        _require(
            _rational(self.rho) and self.rho >= 0,
            "A zCDP event was asked for outside the meaning of the definition.",
            "rho must be a rational of at least 0.",
            "Give the mechanism's own proved rho.",
        )
        _keep_exact(self)


@dataclass(frozen=True)
class Repeat:
    """``event``, ``count`` times, each query free to depend on earlier answers."""

    event: Event
    count: int

    def __post_init__(self) -> None:
        """Refuse a count that is not a natural number."""
        _require(
            _whole(self.count) and self.count >= 1,
            "An event was to be repeated fewer than one time.",
            "The count must be at least 1.",
            "Leave the event out.",
        )


@dataclass(frozen=True)
class Sequence:
    """Events one after another, each query free to depend on earlier answers."""

    events: tuple[Event, ...]


@dataclass(frozen=True)
class Parallel:
    """Events on disjoint parts of the units, split by a key that is a function of each unit alone.

    A unit is in one part, so only one of the events answers about it (McSherry 2009, Theorem 4).
    """

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        """Refuse a split into no parts."""
        _require(
            len(self.events) >= 1,
            "Parallel events were asked for without any.",
            "There must be at least one part.",
            "Leave the event out.",
        )


@dataclass(frozen=True)
class RepeatAndSelect:
    """One of ``events`` run again and again, and only the run of the greatest score shown.

    Which event a run is, a public draw says. After each run the last one is reached with
    probability ``stop``, independently of everything, so their number is geometric of mean
    1 / stop; it stays secret, as all runs but the best do (Liu and Talwar 2019; Papernot and
    Steinke 2022). The score is a function of what the run's event answers.

    Attributes:
        events: What a run may be.
        stop: Probability that a run is the last.
    """

    events: tuple[Event, ...]
    stop: Fraction

    def __post_init__(self) -> None:
        """Refuse parameters that carry no guarantee."""
        _require(
            _rational(self.stop) and 0 < self.stop <= 1 and len(self.events) >= 1,
            "Repeated runs were asked for with impossible parameters.",
            "There is at least one event, and the probability to stop is a rational in (0, 1].",
            "Give the inverse of the mean number of runs.",
        )
        _keep_exact(self)


Event = (
    Gaussian
    | DiscreteGaussian
    | Laplace
    | DiscreteLaplace
    | SubsampledGaussian
    | GaussianBlock
    | Exponential
    | ApproxDP
    | Concentrated
    | Repeat
    | Sequence
    | Parallel
    | RepeatAndSelect
)
"""The closed union of events."""


def flatten(event: Event) -> list[tuple[Event, int]]:
    """Return the leaves of an event with their counts, equal leaves merged, in first-seen order.

    >>> inner = Exponential(Fraction(1, 2))
    >>> flatten(Sequence((Repeat(inner, 3), inner))) == [(inner, 4)]
    True
    """
    counts: dict[Event, int] = {}

    def walk(node: Event, times: int) -> None:
        match node:
            case Repeat(inner, count):
                walk(inner, times * count)
            case Sequence(events):
                for each in events:
                    walk(each, times)
            case _:
                counts[node] = counts.get(node, 0) + times

    walk(event, 1)
    return list(counts.items())
