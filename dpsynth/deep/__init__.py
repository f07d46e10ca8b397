"""Neural generators, and the layers from which they are built."""

from dpsynth.deep._autoregressive import Autoregressive as Autoregressive
from dpsynth.deep._autoregressive_model import AutoregressiveModel as AutoregressiveModel
from dpsynth.vault._train import CodesLinear as CodesLinear
from dpsynth.vault._train import MaskedLinear as MaskedLinear
