"""One training run per device: file locks on this machine, with a record of each lock's holder.

The operating system releases the lock of a process that exits, even by SIGKILL.
"""

import getpass
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from catdog.support.atomic_files import write_text


def lock_name(device: torch.device) -> str:
    """Return a name for the physical device, independent of CUDA_VISIBLE_DEVICES."""
    if device.type == "cuda":
        return f"cuda-{torch.cuda.get_device_properties(device).uuid}"
    return device.type


@contextmanager
def hold(devices: Iterable[torch.device], log: Callable[[str], None]) -> Iterator[None]:
    """Hold the locks of `devices` inside the block, waiting for those that another process holds.

    Before a wait, `log` gets one line that names the holder. Locks are taken in the order of their
    names, so that two training runs cannot deadlock. The environment variable CATDOG_LOCKS sets the
    folder of the lock files (default: catdog-locks in the temporary folder); empty, it disables
    locking.
    """
    folder = os.environ.get("CATDOG_LOCKS", str(Path(tempfile.gettempdir()) / "catdog-locks"))
    with ExitStack() as stack:
        for name in sorted({lock_name(device) for device in devices} if folder else ()):
            stack.enter_context(_hold(Path(folder), name, log))
        yield


@contextmanager
def _hold(folder: Path, name: str, log: Callable[[str], None]) -> Iterator[None]:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        # All users of the machine share its devices. No sticky bit, unlike /tmp: a user must be
        # able to replace the record of another user's killed training.
        folder.chmod(0o777)
    record = folder / f"{name}.json"
    lock = FileLock(folder / f"{name}.lock", mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log(f"{name}: in use by {_holder(record)}; waiting until it is free")
        lock.acquire(poll_interval=0.2)
    try:
        write_text(record, json.dumps(_this_process()))
        yield
    finally:
        record.unlink(missing_ok=True)
        lock.release()


def _this_process() -> dict[str, object]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # containers may run as a user ID without a name
        user = f"user {os.getuid()}"
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "user": user, "folder": str(Path.cwd()), "since": since}


def _holder(record: Path) -> str:
    try:
        who = json.loads(record.read_text(encoding="utf-8"))
        return f"process {who['pid']} of {who['user']} in {who['folder']} since {who['since']}"
    except (OSError, ValueError, KeyError):  # the holder has not written its record yet
        return "another training run"
