"""One Prefect task: run one DVC stage as a child, stream its lines, stop it cleanly."""

import logging
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

Stage = Literal["prepare", "train", "evaluate"]

# Prefect kills a cancelled flow after 30 s: by then the stage must have saved, or been killed.
GRACE_SECONDS = 15.0
LAST_LINES = 20
DVC = (sys.executable, "-m", "dvc")
PHOTOS = "data/raw"
SUPERVISOR = Path(__file__).with_name("supervise.py")


class FlowError(RuntimeError):
    """Something the user can mend: its text says what is wrong and where.

    It becomes the message of the run's state; its first line stands alone, and is all that is
    logged.
    """


class StageError(FlowError):
    """A stage ended with an error: which one, how, and the last lines that it printed."""


@task(task_run_name="{stage}", cache_policy=NO_CACHE)  # DVC is the only cache
def run_stage(stage: Stage, root: Path) -> None:
    """Bring `stage` of the DVC project in `root` up to date; its lines go to the run's log.

    Call it directly, not with `.submit()`: only in the main thread does a cancelled run reach it,
    and let the stage save. Raises StageError with the stage's last lines.
    """
    last_lines: deque[str] = deque(maxlen=LAST_LINES)
    for arguments in dvc_commands(stage, root):
        code = _run([*DVC, *arguments], root, last_lines)
        if code:
            how = _how_it_ended(code, last_lines)
            raise StageError("\n".join([f"stage {stage} failed: {how}", *last_lines]))


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
    """Return whether the DVC project in `root` names a remote for whatever names none itself."""
    command = [*DVC, "config", "core.remote"]
    # It exits with 0 and prints nothing where none is set.
    done = subprocess.run(command, cwd=root, env=_environment(), capture_output=True, check=False)
    return bool(done.stdout.strip())


def _run(command: Sequence[str], root: Path, last_lines: deque[str]) -> int:
    """Run `command` in `root` under the supervisor; return its exit code.

    Whatever interrupts us, a cancelled run or Ctrl-C, ends the command before it goes on its way.
    """
    supervised = [sys.executable, "-I", "-S", str(SUPERVISOR), "--parent", str(os.getpid())]
    process = subprocess.Popen(
        [*supervised, str(GRACE_SECONDS), "--", *command],
        cwd=root,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    try:
        _log_lines(process.stdout, last_lines)
        return process.wait()
    except BaseException:
        process.terminate()
        _log_lines(process.stdout, last_lines)  # what it says while it saves
        process.wait()
        raise


def _environment() -> dict[str, str]:
    """Return the child's environment: plain unbuffered lines, and the `python` of this process."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {
        **os.environ,
        "PATH": path,
        "DVC_NO_ANALYTICS": "1",
        "NO_COLOR": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUNBUFFERED": "1",
        "TERM": "dumb",
    }


def _log_lines(output: IO[str], last_lines: deque[str]) -> None:
    """Log each line as it comes and keep the last ones; return when `output` ends."""
    logger = get_run_logger()
    for line in output:
        if text := line.rstrip():
            logger.info("%s", text)
            last_lines.append(text)


def _how_it_ended(code: int, last_lines: Sequence[str]) -> str:
    """Return the exit code or signal in words: the stage's where dvc names it, else dvc's own.

    dvc exits with 255 whatever the stage did, and puts the stage's exit code into its last line: −N
    when signal N killed the stage itself, 128 + N when it killed a command of the stage's shell.
    """
    pattern = r"^ERROR: failed to reproduce .* exited with (-?\d+)$"
    named = re.search(pattern, "\n".join(last_lines), re.MULTILINE)
    ended = int(named[1]) if named else code
    number = -ended if ended < 0 else ended - 128
    if number in set(signal.valid_signals()):
        return f"killed by signal {number} ({signal.Signals(number).name})"
    return f"exit code {ended}"


def _without_traceback(record: logging.LogRecord) -> bool:
    """Let Prefect log a FlowError as its first line; the stage's own lines are in the log already.

    A traceback through Prefect would only hide them.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, FlowError):
        record.msg, record.args, record.exc_info = "%s", (str(error).partition("\n")[0],), None
    return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_without_traceback)
