"""The processes of one training: each computes a share of every batch, and the first one writes.

They are started by torch.distributed's launcher (`catdog train --devices`, or torchrun), which
tells each by its environment which one it is. Nothing that is drawn depends on how many there are.
"""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from catdog.errors import CatdogError, Stopped
from catdog.model.devices import Device
from catdog.support.stop_signals import StopRequest

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """How many processes train together, and which of them this is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """which one it is on its machine"""
    local_size: int = 1
    """how many there are on its machine"""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and lines of log."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def share(self, count: int) -> slice:
        """Return which of `count` things are this process's: a run of them."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def same(self, value: T) -> T:
        """Return the first process's `value` in each of them."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Return the `value` of each process, in their order."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network such that backward leaves the mean gradient in every process."""
        if self.size == 1:
            return network
        with warnings.catch_warnings():
            # torch 2.14 would like a new name, which older ones do not know.
            warnings.simplefilter("ignore", FutureWarning)
            # Norm statistics are the same in all of them already, see norms.py. To find
            # unused parameters (there are none) keeps torch from sorting the gradients anew after
            # the first step: with three processes their place decides in which order they are
            # summed, so that a training which goes on would differ in the last bit.
            return DistributedDataParallel(
                network, broadcast_buffers=False, find_unused_parameters=True
            )


ALONE = Group()


def from_environment() -> Group:
    """Return the group that the launcher's variables, RANK and so on, tell of."""
    rank, local_rank = (int(os.environ.get(key, "0")) for key in ("RANK", "LOCAL_RANK"))
    size, local_size = (int(os.environ.get(key, "1")) for key in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return Group(rank, size, local_rank, local_size)


def refuse_too_many(group: Group, photos: int) -> None:
    """Raise CatdogError when a batch of `photos`, the smallest, has none for some process."""
    if photos < group.size:
        raise CatdogError(
            f"batches of {photos} photos cannot be shared by {group.size} processes; train on "
            f"fewer devices (--devices) or raise train.batch_size in params.yaml"
        )


class LostContactError(CatdogError):
    """Another process of the training is gone: the one that is left goes too."""


@contextmanager
def joined(group: Group, device: torch.device, stop: StopRequest) -> Iterator[None]:
    """Connect the processes of a group, over NCCL on CUDA devices and over gloo elsewhere.

    Waits for all to come, however long one of them waits for its device. Raises Stopped when `stop`
    is asked for meanwhile, and LostContactError when a process dies while the context lasts.
    """
    if group.size == 1:
        yield
        return
    try:
        store = _meet(group, stop)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=group.rank, world_size=group.size)
        yield
        # Not after an error: it could wait for a process that is gone.
        dist.destroy_process_group()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise LostContactError(
                "lost contact with the other processes of this training, of which one has ended; "
                "the same command goes on from the last checkpoint, if there is one"
            ) from None
        raise


def _meet(group: Group, stop: StopRequest) -> Store:
    """Return the store through which the processes connect, when all of them have come."""
    with_all = rendezvous("env://", group.rank, group.size, timeout=timedelta(days=7))
    store: Store = next(with_all)[0]
    store.add("here", 1)
    while store.add("here", 0) < group.size:
        if stop:
            raise Stopped("stopped before the training began")
        time.sleep(0.1)
    return store


def local_devices(device: Device, group: Group) -> list[torch.device]:
    """Return the devices of all processes of the group on this machine; `device` is the first's."""
    if device.torch_device.type != "cuda":
        return [device.torch_device]
    first = device.torch_device.index
    return [torch.device("cuda", first + index) for index in range(group.local_size)]
