"""Random views of training photos: one draw a photo, one resampling, on the device.

Crop, mirror and rotation are one affine map a photo, so that a batch is resampled once by one
`grid_sample`. The order is that of the seed's torchvision transforms: the photo is rotated about
its centre, a box is cut out of the result, and the box is mirrored. Colours follow.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from catdog.params import Augmentation

CROP_TRIES = 10  # as torchvision's RandomResizedCrop, which then takes the whole (square) photo
PADDING = {"black": "zeros", "edge": "border", "mirror": "reflection"}
# ITU-R BT.601 as in torchvision's rgb_to_grayscale, there rounded to a sum of 0.9999
LUMA = (0.299, 0.587, 0.114)
CACHE = 2_000_000  # bytes of photos, as float, that are rendered at a time on a CPU


@dataclass(frozen=True)
class Views:
    """How each of N photos is to be seen."""

    affine: Tensor
    """(N, 2, 3) float32: from a point of the result to one of the photo, both in [-1, 1]²"""
    colour: Tensor
    """(N, 3) float32: factors on brightness, contrast and saturation"""

    def __getitem__(self, index: Tensor | slice) -> Self:
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


def render(
    photos: Tensor,
    views: Views,
    image_size: int,
    fill: str,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """Return the views (N, 3, S, S), float32, channels-last, of uint8 photos (N, 3, H, W).

    Each is (view - mean) / std, of a view in [0, 1]. Colour, scale and normalization are one matrix
    and one offset a photo, so that they cost one product. On a CPU it is a few photos at a time:
    what they pass through then stays in its cache.
    """
    seen = torch.empty((len(photos), image_size**2, 3), device=photos.device)
    by_x, by_y = grid_axes(views.affine, image_size)
    matrix, grey, offset = colour_maps(views.colour, mean, std)
    few = len(photos)
    if photos.device.type == "cpu":
        few = max(1, CACHE // (4 * photos[0].numel()))
    for start in range(0, len(photos), few):
        part = slice(start, start + few)
        sampled = F.grid_sample(
            photos[part].float(),
            sampling_grid(by_x[part], by_y[part]),
            mode="bilinear",
            padding_mode=PADDING[fill],
            align_corners=False,
        ).flatten(2)
        shift = torch.baddbmm(offset, grey[part], sampled.mean(2, keepdim=True))
        coloured = torch.baddbmm(shift, matrix[part], sampled)
        # The same as seen[part] = coloured.mT, and a fifth faster on a CPU.
        torch.stack(coloured.unbind(1), dim=-1, out=seen[part])
    return seen.view(-1, image_size, image_size, 3).permute(0, 3, 1, 2)


def grid_axes(affine: Tensor, image_size: int) -> tuple[Tensor, Tensor]:
    """Return what x (N, 2, 1, S) and y (N, 2, S, 1) of a point add to where it looks.

    `affine` (N, 2, 3) are maps from a point of the result to one of the photo, both in [-1, 1]².
    """
    axis = (torch.arange(image_size, device=affine.device) * 2 + 1) / image_size - 1
    by_x = affine[:, :, 0, None] * axis
    by_y = affine[:, :, 1, None] * axis + affine[:, :, 2, None]
    return by_x[:, :, None, :], by_y[:, :, :, None]


def sampling_grid(by_x: Tensor, by_y: Tensor) -> Tensor:
    """Return the points (N, S, S, 2) at which maps look into a photo, for grid_sample.

    The same as F.affine_grid(align_corners=False), but ten times as fast on a CPU: one sum, with x
    and y of all points apart in memory, which grid_sample takes as well.
    """
    return (by_x + by_y).permute(0, 2, 3, 1)


def colour_maps(
    colour: Tensor, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return two matrices a photo (N, 3, 3) and an offset (1, 3, 1) that colour and normalize.

    A pixel p in [0, 255] of a photo whose mean colour is m becomes `first @ p + second @ m +
    offset`. `colour` (N, 3) are factors on brightness, contrast and saturation, applied in this
    order by the formulas of torchvision's adjust_brightness and so on, but without cutting off what
    leaves [0, 1], which makes them linear: contrast moves away from the mean grey of the photo, and
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
    """Return numbers on a device, sent once: on CUDA that waits for all steps that are queued."""
    return torch.tensor(values, device=device)


def _between(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
