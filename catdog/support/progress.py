"""Show the progress of training: a bar on a terminal, plain log lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Log lines, and the bar that `progress_bar` displays below them."""

    def __init__(self, console: Console, bar: Bar, task: TaskID, epochs: int) -> None:
        self._console, self._bar, self._task, self._epochs = console, bar, task, epochs

    def log(self, line: str) -> None:
        """Print one line above the bar and flush it."""
        self._console.print(line, markup=False)
        self._console.file.flush()

    def update(self, epoch: int, fraction: float) -> None:
        """Move the bar to `fraction`, in [0, 1], of epoch `epoch`, counted from 1."""
        self._bar.update(
            self._task, completed=epoch - 1 + fraction, description=f"epoch {epoch}/{self._epochs}"
        )


@contextmanager
def progress_bar(epochs: int, quiet: bool = False) -> Iterator[Progress]:
    """Display a bar over `epochs` epochs inside the block, if stdout is a terminal.

    With `quiet` neither the bar nor any line is printed.
    """
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True, quiet=quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Progress(console, bar, bar.add_task("training", total=epochs), epochs)
