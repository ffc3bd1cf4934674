"""`catdog study`: what a study names and is not finished becomes DVC experiments, and no more."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from catdog import params, study, study_runs
from catdog.errors import CatdogError
from flows import study as flows_study
from flows.errors import FlowError
from tests import tiny_project
from tests.tiny_project import git

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
LR = """\
overrides: [train.epochs=4]
grid:
  optimizer.lr: [0.02, 0.05]
"""
NAMES = ["lr-lr=0.02", "lr-lr=0.05"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with catdog's params and three trivial stages, and the current folder."""
    folder = tiny_project.create(tmp_path / "project")
    shutil.copy(ROOT / "recipes/sample.yaml", folder / "params.yaml")
    shutil.copy(ROOT / "recipes/seed.yaml", folder / "recipes/seed.yaml")
    (folder / "studies").mkdir()
    (folder / "studies/lr.yaml").write_text(LR)
    tiny_project.commit(folder, "catdog's params and a study")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RUNS_LOG", str(tmp_path / "runs.log"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "catdog", "study", *arguments]


def catdog_study(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(*arguments), env=environment, capture_output=True, text=True, check=False
    )


def experiments(project: Path) -> dict[str, str]:
    """The commit of each experiment by its name."""
    lines = git(project, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps")
    found = [line.split() for line in lines.splitlines()]
    return {ref.rpartition("/")[2]: commit for ref, commit in found if ref.count("/") == 4}


def trainings(project: Path) -> int:
    log = project.parent / "runs.log"
    return log.read_text().split().count("train") if log.is_file() else 0


def plan(text: str) -> study_runs.Plan:
    Path("studies/lr.yaml").write_text(text)
    return study_runs.make_plan(Path("studies/lr.yaml"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_sweep_reads_the_same_points_from_a_study_of_this_repository(file: Path) -> None:
    same_points(file.read_text())


@pytest.mark.parametrize(
    "text",
    [
        LR,
        "seeds: [1, 2]",
        "grid: {optimizer.name: [sgd, adam], model.seed.width: [8, 16]}\nseeds: [3]",
        "points: {a: {optimizer.lr: 1e-05}, b: {normalization.mean: [0.5, 0.5, 0.5]}}",
        "points: [{model.torchvision.weights: it's.pth}, {model.seed.dropout: null}]",
        "grid: {model.seed.dropout: [0.1], model.residual.dropout: [0.2]}",
    ],
)
def test_the_sweep_reads_the_same_points_whatever_is_in_a_study(text: str) -> None:
    same_points(text)


def same_points(text: str) -> None:
    theirs = flows_study.points(flows_study.parse(text, "studies/a.yaml"))
    ours = study.points(study.parse(text, "studies/a.yaml"))
    assert [tuple(point) for point in ours] == [tuple(point) for point in theirs]


@pytest.mark.parametrize(
    "text",
    ["", "a: [", "grid: 3", "name: a", "points: [{train: {}}]", "seeds: [1, 1]", "recipe: /"],
)
def test_what_the_sweep_refuses_is_refused_with_the_same_words(text: str) -> None:
    with pytest.raises(CatdogError) as ours:
        study.parse(text, "studies/a.yaml")
    with pytest.raises(FlowError) as theirs:
        flows_study.parse(text, "studies/a.yaml")
    assert str(ours.value) == str(theirs.value)


def test_a_recipe_and_overrides_are_exactly_the_points_params(project: Path) -> None:
    (overrides,) = plan("recipe: seed\npoints: {p: {train.batch_size: 20}}").overrides.values()
    from dvc.utils.hydra import apply_overrides

    apply_overrides(project / "params.yaml", overrides)
    wanted = params.load(project / "recipes/seed.yaml").model_dump()
    wanted["train"]["batch_size"] = 20
    assert params.load(project / "params.yaml").model_dump() == wanted
    keys = [override.partition("=")[0] for override in overrides]
    assert len(keys) == len(set(keys))


def test_points_become_experiments_and_only_what_is_missing_runs_again(project: Path) -> None:
    first = catdog_study("studies/lr.yaml")
    assert first.returncode == 0, first.stderr
    made = experiments(project)
    assert sorted(made) == NAMES
    assert trainings(project) == 2
    for name, lr in zip(NAMES, (0.02, 0.05), strict=True):
        said = yaml.safe_load(git(project, "show", f"{made[name]}:params.yaml"))
        assert (said["optimizer"]["lr"], said["train"]["epochs"]) == (lr, 4)
    assert git(project, "status", "--porcelain") == ""

    (project / "studies/lr.yaml").write_text(LR.replace("0.05]", "0.05, 0.08]"))
    second = catdog_study("studies/lr.yaml")
    assert second.returncode == 0, second.stderr
    assert "3 points, 2 of them finished before" in second.stderr
    assert trainings(project) == 3
    assert experiments(project).items() > made.items()

    listed = catdog_study("studies/lr.yaml", "--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["finished"] * 3


def test_one_that_fails_does_not_stop_the_others(project: Path) -> None:
    (project / "train.py").write_text(
        "from pathlib import Path\n"
        "assert 'lr: 0.02' not in Path('params.yaml').read_text(), 'not this one'\n"
        "Path('model.txt').write_text('model')\n"
    )
    tiny_project.commit(project, "A training that fails")
    done = catdog_study("studies/lr.yaml")
    assert done.returncode == 1
    assert list(experiments(project)) == NAMES[1:]
    last = done.stderr.strip().splitlines()[-1]
    assert "1 of 2 points failed: lr-lr=0.02" in last


def test_a_stop_ends_the_training_and_the_next_start_goes_on(project: Path, tmp_path: Path) -> None:
    (project / "train.py").write_text(
        "import os, signal, time\nfrom pathlib import Path\n"
        "if 'lr: 0.05' in Path('params.yaml').read_text():\n"
        f"    Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        f"    while not Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.05)\n"
        "Path('model.txt').write_text('model')\n"
    )
    tiny_project.commit(project, "A training that waits")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(command("studies/lr.yaml"), env=environment)
    wait_for(lambda: (tmp_path / "pid").is_file() and bool((tmp_path / "pid").read_text()))
    running.send_signal(signal.SIGTERM)
    assert running.wait() == 128 + signal.SIGTERM
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()
    assert list(experiments(project)) == NAMES[:1]

    (tmp_path / "go").touch()
    assert catdog_study("studies/lr.yaml").returncode == 0
    assert sorted(experiments(project)) == NAMES


def wait_for(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_uncommitted_changes_stop_it_but_the_studys_own_do_not(project: Path) -> None:
    study_runs.refuse_changes(Path("studies/lr.yaml"))
    (project / "studies/lr.yaml").write_text(f"{LR}seeds: [1]\n")
    study_runs.refuse_changes(Path("studies/lr.yaml"))
    (project / "train.py").write_text("")
    with pytest.raises(CatdogError, match=r"train\.py: changed but not committed"):
        study_runs.refuse_changes(Path("studies/lr.yaml"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("grid: {optimizer.lr: [0.1, 1000]}", r"lr=1000: optimizer\.lr is 1000"),
        ("grid: {optimizer.rate: [0.1]}", r"optimizer\.rate=0\.1: "),
        ("recipe: none\nseeds: [1]", r"recipes/none\.yaml: no such file"),
        ("revision: HEAD~1\nseeds: [1]", "is about revision HEAD~1, .* git checkout HEAD~1"),
    ],
)
def test_a_wrong_point_is_refused_before_anything_runs(
    project: Path, text: str, complaint: str
) -> None:
    with pytest.raises(CatdogError, match=complaint) as refused:
        plan(text)
    assert "\n" not in str(refused.value)
    assert trainings(project) == 0


def test_an_experiment_of_the_name_with_other_params_is_not_taken_for_finished(
    project: Path,
) -> None:
    assert tiny_project.dvc(project, "exp", "run", "--temp", "-n", NAMES[0]) == 0
    with pytest.raises(CatdogError, match=r"lr-lr=0\.02 is there already, with optimizer\.lr"):
        plan(LR)
