"""model.json, the model card: everything except the weights that is needed to use a model."""

import numpy as np
import torch

from catdog import __version__
from catdog.dataset.prepared import ChannelStats
from catdog.params import Model, PerChannel, Precision, Section


class ModelCard(Section):
    """The contents of model.json."""

    model: Model
    classes: list[str]
    stored_image_size: int
    image_size: int
    flip: bool
    mean: PerChannel
    std: PerChannel
    precision: Precision
    threads: int = 0  # models of catdog 0.1.0 have no such key
    epoch: int
    weights: int
    pflop: float
    versions: dict[str, str]

    @property
    def normalization(self) -> ChannelStats:
        """The mean and std that the inputs are normalized with."""
        return ChannelStats(self.mean, self.std)


def versions() -> dict[str, str]:
    """Return the versions of catdog, numpy and torch used for training.

    The version of Python is left out: it does not change the result, so it must not change the
    file.
    """
    return {
        "catdog": __version__,
        "numpy": np.__version__,
        "torch": str(torch.__version__),
    }
