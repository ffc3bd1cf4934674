"""Resizing and normalization: from photos to the inputs of a network.

Validation, evaluation and predict share `to_inputs`. Training resizes with the same `resize`, and
normalizes in the same product that transforms colours (catdog/training/augmentation.py).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from catdog.dataset.prepared import ChannelStats


def to_inputs(photos: Tensor, image_size: int, stats: ChannelStats) -> Tensor:
    """Return normalized float32 photos (N, 3, S, S) of uint8 ones (N, H, W, 3); S: image_size."""
    resized = resize(photos.permute(0, 3, 1, 2), image_size)
    return normalize(resized.float() / 255, stats)


def resize(photos: Tensor, image_size: int) -> Tensor:
    """Return uint8 photos (N, 3, S, S) of uint8 photos (N, 3, H, W), bilinear and antialiased."""
    if photos.shape[-2:] == (image_size, image_size):
        return photos
    # On the CPU torch resizes uint8 directly, several times faster than float32, with the same
    # rounding (pytorch/pytorch#90771). Other devices only resize floats.
    source = photos if photos.device.type == "cpu" else photos.float()
    resized = F.interpolate(source, (image_size, image_size), mode="bilinear", antialias=True)
    return resized if source is photos else resized.round().clamp(0, 255).to(torch.uint8)


def normalize(photos: Tensor, stats: ChannelStats) -> Tensor:
    """Return (photos - mean) / std per channel, for float photos (N, 3, H, W) in [0, 1]."""
    center = torch.tensor(stats.mean, device=photos.device).view(3, 1, 1)
    spread = torch.tensor(stats.std, device=photos.device).view(3, 1, 1)
    return (photos - center) / spread
