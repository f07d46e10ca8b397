"""What trains on private rows: clipped gradients of privacy units."""

from dpsynth.vault._train._gradients import clipped_sum as clipped_sum
from dpsynth.vault._train._layers import CodesLinear as CodesLinear
from dpsynth.vault._train._layers import MaskedLinear as MaskedLinear
from dpsynth.vault._train._separate import require_separate as require_separate
