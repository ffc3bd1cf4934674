"""If two runs have the same stage and files on one machine, the second waits for the first."""

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.runs.repository import Repository
from flows.runs.request import Job, RunRequest
from flows.runs.stage_lock import stage_lock, tree_hash
from flows.runs.workspace import Workspace
from tools import tiny_project
from tools.tiny_project import git

HOLDER = """
import sys, time
from pathlib import Path
from flows.runs.repository import Repository
from flows.runs.request import Job, RunRequest
from flows.runs.stage_lock import stage_lock
from flows.runs.workspace import Workspace

folder, home = Path(sys.argv[1]), Path(sys.argv[2])
repository = Repository(str(folder), folder, home, True)
ours = Workspace("first", folder, home / "logs", Job(RunRequest(), repository, "", ""), "first")
with stage_lock(ours, "train", print):
    print("locked", flush=True)
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
    """A copy of the files of `first`."""
    return in_folder("second", shutil.copytree(first.folder, first.folder.with_name("second")))


def in_folder(name: str, folder: Path) -> Workspace:
    home = folder.parent / "home"
    repository = Repository(str(folder), folder, home, is_checkout=True)
    return Workspace(name, folder, home / "logs", Job(RunRequest(), repository, "", ""), name)


def acquire(ours: Workspace, stage: str) -> tuple[list[str], threading.Event]:
    """Acquire the lock in a thread; return the lines it logs, and an event set when it has it."""
    logged: list[str] = []
    waiting_or_acquired, acquired = threading.Event(), threading.Event()

    def log(line: str) -> None:
        logged.append(line)
        waiting_or_acquired.set()

    def work() -> None:
        with stage_lock(ours, stage, log):
            acquired.set()
            waiting_or_acquired.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert waiting_or_acquired.wait(30)
    return logged, acquired


def test_second_run_waits_and_logs_the_name_of_the_first(
    first: Workspace, second: Workspace
) -> None:
    with stage_lock(first, "train", print):
        logged, acquired = acquire(second, "train")
        assert logged == ["train: waiting for run first, which is running the same stage"]
        assert not acquired.wait(1)
    assert acquired.wait(30)


def test_runs_with_other_stages_or_files_do_not_wait(first: Workspace, second: Workspace) -> None:
    with stage_lock(first, "train", print):
        assert acquire(second, "evaluate")[0] == []
        (second.folder / "params.yaml").write_text("lr: 0.2\n")
        assert acquire(second, "train")[0] == []


def test_ignored_files_and_dvc_lock_do_not_count(first: Workspace) -> None:
    before = tree_hash(first.folder)
    (first.folder / "dvc.lock").touch()
    (first.folder / "ignored").touch()
    assert tree_hash(first.folder) == before
    tiny_project.commit(first.folder, "with a lock file")
    assert tree_hash(first.folder) == before
    (first.folder / "new.py").touch()
    assert tree_hash(first.folder) != before
    assert git(first.folder, "status", "--porcelain") == "?? new.py"  # its index is as it was


@pytest.fixture
def killed(first: Workspace) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the lock of the training in `first`."""
    command = [sys.executable, "-c", HOLDER, str(first.folder), str(first.job.repository.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_lock_of_a_killed_process_is_free(
    killed: "subprocess.Popen[str]", second: Workspace
) -> None:
    logged, acquired = acquire(second, "train")
    assert logged != []
    assert not acquired.is_set()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert acquired.wait(30)
