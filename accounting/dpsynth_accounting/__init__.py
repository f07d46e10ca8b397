"""One differential-privacy account: events, their exact price, and a durable, enforced ledger.

The package knows no table and no mechanism; it imports numpy, scipy and dp-accounting only.
"""

from dpsynth_accounting._errors import (
    BudgetExceeded,
    DpsynthError,
    InvalidRequest,
    LedgerCorrupt,
    LedgerError,
)
from dpsynth_accounting.budget import (
    ADJACENCY,
    Budget,
    checked_delta,
    checked_epsilon,
    require_delta_below,
    show,
)
from dpsynth_accounting.calibrate import calibrate, rational_down, rational_up
from dpsynth_accounting.curves import Curve, curve
from dpsynth_accounting.events import (
    ApproxDP,
    DiscreteGaussian,
    Event,
    Exponential,
    Gaussian,
    Repeat,
    Sequence,
    canonical,
    digest,
    flatten,
)
from dpsynth_accounting.events import from_json as event_from_json
from dpsynth_accounting.events import to_json as event_to_json
from dpsynth_accounting.extract import Replay, verify_extract
from dpsynth_accounting.ledger import Account, Ledger, Reservation
from dpsynth_accounting.statement import Statement, statement

__all__ = [
    "ADJACENCY",
    "Account",
    "ApproxDP",
    "Budget",
    "BudgetExceeded",
    "Curve",
    "DiscreteGaussian",
    "DpsynthError",
    "Event",
    "Exponential",
    "Gaussian",
    "InvalidRequest",
    "Ledger",
    "LedgerCorrupt",
    "LedgerError",
    "Repeat",
    "Replay",
    "Reservation",
    "Sequence",
    "Statement",
    "calibrate",
    "canonical",
    "checked_delta",
    "checked_epsilon",
    "curve",
    "digest",
    "event_from_json",
    "event_to_json",
    "flatten",
    "rational_down",
    "rational_up",
    "require_delta_below",
    "show",
    "statement",
    "verify_extract",
]
