"""Two Prefect tasks: run a DVC stage, and push its results to the default remote."""

import logging
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from dvc.config import Config
from dvc.exceptions import DvcException
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.errors import FlowError
from flows.guards import child_processes
from flows.guards.child_processes import DVC
from flows.guards.device_slots import device_slot
from flows.paths import RAW, RAW_POINTER
from flows.runs.training_progress import EpochProgress
from flows.runs.workspace import environment

Stage = Literal["prepare", "train", "evaluate"]
STAGES: tuple[Stage, ...] = ("prepare", "train", "evaluate")
Outcome = Literal["ran", "cached", "unchanged"]

LAST_LINES = 20
PUSH_UNCACHED = Path(__file__).with_name("push_uncached.py")


class StageError(FlowError):
    """A stage failed; the message has its name, exit code or signal, log file and last lines."""

    def __init__(self, message: str, killed: bool = False) -> None:
        super().__init__(message)
        self.killed = killed  # by SIGKILL, as the kernel does when memory is exhausted


@dataclass(frozen=True)
class Report:
    """How a stage succeeded."""

    stage: Stage
    outcome: Outcome
    seconds: float
    log: Path
    pool: str | None = None  # of the machine that ran it, if it was another one


def was_killed(_task: Any, _run: Any, state: Any) -> bool:
    """Return whether to retry a failed task: if its stage was killed and may resume.

    A stage that failed with an error would fail again.
    """
    return isinstance(state.data, StageError) and state.data.killed


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,  # DVC is the only cache
    retries=1,
    retry_condition_fn=was_killed,
)
def run_stage(stage: Stage, root: Path, logs: Path, device: bool = True) -> Report:
    """Bring `stage` of the DVC project in `root` up to date; return how.

    Its output goes to the log of the run and to STAGE.log in the folder `logs`, its epochs to a
    progress artifact. If `device` is set, a training first waits for a device. Call it directly and
    not with `.submit()`: a cancelled run interrupts the main thread only, and the stage must save.
    Raises StageError, after one retry if SIGKILL ended the stage; it resumes from its checkpoint.
    """
    started = time.monotonic()
    slot: AbstractContextManager[Mapping[str, str]] = nullcontext({})
    if stage == "train" and device:
        slot = device_slot(get_run_logger().info)
    with slot as variables, stage_log(logs / f"{stage}.log") as log:
        for arguments in dvc_commands(stage, root):
            _run([*DVC, *arguments], root, log, f"stage {stage} failed", variables)
        return Report(stage, log.outcome(stage), time.monotonic() - started, log.path)


@task(task_run_name="push {stage}", cache_policy=NO_CACHE)
def push_results(stage: Stage, root: Path, logs: Path) -> None:
    """Push the outputs in dvc.lock and the run cache to the default remote.

    Call it right after `stage`, since DVC pushes the outputs of the current dvc.lock only. Raises
    StageError if the push fails.
    """
    with stage_log(logs / f"push-{stage}.log") as log:
        for command in ([*DVC, "push", "--run-cache"], [sys.executable, str(PUSH_UNCACHED)]):
            _run(command, root, log, f"push after stage {stage} failed")


def _run(
    command: Sequence[str],
    root: Path,
    log: "StageLog",
    failure: str,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Run a command in `root`, with `variables` added; StageError with `failure` if it fails."""
    complete = environment(root, **(variables or {}))
    if code := child_processes.run_supervised(command, root, complete, log.handle_line):
        raise stage_error(failure, code, log)


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

    def outcome(self, stage: Stage) -> Outcome:
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


def dvc_commands(stage: Stage, root: Path) -> list[list[str]]:
    """Return the arguments of the dvc commands that bring `stage` up to date in `root`.

    With a default remote, `repro --pull` restores stages that another machine has run. Without one,
    `--pull` fails with "no remote specified" as soon as the run cache has a stage, so missing
    photos, whose .dvc file names a remote, are pulled first. Never `repro --single-item`: it
    ignores outdated upstream stages, and would train on old data without a warning.
    """
    if has_default_remote(root):
        return [["repro", "--pull", stage]]
    missing = (root / RAW_POINTER).is_file() and not (root / RAW).exists()
    pull = [["pull", RAW_POINTER]] if missing else []
    return [*pull, ["repro", stage]]


def has_default_remote(root: Path) -> bool:
    """Return whether the DVC project in `root` has a default remote.

    Raises FlowError if its configuration is invalid.
    """
    try:
        return bool(Config(str(root / ".dvc"))["core"].get("remote"))
    except DvcException as error:
        raise FlowError(f"{root}: invalid DVC configuration ({error})") from None


def stage_error(failure: str, code: int, log: StageLog) -> StageError:
    """Return the error for a command that exited with `code`."""
    code = _exit_code_of_stage(code, log.last_lines)
    first = f"{failure}: {child_processes.describe_exit(code)}; log: {log.path}"
    killed = child_processes.signal_of(code) == signal.SIGKILL
    return StageError("\n".join([first, *log.last_lines]), killed)


def _exit_code_of_stage(code: int, last_lines: Sequence[str]) -> int:
    """Return the exit code of the stage if dvc's output names it, otherwise dvc's own.

    dvc exits with 255 if a stage fails, and prints the stage's exit code in its last line: −N if
    signal N killed the stage, 128 + N if it killed a command in the stage's shell.
    """
    pattern = r"^ERROR: failed to reproduce .* exited with (-?\d+)$"
    named = re.search(pattern, "\n".join(last_lines), re.MULTILINE)
    return int(named[1]) if named else code


def _without_traceback(record: logging.LogRecord) -> bool:
    """Reduce a FlowError in Prefect's log to its first line, without traceback or output.

    The output of the stage is in the log already, and a traceback would lead into Prefect only.
    Prefect has no option to suppress it (PrefectHQ/prefect#7959).
    """
    error = record.exc_info[1] if record.exc_info else None
    arguments = record.args if isinstance(record.args, tuple) else ()
    retried = next((part for part in arguments if isinstance(part, StageError)), None)
    if isinstance(error, FlowError):
        record.msg, record.args, record.exc_info = "%s", (first_line(error),), None
    elif retried:  # "Task run failed with …: StageError(…) - Retry 1/1 will start immediately"
        record.msg, record.args = "%s; retrying", (first_line(retried),)
    return True


def first_line(error: FlowError) -> str:
    """Return the summary of an error."""
    return str(error).partition("\n")[0]


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_without_traceback)
