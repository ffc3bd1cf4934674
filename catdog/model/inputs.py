"""Resizing and normalization: from photos to the inputs of a network.

Training, validation, evaluation and predict share these functions, so that a network gets the same
pixels everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from catdog.dataset.splits import read_stats
from catdog.params import Params


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per channel, for values in [0, 1]."""

    mean: list[float]
    std: list[float]


IMAGENET = Normalization([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = Normalization([0.5] * 3, [0.5] * 3)


def pick_normalization(params: Params, prepared: Path) -> Normalization:
    """Return the mean and std selected by `normalization` in params.yaml.

    `prepared` is the folder with the statistics of the training set (normalization.source: data).
    """
    settings = params.normalization
    if settings.mean is not None and settings.std is not None:
        return Normalization(settings.mean, settings.std)
    if settings.source == "data":
        return Normalization(**read_stats(prepared))
    return IMAGENET if settings.source == "imagenet" else HALF


def to_inputs(
    photos: Tensor, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Return normalized float32 photos (N, 3, S, S) of uint8 ones (N, H, W, 3); S: image_size."""
    resized = resize(photos.permute(0, 3, 1, 2), image_size)
    return normalize(resized.float() / 255, mean, std)


def resize(photos: Tensor, image_size: int) -> Tensor:
    """Return uint8 photos (N, 3, S, S) of uint8 photos (N, 3, H, W), bilinear and antialiased."""
    if photos.shape[-2:] == (image_size, image_size):
        return photos
    # On the CPU torch resizes uint8 directly, several times faster than float32, with the same
    # rounding (pytorch/pytorch#90771). Other devices only resize floats.
    source = photos if photos.device.type == "cpu" else photos.float()
    resized = F.interpolate(source, (image_size, image_size), mode="bilinear", antialias=True)
    return resized if source is photos else resized.round().clamp(0, 255).to(torch.uint8)


def normalize(photos: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (photos - mean) / std per channel, for float photos (N, 3, H, W) in [0, 1]."""
    center = torch.tensor(mean, device=photos.device).view(3, 1, 1)
    spread = torch.tensor(std, device=photos.device).view(3, 1, 1)
    return (photos - center) / spread
