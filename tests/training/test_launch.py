"""`catdog train --devices`: one-line errors, no leftover processes, exact resume."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from catdog.errors import CatdogError
from catdog.model import devices
from catdog.support.process_pool import usable_cores
from tests.helpers.small_training import (
    LONG,
    checkpoints,
    create_project,
    finish,
    outs,
    ranks,
    read_until,
    run_in,
    start,
    train,
    wait_for_checkpoint,
    wait_until_gone,
)

TWO = ("--devices", "2")
WHOLE = {"photos": 200, "train__epochs": 3}
TORCHRUN = ("-m", "torch.distributed.run")


@pytest.fixture
def running_training(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Two processes of a long training run that has saved a checkpoint."""
    launcher = start(create_project(tmp_path / "long", train__epochs=LONG), *TWO)
    wait_for_checkpoint(tmp_path / "long")
    yield launcher
    if launcher.poll() is None:
        for rank in ranks(launcher):
            rank.kill()
        launcher.kill()
    launcher.communicate()


def one_line(err: str) -> str:
    """Return the only line on standard error."""
    assert len(err.splitlines()) == 1, err
    return err.strip()


def test_a_killed_process_stops_the_others_with_one_line(
    running_training: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    first, second = ranks(running_training)
    second.kill()
    code, _, err = finish(running_training)
    assert code == 1
    line = one_line(err)
    assert line.startswith(f"catdog: process 2 of 2 (pid {second.pid}) was killed by SIGKILL")
    assert "run the same command to resume from the last checkpoint" in line
    wait_until_gone([first])
    assert checkpoints(tmp_path / "long")


def test_a_signal_to_the_process_group_saves_once_and_exits_with_75(
    running_training: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    both = ranks(running_training)
    for process in both:  # a supervisor that signals all of them, and the launcher does it again
        process.terminate()
    os.killpg(running_training.pid, signal.SIGTERM)
    code, _, err = finish(running_training)
    assert code == 75
    line = one_line(err)
    assert line.startswith("catdog: stopped after ")
    assert "checkpoint saved" in line
    wait_until_gone(both)
    assert not list((tmp_path / "long").rglob("*.tmp"))


def test_processes_whose_launcher_is_killed_save_and_exit(
    running_training: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    both = ranks(running_training)
    running_training.kill()
    wait_until_gone(both)
    assert checkpoints(tmp_path / "long")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted training run of two processes."""
    folder = create_project(tmp_path_factory.mktemp("whole") / "a", **WHOLE)  # type: ignore[arg-type]
    train(folder, *TWO)
    return folder


def stop_and_resume(folder: Path, count: str) -> None:
    """Train in `count` processes, stopped by Ctrl-C after an epoch and started again."""
    launcher = start(folder, "--devices", count)
    read_until(launcher, "epoch 1/3")
    launcher.send_signal(signal.SIGINT)
    code, _, err = finish(launcher)
    assert code == 75, err
    assert "checkpoint saved" in one_line(err)
    assert "resuming after " in train(folder, "--devices", count)
    assert not checkpoints(folder)


def test_stopped_training_resumes_with_byte_identical_results(whole: Path, tmp_path: Path) -> None:
    stopped = create_project(tmp_path / "stopped", **WHOLE)  # type: ignore[arg-type]
    stop_and_resume(stopped, "2")
    assert outs(stopped) == outs(whole)


@pytest.mark.slow
def test_the_bytes_are_the_same_when_the_order_of_summation_matters(tmp_path: Path) -> None:
    """The sum of three numbers depends on their order, that of two does not."""
    whole, stopped = (create_project(tmp_path / name, **WHOLE) for name in ("whole", "stopped"))  # type: ignore[arg-type]
    train(whole, "--devices", "3")
    stop_and_resume(stopped, "3")
    assert outs(stopped) == outs(whole)


def test_torchrun_gives_the_result_of_devices(whole: Path, tmp_path: Path) -> None:
    """And --devices does not start further processes in its own."""
    folder = create_project(tmp_path / "a", **WHOLE)  # type: ignore[arg-type]
    words = ("--standalone", "--nproc-per-node", "2", "-m", "catdog", "train", *TWO)
    code, out, err = finish(run_in(folder, *TORCHRUN, *words))
    assert code == 0, err
    assert out.count("epoch 1/3") == 1
    assert outs(folder) == outs(whole)


@pytest.mark.slow
def test_two_machines_give_the_result_of_two_devices(whole: Path, tmp_path: Path) -> None:
    """Two torchruns with a common address, as on two machines; each has its own locks."""
    folder = create_project(tmp_path / "a", **WHOLE)  # type: ignore[arg-type]
    address = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port()))
    machines = [
        run_in(
            folder,
            *(*TORCHRUN, *address, "--node-rank", rank, "--nproc-per-node", "1"),
            *("-m", "catdog", "train"),
            CATDOG_LOCKS=str(tmp_path / f"locks{rank}"),
        )
        for rank in ("0", "1")
    ]
    for code, _, err in map(finish, machines):
        assert code == 0, err
    assert outs(folder) == outs(whole)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str, str]:
    """Training that diverges in both processes: folder, exit code, stdout, stderr."""
    changes = {"optimizer__lr": 100.0, "schedule__name": "constant", "train__batch_size": 4}
    folder = create_project(tmp_path_factory.mktemp("diverged") / "a", "seed", **changes)  # type: ignore[arg-type]
    return folder, *finish(start(folder, *TWO, OMP_NUM_THREADS=None))


def test_an_error_in_all_processes_is_reported_once(diverged: tuple[Path, int, str, str]) -> None:
    folder, code, _, err = diverged
    assert code == 1
    assert one_line(err).startswith("catdog: training diverged in epoch 1")
    assert not (folder / "models").exists()


def test_the_processes_share_the_cores(diverged: tuple[Path, int, str, str]) -> None:
    share = max(1, usable_cores() // 2)
    assert f"device cpu (threads: {share}) and 1 more" in diverged[2]


def test_all_cuda_devices_are_used_by_default_and_not_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert devices.device_count() == 4
    assert devices.device_count(3) == 3
    with pytest.raises(CatdogError, match=r"--devices 5: only 4 available \(device cuda\)"):
        devices.device_count(5)


def test_a_named_device_is_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("CATDOG_DEVICE", "cuda:1")
    assert devices.device_count() == 1
    with pytest.raises(CatdogError, match=r"--devices 2: only 1 available \(device cuda:1\)"):
        devices.device_count(2)


def test_several_processes_can_share_a_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CATDOG_DEVICE", "cpu")
    assert devices.device_count() == 1
    assert devices.device_count(2) == 2
