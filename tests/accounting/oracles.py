"""Slow, obvious, independent prices: nothing here imports the package under test.

Each function says whether it is *exact*, a *lower* bound (an attack that exists) or an *upper* one.
Losses are ln P/Q of an answer drawn from P; delta(e) is the sum of (P - e^e Q) where positive.

* Gaussians: closed form in fifty digits, and quadrature.
* Laplace: sums over which coordinates are clipped, in exact polynomials times exponentials.
* Lattices: convolution of masses, with the tail that was cut reported beside it.
* Poisson-sampled Gaussians: one step by its threshold, many by rounding losses down, and up.

Attacks on choices and on noise that is divided adaptively are in ``adversaries``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr, ndtr

Array = NDArray[np.float64]

# -- Gaussians -------------------------------------------------------------------------------------


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the exact delta of N(mu, 1) against N(0, 1), in fifty digits."""
    with mpmath.workdps(50):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        return float(mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the exact epsilon of N(mu, 1) against N(0, 1), by halving."""
    return falling_root(lambda e: gaussian_delta(mu, e), delta)


def falling_root(function: Callable[[float], float], target: float, top: float = 1.0) -> float:
    """Return where a falling function meets ``target``: from below, to twelve digits."""
    while function(top) > target:
        top *= 2
    low = 0.0
    if function(low) <= target:
        return 0.0
    for _ in range(60):
        middle = (low + top) / 2
        low, top = (middle, top) if function(middle) > target else (low, middle)
    return low


def gaussian_deltas(mu: float, epsilons: Array) -> Array:
    """Return the exact delta at many epsilons, in double precision: for the inner loops below."""
    if mu == 0:
        return np.maximum(0.0, -np.expm1(np.minimum(epsilons, 0.0)))
    second = np.minimum(epsilons + log_ndtr(-mu / 2 - epsilons / mu), 0.0)
    return np.maximum(0.0, ndtr(mu / 2 - epsilons / mu) - np.exp(second))


# -- laws with finitely many losses ----------------------------------------------------------------


@dataclass(frozen=True)
class Finite:
    """Two laws over the same finite set of answers; ``cut`` is the mass of P left out."""

    p: Array
    q: Array
    cut: float = 0.0

    def delta(self, epsilon: float) -> float:
        """Return the exact divergence of what is listed: a lower bound on the whole."""
        return float(np.maximum(self.p - math.exp(epsilon) * self.q, 0.0).sum())

    def delta_above(self, epsilon: float) -> float:
        """Return an upper bound: all that was cut is taken to give everything away."""
        return self.delta(epsilon) + self.cut

    def times(self, other: Finite) -> Finite:
        """Return both answers together."""
        cut = 1 - (1 - self.cut) * (1 - other.cut)
        return Finite(
            np.outer(self.p, other.p).ravel(), np.outer(self.q, other.q).ravel(), max(cut, 0.0)
        )

    def swapped(self) -> Finite:
        """Return the pair the other way round (nothing is said of what was cut)."""
        return Finite(self.q, self.p, self.cut)

    def merged(self) -> Finite:
        """Add up answers of the same loss: the divergence is the same, the list is shorter."""
        with np.errstate(divide="ignore"):
            losses = np.round(np.log(self.p) - np.log(self.q), 10)
        _, at = np.unique(losses, return_inverse=True)
        return Finite(np.bincount(at, self.p), np.bincount(at, self.q), self.cut)

    def often(self, count: int) -> Finite:
        """Return ``count`` independent answers together."""
        total = self
        for _ in range(count - 1):
            total = total.times(self).merged()
        return total


def on_integers(weight: Callable[[Array], Array], shift: int, reach: int) -> Finite:
    """Return noise of that weight on the integers, moved by ``shift`` and not moved."""
    wide = np.arange(-reach - abs(shift), reach + abs(shift) + 1, dtype=float)
    total = float(weight(np.arange(-4.0 * reach, 4.0 * reach + 1)).sum())
    p, q = weight(wide - shift) / total, weight(wide) / total
    return Finite(p, q, max(1 - float(p.sum()), 0.0) + 1e-15)


def discrete_gaussian(sigma2: float, shift: int) -> Finite:
    """Return N_Z(shift, sigma2) against N_Z(0, sigma2), to 12 standard deviations."""
    reach = math.ceil(12 * math.sqrt(sigma2))
    return on_integers(lambda z: np.exp(-z * z / (2 * sigma2)), shift, reach)


def discrete_laplace(scale: float, shift: int) -> Finite:
    """Return two-sided geometric noise moved by ``shift`` against not: its few losses, exactly.

    Answers at or beyond either centre all have the same loss, so the whole tail is one answer.
    """
    decay = math.exp(-1 / scale)
    first = (1 - decay) / (1 + decay)  # mass at the centre
    tail = 1 / (1 + decay)  # mass at or beyond the centre, on one side
    inner = np.arange(1, shift, dtype=float)
    p = np.concatenate([[tail], first * decay ** (shift - inner)[::-1], [tail * decay**shift]])
    q = np.concatenate([[tail * decay**shift], first * decay ** inner[::-1], [tail]])
    return Finite(p, q)


def lattice_epsilon(law: Finite, delta: float) -> float:
    """Return the greatest epsilon that is certainly not enough for ``delta``."""
    return falling_root(law.delta, delta)


# -- Laplace ---------------------------------------------------------------------------------------


def laplace_delta(ratio: float, count: int, epsilon: float) -> float:
    """Return the exact delta of ``count`` Laplace answers of sensitivity / scale = ``ratio``.

    Each loss is +ratio with probability 1/2, -ratio with probability e^-ratio / 2, and between them
    has density e^((l - ratio) / 2) / 4. With i and j answers at the two ends and m between, the sum
    is (i - j) * ratio plus a sum S of m losses, of density e^(S/2) times a spline of degree m - 1:
    the m-fold convolution of the indicator of (-ratio, ratio). All in 60 digits: the spline's terms
    alternate.
    """
    with mpmath.workdps(60):
        r, e = mpmath.mpf(ratio), mpmath.mpf(epsilon)
        total = mpmath.mpf(0)
        for i, j in itertools.product(range(count + 1), repeat=2):
            m = count - i - j
            if m < 0:
                continue
            ways = mpmath.factorial(count) / (
                mpmath.factorial(i) * mpmath.factorial(j) * mpmath.factorial(m)
            )
            ends = mpmath.mpf(1) / 2**i * (mpmath.exp(-r) / 2) ** j
            if m == 0:
                inner = max(mpmath.mpf(0), 1 - mpmath.exp(e - (i - j) * r))
            else:
                inner = (mpmath.exp(-r / 2) / 4) ** m * _spline_gain(r, m, e - (i - j) * r)
            total += ways * ends * inner
        return float(total)


def _spline_gain(r: mpmath.mpf, m: int, at: mpmath.mpf) -> mpmath.mpf:
    """Return the integral of (1 - e^(at - s)) e^(s/2) B(s) over s > at, B the m-fold spline."""
    total = mpmath.mpf(0)
    top = m * r
    if at >= top:
        return total
    start = max(at, -top)
    for k in range(m + 1):
        knot = -top + 2 * k * r
        low = max(start, knot)
        if low >= top:
            continue
        sign = (-1) ** k * mpmath.binomial(m, k) / mpmath.factorial(m - 1)
        gain = _power_times_exp(knot, m - 1, mpmath.mpf(1) / 2, low, top)
        loss = mpmath.exp(at) * _power_times_exp(knot, m - 1, -mpmath.mpf(1) / 2, low, top)
        total += sign * (gain - loss)
    return total


def _power_times_exp(
    knot: mpmath.mpf, power: int, rate: mpmath.mpf, low: mpmath.mpf, high: mpmath.mpf
) -> mpmath.mpf:
    """Return the integral of (s - knot)^power e^(rate s), by parts until no power is left."""

    def primitive(s: mpmath.mpf) -> mpmath.mpf:
        value, factor, sign = mpmath.mpf(0), 1 / rate, 1
        term = (s - knot) ** power
        for k in range(power + 1):
            value += sign * factor * term
            if k < power:
                factor *= (power - k) / rate
                term = (s - knot) ** (power - k - 1)
                sign = -sign
        return value * mpmath.exp(rate * s)

    return primitive(high) - primitive(low)


def laplace_law(ratio: float) -> Callable[[Array], Array]:
    """Return the distribution function under P of one Laplace loss."""

    def cdf(losses: Array) -> Array:
        inner = np.exp((np.clip(losses, -ratio, ratio) - ratio) / 2) / 2
        return np.where(losses < -ratio, 0.0, np.where(losses >= ratio, 1.0, inner))

    return cdf


# -- any loss, on a grid ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """A law of losses on multiples of ``step``; ``lost`` is mass that was left out."""

    first: int
    mass: Array
    step: float
    lost: float = 0.0

    def delta(self, epsilon: float) -> float:
        """Return the divergence at ``epsilon``."""
        losses = (np.arange(len(self.mass)) + self.first) * self.step
        above = losses > epsilon
        return float(np.sum(-np.expm1(epsilon - losses[above]) * self.mass[above]))

    def mean(self) -> float:
        """Return the mean loss."""
        return float(np.sum((np.arange(len(self.mass)) + self.first) * self.mass) * self.step)

    def composed_delta(self, count: int, epsilon: float) -> tuple[float, float]:
        """Return delta of ``count`` of them at ``epsilon``, and how far off it may be.

        One Fourier transform of the law tilted by e^(theta l), theta the saddle point: the tilted
        sum has its middle at epsilon, so that rounding is relative to delta and not to 1. What
        the circle wraps round is bounded by Chernoff's inequality.
        """
        losses = (np.arange(len(self.mass)) + self.first) * self.step
        kept = self.mass > 0
        log_mass = np.log(self.mass[kept])

        def log_moment(theta: float) -> float:
            terms = log_mass + theta * losses[kept]
            return float(terms.max() + np.log(np.exp(terms - terms.max()).sum()))

        def moment(theta: float) -> float:
            return count * log_moment(theta) - theta * epsilon

        theta = float(minimize_scalar(moment, bounds=(0.0, 80.0), method="bounded").x)
        log_scale = moment(theta)
        tilts = np.geomspace(0.05, 100.0, 14)
        right = np.array([count * (log_moment(theta + u) - log_moment(theta)) for u in tilts])
        left = np.array([count * (log_moment(theta - u) - log_moment(theta)) for u in tilts])
        # P(sum > c) <= exp(moment - u c): least c at which that is e^-36.
        high = min(float(np.min((right + 36.0) / tilts)), count * float(losses[-1]))
        low = max(float(np.max(-(left + 36.0) / tilts)), count * float(losses[0]))
        low, high = min(low, epsilon), max(high, epsilon)
        start = math.floor(low / self.step) - 1
        size = scipy.fft.next_fast_len(math.ceil(high / self.step) + 2 - start, real=True)
        tilted = np.zeros(size)
        place = (np.arange(len(self.mass)) + self.first) % size
        with np.errstate(under="ignore"):
            np.add.at(
                tilted, place[kept], np.exp(log_mass + theta * losses[kept] - log_moment(theta))
            )
        spread = scipy.fft.irfft(scipy.fft.rfft(tilted) ** count, size)
        # Cell i of the circle holds the sum that is i modulo the size, from ``start`` on.
        sums = (start + (np.arange(size) - start) % size) * self.step
        above = sums > epsilon
        weight = -np.expm1(epsilon - sums[above]) * np.exp(-theta * (sums[above] - epsilon))
        scale = math.exp(log_scale)
        off = scale * (4 * math.exp(-36.0) + 1e-15 * count + 1e-13)
        return scale * float(np.sum(weight * spread[above])), off + count * self.lost


def rounded(cdf: Callable[[Array], Array], low: float, high: float, step: float, up: bool) -> Grid:
    """Return a law of losses with each rounded to a multiple of ``step``, down or up.

    A lower loss means less delta, so *down* gives a lower bound and *up* an upper one, both for
    any composition. What lies below ``low`` is dropped (down) or put at ``low`` (up); what lies
    above ``high`` is put at ``high`` (down) or must be added to delta by the caller (up).
    """
    first, last = math.floor(low / step) - 1, math.ceil(high / step)
    ends = np.arange(first, last + 1) * step
    at = cdf(ends)
    between = np.maximum(np.diff(at), 0.0)
    if up:
        mass = np.concatenate([[at[0]], between])
        return Grid(first, mass, step, max(1 - float(at[-1]), 0.0))
    mass = np.concatenate([between, [max(1 - float(at[-1]), 0.0)]])
    return Grid(first, mass, step, float(at[0]))


def middled(cdf: Callable[[Array], Array], low: float, high: float, step: float) -> Grid:
    """Return losses rounded to the nearest multiple: for :func:`composed_brackets`."""
    first, last = math.floor(low / step) - 1, math.ceil(high / step) + 1
    ends = (np.arange(first, last + 2) - 0.5) * step
    mass = np.maximum(np.diff(cdf(ends)), 0.0)
    return Grid(first, mass, step, max(1 - float(mass.sum()), 0.0))


# -- Poisson-sampled Gaussians ---------------------------------------------------------------------


@dataclass(frozen=True)
class Sampled:
    """A mixture of N(j, sigma^2), j of ``group`` records sampled, against N(0, sigma^2).

    ``removed`` puts the mixture first (the data set with the records is the one that was used).
    """

    rate: float
    sigma: float
    removed: bool
    group: int = 1

    def _weights(self) -> Array:
        j = np.arange(self.group + 1)
        ways = np.array([math.comb(self.group, int(i)) for i in j], dtype=float)
        return ways * self.rate**j * (1 - self.rate) ** (self.group - j)

    def mixture_loss(self, x: Array) -> Array:
        """Return ln (mixture / N(0, sigma^2)) at an answer: it rises with the answer."""
        j = np.arange(self.group + 1)[:, None]
        terms = np.log(np.maximum(self._weights(), 1e-320))[:, None] + (2 * j * x - j * j) / (
            2 * self.sigma**2
        )
        top = terms.max(axis=0)
        return top + np.log(np.exp(terms - top).sum(axis=0))

    def answer_at(self, loss: Array) -> Array:
        """Return the answer of that mixture loss, by halving; -inf where there is none."""
        losses = np.asarray(loss, dtype=float)
        if self.group == 1:
            with np.errstate(divide="ignore", invalid="ignore"):
                shifted = np.log((np.exp(losses) - (1 - self.rate)) / self.rate)
            return np.where(np.isnan(shifted), -np.inf, 0.5 + self.sigma**2 * shifted)
        low = np.full(losses.shape, -60.0 * self.sigma - 60.0)
        high = np.full(losses.shape, 60.0 * self.sigma + 60.0 + self.group)
        for _ in range(70):
            middle = (low + high) / 2
            below = self.mixture_loss(middle) < losses
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        floor = self.group * math.log1p(-self.rate) if self.rate < 1 else -math.inf
        return np.where(losses <= floor, -np.inf, high)

    def cdf(self, losses: Array) -> Array:
        """Return the distribution function of the loss under the first of the two laws."""
        if not self.removed:
            return 1 - ndtr(self.answer_at(-losses) / self.sigma)
        at = self.answer_at(losses)
        j = np.arange(self.group + 1)[:, None]
        return (self._weights()[:, None] * ndtr((at - j) / self.sigma)).sum(axis=0)

    def one_step(self, epsilon: float) -> float:
        """Return the exact delta of one step, from its threshold test."""
        j = np.arange(self.group + 1)
        if self.removed:
            at = float(self.answer_at(np.array([epsilon]))[0])
            mixture = float((self._weights() * ndtr((j - at) / self.sigma)).sum())
            return max(0.0, mixture - math.exp(epsilon) * float(ndtr(-at / self.sigma)))
        at = float(self.answer_at(np.array([-epsilon]))[0])
        mixture = float((self._weights() * ndtr((at - j) / self.sigma)).sum())
        return max(0.0, float(ndtr(at / self.sigma)) - math.exp(epsilon) * mixture)

    def one_step_by_quadrature(self, epsilon: float) -> float:
        """Return the same by adding up (P - e^epsilon Q)+ over a fine grid of answers."""
        x = np.linspace(-14 * self.sigma, 14 * self.sigma + self.group, 400_001)
        base = np.exp(-x * x / (2 * self.sigma**2)) / (self.sigma * math.sqrt(2 * math.pi))
        mixture = base * np.exp(self.mixture_loss(x))
        p, q = (mixture, base) if self.removed else (base, mixture)
        return float(np.trapezoid(np.maximum(p - math.exp(epsilon) * q, 0.0), x))

    def range(self) -> tuple[float, float]:
        """Return losses beyond which there is less than 1e-21 of the first law."""
        reach = 9.6 * self.sigma
        ends = self.mixture_loss(np.array([-reach, reach + self.group]))
        return (
            (float(ends[0]), float(ends[1])) if self.removed else (-float(ends[1]), -float(ends[0]))
        )


def sampled_brackets(
    rate: float, sigma: float, steps: int, epsilon: float, step: float, group: int = 1
) -> tuple[float, float]:
    """Return a lower and an upper bound on delta of ``steps`` Poisson-sampled Gaussians.

    The greater of the two directions, each composed on a grid with its losses rounded to nearest.
    Rounding errors are independent, of some mean, and in an interval of ``step``: by Hoeffding's
    inequality their sum leaves its mean by sqrt(steps / 2 * ln(2 / miss)) * step only with
    probability ``miss`` (Gopi, Lee and Wutschitz 2021, section 5). The mean is computed.
    """
    miss = 1e-14
    wander = step * math.sqrt(steps / 2 * math.log(2 / miss))
    lower, upper = 0.0, 0.0
    for removed in (True, False):
        law = Sampled(rate, sigma, removed, group)
        one = middled(law.cdf, *law.range(), step)
        drift = steps * (_mean(law) - one.mean())
        below, off = one.composed_delta(steps, epsilon - drift + wander)
        lower = max(lower, below - off - miss)
        above, off = one.composed_delta(steps, epsilon - drift - wander)
        upper = max(upper, above + off + miss)
    return lower, upper


def _mean(law: Sampled) -> float:
    x = np.linspace(-12 * law.sigma, 12 * law.sigma + law.group, 400_001)
    base = np.exp(-x * x / (2 * law.sigma**2)) / (law.sigma * math.sqrt(2 * math.pi))
    loss = law.mixture_loss(x)
    return float(np.trapezoid(base * np.exp(loss) * loss if law.removed else -base * loss, x))
