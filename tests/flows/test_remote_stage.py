"""Stages on different machines: a stage that one machine has run is not repeated on another.

A real server, and a worker per machine. Each machine has its own folder for runs, repository, DVC
cache and key to the remote; they share only a git repository and a DVC remote behind SSH.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from flows.errors import FlowError
from flows.runs.placement import check_pools
from tests.helpers import ssh_server
from tests.helpers.prefect_runs import log_of, run_deployment_now, wait_for_end
from tests.helpers.ssh_server import SshServer
from tools import tiny_project
from tools.prefect_services import Agent, Server, wait_for
from tools.tiny_project import dvc_output, git

LONG_TRAIN = """\
import signal, sys, time
from pathlib import Path

def stop(number, frame):
    Path({mark!r}, "saved").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, stop)
Path({mark!r}, "training").touch()
time.sleep(600)
"""
TIMEOUT = 900.0  # seconds; a run is six or more processes in sequence
PLACES = {"prepare": "cpu", "train": "gpu", "evaluate": "cpu"}


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A running SSH server: OpenSSH's, or asyncssh's where that is not installed."""
    with ssh_server.serve(tmp_path_factory.mktemp("ssh"), ssh_server.openssh()) as server:
        yield server


@pytest.fixture
def origin(ssh: SshServer, tmp_path: Path) -> Path:
    """The git repository that all machines clone; it configures the remote without a key."""
    project = tiny_project.create(tmp_path / "origin")
    with (project / ".dvc" / "config").open("a", encoding="utf-8") as config:
        remote = f"['remote \"store\"']\n    url = {ssh.url(tmp_path / 'store')}\n"
        config.write(f"    remote = store\n{remote}")
    tiny_project.commit(project, "A remote for all")
    return project


class Machine:
    """The folders and the environment of one machine."""

    def __init__(self, folder: Path, key: Path, repository: str | Path) -> None:
        self.folder = folder
        self.repository = repository
        self.variables = {
            "RUNS_LOG": str(folder / "runs.log"),
            # The key to the remote must not be in the repository.
            "DVC_GLOBAL_CONFIG_DIR": str(folder / "dvc"),
            "DVC_SITE_CACHE_DIR": str(folder / "site"),
        }
        (folder / "dvc").mkdir(parents=True)
        config = f"['remote \"store\"']\n    keyfile = {key}\n"
        (folder / "dvc" / "config").write_text(config, encoding="utf-8")

    def ran(self) -> list[str]:
        """Return the stages that have run on this machine."""
        log = self.folder / "runs.log"
        return log.read_text(encoding="utf-8").split() if log.exists() else []


@pytest.fixture
def cpu(ssh: SshServer, origin: Path, tmp_path: Path) -> Machine:
    """A machine with a clone of the repository."""
    clone = tmp_path / "cpu" / "clone"
    git(tmp_path, "clone", "-q", str(origin), str(clone))
    git(clone, "config", "user.name", "A Tester")
    git(clone, "config", "user.email", "tester@example.com")
    return Machine(tmp_path / "cpu", ssh.key, clone)


@pytest.fixture
def gpu(ssh: SshServer, origin: Path, tmp_path: Path) -> Machine:
    """A machine with only the URL of the repository."""
    return Machine(tmp_path / "gpu", ssh.key, f"file://{origin}")


@pytest.fixture
def machines(
    deployed: Server, start_agent: Callable[..., Agent], cpu: Machine, gpu: Machine
) -> Iterator[list[Agent]]:
    """The agents of the two machines."""
    agents = []
    for pool, machine in (("cpu", cpu), ("gpu", gpu)):
        agents.append(start_agent(pool, machine.repository, machine.folder, **machine.variables))
    yield agents


def run_placed(places: dict[str, str], **parameters: Any) -> FlowRun:
    """Start a pipeline on pool cpu with these placements."""
    return run_deployment_now("pipeline/placed", placement=places, **parameters)


def child(run: FlowRun, stage: str) -> FlowRun | None:
    """Return the flow run for a stage of `run`; None if it does not exist yet."""
    only = FlowRunFilter(name=FlowRunFilterName(any_=[f"{run.name}-{stage}"]))
    with get_client(sync_client=True) as client:
        return next(iter(client.read_flow_runs(flow_run_filter=only)), None)


@pytest.mark.slow
def test_each_stage_runs_on_its_machine_and_none_runs_twice(
    machines: list[Agent], cpu: Machine, gpu: Machine
) -> None:
    first = run_placed(PLACES, experiment="first")
    assert wait_for_end(first.id, TIMEOUT).is_completed(), log_of(first.id)
    assert (cpu.ran(), gpu.ran()) == (["prepare", "evaluate"], ["train"])
    assert "first" in dvc_output(Path(cpu.repository), "exp", "list", "--name-only").split()

    # What one machine has run, the other one only fetches ...
    again = run_placed(dict.fromkeys(PLACES, "gpu"), experiment="again")
    assert wait_for_end(again.id, TIMEOUT).is_completed(), log_of(again.id)
    assert (cpu.ran(), gpu.ran()) == (["prepare", "evaluate"], ["train"])

    # ... and outdated stages run where they are placed.
    other = run_placed(PLACES, experiment="other", overrides=["optimizer.lr=0.2"])
    assert wait_for_end(other.id, TIMEOUT).is_completed(), log_of(other.id)
    assert (cpu.ran(), gpu.ran()) == (["prepare", "evaluate", "evaluate"], ["train", "train"])


@pytest.mark.slow
def test_a_new_machine_restores_everything_from_the_remote(
    machines: list[Agent],
    start_agent: Callable[..., Agent],
    ssh: SshServer,
    cpu: Machine,
    gpu: Machine,
    tmp_path: Path,
) -> None:
    first = run_placed(PLACES)
    assert wait_for_end(first.id, TIMEOUT).is_completed(), log_of(first.id)
    machines[1].stop()
    new = Machine(tmp_path / "new", ssh.key, gpu.repository)
    start_agent("gpu", new.repository, new.folder, **new.variables)
    commit = git(Path(cpu.repository), "rev-parse", "HEAD")
    run = run_deployment_now("stage/gpu", stage="evaluate", revision=commit)
    state = wait_for_end(run.id, TIMEOUT)
    assert state.is_completed(), log_of(run.id)
    assert new.ran() == []
    assert any("Stage 'train' is cached" in line for line in log_of(run.id))


@pytest.mark.slow
def test_a_stage_that_fails_on_another_machine_fails_the_run_with_its_reason(
    machines: list[Agent], cpu: Machine, gpu: Machine, origin: Path
) -> None:
    (origin / "train.py").write_text("raise SystemExit('no memory: buy some')", encoding="utf-8")
    commit = tiny_project.commit(origin, "Break it")
    run = run_placed(PLACES, revision=commit)  # the clone on cpu does not have it yet
    state = wait_for_end(run.id, TIMEOUT)
    assert state.is_failed(), log_of(run.id)
    message = str(state.message)
    assert f"stage train on pool gpu: run {run.name}-train is Failed: stage train failed" in message
    assert "no memory: buy some" in message
    assert (cpu.ran(), gpu.ran()) == (["prepare"], [])  # and evaluate did not run


@pytest.mark.slow
def test_a_cancelled_run_stops_the_stage_on_the_other_machine(
    machines: list[Agent], gpu: Machine, origin: Path, tmp_path: Path
) -> None:
    source = LONG_TRAIN.format(mark=str(tmp_path))
    (origin / "train.py").write_text(source, encoding="utf-8")
    run = run_placed(PLACES, revision=tiny_project.commit(origin, "Train long"))
    wait_for((tmp_path / "training").exists, TIMEOUT)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.id, Cancelling())
    assert wait_for_end(run.id, TIMEOUT).is_cancelled(), log_of(run.id)
    part = child(run, "train")
    assert part is not None and part.state is not None
    assert part.state.is_cancelling() or part.state.is_cancelled()  # before its own run ended
    assert wait_for_end(part.id, TIMEOUT).is_cancelled(), log_of(part.id)
    assert (tmp_path / "saved").exists()
    wait_for(lambda: not [p for p in machines[1].processes() if "train.py" in p.cmdline()])


@pytest.mark.slow
def test_a_pool_without_a_stage_deployment_is_rejected_before_any_copy(
    machines: list[Agent], cpu: Machine
) -> None:
    run = run_placed({**PLACES, "train": "tpu"})
    state = wait_for_end(run.id, TIMEOUT)
    assert state.is_failed()
    reason, _, pools = str(state.message).partition("; available pools: ")
    assert reason.endswith(
        "the server has no deployment stage/tpu; run `make deploy` or choose another pool"
    )
    assert {"cpu", "gpu"} <= set(pools.split(", "))  # other tests install more
    assert not list((cpu.folder / "catdog").glob("runs/*"))


@pytest.mark.slow
def test_placement_without_a_remote_is_rejected(
    machines: list[Agent], origin: Path, cpu: Machine, gpu: Machine
) -> None:
    # The remote itself stays: the configuration of the machines refers to it.
    dvc_output(origin, "config", "--unset", "core.remote")
    run = run_placed(PLACES, revision=tiny_project.commit(origin, "No remote"))
    state = wait_for_end(run.id, TIMEOUT)
    assert state.is_failed()
    assert "placement: requires a default DVC remote" in str(state.message)
    assert (cpu.ran(), gpu.ran()) == ([], [])


def test_placement_without_a_server_says_what_is_required() -> None:
    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(FlowError, match="make server"):
        check_pools(["gpu"])


def test_no_placement_needs_no_server() -> None:
    no_server = "http://127.0.0.1:1/api"
    with temporary_settings({PREFECT_API_URL: no_server}):
        check_pools([])
