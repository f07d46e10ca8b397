"""The vault: the only package that sees private rows, and what it promises about them."""

from dpsynth.vault._block import Block as Block
from dpsynth.vault._bound import Person as Person
from dpsynth.vault._bound import Row as Row
from dpsynth.vault._bound import Unit as Unit
from dpsynth.vault._plan import Audit as Audit
from dpsynth.vault._plan import Discover as Discover
from dpsynth.vault._plan import Measure as Measure
from dpsynth.vault._plan import Measurement as Measurement
from dpsynth.vault._plan import Plan as Plan
from dpsynth.vault._plan import Select as Select
from dpsynth.vault._plan import Step as Step
from dpsynth.vault._plan import make_plan as make_plan
from dpsynth.vault._plan import scaled as scaled
from dpsynth.vault._rows import column_names as column_names
from dpsynth.vault._rows import load_table as load_table
from dpsynth.vault._rows import needed_columns as needed_columns
from dpsynth.vault._rows import require_form as require_form
from dpsynth.vault._statistics import Audited as Audited
from dpsynth.vault._statistics import Counted as Counted
from dpsynth.vault._statistics import RecordScore as RecordScore
from dpsynth.vault._statistics import Statistic as Statistic
from dpsynth.vault._vault import Exposed as Exposed
from dpsynth.vault._vault import Recipe as Recipe
from dpsynth.vault._vault import Vault as Vault
from dpsynth.vault._vault import discovery_step as discovery_step
from dpsynth.vault._vault import discovery_weight as discovery_weight
