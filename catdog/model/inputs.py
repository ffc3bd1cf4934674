"""Resizing and normalizing: how photos become the inputs of a network.

Training, validation, evaluation and predict share these functions, so that a network sees the same
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
    """Mean and standard deviation per channel, of values in [0, 1]."""

    mean: list[float]
    std: list[float]


IMAGENET = Normalization([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = Normalization([0.5] * 3, [0.5] * 3)


def pick_normalization(params: Params, prepared: Path) -> Normalization:
    """Return the mean and std that `normalization` in params.yaml names.

    `prepared` holds the statistics of the training photos (normalization.source: data).
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
    """Return normalized float32 photos (N, 3, S, S) of uint8 ones (N, H, W, 3), S `image_size`."""
    resized = resize(photos.permute(0, 3, 1, 2), image_size)
    return normalize(resized.float() / 255, mean, std)


def resize(photos: Tensor, image_size: int) -> Tensor:
    """Return uint8 photos (N, 3, S, S) of uint8 photos (N, 3, H, W), bilinear and antialiased."""
    if photos.shape[-2:] == (image_size, image_size):
        return photos
    # On a CPU torch resizes uint8 directly, many times faster than float, and rounds the same.
    whole = photos if photos.device.type == "cpu" else photos.float()
    resized = F.interpolate(whole, (image_size, image_size), mode="bilinear", antialias=True)
    return resized if whole is photos else resized.round().clamp(0, 255).to(torch.uint8)


def normalize(photos: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (photos - mean) / std per channel, for photos (N, 3, H, W) in [0, 1]."""
    center = torch.tensor(mean, device=photos.device).view(3, 1, 1)
    spread = torch.tensor(std, device=photos.device).view(3, 1, 1)
    return (photos - center) / spread
