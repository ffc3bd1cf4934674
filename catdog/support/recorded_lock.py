"""A lock file on this machine, with a record of the process that holds it.

The operating system releases the lock of a process that exits, even by SIGKILL.
"""

import getpass
import json
import os
import time
from pathlib import Path

from filelock import FileLock, Timeout

from catdog.support.atomic_files import write_text

POLL_SECONDS = 0.2


class RecordedLock:
    """The lock FOLDER/NAME.lock, and FOLDER/NAME.json, which names its holder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._record = folder / f"{name}.json"
        self._lock = FileLock(folder / f"{name}.lock", mode=0o666)

    def try_acquire(self, patience: float = 0.0) -> bool:
        """Acquire the lock if it is free within `patience` seconds; return whether it was."""
        try:
            self._lock.acquire(timeout=patience, poll_interval=POLL_SECONDS)
        except Timeout:
            return False
        write_text(self._record, json.dumps(_this_process()))
        return True

    def acquire(self) -> None:
        """Acquire the lock; wait while another process holds it."""
        self.try_acquire(patience=-1)  # no limit

    def release(self) -> None:
        """Release the lock and delete its record."""
        self._record.unlink(missing_ok=True)
        self._lock.release()

    @property
    def holder(self) -> str:
        """The process that holds the lock, as text."""
        try:
            who = json.loads(self._record.read_text(encoding="utf-8"))
            return f"process {who['pid']} of {who['user']} in {who['folder']} since {who['since']}"
        except (OSError, ValueError, KeyError):  # the holder has not written its record yet
            return "another process"


def _this_process() -> dict[str, object]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # containers may run as a user ID without a name
        user = f"user {os.getuid()}"
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "user": user, "folder": str(Path.cwd()), "since": since}
