"""Outputs with `cache: false` are pushed to the remote, and a failure is reported."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from flows.runs.stages import PUSH_UNCACHED
from tests.helpers.small_disk import can_mount_small_disk, on_a_small_disk
from tools import tiny_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose stages have run, with a default remote."""
    project = tiny_project.create(tmp_path / "project")
    tiny_project.dvc_output(project, "remote", "add", "--default", "store", str(tmp_path / "store"))
    tiny_project.dvc_output(project, "repro", "-q")
    return project


def push(project: Path, before: Sequence[str] = ()) -> tuple[int, list[str]]:
    """Return the exit code and the lines of the command."""
    command = [*before, sys.executable, str(PUSH_UNCACHED)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


def stored_metrics(project: Path) -> Path:
    """Return where the remote keeps metrics.json."""
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    (metrics,) = lock["stages"]["evaluate"]["outs"]
    md5: str = metrics["md5"]
    return project.parent / "store/files/md5" / md5[:2] / md5[2:]


def test_uncached_output_is_pushed(project: Path) -> None:
    assert push(project) == (0, ["pushed 1 outputs with cache: false"])
    assert stored_metrics(project).read_text() == (project / "metrics.json").read_text()


@pytest.mark.skipif(not can_mount_small_disk(), reason="needs user namespaces")
def test_error_of_a_full_remote_is_one_line(project: Path) -> None:
    store = project.parent / "store"
    store.mkdir()
    fill = ["sh", "-c", 'head -c 100000 /dev/zero > "$0/filler"; exec "$@"', str(store)]
    code, lines = push(project, before=[*on_a_small_disk(store), *fill])
    assert code == 1
    assert lines == ["ERROR: failed to push outputs with cache: false: 1 of 1 could not be written"]
