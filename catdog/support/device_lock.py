"""One training per device: a file lock on this machine, and a word about who holds it.

The operating system frees the lock of a process that dies, however it dies.
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


def name_of(device: torch.device) -> str:
    """Return a name that is the device's own: numbers of GPUs depend on CUDA_VISIBLE_DEVICES."""
    if device.type == "cuda":
        return f"cuda-{torch.cuda.get_device_properties(device).uuid}"
    return device.type


@contextmanager
def hold(devices: Iterable[torch.device], say: Callable[[str], None]) -> Iterator[None]:
    """Hold the locks of devices while the context lasts; waits for them, and says for whom.

    They are taken in the order of their names, so that two trainings never wait for each other.
    CATDOG_LOCKS names another folder for them; an empty one takes no locks.
    """
    folder = os.environ.get("CATDOG_LOCKS", str(Path(tempfile.gettempdir()) / "catdog-locks"))
    with ExitStack() as stack:
        for name in sorted({name_of(device) for device in devices} if folder else ()):
            stack.enter_context(_held(Path(folder), name, say))
        yield


@contextmanager
def _held(folder: Path, name: str, say: Callable[[str], None]) -> Iterator[None]:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        # Other users of the machine wait for the same devices. Not sticky, as /tmp is: they must
        # take the place of a training that was killed.
        folder.chmod(0o777)
    holder = folder / f"{name}.json"
    lock = FileLock(folder / f"{name}.lock", mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{name} is taken by {_holder(holder)}; waiting until it is free")
        lock.acquire(poll_interval=0.2)
    try:
        write_text(holder, json.dumps(_myself()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _myself() -> dict[str, object]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user that has no name
        user = f"user {os.getuid()}"
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "user": user, "folder": str(Path.cwd()), "since": since}


def _holder(file: Path) -> str:
    try:
        who = json.loads(file.read_text(encoding="utf-8"))
        return f"process {who['pid']} of {who['user']} in {who['folder']} since {who['since']}"
    except (OSError, ValueError, KeyError):
        return "another training"
