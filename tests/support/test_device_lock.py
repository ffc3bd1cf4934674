"""Device locks: one training run per device; the holder is named; SIGKILL releases the lock."""

import getpass
import os
import tempfile
from pathlib import Path

import pytest
import torch

from catdog.support import device_lock
from tests.helpers.small_training import LONG, create_project, finish, read_until, run_in, start

CPU = torch.device("cpu")
HOLD = """
import sys, torch
from catdog.support import device_lock
with device_lock.hold([torch.device("cpu")], print):
    print("held")
    sys.stdin.read() if sys.argv[1:] else None
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a lock folder that only this test uses."""
    monkeypatch.setenv("CATDOG_LOCKS", str(tmp_path / "locks"))
    return tmp_path / "locks"


def test_a_second_training_names_the_holder_and_starts_when_the_holder_is_killed(
    tmp_path: Path,
) -> None:
    first = start(create_project(tmp_path / "first", train__epochs=LONG))
    read_until(first, "epoch")
    second = start(create_project(tmp_path / "second", train__epochs=1))
    line = read_until(second, "cpu")
    assert f"cpu: in use by process {first.pid} of {getpass.getuser()} in" in line
    assert f"{tmp_path / 'first'} since 20" in line
    assert "waiting until it is free" in line
    assert second.poll() is None
    first.kill()
    code, out, err = finish(second)
    first.communicate()
    assert code == 0, err
    assert "epoch 1/1" in out


def test_a_free_device_is_locked_without_a_message_and_released(folder: Path) -> None:
    lines: list[str] = []
    for _ in range(2):
        with device_lock.hold([CPU], lines.append):
            assert (folder / "cpu.json").exists()
    assert lines == []
    assert not (folder / "cpu.json").exists()


def test_an_error_releases_the_device(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), device_lock.hold([CPU], print):
        raise ZeroDivisionError
    code, out, err = finish(run_in(tmp_path, "-c", HOLD))
    assert (code, out) == (0, "held\n"), err


def test_an_empty_catdog_locks_disables_locking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock file appears in the default folder or in the working directory."""
    monkeypatch.setenv("CATDOG_LOCKS", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with device_lock.hold([CPU], print):
        assert list(tmp_path.iterdir()) == []


def test_other_users_can_take_over_the_lock_of_a_killed_training(folder: Path) -> None:
    """Folder and lock are writable by everyone, and the folder has no sticky bit."""
    before = os.umask(0o077)
    try:
        with device_lock.hold([CPU], print):
            lock = folder / "cpu.lock"
            assert oct(folder.stat().st_mode)[-4:] == "0777"
            assert oct(lock.stat().st_mode)[-3:] == "666"
    finally:
        os.umask(before)


def test_a_user_without_a_name_is_shown_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a user who is not in /etc/passwd."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert device_lock._this_process()["user"] == "user 54321"
