"""Records of the runs on this machine, and the clean-up of their files and processes.

In the folder `home`, runs/NAME is the clone of a run, runs/NAME.json its record, and logs/NAME has
the logs of its stages. The process of a run locks runs/NAME.lock; the operating system releases
that lock however the process ends.
"""

import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from flows.errors import FlowError
from flows.guards.child_processes import GRACE_SECONDS
from flows.log import Log

KEEP_DAYS = 7.0
# Variable that marks the child processes of a run; its value is a folder of the clone.
MARK = "CATDOG_WORKSPACE"


@dataclass(frozen=True)
class Run:
    """The record of one run; times are in UTC, in ISO 8601 format."""

    name: str
    state: str  # running, failed, cancelled or finished
    flow_run: str
    commit: str
    experiment: str
    pid: int
    host: str
    started: str
    ended: str = ""
    message: str = ""

    def folder(self, home: Path) -> Path:
        """Return the folder of its clone."""
        return home / "runs" / self.name

    def logs(self, home: Path) -> Path:
        """Return the folder with the logs of its stages."""
        return home / "logs" / self.name


@contextmanager
def register(home: Path, name: str, flow_run: str, commit: str, experiment: str) -> Iterator[Run]:
    """Record a run under the first unused name of NAME, NAME-2, …; hold its lock during the block.

    The caller creates the clone, and calls `mark_ended` or `remove` before the block ends.
    """
    create_home(home)
    # It may become the name of an experiment, in which git allows fewer characters than in a file.
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:80] or "run"
    for number in count(1):
        candidate = stem if number == 1 else f"{stem}-{number}"
        with _lock(home, candidate) as locked:
            taken = [home / "runs" / f"{candidate}.json", home / "runs" / candidate]
            if not locked or any(path.exists() for path in [*taken, home / "logs" / candidate]):
                continue
            run = Run(
                name=candidate,
                state="running",
                flow_run=flow_run,
                commit=commit,
                experiment=experiment or candidate,
                pid=os.getpid(),
                host=platform.node(),
                started=_now(),
            )
            with _explain_write_errors(home):
                _write(home, run)
            yield run
            return


def mark_ended(home: Path, run: Run, state: str, message: str) -> None:
    """Record how a run ended; its clone is kept until `clean_up` removes it.

    Write errors, such as a full disk, are ignored, so that they do not hide the run's own error;
    in that case `clean_up` marks the run as failed.
    """
    with suppress(OSError):
        _write(home, replace(run, state=state, ended=_now(), message=message.partition("\n")[0]))


def remove(home: Path, run: Run) -> None:
    """Remove the clone and the record of a run; FlowError if files cannot be removed."""
    try:
        if run.folder(home).exists():
            shutil.rmtree(run.folder(home))
    except OSError as error:
        raise FlowError(f"{run.folder(home)}: cannot be removed ({error.strerror})") from None
    (home / "runs" / f"{run.name}.json").unlink(missing_ok=True)
    (home / "runs" / f"{run.name}.lock").unlink(missing_ok=True)


def create_home(home: Path) -> None:
    """Create the folders of `home`, which git and DVC's search for stages ignore.

    Raises FlowError if it is not writable.
    """
    with _explain_write_errors(home):
        for name in ("runs", "logs", "locks"):
            (home / name).mkdir(parents=True, exist_ok=True)
        if not (home / ".gitignore").exists():
            (home / ".gitignore").write_text("*\n", encoding="utf-8")


@contextmanager
def _explain_write_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FlowError(
            f"{home}: cannot be written to ({error.strerror}); free disk space or set CATDOG_HOME"
            " to another folder"
        ) from None


def all_runs(home: Path) -> list[Run]:
    """Return the records, oldest first, without those that cannot be read."""
    found = [_read(home, path.stem) for path in (home / "runs").glob("*.json")]
    return sorted(filter(None, found), key=lambda run: (run.started, run.name))


def is_alive(home: Path, run: Run) -> bool:
    """Return whether the process of a run is alive."""
    with _lock(home, run.name) as locked:
        return not locked


def clean_up(home: Path, log: Log = print) -> None:
    """Clean up after runs whose process has ended; do not touch other runs.

    A run that did not record its end is marked as failed, and its child processes are terminated.
    Clones and logs older than `keep_days` are removed. The agent calls this at its start, and each
    run before it creates its clone; it is fast when there is nothing to do.
    """
    oldest = datetime.now(UTC) - timedelta(days=keep_days())
    for name in [run.name for run in all_runs(home)]:
        with _lock_if_ended(home, name) as run:
            if run and run.state == "running":
                _mark_crashed(home, run, log)
            elif run and datetime.fromisoformat(run.ended) < oldest:
                _remove_old_clone(home, run, log)
    _remove_old_files(home, oldest.timestamp())


def remove_if_ended(home: Path, name: str, wanted: Callable[[Run], bool]) -> bool:
    """Remove a run and its processes if it has ended and is `wanted`; return whether it did.

    Raises FlowError if files cannot be removed.
    """
    with _lock_if_ended(home, name) as run:
        if not run or not wanted(run):
            return False
        _terminate_processes(run.folder(home))
        remove(home, run)
        return True


def keep_days() -> float:
    """Return how many days logs and the clones of failed runs are kept."""
    given = os.environ.get("CATDOG_KEEP_DAYS", "")
    try:
        return float(given) if given else KEEP_DAYS
    except ValueError:
        raise FlowError(f"CATDOG_KEEP_DAYS: must be a number, not {given!r}") from None


def _mark_crashed(home: Path, run: Run, log: Log) -> None:
    """Terminate the child processes of a run whose own process crashed; mark it as failed."""
    count = _terminate_processes(run.folder(home))
    ended = f"; terminated {count} of its child processes" if count else ""
    message = f"process {run.pid} on {run.host} has crashed"
    mark_ended(home, run, "failed", message)
    log(f"run {run.name}: {message}{ended}; its clone is kept: {run.folder(home)}")


def _remove_old_clone(home: Path, run: Run, log: Log) -> None:
    """Remove an old clone; log an error instead of raising it, so that the caller can continue."""
    try:
        remove(home, run)
    except FlowError as error:
        log(str(error))
    else:
        log(f"removed the clone of run {run.name} ({run.state} on {run.ended[:10]})")


def _terminate_processes(folder: Path) -> int:
    """Terminate the processes of the run in a clone; return how many there were.

    SIGTERM first, on which training saves a checkpoint, and SIGKILL after the grace period.
    """
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = [process for process in psutil.process_iter() if _belongs_to(process, folder)]
    found = [process for process in found if process.pid not in ours]
    for process in found:
        with suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(found, timeout=GRACE_SECONDS)[1]:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(found, timeout=GRACE_SECONDS)
    return len(found)


def _belongs_to(process: psutil.Process, folder: Path) -> bool:
    try:
        mark = process.environ().get(MARK)
        return mark is not None and Path(mark).is_relative_to(folder)
    except (psutil.Error, OSError):
        return False


def _remove_old_files(home: Path, oldest: float) -> None:
    """Remove logs and locks of runs without a record that are older than a time."""
    recorded = {run.name for run in all_runs(home)}
    for folder in (home / "logs").glob("*"):
        with suppress(FileNotFoundError):  # another run cleans up at the same time
            if folder.name not in recorded and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
    of_runs = [lock for lock in (home / "runs").glob("*.lock") if lock.stem not in recorded]
    for lock in [*of_runs, *(home / "locks").glob("*.lock")]:
        with suppress(Timeout, FileNotFoundError):
            if lock.stat().st_mtime < oldest:
                with FileLock(lock, timeout=0):
                    lock.unlink(missing_ok=True)


@contextmanager
def _lock_if_ended(home: Path, name: str) -> Iterator[Run | None]:
    """Hold the lock of a run for the block; yield None if its process is alive or has no record.

    The record is read under the lock, since the run may have ended since it was read before.
    """
    with _lock(home, name) as locked:
        yield _read(home, name) if locked else None


@contextmanager
def _lock(home: Path, name: str) -> Iterator[bool]:
    """Hold the lock of a run for the block; yield False if another process holds it."""
    lock = FileLock(home / "runs" / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _read(home: Path, name: str) -> Run | None:
    """Return the record of a run; None if it does not exist or cannot be read."""
    known = {field.name for field in fields(Run)}
    try:
        values = json.loads((home / "runs" / f"{name}.json").read_text(encoding="utf-8"))
        return Run(**{key: value for key, value in values.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _write(home: Path, run: Run) -> None:
    path = home / "runs" / f"{run.name}.json"
    temporary = path.with_name(f"{path.name}.tmp")  # the run's lock is held: one writer at a time
    temporary.write_text(json.dumps(asdict(run), indent=1), encoding="utf-8")
    temporary.replace(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
