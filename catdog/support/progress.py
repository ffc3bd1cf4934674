"""How a long training shows that it is alive: a bar on a terminal, a line an epoch elsewhere."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A bar over all epochs on a terminal; elsewhere only lines, each written at once."""

    def __init__(self, epochs: int, quiet: bool = False) -> None:
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True, quiet=quiet)
        self._epochs = epochs
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        shown = self._console.is_terminal
        self._bar = Bar(*columns, console=self._console, transient=True, disable=not shown)
        self._task = self._bar.add_task("training", total=epochs)

    def __enter__(self) -> Self:
        """Start the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    def log(self, line: str) -> None:
        """Print one line above the bar."""
        self._console.print(line, markup=False)
        self._console.file.flush()

    def update(self, epoch: int, share: float) -> None:
        """Move the bar to `share`, in [0, 1], of epoch number `epoch`."""
        self._bar.update(
            self._task, completed=epoch - 1 + share, description=f"epoch {epoch}/{self._epochs}"
        )


progress_bar = Progress
