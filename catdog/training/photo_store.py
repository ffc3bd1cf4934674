"""The training photos in memory, at the size that an epoch needs."""

import math
import mmap
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

from catdog.model.inputs import resize

# Photos are resized once, antialiased, to this much above the image size of training: crops then
# lose little sharpness, and one bilinear sample per pixel does not alias.
OVERSAMPLING = 1.25


class PhotoStore:
    """The training photos at the size of the current epoch, resident on the device if they fit.

    A photo is resized when it is first used at an image size, so that the work is spread over the
    steps of an epoch, and stays resident if all photos fit. If they do not fit, photos are resized
    each time they are used. Copies to CUDA use pinned memory, so that they do not block.
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
        """Resize and load the photos that are not resident yet."""
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
    """Return how many threads resize photos; on a CPU, the other threads train."""
    return 1 if device.type == "cpu" else torch.get_num_threads()


def free_memory(device: torch.device) -> int:
    """Return half of the free memory of a device, in bytes: what resident photos may use."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    return int(psutil.virtual_memory().available) // 2
