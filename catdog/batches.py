"""Seeded epochs over the packed arrays, straight to the device."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from catdog import augment
from catdog.params import Augmentation
from catdog.trained import normalize, resize

# Photos are shrunk once, antialiased, to this much above the size of the views: crops then lose
# little sharpness, and one bilinear sample a pixel does not alias.
OVERSAMPLING = 1.25
CHUNK = 512  # photos shrunk at a time


def seed_of(*numbers: int) -> int:
    """Return a 64-bit seed for a purpose named by numbers such as (seed, epoch, step).

    Seeds are mixed by numpy's SeedSequence, so neighbouring numbers give unrelated streams; none
    depends on what was drawn before, so any epoch can be replayed alone.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def generator_of(*numbers: int) -> torch.Generator:
    """Return a CPU generator seeded by `seed_of`."""
    return torch.Generator().manual_seed(seed_of(*numbers))


class Photos:
    """The training photos, kept on the device at the size that the present views need."""

    def __init__(
        self, photos: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], device: torch.device
    ) -> None:
        self._stored = photos
        self._device = device
        self._resident = torch.empty(0)
        self.labels = torch.from_numpy(labels).to(device)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self._stored)

    def at(self, image_size: int) -> Tensor:
        """Return all photos (N, S, S, 3) as uint8 on the device, S a bit above `image_size`."""
        side = min(self._stored.shape[1], math.ceil(image_size * OVERSAMPLING))
        if self._resident.shape[1:2] != (side,):
            self._resident = torch.empty(0)  # let go of the old ones first
            self._resident = torch.cat([self._shrunk(start, side) for start in self._starts()])
        return self._resident

    def _starts(self) -> range:
        return range(0, len(self._stored), CHUNK)

    def _shrunk(self, start: int, side: int) -> Tensor:
        chunk = torch.from_numpy(self._stored[start : start + CHUNK].copy())
        small = resize(chunk.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)
        return small.contiguous().to(self._device)


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per channel, of values in [0, 1]."""

    mean: list[float]
    std: list[float]


@dataclass
class Batch:
    """What one step is trained on."""

    inputs: Tensor
    """(N, 3, S, S) float32, normalized, channels-last"""
    labels: Tensor
    """(N,) int64"""
    seconds: float
    """that it took to make"""


def epoch(
    photos: Photos,
    settings: Augmentation,
    normalization: Normalization,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    number: int,
) -> Iterator[Batch]:
    """Yield the batches of epoch `number`: every photo once, in random order, each seen anew.

    Order and views are drawn for the whole epoch from (seed, number) alone. Batches differ by at
    most one photo and hold at most `batch_size`, so that no small one with a full step ends it.
    """
    generator = generator_of(seed, number)
    order = torch.randperm(len(photos), generator=generator)
    views = augment.draw(settings, len(photos), generator)
    resident = photos.at(image_size)
    device = resident.device
    for chosen in order.tensor_split(steps_an_epoch(len(photos), batch_size)):
        start = time.perf_counter()
        index = chosen.to(device)
        seen = augment.render(resident[index], views[chosen].to(device), image_size, settings.fill)
        inputs = normalize(seen, normalization.mean, normalization.std)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        yield Batch(inputs, photos.labels[index], time.perf_counter() - start)


def steps_an_epoch(photos: int, batch_size: int) -> int:
    """Return the number of batches of an epoch."""
    return math.ceil(photos / batch_size)


def image_size_at(
    progress: float, start: int, end: int, grow_from: float, grow_until: float
) -> int:
    """Return the side of the photos (`start`, `end`, or a multiple of 16) at `progress` in [0, 1].

    It grows in a straight line from `start` at `grow_from` to `end` at `grow_until`: progressive
    resizing, as in ffcv's rn50 example (https://github.com/libffcv/ffcv-imagenet).
    """
    if progress >= grow_until:
        return end
    if progress <= grow_from:
        return start
    share = (progress - grow_from) / (grow_until - grow_from)
    return max(start, min(end, round((start + share * (end - start)) / 16) * 16))
