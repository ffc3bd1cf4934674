"""What runs leave on this machine: a record each, the workspaces of those that failed, and logs.

    python -m flows.runs list
    python -m flows.runs remove NAME...|--failed|--all

Under `home`: runs/NAME is a workspace, runs/NAME.json says whose, and runs/NAME.lock is locked by
its process for as long as that lives, however it ends; logs/NAME holds its stages' logs.
"""

import argparse
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table

from flows.errors import FlowError
from flows.guards.child_processes import GRACE_SECONDS
from flows.runs.repository import home as default_home

KEEP_DAYS = 7.0
MARK = "CATDOG_WORKSPACE"  # in the environment of what a run starts: the folder of its workspace


@dataclass(frozen=True)
class Run:
    """The record of one run; times are in UTC, as ISO 8601 has them."""

    name: str
    state: str  # running, failed, cancelled or finished
    flow_run: str
    commit: str
    experiment: str
    pid: int
    host: str
    started: str
    ended: str = ""
    said: str = ""

    def folder(self, home: Path) -> Path:
        """Return the folder of its workspace."""
        return home / "runs" / self.name

    def logs(self, home: Path) -> Path:
        """Return the folder of its stages' logs."""
        return home / "logs" / self.name


@contextmanager
def hold(home: Path, name: str, flow_run: str, commit: str, experiment: str) -> Iterator[Run]:
    """Take the first free of the names NAME, NAME-2, … and hold it for the block.

    The caller makes the workspace in it, and calls `keep` or `remove` before the block ends.
    """
    make_home(home)
    # It also becomes the name of an experiment, for which git takes less than for a folder.
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:80] or "run"
    for number in count(1):
        candidate = stem if number == 1 else f"{stem}-{number}"
        with _locked(home, candidate) as ours:
            taken = [home / "runs" / f"{candidate}.json", home / "runs" / candidate]
            if not ours or any(path.exists() for path in [*taken, home / "logs" / candidate]):
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
            with _writing_in(home):
                _write(home, run)
            yield run
            return


def keep(home: Path, run: Run, state: str, said: str) -> None:
    """Note how a held run ended; its workspace stays until `sweep_up` finds it old.

    On a full disk it notes nothing, and `sweep_up` finds a dead run: why it failed matters more.
    """
    with suppress(OSError):
        _write(home, replace(run, state=state, ended=_now(), said=said.partition("\n")[0]))


def remove(home: Path, run: Run) -> None:
    """Remove the workspace of a held run, and its record; FlowError if files cannot be removed."""
    try:
        if run.folder(home).exists():
            shutil.rmtree(run.folder(home))
    except OSError as error:
        raise FlowError(f"{run.folder(home)}: cannot be removed ({error.strerror})") from None
    (home / "runs" / f"{run.name}.json").unlink(missing_ok=True)
    (home / "runs" / f"{run.name}.lock").unlink(missing_ok=True)  # whoever locks it now, sees that


def make_home(home: Path) -> None:
    """Make the folders of `home`; git, and DVC's search for stages, pass them by.

    Raises FlowError if it cannot be written to.
    """
    with _writing_in(home):
        for name in ("runs", "logs", "locks"):
            (home / name).mkdir(parents=True, exist_ok=True)
        if not (home / ".gitignore").exists():
            (home / ".gitignore").write_text("*\n", encoding="utf-8")


@contextmanager
def _writing_in(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FlowError(
            f"{home}: cannot be written to ({error.strerror}); make room, or name another folder in"
            " CATDOG_HOME"
        ) from None


def all_runs(home: Path) -> list[Run]:
    """Return the records, oldest first; one that cannot be read is left out."""
    found = [_read(home, path.stem) for path in (home / "runs").glob("*.json")]
    return sorted(filter(None, found), key=lambda run: (run.started, run.name))


def is_alive(home: Path, run: Run) -> bool:
    """Return whether the process that holds a run is there."""
    with _locked(home, run.name) as ours:
        return not ours


def sweep_up(home: Path, say: Callable[[str], None] = print) -> None:
    """End what runs of dead processes left running, mark them failed; remove those kept too long.

    Quick when there is nothing to do; the agent calls it as it starts, and each run before it
    makes its workspace. Living runs are left alone.
    """
    oldest = datetime.now(UTC) - timedelta(days=keep_days())
    for name in [run.name for run in all_runs(home)]:
        with _ended(home, name) as run:
            if run and run.state == "running":
                _bury(home, run, say)
            elif run and datetime.fromisoformat(run.ended) < oldest:
                _remove_kept(home, run, say)
    _remove_old(home, oldest.timestamp())


def keep_days() -> float:
    """Return for how many days the workspaces of failed runs, and logs, are kept."""
    given = os.environ.get("CATDOG_KEEP_DAYS", "")
    try:
        return float(given) if given else KEEP_DAYS
    except ValueError:
        raise FlowError(f"CATDOG_KEEP_DAYS: must be a number, not {given!r}") from None


def _bury(home: Path, run: Run, say: Callable[[str], None]) -> None:
    """End what the run of a dead process left running and note that it failed."""
    left = _end_processes(run.folder(home))
    ended = f", and ended {left} processes that it left" if left else ""
    keep(home, run, "failed", f"its process {run.pid} on {run.host} is gone")
    say(f"{run.name}: {run.pid} is gone{ended}; its workspace is kept: {run.folder(home)}")


def _remove_kept(home: Path, run: Run, say: Callable[[str], None]) -> None:
    """Remove an old workspace; one that cannot be removed is told of, and hinders nobody."""
    try:
        remove(home, run)
    except FlowError as error:
        say(str(error))
    else:
        say(f"removed the workspace of {run.name}, which {run.state} on {run.ended[:10]}")


def _end_processes(folder: Path) -> int:
    """End the processes that the run in a workspace started; return how many there were.

    A training saves on SIGTERM.
    """
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    left = [process for process in psutil.process_iter() if _is_of(process, folder)]
    left = [process for process in left if process.pid not in ours]
    for process in left:
        with suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(left, timeout=GRACE_SECONDS)[1]:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=GRACE_SECONDS)
    return len(left)


def _is_of(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.environ().get(MARK) == str(folder)
    except (psutil.Error, OSError):
        return False


def _remove_old(home: Path, oldest: float) -> None:
    """Remove logs and locks that no run with a record has, and that are older than a time."""
    recorded = {run.name for run in all_runs(home)}
    for folder in (home / "logs").glob("*"):
        with suppress(FileNotFoundError):  # another run sweeps up at the same time
            if folder.name not in recorded and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)
    of_runs = [lock for lock in (home / "runs").glob("*.lock") if lock.stem not in recorded]
    for lock in [*of_runs, *(home / "locks").glob("*.lock")]:
        with suppress(Timeout, FileNotFoundError):
            if lock.stat().st_mtime < oldest:
                with FileLock(lock, timeout=0):
                    lock.unlink(missing_ok=True)


@contextmanager
def _ended(home: Path, name: str) -> Iterator[Run | None]:
    """Hold a run whose process has ended, for the block; None if it lives or has no record.

    The record is read under the lock: what was read before may be of a run that has ended since.
    """
    with _locked(home, name) as ours:
        yield _read(home, name) if ours else None


@contextmanager
def _locked(home: Path, name: str) -> Iterator[bool]:
    """Hold the lock of a run for the block, if nobody else does: yields whether we do."""
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
    """Return the record of a run; None if there is none that can be read."""
    known = {field.name for field in fields(Run)}
    try:
        values = json.loads((home / "runs" / f"{name}.json").read_text(encoding="utf-8"))
        return Run(**{key: value for key, value in values.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _write(home: Path, run: Run) -> None:
    path = home / "runs" / f"{run.name}.json"
    half = path.with_name(f"{path.name}.half")  # one at a time: the run's lock is held
    half.write_text(json.dumps(asdict(run), indent=1), encoding="utf-8")
    half.replace(path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main(arguments: Sequence[str] | None = None) -> int:
    """List or remove what runs left; return the exit code: 1 if a run cannot be removed."""
    parser = argparse.ArgumentParser(prog="python -m flows.runs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the runs whose workspaces are here")
    removal = commands.add_parser("remove", help="remove the workspaces of runs that have ended")
    removal.add_argument("names", nargs="*", metavar="NAME")
    removal.add_argument("--failed", action="store_true", help="those that failed or died")
    removal.add_argument("--all", action="store_true", help="all that have ended")
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            show(default_home())
        elif not options.names and not options.failed and not options.all:
            removal.error("name runs, or give --failed or --all")
        else:
            _remove_chosen(default_home(), options.names, options.failed, options.all)
    except FlowError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def show(home: Path) -> None:
    """Print a table of the runs whose workspaces are on this machine."""
    table = Table("name", "state", "age", "size", "experiment", "what was said")
    for run in all_runs(home):
        table.add_row(
            run.name,
            _state(home, run),
            _age(run.started),
            _size(run.folder(home)),
            run.experiment,
            run.said,
        )
    if table.row_count:
        Console().print(table)
        print(f"Those that have ended are removed after {keep_days():g} days.")
    else:
        print(f"no workspaces in {home / 'runs'}")


def _state(home: Path, run: Run) -> str:
    return "dead" if run.state == "running" and not is_alive(home, run) else run.state


def _age(started: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(folder: Path) -> str:
    """Return what removing a folder frees, in MB: files that the DVC cache also has are not its."""
    sizes = []
    for path in folder.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            sizes.append(status.st_blocks * 512 if status.st_nlink == 1 else 0)
    return f"{sum(sizes) / 1e6:.1f} MB"


def _remove_chosen(home: Path, names: Sequence[str], failed: bool, everything: bool) -> None:
    """Remove the runs that are named or in a state; FlowError if a named one is alive or none."""
    runs = {run.name: run for run in all_runs(home)}
    if unknown := [name for name in names if name not in runs]:
        raise FlowError(
            f"{', '.join(unknown)}: no such run; `python -m flows.runs list` lists them"
        )
    if living := [name for name in names if is_alive(home, runs[name])]:
        raise FlowError(f"{', '.join(living)}: still running; cancel it first")
    for name in runs:
        with _ended(home, name) as run:
            if run and (name in names or everything or (failed and run.state in BAD)):
                _end_processes(run.folder(home))
                remove(home, run)
                print(f"removed {name}")


BAD = ("failed", "cancelled", "running")  # of runs that have ended: who was running has died

if __name__ == "__main__":
    sys.exit(main())
