"""Failures of runs on an agent, with a real server, agent, git and DVC."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.states import Cancelling

from flows.deploy import automations
from flows.guards.device_slots import Device
from flows.guards.heartbeats import HEARTBEAT_SECONDS, MISSED_HEARTBEATS
from tests.helpers.prefect_runs import log_of, run_deployment_now, state_of, wait_for_end
from tools.prefect_services import REPOSITORY, Agent, Server, wait_for
from tools.tiny_project import commit, create

# Trains until the test tells it to finish, or stops it; then saving takes a second. With a
# checkpoint of an earlier run it finishes immediately.
TRAIN = """
import os, signal, sys, time
from pathlib import Path

shared_folder = Path(os.environ["SHARED_FOLDER"])
checkpoint = Path(".catdog/checkpoints/step")
checkpoint.parent.mkdir(parents=True, exist_ok=True)

def save(*_):
    print("saving")
    time.sleep(1)
    print("saved after a second")
    (shared_folder / "saved").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
if checkpoint.exists():
    print("resuming from step", checkpoint.read_text())
else:
    checkpoint.write_text("3")
    (shared_folder / "training").touch()
    while not (shared_folder / "may end").exists():
        print("a step")
        time.sleep(0.1)
Path("model.txt").write_text("model")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose training waits for the test."""
    project = create(tmp_path / "project")
    (project / "train.py").write_text(TRAIN, encoding="utf-8")
    commit(project, "A training that waits")
    return project


@pytest.fixture
def shared_folder(tmp_path: Path) -> Path:
    """A folder through which the training and the test communicate."""
    (tmp_path / "shared_folder").mkdir()
    return tmp_path / "shared_folder"


@pytest.fixture
def agent(
    deployed: Server,
    project: Path,
    shared_folder: Path,
    tmp_path: Path,
    start_agent: Callable[..., Agent],
) -> Callable[[], Agent]:
    """Start an agent of the pool gpu, each time on the same machine."""

    def start() -> Agent:
        variables = {"SHARED_FOLDER": str(shared_folder), "CUDA_VISIBLE_DEVICES": ""}
        return start_agent("gpu", project, tmp_path / "machine", **variables)

    return start


def start_training(shared_folder: Path) -> Any:
    """Start a run of the pipeline; return its id once its training has begun."""
    run = run_deployment_now("pipeline/pipeline").id
    wait_for(lambda: (shared_folder / "training").exists() or state_of(run).is_final(), 600)
    assert not state_of(run).is_final(), state_of(run)
    return run


def processes_of_runs(agent: Agent) -> list[Any]:
    """Return the processes of the agent's flow runs: flow, supervisor, dvc and stage."""
    found = []
    for process in agent.processes():
        try:
            if "PREFECT__FLOW_RUN_ID" in process.environ():
                found.append(process)
        except psutil.Error:
            continue
    return found


def slots_in_use() -> int:
    with get_client(sync_client=True) as client:
        return int(client.read_global_concurrency_limit_by_name(Device("cpu").limit).active_slots)


def assert_next_run_resumes() -> None:
    """Another run with the same parameters resumes from the checkpoint and completes."""
    run = run_deployment_now("pipeline/pipeline").id
    end = wait_for_end(run)
    assert end.is_completed(), end
    assert "resuming from step 3" in log_of(run)
    wait_for(lambda: slots_in_use() == 0)


def test_cancelled_run_saves_leaves_no_process_and_the_next_resumes(
    agent: Callable[[], Agent], shared_folder: Path
) -> None:
    worker = agent()
    run = start_training(shared_folder)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelling())
    wait_for(lambda: not processes_of_runs(worker), 20)
    assert (shared_folder / "saved").exists()
    assert wait_for_end(run).is_cancelled()
    assert "saved after a second" in log_of(run)
    assert_next_run_resumes()


@pytest.mark.slow
def test_killed_flow_is_marked_as_crashed_saves_a_checkpoint_and_the_next_run_resumes(
    agent: Callable[[], Agent], shared_folder: Path
) -> None:
    worker = agent()
    run = start_training(shared_folder)
    own = processes_of_runs(worker)
    (flow,) = [each for each in own if each.ppid() not in {other.pid for other in own}]
    flow.kill()
    wait_for(lambda: not processes_of_runs(worker), 60)
    assert (shared_folder / "saved").exists()
    assert wait_for_end(run).is_crashed()
    assert_next_run_resumes()


@pytest.mark.slow
def test_stopped_agent_lets_the_training_save_and_leaves_no_process(
    agent: Callable[[], Agent], shared_folder: Path
) -> None:
    worker = agent()
    run = start_training(shared_folder)
    assert worker.stop() == 0
    assert not worker.processes()
    assert (shared_folder / "saved").exists()
    assert state_of(run).is_crashed()
    assert "saved after a second" in log_of(run)
    agent()
    assert_next_run_resumes()


@pytest.mark.slow
def test_second_agent_with_the_same_device_waits_and_logs_the_name_of_the_run(
    project: Path,
    shared_folder: Path,
    tmp_path: Path,
    deployed: Server,
    start_agent: Callable[..., Agent],
) -> None:
    for name in ("machine", "machine, once more"):  # each takes one run at a time
        variables = {"SHARED_FOLDER": str(shared_folder), "CUDA_VISIBLE_DEVICES": "7"}
        start_agent("gpu", project, tmp_path / name, limit=1, **variables)
    first = start_training(shared_folder)
    # With other params, so that it does not wait for the result of the first.
    second = run_deployment_now("pipeline/pipeline", overrides=["optimizer.lr=0.2"]).id
    wait_for(lambda: any(line.startswith("waiting for a free device: ") for line in log_of(second)))
    with get_client(sync_client=True) as client:
        name = client.read_flow_run(first).name
    assert f"waiting for a free device: gpu7 is in use by run {name}" in log_of(second)
    assert state_of(first).is_running() and state_of(second).is_running()
    (shared_folder / "may end").touch()
    assert wait_for_end(first).is_completed()
    assert wait_for_end(second).is_completed()


def test_agent_without_a_server_address_fails_in_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_API_URL": "", "PREFECT_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "flows.agent", "--pool", "gpu"]
    run = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr == "agent failed: PREFECT_API_URL: not set; set it, or run `make agent`\n"


def test_agent_of_a_non_interactive_shell_stops_at_the_first_signal(
    prefect_server: Server, project: Path, tmp_path: Path
) -> None:
    """Such a shell starts background jobs with SIGINT ignored, by which Prefect's worker stops."""
    worker = Agent(prefect_server.url, "idle", project, tmp_path / "machine", limit=1)
    worker.command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *worker.command]
    worker.start()
    try:
        wait_for(lambda: "started!" in worker.log(), 300)
        assert worker.stop() == 0
        assert not worker.processes()
    finally:
        worker.kill()


@pytest.mark.slow
def test_server_marks_runs_of_a_failed_machine_as_crashed_and_the_next_run_resumes(
    agent: Callable[[], Agent], shared_folder: Path
) -> None:
    worker = agent()
    run = start_training(shared_folder)
    wait_for(slots_in_use)
    worker.kill()
    assert state_of(run).is_running()  # no process is left that could report it
    end = wait_for_end(run, HEARTBEAT_SECONDS * (MISSED_HEARTBEATS + 2))
    assert end.is_crashed()
    (action,) = next(automations(None)).actions
    assert isinstance(action, ChangeFlowRunState)
    assert end.message == action.message
    wait_for(lambda: slots_in_use() == 0)
    assert not (shared_folder / "saved").exists()
    agent()
    assert_next_run_resumes()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [3, HEARTBEAT_SECONDS * (MISSED_HEARTBEATS + 1)])
def test_run_survives_a_restart_of_the_server(
    deployed: Server, agent: Callable[[], Agent], shared_folder: Path, seconds: float
) -> None:
    agent()
    run = start_training(shared_folder)
    deployed.stop()
    time.sleep(seconds)
    deployed.start()
    time.sleep(HEARTBEAT_SECONDS)  # it checks for runs without a heartbeat
    assert state_of(run).is_running()
    (shared_folder / "may end").touch()
    end = wait_for_end(run)
    assert end.is_completed(), end
    wait_for(lambda: slots_in_use() == 0)


@pytest.mark.slow
def test_training_that_ends_while_the_server_is_unreachable_is_not_lost(
    deployed: Server, agent: Callable[[], Agent], shared_folder: Path
) -> None:
    """It cannot release its slot, and the next stage cannot request its own."""
    worker = agent()
    run = start_training(shared_folder)
    deployed.stop()
    (shared_folder / "may end").touch()
    wait_for(lambda: "waiting for it" in worker.log())
    deployed.start()
    end = wait_for_end(run)
    assert end.is_completed(), end
    assert "the slot of cpu was not released" in worker.log()
    wait_for(lambda: slots_in_use() == 0)


@pytest.mark.slow
def test_agent_waits_for_a_server_that_is_down(
    deployed: Server, agent: Callable[[], Agent], shared_folder: Path
) -> None:
    deployed.stop()
    worker = agent()
    wait_for(lambda: "keep attempting to connect" in worker.log(), 300)
    deployed.start()
    run = start_training(shared_folder)
    (shared_folder / "may end").touch()
    assert wait_for_end(run).is_completed()


def started_by_schedule(deployment: UUID) -> UUID | None:
    """Return a run that the deployment's schedule has created and that has started."""
    only = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=only)
    return next((run.id for run in runs if run.auto_scheduled and run.start_time), None)


@pytest.mark.slow
def test_schedule_creates_runs_that_complete(
    agent: Callable[[], Agent], shared_folder: Path
) -> None:
    (shared_folder / "may end").touch()
    agent()
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("pipeline/pipeline")
        each_minute = DeploymentScheduleCreate(schedule=CronSchedule(cron="* * * * *"), active=True)
        (schedule,) = client.create_deployment_schedules(deployment.id, [each_minute])
    try:
        run = wait_for(lambda: started_by_schedule(deployment.id), 300)
        assert run is not None
        end = wait_for_end(run)
    finally:
        with get_client(sync_client=True) as client:
            client.delete_deployment_schedule(deployment.id, schedule.id)
    assert end.is_completed(), end
