"""A real Prefect server and real workers for the tests: free ports, own homes, and all of it ends.

conftest.py loads this file, so that its fixtures are there without an import.
"""

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
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
import pytest

if TYPE_CHECKING:  # to import it takes a second, which tests without a server need not wait
    from prefect.client.schemas.objects import FlowRun, State

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def marked(mark: str) -> list[Any]:
    """Return the living processes that have inherited MARK=`mark`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it is gone by now, or is not ours
            if process.environ().get("MARK") == mark:
                found.append(process)
    return found


def kill_marked(mark: str) -> None:
    """Kill them all at one blow, as a power cut does: none can tell of another's death."""
    while processes := marked(mark):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def wait_for(look: Callable[[], T], seconds: float = 120) -> T:
    """Return what `look` finds as soon as that is true; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"still waiting after {seconds} s"
        time.sleep(0.1)
    return found


def _end_with_the_tests() -> None:
    """Get SIGTERM when the process that runs the tests dies, before it could clean up."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Service:
    """A command that runs in the background, in a session of its own, with its output in a file."""

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
        """Start the command; what it prints is added to the file."""
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
                # It calls into the C library only: no lock of another thread can be in its way.
                preexec_fn=_end_with_the_tests if sys.platform == "linux" else None,  # noqa: PLW1509
            )

    def log(self) -> str:
        """Return what the command has printed so far."""
        return (self.home / "out.txt").read_text(encoding="utf-8", errors="replace")

    def processes(self) -> list[Any]:
        """Return every living process that descends from the command."""
        return marked(self.mark)

    def stop(self, seconds: float = 120) -> int:
        """Ask the command to end (SIGTERM); return its exit code once it has."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=seconds)

    def kill(self) -> None:
        """Kill the command and all that descends from it, at once: the host is dead."""
        kill_marked(self.mark)
        if self.process is not None:
            self.process.wait()


class Server(Service):
    """`python -m flows.server` on a free port. It can be stopped, and started anew."""

    def __init__(self, home: Path, **variables: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        command = [sys.executable, "-m", "flows.server"]
        super().__init__(command, home, PREFECT_SERVER_API_PORT=str(self.port), **variables)
        self.deployed = False

    def start(self) -> None:
        """Start the server and return when it answers."""
        super().start()
        wait_for(self._answers, 300)

    def _answers(self) -> bool:
        import httpx

        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health", timeout=5).is_success
        return False


@pytest.fixture(scope="session")
def _server_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def prefect_server(
    _server_of_the_session: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server of all tests; the tests of this module talk to it."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    settings: dict[Any, Any] = {
        PREFECT_API_URL: _server_of_the_session.url,
        PREFECT_HOME: tmp_path_factory.mktemp("prefect"),
    }
    with temporary_settings(settings):
        yield _server_of_the_session


@pytest.fixture(scope="module")
def deployed(prefect_server: Server) -> Server:
    """The server after `python -m flows.deploy`; no schedule starts anything by itself."""
    if not prefect_server.deployed:
        deploy(prefect_server)
        pause_schedules()
        prefect_server.deployed = True
    return prefect_server


def deploy(server: Server, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m flows.deploy` against `server`; fail if it does."""
    of_this_machine = {"PREFECT_API_URL": server.url, "CATDOG_ROOT": "/nowhere"}
    environment = {**server.environment, **of_this_machine, **variables}
    del environment["MARK"]
    command = [sys.executable, "-m", "flows.deploy"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextmanager
def running_server(home: Path, database: str | None = None) -> Iterator[Server]:
    """Run a server that has the deployments, on SQLite or on `database`; this process uses it."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    more = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}
    server = Server(home, **more)
    Path(server.environment["PREFECT_HOME"]).mkdir(parents=True)
    # The tables first: on a busy machine they take longer than a server may take to answer.
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
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            for schedule in deployment.schedules:
                client.update_deployment_schedule(deployment.id, schedule.id, active=False)


class Agent(Service):
    """`python -m flows.agent`: a worker of `pool`, as on a machine of its own."""

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


@pytest.fixture
def start_agent(prefect_server: Server) -> Iterator[Callable[..., Agent]]:
    """Start an agent: start_agent(pool, repository, home, limit=None, **environment)."""
    agents: list[Agent] = []

    def start_one(
        pool: str, repository: Path, home: Path, limit: int | None = None, **variables: str
    ) -> Agent:
        agents.append(Agent(prefect_server.url, pool, repository, home, limit, **variables))
        agents[-1].start()
        return agents[-1]

    yield start_one
    for agent in agents:
        agent.kill()
        print(agent.log())  # pytest shows it if the test has failed


def run_deployment_now(name: str, **parameters: Any) -> "FlowRun":
    """Create a run of the deployment `name` for a worker to take; return it as it is at first."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.deployments import run_deployment

    run = run_deployment(name, parameters=parameters, timeout=0)
    assert isinstance(run, FlowRun)
    return run


def state_of(run_id: uuid.UUID) -> "State[Any]":
    """Return the present state of a flow run."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run_id).state
    assert state is not None
    return state


def wait_for_end(run_id: uuid.UUID, seconds: float = 600) -> "State[Any]":
    """Return the final state of a flow run once it has one."""
    wait_for(lambda: state_of(run_id).is_final(), seconds)
    return state_of(run_id)


def log_of(run_id: uuid.UUID) -> list[str]:
    """Return the lines of a flow run's log that the server has so far, those of its tasks too."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    lines: list[str] = []
    with get_client(sync_client=True) as client:
        while page := client.read_logs(only, offset=len(lines), sort=LogSort.TIMESTAMP_ASC):
            lines += [log.message for log in page]
    return lines
