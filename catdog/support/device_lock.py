"""File locks: one training run per GPU; on the CPU, as many as fit on its cores.

Each core is a lock of its own, and a training run on the CPU holds as many as it has threads.
"""

import errno
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import torch

from catdog.errors import CatdogError
from catdog.support.recorded_lock import POLL_SECONDS, RecordedLock

SHARED_MODE = 0o1777  # all users may create files, and only replace their own
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
    Raises CatdogError if it is not a positive integer, or if the folder cannot be used safely.
    """
    chosen = os.environ.get("CATDOG_LOCKS")
    with ExitStack() as stack:
        # In the order of their names, so that two training runs cannot deadlock.
        for device in sorted(set(devices), key=lock_name) if chosen != "" else ():
            folder = Path(chosen).resolve() if chosen else default_folder()
            with _folder_errors(folder):
                _make_shared(folder, check=not chosen)
                if device.type == "cpu":
                    _acquire_cores(folder, threads, log, stack)
                else:
                    _acquire(RecordedLock(folder, lock_name(device)), device, log, stack)
        yield


def default_folder() -> Path:
    """Return the folder of the lock files of this machine, which all users share."""
    return Path(tempfile.gettempdir()) / "catdog-locks"


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


def _make_shared(folder: Path, check: bool) -> None:
    """Create the folder, or `check` that no other user can replace the files of this one in it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        if not check:
            return
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder") from None
        if found.st_uid != os.getuid():
            if not found.st_mode & stat.S_ISVTX:
                reason = f"user {found.st_uid}, its owner, has not set the sticky bit"
                raise PermissionError(errno.EPERM, reason) from None
            return
    folder.chmod(SHARED_MODE)  # whatever the umask is; catdog 0.1.0 did not set the sticky bit


@contextmanager
def _folder_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        raise CatdogError(
            f"{folder}: cannot be used for device locks ({what}); set CATDOG_LOCKS to another "
            "folder, or to an empty string to train without locks"
        ) from None


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
