"""Two Prefect tasks: run one DVC stage, and push what it made to the default remote."""

import logging
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from dvc.config import Config
from dvc.exceptions import DvcException
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.errors import FlowError
from flows.guards import child_processes
from flows.guards.child_processes import DVC, child_environment
from flows.guards.device_slots import device_slot
from flows.runs.training_progress import EpochProgress

Stage = Literal["prepare", "train", "evaluate"]
STAGES: tuple[Stage, ...] = ("prepare", "train", "evaluate")
Outcome = Literal["ran", "cached", "unchanged"]

LAST_LINES = 20
LOGS = Path(".catdog/flows/logs")
PHOTOS = "data/raw"
UNCACHED = Path(__file__).with_name("push_uncached.py")


class StageError(FlowError):
    """A stage ended with an error: which one, how, where its log is, and its last lines."""

    def __init__(self, message: str, killed: bool = False) -> None:
        super().__init__(message)
        self.killed = killed  # by SIGKILL: the kernel was short of memory, or somebody of patience


@dataclass(frozen=True)
class Report:
    """What became of a stage that ended well."""

    stage: Stage
    outcome: Outcome
    seconds: float
    log: Path
    pool: str | None = None  # of the machine that ran it, if that was not this one


def was_killed(_task: Any, _run: Any, state: Any) -> bool:
    """Return whether a failed task is worth another try: its stage was killed, and may have saved.

    A stage that ended by itself would end so again.
    """
    return isinstance(state.data, StageError) and state.data.killed


@task(
    task_run_name="{stage}",
    cache_policy=NO_CACHE,  # DVC is the only cache
    retries=1,
    retry_condition_fn=was_killed,
)
def run_stage(
    stage: Stage,
    root: Path,
    environment: Mapping[str, str] | None = None,
    logs: Path | None = None,
    device: bool = True,
) -> Report:
    """Bring `stage` of the DVC project in `root` up to date; return what became of it.

    Its lines go to the run's log and to STAGE.log in the folder `logs`, its epochs to a progress
    artifact. A training first waits for a device, unless not `device`. Call it directly, not with
    `.submit()`: only in the main thread does a cancelled run reach it, and let the stage save.
    Raises StageError; if SIGKILL ended the stage, only after a second try, which goes on from the
    checkpoint.
    """
    started = time.monotonic()
    environment = environment or child_environment()
    slot: AbstractContextManager[Mapping[str, str]] = nullcontext({})
    if stage == "train" and device:
        slot = device_slot(get_run_logger().info)
    with slot as more, StageLog((logs or root / LOGS) / f"{stage}.log") as log:
        for arguments in dvc_commands(stage, root):
            code = child_processes.run_supervised(
                [*DVC, *arguments], root, {**environment, **more}, log.hear
            )
            if code:
                raise stage_error(f"stage {stage} failed", code, log)
        return Report(stage, log.outcome(stage), time.monotonic() - started, log.path)


@task(task_run_name="push {stage}", cache_policy=NO_CACHE)
def push_results(
    stage: Stage, root: Path, environment: Mapping[str, str] | None = None, logs: Path | None = None
) -> None:
    """Push what dvc.lock in `root` names, and all records of runs, to the default remote.

    Right after `stage`, since DVC pushes the outputs of the present dvc.lock only. Raises
    StageError with dvc's last lines if the remote does not take it.
    """
    environment = environment or child_environment()
    with StageLog((logs or root / LOGS) / f"push-{stage}.log") as log:
        for command in ([*DVC, "push", "--run-cache"], [sys.executable, str(UNCACHED)]):
            code = child_processes.run_supervised(command, root, environment, log.hear)
            if code:
                raise stage_error(f"the push after stage {stage} failed", code, log)


class StageLog:
    """What a stage prints: each line at once in the run's log and in a file, the last ones kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._outcomes: dict[str, Outcome] = {}
        self._logger = get_run_logger()
        self._progress = EpochProgress()

    def __enter__(self) -> Self:
        """Open the file: a second try goes on in the same one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()

    def hear(self, line: str) -> None:
        """Take one line."""
        self._logger.info("%s", line)
        print(line, file=self._file)
        self.last.append(line)
        if told := outcome_in(line):
            self._outcomes[told[0]] = told[1]
        self._progress.hear(line)

    def outcome(self, stage: Stage) -> Outcome:
        """Return what dvc said of a stage; it says nothing only of one with nothing to do."""
        return self._outcomes.get(stage, "unchanged")


def outcome_in(line: str) -> tuple[str, Outcome] | None:
    """Return the stage that a line of dvc speaks of and what it says of it; None if of none."""
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

    With a default remote, `repro --pull` takes from there what another machine has done. Without
    one, `--pull` fails as soon as the run cache knows a stage ("no remote specified"), so the
    photos, whose own remote is named in their .dvc file, are pulled by themselves if they are
    missing. Never `repro -s`: it does not look upstream, and trains on old data without a word.
    """
    if has_default_remote(root):
        return [["repro", "--pull", stage]]
    missing = (root / f"{PHOTOS}.dvc").is_file() and not (root / PHOTOS).exists()
    pull = [["pull", f"{PHOTOS}.dvc"]] if missing else []
    return [*pull, ["repro", stage]]


def has_default_remote(root: Path) -> bool:
    """Return whether the DVC project in `root` names a remote for whatever names none itself.

    Raises FlowError if its settings cannot be read.
    """
    try:
        return bool(Config(str(root / ".dvc"))["core"].get("remote"))
    except DvcException as error:
        raise FlowError(f"{root}: DVC's settings cannot be read ({error})") from None


def stage_error(what: str, code: int, log: StageLog) -> StageError:
    """Return the error of a command of dvc that ended with `code`: see `StageError`."""
    code = _code_of_the_stage(code, log.last)
    first = f"{what}: {child_processes.describe_exit(code)}; its log is {log.path}"
    killed = child_processes.signal_of(code) == signal.SIGKILL
    return StageError("\n".join([first, *log.last]), killed)


def _code_of_the_stage(code: int, last_lines: Sequence[str]) -> int:
    """Return the exit code of the stage where dvc names it, else dvc's own.

    dvc exits with 255 whatever the stage did, and puts the stage's exit code into its last line: −N
    when signal N killed the stage itself, 128 + N when it killed a command of the stage's shell.
    """
    pattern = r"^ERROR: failed to reproduce .* exited with (-?\d+)$"
    named = re.search(pattern, "\n".join(last_lines), re.MULTILINE)
    return int(named[1]) if named else code


def _without_traceback(record: logging.LogRecord) -> bool:
    """Let Prefect log a FlowError as its first line; the stage's own lines are in the log already.

    A traceback through Prefect would only hide them.
    """
    error = record.exc_info[1] if record.exc_info else None
    arguments = record.args if isinstance(record.args, tuple) else ()
    tried = next((part for part in arguments if isinstance(part, StageError)), None)
    if isinstance(error, FlowError):
        record.msg, record.args, record.exc_info = "%s", (first_line(error),), None
    elif tried:  # "Task run failed with …: StageError(…) - Retry 1/1 will start immediately"
        record.msg, record.args = "%s; trying once more", (first_line(tried),)
    return True


def first_line(error: FlowError) -> str:
    """Return the line of an error that stands alone."""
    return str(error).partition("\n")[0]


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_without_traceback)
