"""How likely each canary is in, from the noisy gradients of a training: white-box scores.

Nasr, Hayes, Steinke, Balle, Tramèr, Jagielski, Carlini, Terzis (2023), "Tight auditing of
differentially private machine learning", section 4: a canary's clipped gradient against the noisy
sum. Here many canaries share a training, and each may be sampled in any step:

* A step's noisy sum, less what is expected of the units that are known, is the sum of the gradients
  of the canaries that are in and were sampled, plus noise. Its inner products with the canaries'
  gradients go through the inverse of their covariance, which takes out what canaries do to each
  other: the best linear estimate.
* Of an estimate follow the odds that the canary was sampled, and, as one that is in is sampled with
  probability ``q`` and one that is not never, those that it is in: 1 - q + q e^odds. Steps multiply.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST = 1e-4  # least share of the stated variance that is reckoned with
_MEDIAN = 0.4549364231195724  # of a chi-square of one degree


class GradientScores:
    """Log odds of each canary, over the steps so far.

    Args:
        count: How many canaries there are.
        rate: Probability with which a unit joins a step.
        noise: Standard deviation of the noise on each coordinate of a sum.

    Attributes:
        odds: float64 (canaries,): above 0 speaks for being in.
    """

    def __init__(self, count: int, rate: float, noise: float) -> None:
        self.odds: Floats = np.zeros(count)
        self._rate, self._variance = rate, noise**2

    def add(self, gradients: Floats, shown: Floats) -> None:
        """Take in a step.

        Args:
            gradients: (canaries, parameters): what each canary adds to the sum where it is sampled.
            shown: (parameters,): the noisy sum less what is expected of all other units.
        """
        q = self._rate
        mean, spread = q / 2, q / 2 * (1 - q / 2)  # of "it is in and was sampled"
        off = shown - mean * gradients.sum(axis=0)
        # A mechanism with less noise than it says is read as sharply as it deserves.
        noise = min(max(float(np.mean(off**2)), _LEAST * self._variance), self._variance)
        products = gradients @ gradients.T
        inverse = np.linalg.inv(noise * np.eye(len(products)) + spread * products)
        told = np.einsum("ij,ji->i", inverse, products)
        # Of one canary, given the covariance of the others alone (Sherman, Morrison 1950).
        alone = np.maximum(1 - spread * told, 1e-12)
        signal = np.maximum(told / alone, 1e-12)
        found = (inverse @ (gradients @ off) + mean * told) / alone
        self.odds += self._of_step(found, signal)

    def _of_step(self, found: Floats, signal: Floats) -> Floats:
        """Return what a step adds to the odds, from estimates of mean 0 or ``signal``.

        The sampled gradients of known units are noise, too, which is seen in how far the estimates
        lie from both means.
        """
        near = np.minimum(found**2, (found - signal) ** 2) / signal
        wide = max(float(np.median(near)) / _MEDIAN, 1.0)
        sampled = (found - signal / 2) / wide
        if self._rate >= 1:
            return sampled
        return np.logaddexp(np.log1p(-self._rate), np.log(self._rate) + sampled)
