"""One differential-privacy account: events, their exact price, and a durable, enforced ledger.

The package knows no table and no mechanism; it imports numpy, scipy and dp-accounting only.
"""

from dpsynth_accounting._errors import BudgetExceeded as BudgetExceeded
from dpsynth_accounting._errors import DpsynthError as DpsynthError
from dpsynth_accounting._errors import InvalidRequest as InvalidRequest
from dpsynth_accounting._errors import LedgerCorrupt as LedgerCorrupt
from dpsynth_accounting._errors import LedgerError as LedgerError
from dpsynth_accounting.budget import ADJACENCY as ADJACENCY
from dpsynth_accounting.budget import Budget as Budget
from dpsynth_accounting.budget import checked_delta as checked_delta
from dpsynth_accounting.budget import checked_epsilon as checked_epsilon
from dpsynth_accounting.budget import require_delta_below as require_delta_below
from dpsynth_accounting.budget import show as show
from dpsynth_accounting.calibrate import calibrate as calibrate
from dpsynth_accounting.calibrate import rational_down as rational_down
from dpsynth_accounting.calibrate import rational_up as rational_up
from dpsynth_accounting.curves import Curve as Curve
from dpsynth_accounting.curves import curve as curve
from dpsynth_accounting.events import ApproxDP as ApproxDP
from dpsynth_accounting.events import DiscreteGaussian as DiscreteGaussian
from dpsynth_accounting.events import Event as Event
from dpsynth_accounting.events import Exponential as Exponential
from dpsynth_accounting.events import Gaussian as Gaussian
from dpsynth_accounting.events import Repeat as Repeat
from dpsynth_accounting.events import Sequence as Sequence
from dpsynth_accounting.events import canonical as canonical
from dpsynth_accounting.events import digest as digest
from dpsynth_accounting.events import event_from_json as event_from_json
from dpsynth_accounting.events import event_to_json as event_to_json
from dpsynth_accounting.events import flatten as flatten
from dpsynth_accounting.extract import Replay as Replay
from dpsynth_accounting.extract import verify_extract as verify_extract
from dpsynth_accounting.ledger import Account as Account
from dpsynth_accounting.ledger import Ledger as Ledger
from dpsynth_accounting.ledger import Reservation as Reservation
from dpsynth_accounting.statement import Statement as Statement
from dpsynth_accounting.statement import statement as statement
