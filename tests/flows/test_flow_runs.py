"""The flow `pipeline` on a DVC project of three tiny stages, with real git, DVC and Prefect."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prefect.client.schemas.objects import State

import catdog.paths
from flows import paths
from flows.pipeline import pipeline
from flows.runs.stage_output import outcome_in
from flows.runs.stages import dvc_commands, run_stage
from tests.helpers.flow_commands import ROOT, FlowCommand, experiments, log_of_ended, workspaces
from tools import tiny_project
from tools.tiny_project import METRICS, dvc, dvc_output, git


class Finished(NamedTuple):
    """A project after a flow, the final state of the flow, and the stages that ran."""

    project: Path
    state: State[Any]
    ran: str


@pytest.fixture(scope="module")
def finished(server: str, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A project after its first flow."""
    folder = tmp_path_factory.mktemp("finished")
    project = shutil.copytree(template, folder / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATDOG_REPOSITORY", str(project))
        patch.setenv("RUNS_LOG", str(folder / "runs.log"))
        state = pipeline(
            recipe="slow", overrides=("train.seed=7",), experiment="first", return_state=True
        )
    return Finished(project, state, (folder / "runs.log").read_text())


def test_flow_runs_the_three_stages_and_returns_the_metrics(finished: Finished) -> None:
    assert finished.state.is_completed()
    assert finished.state.result() == METRICS
    assert finished.ran == "prepare train evaluate "


def test_result_is_an_experiment_with_the_requested_params(finished: Finished) -> None:
    table = json.loads(dvc_output(finished.project, "exp", "show", "--json"))
    (result,) = [
        row["revs"][0]
        for commit in table
        for row in commit["experiments"] or []
        if row["name"] == "first"
    ]
    params = result["data"]["params"]["params.yaml"]["data"]
    assert (params["optimizer"]["lr"], params["train"]["epochs"]) == (0.001, 9)  # the recipe's
    assert params["train"]["seed"] == 7
    assert result["data"]["metrics"]["metrics.json"]["data"] == METRICS


def test_checkout_is_unchanged_and_the_clone_is_removed(finished: Finished) -> None:
    assert not (finished.project / "model.txt").exists()
    assert git(finished.project, "status", "--porcelain", "--", ":!.catdog") == ""
    assert workspaces(finished.project) == []


def test_output_of_the_stages_is_in_the_log_of_the_flow(finished: Finished) -> None:
    lines = log_of_ended(finished.state)
    for stage in ("prepare", "train", "evaluate"):
        assert f"output of stage {stage}: é" in lines
    assert "the result is experiment first; apply it with `dvc exp apply first`" in lines


def test_repeated_run_restores_everything_from_the_cache(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_REPOSITORY", str(finished.project))
    monkeypatch.setenv("RUNS_LOG", str(tmp_path / "runs.log"))
    options: Any = {"recipe": "slow", "overrides": ("train.seed=7",)}
    assert pipeline(**options, experiment="again") == METRICS
    assert not (tmp_path / "runs.log").exists()


def test_uncommitted_change_is_reported_and_not_used(server: str, project: Path) -> None:
    tiny_project.write_stage(project, "train", "model.txt", "'changed'")
    state = pipeline(overrides=("train.seed=8",), keep_workspace=True, return_state=True)
    warning = "train.py: changed but not committed; this run ignores the change"
    assert warning in log_of_ended(state)
    (clone,) = workspaces(project)
    model = project / ".catdog" / "flows" / "runs" / clone / "model.txt"
    assert model.read_text().startswith("model of ")


@pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs'")  # no flow run to log to
def test_stage_runs_outdated_stages_before_it(server: str, project: Path, tmp_path: Path) -> None:
    report = run_stage("train", project, tmp_path / "logs")
    assert report.outcome == "ran"
    assert (project.parent / "runs.log").read_text() == "prepare train "
    assert "output of stage train: é\n" in report.log.read_text(encoding="utf-8")
    assert run_stage("train", project, tmp_path / "logs").outcome == "unchanged"


@pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs'")
def test_stage_is_restored_from_the_remote(server: str, project: Path, tmp_path: Path) -> None:
    run_stage("train", project, tmp_path / "logs")
    add_remote(project, tmp_path / "store")
    assert dvc(project, "push", "-q") == 0
    shutil.rmtree(project / ".dvc" / "cache")
    for out in (project / "arrays.txt", project / "model.txt", tmp_path / "runs.log"):
        out.unlink()
    assert run_stage("train", project, tmp_path / "logs").outcome == "cached"
    assert (project / "model.txt").read_text().startswith("model of ")
    assert not (tmp_path / "runs.log").exists()


@pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs'")
def test_results_are_pushed_for_other_machines(
    server: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uncached outputs too: without metrics.json, `evaluate` would run again on each machine."""
    add_remote(project, tmp_path / "store")
    tiny_project.commit(project, "A remote")
    pipeline()
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(project), str(other))
    (tmp_path / "runs.log").unlink()
    assert run_stage("evaluate", other, tmp_path / "logs").outcome == "cached"
    assert not (tmp_path / "runs.log").exists()


def add_remote(project: Path, store: Path) -> None:
    assert dvc(project, "remote", "add", "-q", "--default", "store", str(store)) == 0


def test_without_a_default_remote_only_missing_photos_are_pulled(project: Path) -> None:
    """With `repro --pull`, DVC would fail as soon as the run cache has the stage."""
    assert dvc_commands("train", project) == [["repro", "train"]]
    (project / "data").mkdir()
    (project / "data" / "raw.dvc").touch()
    assert dvc_commands("train", project) == [["pull", "data/raw.dvc"], ["repro", "train"]]
    (project / "data" / "raw").mkdir()
    assert dvc_commands("train", project) == [["repro", "train"]]


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("Running stage 'train':", ("train", "ran")),
        ("Stage 'train' didn't change, skipping", ("train", "unchanged")),
        ("Stage 'a' is cached - skipping run, checking out outputs", ("a", "cached")),
        ("Pulling data for stage: 'train'", ("train", "cached")),
        ("'data/raw.dvc' didn't change, skipping", None),
        ("epoch 1/2", None),
    ],
)
def test_outcome_is_read_from_the_output_of_dvc(line: str, outcome: object) -> None:
    assert outcome_in(line) == outcome


def test_failed_stage_fails_the_flow_with_its_last_lines_and_its_log(
    server: str, project: Path
) -> None:
    source = "for n in range(40): print('line', n)\nraise SystemExit('no photos: add some')"
    (project / "train.py").write_text(source, encoding="utf-8")
    tiny_project.commit(project, "A training that fails")
    state = pipeline(return_state=True)
    assert state.is_failed()
    assert state.message is not None
    found = re.search(r"stage train failed: exit code 1; log: (\S+)\n", state.message)
    assert found
    assert "\nno photos: add some\n" in state.message
    assert "\nline 39\n" in state.message
    assert "\nline 19\n" not in state.message
    assert "\nline 0\n" in Path(found[1]).read_text(encoding="utf-8")
    assert (project.parent / "runs.log").read_text() == "prepare "  # and evaluate did not run
    assert len(workspaces(project)) == 1  # for inspection
    assert experiments(project) == []


def test_failed_command_prints_one_line(
    server: str, project: Path, start: Callable[..., FlowCommand]
) -> None:
    (project / "prepare.py").write_text("raise SystemExit(3)", encoding="utf-8")
    tiny_project.commit(project, "A preparation that fails")
    run = start(project).finish()
    assert run.code == 1
    last = run.err.splitlines()[-1]
    assert last.startswith("pipeline failed: stage prepare failed: exit code 3; log: ")
    assert "Traceback" not in run.err
    assert run.out == ""


def test_command_prints_the_metrics(
    server: str, project: Path, start: Callable[..., FlowCommand]
) -> None:
    run = start(project, "-S", "train.seed=5", "--experiment", "five").finish()
    assert run.code == 0, run.err
    assert experiments(project) == ["five"]
    assert [line.split() for line in run.out.splitlines()] == [
        ["accuracy", "0.8750"],
        ["recall.cat", "0.7500"],
        ["recall.dog", "1.0000"],
        ["photos", "8"],
    ]


def test_paths_are_those_of_catdog() -> None:
    for name in ("PARAMS", "LOCK", "RAW", "RAW_POINTER", "METRICS", "CHECKPOINTS"):
        assert Path(getattr(paths, name)) == getattr(catdog.paths, name)


def test_flows_do_not_import_catdog() -> None:
    files = list((ROOT / "flows").rglob("*.py"))
    assert files
    for file in files:
        assert not re.search(r"^\s*(from|import) catdog", file.read_text("utf-8"), re.MULTILINE)
