"""An agent: a Prefect worker for one work pool on this machine.

    python -m flows.agent --pool gpu [--limit N]

It first terminates leftover processes of crashed runs on this machine. Then it starts Prefect's
process worker, and restarts it whenever it exits: the worker exits when the server has been
unreachable for several minutes (no upstream issue found, searched 2026-11-30). Ctrl-C and SIGTERM
stop the worker and its runs, whose training first saves a checkpoint.
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

STOP_SECONDS = GRACE_SECONDS + 10  # training saves, then Prefect reports the final states
RESTART_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent until it is stopped; return the exit code, 1 if it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.agent",
        description="Run a Prefect worker for one work pool on this machine.",
    )
    parser.add_argument("--pool", required=True, help="work pool: gpu, cpu or another")
    parser.add_argument(
        "--limit",
        type=int,
        help="maximum number of concurrent runs (default: one per device for the pool gpu,"
        " otherwise one per CPU core, at least 2)",
    )
    options = parser.parse_args(arguments)
    try:
        if not PREFECT_API_URL.value():
            raise FlowError("PREFECT_API_URL: not set; set it, or run `make agent`")
        clean_up(home())
    except FlowError as error:
        print(f"agent failed: {error}", file=sys.stderr)
        return 1
    return keep_running(worker_command(options.pool, options.limit), worker_environment())


def worker_command(pool: str, limit: int | None) -> list[str]:
    """Return the command of the worker. The worker creates the pool if it does not exist.

    The type is given because the worker otherwise asks the server for it when it starts, and exits
    if the server does not respond (https://github.com/PrefectHQ/prefect/issues/22638, closed).
    """
    max_runs = limit or (len(devices()) if pool == "gpu" else max(2, os.cpu_count() or 1))
    name = f"{socket.gethostname()}-{pool}-{os.getpid()}"
    return [
        *(sys.executable, "-m", "prefect", "worker", "start", "--type", "process"),
        *("--pool", pool, "--limit", str(max_runs), "--name", name),
    ]


def worker_environment() -> Mapping[str, str]:
    """Return the environment of the worker and its runs, which load flows/ from this checkout."""
    return {**os.environ, "CATDOG_ROOT": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}


def keep_running(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run `command`, and restart it whenever it exits, until a stop signal arrives; return 0.

    It runs under the supervisor, in a new session. So Ctrl-C in a terminal reaches only this
    process, and all child processes exit with it. This also resets ignored signals: a background
    process of a non-interactive shell ignores SIGINT, which Prefect's worker uses to stop (no
    upstream issue found, searched 2026-11-30).
    """
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Keep ignoring SIGHUP under `nohup`.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    while not stopped:
        code = _run(command, environment, stopped)
        if not stopped:
            print(f"the worker exited with code {code}; restarting it", flush=True)
            _sleep(RESTART_SECONDS, stopped)
    print("agent stopped", flush=True)
    return 0


def _run(command: Sequence[str], environment: Mapping[str, str], stopped: Sequence[int]) -> int:
    """Run `command` under the supervisor, until `stopped` holds a signal; return its exit code."""
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
        _stop_runs(process.pid)
        process.terminate()
    return process.wait()


def _stop_runs(supervisor: int) -> None:
    """Stop the runs of the worker under the process `supervisor`; return when they have ended.

    A process worker that stops kills its runs, which then stay Running on the server
    (https://github.com/PrefectHQ/prefect/issues/16746, open). So the worker is suspended, to start
    no other runs, while each run stops its stage and reports its final state itself.
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
    """Return whether a process is running: not a zombie, as a suspended worker reaps none."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _sleep(seconds: float, stopped: Sequence[int]) -> None:
    """Sleep for `seconds`, or until `stopped` holds a signal."""
    deadline = time.monotonic() + seconds
    while not stopped and time.monotonic() < deadline:
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
