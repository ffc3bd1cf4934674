"""The pipeline with real git and DVC: a fresh clone, reruns, experiments, diffs.

The clone has the tracked files of this repository, with params that train within seconds.
"""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.helpers.clones import STAGES, Project, create_origin, ran

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git repository")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The repository to clone: the tracked files of this one, with a tiny training."""
    return create_origin(tmp_path_factory.mktemp("origin") / "catdog")


@pytest.fixture(scope="module")
def project(origin: Project) -> Project:
    """A clone in which `dvc repro --pull` has run once, with its results committed."""
    clone = origin.clone("clone")
    output = clone.run("dvc", "repro", "--pull")
    assert ran(output) == list(STAGES)
    clone.commit("results")
    return clone


def test_a_fresh_clone_pulls_its_photos_and_writes_metrics(project: Project) -> None:
    metrics = json.loads((project.folder / "metrics.json").read_text())
    assert 0 <= metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"] <= 1
    with (project.folder / "reports/evaluate/predictions.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == metrics["photos"]
    assert (project.folder / "reports/evaluate/report.html").is_file()


def test_the_lock_and_the_metrics_are_the_only_results_in_git(project: Project) -> None:
    added = project.run("git", "show", "--format=", "--name-only").split()
    assert added == ["dvc.lock", "metrics.json"]


def test_a_second_repro_runs_nothing(project: Project) -> None:
    output = project.run("dvc", "repro")
    assert ran(output) == []
    assert "Data and pipelines are up to date" in output


def test_a_forced_repro_does_not_change_the_lock(project: Project) -> None:
    before = (project.folder / "dvc.lock").read_bytes()
    project.run("dvc", "repro", "--force")
    assert (project.folder / "dvc.lock").read_bytes() == before
    assert project.run("git", "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimizer__lr": 0.07}, ["train", "evaluate"]),
        ({"augmentation__rotation": 20}, ["train", "evaluate"]),
        ({"normalization__source": "half"}, ["train", "evaluate"]),
        ({"evaluate__calibration_bins": 12}, ["evaluate"]),
        ({"prepare__test_share": 0.3}, ["prepare", "train", "evaluate"]),
    ],
    ids=["optimizer", "augmentation", "normalization", "evaluate", "prepare"],
)
def test_a_changed_section_reruns_what_depends_on_it(
    project: Project, changes: dict[str, object], expected: list[str]
) -> None:
    project.set(**changes)
    try:
        assert ran(project.run("dvc", "repro", "--dry")) == expected
    finally:
        project.run("git", "checkout", "--quiet", "params.yaml")


def test_an_unknown_key_is_refused_before_any_work(project: Project) -> None:
    project.run("dvc", "exp", "run", "-S", "optimizer.speed=1", code=255)
    project.set(train__speed=1)
    try:
        output = project.run("dvc", "repro", code=255)
        assert "train.speed: unknown key" in output
        assert "Traceback" not in output
    finally:
        project.run("git", "checkout", "--quiet", "params.yaml")


@pytest.fixture(scope="module")
def experiment(project: Project) -> Project:
    """The project after `dvc exp run -S optimizer.lr=…`."""
    output = project.run("dvc", "exp", "run", "-n", "slower", "-S", "optimizer.lr=0.00001")
    assert ran(output) == ["train", "evaluate"]
    return project


def test_params_diff_shows_only_the_changed_param(experiment: Project) -> None:
    changed = json.loads(experiment.run("dvc", "params", "diff", "--json"))
    assert list(changed) == ["params.yaml"]
    assert list(changed["params.yaml"]) == ["optimizer.lr"]
    assert changed["params.yaml"]["optimizer.lr"]["new"] == 1e-05


def test_metrics_diff_shows_the_old_and_the_new_accuracy(experiment: Project) -> None:
    difference = json.loads(experiment.run("dvc", "metrics", "diff", "--json", "--all"))
    loss = difference["metrics.json"]["loss"]
    assert loss["diff"] == pytest.approx(loss["new"] - loss["old"])
    assert {"accuracy", "roc_auc", "calibration_error"} <= set(difference["metrics.json"])


def test_exp_show_lists_the_experiment_with_its_params(experiment: Project) -> None:
    rows = list(csv.DictReader(experiment.run("dvc", "exp", "show", "--csv").splitlines()))
    row = next(row for row in rows if row["Experiment"] == "slower")
    assert float(row["optimizer.lr"]) == 1e-05
    assert row["accuracy"]


def test_plots_diff_overlays_both_revisions(experiment: Project) -> None:
    experiment.run("dvc", "plots", "diff", "HEAD", "--out", "plots")
    page = (experiment.folder / "plots/index.html").read_text()
    shutil.rmtree(experiment.folder / "plots")
    for name in ("Loss per epoch", "Accuracy per epoch", "Confusion", "ROC", "Calibration"):
        assert name in page
    assert "val_loss" in page
    assert '"rev": "HEAD"' in page
    assert '"rev": "workspace"' in page


def test_a_clone_without_a_cache_shows_and_compares_metrics(experiment: Project) -> None:
    experiment.run("git", "branch", "--force", "second")
    fresh = experiment.clone("fresh")
    shown = json.loads(fresh.run("dvc", "metrics", "show", "--json"))
    assert shown[""]["data"]["metrics.json"]["data"]["accuracy"] > 0
    fresh.set(optimizer__lr=0.3)
    assert "optimizer.lr" in fresh.run("dvc", "params", "diff")
    assert "optimizer.lr" in fresh.run("dvc", "exp", "show", "--csv")
    assert fresh.run("dvc", "metrics", "diff") == ""  # no stage ran, so the metrics are the same


def test_results_of_an_earlier_setting_come_from_the_cache(experiment: Project) -> None:
    """With the commands of make: --pull without a default remote would fail here."""
    experiment.run("git", "checkout", "--quiet", "params.yaml", "dvc.lock", "metrics.json")
    experiment.run("dvc", "repro")
    output = experiment.run("dvc", "exp", "run", "-S", "optimizer.lr=0.00001")
    assert ran(output) == []
    assert "Stage 'train' is cached" in output


def test_a_fresh_clone_can_pull_only_the_photos(origin: Project) -> None:
    fresh = origin.clone("pulled")
    fresh.run("dvc", "pull", "data/raw.dvc")
    assert len(list((fresh.folder / "data/raw").glob("*/*.jpg"))) >= 600


def test_imported_photos_are_not_pushed_to_the_store_of_the_sample(
    origin: Project, tmp_path: Path, make_photos: Callable[[Path, int], Path]
) -> None:
    fresh = origin.clone("own")
    make_photos(tmp_path / "own" / "ant", 60)
    make_photos(tmp_path / "own" / "bee", 60)
    stored = sorted((fresh.folder / "data/store").rglob("*"))
    output = fresh.run(
        "python", "-m", "catdog", "fetch", "--archive", str(tmp_path / "own"), "--replace"
    )
    assert "data/raw.dvc" in output
    assert "remote" not in (fresh.folder / "data/raw.dvc").read_text()
    refused = fresh.run("dvc", "push", "data/raw.dvc", code=1)
    assert "no remote specified" in refused
    assert sorted((fresh.folder / "data/store").rglob("*")) == stored
    assert "prepare" in ran(fresh.run("dvc", "repro", "--pull", "prepare"))


BY_HAND = {
    "dvc add": ("dvc", "add", "data/raw"),
    "dvc commit": ("dvc", "commit", "--force", "data/raw.dvc"),
    "dvc repro": ("dvc", "repro", "data/raw.dvc"),
}


@pytest.mark.parametrize("command", BY_HAND.values(), ids=BY_HAND)
def test_photos_added_by_hand_are_pushed_to_the_default_remote(
    origin: Project, command: tuple[str, ...], make_photos: Callable[[Path, int], Path]
) -> None:
    """Not to the store of the sample, from which a colleague could not pull them."""
    ours = origin.clone(f"by_hand_{command[1]}")
    stored = sorted((ours.folder / "data/store").rglob("*"))
    ours.run("dvc", "pull", "data/raw.dvc")
    (mine,) = make_photos(ours.folder / "data/raw/cat", 1).glob("photo_*")
    ours.run(*command)
    assert "no remote specified" in ours.run("dvc", "push", code=1)
    ours.run("dvc", "remote", "add", "--default", "ours", str(ours.folder) + ".remote")
    ours.commit("One more photo")
    ours.run("dvc", "push")
    assert sorted((ours.folder / "data/store").rglob("*")) == stored
    assert ours.run("git", "status", "--porcelain", "--ignored", "data/store") == ""
    colleague = ours.clone(f"{ours.folder.name}_colleague")
    colleague.run("dvc", "pull", "data/raw.dvc")
    pulled = colleague.folder / mine.relative_to(ours.folder)
    assert pulled.read_bytes() == mine.read_bytes()


def test_the_sample_is_pulled_even_if_the_default_remote_does_not_have_it(
    origin: Project, tmp_path: Path
) -> None:
    fresh = origin.clone("other_remote")
    fresh.run("dvc", "remote", "add", "--default", "ours", str(tmp_path / "empty"))
    assert "prepare" in ran(fresh.run("dvc", "repro", "--pull", "prepare"))


def test_the_photos_of_a_fresh_clone_are_the_sample() -> None:
    """The copy of the sample has the same content: its hash is how DVC finds the photos."""
    outs = yaml.safe_load((ROOT / "data/raw.dvc").read_text())["outs"]
    remotes = {out["path"]: (out["md5"], out.get("remote")) for out in outs}
    if ".sample" not in remotes:
        pytest.skip("data/raw.dvc describes other photos")
    hash_of_sample, remote = remotes[".sample"]
    assert remote == "sample"
    assert remotes["raw"] == (hash_of_sample, None)
