"""The flow, on a DVC project of three tiny stages, with real git, dvc, Prefect and processes."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import prefect.settings
import psutil
import pytest
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import Log, State
from prefect.testing.utilities import prefect_test_harness

from flows import supervise
from flows.pipeline import REPOSITORY, flatten, pipeline
from flows.stages import dvc_commands, run_stage

METRICS = {"accuracy": 0.875, "recall": {"cat": 0.75, "dog": 1.0}, "photos": 8}

DVC_YAML = """
stages:
  prepare:
    cmd: python prepare.py
    deps: [prepare.py]
    outs: [arrays.txt]
  train:
    cmd: python train.py
    deps: [train.py, arrays.txt]
    outs: [model.txt]
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py, model.txt]
    metrics:
    - metrics.json: {cache: false}
"""

STAGE = """
from pathlib import Path

print("the stage {name} says: é")
Path("{out}").write_text({text!r})
with Path("runs.log").open("a") as log:
    log.write("{name} ")
"""

# Steps until it is told to stop, then needs a second to save. It talks all the while: a training
# whose lines nobody takes any more must not die of that.
LONG_TRAIN = """
import signal, sys, time
from pathlib import Path

def save(*_):
    print("saving", "." * 100_000)  # more than a pipe holds
    time.sleep(1)
    print("saved after a second")
    Path("saved").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
Path("training").touch()
while True:
    print("a step")
    time.sleep(0.05)
"""


class Run(NamedTuple):
    """A finished command: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


class Flow:
    """`python -m flows.pipeline` in a terminal of its own, and every process that comes of it."""

    def __init__(self, project: Path, home: Path, **variables: str) -> None:
        self.mark = uuid.uuid4().hex
        self.files = [home / "out.txt", home / "err.txt"]
        environment = {**os.environ, **variables, "PREFECT_HOME": str(home), "MARK": self.mark}
        with self.files[0].open("w") as out, self.files[1].open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.pipeline", "--root", str(project)],
                cwd=REPOSITORY,
                env=environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def finish(self) -> Run:
        """Wait for the command; return its exit code and what it printed."""
        code = self.process.wait(timeout=60)
        return Run(code, *(file.read_text(encoding="utf-8") for file in self.files))

    def processes(self) -> list[Any]:
        """Return the living processes that descend from the command."""
        return [process for process in psutil.process_iter() if _has_mark(process, self.mark)]

    def end(self) -> None:
        """Kill whatever is left."""
        kill_marked(self.mark)
        self.process.wait()


def kill_marked(mark: str) -> None:
    for process in psutil.process_iter():
        if _has_mark(process, mark):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _has_mark(process: Any, mark: str) -> bool:
    try:
        return bool(process.environ().get("MARK") == mark)
    except psutil.Error:
        return False


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still waiting after {seconds} s"
        time.sleep(0.05)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True)


def dvc(folder: Path, *arguments: str) -> int:
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "tmp" / "site")}
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def write_stage(project: Path, name: str, out: str, text: str) -> None:
    source = STAGE.format(name=name, out=out, text=text)
    (project / f"{name}.py").write_text(source, encoding="utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server of these tests' own."""
    home = {prefect.settings.PREFECT_HOME: tmp_path_factory.mktemp("prefect")}
    with prefect.settings.temporary_settings(home), prefect_test_harness(60):
        address = prefect.settings.PREFECT_API_URL.value()
        assert address
        yield address


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git and DVC repository whose three stages have never run."""
    folder = tmp_path_factory.mktemp("template")
    git(folder, "init", "-q")
    assert dvc(folder, "init", "-q") == 0
    settings = "[core]\n    analytics = false\n    check_update = false\n"
    settings += "    site_cache_dir = tmp/site\n"
    (folder / ".dvc" / "config").write_text(settings, encoding="utf-8")
    (folder / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    write_stage(folder, "prepare", "arrays.txt", "arrays")
    write_stage(folder, "train", "model.txt", "model")
    write_stage(folder, "evaluate", "metrics.json", json.dumps(METRICS))
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A fresh copy of the template."""
    return shutil.copytree(template, tmp_path / "project")


@pytest.fixture(scope="module")
def finished(
    server: str, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, State[Any]]:
    """A project after its first flow, and the flow's final state."""
    project = shutil.copytree(template, tmp_path_factory.mktemp("finished") / "project")
    return project, pipeline(project, return_state=True)


@pytest.fixture
def database(server: str, tmp_path: Path) -> str:
    """A copy of the server's database: to create one takes Prefect ten seconds."""
    prefix = "sqlite+aiosqlite:///"
    address = prefect.settings.PREFECT_SERVER_DATABASE_CONNECTION_URL.value()
    source = sqlite3.connect(str(address).removeprefix(prefix))
    with closing(source), closing(sqlite3.connect(tmp_path / "prefect.db")) as target:
        source.backup(target)
    return f"{prefix}{tmp_path / 'prefect.db'}"


@pytest.fixture
def start(server: str, tmp_path: Path) -> Iterator[Callable[..., Flow]]:
    """Start a flow as a command on the tests' server (or `PREFECT_API_URL=""`: without one)."""
    flows: list[Flow] = []

    def start_one(project: Path, **variables: str) -> Flow:
        home = tmp_path / "home"
        home.mkdir()
        flows.append(Flow(project, home, **{"PREFECT_API_URL": server, **variables}))
        return flows[-1]

    yield start_one
    for flow in flows:
        flow.end()


@pytest.fixture
def training(project: Path, start: Callable[..., Flow]) -> Callable[..., Flow]:
    """Start a flow as `start` does; return it once its training is under way."""
    (project / "train.py").write_text(LONG_TRAIN, encoding="utf-8")

    def start_one(**variables: str) -> Flow:
        flow = start(project, **variables)
        wait_until((project / "training").exists)
        return flow

    return start_one


def run_id(state: State[Any]) -> Any:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


def log_of(state: State[Any]) -> list[str]:
    """Return the lines of a finished flow's log as the server keeps them."""
    only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id(state)]))

    def ended(log: Log) -> bool:  # the tasks' last lines read the same
        return log.task_run_id is None and log.message == f"Finished in state {state}"

    def logs() -> list[Log]:
        with get_client(sync_client=True) as client:
            return client.read_logs(only)

    wait_until(lambda: any(ended(log) for log in logs()))
    return [log.message for log in logs()]


def assert_stopped_cleanly(flow: Flow, project: Path) -> None:
    """The training saved, no process is left, and dvc's locks are free."""
    wait_until(lambda: not flow.processes(), 25)
    assert (project / "saved").exists()
    assert dvc(project, "status") == 0


def test_flow_runs_the_three_stages_and_returns_the_metrics(
    finished: tuple[Path, State[Any]],
) -> None:
    project, state = finished
    assert state.is_completed()
    assert state.result() == METRICS
    assert (project / "runs.log").read_text() == "prepare train evaluate "


def test_metrics_are_a_table_artifact(finished: tuple[Path, State[Any]]) -> None:
    artifact: Any = Artifact.get("metrics")
    assert artifact.type == "table"
    assert json.loads(artifact.data) == [
        {"metric": "accuracy", "value": "0.8750"},
        {"metric": "recall.cat", "value": "0.7500"},
        {"metric": "recall.dog", "value": "1.0000"},
        {"metric": "photos", "value": "8"},
    ]


def test_lines_of_the_stages_reach_the_log_of_the_flow(
    finished: tuple[Path, State[Any]],
) -> None:
    lines = log_of(finished[1])
    for stage in ("prepare", "train", "evaluate"):
        assert f"the stage {stage} says: é" in lines


def test_second_flow_runs_no_stage_and_the_command_prints_the_metrics(
    finished: tuple[Path, State[Any]], start: Callable[..., Flow]
) -> None:
    project, _ = finished
    before = (project / "runs.log").read_text()
    run = start(project).finish()
    assert run.code == 0, run.err
    assert (project / "runs.log").read_text() == before
    assert "Stage 'evaluate' didn't change, skipping" in run.err
    assert [line.split() for line in run.out.splitlines()] == [
        ["accuracy", "0.8750"],
        ["recall.cat", "0.7500"],
        ["recall.dog", "1.0000"],
        ["photos", "8"],
    ]


@pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs'")  # no flow run to log to
def test_stage_by_itself_brings_what_it_needs_up_to_date(server: str, project: Path) -> None:
    run_stage("train", project)
    assert (project / "runs.log").read_text() == "prepare train "


@pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs'")
def test_stage_takes_results_from_the_remote_rather_than_run_again(
    finished: tuple[Path, State[Any]], tmp_path: Path
) -> None:
    project = shutil.copytree(finished[0], tmp_path / "project")
    with (project / ".dvc" / "config").open("a", encoding="utf-8") as config:
        config.write(f"    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'store'}\n")
    assert dvc(project, "push", "-q") == 0
    shutil.rmtree(project / ".dvc" / "cache")
    for out in ("arrays.txt", "model.txt", "runs.log"):
        (project / out).unlink()
    run_stage("train", project)
    assert (project / "model.txt").read_text() == "model"
    assert not (project / "runs.log").exists()


def test_without_a_default_remote_nothing_is_pulled_but_missing_photos(project: Path) -> None:
    """With `--pull`, DVC fails there as soon as the run cache knows the stage."""
    assert dvc_commands("train", project) == [["repro", "train"]]
    (project / "data").mkdir()
    (project / "data" / "raw.dvc").touch()
    assert dvc_commands("train", project) == [["pull", "data/raw.dvc"], ["repro", "train"]]
    (project / "data" / "raw").mkdir()
    assert dvc_commands("train", project) == [["repro", "train"]]


def test_failing_stage_fails_the_flow_with_its_last_lines(server: str, project: Path) -> None:
    source = "for n in range(40): print('line', n)\nraise SystemExit('no photos: add some')"
    (project / "train.py").write_text(source, encoding="utf-8")
    state = pipeline(project, return_state=True)
    assert state.is_failed()
    assert state.message is not None
    assert "stage train failed: exit code 1\n" in state.message
    assert "\nno photos: add some\n" in state.message
    assert "\nline 39\n" in state.message
    assert "\nline 19\n" not in state.message
    assert (project / "runs.log").read_text() == "prepare "  # and evaluate did not run


def test_failing_command_says_so_in_one_line(project: Path, start: Callable[..., Flow]) -> None:
    (project / "prepare.py").write_text("raise SystemExit(3)", encoding="utf-8")
    run = start(project).finish()
    assert run.code == 1
    assert "pipeline failed: stage prepare failed: exit code 3" in run.err.splitlines()
    assert "Traceback" not in run.err
    assert run.out == ""


@pytest.mark.parametrize("shell", ["", " || exit $?"])
def test_stage_killed_by_the_kernel_is_named_so(server: str, project: Path, shell: str) -> None:
    kill = "import os\nos.kill(os.getpid(), 9)"
    (project / "prepare.py").write_text(kill, encoding="utf-8")
    command = DVC_YAML.replace("python prepare.py", f"python prepare.py{shell}")
    (project / "dvc.yaml").write_text(command, encoding="utf-8")
    state = pipeline(project, return_state=True)
    assert state.is_failed()
    assert "stage prepare failed: killed by signal 9 (SIGKILL)\n" in str(state.message)


def test_folder_without_a_pipeline_is_refused(server: str, tmp_path: Path) -> None:
    state = pipeline(tmp_path, return_state=True)
    assert state.is_failed()
    assert f"{tmp_path}: holds no dvc.yaml" in str(state.message)


def test_interrupted_flow_lets_the_training_save(
    project: Path, training: Callable[..., Flow]
) -> None:
    flow = training()
    os.killpg(flow.process.pid, signal.SIGINT)  # as a terminal does it
    run = flow.finish()
    assert run.code == 130
    assert "saved after a second" in run.err  # its last words are in the log
    assert run.err.splitlines()[-1] == "stopped; run it again to go on"
    assert_stopped_cleanly(flow, project)


def test_terminated_flow_without_a_server_leaves_nothing(
    project: Path, training: Callable[..., Flow], database: str
) -> None:
    flow = training(PREFECT_API_URL="", PREFECT_SERVER_DATABASE_CONNECTION_URL=database)
    assert any("uvicorn" in process.cmdline() for process in flow.processes())
    flow.process.terminate()
    assert flow.finish().code == 130
    assert_stopped_cleanly(flow, project)


def test_killed_flow_lets_the_training_save(project: Path, training: Callable[..., Flow]) -> None:
    flow = training()
    flow.process.kill()
    flow.process.wait()
    assert_stopped_cleanly(flow, project)


def test_flatten_counts_lists_and_leaves_whole_numbers_alone() -> None:
    metrics = {"confusion": [[3, 1], [0, 4]], "best": None, "loss": 1e-9}
    assert dict(flatten(metrics)) == {
        "confusion.0.0": "3",
        "confusion.0.1": "1",
        "confusion.1.0": "0",
        "confusion.1.1": "4",
        "best": "None",
        "loss": "0.0000",
    }


def test_flows_know_nothing_of_catdog() -> None:
    files = list((REPOSITORY / "flows").glob("*.py"))
    assert files
    for file in files:
        assert not re.search(r"^\s*(from|import) catdog", file.read_text("utf-8"), re.MULTILINE)


def test_pipeline_runs_as_a_script_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "flows" / "pipeline.py"), "--help"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "--root" in run.stdout


SUPERVISE = [sys.executable, str(supervise.__file__)]


@contextmanager
def supervised(script: str, grace: float = 5) -> "Iterator[subprocess.Popen[str]]":
    """Start a shell script under the supervisor; nothing of it outlives the block."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [*SUPERVISE, str(grace), "--", "sh", "-c", script],
        env={**os.environ, "MARK": mark},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        kill_marked(mark)
        process.communicate()


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_supervisor_passes_the_exit_code_on(script: str, code: int) -> None:
    with supervised(script) as process:
        assert process.wait(timeout=30) == code


def test_supervisor_passes_each_line_on_as_it_comes() -> None:
    with supervised("echo first; echo second >&2; sleep 60") as process:
        assert process.stdout is not None
        assert [next(process.stdout) for _ in range(2)] == ["first\n", "second\n"]
        process.terminate()


def test_supervisor_kills_what_does_not_stop_after_the_grace() -> None:
    with supervised("trap '' TERM; echo ready; while :; do sleep 0.1; done", 0.5) as process:
        assert process.stdout is not None
        next(process.stdout)
        process.terminate()
        assert process.wait(timeout=30) == 137


def test_supervisor_ends_what_the_command_left_running() -> None:
    with supervised("sleep 600 & echo $!") as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert not psutil.pid_exists(int(out))


def test_supervisor_waits_for_a_grandchild_that_outlives_the_command() -> None:
    child = (
        "sh -c 'trap \"sleep 1; echo saved; exit\" TERM; echo ready; while :; do sleep 0.1; done'"
    )
    with supervised(f"{child} & wait") as process:  # the outer shell dies of SIGTERM at once
        assert process.stdout is not None
        assert next(process.stdout) == "ready\n"
        process.terminate()
        assert process.stdout.read().endswith("saved\n")


def test_supervisor_names_a_command_that_cannot_be_started() -> None:
    command = [*SUPERVISE, "1", "--", "/no/such/command"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 127
    assert run.stdout == "cannot start /no/such/command: No such file or directory\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_supervisor_stops_the_command_on(number: signal.Signals) -> None:
    with supervised("echo ready; sleep 600") as process:
        assert process.stdout is not None
        next(process.stdout)
        process.send_signal(number)
        assert process.wait(timeout=30) == 143


def test_supervisor_under_nohup_outlives_its_terminal() -> None:
    script = "echo ready; sleep 1; echo done"
    command = ["nohup", *SUPERVISE, "5", "--", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(process.stdout)
        process.send_signal(signal.SIGHUP)
        assert process.stdout.read() == "done\n"
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere process 1 reaps every orphan")
def test_supervisor_does_not_wait_for_the_dead_in_a_container_that_reaps_nothing() -> None:
    supervisor = [*SUPERVISE, "600", "--", "sh", "-c", "sh -c 'sleep 600; :' & wait"]
    container = f"""
import ctypes, subprocess, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans come to this process, which ignores them
process = subprocess.Popen({supervisor!r})
time.sleep(1)
process.terminate()
print(process.wait(timeout=30))
"""
    run = subprocess.run(
        [sys.executable, "-c", container], capture_output=True, text=True, check=False
    )
    assert run.stdout == "143\n", run.stderr
