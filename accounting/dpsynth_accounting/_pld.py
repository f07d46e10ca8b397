"""The only importer of dp-accounting: privacy-loss distributions (PLDs) of our events.

Every PLD here is pessimistic: its delta(epsilon) is never below the true one, up to the floating
point noise of the convolutions, for which :data:`FFT_SLACK` is taken off delta.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

FFT_SLACK = 1e-12
"""Delta set aside for rounding inside the convolutions (observed: up to 5e-14)."""


@lru_cache(maxsize=64)
def gaussian(mu: float, interval: float) -> Any:
    """Return the PLD of a Gaussian mechanism with sensitivity / sigma = ``mu``."""
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        1.0 / mu, value_discretization_interval=interval
    )


@lru_cache(maxsize=64)
def discrete_gaussian(sigma: float, shift: int, count: int, interval: float) -> Any:
    """Return the exact-lattice PLD of ``count`` discrete Gaussians, each moved by ``shift``."""
    from dp_accounting.pld import privacy_loss_distribution

    single = privacy_loss_distribution.from_discrete_gaussian_mechanism(
        sigma, shift, value_discretization_interval=interval, use_connect_dots=True
    )
    return single.self_compose(count)


@lru_cache(maxsize=64)
def bounded_range(epsilon: float, count: int, interval: float) -> Any:
    """Return the PLD of ``count`` epsilon-bounded-range mechanisms.

    The tight profile of the class is (sqrt(E) - sqrt(g))^2 / (E - 1) with E = e^epsilon and
    g = e^e, on |e| <= epsilon; the proof is in the exponential-mechanism page of the explanations.
    """
    from dp_accounting.pld import pld_pmf, privacy_loss_distribution

    edge = int(np.ceil(epsilon / interval))
    losses = np.arange(-edge, edge + 1) * interval
    half = np.exp((np.clip(losses, -epsilon, epsilon) - epsilon) / 2.0)
    deltas = (1.0 - half) ** 2 / -np.expm1(-epsilon)
    # Beyond the range the profile is exactly that of a bounded loss.
    deltas = np.where(losses >= epsilon, 0.0, deltas)
    deltas = np.where(losses <= -epsilon, -np.expm1(losses), deltas)
    pmf = pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(interval, -edge, edge, deltas)
    return privacy_loss_distribution.PrivacyLossDistribution(pmf).self_compose(count)
