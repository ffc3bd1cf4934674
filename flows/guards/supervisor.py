"""Run a command in a session of its own, and end all of it when told to stop or left alone.

    python supervise.py [--parent PID] GRACE -- COMMAND [ARGUMENT...]

dvc ends at once on SIGTERM and orphans the stage that it runs, and a flow that is killed cannot
stop anything. So this process stands between the two. It ends the command's whole process group
when it gets SIGTERM, SIGINT or SIGHUP, when its parent is gone, and when the command has ended but
left something running: SIGTERM first, so that a training can save, and SIGKILL after GRACE seconds.
It passes the command's output on as it comes, and its exit code (128 + N when killed by signal N).

It needs the standard library only, so that it starts in a few hundredths of a second.
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
    parser = argparse.ArgumentParser(description="Run a command, and end all of it with us.")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process to watch")
    parser.add_argument("grace", type=float, help="seconds between SIGTERM and SIGKILL")
    parser.add_argument("command", nargs="+", help="the command, after --")
    options = parser.parse_args(arguments)
    return supervise(options.command, options.grace, options.parent)


def supervise(command: Sequence[str], grace: float, parent: int) -> int:
    """Run `command` until it ends, a stop signal comes or process `parent` is no longer our parent.

    No process of its group is left on return. Returns its exit code, 128 + N when signal N killed
    it, 127 when it cannot be started.
    """
    stopped = _note_stop_signals()
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
    relay.join(KILLED_SECONDS)  # not for ever: a daemon that left the group may hold the pipe
    code = 128 + signal.SIGKILL if child.returncode is None else child.returncode
    return code if code >= 0 else 128 - code


def _note_stop_signals() -> list[int]:
    """Return a list that receives the number of each stop signal from now on."""
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # `nohup` ignores SIGHUP for everything below it, and means it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, _frame: stopped.append(received))
    return stopped


def _adopt_orphans() -> None:
    """Become the parent of the group's orphans, so that we can reap them.

    Without it they go to process 1, which in a container often reaps nothing: the zombie would keep
    the group alive until the grace is over. On systems other than Linux process 1 does reap.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _relay(source: int) -> None:
    """Copy what the command prints to our standard output, until the command closes its end.

    When nobody reads us any more we go on reading: a training that prints into a broken pipe would
    die of it before it has saved.
    """
    while chunk := os.read(source, 65536):
        with contextlib.suppress(OSError):
            while chunk:
                chunk = chunk[os.write(1, chunk) :]


def _end_group(child: "subprocess.Popen[bytes]", grace: float) -> None:
    """End what is left of the child's process group; return when it is gone."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, KILLED_SECONDS)):
        if not _alive(child, number):
            return
        deadline = time.monotonic() + seconds
        while _alive(child) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def _alive(child: "subprocess.Popen[bytes]", number: int = 0) -> bool:
    """Send signal `number` (0: none) to the child's group; return whether the group still exists.

    The dead are reaped first, since a zombie counts as a member. The child itself goes through
    `poll`, which keeps its exit code, and only then the orphans that came to us.
    """
    if child.poll() is not None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # a member that runs as somebody else is still a member
        pass
    return True


if __name__ == "__main__":
    sys.exit(main())
