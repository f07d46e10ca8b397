"""SciPy's special functions, imported at their first use: that takes longer than all else here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scipy.special import erfinv, gammaln, log_ndtr, logsumexp, ndtr, ndtri

__all__ = ["erfinv", "gammaln", "log_ndtr", "logsumexp", "ndtr", "ndtri"]


def __getattr__(name: str) -> Any:
    """Return a function of :mod:`scipy.special`."""
    if name not in __all__:
        raise AttributeError(name)
    import scipy.special

    return getattr(scipy.special, name)
