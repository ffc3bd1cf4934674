"""model.json, the model card: everything except the weights that is needed to use a model."""

from typing import Annotated, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from catdog import __version__
from catdog.dataset.prepared import ChannelStats
from catdog.params import Model, PerChannel, Precision, Section

PhotoSize = Annotated[int, Field(ge=16, le=1024)]


class ModelCard(Section):
    """The contents of model.json."""

    model: Model
    classes: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2)]
    stored_image_size: PhotoSize
    image_size: PhotoSize
    flip: bool
    mean: PerChannel
    std: PerChannel
    precision: Precision
    threads: Annotated[int, Field(ge=0, le=1024)] = 0  # models of catdog 0.1.0 have no such key
    epoch: Annotated[int, Field(ge=1)]
    weights: Annotated[int, Field(ge=1)]
    pflop: Annotated[float, Field(ge=0)]
    versions: dict[str, str]

    @model_validator(mode="after")
    def _values_are_consistent(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: a name occurs twice")
        if min(self.std) <= 0:
            raise ValueError(f"std: must be above 0, not {self.std}")
        if self.precision == "portable" and self.threads == 0:
            raise ValueError("threads: must be at least 1 with precision portable")
        return self

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
