"""The clone that a run works in, and the export of its result as an experiment."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from flows.errors import FlowError
from flows.guards.child_processes import DVC
from flows.runs import records
from flows.runs.export import export_result
from flows.runs.repository import Repository, repository, uncommitted_changes
from flows.runs.request import Job, RunRequest, check
from flows.runs.workspace import Workspace, environment, open_workspace
from tools import tiny_project
from tools.tiny_project import dvc, dvc_output, git


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.create(tmp_path_factory.mktemp("template") / "project")


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project that runs come from; the stages that run are listed in the file ran.log."""
    folder = shutil.copytree(template, tmp_path / "project")
    monkeypatch.setenv("CATDOG_REPOSITORY", str(folder))
    monkeypatch.delenv("CATDOG_HOME", raising=False)
    monkeypatch.setenv("RUNS_LOG", str(tmp_path / "ran.log"))
    return folder


class Open(Protocol):
    """The type of `new_workspace`."""

    def __call__(
        self, name: str = ..., keep: bool = ..., **values: Any
    ) -> AbstractContextManager[Workspace]: ...


@pytest.fixture
def new_workspace(project: Path) -> Open:
    """Open a workspace as the flow does, after the check of the request."""

    def make(
        name: str = "calm-owl", keep: bool = False, **values: Any
    ) -> AbstractContextManager[Workspace]:
        request, ours = RunRequest(**values), repository()
        return open_workspace(check(request, ours), name, keep=keep)

    return make


def repro(ours: Workspace) -> str:
    """Run the stages in the clone; return what dvc printed."""
    done = subprocess.run(
        [*DVC, "repro"],
        cwd=ours.folder,
        env=environment(ours.folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(project: Path) -> dict[str, Any]:
    """Return what `dvc exp show` prints in the checkout for each experiment, by name."""
    _, head = json.loads(dvc_output(project, "exp", "show", "--json"))
    found = [revision for each in head["experiments"] or () for revision in each["revs"]]
    return {revision["name"]: revision["data"] for revision in found}


def test_workspace_has_the_revision_without_uncommitted_changes(
    project: Path, new_workspace: Open
) -> None:
    wanted = (project / "train.py").read_text()
    (project / "train.py").write_text("half an idea\n")
    (project / "new.py").touch()
    before = git(project, "status", "--porcelain")
    with new_workspace() as ours:
        assert (ours.folder / "train.py").read_text() == wanted
        assert not (ours.folder / "new.py").exists()
        assert git(ours.folder, "rev-parse", "HEAD") == ours.job.commit == ours.job.baseline
        assert git(ours.folder, "status", "--porcelain") == ""
        assert git(project, "status", "--porcelain") == before
    assert git(project, "status", "--porcelain") == before


def test_recipe_replaces_the_params_and_overrides_change_it(
    new_workspace: Open,
) -> None:
    with new_workspace(recipe="slow", overrides=("train.seed=7",)) as ours:
        params = (ours.folder / "params.yaml").read_text()
        wanted = (ours.folder / "recipes" / "slow.yaml").read_text()
    assert params == wanted.replace("seed: 1", "seed: 7")
    assert "# sgd or adam" in params


def test_stages_run_the_code_of_the_workspace_not_the_installed_package(
    project: Path, new_workspace: Open
) -> None:
    package = project / "catdog"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text("def main():\n    print(__file__)\n")
    tiny_project.commit(project, "A package of the same name as the one that is installed")
    command = Path(sys.executable).with_name("catdog")
    assert command.exists()
    with new_workspace() as ours:
        done = subprocess.run(
            [command], cwd="/", env=environment(ours.folder), stdout=subprocess.PIPE, check=True
        )
        assert done.stdout.decode().strip() == str(ours.folder / "catdog" / "cli.py")


def test_two_workspaces_share_the_cache_of_the_checkout(
    project: Path, new_workspace: Open, tmp_path: Path
) -> None:
    with new_workspace() as first:
        repro(first)
        with new_workspace() as second:
            assert second.folder != first.folder
            assert "is cached - skipping run" in repro(second)
            model = second.folder / "model.txt"
            assert model.samefile(first.folder / "model.txt")  # a link
    assert (tmp_path / "ran.log").read_text().split().count("train") == 1
    assert not (project / "model.txt").exists()


def test_workspace_shares_the_objects_of_git(new_workspace: Open) -> None:
    with new_workspace() as ours:
        assert git(ours.folder, "count-objects") == "0 objects, 0 kilobytes"
        assert not list((ours.folder / ".git" / "objects" / "pack").iterdir())


def test_site_cache_of_dvc_is_in_the_workspace(new_workspace: Open) -> None:
    with new_workspace() as ours:
        site = dvc_output(ours.folder, "config", "core.site_cache_dir").strip()
        assert Path(site).is_relative_to(ours.folder)


def test_path_that_pythonpath_cannot_contain_is_refused(
    new_workspace: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages would import the installed package instead of the code of the clone."""
    monkeypatch.setenv("CATDOG_HOME", str(tmp_path / "a:b"))
    with (
        pytest.raises(FlowError, match=r"/a:b/runs/calm-owl: .* must not contain ':'.*; move"),
        new_workspace(),
    ):
        pass
    assert not list((tmp_path / "a:b" / "runs").glob("calm-owl*"))


def test_cache_type_of_the_user_is_kept(project: Path, new_workspace: Open) -> None:
    assert dvc(project, "config", "cache.type", "symlink") == 0
    tiny_project.commit(project, "Link")
    with new_workspace() as ours:
        assert dvc_output(ours.folder, "config", "cache.type").strip() == "symlink"


def test_local_configuration_of_the_checkout_applies_in_the_workspace(
    project: Path, new_workspace: Open
) -> None:
    assert dvc(project, "remote", "add", "-d", "far", "ssh://example.com/store") == 0
    tiny_project.commit(project, "A remote")
    assert dvc(project, "remote", "modify", "--local", "far", "keyfile", "id_rsa") == 0
    with new_workspace() as ours:
        config = (ours.folder / ".dvc" / "config.local").read_text()
        key = config.partition("keyfile = ")[2].partition("\n")[0]
        assert (ours.folder / ".dvc" / key).resolve() == project / "id_rsa"


def test_relative_default_remote_is_that_of_the_checkout(
    project: Path, new_workspace: Open, tmp_path: Path
) -> None:
    assert dvc(project, "remote", "add", "-d", "beside", "../store") == 0
    tiny_project.commit(project, "A remote")
    with new_workspace() as ours:
        repro(ours)
        assert dvc(ours.folder, "push", "--run-cache") == 0
    assert (tmp_path / "store" / "runs").is_dir()


def test_remote_in_git_is_that_of_the_revision(project: Path, new_workspace: Open) -> None:
    (project / "data" / "store").mkdir(parents=True)
    (project / "data" / "store" / "file").touch()
    assert dvc(project, "remote", "add", "sample", "data/store") == 0
    tiny_project.commit(project, "A sample")
    with new_workspace() as ours:
        listed = "".join(dvc_output(ours.folder, "remote", "list").split())  # dvc breaks the line
        assert listed.startswith(f"sample{ours.folder}/data/store")


def test_checkpoints_are_stored_in_the_checkout(project: Path, new_workspace: Open) -> None:
    with new_workspace() as ours:
        (ours.folder / ".catdog" / "checkpoints" / "state").touch()
        assert git(ours.folder, "status", "--porcelain") == ""
    assert (project / ".catdog" / "checkpoints" / "state").exists()
    with new_workspace() as ours:
        assert (ours.folder / ".catdog" / "checkpoints" / "state").exists()


def test_workspace_is_removed_after_success(project: Path, new_workspace: Open) -> None:
    with new_workspace() as ours:
        assert [run.state for run in records.all_runs(ours.job.repository.home)] == ["running"]
    assert list((ours.job.repository.home / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (FlowError("stage train failed: exit code 1\nits lines"), "failed", "stage train failed"),
        (KeyboardInterrupt(), "cancelled", "stopped by a signal"),
    ],
)
def test_workspace_is_kept_after_a_failure(
    project: Path,
    new_workspace: Open,
    error: BaseException,
    state: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(type(error)), new_workspace() as ours:
        raise error
    (run,) = records.all_runs(ours.job.repository.home)
    assert (run.name, run.state) == ("calm-owl", state)
    assert run.message.startswith(message)
    assert "\n" not in run.message
    assert (ours.folder / "dvc.yaml").exists()
    assert f"kept for 7 days: {ours.folder}" in capsys.readouterr().out
    assert git(project, "status", "--porcelain") == ""


def test_workspace_is_kept_if_requested(new_workspace: Open) -> None:
    with new_workspace(keep=True) as ours:
        pass
    assert [run.state for run in records.all_runs(ours.job.repository.home)] == ["finished"]
    assert (ours.folder / "dvc.yaml").exists()


def test_runs_with_the_same_name_get_different_workspaces(new_workspace: Open) -> None:
    with new_workspace("calm owl/3") as first, new_workspace("calm owl/3") as second:
        assert (first.name, second.name) == ("calm-owl-3", "calm-owl-3-2")
        assert first.folder != second.folder
        assert second.experiment == "calm-owl-3-2"


def test_failed_clone_leaves_nothing(project: Path, new_workspace: Open) -> None:
    ours = repository()
    missing = Job(RunRequest(), ours, "0" * 40, "0" * 40)
    with (
        pytest.raises(FlowError, match="git checkout failed"),
        open_workspace(missing, "calm-owl"),
    ):
        pass
    assert list((ours.home / "runs").iterdir()) == []


def test_git_needs_no_author(
    project: Path, new_workspace: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    git(project, "config", "--unset", "user.name")
    with new_workspace() as ours:
        assert git(ours.folder, "config", "user.name") == "catdog"
        assert git(ours.folder, "config", "user.email") == "tester@example.com"


def test_result_is_an_experiment_that_can_be_applied(project: Path, new_workspace: Open) -> None:
    with new_workspace(overrides=("optimizer.lr=0.5",), experiment="lr=0.5") as ours:
        repro(ours)
        assert export_result(ours) == "lr=0.5"
    assert git(project, "status", "--porcelain") == ""
    data = shown(project)["lr=0.5"]
    assert data["params"]["params.yaml"]["data"]["optimizer"]["lr"] == 0.5
    assert data["metrics"]["metrics.json"]["data"] == tiny_project.METRICS
    assert dvc(project, "exp", "apply", "lr=0.5") == 0
    assert "lr: 0.5" in (project / "model.txt").read_text()
    assert not (project / ".dvc" / "tmp" / "repro.dat").exists()


def test_result_based_on_an_experiment_is_its_sibling(project: Path, new_workspace: Open) -> None:
    with new_workspace(overrides=("optimizer.lr=0.5",), experiment="first") as ours:
        repro(ours)
        export_result(ours)
    head = git(project, "rev-parse", "HEAD")
    with new_workspace(revision="first", overrides=("train.seed=9",)) as ours:
        assert (ours.job.baseline, git(ours.folder, "rev-parse", "HEAD")) == (head, head)
        assert ours.job.commit != head
        repro(ours)
        assert export_result(ours) == "calm-owl"
    params = shown(project)["calm-owl"]["params"]["params.yaml"]["data"]
    assert (params["optimizer"]["lr"], params["train"]["seed"]) == (0.5, 9)


@pytest.fixture
def done(project: Path) -> Path:
    """The project with the results of its stages committed."""
    assert dvc(project, "repro", "-q") == 0
    tiny_project.commit(project, "Results")
    return project


def test_unchanged_result_is_not_exported(done: Path, new_workspace: Open) -> None:
    with new_workspace() as ours:
        repro(ours)
        assert export_result(ours) is None
    assert git(done, "for-each-ref", "refs/exps") == ""


def test_unchanged_result_is_exported_if_a_name_is_requested(
    done: Path, new_workspace: Open
) -> None:
    with new_workspace(experiment="same") as ours:
        repro(ours)
        assert export_result(ours) == "same"
    assert shown(done)["same"]["metrics"]["metrics.json"]["data"] == tiny_project.METRICS


def test_result_gets_a_number_if_its_name_is_taken_by_now(done: Path, new_workspace: Open) -> None:
    with new_workspace(experiment="x", overrides=("train.seed=2",)) as first:
        with new_workspace(experiment="x", overrides=("train.seed=3",)) as second:
            repro(second)
            assert export_result(second) == "x"
        repro(first)
        assert export_result(first) == "x-2"
    seeds = {
        name: data["params"]["params.yaml"]["data"]["train"]["seed"]
        for name, data in shown(done).items()
    }
    assert seeds == {"x": 3, "x-2": 2}


ONE_RUN = """
import subprocess, sys
from flows.guards.child_processes import DVC
from flows.runs.export import export_result
from flows.runs.repository import repository
from flows.runs.request import RunRequest, check
from flows.runs.workspace import environment, open_workspace

request, ours = RunRequest(overrides=(f"train.seed={sys.argv[1]}",)), repository()
with open_workspace(check(request, ours), "calm-owl") as made:
    subprocess.run([*DVC, "repro"], cwd=made.folder, env=environment(made.folder), check=True)
    export_result(made)
"""


@pytest.mark.slow
def test_concurrent_runs_export_one_experiment_each(project: Path) -> None:
    seeds = range(2, 6)
    processes = [subprocess.Popen([sys.executable, "-c", ONE_RUN, str(seed)]) for seed in seeds]
    assert [process.wait(timeout=300) for process in processes] == [0] * len(seeds)
    found = shown(project)
    assert sorted(found) == ["calm-owl", "calm-owl-2", "calm-owl-3", "calm-owl-4"]
    params = [data["params"]["params.yaml"]["data"]["train"]["seed"] for data in found.values()]
    assert sorted(params) == list(seeds)


def test_result_that_cannot_be_pushed_is_kept_in_the_workspace(
    project: Path, new_workspace: Open
) -> None:
    with (
        pytest.raises(FlowError, match=r"git ls-remote failed .* does not appear to be a git"),
        new_workspace() as ours,
    ):
        repro(ours)
        git(ours.folder, "remote", "set-url", "origin", str(project / "none"))
        export_result(ours)
    assert (ours.folder / "model.txt").exists()


@pytest.fixture
def far(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """The project as a repository with a URL."""
    git(tmp_path, "clone", "-q", "--bare", str(project), "far.git")
    monkeypatch.setenv("CATDOG_REPOSITORY", (tmp_path / "far.git").as_uri())
    monkeypatch.setenv("CATDOG_HOME", str(tmp_path / "home"))
    yield repository()


def test_result_is_pushed_to_the_url_of_the_repository(
    far: Repository, project: Path, new_workspace: Open, tmp_path: Path
) -> None:
    with new_workspace(overrides=("train.seed=4",), experiment="x") as ours:
        assert git(ours.folder, "remote", "get-url", "origin") == far.source
        repro(ours)
        (ours.folder / ".catdog" / "checkpoints" / "state").touch()
        export_result(ours)
    assert git(tmp_path / "far.git", "for-each-ref", "refs/exps").endswith("/x")
    assert (tmp_path / "home" / "cache" / "files").is_dir()
    assert (tmp_path / "home" / "checkpoints" / "state").exists()
    assert not (project / ".dvc" / "cache").exists()


def test_uncommitted_changes_are_listed(project: Path) -> None:
    ours, head = repository(), git(project, "rev-parse", "HEAD")
    assert uncommitted_changes(ours, head) == []
    (project / "train.py").write_text("half an idea\n")
    (project / "prepare.py").unlink()
    (project / "neu ü.py").touch()
    git(project, "mv", "evaluate.py", "moved.py")
    assert sorted(uncommitted_changes(ours, head)) == [
        f"{what} but not committed; this run ignores the change"
        for what in (
            '"neu ü.py": new',
            "evaluate.py -> moved.py: renamed",
            "prepare.py: deleted",
            "train.py: changed",
        )
    ]
    assert uncommitted_changes(ours, "0" * 40) == []  # another revision was requested


def test_mirror_has_no_uncommitted_changes(far: Repository) -> None:
    assert uncommitted_changes(far, git(far.folder, "rev-parse", "HEAD")) == []


def test_environment_has_additional_variables(tmp_path: Path) -> None:
    variables = environment(tmp_path, CUDA_VISIBLE_DEVICES="1")
    assert variables["CUDA_VISIBLE_DEVICES"] == "1"
    assert variables["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    assert variables["DVC_NO_ANALYTICS"] == "1"


def test_home_that_is_not_writable_is_reported(
    project: Path, new_workspace: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CATDOG_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(FlowError, match="home: cannot be written to"), new_workspace():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="needs a separate file system")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount one")
def test_on_a_full_disk_the_error_of_the_run_is_reported(
    new_workspace: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        monkeypatch.setenv("CATDOG_HOME", str(disk))
        with pytest.raises(FlowError, match="stage train failed"), new_workspace() as ours:
            with suppress(OSError):
                (ours.folder / "model.txt").write_bytes(b"x" * 4_000_000)
            raise FlowError("stage train failed: No space left on device")
    finally:
        subprocess.run(["umount", disk], check=True)
