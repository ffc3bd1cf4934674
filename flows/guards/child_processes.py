"""Run a command as a child process of the flow: forward its output, terminate all its processes.

Cancelling a run and Ctrl-C raise an exception in the flow's main thread only, so these functions
must be called there: directly from a task, not from one that was started with `.submit()`. In
another thread nothing would be raised, and Prefect would kill the flow after 30 s. Upstream:
https://github.com/PrefectHQ/prefect/issues/10195 (closed) is about cancelling submitted tasks.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from flows.errors import FlowError

# Prefect kills a cancelled flow after 30 s; by then training must have saved or been killed.
GRACE_SECONDS = 15.0
DVC = (sys.executable, "-m", "dvc")
SUPERVISOR = Path(__file__).with_name("supervisor.py")


def child_environment() -> dict[str, str]:
    """Return a child's environment: plain unbuffered output, and the `python` of this process."""
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


def run_supervised(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    handle_line: Callable[[str], None],
) -> int:
    """Run `command` in `folder` under the supervisor; call `handle_line` with each line it prints.

    Any exception here, such as a cancelled run or Ctrl-C, first terminates the command and is then
    raised again. Returns the exit code, 128 + N if signal N killed the command.
    """
    supervised = [sys.executable, "-I", "-S", str(SUPERVISOR), "--parent", str(os.getpid())]
    process = subprocess.Popen(
        [*supervised, str(GRACE_SECONDS), "--", *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    try:
        _read_lines(process.stdout, handle_line)
        return process.wait()
    except BaseException:
        process.terminate()
        _read_lines(process.stdout, handle_line)  # output while it saves a checkpoint
        process.wait()
        raise


def dvc_output(folder: Path, environment: Mapping[str, str], *arguments: str) -> str:
    """Return what `dvc ARGUMENTS...` prints in `folder`; raise FlowError with its error message."""
    done = subprocess.run(
        [*DVC, *arguments],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR:")]
        reason = (errors or lines or ["no error message"])[-1].removeprefix("ERROR: ")
        raise FlowError(f"dvc {' '.join(arguments[:2])} failed in {folder}: {reason}")
    return done.stdout


def _read_lines(output: IO[str], handle_line: Callable[[str], None]) -> None:
    """Call `handle_line` with each line, without trailing whitespace, until `output` ends."""
    for line in output:
        if text := line.rstrip():
            handle_line(text)


def describe_exit(code: int) -> str:
    """Return an exit code as text: "killed by signal 9 (SIGKILL)" or "exit code 1"."""
    if number := signal_of(code):
        return f"killed by signal {number} ({signal.Signals(number).name})"
    return f"exit code {code}"


def signal_of(code: int) -> int:
    """Return the signal number in an exit code of −N or 128 + N; 0 for any other exit code."""
    number = -code if code < 0 else code - 128
    return number if number in set(signal.valid_signals()) else 0
