"""The output of a stage: its log file, and what DVC's lines say about outcome and exit code."""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from prefect import get_run_logger

from flows.runs.training_progress import EpochProgress

Outcome = Literal["ran", "cached", "unchanged"]
LAST_LINES = 20


class StageLog:
    """The output of a stage: sent line by line to the run's log and to a file."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path = path
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._file = file
        self._outcomes: dict[str, Outcome] = {}
        self._logger = get_run_logger()
        self._progress = EpochProgress()

    def handle_line(self, line: str) -> None:
        """Log a line, and note the outcome or the epoch that it reports."""
        self._logger.info("%s", line)
        print(line, file=self._file)
        self.last_lines.append(line)
        if found := outcome_in(line):
            self._outcomes[found[0]] = found[1]
        self._progress.handle_line(line)

    def outcome(self, stage: str) -> Outcome:
        """Return the outcome of a stage; dvc prints none only if there was nothing to do."""
        return self._outcomes.get(stage, "unchanged")


@contextmanager
def stage_log(path: Path) -> Iterator[StageLog]:
    """Open the log file of a stage; a retry appends to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as file:
        yield StageLog(path, file)


def outcome_in(line: str) -> tuple[str, Outcome] | None:
    """Return the stage and the outcome that a line of dvc's output reports; None if it does not."""
    phrases: dict[str, Outcome] = {
        r"Running stage '([^']+)':": "ran",
        r"Stage '([^']+)' is cached - skipping run, checking out outputs": "cached",
        r"Pulling data for stage: '([^']+)'": "cached",
        r"Stage '([^']+)' didn't change, skipping": "unchanged",
    }
    for phrase, outcome in phrases.items():
        if found := re.fullmatch(phrase, line):
            return found[1], outcome
    return None


def exit_code_of_stage(code: int, last_lines: Sequence[str]) -> int:
    """Return the exit code of the stage if dvc's output names it, otherwise dvc's own.

    dvc exits with 255 if a stage fails, and prints the stage's exit code in its last line: −N if
    signal N killed the stage, 128 + N if it killed a command in the stage's shell.
    """
    pattern = r"^ERROR: failed to reproduce .* exited with (-?\d+)$"
    named = re.search(pattern, "\n".join(last_lines), re.MULTILINE)
    return int(named[1]) if named else code
