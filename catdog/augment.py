"""Random views of training photos: one draw a photo, one resampling, on the device.

Crop, mirror and rotation are one affine map a photo, so that a batch is resampled once by one
`grid_sample`. The order is that of the seed's torchvision transforms: the photo is rotated about
its centre, a box is cut out of the result, and the box is mirrored.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from catdog.params import Augmentation

CROP_TRIES = 10  # as torchvision's RandomResizedCrop, which then takes the whole (square) photo
PADDING = {"black": "zeros", "edge": "border", "mirror": "reflection"}
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision's rgb_to_grayscale


@dataclass(frozen=True)
class Views:
    """How each of N photos is to be seen."""

    affine: Tensor
    """(N, 2, 3) float32: from a point of the result to one of the photo, both in [-1, 1]²"""
    colour: Tensor
    """(N, 3) float32: factors on brightness, contrast and saturation"""

    def __getitem__(self, index: Tensor) -> Self:
        """Return the views of the photos at `index`."""
        return type(self)(self.affine[index], self.colour[index])

    def to(self, device: torch.device) -> Self:
        """Return the views on a device."""
        return type(self)(self.affine.to(device), self.colour.to(device))


def draw(settings: Augmentation, photos: int, generator: torch.Generator) -> Views:
    """Return random views for a number of photos, each drawn by itself from a CPU generator."""
    centre, half = draw_boxes(settings, photos, generator)
    mirrored = torch.rand(photos, generator=generator) < settings.flip
    degrees = _between(-settings.rotation, settings.rotation, (photos,), generator)
    strengths = torch.tensor([settings.brightness, settings.contrast, settings.saturation])
    colour = 1 + strengths * _between(-1, 1, (photos, 3), generator)
    return Views(affine_maps(centre, half, mirrored, degrees), colour)


def draw_boxes(
    settings: Augmentation, photos: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return centres and half sides (N, 2; x then y) of random boxes inside [-1, 1]².

    Area and log aspect are uniform; of ten tries the first that fits counts, else the whole photo
    (Szegedy et al. 2014, arXiv:1409.4842, as in torchvision's RandomResizedCrop).
    """
    tries = (photos, CROP_TRIES)
    area = _between(settings.crop_scale_min, settings.crop_scale_max, tries, generator)
    widest = math.log(settings.crop_aspect)
    aspect = torch.exp(_between(-widest, widest, tries, generator))
    sides = torch.stack([torch.sqrt(area * aspect), torch.sqrt(area / aspect)], dim=-1)
    fits = (sides <= 1).all(-1)
    first = fits.int().argmax(1)
    half = sides[torch.arange(photos), first]
    half[~fits.any(1)] = 1
    centre = _between(-1, 1, (photos, 2), generator) * (1 - half)
    return centre, half


def affine_maps(centre: Tensor, half: Tensor, mirrored: Tensor, degrees: Tensor) -> Tensor:
    """Return the affine maps (N, 2, 3) from a result's points to the photo's, both in [-1, 1]².

    `centre` and `half` (N, 2) are the box, cut out of the photo after it was turned by `degrees`
    (N, counter-clockwise); `mirrored` (N) tells whether the result is mirrored.
    """
    sign = 1 - 2 * mirrored.float()
    radians = torch.deg2rad(degrees)
    cos, sin = torch.cos(radians), torch.sin(radians)
    # A point p of the turned photo was at R·p before, with y pointing down.
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], dim=1)
    scale = torch.stack([half[:, 0] * sign, half[:, 1]], -1)
    return torch.cat([turn * scale[:, None, :], turn @ centre[:, :, None]], dim=2)


def render(photos: Tensor, views: Views, image_size: int, fill: str) -> Tensor:
    """Return the views (N, 3, S, S), float32 in [0, 1], of uint8 photos (N, H, W, 3)."""
    source = photos.permute(0, 3, 1, 2).float() / 255
    grid = F.affine_grid(
        views.affine, [len(photos), 3, image_size, image_size], align_corners=False
    )
    seen = F.grid_sample(
        source, grid, mode="bilinear", padding_mode=PADDING[fill], align_corners=False
    )
    return jitter(seen, views.colour)


def jitter(photos: Tensor, colour: Tensor) -> Tensor:
    """Return photos (N, 3, H, W) with brightness, contrast and saturation multiplied, in [0, 1].

    In this order, each clamped, by the formulas of torchvision's adjust_brightness and so on:
    contrast moves away from the mean grey of the photo, saturation from the grey of the pixel.
    """
    if bool((colour == 1).all()):
        return photos
    brightness, contrast, saturation = colour[:, :, None, None, None].unbind(1)
    photos = (photos * brightness).clamp_(0, 1)
    mean = grey(photos).mean((1, 2, 3), keepdim=True)
    photos = torch.lerp(mean, photos, contrast).clamp_(0, 1)
    return torch.lerp(grey(photos), photos, saturation).clamp_(0, 1)


def grey(photos: Tensor) -> Tensor:
    """Return the luma (N, 1, H, W) of photos (N, 3, H, W)."""
    red, green, blue = photos.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def _between(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
