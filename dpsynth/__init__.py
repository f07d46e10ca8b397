"""Differentially private synthesis of tables: charged first, attacked always.

Importing this package is quick: numerics of the account, learners and readers load when needed.
"""

from dpsynth._version import __version__ as __version__
from dpsynth.attacks import Attack as Attack
from dpsynth.choosing import Gate as Gate
from dpsynth.choosing import choose as choose
from dpsynth.columns import Boolean as Boolean
from dpsynth.columns import Categorical as Categorical
from dpsynth.columns import Date as Date
from dpsynth.columns import Datetime as Datetime
from dpsynth.columns import Drop as Drop
from dpsynth.columns import Integer as Integer
from dpsynth.columns import Key as Key
from dpsynth.columns import Open as Open
from dpsynth.columns import Real as Real
from dpsynth.elsewhere import NoisyMarginal as NoisyMarginal
from dpsynth.elsewhere import from_marginals as from_marginals
from dpsynth.marginal import AIM as AIM
from dpsynth.marginal import MST as MST
from dpsynth.marginal import MWEM as MWEM
from dpsynth.marginal import CliqueTree as CliqueTree
from dpsynth.marginal import Independent as Independent
from dpsynth.marginal import PrivBayes as PrivBayes
from dpsynth.recommend import recommend as recommend
from dpsynth.release import Release as Release
from dpsynth.schema import Schema as Schema
from dpsynth.synthesizer import Model as Model
from dpsynth.synthesizer import Synthesizer as Synthesizer
from dpsynth.tuning import Tuning as Tuning
from dpsynth.vault import Person as Person
from dpsynth.vault import Row as Row
from dpsynth.vault import Vault as Vault
from dpsynth.workload import Workload as Workload
from dpsynth_accounting import Budget as Budget
from dpsynth_accounting import Ledger as Ledger
