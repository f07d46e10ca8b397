"""Neural generators, and the layers from which they are built."""

from dpsynth.vault._train import CodesLinear as CodesLinear
from dpsynth.vault._train import MaskedLinear as MaskedLinear
