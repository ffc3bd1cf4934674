"""Sweeps of a tiny DVC project with a real server, git and DVC; the slow tests use real agents."""

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from PIL import Image
from prefect import State
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Cancelled, Cancelling, Completed, Running, Scheduled

from flows.errors import FlowError
from flows.guards import many_runs
from flows.runs.repository import Repository, repository
from flows.runs.request import Job, RunRequest, check
from flows.sweep import check_options, run_here, sweep, warnings_unrelated_to
from flows.sweeps.artifacts import PointResult, first_metric, plot, table, values_by_label
from flows.sweeps.plan import make_plan
from flows.sweeps.results import Result, results
from flows.sweeps.study import Point
from tests.helpers.flow_commands import ROOT
from tests.helpers.prefect_runs import run_deployment_now, state_of, wait_for_end
from tools.prefect_services import Agent, Server, Service, wait_for
from tools.tiny_project import commit, create, dvc_output, git

# Accuracy falls with the learning rate and differs between seeds; a rate above 1 fails.
EVALUATE = """
import json, os, sys
from pathlib import Path
from dvc.utils.serialize import load_yaml

params = load_yaml("params.yaml")
rate, seed = params["optimizer"]["lr"], params["train"]["seed"]
with Path(os.environ["RUNS_LOG"]).open("a") as log:
    log.write(f"{rate}/{seed} ")
if rate > 1:
    sys.exit("the loss is NaN")
accuracy = round(0.9 - rate + seed / 100, 4)
Path("metrics.json").write_text(json.dumps({"accuracy": accuracy, "recall": {"cat": 0.5}}))
"""
STUDY = "description: Which rate?\ngrid: {optimizer.lr: [3, 0.1]}\nseeds: [1, 2]\n"
STUDIES = {"lr": STUDY, "one": "{seeds: [4]}", "two": "{seeds: [1, 2]}"}

# Trains until the test tells it to finish, or stops it.
TRAIN = """
import os, signal, sys, time
from pathlib import Path
from dvc.utils.serialize import load_yaml

shared_folder, seed = Path(os.environ["SHARED_FOLDER"]), load_yaml("params.yaml")["train"]["seed"]

def save(*_):
    (shared_folder / f"saved {seed}").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
(shared_folder / f"training {seed}").touch()
while not (shared_folder / "may end").exists():
    time.sleep(0.1)
Path("model.txt").write_text(f"model {seed}")
"""


def make_project(folder: Path) -> Path:
    """Create a tiny project with studies; its accuracy depends on learning rate and seed."""
    project = create(folder)
    (project / "evaluate.py").write_text(EVALUATE, encoding="utf-8")
    stages = (project / "dvc.yaml").read_text(encoding="utf-8")
    stages = stages.replace("model.txt]\n    metrics", "model.txt, params.yaml]\n    metrics")
    (project / "dvc.yaml").write_text(stages, encoding="utf-8")
    (project / "studies").mkdir()
    for name, text in STUDIES.items():
        (project / "studies" / f"{name}.yaml").write_text(text, encoding="utf-8")
    commit(project, "Studies")
    return project


@pytest.fixture(scope="module", autouse=True)
def runs_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file to which the stage evaluate of each run appends its rate and seed."""
    with pytest.MonkeyPatch.context() as patch:
        log = tmp_path_factory.mktemp("log") / "runs.log"
        log.touch()
        patch.setenv("RUNS_LOG", str(log))
        yield log


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new project, which sweeps run."""
    project = make_project(tmp_path / "project")
    monkeypatch.setenv("CATDOG_REPOSITORY", str(project))
    monkeypatch.setenv("CATDOG_HOME", str(tmp_path / "home"))
    return project


class Swept:
    """A project after a sweep in this process: the final state and the artifacts of the sweep."""

    def __init__(self, project: Path, study: str) -> None:
        self.project = project
        self.state: State[Any] = sweep(study, deployment=None, return_state=True)
        assert self.state.message, self.state
        assert "of 4 points" in self.state.message, self.state
        found: list[Any] = [Artifact.get(key) for key in ("sweep", "sweep-picture")]
        self.rows = {row["experiment"]: row for row in json.loads(found[0].data)}
        self.plot: str = found[1].data if found[1] else "none"
        self.titles = [artifact.description for artifact in found if artifact]


@pytest.fixture(scope="module")
def swept(prefect_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    """A project after a sweep of which half the points fail."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATDOG_REPOSITORY", str(folder / "project"))
        patch.setenv("CATDOG_HOME", str(folder / "home"))
        yield Swept(make_project(folder / "project"), "studies/lr.yaml")


def experiments_of(project: Path) -> dict[str, Any]:
    """Return the experiments of HEAD, as `dvc exp show` returns them, by name."""
    shown = json.loads(dvc_output(project, "exp", "show", "--json"))[1]["experiments"] or []
    return {each["name"]: each["revs"][0]["data"] for each in shown}


def test_each_completed_point_is_an_experiment_with_its_params(swept: Swept) -> None:
    found = experiments_of(swept.project)
    assert set(found) == {"lr-lr=0.1-seed=1", "lr-lr=0.1-seed=2"}
    for seed in (1, 2):
        params = found[f"lr-lr=0.1-seed={seed}"]["params"]["params.yaml"]["data"]
        assert (params["optimizer"]["lr"], params["train"]["seed"]) == (0.1, seed)


def test_failed_points_do_not_stop_the_others_and_fail_the_sweep_at_its_end(swept: Swept) -> None:
    message = swept.state.message
    assert swept.state.is_failed()
    assert message
    first, second = message.splitlines()
    assert "2 of 4 points failed: lr-lr=3-seed=1: failed: stage evaluate" in first
    assert second.startswith("lr-lr=3-seed=2: failed: stage evaluate failed: exit code 1")


def test_table_has_the_params_metrics_and_state_of_each_point(swept: Swept) -> None:
    assert list(swept.rows) == [f"lr-lr={lr}-seed={seed}" for lr in (3, 0.1) for seed in (1, 2)]
    assert swept.rows["lr-lr=0.1-seed=2"] == {
        "experiment": "lr-lr=0.1-seed=2",
        "optimizer.lr": 0.1,
        "train.seed": 2,
        "accuracy": 0.82,
        "state": "completed",
    }
    failed = swept.rows["lr-lr=3-seed=1"]
    assert (failed["optimizer.lr"], failed["train.seed"], failed["accuracy"]) == (3, 1, "")
    assert failed["state"].startswith("failed: stage evaluate failed: exit code 1")


def test_plot_is_an_image_and_the_artifacts_have_titles(swept: Swept) -> None:
    kind, _, data = swept.plot.partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).width > 400
    head = git(swept.project, "rev-parse", "HEAD")[:7]
    assert swept.titles == [f"lr at {head}: Which rate?", f"accuracy: lr at {head}: Which rate?"]


def test_second_sweep_runs_only_unfinished_points(swept: Swept, runs_log: Path) -> None:
    runs_log.write_text("", encoding="utf-8")
    again = Swept(swept.project, "studies/lr.yaml")
    assert runs_log.read_text(encoding="utf-8") == "3/1 3/2 "
    assert again.rows["lr-lr=0.1-seed=1"] == {
        **swept.rows["lr-lr=0.1-seed=1"],
        "state": "already completed",
    }
    assert again.rows["lr-lr=3-seed=1"]["state"].startswith("failed")


def test_experiment_with_other_params_is_not_treated_as_a_finished_point(
    swept: Swept, runs_log: Path
) -> None:
    study = swept.project / "studies" / "lr.yaml"
    study.write_text(f"overrides: [train.epochs=5]\n{STUDY}", encoding="utf-8")
    runs_log.write_text("", encoding="utf-8")
    with pytest.raises(FlowError) as error:
        sweep("studies/lr.yaml", deployment=None)
    study.write_text(STUDY, encoding="utf-8")
    head = git(swept.project, "rev-parse", "HEAD")[:7]
    assert "\n" not in str(error.value)
    assert "lr-lr=0.1-seed=" in str(error.value)
    assert f"of {head} already exists with train.epochs 2 instead of 5;" in str(error.value)
    assert runs_log.read_text(encoding="utf-8") == ""


def test_after_a_new_commit_all_points_run_again(swept: Swept) -> None:
    head = git(swept.project, "rev-parse", "HEAD")
    commit_of = git(swept.project, "commit-tree", f"{head}^{{tree}}", "-p", head, "-m", "Same")
    git(swept.project, "update-ref", "refs/heads/main", commit_of)
    try:
        plan = make_plan("studies/lr.yaml", repository())
        assert plan.commit == commit_of
        assert results(repository(), plan.commit) == {}
    finally:
        git(swept.project, "update-ref", "refs/heads/main", head)


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (
            "{grid: {optimizer.rate: [1]}}",
            "overrides: 'optimizer.rate=1': .* has no optimizer.rate",
        ),
        (
            "{grid: {optimizer.lr: [1, fast]}}",
            "overrides: 'optimizer.lr=fast': .* must be a number",
        ),
        ("{recipe: none, seeds: [1]}", "recipe: unknown recipe 'none'; .* has slow"),
        ("{revision: nowhere, seeds: [1]}", "revision: unknown revision 'nowhere'"),
        ("{gird: {}, seeds: [1]}", "gird: unknown key"),
    ],
)
def test_invalid_study_is_rejected_before_any_run(
    project: Path, tmp_path: Path, study: str, message: str
) -> None:
    (project / "studies" / "wrong.yaml").write_text(study, encoding="utf-8")
    with pytest.raises(FlowError, match=message) as error:
        make_plan("studies/wrong.yaml", repository())
    assert "\n" not in str(error.value)
    assert not (tmp_path / "home" / "runs").exists()


def test_command_rejects_an_unknown_study_and_names_the_existing_ones(
    project: Path, tmp_path: Path
) -> None:
    command = Service(
        [sys.executable, "-m", "flows.sweep", "studies/none.yaml"],
        tmp_path / "command",
        CATDOG_REPOSITORY=str(project),
    )
    command.start()
    assert command.process
    assert command.process.wait(timeout=120) == 1
    assert command.log() == (
        f"sweep failed: study: studies/none.yaml does not exist in {project};"
        " choose one of studies/lr.yaml, studies/one.yaml, studies/two.yaml\n"
    )


def test_study_and_results_of_a_url_are_read_from_its_repository(
    prefect_server: Server, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "remote.git"
    git(project, "clone", "-q", "--bare", str(project), str(bare))
    monkeypatch.setenv("CATDOG_REPOSITORY", str(bare))
    (row,) = sweep("studies/one.yaml", deployment=None)
    assert row == {
        "experiment": "one-seed=4",
        "train.seed": 4,
        "accuracy": 0.84,
        "state": "completed",
    }
    assert git(bare, "for-each-ref", "refs/exps").endswith("/one-seed=4")
    (row,) = sweep("studies/one.yaml", deployment=None)
    assert row["state"] == "already completed"


def test_there_is_no_warning_about_an_uncommitted_study_file() -> None:
    lines = ["studies/new.yaml: new, but", "studies/: new, but", "a: b/train.py: changed, but"]
    assert warnings_unrelated_to("studies/new.yaml", lines) == ["a: b/train.py: changed, but"]


def test_params_in_the_table_are_those_of_the_experiment() -> None:
    points = [Point("a", "lr=1", [], {"o.lr": 1}), Point("b", "n=2", [], {"n": [1, 2]})]
    result = Result({"o": {"lr": 0.5}, "n": [3]}, {"accuracy": 0.5, "classes": {"cat": 1}})
    assert table(
        [
            PointResult(points[0], "completed", result),
            PointResult(points[1], "failed", reason="why"),
        ]
    ) == [
        {"experiment": "a", "o.lr": 0.5, "n": "[3]", "accuracy": 0.5, "state": "completed"},
        {"experiment": "b", "o.lr": "", "n": "[1, 2]", "accuracy": "", "state": "failed: why"},
    ]


def test_plot_has_one_row_per_setting_with_all_its_seeds() -> None:
    def row(label: str, seed: int, metrics: dict[str, Any]) -> PointResult:
        return PointResult(
            Point(f"{label}-{seed}", label, [], {}), "completed", Result({}, metrics)
        )

    rows = [row("lr=1", 1, {"ok": True, "classes": {"cat": 0.5}}), row("lr=1", 2, {})]
    rows += [row("lr=2", 1, {"classes": {"cat": 0.75}}), row("lr=1", 3, {"classes": {"cat": 1}})]
    assert first_metric(rows) == "classes.cat"
    values = values_by_label(rows, "classes.cat")
    assert values == {"lr=1": [0.5, 1], "lr=2": [0.75]}
    assert Image.open(io.BytesIO(plot(values, "classes.cat", "A title"))).format == "PNG"


def test_text_of_a_study_is_not_parsed_as_a_formula() -> None:
    assert plot({"what is $x_$": [0.5]}, "accuracy", "Which $x_$?").startswith(b"\x89PNG")


def test_joined_runs_count_towards_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []

    def start(deployment: str, name: str, parameters: object) -> UUID:
        started.append(name)
        return uuid4()

    monkeypatch.setattr(many_runs, "_start", start)
    monkeypatch.setattr(many_runs, "_states", lambda _: {})
    runs = many_runs._RunSet("a/b", {"one": {}, "two": {}, "three": {}}, 2, print)
    runs.join({uuid4(): "two"})
    runs.step()
    assert started == ["one"]


def test_begin_and_end_of_each_run_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    run, logged = uuid4(), list[str]()
    runs = many_runs._RunSet("a/b", {"one": {}}, 1, logged.append)
    runs.join({run: "one"})
    states: list[State[Any]] = [Scheduled(), Running(), Running(), Completed()]
    coming = iter(states)
    monkeypatch.setattr(many_runs, "_states", lambda _: {run: next(coming)})
    for _ in states:
        runs.step()
    assert logged[1:] == ["one: Running", "one: Completed (1 of 1)"]
    assert runs.ended == {"one": states[-1]}


@pytest.fixture
def interrupt_raises() -> Iterator[None]:
    """Make SIGINT raise KeyboardInterrupt, as in a new process; other tests change the handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_while_a_run_is_started_cancels_that_run_too(
    deployed: Server, monkeypatch: pytest.MonkeyPatch, interrupt_raises: None
) -> None:
    started: list[UUID] = []

    def start(deployment: str, **settings: Any) -> FlowRun:
        run = run_deployment(deployment, **settings)
        assert isinstance(run, FlowRun)
        started.append(run.id)
        signal.raise_signal(signal.SIGINT)  # the run exists, and its id is not known yet
        return run

    def poll(runs: Sequence[UUID]) -> dict[UUID, State[Any]]:
        pytest.fail("the interrupt was ignored")

    monkeypatch.setattr(many_runs, "run_deployment", start)
    monkeypatch.setattr(many_runs, "_states", poll)
    with pytest.raises(KeyboardInterrupt):
        many_runs.run_all("pipeline/pipeline", {"interrupted": {}}, None, print)
    (run,) = started
    state = state_of(run)
    with get_client(sync_client=True) as client:
        client.delete_flow_run(run)  # other tests count runs
    assert state.is_cancelled() or state.is_cancelling()


@pytest.mark.parametrize("cancel_joined", [True, False])
def test_joined_run_is_cancelled_only_if_requested(
    deployed: Server, monkeypatch: pytest.MonkeyPatch, cancel_joined: bool
) -> None:
    """A sweep does not cancel the runs of another; a retried pipeline does, for its own stage."""
    name = f"joined {cancel_joined}"
    run = many_runs._start("pipeline/pipeline", name, {})

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(many_runs, "_states", interrupted)
    with pytest.raises(KeyboardInterrupt):
        many_runs.run_all("pipeline/pipeline", {name: {}}, None, print, cancel_joined)
    state = state_of(run)
    with get_client(sync_client=True) as client:
        client.delete_flow_run(run)  # other tests count runs
    assert (state.is_cancelled() or state.is_cancelling()) is cancel_joined


def test_without_a_worker_the_command_that_starts_one_is_logged(
    deployed: Server,
) -> None:
    logged: list[str] = []
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name("sweep/sweep")
        client.create_work_pool(WorkPoolCreate(name="elsewhere", type="docker"))
        try:
            moved = found.model_copy(update={"work_pool_name": "elsewhere"})
            many_runs._warn_if_no_agent(moved, logged.append)
        finally:
            client.delete_work_pool("elsewhere")
    assert logged == [
        "no agent of pool elsewhere is online; the runs wait until one starts; run"
        " `prefect worker start --pool elsewhere`"
    ]


def test_repeated_request_starts_one_run_and_a_retry_starts_another(
    deployed: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for count in (1, 1, 2):
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", "tests")
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(count))
        runs.append(many_runs._start("pipeline/pipeline", "twice", {}))
    with get_client(sync_client=True) as client:
        for run in set(runs):
            client.delete_flow_run(run)  # other tests count runs
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    ("deployment", "at_once", "message"),
    [
        (
            "pipeline",
            None,
            "--deployment: must be FLOW/NAME, such as pipeline/pipeline, not 'pipeline'",
        ),
        (None, 3, "--at-once: requires --deployment; without it points run sequentially"),
        ("pipeline/pipeline", 0, "--at-once: must be at least 1, not 0"),
    ],
)
def test_invalid_options_are_rejected(
    deployment: str | None, at_once: int | None, message: str
) -> None:
    with pytest.raises(FlowError, match=re.escape(message)):
        check_options(deployment, at_once)


def test_runs_are_cancelled_although_one_does_not_exist(deployed: Server) -> None:
    run = run_deployment_now("pipeline/pipeline")
    many_runs.cancel([uuid4(), run.id])
    state = state_of(run.id)
    with get_client(sync_client=True) as client:
        client.delete_flow_run(run.id)  # other tests count runs
    assert state.is_cancelled() or state.is_cancelling()


def test_each_override_of_a_study_is_checked_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []

    def record(request: RunRequest, repository: Repository) -> Job:
        checked.extend(request.overrides)
        return check(request, repository)

    monkeypatch.setattr("flows.sweeps.plan.check", record)
    plan = make_plan("studies/lr.yaml", repository())
    assert len(plan.requests) == 4
    assert sorted(checked) == ["optimizer.lr=0.1", "optimizer.lr=3", "train.seed=1", "train.seed=2"]


@pytest.fixture
def shared_folder(tmp_path: Path) -> Path:
    """A folder through which the training runs and the test communicate."""
    (tmp_path / "shared_folder").mkdir()
    return tmp_path / "shared_folder"


@pytest.fixture
def machine(
    deployed: Server,
    project: Path,
    shared_folder: Path,
    tmp_path: Path,
    start_agent: Callable[..., Agent],
) -> Agent:
    """An agent with two devices, for a project whose training waits for the test."""
    (project / "train.py").write_text(TRAIN, encoding="utf-8")
    commit(project, "A training that waits")
    variables = {"SHARED_FOLDER": str(shared_folder), "CUDA_VISIBLE_DEVICES": "0,1"}
    return start_agent("gpu", project, tmp_path / "machine", **variables)


@pytest.fixture
def start_sweep(
    deployed: Server, project: Path, tmp_path: Path
) -> Iterator[Callable[..., Service]]:
    """Start `python -m flows.sweep`, whose points run on the agents of the tests' server."""
    commands: list[Service] = []

    def start_one(*arguments: str, **variables: str) -> Service:
        command = [sys.executable, "-m", "flows.sweep", *arguments]
        command += ["--deployment", "pipeline/pipeline"]
        home = tmp_path / f"sweep {len(commands)}"
        variables |= {"PREFECT_API_URL": deployed.url, "CATDOG_REPOSITORY": str(project)}
        commands.append(Service(command, home, **variables))
        commands[-1].start()
        return commands[-1]

    yield start_one
    for command in commands:
        command.kill()
        print(command.log())  # shown by pytest if the test fails


def count_training_runs(shared_folder: Path) -> int:
    return len(list(shared_folder.glob("training *")))


def unfinished_runs(study: str) -> list[str]:
    """Return the names of a study's runs that have not ended."""
    with get_client(sync_client=True) as client:
        of_study = FlowRunFilter(name=FlowRunFilterName(like_=f"{study}-seed="))
        runs = client.read_flow_runs(flow_run_filter=of_study)
    return [run.name for run in runs if run.state and not run.state.is_final()]


def test_missing_deployment_is_reported(prefect_server: Server, project: Path) -> None:
    with pytest.raises(
        FlowError, match=r"deployment: 'no/where' not found on the server at .*; install"
    ):
        sweep("studies/one.yaml", deployment="no/where")


def test_ctrl_c_stops_the_current_point_and_starts_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []

    class Pipeline:
        def with_options(self, flow_run_name: str) -> Callable[..., State[Any]]:
            started.append(flow_run_name)
            return lambda **_: Cancelled()

    monkeypatch.setattr("flows.sweep.pipeline", Pipeline())
    with pytest.raises(KeyboardInterrupt):
        run_here({"one": RunRequest(), "two": RunRequest()}, print)
    assert started == ["one"]


@pytest.mark.slow
def test_as_many_points_run_at_once_as_there_are_devices(
    machine: Agent, shared_folder: Path, start_sweep: Callable[..., Service], project: Path
) -> None:
    command = start_sweep("studies/two.yaml")
    wait_for(lambda: count_training_runs(shared_folder) == 2, 240)
    (shared_folder / "may end").touch()
    assert command.process
    assert command.process.wait(timeout=240) == 0, command.log()
    assert set(experiments_of(project)) == {"two-seed=1", "two-seed=2"}
    assert command.log().splitlines()[-1].split() == ["two-seed=2", "completed"]


@pytest.mark.slow
def test_at_once_limits_the_number_of_concurrent_points(
    machine: Agent, shared_folder: Path, start_sweep: Callable[..., Service]
) -> None:
    command = start_sweep("studies/two.yaml", "--at-once", "1")
    wait_for(lambda: count_training_runs(shared_folder) == 1, 240)
    assert unfinished_runs("two") == ["two-seed=1"]
    (shared_folder / "may end").touch()
    assert command.process
    assert command.process.wait(timeout=240) == 0, command.log()
    assert count_training_runs(shared_folder) == 2


@pytest.mark.slow
def test_cancelled_sweep_cancels_its_runs_which_save_checkpoints(
    machine: Agent,
    shared_folder: Path,
    project: Path,
    tmp_path: Path,
    start_agent: Callable[..., Agent],
) -> None:
    start_agent("cpu", project, tmp_path / "machine 2")
    run = run_deployment_now("sweep/sweep", study="studies/two.yaml").id
    wait_for(lambda: count_training_runs(shared_folder) == 2, 240)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelling())
    assert wait_for_end(run).is_cancelled()
    wait_for(lambda: len(list(shared_folder.glob("saved *"))) == 2, 60)
    wait_for(lambda: not unfinished_runs("two"), 60)


@pytest.mark.slow
def test_interrupted_command_cancels_its_runs(
    machine: Agent, shared_folder: Path, start_sweep: Callable[..., Service]
) -> None:
    command = start_sweep("studies/two.yaml")
    wait_for(lambda: count_training_runs(shared_folder) == 2, 240)
    assert command.process
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(timeout=60) == 130
    assert "Finished in state Cancelled" in command.log()
    wait_for(lambda: len(list(shared_folder.glob("saved *"))) == 2, 60)
    wait_for(lambda: not unfinished_runs("two"), 60)


@pytest.mark.slow
def test_sweep_waits_for_the_runs_of_a_killed_sweep(
    machine: Agent, shared_folder: Path, start_sweep: Callable[..., Service], project: Path
) -> None:
    first = start_sweep("studies/two.yaml")
    wait_for(lambda: count_training_runs(shared_folder) == 2, 240)
    first.kill()
    second = start_sweep("studies/two.yaml")
    wait_for(lambda: second.log().count("already running; waiting for it") == 2, 120)
    (shared_folder / "may end").touch()
    assert second.process
    assert second.process.wait(timeout=240) == 0, second.log()
    assert set(experiments_of(project)) == {"two-seed=1", "two-seed=2"}


@pytest.mark.slow
def test_sweep_survives_a_restart_of_the_server(
    machine: Agent, shared_folder: Path, start_sweep: Callable[..., Service], deployed: Server
) -> None:
    # With the default of five retries, Prefect itself tolerates an outage of a minute.
    command = start_sweep("studies/two.yaml", PREFECT_CLIENT_MAX_RETRIES="1")
    wait_for(lambda: count_training_runs(shared_folder) == 2, 240)
    deployed.stop()
    wait_for(lambda: "the server does not respond" in command.log(), 120)
    deployed.start()
    (shared_folder / "may end").touch()
    assert command.process
    assert command.process.wait(timeout=300) == 0, command.log()


@pytest.mark.slow
def test_sweep_without_an_agent_logs_what_it_waits_for(
    deployed: Server, start_sweep: Callable[..., Service]
) -> None:
    # A worker that another test has killed is online until it has missed its heartbeats.
    wait_for(lambda: not many_runs._has_agent("gpu"), 240)
    command = start_sweep("studies/one.yaml")
    wait_for(lambda: "no agent of pool gpu is online; the runs wait" in command.log(), 120)
    assert command.stop() == 130
    wait_for(lambda: not unfinished_runs("one"), 60)


@pytest.mark.slow
def test_interrupted_command_without_a_server_stops_soon_and_its_training_saves(
    project: Path, shared_folder: Path, database: str
) -> None:
    (project / "train.py").write_text(TRAIN, encoding="utf-8")
    commit(project, "A training that waits")
    more = {"SHARED_FOLDER": str(shared_folder), "PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
    environment = {**os.environ, **more, "PREFECT_HOME": str(shared_folder)}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "flows.sweep", "studies/two.yaml"]
    sweeping = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        wait_for(lambda: count_training_runs(shared_folder) == 1, 240)
        os.killpg(sweeping.pid, signal.SIGINT)  # as in a terminal: the temporary server gets it too
        assert sweeping.wait(timeout=60) == 130
        assert [path.name for path in shared_folder.glob("saved *")] == ["saved 1"]
    finally:
        sweeping.kill()
