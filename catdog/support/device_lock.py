"""File locks: one training run per GPU; on the CPU, as many as fit on its cores.

Each core is a lock of its own, and a training run on the CPU holds as many as it has threads.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import torch

from catdog.errors import CatdogError
from catdog.support.recorded_lock import POLL_SECONDS, RecordedLock

QUEUE = "cpu-queue"  # held by the one training run that is collecting cores


@contextmanager
def hold(
    devices: Iterable[torch.device], threads: int, log: Callable[[str], None]
) -> Iterator[None]:
    """Hold the locks of `devices` inside the block, waiting for those that other processes hold.

    On the CPU, `threads` cores are locked, or all cores if there are fewer. Before a wait, `log`
    gets one line that names the holders. The environment variable CATDOG_LOCKS sets the folder of
    the lock files (default: catdog-locks in the temporary folder); empty, it disables locking.
    CATDOG_CORES is the number of cores for training runs (default: all that `cores` returns).
    Raises CatdogError if it is not a positive integer.
    """
    folder = os.environ.get("CATDOG_LOCKS", str(Path(tempfile.gettempdir()) / "catdog-locks"))
    with ExitStack() as stack:
        # In the order of their names, so that two training runs cannot deadlock.
        for device in sorted(set(devices), key=lock_name) if folder else ():
            _make_shared(Path(folder))
            if device.type == "cpu":
                _acquire_cores(Path(folder), threads, log, stack)
            else:
                _acquire(RecordedLock(Path(folder), lock_name(device)), device, log, stack)
        yield


def lock_name(device: torch.device) -> str:
    """Return a name for the physical device, independent of CUDA_VISIBLE_DEVICES."""
    if device.type == "cuda":
        return f"cuda-{torch.cuda.get_device_properties(device).uuid}"
    return device.type


def cores() -> list[int]:
    """Return the cores for training runs: CATDOG_CORES, or as many as there are physical ones.

    They are numbers of the operating system, and only those that this process may use: two
    processes that are bound to different cores, as in containers with a cpuset or in jobs of Slurm,
    do not wait for each other. Raises CatdogError if CATDOG_CORES is not a positive integer.
    """
    if hasattr(os, "sched_getaffinity"):
        usable = sorted(os.sched_getaffinity(0))
    else:
        usable = list(range(os.cpu_count() or 1))
    if not (wanted := os.environ.get("CATDOG_CORES")):
        return usable[: psutil.cpu_count(logical=False)]  # None, if unknown, means all
    if not wanted.isdecimal() or int(wanted) < 1:
        raise CatdogError(
            f"CATDOG_CORES: invalid value {wanted!r}; must be an integer of at least 1"
        )
    return usable[: int(wanted)]


def _make_shared(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        # All users of the machine share its devices. No sticky bit, unlike /tmp: a user must be
        # able to replace the record of another user's killed training.
        folder.chmod(0o777)


def _acquire(
    lock: RecordedLock, device: torch.device, log: Callable[[str], None], stack: ExitStack
) -> None:
    if not lock.try_acquire():
        log(f"{device}: in use by {lock.holder}; waiting until it is free")
        lock.acquire()
    stack.callback(lock.release)


def _acquire_cores(
    folder: Path, threads: int, log: Callable[[str], None], stack: ExitStack
) -> None:
    """Acquire the locks of min(`threads`, all) cores; `stack` releases them.

    Only the holder of the lock QUEUE collects cores. So two training runs never wait for each
    other's cores (deadlock), and one with many threads is not overtaken by others with few.
    """
    numbers = cores()
    wanted = min(threads, len(numbers))
    need = f"cpu: training needs {wanted} of {len(numbers)} cores"
    queue = RecordedLock(folder, QUEUE)
    if not queue.try_acquire(patience=1.0):
        log(f"{need}; waiting for {queue.holder}, which has been waiting for cores longer")
        queue.acquire()
    with ExitStack() as after:
        after.callback(queue.release)
        others = [RecordedLock(folder, f"cpu-core-{number}") for number in numbers]
        if wanted := _acquire_free(others, wanted, stack):
            users = " and ".join(sorted({lock.holder for lock in others}))
            log(f"{need} and is waiting for {wanted} of them; cores are in use by {users}")
        while wanted:
            time.sleep(POLL_SECONDS)
            wanted = _acquire_free(others, wanted, stack)


def _acquire_free(locks: list[RecordedLock], wanted: int, stack: ExitStack) -> int:
    """Move up to `wanted` free locks from the list to `stack`; return how many are missing."""
    for lock in tuple(locks):
        if wanted and lock.try_acquire():
            locks.remove(lock)
            stack.callback(lock.release)
            wanted -= 1
    return wanted
