"""The clone that a run works in, and its result as an experiment of the checkout."""

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
from flows.runs.repository import Repository, repository
from flows.runs.request import RunRequest, check
from flows.runs.workspace import Workspace, bring_home, dirty, environment, workspace
from tools import tiny_project
from tools.tiny_project import dvc, dvc_says, git


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.create(tmp_path_factory.mktemp("template") / "project")


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of which runs come; what they do is noted in the file ran.log."""
    folder = shutil.copytree(template, tmp_path / "project")
    monkeypatch.setenv("CATDOG_REPOSITORY", str(folder))
    monkeypatch.delenv("CATDOG_HOME", raising=False)
    monkeypatch.setenv("RUNS_LOG", str(tmp_path / "ran.log"))
    return folder


class Open(Protocol):
    """The type of `open_workspace`."""

    def __call__(
        self, name: str = ..., keep: bool = ..., **asked: Any
    ) -> AbstractContextManager[Workspace]: ...


@pytest.fixture
def open_workspace(project: Path) -> Open:
    """Open a workspace the way the flow does: checked, then made."""

    def make(
        name: str = "calm-owl", keep: bool = False, **asked: Any
    ) -> AbstractContextManager[Workspace]:
        request, ours = RunRequest(**asked), repository()
        return workspace(request, ours, check(request, ours), name, keep=keep)

    return make


def repro(ours: Workspace) -> str:
    """Run the stages in the workspace; return what dvc printed."""
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
    """Return what `dvc exp show` of the checkout says of each experiment, by name."""
    _, head = json.loads(dvc_says(project, "exp", "show", "--json"))
    found = [revision for each in head["experiments"] or () for revision in each["revs"]]
    return {revision["name"]: revision["data"] for revision in found}


def test_workspace_holds_the_revision_and_not_what_is_being_edited(
    project: Path, open_workspace: Open
) -> None:
    wanted = (project / "train.py").read_text()
    (project / "train.py").write_text("half an idea\n")
    (project / "new.py").touch()
    before = git(project, "status", "--porcelain")
    with open_workspace() as ours:
        assert (ours.folder / "train.py").read_text() == wanted
        assert not (ours.folder / "new.py").exists()
        assert git(ours.folder, "rev-parse", "HEAD") == ours.commit == ours.baseline
        assert git(ours.folder, "status", "--porcelain") == ""
        assert git(project, "status", "--porcelain") == before
    assert git(project, "status", "--porcelain") == before


def test_recipe_takes_the_place_of_the_params_and_overrides_change_it(
    open_workspace: Open,
) -> None:
    with open_workspace(recipe="slow", overrides=("train.seed=7",)) as ours:
        params = (ours.folder / "params.yaml").read_text()
        wanted = (ours.folder / "recipes" / "slow.yaml").read_text()
    assert params == wanted.replace("seed: 1", "seed: 7")
    assert "# sgd or adam" in params


def test_stages_run_the_code_of_the_workspace_not_the_one_that_is_installed(
    project: Path, open_workspace: Open
) -> None:
    package = project / "catdog"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text("def main():\n    print(__file__)\n")
    tiny_project.commit(project, "A package of the same name as the one that is installed")
    command = Path(sys.executable).with_name("catdog")
    assert command.exists()
    with open_workspace() as ours:
        done = subprocess.run(
            [command], cwd="/", env=environment(ours.folder), stdout=subprocess.PIPE, check=True
        )
        assert done.stdout.decode().strip() == str(ours.folder / "catdog" / "cli.py")


def test_two_workspaces_share_the_cache_of_the_checkout(
    project: Path, open_workspace: Open, tmp_path: Path
) -> None:
    with open_workspace() as first:
        repro(first)
        with open_workspace() as second:
            assert second.folder != first.folder
            assert "is cached - skipping run" in repro(second)
            model = second.folder / "model.txt"
            assert model.samefile(first.folder / "model.txt")  # links: no copies
    assert (tmp_path / "ran.log").read_text().split().count("train") == 1
    assert not (project / "model.txt").exists()


def test_workspace_shares_the_objects_of_git(open_workspace: Open) -> None:
    with open_workspace() as ours:
        assert git(ours.folder, "count-objects") == "0 objects, 0 kilobytes"
        assert not list((ours.folder / ".git" / "objects" / "pack").iterdir())


def test_dvc_leaves_nothing_outside_the_workspace_but_the_cache(open_workspace: Open) -> None:
    with open_workspace() as ours:
        site = dvc_says(ours.folder, "config", "core.site_cache_dir").strip()
        assert Path(site).is_relative_to(ours.folder)


def test_users_choice_of_links_is_kept(project: Path, open_workspace: Open) -> None:
    assert dvc(project, "config", "cache.type", "symlink") == 0
    tiny_project.commit(project, "Link")
    with open_workspace() as ours:
        assert dvc_says(ours.folder, "config", "cache.type").strip() == "symlink"


def test_local_settings_of_the_checkout_hold_in_the_workspace(
    project: Path, open_workspace: Open
) -> None:
    assert dvc(project, "remote", "add", "-d", "far", "ssh://example.com/store") == 0
    tiny_project.commit(project, "A remote")
    assert dvc(project, "remote", "modify", "--local", "far", "keyfile", "id_rsa") == 0
    with open_workspace() as ours:
        config = (ours.folder / ".dvc" / "config.local").read_text()
        key = config.partition("keyfile = ")[2].partition("\n")[0]
        assert (ours.folder / ".dvc" / key).resolve() == project / "id_rsa"


def test_default_remote_beside_the_checkout_is_the_same_one_for_the_workspace(
    project: Path, open_workspace: Open, tmp_path: Path
) -> None:
    assert dvc(project, "remote", "add", "-d", "beside", "../store") == 0
    tiny_project.commit(project, "A remote")
    with open_workspace() as ours:
        repro(ours)
        assert dvc(ours.folder, "push", "--run-cache") == 0
    assert (tmp_path / "store" / "runs").is_dir()


def test_remote_that_git_keeps_is_the_one_of_the_revision(
    project: Path, open_workspace: Open
) -> None:
    (project / "data" / "store").mkdir(parents=True)
    (project / "data" / "store" / "file").touch()
    assert dvc(project, "remote", "add", "sample", "data/store") == 0
    tiny_project.commit(project, "A sample")
    with open_workspace() as ours:
        listed = "".join(dvc_says(ours.folder, "remote", "list").split())  # dvc breaks the line
        assert listed.startswith(f"sample{ours.folder}/data/store")


def test_checkpoints_outlive_the_workspace_and_are_those_of_the_checkout(
    project: Path, open_workspace: Open
) -> None:
    with open_workspace() as ours:
        (ours.folder / ".catdog" / "checkpoints" / "state").touch()
        assert git(ours.folder, "status", "--porcelain") == ""
    assert (project / ".catdog" / "checkpoints" / "state").exists()
    with open_workspace() as ours:
        assert (ours.folder / ".catdog" / "checkpoints" / "state").exists()


def test_workspace_is_removed_when_all_went_well(project: Path, open_workspace: Open) -> None:
    with open_workspace() as ours:
        assert [run.state for run in records.all_runs(ours.repository.home)] == ["running"]
    assert list((ours.repository.home / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (FlowError("stage train failed: exit code 1\nits lines"), "failed", "stage train failed"),
        (KeyboardInterrupt(), "cancelled", "stopped from outside"),
    ],
)
def test_workspace_is_kept_when_the_run_did_not_end_well(
    project: Path,
    open_workspace: Open,
    error: BaseException,
    state: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(type(error)), open_workspace() as ours:
        raise error
    (run,) = records.all_runs(ours.repository.home)
    assert (run.name, run.state) == ("calm-owl", state)
    assert run.said.startswith(said)
    assert "\n" not in run.said
    assert (ours.folder / "dvc.yaml").exists()
    assert f"kept for 7 days: {ours.folder}" in capsys.readouterr().out
    assert git(project, "status", "--porcelain") == ""


def test_workspace_is_kept_when_asked_to(open_workspace: Open) -> None:
    with open_workspace(keep=True) as ours:
        pass
    assert [run.state for run in records.all_runs(ours.repository.home)] == ["finished"]
    assert (ours.folder / "dvc.yaml").exists()


def test_runs_of_one_name_get_workspaces_of_their_own(open_workspace: Open) -> None:
    with open_workspace("calm owl/3") as first, open_workspace("calm owl/3") as second:
        assert (first.name, second.name) == ("calm-owl-3", "calm-owl-3-2")
        assert first.folder != second.folder
        assert second.experiment == "calm-owl-3-2"


def test_workspace_that_cannot_be_made_leaves_nothing(project: Path, open_workspace: Open) -> None:
    ours = repository()
    with (
        pytest.raises(FlowError, match="git checkout failed"),
        workspace(RunRequest(), ours, "0" * 40, "calm-owl"),
    ):
        pass
    assert list((ours.home / "runs").iterdir()) == []


def test_git_without_an_author_will_do(
    project: Path, open_workspace: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    git(project, "config", "--unset", "user.name")
    with open_workspace() as ours:
        assert git(ours.folder, "config", "user.name") == "catdog"
        assert git(ours.folder, "config", "user.email") == "tester@example.com"


def test_result_is_an_experiment_of_the_checkout_and_can_be_applied_there(
    project: Path, open_workspace: Open
) -> None:
    with open_workspace(overrides=("optimizer.lr=0.5",), experiment="lr=0.5") as ours:
        repro(ours)
        assert bring_home(ours) == "lr=0.5"
    assert git(project, "status", "--porcelain") == ""
    data = shown(project)["lr=0.5"]
    assert data["params"]["params.yaml"]["data"]["optimizer"]["lr"] == 0.5
    assert data["metrics"]["metrics.json"]["data"] == tiny_project.METRICS
    assert dvc(project, "exp", "apply", "lr=0.5") == 0
    assert "lr: 0.5" in (project / "model.txt").read_text()
    assert not (project / ".dvc" / "tmp" / "repro.dat").exists()


def test_result_of_an_experiment_is_its_sibling(project: Path, open_workspace: Open) -> None:
    with open_workspace(overrides=("optimizer.lr=0.5",), experiment="first") as ours:
        repro(ours)
        bring_home(ours)
    head = git(project, "rev-parse", "HEAD")
    with open_workspace(revision="first", overrides=("train.seed=9",)) as ours:
        assert (ours.baseline, git(ours.folder, "rev-parse", "HEAD")) == (head, head)
        assert ours.commit != head
        repro(ours)
        assert bring_home(ours) == "calm-owl"
    params = shown(project)["calm-owl"]["params"]["params.yaml"]["data"]
    assert (params["optimizer"]["lr"], params["train"]["seed"]) == (0.5, 9)


@pytest.fixture
def done(project: Path) -> Path:
    """The project with the results of its stages committed."""
    assert dvc(project, "repro", "-q") == 0
    tiny_project.commit(project, "Results")
    return project


def test_result_that_does_not_differ_is_the_commits_own(done: Path, open_workspace: Open) -> None:
    with open_workspace() as ours:
        repro(ours)
        assert bring_home(ours) is None
    assert git(done, "for-each-ref", "refs/exps") == ""


def test_result_that_was_given_a_name_is_there_under_it_even_if_it_does_not_differ(
    done: Path, open_workspace: Open
) -> None:
    with open_workspace(experiment="same") as ours:
        repro(ours)
        assert bring_home(ours) == "same"
    assert shown(done)["same"]["metrics"]["metrics.json"]["data"] == tiny_project.METRICS


def test_result_whose_name_was_taken_meanwhile_is_not_lost(
    done: Path, open_workspace: Open
) -> None:
    with open_workspace(experiment="x", overrides=("train.seed=2",)) as first:
        with open_workspace(experiment="x", overrides=("train.seed=3",)) as second:
            repro(second)
            assert bring_home(second) == "x"
        repro(first)
        assert bring_home(first) == "x-2"
    seeds = {
        name: data["params"]["params.yaml"]["data"]["train"]["seed"]
        for name, data in shown(done).items()
    }
    assert seeds == {"x": 3, "x-2": 2}


ONE_RUN = """
import subprocess, sys
from flows.guards.child_processes import DVC
from flows.runs.repository import repository
from flows.runs.request import RunRequest, check
from flows.runs.workspace import bring_home, environment, workspace

request, ours = RunRequest(overrides=(f"train.seed={sys.argv[1]}",)), repository()
with workspace(request, ours, check(request, ours), "calm-owl") as made:
    subprocess.run([*DVC, "repro"], cwd=made.folder, env=environment(made.folder), check=True)
    bring_home(made)
"""


@pytest.mark.slow
def test_runs_at_the_same_moment_bring_home_an_experiment_each(project: Path) -> None:
    seeds = range(2, 6)
    processes = [subprocess.Popen([sys.executable, "-c", ONE_RUN, str(seed)]) for seed in seeds]
    assert [process.wait(timeout=300) for process in processes] == [0] * len(seeds)
    found = shown(project)
    assert sorted(found) == ["calm-owl", "calm-owl-2", "calm-owl-3", "calm-owl-4"]
    params = [data["params"]["params.yaml"]["data"]["train"]["seed"] for data in found.values()]
    assert sorted(params) == list(seeds)


def test_result_that_cannot_be_pushed_stays_in_the_workspace(
    project: Path, open_workspace: Open
) -> None:
    with (
        pytest.raises(FlowError, match=r"git ls-remote failed .* does not appear to be a git"),
        open_workspace() as ours,
    ):
        repro(ours)
        git(ours.folder, "remote", "set-url", "origin", str(project / "none"))
        bring_home(ours)
    assert (ours.folder / "model.txt").exists()


@pytest.fixture
def far(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """The project as a repository that has a URL."""
    git(tmp_path, "clone", "-q", "--bare", str(project), "far.git")
    monkeypatch.setenv("CATDOG_REPOSITORY", (tmp_path / "far.git").as_uri())
    monkeypatch.setenv("CATDOG_HOME", str(tmp_path / "home"))
    yield repository()


def test_result_goes_to_the_url_that_the_run_came_from(
    far: Repository, project: Path, open_workspace: Open, tmp_path: Path
) -> None:
    with open_workspace(overrides=("train.seed=4",), experiment="x") as ours:
        assert git(ours.folder, "remote", "get-url", "origin") == far.source
        repro(ours)
        (ours.folder / ".catdog" / "checkpoints" / "state").touch()
        bring_home(ours)
    assert git(tmp_path / "far.git", "for-each-ref", "refs/exps").endswith("/x")
    assert (tmp_path / "home" / "cache" / "files").is_dir()
    assert (tmp_path / "home" / "checkpoints" / "state").exists()
    assert not (project / ".dvc" / "cache").exists()


def test_checkout_says_what_will_not_be_used(project: Path) -> None:
    ours, head = repository(), git(project, "rev-parse", "HEAD")
    assert dirty(ours, head) == []
    (project / "train.py").write_text("half an idea\n")
    (project / "prepare.py").unlink()
    (project / "neu ü.py").touch()
    git(project, "mv", "evaluate.py", "judge.py")
    assert sorted(dirty(ours, head)) == [
        f"{what}, but not committed; this run does not use that"
        for what in (
            '"neu ü.py": new',
            "evaluate.py -> judge.py: renamed",
            "prepare.py: deleted",
            "train.py: changed",
        )
    ]
    assert dirty(ours, "0" * 40) == []  # another revision was asked for


def test_mirror_is_never_dirty(far: Repository) -> None:
    assert dirty(far, git(far.folder, "rev-parse", "HEAD")) == []


def test_environment_adds_what_is_given(tmp_path: Path) -> None:
    variables = environment(tmp_path, CUDA_VISIBLE_DEVICES="1")
    assert variables["CUDA_VISIBLE_DEVICES"] == "1"
    assert variables["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    assert variables["DVC_NO_ANALYTICS"] == "1"


def test_home_that_cannot_be_written_to_is_said(
    project: Path, open_workspace: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CATDOG_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(FlowError, match="home: cannot be written to"), open_workspace():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system of its own")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount one")
def test_on_a_full_disk_the_reason_of_the_run_is_what_is_heard(
    open_workspace: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        monkeypatch.setenv("CATDOG_HOME", str(disk))
        with pytest.raises(FlowError, match="stage train failed"), open_workspace() as ours:
            with suppress(OSError):
                (ours.folder / "model.txt").write_bytes(b"x" * 4_000_000)
            raise FlowError("stage train failed: No space left on device")
    finally:
        subprocess.run(["umount", disk], check=True)
