"""Stages as processes: one per stage and project, which ends with the DVC that started it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from tests.helpers.clones import ROOT, Project, create_origin
from tests.helpers.small_training import (
    LONG,
    create_project,
    finish,
    ranks,
    read_until,
    run_in,
    start,
    train,
    wait_for_checkpoint,
    wait_until_gone,
)

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git repository")
needs_signals = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture
def photos(tmp_path: Path, make_photos: Callable[[Path, int], Path]) -> Path:
    """A folder with photos and params.yaml, in which `prepare` runs."""
    for name in ("ant", "bee"):
        make_photos(tmp_path / "data/raw" / name, 40)
    set_image_size(tmp_path, 64)
    return tmp_path


def set_image_size(folder: Path, pixels: int) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["prepare"]["image_size"] = pixels
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


def prepare(folder: Path) -> "subprocess.Popen[str]":
    return run_in(folder, "-m", "catdog", "prepare", "--workers", "1")


def test_two_prepares_at_once_leave_whole_arrays(photos: Path) -> None:
    started = [prepare(photos) for _ in range(3)]
    for process in started:
        code, _, err = finish(process)
        assert code == 0, err
    assert {file.name for file in (photos / "data/prepared").iterdir()} == {
        *("train.npy", "val.npy", "test.npy", "photos.csv", "stats.json")
    }
    assert {file.name for file in (photos / "data").iterdir()} == {"raw", "prepared"}


@needs_signals
def test_a_stage_that_has_waited_uses_the_params_after_the_wait(photos: Path) -> None:
    """The first one fails at its end because its params have changed; the second one succeeds."""
    first = prepare(photos)
    while not (photos / "data/.prepared.tmp").exists():  # it has read its params
        assert first.poll() is None
    first.send_signal(signal.SIGSTOP)
    second = prepare(photos)
    line = read_until(second, "waiting")
    assert f"prepare: already running in this project (process {first.pid} of" in line
    set_image_size(photos, 72)
    first.send_signal(signal.SIGCONT)
    code, _, err = finish(first)
    assert (code, "prepare: params.yaml changed while the stage ran" in err) == (1, True)
    assert finish(second)[0] == 0
    stats = json.loads((photos / "data/prepared/stats.json").read_text())
    assert stats["image_size"] == 72


@pytest.mark.slow
def test_a_training_waits_for_another_one_of_the_same_project(tmp_path: Path) -> None:
    project = create_project(tmp_path / "project", train__epochs=LONG)
    first = start(project, CATDOG_LOCKS="")
    read_until(first, "epoch")
    shutil.copy(create_project(tmp_path / "short", train__epochs=1) / "params.yaml", project)
    second = start(project, CATDOG_LOCKS="")
    read_until(second, f"train: already running in this project (process {first.pid} of")
    first.kill()
    first.communicate()
    code, out, err = finish(second)
    assert code == 0, err
    assert "epoch 1/1" in out


def test_train_replaces_the_files_of_an_earlier_version_of_the_code(tmp_path: Path) -> None:
    project = create_project(tmp_path / "project", train__epochs=1)
    (project / "models").mkdir()
    (project / "models/weights.old").touch()
    train(project)
    assert {file.name for file in (project / "models").iterdir()} == {
        *("model.json", "model.safetensors")
    }


@pytest.fixture
def clone(tmp_path: Path) -> Project:
    """A clone with prepared photos, whose training takes long."""
    origin = create_origin(tmp_path / "origin")
    origin.run("dvc", "pull", "--quiet", "data/raw.dvc")
    origin.run("dvc", "repro", "--quiet", "prepare")
    origin.set(train__epochs=LONG)
    return origin


def repro(project: Project) -> "subprocess.Popen[str]":
    """Start `dvc repro train`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    site = str(project.folder.parent / "site")
    return run_in(project.folder, "-m", "dvc", "repro", "train", PATH=path, DVC_SITE_CACHE_DIR=site)


@needs_git
@needs_signals
@pytest.mark.parametrize("shell", ["/bin/sh", pytest.param("/bin/bash", marks=pytest.mark.slow)])
def test_the_training_of_a_killed_dvc_saves_a_checkpoint_and_stops(
    clone: Project, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path(shell).exists():
        pytest.skip(f"no {shell}")
    monkeypatch.setenv("SHELL", shell)
    dvc = repro(clone)
    read_until(dvc, "epoch")
    stages = psutil.Process(dvc.pid).children(recursive=True)
    assert stages
    dvc.kill()
    wait_until_gone(stages)
    assert "checkpoint saved" in dvc.communicate()[1]
    assert not (clone.folder / "models").exists()
    clone.set(train__epochs=LONG)
    again = repro(clone)
    read_until(again, "resuming after")
    os.killpg(again.pid, signal.SIGTERM)
    again.communicate()


@needs_git
def test_dvc_waits_for_a_stage_that_still_runs_and_says_so(clone: Project) -> None:
    running = start(clone.folder)
    read_until(running, "epoch")
    clone.set(train__epochs=1)
    dvc = repro(clone)
    read_until(dvc, f"train: already running in this project (process {running.pid} of")
    running.terminate()
    running.communicate()
    code, out, err = finish(dvc)
    assert code == 0, err
    assert "epoch 1/1" in out
    assert "up to date" in clone.run("dvc", "status", "train")


SLOW_STOP = """
import os, time
from catdog.support.stage_process import stop_with_dvc
from catdog.support.stop_signals import stop_request
stop_with_dvc()
with stop_request() as stop:
    print("started", flush=True)
    end = time.monotonic() + 30
    while not stop and time.monotonic() < end:
        time.sleep(0.1)
    if stop:
        time.sleep(4)
        print("saved", flush=True)
"""


@needs_signals
@pytest.mark.parametrize("group", [True, False], ids=["signal to the group", "DVC killed"])
def test_the_end_of_dvc_and_a_stop_signal_count_as_one(group: bool, tmp_path: Path) -> None:
    """A second signal would end a training before it has saved a checkpoint."""
    (tmp_path / "stage.py").write_text(SLOW_STOP)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"PATH": path, "PYTHONPATH": str(ROOT)}
    for arguments in (
        ("init", "--no-scm", "--quiet"),
        ("stage", "add", "--quiet", "--name", "train", "python stage.py"),
    ):
        assert finish(run_in(tmp_path, "-m", "dvc", *arguments, **settings))[0] == 0
    dvc = run_in(tmp_path, "-m", "dvc", "repro", **settings)
    read_until(dvc, "started")
    if group:
        os.killpg(dvc.pid, signal.SIGTERM)
    else:
        dvc.kill()
    assert "saved" in dvc.communicate()[0]


WRAPPER = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"


@pytest.mark.slow
@needs_signals
def test_distributed_training_stops_with_dvc(tmp_path: Path) -> None:
    project = create_project(tmp_path / "project", train__epochs=LONG)
    command = ("-c", WRAPPER, "-m", "catdog", "train", "--devices", "2")
    dvc = run_in(project, *command, DVC_STAGE="train")
    read_until(dvc, "epoch")
    (launcher,) = psutil.Process(dvc.pid).children()
    processes = [launcher, *ranks(launcher)]
    dvc.kill()
    wait_until_gone(processes)
    assert "checkpoint saved" in dvc.communicate()[1]


def test_a_stage_that_a_user_started_outlives_its_terminal(tmp_path: Path) -> None:
    project = create_project(tmp_path / "project", train__epochs=LONG)
    shell = run_in(project, "-c", WRAPPER, "-m", "catdog", "train", DVC_STAGE=None)
    read_until(shell, "epoch")
    (training,) = psutil.Process(shell.pid).children()
    shell.kill()
    shell.wait()
    with pytest.raises(psutil.TimeoutExpired):
        training.wait(3)
    wait_for_checkpoint(project)
    training.kill()
