"""Data-parallel training: each process computes a shard of every batch; rank 0 writes the outputs.

The processes are started by torch.distributed's launcher (`catdog train --devices`, or torchrun),
which sets the rank of each in its environment. Order and augmentation of the photos do not depend
on the number of processes.
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
    """The processes that train together, and the rank of this one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """rank among the processes of its machine"""
    local_size: int = 1
    """number of processes of its machine"""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the files and the log."""
        return self.rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over the processes, computed in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def shard(self, count: int) -> slice:
        """Return which of `count` consecutive items belong to this process."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def broadcast(self, value: T) -> T:
        """Return the `value` of rank 0 in every process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def all_gather(self, value: T) -> list[T]:
        """Return the `value` of each process, by rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network wrapped so that backward averages the gradients over the processes."""
        if self.size == 1:
            return network
        with warnings.catch_warnings():
            # torch 2.14 warns about a renamed argument; older versions do not have the new name.
            warnings.simplefilter("ignore", FutureWarning)
            # Buffers (norm statistics) are equal already, see sync_batch_norm.py. With
            # find_unused_parameters, although every parameter is used, DDP does not rebuild
            # gradient buckets after the first step. Their layout decides the order of summation, so
            # resumed training with three or more processes would otherwise differ in the last bit.
            # pytorch/pytorch#153404 proposes to rebuild them in this case, too.
            return DistributedDataParallel(
                network, broadcast_buffers=False, find_unused_parameters=True
            )


SINGLE = Group()


def from_environment() -> Group:
    """Return the group described by the variables of torch's launcher (RANK, WORLD_SIZE, …).

    Without RANK, no launcher has started this process, and the other variables have no meaning.
    """
    if "RANK" not in os.environ:
        return SINGLE
    rank, local_rank = (int(os.environ.get(key, "0")) for key in ("RANK", "LOCAL_RANK"))
    size, local_size = (int(os.environ.get(key, "1")) for key in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return Group(rank, size, local_rank, local_size)


def check_batch_is_large_enough(group: Group, photos: int) -> None:
    """Raise CatdogError if the smallest batch, of `photos`, has fewer photos than processes."""
    if photos < group.size:
        raise CatdogError(
            f"--devices: {group.size} processes cannot share batches of {photos} photos; use fewer "
            "devices, or raise train.batch_size in params.yaml"
        )


class PeerExitedError(CatdogError):
    """Another process of the training run has exited, so this one exits too."""


@contextmanager
def joined(group: Group, device: torch.device, stop: StopRequest) -> Iterator[None]:
    """Connect the processes of a group, over NCCL on CUDA devices and over Gloo elsewhere.

    Waits until all have connected, also while one of them waits for its device. Raises Stopped if
    `stop` is requested during the wait, and PeerExitedError if another process exits unexpectedly.
    """
    if group.size == 1:
        yield
        return
    try:
        store = _rendezvous(group, stop)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=group.rank, world_size=group.size)
        yield
        # Not after an error: it could wait for a process that has exited.
        dist.destroy_process_group()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise PeerExitedError(
                "another process of this training run exited unexpectedly; run the same command "
                "to resume from the last checkpoint, if there is one"
            ) from None
        raise


def _rendezvous(group: Group, stop: StopRequest) -> Store:
    """Return the store through which the processes connect, once all of them have joined."""
    stores = rendezvous("env://", group.rank, group.size, timeout=timedelta(days=7))
    store: Store = next(stores)[0]
    store.add("joined", 1)
    while store.add("joined", 0) < group.size:
        if stop:
            raise Stopped("stopped before training started")
        time.sleep(0.1)
    return store


def local_devices(device: Device, group: Group) -> list[torch.device]:
    """Return the devices that the group uses on this machine, if this is local rank 0, else [].

    The process of local rank 0 locks them for all.
    """
    if group.local_rank != 0:
        return []
    if device.torch_device.type != "cuda":
        return [device.torch_device]
    first = device.torch_device.index
    return [torch.device("cuda", first + index) for index in range(group.local_size)]
