"""The champion is replaced by a better model only; `predict` can use any revision's model."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from catdog import params
from catdog.errors import CatdogError
from catdog.experiments import champion, compare, comparison_summary, registry, revisions
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
# The first `right` of 200 test photos are classified correctly; the model is one of two.
EVALUATE = """\
import json, os, shutil
from pathlib import Path
import yaml

run = yaml.safe_load(Path("params.yaml").read_text())["run"]
shutil.copytree(Path(os.environ["TRAINED"]) / run["model"], "models")
Path("reports/evaluate").mkdir(parents=True)
rows = ["sha256,path,class,prediction,probability_cat,probability_dog"]
for index in range(200):
    predicted, cat = ("cat", 0.9) if index < run["right"] else ("dog", 0.1)
    rows.append(f"{run['photos']}{index:060d},cat/{index}.jpg,cat,{predicted},{cat},{1 - cat}")
Path("reports/evaluate/predictions.csv").write_text("\\n".join(rows) + "\\n")
right = run["right"]
metrics = {"accuracy": right / 200, "photos": 200, "correct": right}
Path("metrics.json").write_text(json.dumps(metrics))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models: a classifier of cats and dogs, and one of ants and bees."""
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
    """A project with tags for models that classify 100, 103 and 150 of 200 photos correctly."""
    folder = tmp_path_factory.mktemp("champion") / "project"
    folder.mkdir()
    tiny_project.start_git(folder)
    assert tiny_project.dvc(folder, "init", "-q") == 0
    (folder / ".gitignore").write_text("/models\n/reports/\n/.catdog/\n")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "evaluate.py").write_text(EVALUATE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINED", str(models))
        add(folder, "not-run", run=False)
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


def promotion_error(revision: str, force: str | None = None) -> str:
    """Return the error, one line, of a revision that must not become the champion."""
    with pytest.raises(CatdogError) as error:
        champion.promote(revision, force)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_first_champion_is_promoted_without_a_comparison(project: Path) -> None:
    assert registry.current() is None
    promoted = champion.promote("poor")
    assert promoted == registry.current()
    assert promoted.commit == git(project, "rev-parse", "poor^{commit}")
    assert tags(project) == ["catdog#champion#1", f"catdog@{promoted.version}"]
    assert "promoted without a comparison" in message(project, "catdog#champion#1")


def test_a_better_model_is_promoted_and_the_tag_records_the_numbers(project: Path) -> None:
    first = champion.promote("poor")
    second = champion.promote("good")
    assert second.commit == git(project, "rev-parse", "good^{commit}")
    assert second.version != first.version
    text = message(project, "catdog#champion#2")
    assert f"Better than {first.version} on the same 200 test photos: accuracy +25.0" in text
    assert "(exact McNemar test)" in text


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (
            "poor",
            "same",
            ("not significantly different", "+1.5 perc", "200 test photos", "p = 0.25"),
        ),
        ("good", "poor", ("worse than v0.0.1", "-25.0 percentage", "200 test photos")),
    ],
)
def test_a_model_that_is_not_better_is_not_promoted(
    project: Path, first: str, second: str, words: tuple[str, ...]
) -> None:
    champion.promote(first)
    before = tags(project)
    line = promotion_error(second)
    assert all(word in line for word in (*words, "use --force REASON to promote it anyway"))
    assert tags(project) == before


def test_a_model_with_metrics_older_than_its_params_is_not_promoted(project: Path) -> None:
    git(project, "checkout", "-q", "good")
    add(project, "stale", right=199, model="insects", run=False)
    champion.promote("poor")
    assert "since the evaluation: params.yaml (run.right)" in promotion_error("stale")
    champion.promote("stale", force="inspected manually")
    text = message(project, "catdog#champion#2")
    assert text.startswith(
        "Forced: inspected manually (better than v0.0.1 on the same 200 test photos"
    )
    assert "inconsistent: " in text and "metrics are outdated" in text


def test_the_tag_records_the_reason_for_force_and_the_numbers(project: Path) -> None:
    champion.promote("good")
    promoted = champion.promote("poor", force="it is a tenth of the size")
    assert registry.current() == promoted
    text = message(project, "catdog#champion#2")
    assert text.startswith("Forced: it is a tenth of the size (worse than v0.0.1")
    assert "-25.0 percentage points" in text


def test_an_empty_reason_is_refused(project: Path) -> None:
    assert "--force: empty reason" in promotion_error("poor", force=" ")
    assert tags(project) == []


def test_a_model_with_other_test_photos_can_only_be_forced(project: Path) -> None:
    champion.promote("good")
    before = tags(project)
    assert "no test photos in common" in promotion_error("elsewhere")
    assert tags(project) == before
    champion.promote("elsewhere", force="new photos")
    assert "new photos (not compared with" in message(project, "catdog#champion#2")


def test_the_champion_cannot_be_promoted_again(project: Path) -> None:
    champion.promote("good")
    assert "already the champion" in promotion_error("good", force="again")


def test_a_former_champion_keeps_its_version(project: Path) -> None:
    first = champion.promote("poor")
    champion.promote("same", force="a trial")
    back = champion.promote("poor", force="better after all")
    assert (back.version, back.commit) == (first.version, first.commit)


def test_compare_accepts_the_name_champion(project: Path) -> None:
    git(project, "checkout", "-q", "poor")
    champion.promote("good")
    found = compare.compare(["champion", "HEAD"])
    assert comparison_summary.verdict(found) == (
        "HEAD is significantly worse than champion, by 25.0 percentage points on 200 photos."
    )
    assert "already the champion, as v0.0.1" in promotion_error("champion")


def test_a_branch_named_champion_takes_precedence(project: Path) -> None:
    champion.promote("good")
    git(project, "branch", "champion", "poor")
    assert revisions.resolve("champion") == git(project, "rev-parse", "poor^{commit}")


def test_without_a_champion_the_error_says_how_to_promote_one(project: Path) -> None:
    with pytest.raises(CatdogError, match=r"^champion: no champion yet; `catdog champion REV"):
        compare.compare(["champion", "HEAD"])


def test_a_champion_missing_in_the_cache_is_named_by_its_commit(
    project: Path,
) -> None:
    commit = champion.promote("good").commit
    shutil.rmtree(project / ".dvc/cache")
    command = f"make flow ARGS='--revision {commit[:10]} --experiment again-{commit[:7]}'"
    with pytest.raises(CatdogError, match=f"champion: .*`{command}`"):
        compare.compare(["champion", "workspace"])


def test_a_champion_of_another_machine_is_recomputed_and_promoted_by_the_command_in_the_error(
    project: Path,
) -> None:
    """It is not in the cache, and a recomputed one is another commit."""
    present = champion.promote("poor")
    remove_outputs_of(project, "poor")
    again = f"again-{present.commit[:7]}"
    promote = f"catdog champion {again} --force 'Recomputed on this machine: {present.version}'"
    run = f"make flow ARGS='--revision {present.commit[:10]} --experiment {again}'"
    assert f"with `{run} && {promote}`, and run this command again" in promotion_error("good")
    git(project, "branch", again, "same")  # stands for the result of the run
    assert champion.promote(again, f"Recomputed on this machine: {present.version}")
    assert champion.promote("good").commit == revisions.resolve("good")


def remove_outputs_of(project: Path, tag: str) -> None:
    """Remove the report of a tag from the cache."""
    lock = yaml.safe_load(git(project, "show", f"{tag}:dvc.lock"))
    outs = lock["stages"]["evaluate"]["outs"]
    (md5,) = [out["md5"] for out in outs if out["path"] == "reports/evaluate"]
    (project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()


def test_a_revision_without_a_model_cannot_be_promoted(project: Path) -> None:
    assert ": dvc.lock not found" in promotion_error("not-run", force="why not")
    assert "unknown revision" in promotion_error("nothing")
    assert tags(project) == []


def test_a_model_missing_in_cache_and_remote_cannot_be_promoted(project: Path) -> None:
    shutil.rmtree(project / ".dvc/cache")
    assert "in neither the DVC cache nor a reachable remote" in promotion_error(
        "poor", force="why not"
    )
    assert tags(project) == []


def test_an_incomplete_model_cannot_be_promoted(project: Path) -> None:
    cached = [path for path in (project / ".dvc/cache/files").rglob("*") if path.is_file()]
    max(cached, key=lambda path: path.stat().st_size).unlink()  # the weights
    for _ in range(2):
        assert "in neither the DVC cache nor a reachable remote" in promotion_error(
            "poor", force="why not"
        )
    assert tags(project) == []


def test_an_experiment_can_be_promoted(
    project: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINED", str(models))
    run = ("exp", "run", "--temp", "-q", "-n", "tried", "-S", "run.right=190")
    assert tiny_project.dvc(project, *run, "-S", "run.photos=cafe") == 0
    champion.promote("poor")
    assert champion.promote("tried").commit == revisions.resolve("tried")


Predict = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def predict(project: Path, make_photos: Callable[[Path, int], Path]) -> Predict:
    """Return a function that runs `catdog predict` on a photo with the given model."""
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


def test_predict_uses_the_model_of_the_champion_or_of_any_revision(
    project: Path, predict: Predict
) -> None:
    champion.promote("good")
    shutil.rmtree(project / "models")
    assert "probability_bee" in predict("champion").stdout
    assert "probability_dog" in predict("poor").stdout
    assert not (project / "models").exists()
    # A model that was fetched before is used without the cache.
    shutil.rmtree(project / ".dvc/cache")
    assert "probability_bee" in predict("champion").stdout


def test_predict_fetches_the_model_from_the_remote(project: Path, predict: Predict) -> None:
    remote = str(project.parent / "remote")
    assert tiny_project.dvc(project, "remote", "add", "-q", "-d", "store", remote) == 0
    tiny_project.commit(project, "A remote that is newer than the models")
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
        ("champion", "champion: no champion yet; `catdog champion REVISION` promotes one"),
        ("nothing", "--model nothing: unknown revision"),
        ("not-run", ": dvc.lock not found"),
    ],
)
def test_predict_reports_an_unknown_model_in_one_line(
    predict: Predict, model: str, words: str
) -> None:
    done = predict(model)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.strip().splitlines()
    assert words in line
