"""Models of this package, by what their file says it holds."""

from __future__ import annotations

import os

from dpsynth.deep import _files
from dpsynth.deep._autoregressive_model import AutoregressiveModel
from dpsynth.deep._conditional_model import ConditionalModel
from dpsynth.deep._latent_model import LatentModel


def load(path: str | os.PathLike[str]) -> AutoregressiveModel | LatentModel:
    """Read a model that ``save`` wrote, of whichever generator.

    Raises:
        InvalidRequest: The file is no such model.
    """
    form = _files.form_of(path)
    for kind in (LatentModel, ConditionalModel):
        if form == kind.FORMAT:
            return kind.load(path)
    return AutoregressiveModel.load(path)
