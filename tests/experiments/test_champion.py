"""The champion: only a better model takes its place; `predict` can use any revision's model."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from catdog import params
from catdog.errors import CatdogError
from catdog.experiments import champion, compare, comparison_report, registry, revisions
from catdog.model import networks, saved
from catdog.model.card import ModelCard, versions
from tools import tiny_project
from tools.tiny_project import git

ROOT = Path(__file__).resolve().parents[2]
SIDE = 32
DVC_YAML = """\
stages:
  evaluate:
    cmd: python evaluate.py
    deps: [evaluate.py]
    params: [run]
    outs: [models, reports/evaluate]
    metrics:
    - metrics.json: {cache: false}
"""
# 200 test photos, of which the first `right` are right; the model is one of two trained ones.
EVALUATE = """\
import json, os, shutil
from pathlib import Path
import yaml

run = yaml.safe_load(Path("params.yaml").read_text())["run"]
shutil.copytree(Path(os.environ["TRAINED"]) / run["model"], "models")
Path("reports/evaluate").mkdir(parents=True)
rows = ["sha256,path,class,prediction,probability_cat,probability_dog"]
for index in range(200):
    said, cat = ("cat", 0.9) if index < run["right"] else ("dog", 0.1)
    rows.append(f"{run['photos']}{index:060d},cat/{index}.jpg,cat,{said},{cat},{1 - cat}")
Path("reports/evaluate/predictions.csv").write_text("\\n".join(rows) + "\\n")
right = run["right"]
metrics = {"accuracy": right / 200, "photos": 200, "correct": right}
Path("metrics.json").write_text(json.dumps(metrics))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two trained models, which tell cats from dogs and ants from bees."""
    folder = tmp_path_factory.mktemp("models")
    settings = params.load(ROOT / "recipes/sample.yaml").model
    small = settings.residual.model_copy(update={"width": 8})
    settings = settings.model_copy(update={"residual": small})
    network = networks.build(settings, 2, SIDE)
    for name, classes in {"pets": ["cat", "dog"], "insects": ["ant", "bee"]}.items():
        card = ModelCard(
            model=settings,
            classes=classes,
            stored_image_size=SIDE,
            image_size=SIDE,
            flip=False,
            mean=[0.5] * 3,
            std=[0.5] * 3,
            precision="float32",
            epoch=1,
            weights=networks.count_parameters(network),
            pflop=0.0,
            versions=versions(),
        )
        saved.save(folder / name, network, card)
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Path:
    """A project with tags for models that get 100, 103 and 150 of 200 test photos right."""
    folder = tmp_path_factory.mktemp("champion") / "project"
    folder.mkdir()
    tiny_project.start_git(folder)
    assert tiny_project.dvc(folder, "init", "-q") == 0
    (folder / ".gitignore").write_text("/models\n/reports/\n/.catdog/\n")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "evaluate.py").write_text(EVALUATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINED", str(models))
        add(folder, "none-yet", run=False)
        add(folder, "poor", right=100)
        add(folder, "same", right=103)
        add(folder, "good", right=150, model="insects")
        add(folder, "elsewhere", right=150, photos="beef")
    return folder


def add(
    project: Path,
    tag: str,
    right: int = 0,
    model: str = "pets",
    photos: str = "cafe",
    run: bool = True,
) -> None:
    values = f"run:\n  right: {right}\n  model: {model}\n  photos: {photos}\n"
    (project / "params.yaml").write_text(values)
    assert not run or tiny_project.dvc(project, "repro", "-q") == 0
    tiny_project.commit(project, tag)
    git(project, "tag", tag)


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def tags(project: Path) -> list[str]:
    return [tag for tag in git(project, "tag").splitlines() if "@" in tag or "#" in tag]


def message(project: Path, tag: str) -> str:
    return git(project, "tag", "--list", tag, "--format=%(contents)")


def refused(revision: str, force: str | None = None) -> str:
    """Return the one line of a revision that must not become champion."""
    with pytest.raises(CatdogError) as error:
        champion.crown(revision, force)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_first_champion_has_nobody_to_beat(project: Path) -> None:
    assert registry.current() is None
    crowned = champion.crown("poor")
    assert crowned == registry.current()
    assert crowned.commit == git(project, "rev-parse", "poor^{commit}")
    assert tags(project) == ["catdog#champion#1", f"catdog@{crowned.version}"]
    assert "none to compare with" in message(project, "catdog#champion#1")


def test_a_better_model_becomes_champion_and_its_tag_has_the_numbers(project: Path) -> None:
    first = champion.crown("poor")
    second = champion.crown("good")
    assert second.commit == git(project, "rev-parse", "good^{commit}")
    assert second.version != first.version
    said = message(project, "catdog#champion#2")
    assert f"Better than {first.version} on the same 200 test photos: +25.0 points" in said
    assert "McNemar p = " in said


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("poor", "same", ("no difference", "+1.5 points", "200 test photos", "p = 0.25")),
        ("good", "poor", ("worse than v0.0.1", "-25.0 points", "200 test photos")),
    ],
)
def test_a_model_that_is_not_better_is_refused_with_the_numbers(
    project: Path, first: str, second: str, words: tuple[str, ...]
) -> None:
    champion.crown(first)
    before = tags(project)
    line = refused(second)
    assert all(word in line for word in (*words, "--force REASON"))
    assert tags(project) == before


def test_figures_that_are_not_of_the_model_crown_nobody(project: Path) -> None:
    git(project, "checkout", "-q", "good")
    add(project, "stale", right=199, model="insects", run=False)
    champion.crown("poor")
    assert "its figures are older than its params.yaml (run.right)" in refused("stale")
    champion.crown("stale", force="looked at by eye")
    said = message(project, "catdog#champion#2")
    assert said.startswith(
        "Forced: looked at by eye (better than v0.0.1 on the same 200 test photos"
    )
    assert "doubtful: " in said and "figures are older" in said


def test_force_leaves_its_reason_and_the_numbers_in_the_tag(project: Path) -> None:
    champion.crown("good")
    crowned = champion.crown("poor", force="it is a tenth of the size")
    assert registry.current() == crowned
    said = message(project, "catdog#champion#2")
    assert said.startswith("Forced: it is a tenth of the size (worse than v0.0.1")
    assert "-25.0 points" in said


def test_an_empty_reason_is_none(project: Path) -> None:
    assert "needs a reason" in refused("poor", force=" ")
    assert tags(project) == []


def test_other_test_photos_cannot_be_compared_but_forced(project: Path) -> None:
    champion.crown("good")
    before = tags(project)
    assert "no test photo in common" in refused("elsewhere")
    assert tags(project) == before
    champion.crown("elsewhere", force="new photos")
    assert "new photos (not compared with" in message(project, "catdog#champion#2")


def test_the_champion_itself_cannot_take_its_own_place(project: Path) -> None:
    champion.crown("good")
    assert "is the champion already" in refused("good", force="again")


def test_a_former_champion_keeps_its_version(project: Path) -> None:
    first = champion.crown("poor")
    champion.crown("same", force="to try it")
    back = champion.crown("poor", force="it was better after all")
    assert (back.version, back.commit) == (first.version, first.commit)


def test_the_champion_is_a_name_for_compare_too(project: Path) -> None:
    git(project, "checkout", "-q", "poor")
    champion.crown("good")
    found = compare.compare(["champion", "HEAD"])
    assert comparison_report.verdict(found) == (
        "HEAD is worse than champion, by 25.0 points on 200 photos."
    )
    assert "is the champion already, as v0.0.1" in refused("champion")


def test_a_branch_of_that_name_comes_before_the_champion(project: Path) -> None:
    champion.crown("good")
    git(project, "branch", "champion", "poor")
    assert revisions.resolve("champion") == git(project, "rev-parse", "poor^{commit}")


def test_without_a_champion_the_name_says_how_to_make_one(project: Path) -> None:
    with pytest.raises(CatdogError, match=r"^champion: there is none yet; `catdog champion REV"):
        compare.compare(["champion", "HEAD"])


def test_a_champion_that_the_cache_lacks_is_brought_by_a_commit_that_git_knows(
    project: Path,
) -> None:
    commit = champion.crown("good").commit
    shutil.rmtree(project / ".dvc/cache")
    with pytest.raises(CatdogError, match=f"champion: .*`git checkout {commit[:10]} && dvc exp"):
        compare.compare(["champion", "workspace"])


def test_a_revision_without_a_model_is_refused(project: Path) -> None:
    assert "has no dvc.lock" in refused("none-yet", force="why not")
    assert "no commit, branch, tag or experiment" in refused("nothing")
    assert tags(project) == []


def test_a_model_that_is_nowhere_is_refused(project: Path) -> None:
    shutil.rmtree(project / ".dvc/cache")
    assert "neither DVC's cache nor a remote" in refused("poor", force="why not")
    assert tags(project) == []


def test_half_a_model_is_refused_each_time(project: Path) -> None:
    cached = [path for path in (project / ".dvc/cache/files").rglob("*") if path.is_file()]
    max(cached, key=lambda path: path.stat().st_size).unlink()  # the weights
    for _ in range(2):
        assert "neither DVC's cache nor a remote" in refused("poor", force="why not")
    assert tags(project) == []


def test_an_experiment_can_be_champion(
    project: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINED", str(models))
    run = ("exp", "run", "--temp", "-q", "-n", "tried", "-S", "run.right=190")
    assert tiny_project.dvc(project, *run, "-S", "run.photos=cafe") == 0
    champion.crown("poor")
    assert champion.crown("tried").commit == revisions.resolve("tried")


Predict = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def predict(project: Path, make_photos: Callable[[Path, int], Path]) -> Predict:
    """Return a function that judges a photo with the model of a name, in a process of its own."""
    make_photos(project.parent / "photos", 1)

    def run(model: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "catdog", "predict", "../photos", "--format", "csv"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CATDOG_DEVICE": "cpu"}
        return subprocess.run(
            [*command, "--model", model],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_predict_uses_the_champions_model_or_any_revisions(project: Path, predict: Predict) -> None:
    champion.crown("good")
    shutil.rmtree(project / "models")
    assert "probability_bee" in predict("champion").stdout
    assert "probability_dog" in predict("poor").stdout
    assert not (project / "models").exists()
    # Once fetched it is there without the cache.
    shutil.rmtree(project / ".dvc/cache")
    assert "probability_bee" in predict("champion").stdout


def test_predict_brings_the_model_from_the_remote(project: Path, predict: Predict) -> None:
    remote = str(project.parent / "remote")
    assert tiny_project.dvc(project, "remote", "add", "-q", "-d", "store", remote) == 0
    tiny_project.commit(project, "A remote that is younger than the models")
    git(project, "checkout", "-q", "good")
    assert tiny_project.dvc(project, "remote", "add", "-q", "-d", "store", remote) == 0
    assert tiny_project.dvc(project, "push", "-q") == 0
    git(project, "checkout", "-q", "-f", "main")
    shutil.rmtree(project / ".dvc/cache")
    done = predict("good")
    assert "probability_bee" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("champion", "champion: there is none yet; `catdog champion REVISION` makes one"),
        ("nothing", "--model nothing: no commit, branch, tag or experiment"),
        ("none-yet", "has no dvc.lock"),
    ],
)
def test_predict_says_in_one_line_that_there_is_no_such_model(
    predict: Predict, model: str, words: str
) -> None:
    done = predict(model)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.strip().splitlines()
    assert words in line
