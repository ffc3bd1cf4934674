"""A command as a child of the flow: its lines as they come, and nothing of it left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from flows.errors import FlowError

# Prefect kills a cancelled flow after 30 s: by then the stage must have saved, or been killed.
GRACE_SECONDS = 15.0
DVC = (sys.executable, "-m", "dvc")
SUPERVISOR = Path(__file__).with_name("supervisor.py")


def child_environment() -> dict[str, str]:
    """Return a child's environment: plain unbuffered lines, and the `python` of this process."""
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


def run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    hear: Callable[[str], None],
) -> int:
    """Run `command` in `folder` under the supervisor, and give `hear` each line that it prints.

    Whatever interrupts us, a cancelled run or Ctrl-C, ends the command before it goes on its way.
    Returns the exit code, 128 + N when signal N killed it.
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
        _listen(process.stdout, hear)
        return process.wait()
    except BaseException:
        process.terminate()
        _listen(process.stdout, hear)  # what it says while it saves
        process.wait()
        raise


def dvc(folder: Path, environment: Mapping[str, str], *arguments: str) -> str:
    """Return what `dvc ARGUMENTS...` prints in `folder`; FlowError with its reason if it fails."""
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
        told = [line for line in lines if line.startswith("ERROR:")] or lines or ["no reason given"]
        reason = told[-1].removeprefix("ERROR: ")
        raise FlowError(f"dvc {' '.join(arguments[:2])} failed in {folder}: {reason}")
    return done.stdout


def _listen(output: IO[str], hear: Callable[[str], None]) -> None:
    """Pass each line on as it comes, without spaces at its end; return when `output` ends."""
    for line in output:
        if text := line.rstrip():
            hear(text)


def how_it_ended(code: int) -> str:
    """Return an exit code in words, as the signal that killed where it speaks of one."""
    if number := signal_of(code):
        return f"killed by signal {number} ({signal.Signals(number).name})"
    return f"exit code {code}"


def signal_of(code: int) -> int:
    """Return the signal that an exit code of −N or 128 + N speaks of; 0 if it speaks of none."""
    number = -code if code < 0 else code - 128
    return number if number in set(signal.valid_signals()) else 0
