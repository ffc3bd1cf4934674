"""Seeded epochs of batches from the prepared arrays, augmented on the device."""

import math
import mmap
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

from catdog.model.inputs import Normalization, resize
from catdog.params import Augmentation
from catdog.training import augmentation
from catdog.training.distributed import SINGLE, Group

# Photos are resized once, antialiased, to this much above the image size of training: crops then
# lose little sharpness, and one bilinear sample per pixel does not alias.
OVERSAMPLING = 1.25


def derive_seed(*numbers: int) -> int:
    """Return a 64-bit seed derived from numbers such as (seed, epoch, step).

    numpy's SeedSequence mixes them, so that neighbouring numbers give independent streams. A seed
    does not depend on earlier draws, so any epoch can be repeated alone.
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def make_generator(*numbers: int) -> torch.Generator:
    """Return a CPU generator seeded with `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*numbers))


class PhotoStore:
    """The training photos at the size of the current epoch, resident on the device if they fit.

    A photo is resized when it is first needed at a size, and stays resident if all of them fit: so
    the work is spread over the steps of an epoch. If they do not fit, it is resized each time.
    Copies to CUDA use pinned memory, so that they do not block.
    """

    def __init__(
        self,
        photos: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        device: torch.device,
        memory: int | None = None,
    ) -> None:
        """`memory`: bytes for resident photos (default: half of the free memory)."""
        self._stored = photos
        self._device = device
        self._memory = free_memory(device) if memory is None else memory
        self._resident = torch.empty(0)
        self._loaded = torch.empty(0, dtype=torch.bool)  # which photos are resident
        self._side = 0
        self._threads = resize_threads(device)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="resize")
        self.labels = torch.from_numpy(labels).to(device)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self._stored)

    def set_size(self, image_size: int) -> bool:
        """Resize photos for training at `image_size` from now on; return whether all fit."""
        side = min(self._stored.shape[1], math.ceil(image_size * OVERSAMPLING))
        if side == self._side:
            return len(self._resident) > 0
        self._side, self._resident = side, torch.empty(0)  # free the old ones first
        if len(self) * 3 * side**2 > self._memory:
            return False
        self._resident = self._empty(len(self), 3, side, side)
        self._loaded = torch.zeros(len(self), dtype=torch.bool)
        return True

    def _empty(self, *shape: int) -> Tensor:
        """Return an uninitialized uint8 tensor whose memory is returned to the system when freed.

        Memory from malloc is not, see `devices.keep_freed_memory`.
        """
        if self._device.type != "cpu":
            return torch.empty(shape, dtype=torch.uint8, device=self._device)
        return torch.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=torch.uint8).view(shape)

    def batches(self, order: Tensor, parts: Iterable[slice]) -> Iterator[Tensor]:
        """Yield the photos (N, 3, S, S), uint8 on the device, of each slice of `order`.

        `order` holds indices of photos, on the CPU. S was set by `set_size`.
        """
        on_device = order.to(self._device)  # once: on CUDA a copy waits for all queued steps
        for part in parts:
            if len(self._resident):
                self._load(order[part])
                # Ten times as fast as [on_device[part]] on a CPU, since it copies whole photos
                yield self._resident.index_select(0, on_device[part])
            else:
                yield self._resize(order[part])

    def _load(self, chosen: Tensor) -> None:
        """Make photos resident that are not yet."""
        new = chosen[~self._loaded[chosen]]
        if len(new):
            self._resident.index_copy_(0, new.to(self._device), self._resize(new))
            self._loaded[new] = True

    def _resize(self, chosen: Tensor) -> Tensor:
        """Return stored photos (N, 3, S, S), resized."""

        def resize_part(part: Tensor) -> Tensor:
            photos = torch.from_numpy(self._stored[part.numpy()])
            return resize(photos.permute(0, 3, 1, 2), self._side).contiguous()

        # torch resizes uint8 in one thread, however many it has
        small = torch.cat(list(self._pool.map(resize_part, chosen.tensor_split(self._threads))))
        if self._device.type == "cuda":
            return small.pin_memory().to(self._device, non_blocking=True)
        return small.to(self._device)


def resize_threads(device: torch.device) -> int:
    """Return how many threads resize photos during training; a CPU needs the others itself."""
    return 1 if device.type == "cpu" else torch.get_num_threads()


def free_memory(device: torch.device) -> int:
    """Return half of the free memory of a device, in bytes: what resident photos may use."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    return int(psutil.virtual_memory().available) // 2


@dataclass
class Batch:
    """The input of one training step."""

    inputs: Tensor
    """(N, 3, S, S) float32, normalized, channels-last"""
    labels: Tensor
    """(N,) int64"""
    photos: int
    """number of photos in the whole batch, of which N may be the shard of this process"""
    seconds: float = 0.0
    """that the training waited for this batch"""


def epoch_batches(
    photos: PhotoStore,
    settings: Augmentation,
    normalization: Normalization,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    epoch: int,
    first: int = 0,
    group: Group = SINGLE,
) -> Iterator[Batch]:
    """Yield the batches of an epoch: every photo once, in random order, with new augmentation.

    Order and transforms are drawn for the whole epoch from (seed, epoch) alone. Batch sizes differ
    by at most one photo and do not exceed `batch_size`, so that an epoch does not end with a small
    batch. With `first` the epoch begins at that batch. A process of a `group` gets its shard of
    each. A helper thread prepares the next batch during a step.
    """
    start = time.perf_counter()
    photos.set_size(image_size)
    generator = make_generator(seed, epoch)
    order = torch.randperm(len(photos), generator=generator)
    # To the device once per epoch: on CUDA each copy waits for all queued steps.
    transforms = augmentation.draw_transforms(settings, len(photos), generator)
    transforms = transforms[order].to(photos.labels.device)
    labels = photos.labels[order.to(photos.labels.device)]
    wholes = _even_ranges(len(photos), steps_per_epoch(len(photos), batch_size))[first:]
    shards = [whole[group.shard(len(whole))] for whole in wholes]
    parts = [slice(shard.start, shard.stop) for shard in shards]

    def make() -> Iterator[Batch]:
        for part, whole, pixels in zip(parts, wholes, photos.batches(order, parts), strict=True):
            scale = normalization.mean, normalization.std
            inputs = augmentation.apply_transforms(
                pixels, transforms[part], image_size, settings.fill, *scale
            )
            yield Batch(inputs, labels[part], len(whole))

    for batch in _prefetch(make()):
        batch.seconds = time.perf_counter() - start
        yield batch
        start = time.perf_counter()


def _even_ranges(count: int, parts: int) -> list[range]:
    """Return `parts` consecutive ranges over `count` items, whose lengths differ by at most one."""
    sizes = [count // parts + (part < count % parts) for part in range(parts)]
    return [range(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _prefetch(made: Iterator[Batch]) -> Iterator[Batch]:
    """Yield what `made` yields, each prepared in a helper thread while the previous one is used."""

    def one_core() -> None:
        # Of this thread and of later ones: the training thread keeps its own number.
        torch.set_num_threads(1)

    with ThreadPoolExecutor(1, thread_name_prefix="photos", initializer=one_core) as helper:
        next_batch = helper.submit(next, made, None)
        while (batch := next_batch.result()) is not None:
            next_batch = helper.submit(next, made, None)
            yield batch


def steps_per_epoch(photos: int, batch_size: int) -> int:
    """Return the number of batches of an epoch."""
    return math.ceil(photos / batch_size)


def image_size_at(
    progress: float, start: int, end: int, grow_from: float, grow_until: float
) -> int:
    """Return the side of the training photos (`start`, `end`, or a multiple of 16), in pixels.

    `progress`, `grow_from` and `grow_until` are shares of the training in [0, 1]. The side grows
    linearly from `start` at `grow_from` to `end` at `grow_until`: progressive
    resizing, as in ffcv's rn50 example (https://github.com/libffcv/ffcv-imagenet).
    """
    if progress >= grow_until:
        return end
    if progress <= grow_from:
        return start
    share = (progress - grow_from) / (grow_until - grow_from)
    return max(start, min(end, round((start + share * (end - start)) / 16) * 16))
