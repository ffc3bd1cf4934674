"""A lock per stage and input files: of two identical runs on one machine, the second waits.

DVC's run cache is not a lock: without this one, two runs would train the same model concurrently.
The run that has waited finds the result in the run cache.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from flows.log import Log
from flows.paths import LOCK
from flows.runs.git import git
from flows.runs.workspace import Workspace

POLL_SECONDS = 0.5


@contextmanager
def stage_lock(workspace: Workspace, stage: str, log: Log) -> Iterator[None]:
    """Hold the lock of `stage` for the files of the clone; wait if another run holds it.

    `log` gets a line that names the other run.
    """
    folder = workspace.job.repository.home / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{tree_hash(workspace.folder)}-{stage}"
    holder = folder / f"{name}.holder"
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log(f"{stage}: waiting for {_holder_in(holder)}, which is running the same stage")
        lock.acquire(poll_interval=POLL_SECONDS)
    try:
        holder.write_text(workspace.name, encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def tree_hash(folder: Path) -> str:
    """Return the git hash of the files of a clone, without ignored ones and dvc.lock.

    dvc.lock records what has been run, not what is to run.
    """
    with tempfile.TemporaryDirectory(prefix="catdog-") as temporary:
        index = Path(temporary) / "index"
        # A copy with its modification time, so that git hashes changed files only.
        shutil.copy2(folder / git(folder, "rev-parse", "--git-path", "index"), index)
        other = {"GIT_INDEX_FILE": str(index)}
        git(folder, "add", "--all", environment=other)
        git(folder, "rm", "--cached", "--quiet", "--ignore-unmatch", LOCK, environment=other)
        return git(folder, "write-tree", environment=other)


def _holder_in(file: Path) -> str:
    """Return the run that holds a lock; its name may not be written yet."""
    try:
        return f"run {file.read_text(encoding='utf-8')}"
    except OSError:
        return "another run"
