"""Flows as commands: started like in a terminal, with all their descendant processes."""

import os
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.helpers.prefect_runs import log_of
from tools import tiny_project
from tools.prefect_services import Server, kill_marked, marked, wait_for
from tools.tiny_project import dvc_output

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

ROOT = Path(__file__).resolve().parents[2]


class Run(NamedTuple):
    """A finished command: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


class FlowCommand:
    """`python -m flows.pipeline` on the repository `project`, in its own session."""

    def __init__(
        self,
        project: Path,
        home: Path,
        *arguments: str,
        before: Sequence[str] = (),
        **variables: str,
    ) -> None:
        self.mark = uuid.uuid4().hex
        home.mkdir(parents=True, exist_ok=True)
        self.files = [home / "out.txt", home / "err.txt"]
        environment = {
            **os.environ,
            "CATDOG_REPOSITORY": str(project),
            "PREFECT_HOME": str(home),
            "MARK": self.mark,
            **variables,
        }
        if not environment.get("PREFECT_API_URL"):  # Prefect takes an empty one for a URL
            environment.pop("PREFECT_API_URL", None)
        with self.files[0].open("w") as out, self.files[1].open("w") as err:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "flows.pipeline", *arguments],
                cwd=ROOT,
                env=environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def finish(self, seconds: float = 300) -> Run:
        """Wait for the command; return its exit code and output."""
        return Run(self.process.wait(timeout=seconds), *self.output())

    def output(self) -> list[str]:
        """Return standard output and standard error so far."""
        return [file.read_text(encoding="utf-8") for file in self.files]

    def processes(self) -> list[Any]:
        """Return the running processes that descend from the command."""
        return marked(self.mark)

    def end(self) -> None:
        """Kill the command and all its descendants."""
        kill_marked(self.mark)
        self.process.wait()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose three stages have not run yet."""
    return tiny_project.create(tmp_path_factory.mktemp("template") / "project")


@pytest.fixture(scope="module")
def server(prefect_server: Server) -> str:
    """The URL of the Prefect server that the flows of this module use."""
    return prefect_server.url


@pytest.fixture
def database(prefect_server: Server, tmp_path: Path) -> str:
    """A copy of the server's database, since creating one takes Prefect ten seconds."""
    source = sqlite3.connect(prefect_server.home / "prefect" / "prefect.db")
    with closing(source), closing(sqlite3.connect(tmp_path / "prefect.db")) as target:
        source.backup(target)
    return f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}"


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template, as the repository of the flows."""
    monkeypatch.setenv("RUNS_LOG", str(tmp_path / "runs.log"))
    copy = shutil.copytree(template, tmp_path / "project")
    monkeypatch.setenv("CATDOG_REPOSITORY", str(copy))
    return copy


@pytest.fixture
def start(server: str, tmp_path: Path) -> Iterator[Callable[..., FlowCommand]]:
    """Return a function that starts a flow as a command; all are killed after the test."""
    flows: list[FlowCommand] = []

    def start_one(project: Path, *arguments: str, **settings: Any) -> FlowCommand:
        settings = {"PREFECT_API_URL": server, **settings}
        flows.append(FlowCommand(project, tmp_path / f"home{len(flows)}", *arguments, **settings))
        return flows[-1]

    yield start_one
    for flow in flows:
        flow.end()


def log_of_ended(state: "State[Any]") -> list[str]:
    """Return the log lines of a finished flow run, once the server has all of them."""
    run = state.state_details.flow_run_id
    assert run is not None

    def lines() -> list[str]:
        return log_of(run)

    # Log lines arrive in batches: those of the tasks may arrive before the last one of the run.
    wait_for(lambda: any(line == f"Finished in state {state}" for line in lines()))
    return lines()


def experiments(project: Path) -> list[str]:
    """Return the names of the project's experiments."""
    return dvc_output(project, "exp", "list", "--name-only", "--all").split()


def workspaces(project: Path) -> list[str]:
    """Return the names of the clones in which flows run."""
    runs = project / ".catdog" / "flows" / "runs"
    return [path.name for path in runs.glob("*") if path.is_dir()]
