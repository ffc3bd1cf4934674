"""The repository that runs come from, and the folder for the data of runs."""

import shutil
from pathlib import Path

import pytest

from flows.errors import FlowError
from flows.paths import CHECKOUT
from flows.runs.git import git
from flows.runs.repository import Repository, home, repository
from tools import tiny_project


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with one commit; it need not be a DVC project here."""
    folder = tmp_path_factory.mktemp("template") / "project"
    folder.mkdir()
    tiny_project.start_git(folder)
    (folder / "file").write_text("first\n")
    tiny_project.commit(folder, "first")
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CATDOG_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = shutil.copytree(template, tmp_path / "project")
    monkeypatch.setenv("CATDOG_REPOSITORY", str(folder))
    return folder


def test_default_repository_is_the_checkout_of_the_flows(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the current folder does not matter
    assert repository().folder == project
    monkeypatch.delenv("CATDOG_REPOSITORY")
    assert home() == CHECKOUT / ".catdog" / "flows"


def test_folder_in_a_checkout_stands_for_the_checkout(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "sub").mkdir()
    monkeypatch.setenv("CATDOG_REPOSITORY", str(project / "sub"))
    ours = repository()
    assert (ours.source, ours.folder, ours.is_checkout) == (str(project), project, True)
    assert ours.home == project / ".catdog" / "flows"


def test_project_may_be_in_a_subfolder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "a" / "b" / ".dvc").mkdir(parents=True)
    (project / "a" / "b" / "c").mkdir()
    monkeypatch.setenv("CATDOG_REPOSITORY", str(project / "a" / "b" / "c"))
    ours = repository()
    assert (ours.source, ours.folder, ours.subfolder) == (str(project), project, "a/b")
    assert ours.project == project / "a" / "b"
    assert ours.home == project / "a" / "b" / ".catdog" / "flows"


def test_project_in_a_url_is_in_the_subfolder_of_the_code_if_that_exists(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "sub" / ".dvc").mkdir(parents=True)
    (project / "sub" / ".dvc" / "config").touch()
    (project / "sub" / "recipes").mkdir()
    (project / "sub" / "recipes" / "é.yaml").write_text("a: 1\n")
    tiny_project.commit(project, "A project in a subfolder")
    monkeypatch.setenv("CATDOG_REPOSITORY", project.as_uri())
    assert repository().subfolder == ""
    monkeypatch.setattr("flows.runs.repository.CHECKOUT", project / "sub")
    ours = repository()
    assert ours.subfolder == "sub"
    assert ours.list("HEAD", "recipes") == ["recipes/é.yaml"]
    assert ours.read("HEAD", "recipes/é.yaml") == "a: 1"
    assert ours.read("HEAD", "recipes/none.yaml") is None


def test_home_can_be_set(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_HOME", str(tmp_path / "elsewhere"))
    assert repository().home == home() == tmp_path / "elsewhere"


def test_url_is_mirrored_with_its_experiments_and_updated(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = tiny_project.git(project, "rev-parse", "HEAD")
    tiny_project.git(project, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/x", head)
    monkeypatch.setenv("CATDOG_REPOSITORY", project.as_uri())
    ours = repository()
    assert (ours.source, ours.is_checkout) == (project.as_uri(), False)
    assert ours.home == tmp_path / "cache" / "catdog"
    assert ours.folder.is_relative_to(ours.home)
    assert git(ours.folder, "for-each-ref", "refs/exps").endswith("/x")

    (project / "file").write_text("second\n")
    new = tiny_project.commit(project, "second")
    assert git(repository(fetch=False).folder, "rev-parse", "HEAD") == head
    assert git(repository().folder, "rev-parse", "HEAD") == new


def test_head_of_a_url_follows_its_default_branch(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_REPOSITORY", project.as_uri())
    repository()
    tiny_project.git(project, "checkout", "-q", "-b", "next")
    (project / "file").write_text("second\n")
    new = tiny_project.commit(project, "second")
    assert git(repository().folder, "rev-parse", "HEAD") == new


def test_bare_repository_is_used_like_a_url(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_project.git(tmp_path, "clone", "-q", "--bare", str(project), "bare.git")
    monkeypatch.setenv("CATDOG_REPOSITORY", str(tmp_path / "bare.git"))
    ours = repository()
    assert (ours.source, ours.is_checkout) == (str(tmp_path / "bare.git"), False)


def test_error_of_an_unreachable_url_is_one_line_and_leaves_no_incomplete_mirror(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/none.git"
    monkeypatch.setenv("CATDOG_REPOSITORY", url)
    with pytest.raises(FlowError) as raised:
        repository()
    assert str(raised.value).startswith(f"{url}: cannot be cloned or fetched: git clone failed in ")
    assert str(raised.value).endswith("does not appear to be a git repository")
    assert "\n" not in str(raised.value)
    assert [path.suffix for path in (home() / "mirrors").iterdir()] == [".lock"]


def test_folder_that_is_not_a_repository_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_REPOSITORY", str(tmp_path))
    with pytest.raises(FlowError, match=r"not a git repository .*set CATDOG_REPOSITORY"):
        repository()
    monkeypatch.setenv("CATDOG_REPOSITORY", str(tmp_path / "none"))
    with pytest.raises(FlowError, match="no such folder"):
        repository()


def test_repository_of_a_git_hook_is_not_used(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = tiny_project.git(project, "rev-parse", "HEAD")
    tiny_project.git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert git(repository().folder, "rev-parse", "HEAD") == head


def test_error_of_git_is_reported(project: Path) -> None:
    with pytest.raises(FlowError) as failed:
        git(project, "checkout", "none")
    assert str(failed.value) == (
        f"git checkout failed in {project}: pathspec 'none' did not match any file(s) known to git"
    )


@pytest.mark.parametrize(
    ("is_checkout", "apply", "remove"),
    [
        (True, "dvc exp apply owl", "dvc exp remove owl"),
        (False, "dvc exp pull origin owl && dvc exp apply owl", "dvc exp remove -g origin owl"),
    ],
)
def test_commands_for_an_experiment_depend_on_where_it_is(
    tmp_path: Path, is_checkout: bool, apply: str, remove: str
) -> None:
    ours = Repository("url", tmp_path, tmp_path, is_checkout)
    assert (ours.apply_command("owl"), ours.remove_command("owl")) == (apply, remove)
