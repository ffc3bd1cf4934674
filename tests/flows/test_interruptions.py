"""Runs without a worker that are interrupted, killed or fail: clean-up, log and resume.

The training counts steps, writes each to a checkpoint as `catdog train` does, and saves on SIGTERM.
The training process and the tests communicate through files in the folder $SIGNAL_FILES.
"""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import State

from flows.pipeline import pipeline
from tests.helpers.flow_commands import FlowCommand, Run, experiments, workspaces
from tests.helpers.small_disk import can_mount_small_disk, on_a_small_disk
from tools import tiny_project
from tools.prefect_services import wait_for
from tools.tiny_project import dvc

NOWHERE = "http://127.0.0.1:9/api"
TRAIN = """
import os, signal, sys, time
from pathlib import Path

signal_files = Path(os.environ["SIGNAL_FILES"])
checkpoint = Path(".catdog/checkpoints/step")
checkpoint.parent.mkdir(parents=True, exist_ok=True)
step = int(checkpoint.read_text()) if checkpoint.exists() else 0
if step:
    print("resuming after step", step)

def save(*_):
    print("saving", "." * 100_000)  # more than the capacity of a pipe
    time.sleep(1)
    (signal_files / "saved").touch()
    print("saved after a second")
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
while not (signal_files / "finish").exists():
    step += 1
    checkpoint.with_suffix(".new").write_text(str(step))
    checkpoint.with_suffix(".new").replace(checkpoint)
    print("a step")
    (signal_files / "new").write_text(str(os.getpid()))
    (signal_files / "new").replace(signal_files / "pid")
    time.sleep(0.1)
with (signal_files / "trained").open("a") as file:
    file.write("once ")
checkpoint.unlink()
Path("model.txt").write_text("the model")
"""


@pytest.fixture
def signal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "signal_files"
    folder.mkdir()
    monkeypatch.setenv("SIGNAL_FILES", str(folder))
    return folder


@pytest.fixture
def long_training(project: Path, signal_files: Path) -> Path:
    """The project, with a train stage that runs until the file `finish` exists."""
    (project / "train.py").write_text(TRAIN, encoding="utf-8")
    tiny_project.commit(project, "A long training")
    return project


def trainer(signal_files: Path, after: int = 0) -> psutil.Process:
    """Wait until a training process other than `after` is running; return it."""

    def stepping() -> int:
        file = signal_files / "pid"
        pid = int(file.read_text()) if file.exists() else 0
        return 0 if pid == after else pid

    return psutil.Process(wait_for(stepping))


def assert_no_process_is_left(flow: FlowCommand, signal_files: Path) -> None:
    """The training has saved, and no process that the flow started is alive."""
    wait_for(lambda: not flow.processes(), 20)
    assert (signal_files / "saved").exists()


def assert_the_next_run_resumes(start: Callable[..., FlowCommand], project: Path) -> Run:
    """The same run resumes the training from its checkpoint, and succeeds."""
    (Path(os.environ["SIGNAL_FILES"]) / "finish").touch()
    run = start(project).finish()
    assert run.code == 0, run.err
    assert "resuming after step " in run.err
    return run


def state_of_the_run_in(log: str) -> State[Any]:
    """Return the state of the flow run that a command's log names."""
    name = re.findall(r"Flow run '([\w-]+)'", log)[0]
    only = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=only)
    assert run.state is not None
    return run.state


def test_interrupted_run_saves_and_the_next_resumes(
    server: str, long_training: Path, signal_files: Path, start: Callable[..., FlowCommand]
) -> None:
    flow = start(long_training)
    trainer(signal_files)
    os.killpg(flow.process.pid, signal.SIGINT)  # as a terminal does it
    assert_no_process_is_left(flow, signal_files)
    run = flow.finish()
    assert run.code == 130
    assert "saved after a second" in run.err  # its last lines are in the log
    assert run.err.splitlines()[-1] == "stopped; run the same command again to resume"
    assert state_of_the_run_in(run.err).is_cancelled()  # not crashed: no notification
    assert_the_next_run_resumes(start, long_training)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["", NOWHERE])
def test_run_succeeds_without_a_server_and_while_its_server_is_down(
    project: Path, start: Callable[..., FlowCommand], database: str, server: str
) -> None:
    away = {"PREFECT_API_URL": server, "PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
    run = start(project, "--experiment", "alone", **away).finish()
    assert run.code == 0, run.err
    warning = f"the server at {NOWHERE} does not respond; using a temporary server for this run\n"
    assert run.err.count(warning) == (server == NOWHERE)
    assert experiments(project) == ["alone"]


@pytest.mark.slow
def test_terminated_run_without_a_server_leaves_nothing(
    long_training: Path, signal_files: Path, start: Callable[..., FlowCommand], database: str
) -> None:
    flow = start(long_training, PREFECT_API_URL="", PREFECT_SERVER_DATABASE_CONNECTION_URL=database)
    trainer(signal_files)
    assert any("uvicorn" in process.cmdline() for process in flow.processes())
    flow.process.terminate()
    assert_no_process_is_left(flow, signal_files)
    assert flow.finish().code == 130


@pytest.mark.slow
def test_killed_flow_lets_the_training_save_and_the_next_run_resumes(
    server: str, long_training: Path, signal_files: Path, start: Callable[..., FlowCommand]
) -> None:
    flow = start(long_training)
    trainer(signal_files)
    flow.process.kill()
    flow.process.wait()
    assert_no_process_is_left(flow, signal_files)
    assert_the_next_run_resumes(start, long_training)


def test_killed_training_is_retried_from_its_checkpoint(
    server: str, long_training: Path, signal_files: Path, start: Callable[..., FlowCommand]
) -> None:
    flow = start(long_training)
    first = trainer(signal_files)
    first.kill()
    trainer(signal_files, after=first.pid)
    (signal_files / "finish").touch()
    run = flow.finish()
    assert run.code == 0, run.err
    assert "stage train failed: killed by signal 9 (SIGKILL)" in run.err
    assert "; retrying" in run.err
    assert "resuming after step " in run.err
    assert (signal_files / "trained").read_text() == "once "
    assert "Traceback" not in run.err


@pytest.mark.parametrize("shell", ["", " || exit $?"])
def test_training_that_is_killed_twice_fails_and_names_the_signal(
    server: str, project: Path, shell: str
) -> None:
    kill = "import os\nopen(os.environ['RUNS_LOG'], 'a').write('try ')\nos.kill(os.getpid(), 9)"
    (project / "train.py").write_text(kill, encoding="utf-8")
    command = tiny_project.DVC_YAML.replace("python train.py", f"python train.py{shell}")
    (project / "dvc.yaml").write_text(command, encoding="utf-8")
    tiny_project.commit(project, "A training that is too large")
    state = pipeline(return_state=True)
    assert state.is_failed()
    assert str(state.message).splitlines()[0].count("killed by signal 9 (SIGKILL)") == 1
    assert (project.parent / "runs.log").read_text() == "prepare try try "


def test_stage_that_fails_with_an_error_is_not_retried(server: str, project: Path) -> None:
    fail = "import os\nopen(os.environ['RUNS_LOG'], 'a').write('try ')\nraise SystemExit(1)"
    (project / "prepare.py").write_text(fail, encoding="utf-8")
    tiny_project.commit(project, "A preparation that fails")
    assert pipeline(return_state=True).is_failed()
    assert (project.parent / "runs.log").read_text() == "try "


@pytest.mark.slow
def test_two_identical_runs_train_once(
    server: str, long_training: Path, signal_files: Path, start: Callable[..., FlowCommand]
) -> None:
    devices = "0,1"  # so that the second one does not wait for a device
    first = start(long_training, "--experiment", "first", CUDA_VISIBLE_DEVICES=devices)
    training = trainer(signal_files).pid
    second = start(long_training, "--experiment", "second", CUDA_VISIBLE_DEVICES=devices)
    wait_for(lambda: "waiting" in second.output()[1] or trainer(signal_files).pid != training)
    (signal_files / "finish").touch()
    for run in (first.finish(), second.finish()):
        assert run.code == 0, run.err
    assert (signal_files / "trained").read_text() == "once "
    assert sorted(experiments(long_training)) == ["first", "second"]


def test_result_is_kept_if_the_remote_is_unavailable(
    server: str, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "store").write_text("a file instead of a folder")
    assert_kept_and_pushed_later(project, tmp_path / "store", "Not a directory")


def assert_kept_and_pushed_later(project: Path, store: Path, reason: str) -> None:
    assert dvc(project, "remote", "add", "-q", "--default", "store", str(store)) == 0
    tiny_project.commit(project, "A remote")
    state = pipeline(experiment="kept", return_state=True)
    assert state.is_failed()
    message = str(state.message)
    assert "cannot push the results: " in message.splitlines()[0]
    assert reason in message
    assert experiments(project) == ["kept"]
    (clone,) = workspaces(project)
    store.unlink()
    assert dvc(project / ".catdog" / "flows" / "runs" / clone, "push", "-q", "--run-cache") == 0
    assert any(store.rglob("*"))


@pytest.mark.skipif(not can_mount_small_disk(), reason="needs user namespaces")
def test_full_disk_is_reported(
    server: str, project: Path, start: Callable[..., FlowCommand]
) -> None:
    tiny_project.write_stage(project, "train", "model.txt", "'large' * 100_000")
    tiny_project.commit(project, "A model too large for the cache")
    (project / ".dvc" / "cache").mkdir(exist_ok=True)
    run = start(project, before=on_a_small_disk(project / ".dvc" / "cache")).finish()
    assert run.code == 1
    assert "No space left on device" in run.err
    assert run.err.splitlines()[-1].startswith("pipeline failed: stage train failed: exit code ")
    (clone,) = workspaces(project)
    model = project / ".catdog" / "flows" / "runs" / clone / "model.txt"
    assert model.read_text().startswith("large")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--revision", "no-such-branch"], "no-such-branch"),
        (["--recipe", "no-such"], "no-such"),
        (["-S", "optimizer.speed=1"], "optimizer.speed"),
        (["-S", "nonsense"], "nonsense"),
        (["--experiment", "a b"], "a b"),
    ],
)
def test_invalid_argument_is_rejected_in_one_line_before_anything_is_copied(
    project: Path, start: Callable[..., FlowCommand], arguments: list[str], word: str
) -> None:
    run = start(project, *arguments).finish()
    assert run.code == 1
    (line,) = run.err.splitlines()
    assert line.startswith("pipeline failed: ")
    assert word in line
    assert not (project / ".catdog").exists()


def test_invalid_parameter_fails_the_run_before_anything_is_copied(
    server: str, project: Path
) -> None:
    state = pipeline(recipe="no-such", return_state=True)
    assert state.is_failed()
    assert "no-such" in str(state.message)
    state = pipeline(overrides=("nonsense",), return_state=True)
    assert state.is_failed()
    assert "overrides" in str(state.message)
    assert not (project / ".catdog").exists()
