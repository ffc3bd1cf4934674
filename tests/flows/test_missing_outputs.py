"""What this machine has computed is not computed again if dvc.lock names results of another one."""

import shutil
import subprocess
import sys
from pathlib import Path

from flows.runs.workspace import MISSING_OUTPUTS
from tests.helpers.two_machines import stages_run
from tools.tiny_project import dvc, git


def drop(project: Path) -> list[str]:
    """Run the command; return the lines that it prints."""
    command = [sys.executable, str(MISSING_OUTPUTS)]
    done = subprocess.run(command, cwd=project, check=True, text=True, stdout=subprocess.PIPE)
    return done.stdout.splitlines()


def repro(project: Path) -> None:
    """Run the stages as `make repro` does."""
    drop(project)
    assert dvc(project, "repro", "-q") == 0


def test_results_of_this_machine_come_from_the_run_cache(cloned: Path) -> None:
    repro(cloned)
    assert stages_run(cloned) == ["prepare", "train", "evaluate"]
    git(cloned, "checkout", "-q", "dvc.lock")
    repro(cloned)
    assert stages_run(cloned) == []
    assert (cloned / "model.txt").read_text().endswith("this")


def test_plain_repro_runs_the_stages_again(cloned: Path) -> None:
    """The behaviour of DVC that the command works around; if it changes, remove the command."""
    repro(cloned)
    stages_run(cloned)
    git(cloned, "checkout", "-q", "dvc.lock")
    assert dvc(cloned, "repro", "-q") == 0
    assert "train" in stages_run(cloned)


def test_each_removed_stage_is_named_and_the_others_stay(cloned: Path) -> None:
    assert dvc(cloned, "repro", "-q", "prepare") == 0
    assert drop(cloned) == [
        "Stage 'train': its outputs in dvc.lock are in neither the cache nor a remote;"
        " looking in the run cache"
    ]
    assert git(cloned, "diff", "--name-only") == "dvc.lock"
    lock = (cloned / "dvc.lock").read_text()
    assert "prepare:" in lock and "evaluate:" in lock and "train:" not in lock


def test_a_lock_with_results_of_this_machine_is_not_changed(cloned: Path) -> None:
    repro(cloned)
    before = (cloned / "dvc.lock").read_bytes()
    shutil.rmtree(cloned / "data", ignore_errors=True)
    (cloned / "model.txt").unlink()
    assert drop(cloned) == []
    assert (cloned / "dvc.lock").read_bytes() == before


def test_results_in_the_remote_are_kept(cloned: Path, other_machine: Path, tmp_path: Path) -> None:
    for folder in (other_machine, cloned):
        assert dvc(folder, "remote", "add", "-q", "-f", "-d", "store", str(tmp_path / "store")) == 0
    assert dvc(other_machine, "push", "-q") == 0
    assert drop(cloned) == []
    assert dvc(cloned, "repro", "-q", "--pull") == 0
    assert (cloned / "model.txt").read_text().endswith("other")


def test_an_unreachable_remote_changes_nothing(cloned: Path) -> None:
    assert dvc(cloned, "remote", "add", "-q", "-d", "far", "ssh://localhost:1/store") == 0
    before = (cloned / "dvc.lock").read_bytes()
    assert drop(cloned) == []
    assert (cloned / "dvc.lock").read_bytes() == before


def test_what_dvc_cannot_read_is_left_to_dvc(cloned: Path) -> None:
    (cloned / "dvc.yaml").write_text("stages: nonsense\n")
    before = (cloned / "dvc.lock").read_bytes()
    assert drop(cloned) == []
    assert (cloned / "dvc.lock").read_bytes() == before
