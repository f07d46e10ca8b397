"""Neural generators, and the layers from which they are built."""

from dpsynth.deep._autoregressive import Autoregressive as Autoregressive
from dpsynth.deep._autoregressive_model import AutoregressiveModel as AutoregressiveModel
from dpsynth.deep._conditional_model import ConditionalModel as ConditionalModel
from dpsynth.deep._gan import GAN as GAN
from dpsynth.deep._gan import ConditionalGAN as ConditionalGAN
from dpsynth.deep._latent_model import LatentModel as LatentModel
from dpsynth.deep._load import load as load
from dpsynth.deep._merf import MERF as MERF
from dpsynth.deep._vae import VAE as VAE
from dpsynth.vault._train import CodesLinear as CodesLinear
from dpsynth.vault._train import MaskedLinear as MaskedLinear
