"""What trains on private rows: DP-SGD over privacy units."""

from dpsynth.vault._train._draws import own_draws as own_draws
from dpsynth.vault._train._draws import seed as seed
from dpsynth.vault._train._gradients import clipped_sum as clipped_sum
from dpsynth.vault._train._layers import CodesLinear as CodesLinear
from dpsynth.vault._train._layers import MaskedLinear as MaskedLinear
from dpsynth.vault._train._loop import Learner as Learner
from dpsynth.vault._train._loop import Steps as Steps
from dpsynth.vault._train._loop import require as require
from dpsynth.vault._train._loop import resume as resume
from dpsynth.vault._train._loop import run as run
from dpsynth.vault._train._loop import shapes as shapes
from dpsynth.vault._train._separate import require_separate as require_separate
from dpsynth.vault._train._watched import WatchedLearner as WatchedLearner
