"""Requests of runs; an invalid request is an error before anything is copied."""

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.errors import FlowError
from flows.runs.repository import Repository, repository
from flows.runs.request import RunRequest, check, make_request
from flows.runs.revisions import baseline_of, experiments
from tools import tiny_project
from tools.tiny_project import git


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.create(tmp_path_factory.mktemp("template") / "project")


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shutil.copytree(template, tmp_path / "project")
    monkeypatch.setenv("CATDOG_REPOSITORY", str(folder))
    monkeypatch.setenv("CATDOG_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def ours(project: Path) -> Repository:
    return repository()


def make_experiment(project: Path, name: str, baseline: str) -> str:
    """Store the files of the baseline as an experiment of it; return its commit."""
    tree = git(project, "rev-parse", f"{baseline}^{{tree}}")
    commit = git(project, "commit-tree", tree, "-p", baseline, "-m", name)
    git(project, "update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", commit)
    return commit


def error_of(request: RunRequest, ours: Repository) -> str:
    with pytest.raises(FlowError) as raised:
        check(request, ours)
    return str(raised.value)


def test_commit_branch_and_tag_are_resolved_to_the_full_commit(
    project: Path, ours: Repository
) -> None:
    first = git(project, "rev-parse", "HEAD")
    git(project, "tag", "-a", "v1", "-m", "first")
    git(project, "branch", "feature/old")
    (project / "train.py").write_text("pass\n")
    second = tiny_project.commit(project, "second")
    wanted = {"HEAD": second, "HEAD~1": first, "v1": first, "feature/old": first, first[:8]: first}
    assert {name: check(RunRequest(revision=name), ours).commit for name in wanted} == wanted


def test_experiment_can_be_the_revision(project: Path, ours: Repository) -> None:
    head = git(project, "rev-parse", "HEAD")
    commit = make_experiment(project, "lr=0.1", head)
    job = check(RunRequest(revision="lr=0.1"), ours)
    assert (job.commit, job.baseline, job.pinned.revision) == (commit, head, commit)
    assert baseline_of(commit, ours) == head
    assert baseline_of(head, ours) == head


def test_name_of_experiments_of_two_commits_is_rejected_with_both(
    project: Path, ours: Repository
) -> None:
    first = git(project, "rev-parse", "HEAD")
    old = make_experiment(project, "x", first)
    assert check(RunRequest(revision="x"), ours).commit == old
    (project / "train.py").write_text("pass\n")
    new = make_experiment(project, "x", tiny_project.commit(project, "second"))
    assert error_of(RunRequest(revision="x"), ours) == (
        "revision: 'x' is ambiguous: 2 commits have an experiment of this name; pass the commit of"
        f" the experiment, one of {new[:10]} (of HEAD), {old[:10]} (of {first[:10]})"
    )
    for commit in (old, new):
        assert check(RunRequest(revision=commit[:10]), ours).commit == commit


def test_unknown_revision_is_rejected(project: Path, ours: Repository) -> None:
    reason = error_of(RunRequest(revision="v9"), ours)
    assert reason == (
        "revision: unknown revision 'v9'; must be a commit, branch, tag or experiment of"
        f" {project.resolve()}"
    )


@pytest.mark.parametrize("missing", ["dvc.yaml", ".dvc"])
def test_revision_that_is_not_a_dvc_project_is_rejected(
    project: Path, ours: Repository, missing: str
) -> None:
    git(project, "rm", "-q", "-r", "--cached", missing)
    git(project, "commit", "-q", "-m", "without")
    assert f"has no {missing} in its top folder" in error_of(RunRequest(), ours)


def test_recipe_must_be_in_the_revision_not_in_the_working_tree(
    project: Path, ours: Repository
) -> None:
    check(RunRequest(recipe="slow"), ours)
    (project / "recipes" / "new.yaml").write_text("a: 1\n")
    reason = error_of(RunRequest(recipe="new"), ours)
    head = git(project, "rev-parse", "HEAD")
    assert reason == f"recipe: unknown recipe 'new'; {head[:7]} has slow"


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=0.5",
        "optimizer.lr=1e-5",
        "optimizer.lr=null",
        "optimizer.name='two words'",
        "train.sizes=[1,2,3]",
        "train.epochs=7",
    ],
)
def test_valid_override_is_accepted(ours: Repository, override: str) -> None:
    check(RunRequest(overrides=(override,)), ours)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("optimizer.rate=1", "params.yaml has no optimizer.rate"),
        ("optimiser.lr=1", "params.yaml has no optimiser.lr"),
        ("optimizer.lr.x=1", "params.yaml has no optimizer.lr.x"),
        ("optimizer.lr=O.1", "optimizer.lr must be a number, as in params.yaml"),
        ("optimizer.lr=", "optimizer.lr must be a number, as in params.yaml"),
        ("optimizer=3", "optimizer must be a mapping, as in params.yaml"),
        ("train.sizes=3", "train.sizes must be a list, as in params.yaml"),
        (
            "optimizer.lr=0.1,0.2",
            "contains several values; a run takes one per key, a study several",
        ),
        (
            "optimizer.lr=range(1,4)",
            "contains several values; a run takes one per key, a study several",
        ),
        ("train.sizes=[1,2", "no viable alternative at input '[1,2'"),
        ("optimizer.lr=${x}", "Interpolation key 'x' not found"),
    ],
)
def test_invalid_override_is_rejected(ours: Repository, override: str, reason: str) -> None:
    message = error_of(RunRequest(overrides=("train.epochs=3", override)), ours)
    assert message.startswith("overrides: ")
    assert message.endswith(reason)
    assert "\n" not in message


def test_overrides_apply_to_the_recipe(project: Path, ours: Repository) -> None:
    (project / "recipes" / "bare.yaml").write_text("train:\n  seed: 1\n")
    tiny_project.commit(project, "A recipe with other keys")
    check(RunRequest(recipe="bare", overrides=("train.seed=2",)), ours)
    reason = error_of(RunRequest(recipe="bare", overrides=("optimizer.lr=2",)), ours)
    assert reason.endswith("recipes/bare.yaml has no optimizer.lr")


def test_experiment_name_must_be_unused_at_the_commit(project: Path, ours: Repository) -> None:
    head = git(project, "rev-parse", "HEAD")
    make_experiment(project, "x", head)
    reason = error_of(RunRequest(experiment="x"), ours)
    assert reason.startswith(f"experiment: 'x' already exists at {head[:7]}")
    assert reason.endswith("dvc exp remove x")
    git(project, "commit", "-q", "--allow-empty", "-m", "next")
    check(RunRequest(experiment="x"), ours)


def test_rejected_request_creates_no_files(project: Path, ours: Repository) -> None:
    for request in (
        RunRequest(revision="v9"),
        RunRequest(recipe="none"),
        RunRequest(overrides=("a.b=1",)),
    ):
        error_of(request, ours)
    assert not ours.home.exists()
    assert git(project, "status", "--porcelain") == ""


def test_commit_that_only_origin_has_is_fetched(project: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(project), "elsewhere")
    (project / "train.py").write_text("pass\n")
    new = tiny_project.commit(project, "After the clone")
    elsewhere = Repository(str(tmp_path / "elsewhere"), tmp_path / "elsewhere", tmp_path, True)
    assert check(RunRequest(revision=new), elsewhere).commit == new
    assert "unknown revision" in error_of(RunRequest(revision="0" * 40), elsewhere)


def test_internal_refs_of_dvc_are_not_experiments(project: Path, ours: Repository) -> None:
    head = git(project, "rev-parse", "HEAD")
    commit = make_experiment(project, "x", head)
    git(project, "update-ref", "refs/exps/exec/EXEC_HEAD", head)
    git(project, "update-ref", "refs/exps/exec/of/another", head)
    git(project, "update-ref", "refs/exps/stash", head)
    assert experiments(ours) == [(head, "x", commit)]


def test_experiments_of_a_bare_mirror_are_found(project: Path, tmp_path: Path) -> None:
    head = git(project, "rev-parse", "HEAD")
    commit = make_experiment(project, "x", head)
    git(tmp_path, "clone", "-q", "--mirror", str(project), "mirror.git")
    mirror = Repository("url", tmp_path / "mirror.git", tmp_path, is_checkout=False)
    assert experiments(mirror) == [(head, "x", commit)]


@pytest.mark.parametrize(
    "values",
    [
        {"revision": "feature/a-b.c"},
        {"revision": "main@{yesterday}"},
        {"revision": "HEAD^2~3"},
        {"recipe": "real-photos_2"},
        {"overrides": ["a.b.0=[1, 2]", "seed=", "a=b=c"]},
        {"experiment": "example-lr=0.03-batch_size=64-seed=1"},
        {"experiment": "1e+3"},
    ],
)
def test_well_formed_values_are_accepted(values: dict[str, object]) -> None:
    RunRequest.model_validate(values)


@pytest.mark.parametrize(
    "values",
    [
        {"revision": ""},
        {"revision": "--upload-pack=x"},
        {"revision": "a b"},
        {"revision": "HEAD:params.yaml"},
        {"recipe": "../params"},
        {"recipe": "quick.yaml"},
        {"overrides": ["lr 3"]},
        {"overrides": ["+a.b=1"]},
        {"overrides": ["~a.b"]},
        {"overrides": ["a=1\nb=2"]},
        {"experiment": "a/b"},
        {"experiment": "-n"},
        {"experiment": "a..b"},
        {"experiment": "a.lock"},
        {"experiment": "two words"},
        {"experiment": "x" * 101},
        {"recipe_name": "quick"},
    ],
)
def test_malformed_values_are_rejected(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RunRequest.model_validate(values)


def test_error_names_the_value_and_gives_an_example() -> None:
    with pytest.raises(FlowError) as raised:
        make_request(recipe="quick.yaml", overrides=["optimizer.lr 0.1"])
    assert str(raised.value) == (
        "recipe: 'quick.yaml' is not a valid recipe; must be NAME of a file recipes/NAME.yaml in"
        " the revision, used as params.yaml, such as quick; overrides: 'optimizer.lr 0.1' is not a"
        " valid override; must be a changed param, as section.key=value, such as optimizer.lr=0.1"
    )


def test_make_request_takes_all_fields() -> None:
    assert make_request("main", "quick", ["a=1"], "x") == RunRequest(
        revision="main", recipe="quick", overrides=("a=1",), experiment="x"
    )


@pytest.mark.parametrize("file", ["params.yaml", "recipes/broken.yaml"])
def test_invalid_yaml_in_committed_params_is_reported(
    project: Path, ours: Repository, file: str
) -> None:
    (project / file).write_text("optimizer: {lr: 0.1\ntrain: [\n")
    head = tiny_project.commit(project, "Broken")
    recipe = "broken" if "broken" in file else None
    reason = error_of(RunRequest(recipe=recipe, overrides=("optimizer.lr=1",)), ours)
    assert reason.startswith(f"{head[:7]}:{file}: invalid YAML: ")
    assert "\n" not in reason
    assert "/tmp" not in reason
