"""Run a command in a new session, and end its whole process group when asked to stop or orphaned.

    python supervisor.py [--parent PID] GRACE -- COMMAND [ARGUMENT...]

dvc exits at once on SIGTERM and leaves the stage that it runs behind (no upstream issue found,
searched 2026-11-30), and a flow that is killed cannot stop anything. So this process runs between
the two. It ends the command's process group when it receives SIGTERM, SIGINT or SIGHUP, when its
parent process is gone, and when the command has exited but left processes running: SIGTERM first,
so that a training can save, then SIGKILL after GRACE seconds. It passes on the command's output as
it comes, and its exit code (128 + N if signal N killed it).

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
        description="Run a command, and end all of its processes with this one."
    )
    parser.add_argument(
        "--parent", type=int, default=os.getppid(), help="end the command when this process is gone"
    )
    parser.add_argument("grace", type=float, help="seconds between SIGTERM and SIGKILL")
    parser.add_argument("command", nargs="+", help="the command, after --")
    options = parser.parse_args(arguments)
    return supervise(options.command, options.grace, options.parent)


def supervise(command: Sequence[str], grace: float, parent: int) -> int:
    """Run `command` until it exits, a stop signal arrives, or process `parent` is gone.

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
        print(f"cannot start {command[0]}: {error.strerror}", flush=True)
        return 127
    assert child.stdout is not None
    relay = threading.Thread(target=_relay, args=[child.stdout.fileno()], daemon=True)
    relay.start()
    while not stopped and os.getppid() == parent:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(POLL_SECONDS)
            break
    _end_group(child, grace)
    relay.join(KILLED_SECONDS)  # a limit, since a daemon that left the group may hold the pipe
    code = 128 + signal.SIGKILL if child.returncode is None else child.returncode
    return code if code >= 0 else 128 - code


def _record_stop_signals() -> list[int]:
    """Return a list to which the number of each stop signal is appended from now on."""
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Under `nohup` SIGHUP is ignored, and must stay so.
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

    Go on reading when standard output is closed: a training that prints into a broken pipe would
    die before it has saved.
    """
    while chunk := os.read(source, 65536):
        with contextlib.suppress(OSError):
            while chunk:
                chunk = chunk[os.write(1, chunk) :]


def _end_group(child: "subprocess.Popen[bytes]", grace: float) -> None:
    """End the processes that remain in the child's group; return when there are none."""
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
