"""Augmented batches in a seeded random order; each is prepared during the previous step."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from catdog.dataset.prepared import ChannelStats
from catdog.params import Augmentation
from catdog.training import augmentation
from catdog.training.distributed import SINGLE, Group
from catdog.training.photo_store import PhotoStore
from catdog.training.seeds import make_generator


@dataclass
class Batch:
    """The input of one training step."""

    inputs: Tensor
    """(N, 3, S, S) float32, normalized, channels-last"""
    labels: Tensor
    """(N,) int64"""
    photos: int
    """number of photos in the whole batch, of which N may be the shard of this process"""
    waited: float = 0.0
    """seconds that training waited for this batch"""


def epoch_batches(
    photos: PhotoStore,
    settings: Augmentation,
    normalization: ChannelStats,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    epoch: int,
    first: int = 0,
    group: Group = SINGLE,
) -> Iterator[Batch]:
    """Yield the batches of an epoch: every photo once, in random order, with new augmentation.

    Order and transforms of the whole epoch depend only on (seed, epoch). Batch sizes differ by at
    most one photo, so that an epoch does not end with a small batch; see `steps_per_epoch`.
    With `first` the epoch begins at that batch. A process of a `group` gets its shard of each. A
    helper thread prepares the next batch during a step.
    """
    start = time.perf_counter()
    photos.set_size(image_size)
    generator = make_generator(seed, epoch)
    order = torch.randperm(len(photos), generator=generator)
    # Copy to the device once per epoch: on CUDA each copy waits for all queued steps.
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
        batch.waited = time.perf_counter() - start
        yield batch
        start = time.perf_counter()


def _even_ranges(count: int, parts: int) -> list[range]:
    """Return `parts` consecutive ranges over `count` items, whose lengths differ by at most one."""
    sizes = [count // parts + (part < count % parts) for part in range(parts)]
    return [range(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _prefetch(made: Iterator[Batch]) -> Iterator[Batch]:
    """Yield what `made` yields, each prepared in a helper thread while the previous one is used."""

    def one_core() -> None:
        # Applies to this thread and to threads started later; the training thread keeps its number.
        torch.set_num_threads(1)

    with ThreadPoolExecutor(1, thread_name_prefix="photos", initializer=one_core) as helper:
        next_batch = helper.submit(next, made, None)
        while (batch := next_batch.result()) is not None:
            next_batch = helper.submit(next, made, None)
            yield batch


def steps_per_epoch(photos: int, batch_size: int) -> int:
    """Return the number of batches of an epoch, of at most `batch_size` photos each.

    With a `batch_size` of 2 and an odd number of photos, one batch has 3 photos: batch norm cannot
    compute statistics of a single photo whose feature maps have one pixel. A `batch_size` of 1 is
    for networks without batch norm.
    """
    steps = math.ceil(photos / batch_size)
    return steps if batch_size == 1 else min(steps, max(1, photos // 2))


def extreme_sizes(photos: int, steps: int) -> tuple[int, int]:
    """Return how many photos the smallest and the largest of `steps` batches have."""
    return photos // steps, math.ceil(photos / steps)
