"""Of two runs of the same thing on one machine, one works while the other waits."""

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.runs.repository import Repository
from flows.runs.stage_lock import tree_of, turn
from flows.runs.workspace import Workspace
from tools import tiny_project
from tools.tiny_project import git

HOLDER = """
import sys, time
from pathlib import Path
from flows.runs.repository import Repository
from flows.runs.stage_lock import turn
from flows.runs.workspace import Workspace

folder, home = Path(sys.argv[1]), Path(sys.argv[2])
repository = Repository(str(folder), folder, home, True)
ours = Workspace("first", folder, repository, "", "", "first", False, home / "logs")
with turn(ours, "train", print):
    print("mine", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def first(tmp_path: Path) -> Workspace:
    folder = tmp_path / "first"
    folder.mkdir()
    tiny_project.start_git(folder)
    (folder / ".gitignore").write_text("/ignored\n")
    (folder / "params.yaml").write_text("lr: 0.1\n")
    tiny_project.commit(folder, "first")
    return in_folder("first", folder)


@pytest.fixture
def second(first: Workspace) -> Workspace:
    """A copy of the first's files."""
    return in_folder("second", shutil.copytree(first.folder, first.folder.with_name("second")))


def in_folder(name: str, folder: Path) -> Workspace:
    home = folder.parent / "home"
    repository = Repository(str(folder), folder, home, is_checkout=True)
    return Workspace(name, folder, repository, "", "", name, False, home / "logs")


def ask(ours: Workspace, stage: str) -> tuple[list[str], threading.Event]:
    """Let a thread take its turn; return what it says if it must wait, and what tells it has it."""
    said: list[str] = []
    heard, had = threading.Event(), threading.Event()

    def say(line: str) -> None:
        said.append(line)
        heard.set()

    def take() -> None:
        with turn(ours, stage, say):
            had.set()
            heard.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    assert heard.wait(30)
    return said, had


def test_second_run_of_the_same_thing_waits_and_says_for_whom(
    first: Workspace, second: Workspace
) -> None:
    with turn(first, "train", print):
        said, had = ask(second, "train")
        assert said == ["train: the run first does the same at this moment; waiting for it"]
        assert not had.wait(1)
    assert had.wait(30)


def test_runs_of_different_things_do_not_wait(first: Workspace, second: Workspace) -> None:
    with turn(first, "train", print):
        assert ask(second, "evaluate")[0] == []
        (second.folder / "params.yaml").write_text("lr: 0.2\n")
        assert ask(second, "train")[0] == []


def test_same_is_what_git_keeps_but_for_the_record_of_what_was_done(first: Workspace) -> None:
    before = tree_of(first.folder)
    (first.folder / "dvc.lock").touch()
    (first.folder / "ignored").touch()
    assert tree_of(first.folder) == before
    tiny_project.commit(first.folder, "with a lock file")
    assert tree_of(first.folder) == before
    (first.folder / "new.py").touch()
    assert tree_of(first.folder) != before
    assert git(first.folder, "status", "--porcelain") == "?? new.py"  # its index is as it was


@pytest.fixture
def killed(first: Workspace) -> Iterator["subprocess.Popen[str]"]:
    """A process that has its turn at the first workspace's training."""
    command = [sys.executable, "-c", HOLDER, str(first.folder), str(first.repository.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        yield process
        process.kill()


def test_turn_of_a_killed_process_is_free(
    killed: "subprocess.Popen[str]", second: Workspace
) -> None:
    said, had = ask(second, "train")
    assert said != []
    assert not had.is_set()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert had.wait(30)
