"""Seeded epochs over the packed arrays, straight to the device."""

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
from catdog.training.distributed import ALONE, Group

# Photos are shrunk once, antialiased, to this much above the size of the views: crops then lose
# little sharpness, and one bilinear sample a pixel does not alias.
OVERSAMPLING = 1.25


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
    """The training photos at the size that the present views need, on the device if they fit.

    A photo is shrunk when it is first asked for at a size, and kept if all of them fit: the work is
    spread over an epoch, beside its steps. If they do not fit, it is shrunk each time. Photos go to
    CUDA through pinned memory, so that who sends them need not wait until they are there.
    """

    def __init__(
        self,
        photos: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        device: torch.device,
        room: int | None = None,
    ) -> None:
        """`room`: bytes that resident photos may take; left out, half of what is free."""
        self._stored = photos
        self._device = device
        self._room = free_memory(device) if room is None else room
        self._resident = torch.empty(0)
        self._there = torch.empty(0, dtype=torch.bool)  # which of the resident ones have come
        self._side = 0
        self._threads = threads_beside(device)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="shrink")
        self.labels = torch.from_numpy(labels).to(device)

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self._stored)

    def set_size(self, image_size: int) -> bool:
        """Let `batches` yield photos for views of `image_size`; return whether all of them fit."""
        side = min(self._stored.shape[1], math.ceil(image_size * OVERSAMPLING))
        if side == self._side:
            return len(self._resident) > 0
        self._side, self._resident = side, torch.empty(0)  # let go of the old ones first
        if len(self) * 3 * side**2 > self._room:
            return False
        self._resident = self._empty(len(self), 3, side, side)
        self._there = torch.zeros(len(self), dtype=torch.bool)
        return True

    def _empty(self, *shape: int) -> Tensor:
        """Return an uint8 tensor whose memory goes back to the system when it is let go of.

        What malloc gives does not: `devices.keep_freed_memory`.
        """
        if self._device.type != "cpu":
            return torch.empty(shape, dtype=torch.uint8, device=self._device)
        return torch.frombuffer(mmap.mmap(-1, math.prod(shape)), dtype=torch.uint8).view(shape)

    def batches(self, order: Tensor, parts: Iterable[slice]) -> Iterator[Tensor]:
        """Yield the photos (N, 3, S, S), uint8 on the device, of each part of `order` in turn.

        `order` holds their numbers, on the CPU. `set_size` has set S, a bit above that of views.
        """
        on_device = order.to(self._device)  # once: on CUDA it waits for all steps that are queued
        for part in parts:
            if len(self._resident):
                self._bring(order[part])
                # Ten times as fast as [on_device[part]] on a CPU: it copies whole photos.
                yield self._resident.index_select(0, on_device[part])
            else:
                yield self._shrink(order[part])

    def _bring(self, chosen: Tensor) -> None:
        """Make photos resident that are not there yet."""
        new = chosen[~self._there[chosen]]
        if len(new):
            self._resident.index_copy_(0, new.to(self._device), self._shrink(new))
            self._there[new] = True

    def _shrink(self, chosen: Tensor) -> Tensor:
        """Return stored photos, shrunk."""

        def shrink(part: Tensor) -> Tensor:
            photos = torch.from_numpy(self._stored[part.numpy()])
            return resize(photos.permute(0, 3, 1, 2), self._side).contiguous()

        # torch resizes uint8 in one thread, however many it has
        small = torch.cat(list(self._pool.map(shrink, chosen.tensor_split(self._threads))))
        if self._device.type == "cuda":
            return small.pin_memory().to(self._device, non_blocking=True)
        return small.to(self._device)


def threads_beside(device: torch.device) -> int:
    """Return how many threads may shrink photos while a device trains: a CPU trains itself."""
    return 1 if device.type == "cpu" else torch.get_num_threads()


def free_memory(device: torch.device) -> int:
    """Return how many bytes of a device's memory resident photos may take: half of what is free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    return int(psutil.virtual_memory().available) // 2


@dataclass
class Batch:
    """What one step is trained on."""

    inputs: Tensor
    """(N, 3, S, S) float32, normalized, channels-last"""
    labels: Tensor
    """(N,) int64"""
    photos: int
    """of the whole batch, of which N may be this process's share"""
    seconds: float = 0.0
    """that whoever asked for it has waited"""


def epoch(
    photos: Photos,
    settings: Augmentation,
    normalization: Normalization,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    number: int,
    first: int = 0,
    group: Group = ALONE,
) -> Iterator[Batch]:
    """Yield the batches of epoch `number`: every photo once, in random order, each seen anew.

    Order and views are drawn for the whole epoch from (seed, number) alone. Batches differ by at
    most one photo and hold at most `batch_size`, so that no small one with a full step ends it.
    With `first` the epoch begins at that batch. A process of a `group` gets its share of each.
    While a batch is used a helper thread makes the next one.
    """
    start = time.perf_counter()
    photos.set_size(image_size)
    generator = generator_of(seed, number)
    order = torch.randperm(len(photos), generator=generator)
    # To the device once an epoch: on CUDA each copy waits for all steps that are queued.
    views = augmentation.draw(settings, len(photos), generator)[order].to(photos.labels.device)
    labels = photos.labels[order.to(photos.labels.device)]
    wholes = _runs(len(photos), steps_an_epoch(len(photos), batch_size))[first:]
    shares = [whole[group.share(len(whole))] for whole in wholes]
    parts = [slice(share.start, share.stop) for share in shares]

    def make() -> Iterator[Batch]:
        for part, whole, pixels in zip(parts, wholes, photos.batches(order, parts), strict=True):
            scale = normalization.mean, normalization.std
            inputs = augmentation.render(pixels, views[part], image_size, settings.fill, *scale)
            yield Batch(inputs, labels[part], len(whole))

    for batch in _one_ahead(make()):
        batch.seconds = time.perf_counter() - start
        yield batch
        start = time.perf_counter()


def _runs(count: int, parts: int) -> list[range]:
    """Return `count` numbers in runs whose lengths differ by at most one, the longer ones first."""
    sizes = [count // parts + (part < count % parts) for part in range(parts)]
    return [range(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _one_ahead(made: Iterator[Batch]) -> Iterator[Batch]:
    """Yield what `made` yields, each made in a helper thread while the one before is used."""

    def one_core() -> None:
        torch.set_num_threads(1)  # of this thread and of later ones: the training keeps its own

    with ThreadPoolExecutor(1, thread_name_prefix="photos", initializer=one_core) as helper:
        coming = helper.submit(next, made, None)
        while (batch := coming.result()) is not None:
            coming = helper.submit(next, made, None)
            yield batch


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
