"""Of two runs of the same thing on one machine, one works while the other waits.

DVC's run cache is no lock: two workspaces would train the same model side by side. The second one
waits here, and then finds the result in the cache.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flows.runs.repository import git
from flows.runs.workspace import Workspace

POLL_SECONDS = 0.5
LOCK_FILE = "dvc.lock"


@contextmanager
def turn(workspace: Workspace, stage: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold `stage` of these files for the block; while another run of this machine holds it, wait.

    So of two runs of the same thing one works, and the other finds the run cache filled. `say`
    gets one line that names the run which is waited for.
    """
    folder = workspace.repository.home / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{tree_of(workspace.folder)}-{stage}"
    holder = folder / f"{name}.holder"
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{stage}: the run {_name_in(holder)} does the same at this moment; waiting for it")
        lock.acquire(poll_interval=POLL_SECONDS)
    try:
        holder.write_text(workspace.name, encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def tree_of(folder: Path) -> str:
    """Return the hash of a clone's files as git sees them: what it ignores, and dvc.lock, are out.

    dvc.lock tells what has been done, not what there is to do.
    """
    with tempfile.TemporaryDirectory(prefix="catdog-") as temporary:
        index = Path(temporary) / "index"
        # So that git hashes only what has changed; with its time, by which git tells what may have
        # changed since.
        shutil.copy2(folder / ".git" / "index", index)
        other = {"GIT_INDEX_FILE": str(index)}
        git(folder, "add", "--all", environment=other)
        git(folder, "rm", "--cached", "--quiet", "--ignore-unmatch", LOCK_FILE, environment=other)
        return git(folder, "write-tree", environment=other)


def _name_in(holder: Path) -> str:
    """Return the name of the run that holds a lock; it may be about to write it, or gone."""
    try:
        return holder.read_text(encoding="utf-8")
    except OSError:
        return "that took the turn just now"
