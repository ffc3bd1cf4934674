"""A worker of one pool on this machine: it takes runs from the server as they come.

    python -m flows.agent --pool gpu [--limit N]

It cleans up what a dead predecessor left, starts Prefect's process worker, and starts it anew
should it end by itself: Prefect's gives up when its server has been away for long. Ctrl-C and
SIGTERM stop it and the runs that it has, which save first.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType

import psutil
from prefect.settings import PREFECT_API_URL

from flows.errors import FlowError
from flows.guards.child_processes import GRACE_SECONDS, SUPERVISOR
from flows.guards.device_slots import devices
from flows.paths import CHECKOUT
from flows.runs.records import clean_up
from flows.runs.repository import home

STOP_SECONDS = GRACE_SECONDS + 10  # the stages save, then Prefect reports how the runs ended
AGAIN_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent until it is stopped; return the exit code, 1 with one line if it cannot."""
    parser = argparse.ArgumentParser(prog="python -m flows.agent", description=__doc__)
    parser.add_argument("--pool", required=True, help="the work pool, gpu or cpu")
    parser.add_argument("--limit", type=int, help="runs at once (gpu: one for each device)")
    options = parser.parse_args(arguments)
    try:
        if not PREFECT_API_URL.value():
            raise FlowError("PREFECT_API_URL is not set: which server? make agent sets it")
        clean_up(home())
    except FlowError as error:
        print(f"agent failed: {error}", file=sys.stderr)
        return 1
    return keep_running(worker_command(options.pool, options.limit), worker_environment())


def worker_command(pool: str, limit: int | None) -> list[str]:
    """Return the command of the worker.

    With its type named it need not ask the server for that at its start, so that it waits for a
    server which is down. It creates the pool if there is none.
    """
    at_once = limit or (len(devices()) if pool == "gpu" else max(2, os.cpu_count() or 1))
    name = f"{socket.gethostname()}-{pool}-{os.getpid()}"
    return [
        *(sys.executable, "-m", "prefect", "worker", "start", "--type", "process"),
        *("--pool", pool, "--limit", str(at_once), "--name", name),
    ]


def worker_environment() -> Mapping[str, str]:
    """Return the environment of the worker and its runs: flows/ is taken from this checkout."""
    return {**os.environ, "CATDOG_ROOT": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}


def keep_running(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `command`, again whenever it ends, until a signal stops us; return 0 then.

    The supervisor runs it in a session of its own: Ctrl-C in a terminal reaches us alone, nothing
    is left when we are killed, and no signal is ignored in it as it may be here (a shell without a
    terminal lets what it starts with `&` ignore SIGINT, on which the worker's stop depends).
    """
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` ignores SIGHUP for everything below it, and means it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    while not stopped:
        code = _run(command, environment, stopped)
        if not stopped:
            print(f"the worker ended with exit code {code}; it starts again", flush=True)
            _sleep(AGAIN_SECONDS, stopped)
    print("agent stopped", flush=True)
    return 0


def _run(command: Sequence[str], environment: Mapping[str, str], stopped: Sequence[int]) -> int:
    """Run `command` under the supervisor, and stop it once `stopped` holds a signal."""
    supervised = [sys.executable, "-I", "-S", str(SUPERVISOR), "--parent", str(os.getpid())]
    process = subprocess.Popen(
        [*supervised, str(STOP_SECONDS), "--", *command],
        cwd=CHECKOUT,
        env=dict(environment),
        start_new_session=True,
    )
    while not stopped and process.poll() is None:
        time.sleep(0.2)
    if stopped:
        _end_runs(process.pid)
        process.terminate()
    return process.wait()


def _end_runs(supervisor: int) -> None:
    """End the runs of the worker below `supervisor`, and return when they have.

    A worker that is told to stop kills its runs, so that they cannot say how they ended. So it is
    halted, lest it start others, while each run stops its stage and reports to the server itself.
    """
    with suppress(psutil.Error):
        for worker in psutil.Process(supervisor).children():
            worker.suspend()
            runs = worker.children()
            for run in runs:
                run.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            while any(map(_is_alive, runs)) and time.monotonic() < deadline:
                time.sleep(0.2)
            worker.resume()


def _is_alive(process: psutil.Process) -> bool:
    """Return whether a process still runs: the worker that is halted does not reap its dead."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _sleep(seconds: float, stopped: Sequence[int]) -> None:
    """Sleep, but not on once `stopped` holds a signal."""
    deadline = time.monotonic() + seconds
    while not stopped and time.monotonic() < deadline:
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
