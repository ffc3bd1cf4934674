"""The code that runs is that of the folder: the stages import it, `catdog` refuses other code.

The installed package is that of another clone here, as in an editable install of that clone.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.clones import ROOT, Project, create_origin

CATDOG = str(Path(sys.executable).with_name("catdog"))
MODULE = "catdog/dataset/prepared.py"

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git repository")


def add_line(project: Project, text: str) -> None:
    """Let the code of a project print `text` when a stage imports it."""
    file = project.folder / MODULE
    assert "\nSPLITS = " in file.read_text()
    file.write_text(file.read_text().replace("\nSPLITS = ", f"\nprint({text!r})\nSPLITS = ", 1))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The clone whose package is installed."""
    project = create_origin(tmp_path_factory.mktemp("installed") / "catdog")
    project.run("dvc", "pull", "--quiet", "data/raw.dvc")
    return project


@pytest.fixture(autouse=True)
def import_path(installed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command `catdog` import the package of `installed`, as an editable install does."""
    monkeypatch.setenv("PYTHONPATH", str(installed.folder))


@pytest.fixture(scope="module")
def other(installed: Project) -> Project:
    """A second clone, whose code prints a line."""
    clone = installed.clone("other")
    clone.run("dvc", "pull", "--quiet", "data/raw.dvc")
    add_line(clone, "code of the second clone")
    return clone


def test_the_stages_of_a_second_clone_run_its_own_code(other: Project) -> None:
    assert "code of the second clone" in other.run("dvc", "repro", "prepare")


def test_the_stages_of_a_worktree_run_its_own_code(installed: Project) -> None:
    folder = installed.folder.parent / "worktree"
    installed.run("git", "worktree", "add", "--quiet", str(folder))
    worktree = Project(folder)
    worktree.run("dvc", "pull", "--quiet", "data/raw.dvc")
    add_line(worktree, "code of the worktree")
    assert "code of the worktree" in worktree.run("dvc", "repro", "prepare")


@pytest.mark.slow
def test_an_experiment_in_a_temporary_folder_runs_its_own_code(installed: Project) -> None:
    clone = installed.clone("temporary")
    clone.run("dvc", "pull", "--quiet", "data/raw.dvc")
    add_line(clone, "code of the experiment")
    output = clone.run("dvc", "exp", "run", "--temp", "prepare")
    assert "code of the experiment" in output


@pytest.mark.slow
def test_queued_experiments_run_their_own_code_with_several_workers(installed: Project) -> None:
    clone = installed.clone("queue")
    clone.run("dvc", "pull", "--quiet", "data/raw.dvc")
    names = ("one", "two", "three")
    for name in names:
        add_line(clone, f"code of {name}")
        clone.run("dvc", "exp", "run", "--queue", "--name", name, "prepare")
        clone.run("git", "checkout", "--quiet", MODULE)
    try:
        clone.run("dvc", "queue", "start", "--jobs", "2")
        deadline = time.monotonic() + 300
        while "Queued" in (status := clone.run("dvc", "queue", "status")) or "Running" in status:
            assert time.monotonic() < deadline, status
            time.sleep(1)
        for name in names:
            assert f"code of {name}\n" in clone.run("dvc", "queue", "logs", name)
    finally:
        clone.run("dvc", "queue", "stop", "--kill")


@pytest.mark.parametrize("place", [".", "docs"])
def test_the_command_refuses_the_code_of_another_checkout(
    installed: Project, other: Project, place: str
) -> None:
    done = subprocess.run(
        [CATDOG, "params"], cwd=other.folder / place, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"catdog: {other.folder}: the installed command `catdog` has")
    assert f"has the code of {installed.folder}, not of this checkout; run `python" in done.stderr


def test_what_the_error_proposes_runs_the_code_of_the_folder(other: Project) -> None:
    assert "optimizer.lr" in other.run("python", "-m", "catdog", "params")


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["train", "--help"], []])
def test_help_and_version_are_never_refused(other: Project, arguments: list[str]) -> None:
    output = other.run(CATDOG, *arguments, code=0 if arguments else 2)
    assert "not of this checkout" not in output


def test_a_project_without_a_package_uses_the_installed_one(other: Project, tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_bytes((other.folder / name).read_bytes())
    assert "optimizer.lr" in Project(tmp_path).run(CATDOG, "params")
