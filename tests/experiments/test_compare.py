"""`catdog compare` on a real git and DVC project with experiments, branches and seeds."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from catdog.errors import CatdogError
from catdog.experiments import compare, comparison_report, comparison_summary, revisions
from catdog.experiments.run_results import NotCachedError
from catdog.experiments.significance import Difference
from studies import table
from tools import tiny_project
from tools.tiny_project import git

ROOT = Path(__file__).resolve().parents[2]
DVC_YAML = """\
stages:
  prepare:
    cmd: python code/prepare/prepare.py
    deps: [code/prepare, data/raw]
    params: [prepare]
    outs: [data/prepared]
  evaluate:
    cmd: python code/evaluate/evaluate.py
    deps: [code/evaluate, data/prepared]
    params: [prepare, train]
    outs: [reports/evaluate]
    metrics:
    - metrics.json: {cache: false}
"""
# A photo is a line CLASS/NUMBER of data/raw/photos.txt; those with a number below `test` are test
# photos.
PREPARE = """\
from pathlib import Path
import yaml

test = yaml.safe_load(Path("params.yaml").read_text())["prepare"]["test"]
Path("data/prepared").mkdir()
rows = ["path,class,split,sha256,width,height,reason"]
for line in Path("data/raw/photos.txt").read_text().split():
    label, number = line.split("/")
    split = "test" if int(number) < test else "train"
    rows.append(f"{line}.jpg,{label},{split},{int(number):064d},9,9,")
Path("data/prepared/photos.csv").write_text("\\n".join(rows) + "\\n")
"""
# Of 200 test photos, `right` are classified correctly: those from number `seed` on.
EVALUATE = """\
import csv, json
from pathlib import Path
import yaml

train = yaml.safe_load(Path("params.yaml").read_text())["train"]
photos = [row for row in csv.DictReader(Path("data/prepared/photos.csv").open())
          if row["split"] == "test"]
rows, right = ["sha256,path,class,prediction,probability_cat,probability_dog"], 0
for row in photos:
    number = int(row["sha256"])
    good = train["seed"] <= number < train["seed"] + train["right"]
    right += good
    other = "dog" if row["class"] == "cat" else "cat"
    rows.append(f"{row['sha256']},{row['path']},{row['class']},"
                f"{row['class'] if good else other},0.5,0.5")
Path("reports/evaluate").mkdir(parents=True)
Path("reports/evaluate/predictions.csv").write_text("\\n".join(rows) + "\\n")
share = right / len(photos)
part = {"accuracy": share, "low": share, "high": share}
Path("metrics.json").write_text(json.dumps({
    "accuracy": share, "accuracy_low": share, "accuracy_high": share, "loss": 0.5,
    "photos": len(photos), "correct": right, "classes": {"cat": part, "dog": part},
    "train_pflop": train["right"] / 1000,
}))
"""


EVALUATE_FILE = "code/evaluate/evaluate.py"


def _photos(numbers: range) -> str:
    return "\n".join(f"{'dog' if number % 2 else 'cat'}/{number}" for number in numbers) + "\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose HEAD classifies 150 of 200 photos correctly, and its experiments.

    `good`, `good2` and `good3`: 180 correct with the seeds 1 to 3; `seed2` and `seed3`: HEAD's
    params with the seeds 2 and 3; `close`: 152 correct.
    """
    folder = tmp_path_factory.mktemp("compare") / "project"
    tiny_project.create(folder)
    for name in ("train.py", "prepare.py", "evaluate.py", "recipes/slow.yaml"):
        (folder / name).unlink()
    (folder / ".gitignore").write_text("/data/prepared\n/reports\n/.catdog\n/out.json\n")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    for name, text in (("prepare", PREPARE), ("evaluate", EVALUATE)):
        (folder / f"code/{name}").mkdir(parents=True)
        (folder / f"code/{name}/{name}.py").write_text(text)
    (folder / "params.yaml").write_text(
        "prepare:\n  test: 200\ntrain:\n  seed: 1\n  right: 150\n  lr: 1e-05\n"
    )
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/raw/photos.txt").write_text(_photos(range(300)))
    (folder / "data/.gitignore").write_text("/raw\n")
    dvc(folder, "add", "-q", "data/raw")
    dvc(folder, "repro", "-q")
    tiny_project.commit(folder, "The first run")
    run(folder, "good", "train.right=180")
    run(folder, "good2", "train.right=180", "train.seed=2")
    run(folder, "good3", "train.right=180", "train.seed=3")
    run(folder, "seed2", "train.seed=2")
    run(folder, "seed3", "train.seed=3")
    run(folder, "close", "train.right=152")
    back(folder)
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template as the current folder."""
    copy = shutil.copytree(template, tmp_path / "project")
    monkeypatch.chdir(copy)
    return copy


def dvc(folder: Path, *arguments: str) -> None:
    assert tiny_project.dvc(folder, *arguments) == 0


def run(folder: Path, name: str, *settings: str) -> None:
    """Run an experiment from the committed params."""
    git(folder, "checkout", "-q", "--", "params.yaml")
    changes = [part for setting in settings for part in ("-S", setting)]
    dvc(folder, "exp", "run", "-q", "-n", name, *changes)


def back(folder: Path) -> None:
    git(folder, "checkout", "-q", ".")
    dvc(folder, "checkout", "-q")


def catdog(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "catdog", "compare", *arguments]
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True
    )


def difference_between(first: str, second: str) -> Difference:
    """Return the difference of the second revision to the first."""
    found = compare.compare([first, second]).difference
    assert found is not None
    return found


def empty_cache(folder: Path) -> None:
    shutil.rmtree(folder / ".dvc/cache")
    shutil.rmtree(folder / "reports")


def remove_predictions(folder: Path) -> None:
    """Remove the predictions from the workspace and from the cache, and nothing else."""
    shutil.rmtree(folder / "reports")
    for path in (folder / ".dvc/cache/files").rglob("*"):
        if path.is_file() and path.read_text().startswith("sha256,path"):
            path.unlink()


def test_a_better_experiment_is_better_and_a_worse_one_is_worse(project: Path) -> None:
    found = compare.compare(["HEAD", "good"]).difference
    assert found is not None
    assert (found.kind, found.only_first, found.only_second) == ("better", 0, 30)
    assert found.difference == pytest.approx(0.15) and found.low > 0
    assert difference_between("good", "HEAD").kind == "worse"


def test_a_small_difference_is_not_significant_and_the_sample_size_it_needs_is_named(
    project: Path,
) -> None:
    assert comparison_summary.verdict(compare.compare(["main", "close"])) == (
        "No significant difference between main and close on 200 photos; "
        "detecting a difference of this size needs about 780 photos."
    )


def test_only_the_params_that_differ_are_shown(project: Path) -> None:
    assert compare.compare(["HEAD", "good"]).params == {"train.right": [150, 180]}


def test_the_photos_with_changed_predictions_are_listed(project: Path) -> None:
    found = compare.compare(["good", "HEAD"])
    assert [photo.path for photo in found.right_to_wrong][:2] == ["dog/151.jpg", "cat/152.jpg"]
    assert len(found.right_to_wrong) == 30 and not found.wrong_to_right


@pytest.mark.parametrize("names", [[], ["HEAD"], ["workspace"], ["HEAD", "workspace"]])
def test_one_name_is_compared_with_the_workspace_and_the_workspace_with_head(
    project: Path, names: list[str]
) -> None:
    dvc(project, "exp", "apply", "-q", "good")
    found = compare.compare(names)
    assert [setting.name for setting in found.settings] == ["HEAD", "workspace"]
    assert found.difference is not None and found.difference.kind == "better"


def test_a_revision_is_a_commit_branch_tag_or_experiment(project: Path) -> None:
    git(project, "tag", "first")
    git(project, "branch", "other")
    commit = git(project, "rev-parse", "HEAD")
    for name in ("first", "other", commit, commit[:8], "HEAD", "main"):
        assert difference_between(name, "good").kind == "better"


def test_a_commit_is_shown_with_ten_digits(project: Path) -> None:
    commit = git(project, "rev-parse", "HEAD")
    text = comparison_summary.verdict(compare.compare([commit, "good"]))
    assert text.startswith(f"good is significantly better than {commit[:10]},")


def test_a_revision_cannot_be_compared_with_itself(project: Path) -> None:
    with pytest.raises(CatdogError, match="good: given 2 times; pass two different revisions"):
        difference_between("good", "good")


def test_comparing_changes_nothing(project: Path) -> None:
    def state() -> tuple[str, str, dict[Path, bytes | None]]:
        files = [path for path in project.rglob("*") if ".git/" not in str(path)]
        kept = [path for path in files if ".dvc/tmp" not in str(path)]
        content = {path: path.read_bytes() if path.is_file() else None for path in kept}
        return git(project, "status", "--porcelain"), git(project, "for-each-ref"), content

    before = state()
    compare.compare(["HEAD", "good", "close"])
    compare.compare(["HEAD", "good"], seeds=True)
    assert state() == before


def test_photos_added_removed_moved_and_relabelled_are_counted(project: Path) -> None:
    lines = _photos(range(10, 320)).replace("cat/250", "dog/250")
    (project / "data/raw/photos.txt").unlink()
    (project / "data/raw/photos.txt").write_text(lines)
    dvc(project, "add", "-q", "data/raw")
    run(project, "data", "prepare.test=210")
    found = compare.compare(["main", "data"])
    assert found.data == [
        compare.DataChange("data", added=20, removed=10, relabelled=1, moved={"train → test": 10})
    ]
    assert found.photos == 190
    assert "20 added, 10 removed, 1 relabelled, 10 moved train → test" in (
        comparison_report.as_markdown(found)
    )


def test_a_photo_whose_class_changed_does_not_count(project: Path) -> None:
    lines = _photos(range(300)).replace("cat/20\n", "dog/20\n")
    (project / "data/raw/photos.txt").unlink()
    (project / "data/raw/photos.txt").write_text(lines)
    dvc(project, "add", "-q", "data/raw")
    dvc(project, "repro", "-q")
    assert compare.compare([]).photos == 199


def test_changed_photos_are_reported_without_the_photo_table_too(project: Path) -> None:
    run(project, "splits", "prepare.test=150")
    back(project)
    (project / "data/raw/photos.txt").unlink()
    (project / "data/raw/photos.txt").write_text(_photos(range(299)))
    dvc(project, "add", "-q", "data/raw")
    run(project, "photos")
    back(project)
    for path in (project / ".dvc/cache/files/md5").rglob("*"):
        if path.is_file() and path.read_text().startswith("path,class,split"):
            path.unlink()
    changes = compare.compare(["main", "splits", "photos"]).data
    assert [change.name for change in changes] == ["splits", "photos"]
    assert all(change.unknown.startswith("data/prepared/photos.csv of ") for change in changes)


def test_a_project_without_a_photo_table_can_be_compared(project: Path) -> None:
    for name in ("dvc.yaml", "dvc.lock"):
        text = (project / name).read_text()
        (project / name).write_text(text.replace("data/prepared", "data/elsewhere"))
    shutil.rmtree(project / "data/prepared")
    tiny_project.commit(project, "Another folder")
    assert difference_between("HEAD", "workspace").photos == 200


def test_revisions_without_a_common_photo_cannot_be_compared(project: Path) -> None:
    (project / "data/raw/photos.txt").unlink()
    (project / "data/raw/photos.txt").write_text(_photos(range(1000, 1300)))
    (project / "params.yaml").write_text(
        "prepare:\n  test: 1200\ntrain:\n  seed: 1\n  right: 1100\n  lr: 1e-05\n"
    )
    dvc(project, "add", "-q", "data/raw")
    dvc(project, "repro", "-q")
    with pytest.raises(CatdogError, match="no test photos in common"):
        compare.compare([])


def test_one_common_photo_is_not_enough_to_compare_settings(project: Path) -> None:
    for seed in (1, 2):
        values = f"prepare:\n  test: 300\ntrain:\n  seed: {seed}\n  right: 200\n  lr: 1e-05\n"
        (project / "params.yaml").write_text(values)
        (project / "data/raw/photos.txt").unlink()
        (project / "data/raw/photos.txt").write_text(_photos(range(199, 299)))
        dvc(project, "add", "-q", "data/raw")
        dvc(project, "repro", "-q")
        tiny_project.commit(project, f"One photo in common, seed {seed}")
        git(project, "tag", f"one{seed}")
    with pytest.raises(CatdogError, match="requires at least two test photos in common, found 1"):
        compare.compare(["good", "one1"], seeds=True)


def test_metrics_of_an_earlier_model_are_noted(project: Path) -> None:
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    [model] = [dep for dep in lock["stages"]["evaluate"]["deps"] if dep["path"] == "data/prepared"]
    model["md5"] = "0" * 32 + ".dir"
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    [note] = compare.compare([]).notes
    assert "workspace: metrics are outdated: changed since the evaluation: data/prepared" in note


def test_an_accuracy_without_bounds_has_no_interval(project: Path) -> None:
    metrics = json.loads((project / "metrics.json").read_text())
    del metrics["accuracy_low"]
    (project / "metrics.json").write_text(json.dumps(metrics))
    shown = comparison_report.as_markdown(compare.compare([]))
    assert "75.0 % (75.0 to 75.0) | 75.0 % |" in shown


def test_metrics_older_than_the_params_are_noted(project: Path) -> None:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("right: 150", "right: 20"))
    [note] = compare.compare([]).notes
    assert (
        "workspace: metrics are outdated: changed since the evaluation: params.yaml (train.right)"
        in note
    )


def test_metrics_of_another_evaluation_are_noted(project: Path) -> None:
    metrics = json.loads((project / "metrics.json").read_text())
    (project / "metrics.json").write_text(json.dumps({**metrics, "correct": 199}))
    [note] = compare.compare([]).notes
    assert "workspace: metrics.json and reports/evaluate are not from the same evaluation" in note


def test_an_output_missing_in_the_cache_is_recomputed_in_a_clone_by_the_command_in_the_error(
    project: Path,
) -> None:
    """tests/project/test_command_sequences.py runs the command."""
    empty_cache(project)
    done = catdog(project, "good", "close")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    commit = revisions.resolve("good")
    command = f"make flow ARGS='--revision {commit[:10]} --experiment again-{commit[:7]}'"
    assert f"compute it on this machine with `{command}`" in done.stderr


def test_the_experiment_of_an_earlier_recomputation_is_named(project: Path) -> None:
    again = f"again-{git(project, 'rev-parse', 'HEAD')[:7]}"
    git(project, "branch", "old")
    git(project, "commit", "-q", "--allow-empty", "-m", "Nothing new")
    remove_predictions(project)
    dvc(project, "exp", "run", "-q", "-n", again, "-S", "train.right=120")
    known = f"use the experiment `{again}` instead: the same commit, computed on this machine"
    with pytest.raises(NotCachedError, match=known):
        compare.compare(["old", "workspace"])


def test_results_missing_in_an_unchanged_checkout_are_computed_there(project: Path) -> None:
    remove_predictions(project)
    with pytest.raises(NotCachedError, match=r"^HEAD: .* cache; run `make repro`$"):
        compare.compare(["HEAD", "good"])
    with pytest.raises(CatdogError, match=r"^workspace: .* cache; .*`make repro`"):
        compare.compare(["workspace", "good"])


def test_an_output_in_the_remote_alone_is_fetched_by_the_command_in_the_error(
    project: Path, tmp_path: Path
) -> None:
    dvc(project, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    first = tiny_project.commit(project, "A remote")
    dvc(project, "push", "-q")
    git(project, "commit", "-q", "--allow-empty", "-m", "Another commit")
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "# mine\n")
    empty_cache(project)
    with pytest.raises(NotCachedError) as caught:
        compare.compare([first, "workspace"])
    command = str(caught.value).split("`")[1]
    assert command == "dvc fetch --all-commits reports/evaluate"
    dvc(project, *command.split()[1:])
    assert difference_between(first, "workspace").kind == "no difference"


def test_a_name_of_experiments_of_two_commits_is_refused_with_both(project: Path) -> None:
    old, first = revisions.resolve("good"), git(project, "rev-parse", "HEAD")
    git(project, "commit", "-q", "--allow-empty", "-m", "Nothing new")
    run(project, "good", "train.right=170")
    with pytest.raises(
        CatdogError, match=r"good: ambiguous: 2 commits have an experiment"
    ) as caught:
        compare.compare(["HEAD", "good"])
    new, named_old = re.findall(r"([0-9a-f]{10}) \(of ", str(caught.value))
    assert f"{new} (of HEAD), {old[:10]} (of {first[:10]})" in str(caught.value)
    assert named_old == old[:10]
    assert compare.compare([new, old]).params == {"train.right": [170, 180]}


def test_with_seeds_settings_are_compared_over_all_their_runs(project: Path) -> None:
    found = compare.compare(["HEAD", "good"], seeds=True)
    seeds = [[run.params["train.seed"] for run in setting.runs] for setting in found.settings]
    assert seeds == [[1, 2, 3], [1, 2, 3]]
    assert found.difference is not None and found.difference.kind == "better"
    assert "min F'" in found.difference.test
    assert comparison_summary.verdict(found) == (
        "good is significantly better than HEAD, by 15.0 percentage points on 200 photos and "
        "3 seeds."
    )
    assert "75.0 ± 0.0 %" in comparison_report.as_markdown(found)


def test_seeds_are_found_where_experiments_of_two_commits_share_a_name(project: Path) -> None:
    git(project, "commit", "-q", "--allow-empty", "-m", "Nothing new")
    run(project, "good", "train.right=180", "train.seed=4")
    git(project, "commit", "-q", "--allow-empty", "-m", "Nothing new either")
    found = compare.compare(["HEAD~2", "good2"], seeds=True)
    assert [run.params["train.seed"] for run in found.settings[1].runs] == [1, 2, 3, 4]


def test_runs_with_inconsistent_metrics_are_not_replicates(project: Path) -> None:
    """A branch checked out without its DVC outputs, and one whose params changed after its run."""
    params = "prepare:\n  test: 200\ntrain:\n  seed: {}\n  right: 160\n  lr: 1e-05\n"
    for seed in (1, 2, 4, 3):
        git(project, "checkout", "-q", "-b", f"s{seed}", "main")
        (project / "params.yaml").write_text(params.format(seed))
        dvc(project, "repro", "-q")
        if seed == 4:
            (project / "params.yaml").write_text(params.format(5))
        tiny_project.commit(project, f"Seed {seed}")
    git(
        project, "checkout", "-q", "s2"
    )  # without `dvc checkout`: reports/ holds the predictions of s3
    found = compare.compare(["s1", "good"], seeds=True)
    first_correct = [
        min(int(sha256) for sha256, found in run.predictions.items() if found.correct)
        for run in found.settings[0].runs
    ]
    assert first_correct == [1, 2, 3]  # the seeds
    assert any(note.startswith("skipped: s4: metrics are outdated") for note in found.notes)


def test_an_invalid_yaml_file_is_reported_in_one_line(project: Path) -> None:
    lock = (project / "dvc.lock").read_text()
    (project / "dvc.lock").write_text(f"<<<<<<< HEAD\n{lock}=======\n")
    done = catdog(project)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("catdog: dvc.lock: invalid YAML in line ")


@pytest.mark.parametrize("stale", [False, True])
def test_minutes_are_those_of_the_training_in_the_workspace(project: Path, stale: bool) -> None:
    """Times are not a DVC output: restoring results from the cache leaves those of the last run."""
    (project / "reports/train").mkdir()
    losses = ("0.5", "0.4")
    rows = "".join(f"{epoch},{loss}\n" for epoch, loss in enumerate(losses, 1))
    (project / "reports/train/history.csv").write_text(f"epoch,train_loss\n{rows}")
    times = "1,0.5,30\n2,0.3,60\n" if stale else "1,0.5,30\n2,0.4,60\n"
    (project / "reports/train/timing.csv").write_text(f"epoch,train_loss,seconds\n{times}")
    run = compare.compare(["workspace", "good"]).settings[0].runs[0]
    assert run.minutes == (None if stale else 1.5)


def test_a_setting_with_one_seed_gets_the_command_for_a_second(project: Path) -> None:
    with pytest.raises(CatdogError, match=r"dvc exp run -S train.seed=2"):
        compare.compare(["HEAD", "close"], seeds=True)


def test_two_seeds_of_one_setting_cannot_be_compared_with_seeds(project: Path) -> None:
    with pytest.raises(CatdogError, match="the same setting"):
        compare.compare(["good", "good2"], seeds=True)


def test_runs_of_other_code_are_not_replicates(project: Path) -> None:
    (project / EVALUATE_FILE).write_text(EVALUATE + "# another version\n")
    dvc(project, "repro", "-q")
    tiny_project.commit(project, "Other code")
    with pytest.raises(CatdogError, match="only one seed"):
        compare.compare(["HEAD", "good"], seeds=True)
    found = compare.compare(["HEAD~1", "HEAD"])
    assert found.code == ["code/evaluate"]
    assert found.notes == []
    assert "code that differs: code/evaluate" in comparison_report.as_markdown(found)


@pytest.mark.parametrize("committed", [False, True])
def test_metrics_older_than_a_folder_of_code_are_noted(project: Path, committed: bool) -> None:
    (project / "code/evaluate/helpers.py").write_text("# imported by evaluate.py\n")
    if committed:
        tiny_project.commit(project, "Edited and not run")
    name = "HEAD" if committed else "workspace"
    [note] = compare.compare(["HEAD", "good"] if committed else []).notes
    assert f"{name}: metrics are outdated: changed since the evaluation: code/evaluate; " in note


@pytest.mark.parametrize("edited", [False, True])
def test_commits_whose_dependencies_are_files_are_checked_too(project: Path, edited: bool) -> None:
    """Commits from before the dependencies became folders."""
    text = (project / "dvc.yaml").read_text()
    for stage in ("prepare", "evaluate"):
        text = text.replace(f"[code/{stage},", f"[code/{stage}/{stage}.py,")
    (project / "dvc.yaml").write_text(text)
    dvc(project, "repro", "-q")
    tiny_project.commit(project, "Files as dependencies")
    if edited:
        (project / EVALUATE_FILE).write_text(EVALUATE + "# another version\n")
        tiny_project.commit(project, "Edited and not run")
    found = compare.compare(["HEAD", "good"])
    assert any("code/evaluate/evaluate.py; " in note for note in found.notes) == edited
    assert "code/evaluate" in found.code and "code/evaluate/evaluate.py" in found.code


def test_code_that_dvc_ignores_does_not_count(project: Path) -> None:
    (project / ".dvcignore").write_text("__pycache__\n")
    tiny_project.commit(project, "Bytecode is not code")
    (project / "code/evaluate/__pycache__").mkdir()
    (project / "code/evaluate/__pycache__/evaluate.pyc").write_bytes(b"bytecode")
    assert compare.compare([]).notes == []


def test_an_invalid_dvc_yaml_is_reported_in_one_line(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: none\n")
    with pytest.raises(CatdogError, match=r"^workspace: DVC cannot read the pipeline: ") as caught:
        compare.compare([])
    assert "\n" not in str(caught.value)


def test_a_project_in_a_subfolder_of_a_repository_can_be_compared(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_project.start_git(tmp_path)
    (project / ".git").rename(tmp_path / "git-of-the-project")
    tiny_project.commit(tmp_path, "A project in a subfolder")
    monkeypatch.chdir(project)
    shutil.rmtree(project / "reports")
    assert difference_between("HEAD", "workspace").photos == 200


def test_more_than_two_are_ranked(project: Path) -> None:
    found = compare.compare(["HEAD", "good", "close", "good2"])
    names = [found.settings[row.index].name for row in found.standings]
    assert names == ["good", "good2", "close", "HEAD"]
    assert [row.among_best for row in found.standings] == [True, True, False, False]
    assert comparison_summary.verdict(found) == (
        "No significant difference between good, good2 on 200 photos; "
        "2 others are significantly worse than good."
    )


def test_markdown_and_json_hold_the_same_verdict(project: Path) -> None:
    forms: dict[str, str] = {}
    for form in ("md", "json", "table"):
        done = catdog(project, "HEAD", "good", "--format", form)
        assert done.returncode == 0, done.stderr
        forms[form] = done.stdout
    values: dict[str, Any] = json.loads(forms["json"])
    assert values["difference"]["kind"] == "better"
    assert len(values["wrong_to_right"]) == 30
    assert forms["md"].startswith(f"**{values['verdict']}**")
    assert forms["table"].startswith(values["verdict"])


def test_names_and_paths_are_not_markup(project: Path) -> None:
    found = compare.compare(["HEAD", "good"])
    name, path = "[red]a|b_c~1", "cat/[bold]`d|e_f`.jpg"
    first, second = found.settings
    photo = replace(found.wrong_to_right[0], path=path)
    found = replace(found, settings=[first, replace(second, name=name)], wrong_to_right=[photo])
    page = comparison_report.as_markdown(found)
    assert page.startswith("**\\[red\\]a\\|b\\_c\\~1 is significantly better than HEAD")
    assert "| cat/\\[bold\\]`d\\|e_f`.jpg |" in page
    assert not any(text in page for text in ("[red]", "a|b", "d|e"))
    with StringIO() as text:
        comparison_report.write(found, "table", Console(file=text, width=200))
        lines = text.getvalue().splitlines()
    assert lines[0].startswith(f"{name} is significantly better than HEAD")
    assert any("metric" in line and name in line for line in lines)
    assert any("wrong to right" in line and path in line for line in lines)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "unknown revision"), ("empty", "not evaluated")],
)
def test_an_unusable_revision_is_reported_in_one_line(
    project: Path, name: str, message: str
) -> None:
    git(project, "checkout", "-q", "--orphan", "empty")
    git(project, "rm", "-q", "-f", "dvc.lock")
    git(project, "commit", "-q", "-m", "Nothing run")
    git(project, "checkout", "-q", "main")
    done = catdog(project, name, "good")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and name in done.stderr and message in done.stderr


def test_outside_a_project_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CatdogError, match="not in a DVC repository"):
        compare.compare([])


def test_the_steps_of_the_ci_workflow_compare_a_branch_with_its_base(
    project: Path, tmp_path: Path
) -> None:
    dvc(project, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    tiny_project.commit(project, "A remote")
    base = git(project, "rev-parse", "HEAD")
    dvc(project, "push", "-q")
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("right: 150", "right: 180"))
    dvc(project, "repro", "-q")
    dvc(project, "push", "-q")
    head = tiny_project.commit(project, "Better")
    git(tmp_path, "clone", "-q", str(project), "clone")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "BASE": base,
        "HEAD": head,
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    workflow = yaml.safe_load((ROOT / ".github/workflows/compare.yml").read_text(encoding="utf-8"))
    steps = {step.get("name"): step for step in workflow["jobs"]["compare"]["steps"]}
    for name in ("Download the predictions of both commits", "Compare"):
        command = ["bash", "-e", "-c", steps[name]["run"]]
        subprocess.run(command, cwd=tmp_path / "clone", env=environment, check=True)
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    names = f"{head[:10]} is significantly better than {base[:10]}"
    assert summary.startswith(f"**{names}, by 15.0 percentage points on 200 photos.**")
    assert summary == (tmp_path / "clone/comparison.md").read_text(encoding="utf-8")


def test_the_table_of_a_study_agrees_with_compare(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for old, new in (("good", "good-seed=1"), ("good2", "good-seed=2"), ("good3", "good-seed=3")):
        dvc(project, "exp", "rename", "-q", old, f"study-{new}")
    run(project, "study-base-seed=1", "train.lr=1e-05")
    file = project / "study.yaml"
    file.write_text(
        "points:\n  base: {train.right: 150}\n  good: {train.right: 180}\nseeds: [1, 2, 3]\n"
    )
    back(project)
    base, good = table.lines_of(file)
    assert (base.label, base.accuracies, base.difference) == ("base", [0.75] * 3, None)
    assert (good.label, good.accuracies, good.pflop) == ("good", [0.9] * 3, 0.18)
    difference = compare.compare(["HEAD", "study-good-seed=1"], seeds=True).difference
    assert good.difference == difference
    assert good.verdict == "better"
    table.draw([base, good], "A study", project / "study.png")
    assert (project / "study.png").read_bytes().startswith(b"\x89PNG")
