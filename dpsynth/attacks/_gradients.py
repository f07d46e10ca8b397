"""How likely each canary is in, from the noisy gradients of a training: white-box scores.

Nasr, Hayes, Steinke, Balle, Tramèr, Jagielski, Carlini, Terzis (2023), "Tight auditing of
differentially private machine learning", section 4: a canary's clipped gradient against the noisy
sum. Here many canaries share a training, and each may be sampled in any step:

* A step's noisy sum, less what is expected of the units that are known, is the sum of the gradients
  of the canaries that are in and were sampled, plus noise. Its inner products with the canaries'
  gradients go through the inverse of their covariance, which takes out what canaries do to each
  other: the best linear estimate.
* Of an estimate follow the odds that the canary was sampled, and of these the odds that it is in:
  one that is in is sampled with probability ``q``, one that is not never, so 1 - q + q e^odds.
  Steps multiply.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST = 1e-4  # least share of the stated variance that is reckoned with
_SIZES = 4.0 ** np.arange(8)  # of a canary's part in a sum, as multiples of what clipping leaves
_TINY = 1e-12
_PLAIN = 6.0  # deviations of a sum of squares beyond which it is more than noise
_ROUNDS = 5


class GradientScores:
    """Log odds of each canary, over the steps so far.

    Args:
        count: How many canaries there are.
        known: How many units are in for certain.
        rate: Probability with which a unit joins a step.
        noise: Standard deviation of the noise on each coordinate of a sum.
    """

    def __init__(self, count: int, known: int, rate: float, noise: float) -> None:
        self._rate, self._variance, self._known = rate, noise**2, known
        self._odds = np.zeros((len(_SIZES), count))
        self._evidence = np.zeros(len(_SIZES))

    @property
    def odds(self) -> Floats:
        """float64 (canaries,): above 0 speaks for being in."""
        found: Floats = self._odds[int(self._evidence.argmax())]
        return found

    def add(self, gradients: NDArray[np.floating[Any]], share: Floats, shown: Floats) -> None:
        """Take in a step.

        Args:
            gradients: (units, parameters): what a unit adds to the sum where it is sampled, of the
                canaries first and then of some of the known units.
            share: (canaries,): how much of that a canary adds on average, where it varies.
            shown: (parameters,): the noisy sum less what is expected of all known units.
        """
        q, count = self._rate, len(share)
        mean, some = q / 2 * share, len(gradients) - count  # of "it is in and was sampled"
        products = (gradients @ gradients.T).astype(np.float64)
        own = q / 2 * (1 - q / 2) * share**2
        others = q * (1 - q) * self._known / max(some, 1)
        spread = np.append(own, np.full(some, others))
        # Gradients that are not clipped stand out: they are measured by their own length.
        length = self._length(shown, float(spread @ products.diagonal()))
        off = shown / length - mean @ gradients[:count]
        # A mechanism with less noise than it says is read as sharply as it deserves.
        most = self._variance / length**2
        noise = min(max(float(np.mean(off**2)), _LEAST * most), most)
        inverse = np.linalg.inv(noise * np.eye(len(spread)) + products * spread)[:count]
        told = np.einsum("ij,ji->i", inverse, products[:, :count])
        # Of one canary, given the covariance of the others alone (Sherman, Morrison 1950).
        alone = np.maximum(1 - own * told, _TINY)
        signal = np.maximum(told / alone, _TINY)
        found = (inverse @ (gradients @ off) + mean * told) / alone
        size = _SIZES[:, None] * share
        moved = size * signal
        # What no covariance explains is seen in how far estimates lie from both of their means:
        # the likeliest factor of their variance, by expectation and maximisation.
        wide = np.ones((len(_SIZES), 1))
        for _ in range(_ROUNDS):
            sampled = (found - moved / 2) * size / wide
            inside = np.exp(np.minimum(sampled + np.log(q / 2) - _mixed(sampled, q / 2), 0.0))
            far = (1 - inside) * found**2 + inside * (found - moved) ** 2
            wide = np.maximum((far / signal).mean(axis=1, keepdims=True), 1.0)
        sampled = (found - moved / 2) * size / wide
        self._odds += _mixed(sampled, q)
        density = -(np.log(wide) + found**2 / (signal * wide)) / 2
        self._evidence += (_mixed(sampled, q / 2) + density).sum(axis=1)

    def _length(self, shown: Floats, expected: float) -> float:
        """Return how many times longer gradients are than their clip; 1 unless that is plain."""
        beyond = float((shown**2).sum()) - shown.size * self._variance
        plain = beyond > _PLAIN * (2 * shown.size) ** 0.5 * self._variance
        return max(beyond / expected, 1.0) ** 0.5 if plain and beyond > 4 * expected else 1.0


def _mixed(odds: Floats, share: float) -> Floats:
    """Return log(1 - share + share e^odds)."""
    if share >= 1:
        return odds
    found: Floats = np.logaddexp(np.log1p(-share), np.log(share) + odds)
    return found
