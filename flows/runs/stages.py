"""A DVC stage as a Prefect task, and the push of its results and the run cache after it."""

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dvc.config import Config
from dvc.exceptions import DvcException
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.errors import FlowError
from flows.guards import child_processes
from flows.guards.child_processes import DVC
from flows.guards.device_slots import device_slot
from flows.paths import RAW, RAW_POINTER
from flows.runs.stage_output import Outcome, StageLog, exit_code_of_stage, stage_log
from flows.runs.workspace import environment

Stage = Literal["prepare", "train", "evaluate"]
STAGES: tuple[Stage, ...] = ("prepare", "train", "evaluate")
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
        for command in push_commands():
            _run(command, root, log, f"push after stage {stage} failed")


def push_commands() -> list[list[str]]:
    """Return the commands that push the results of a DVC project to its default remote."""
    return [[*DVC, "push", "--run-cache"], [sys.executable, str(PUSH_UNCACHED)]]


def _run(
    command: Sequence[str],
    root: Path,
    log: StageLog,
    failure: str,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Run a command in `root`, with `variables` added; StageError with `failure` if it fails."""
    complete = environment(root, **(variables or {}))
    if code := child_processes.run_supervised(command, root, complete, log.handle_line):
        raise stage_error(failure, code, log)


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
    code = exit_code_of_stage(code, log.last_lines)
    first = f"{failure}: {child_processes.describe_exit(code)}; log: {log.path}"
    killed = child_processes.signal_of(code) == signal.SIGKILL
    return StageError("\n".join([first, *log.last_lines]), killed)
