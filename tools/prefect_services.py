"""Start a Prefect server and workers as child processes, each with a separate home folder."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[1]
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def marked(mark: str) -> list[Any]:
    """Return the running processes whose environment has MARK=`mark`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has exited, or belongs to another user
            if process.environ().get("MARK") == mark:
                found.append(process)
    return found


def kill_marked(mark: str) -> None:
    """Kill the processes marked `mark` with SIGKILL, as a power failure would.

    No process gets the chance to react to the end of another.
    """
    while processes := marked(mark):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def wait_for(condition: Callable[[], T], seconds: float = 120) -> T:
    """Return the first true result of `condition`, called every 0.1 s.

    Raises TimeoutError after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"condition not met within {seconds} s")
        time.sleep(0.1)
    return found


def _end_with_parent() -> None:
    """Ask the kernel to send SIGTERM to this process when its parent dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Service:
    """A command that runs in the background, in its own session, with its output in a file.

    PREFECT_* variables of this process are not passed on; PREFECT_HOME is below `home`.
    """

    def __init__(self, command: list[str], home: Path, **variables: str) -> None:
        self.command = command
        self.home = home
        self.mark = uuid.uuid4().hex
        self.environment = {
            **{name: value for name, value in os.environ.items() if "PREFECT_" not in name},
            **QUIET,
            "PREFECT_HOME": str(home / "prefect"),
            "MARK": self.mark,
            **variables,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the command; its output is appended to home/out.txt."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "out.txt").open("a") as out:
            self.process = subprocess.Popen(
                self.command,
                cwd=REPOSITORY,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Python warns of deadlocks with threads; this function needs no lock of Python.
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )

    def log(self) -> str:
        """Return what the command has printed so far."""
        return (self.home / "out.txt").read_text(encoding="utf-8", errors="replace")

    def processes(self) -> list[Any]:
        """Return the running processes that descend from the command."""
        return marked(self.mark)

    def stop(self, seconds: float = 120) -> int:
        """Stop the command with SIGTERM; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=seconds)

    def kill(self) -> None:
        """Kill the command and its descendants with SIGKILL, as if the host had failed."""
        kill_marked(self.mark)
        if self.process is not None:
            self.process.wait()


class Server(Service):
    """`python -m flows.server` on a free port; it can be stopped and started again."""

    def __init__(self, home: Path, **variables: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        command = [sys.executable, "-m", "flows.server"]
        super().__init__(command, home, PREFECT_SERVER_API_PORT=str(self.port), **variables)
        self.deployed = False

    def start(self) -> None:
        """Start the server and wait until it responds."""
        super().start()
        wait_for(self._responds, 300)

    def _responds(self) -> bool:
        import httpx  # noqa: PLC0415

        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health", timeout=5).is_success
        return False


class Agent(Service):
    """`python -m flows.agent`: a worker of `pool` with its own home, as on another machine."""

    def __init__(
        self, url: str, pool: str, repository: Path, home: Path, limit: int | None, **more: str
    ) -> None:
        variables = {
            "PREFECT_API_URL": url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "CATDOG_REPOSITORY": str(repository),
            "CATDOG_HOME": str(home / "catdog"),
            **more,
        }
        command = [sys.executable, "-m", "flows.agent", "--pool", pool]
        command += ["--limit", str(limit)] if limit else []
        super().__init__(command, home, **variables)


def deploy(server: Server, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m flows.deploy` against `server`; AssertionError if it fails."""
    machine = {"PREFECT_API_URL": server.url, "CATDOG_ROOT": "/nowhere"}
    environment = {**server.environment, **machine, **variables}
    del environment["MARK"]
    command = [sys.executable, "-m", "flows.deploy"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextmanager
def running_server(home: Path, database: str | None = None) -> Iterator[Server]:
    """Run a server with the deployments, on SQLite or on `database` (a URL).

    Prefect clients in this process use it. Schedules are paused.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415

    more = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}
    server = Server(home, **more)
    Path(server.environment["PREFECT_HOME"]).mkdir(parents=True)
    # Create the tables first: on a busy machine that can take longer than a server has to respond.
    upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(upgrade, env=server.environment, check=True, stdout=subprocess.DEVNULL)
    try:
        server.start()
        deploy(server)
        with temporary_settings({PREFECT_API_URL: server.url}):
            pause_schedules()
            yield server
    finally:
        server.kill()


def pause_schedules() -> None:
    """Pause the schedules of all deployments of the current server."""
    from prefect.client.orchestration import get_client  # noqa: PLC0415

    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            for schedule in deployment.schedules:
                client.update_deployment_schedule(deployment.id, schedule.id, active=False)
