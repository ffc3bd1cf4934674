"""Data augmentation: one random affine and colour transform per photo, in a single grid_sample.

Rotation, crop and flip are composed into one affine map per photo, so that a batch is resampled
once. The order is that of the 2020 notebook's torchvision transforms: the photo is rotated about
its centre, a box is cropped, and the crop is flipped. Brightness, contrast and saturation follow.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from catdog.params import Augmentation

CROP_ATTEMPTS = 10  # as in torchvision's RandomResizedCrop; then the whole (square) photo is used
PADDING = {"black": "zeros", "edge": "border", "mirror": "reflection"}
# ITU-R BT.601 as in torchvision's rgb_to_grayscale, there rounded to a sum of 0.9999
LUMA = (0.299, 0.587, 0.114)
CPU_CHUNK = (
    2_000_000  # bytes of float32 photos that a CPU transforms at a time: they stay in its cache
)


@dataclass(frozen=True)
class Transforms:
    """The random transforms of N photos."""

    affine: Tensor
    """(N, 2, 3) float32: map a point of the output to a point of the photo, both in [-1, 1]²"""
    colour: Tensor
    """(N, 3) float32: factors on brightness, contrast and saturation"""

    def __getitem__(self, index: Tensor | slice) -> Self:
        """Return the transforms of the photos at `index`."""
        return type(self)(self.affine[index], self.colour[index])

    def to(self, device: torch.device) -> Self:
        """Return the transforms on a device."""
        return type(self)(self.affine.to(device), self.colour.to(device))


def draw_transforms(settings: Augmentation, photos: int, generator: torch.Generator) -> Transforms:
    """Return independent random transforms for `photos` photos, drawn with a CPU generator."""
    centre, half = draw_crop_boxes(settings, photos, generator)
    flipped = torch.rand(photos, generator=generator) < settings.flip
    degrees = _uniform(-settings.rotation, settings.rotation, (photos,), generator)
    strengths = torch.tensor([settings.brightness, settings.contrast, settings.saturation])
    colour = 1 + strengths * _uniform(-1, 1, (photos, 3), generator)
    return Transforms(affine_maps(centre, half, flipped, degrees), colour)


def draw_crop_boxes(
    settings: Augmentation, photos: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return centres and half sides (N, 2; x then y) of random boxes inside [-1, 1]².

    Area and log aspect ratio are uniform. The first of ten random boxes that fits is used, or else
    the whole photo (Szegedy et al. 2014, arXiv:1409.4842, as in torchvision's RandomResizedCrop).
    """
    attempts = (photos, CROP_ATTEMPTS)
    area = _uniform(settings.crop_scale_min, settings.crop_scale_max, attempts, generator)
    widest = math.log(settings.crop_aspect)
    aspect = torch.exp(_uniform(-widest, widest, attempts, generator))
    squares = torch.stack([area * aspect, area / aspect], dim=-1)
    # Not torch.sqrt: MKL computes it, and its last bit depends on the processor, even with
    # MKL_CBWR=COMPATIBLE (pytorch/pytorch#188792).
    sides = torch.from_numpy(np.sqrt(squares.numpy()))
    fits = (sides <= 1).all(-1)
    first = fits.int().argmax(1)
    half = sides[torch.arange(photos), first]
    half[~fits.any(1)] = 1
    centre = _uniform(-1, 1, (photos, 2), generator) * (1 - half)
    return centre, half


def affine_maps(centre: Tensor, half: Tensor, flipped: Tensor, degrees: Tensor) -> Tensor:
    """Return affine maps (N, 2, 3) from points of the output to points of the photo, in [-1, 1]².

    `centre` and `half` (N, 2) are the crop box in the photo rotated by `degrees` (N, counter-
    clockwise); `flipped` (N) says whether the crop is flipped horizontally.
    """
    sign = 1 - 2 * flipped.float()
    radians = torch.deg2rad(degrees)
    cos, sin = torch.cos(radians), torch.sin(radians)
    # Point p of the rotated photo is point R·p of the original one, with y pointing down.
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], dim=1)
    scale = torch.stack([half[:, 0] * sign, half[:, 1]], -1)
    return torch.cat([rotation * scale[:, None, :], rotation @ centre[:, :, None]], dim=2)


def apply_transforms(
    photos: Tensor,
    transforms: Transforms,
    image_size: int,
    fill: str,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Return transformed, normalized photos (N, 3, S, S), float32, channels-last.

    `photos` are uint8 (N, 3, H, W); mean and std are of values in [0, 1]. Colour, scale and
    normalization are composed into one matrix and one offset per photo, applied in one product. On
    a CPU, a few photos are transformed at a time, so that intermediate results stay in its cache.
    """
    output = torch.empty((len(photos), image_size**2, 3), device=photos.device)
    by_x, by_y = grid_axes(transforms.affine, image_size)
    matrix, grey, offset = colour_maps(transforms.colour, mean, std)
    chunk = len(photos)
    if photos.device.type == "cpu":
        chunk = max(1, CPU_CHUNK // (4 * photos[0].numel()))
    for start in range(0, len(photos), chunk):
        part = slice(start, start + chunk)
        sampled = F.grid_sample(
            photos[part].float(),
            sampling_grid(by_x[part], by_y[part]),
            mode="bilinear",
            padding_mode=PADDING[fill],
            align_corners=False,
        ).flatten(2)
        shift = torch.baddbmm(offset, grey[part], sampled.mean(2, keepdim=True))
        coloured = torch.baddbmm(shift, matrix[part], sampled)
        # The same as output[part] = coloured.mT, and a fifth faster on a CPU.
        torch.stack(coloured.unbind(1), dim=-1, out=output[part])
    return output.view(-1, image_size, image_size, 3).permute(0, 3, 1, 2)


def grid_axes(affine: Tensor, image_size: int) -> tuple[Tensor, Tensor]:
    """Return the parts of the sampling grid that depend on x (N, 2, 1, S) and on y (N, 2, S, 1).

    `affine` (N, 2, 3) maps a point of the output to a point of the photo, both in [-1, 1]².
    """
    axis = (torch.arange(image_size, device=affine.device) * 2 + 1) / image_size - 1
    by_x = affine[:, :, 0, None] * axis
    by_y = affine[:, :, 1, None] * axis + affine[:, :, 2, None]
    return by_x[:, :, None, :], by_y[:, :, :, None]


def sampling_grid(by_x: Tensor, by_y: Tensor) -> Tensor:
    """Return the sampling grid (N, S, S, 2) for grid_sample.

    The same as F.affine_grid(align_corners=False), but ten times as fast on a CPU: one sum, with
    the x and y of all points in separate memory, which grid_sample supports.
    """
    return (by_x + by_y).permute(0, 2, 3, 1)


def colour_maps(
    colour: Tensor, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return two matrices per photo (N, 3, 3) and an offset (1, 3, 1): colour and normalization.

    A pixel p in [0, 255] of a photo whose mean colour is m becomes `first @ p + second @ m +
    offset`. `colour` (N, 3) are factors on brightness, contrast and saturation, applied in this
    order by the formulas of torchvision's adjust_brightness and so on, but without clamping to
    [0, 1], which makes them linear: contrast interpolates from the mean grey of the photo, and
    saturation from the grey of the pixel.
    """
    brightness, contrast, saturation = colour[:, :, None, None].unbind(1)
    spread = _constant(tuple(std), colour.device)[:, None]
    to_grey = _constant(LUMA, colour.device).expand(3, 3)
    saturate = torch.lerp(to_grey, torch.eye(3, device=colour.device), saturation)
    scale = brightness / (255 * spread)
    offset = -_constant(tuple(mean), colour.device)[:, None] / spread
    return saturate * (contrast * scale), to_grey * ((1 - contrast) * scale), offset[None]


@functools.cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return a tensor on a device, copied once: on CUDA a copy waits for all queued steps."""
    return torch.tensor(values, device=device)


def _uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
