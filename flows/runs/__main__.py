"""List and remove the runs on this machine.

python -m flows.runs list
python -m flows.runs remove NAME...|--failed|--all
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.errors import FlowError
from flows.runs.records import Run, all_runs, is_alive, keep_days, remove_if_ended
from flows.runs.repository import home as default_home

UNSUCCESSFUL = ("failed", "cancelled", "running")  # "running" without a live process: crashed


def main(arguments: Sequence[str] | None = None) -> int:
    """List or remove runs; return the exit code: 1 if a run cannot be removed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    removes = options.command == "remove"
    if removes and not options.names and not options.failed and not options.all:
        parser.error("remove: no runs selected; pass NAME, --failed or --all")
    try:
        if removes:
            remove(default_home(), options.names, options.failed, options.all)
        else:
            show(default_home())
    except FlowError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.runs",
        description="List and remove the clones of runs on this machine.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the runs that have a clone")
    removal = commands.add_parser("remove", help="remove the clones of runs that have ended")
    removal.add_argument(
        "names", nargs="*", metavar="NAME", help="name of a run, as printed by `list`"
    )
    failed = "remove all runs that failed, were cancelled or crashed"
    removal.add_argument("--failed", action="store_true", help=failed)
    removal.add_argument("--all", action="store_true", help="remove all runs that have ended")
    return parser


def show(home: Path) -> None:
    """Print a table of the runs that have a clone on this machine."""
    table = Table("name", "state", "age", "size", "experiment", "message")
    for column in table.columns:  # a name is copied to `remove`, so it must not be truncated
        column.overflow = "fold"
    for run in all_runs(home):
        table.add_row(
            run.name,
            _state(home, run),
            _age(run.started),
            _size(run.folder(home)),
            run.experiment,
            run.message,
        )
    if table.row_count:
        Console().print(table)
        print(f"Clones of runs that have ended are removed after {keep_days():g} days.")
    else:
        print(f"no clones in {home / 'runs'}")


def remove(home: Path, names: Sequence[str], failed: bool, everything: bool) -> None:
    """Remove the runs that are named, that failed or, with `everything`, all that have ended.

    Raises FlowError if a name is unknown, or if its run has not ended.
    """
    runs = {run.name: run for run in all_runs(home)}
    if unknown := [name for name in names if name not in runs]:
        raise FlowError(f"{', '.join(unknown)}: no such run; see `python -m flows.runs list`")
    if alive := [name for name in names if is_alive(home, runs[name])]:
        raise FlowError(f"{', '.join(alive)}: still running; cancel it first")

    def chosen(run: Run) -> bool:
        return run.name in names or everything or (failed and run.state in UNSUCCESSFUL)

    for name in runs:
        if remove_if_ended(home, name, chosen):
            print(f"removed {name}")


def _state(home: Path, run: Run) -> str:
    return "crashed" if run.state == "running" and not is_alive(home, run) else run.state


def _age(started: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(folder: Path) -> str:
    """Return the disk space that removing a folder frees: without hard links to the DVC cache."""
    sizes = []
    for path in folder.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            sizes.append(status.st_blocks * 512 if status.st_nlink == 1 else 0)
    return f"{sum(sizes) / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
