"""Run a command in a new session; terminate its process group on a stop signal or when orphaned.

    python supervisor.py [--parent PID] GRACE -- COMMAND [ARGUMENT...]

dvc exits immediately on SIGTERM and leaves its stage running (no upstream issue found, searched
2026-11-30), and a flow that is killed cannot stop anything. So the supervisor runs between them. It
terminates the command's process group when it receives SIGTERM, SIGINT or SIGHUP, when its parent
process has exited, and when the command has exited but left processes running: SIGTERM first, so
that training can save a checkpoint, then SIGKILL after GRACE seconds. It forwards the command's
output unbuffered, and its exit code (128 + N if signal N killed it).

It imports the standard library only, to start within a few hundredths of a second.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

POLL_SECONDS = 0.1
KILLED_SECONDS = 2.0  # how long the kernel may take to remove a killed group
PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and supervise its command; return the exit code."""
    parser = argparse.ArgumentParser(
        description="Run a command; terminate all of its processes when this process stops."
    )
    parser.add_argument(
        "--parent",
        type=int,
        default=os.getppid(),
        help="process ID; terminate the command when this process exits",
    )
    parser.add_argument("grace", type=float, help="seconds between SIGTERM and SIGKILL")
    parser.add_argument("command", nargs="+", help="the command, after --")
    options = parser.parse_args(arguments)
    return supervise(options.command, options.grace, options.parent)


def supervise(command: Sequence[str], grace: float, parent: int) -> int:
    """Run `command` until it exits, a stop signal arrives, or process `parent` has exited.

    No process of its group is left on return. Returns its exit code: 128 + N if signal N killed it,
    127 if it cannot be started.
    """
    stopped = _record_stop_signals()
    _adopt_orphans()
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        print(f"{command[0]}: cannot be started: {error.strerror}", flush=True)
        return 127
    assert child.stdout is not None
    relay = threading.Thread(target=_relay, args=[child.stdout.fileno()], daemon=True)
    relay.start()
    while not stopped and os.getppid() == parent:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(POLL_SECONDS)
            break
    _terminate_group(child, grace)
    relay.join(KILLED_SECONDS)  # a limit, since a daemon that left the group may hold the pipe
    code = 128 + signal.SIGKILL if child.returncode is None else child.returncode
    return code if code >= 0 else 128 - code


def _record_stop_signals() -> list[int]:
    """Return a list to which the number of each stop signal is appended from now on."""
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Keep ignoring SIGHUP under `nohup`.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, _frame: stopped.append(received))
    return stopped


def _adopt_orphans() -> None:
    """Become the parent of the group's orphans, so that this process can reap them.

    Otherwise they are reparented to process 1, which in a container often reaps nothing, and a
    zombie would keep the group alive until GRACE is over. On systems other than Linux process 1
    reaps.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _relay(source: int) -> None:
    """Copy the command's output to standard output until the command closes the pipe.

    Go on reading when standard output is closed: training that prints into a broken pipe would fail
    before it has saved a checkpoint.
    """
    while chunk := os.read(source, 65536):
        with contextlib.suppress(OSError):
            while chunk:
                chunk = chunk[os.write(1, chunk) :]


def _terminate_group(child: "subprocess.Popen[bytes]", grace: float) -> None:
    """Terminate the remaining processes of the child's group; return when all have exited."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, KILLED_SECONDS)):
        if not _alive(child, number):
            return
        deadline = time.monotonic() + seconds
        while _alive(child) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def _alive(child: "subprocess.Popen[bytes]", number: int = 0) -> bool:
    """Send signal `number` (0: none) to the child's group; return whether the group still exists.

    Zombies count as members, so they are reaped first: the child by `poll`, which keeps its exit
    code, and only then the adopted orphans.
    """
    if child.poll() is not None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # a member that runs as another user
        pass
    return True


if __name__ == "__main__":
    sys.exit(main())
