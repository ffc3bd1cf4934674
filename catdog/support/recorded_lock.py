"""A lock file on this machine, with a record of the process that holds it.

The operating system releases the lock of a process that exits, even by SIGKILL. The files may be in
a folder that all users can write to: existing files are never written to, links are not followed,
and records are new files. (filelock opens lock files in the same way, but refuses those of another
user in a folder with the sticky bit, so that users could not share a device.)
"""

import errno
import fcntl
import getpass
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

POLL_SECONDS = 0.2
MAX_RECORD_BYTES = 8192


class RecordedLock:
    """The lock FOLDER/NAME.lock, and FOLDER/NAME.USER.json, which names its holder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._descriptor: int | None = None

    def try_acquire(self, patience: float = 0.0) -> bool:
        """Acquire the lock if it is free within `patience` seconds; return whether it was.

        Raises OSError if the lock file is a link or cannot be opened.
        """
        deadline = time.monotonic() + patience
        while not self._lock():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        self._write_record()
        return True

    def acquire(self) -> None:
        """Acquire the lock; wait while another process holds it."""
        self.try_acquire(patience=float("inf"))

    def release(self) -> None:
        """Delete the record and release the lock."""
        assert self._descriptor is not None
        with _opened_folder(self._folder) as folder, suppress(OSError):
            os.unlink(self._record_name, dir_fd=folder)
        os.close(self._descriptor)
        self._descriptor = None

    @property
    def holder(self) -> str:
        """The process that holds the lock, as text: that of the newest record."""
        try:
            with _opened_folder(self._folder) as folder:
                who = json.loads(self._newest_record(folder))
            text = f"process {who['pid']} of {who['user']} in {who['folder']} since {who['since']}"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return "another process"  # which has not written its record yet
        return "".join(letter if letter.isprintable() else "?" for letter in text)

    def _lock(self) -> bool:
        """Lock the file; return False if another process has locked it or is replacing it."""
        with _opened_folder(self._folder) as folder:
            name = f"{self._name}.lock"
            descriptor = _open_lock_file(name, folder)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A program that cleans the temporary folder may have deleted the file meanwhile.
                current = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if os.path.samestat(current, os.fstat(descriptor)):
                    self._descriptor = descriptor
            except (BlockingIOError, FileNotFoundError):
                pass
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        return self._descriptor is not None

    def _write_record(self) -> None:
        """Write a new file: in a folder with the sticky bit only its owner can replace it."""
        with _opened_folder(self._folder) as folder, suppress(OSError):  # only information
            with suppress(FileNotFoundError):  # that of a killed process of this user
                os.unlink(self._record_name, dir_fd=folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(self._record_name, flags, 0o644, dir_fd=folder)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
                os.fchmod(descriptor, 0o644)  # whatever the umask is
                json.dump(_this_process(), stream)

    @property
    def _record_name(self) -> str:
        return f"{self._name}.{os.getuid()}.json"

    def _newest_record(self, folder: int) -> bytes:
        """Return the record of the user who has written last; the others are of killed processes.

        Raises OSError or ValueError if there is none.
        """
        start = f"{self._name}."
        names = [n for n in os.listdir(folder) if n.startswith(start) and n.endswith(".json")]
        newest = max(
            names, key=lambda n: os.stat(n, dir_fd=folder, follow_symlinks=False).st_mtime_ns
        )
        descriptor = _open_regular(newest, os.O_RDONLY, folder)
        with os.fdopen(descriptor, "rb") as stream:
            return stream.read(MAX_RECORD_BYTES)


@contextmanager
def _opened_folder(path: Path) -> Iterator[int]:
    """Yield a descriptor of a folder that is not a link; names relative to it stay in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_lock_file(name: str, folder: int) -> int:
    """Return a descriptor of the lock file, which is created if it is missing.

    First without O_CREAT, which fs.protected_regular of Linux forbids for files of other users.
    """
    while True:
        try:
            # NFS requires write permission for an exclusive lock; other file systems do not.
            return _open_regular(name, os.O_RDWR, folder)
        except PermissionError:
            return _open_regular(name, os.O_RDONLY, folder)
        except FileNotFoundError:
            with suppress(FileExistsError):
                descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
                os.fchmod(descriptor, 0o644)  # whatever the umask is
                return descriptor


def _open_regular(name: str, mode: int, folder: int) -> int:
    """Open a regular file; OSError for a link or another kind of file, such as a named pipe."""
    descriptor = os.open(name, mode | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return descriptor


def _this_process() -> dict[str, object]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # containers may run as a user ID without a name
        user = f"user {os.getuid()}"
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "user": user, "folder": str(Path.cwd()), "since": since}
