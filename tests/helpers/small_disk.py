"""A file system of 64 KB for one command, mounted without root in a user namespace."""

import shutil
import subprocess
from pathlib import Path


def on_a_small_disk(folder: Path) -> list[str]:
    """Return a prefix for a command, which then runs with a file system of 64 KB at `folder`."""
    mount = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)]


def can_mount_small_disk() -> bool:
    """Return whether this machine can mount one."""
    folder = Path("/mnt")
    if not (shutil.which("unshare") and folder.is_dir()):
        return False
    command = [*on_a_small_disk(folder), "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
