"""Device locks: training runs share the cores of the CPU; holders are named; SIGKILL releases."""

import getpass
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from catdog.errors import CatdogError
from catdog.support import device_lock, recorded_lock
from tests.helpers.small_training import LONG, create_project, finish, read_until, run_in, start

CPU = torch.device("cpu")
# Arguments: how many threads the training has, and "wait" to hold the cores until stdin is closed.
HOLD = """
import sys, torch
from catdog.support import device_lock
with device_lock.hold([torch.device("cpu")], int(sys.argv[1]), print):
    print("held")
    sys.stdin.read() if sys.argv[2:] else None
"""
two_cores = pytest.mark.skipif(len(device_lock.cores()) < 2, reason="needs two cores")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a lock folder that only this test uses."""
    monkeypatch.setenv("CATDOG_LOCKS", str(tmp_path / "locks"))
    return tmp_path / "locks"


def test_a_second_training_names_the_holder_and_starts_when_the_holder_is_killed(
    tmp_path: Path,
) -> None:
    one = {"CATDOG_CORES": "1"}
    first = start(create_project(tmp_path / "first", train__epochs=LONG), **one)
    read_until(first, "epoch")
    second = start(create_project(tmp_path / "second", train__epochs=1), **one)
    line = read_until(second, "cpu")
    assert "cpu: training needs 1 of 1 cores and is waiting for 1 of them; cores are in use" in line
    assert f"process {first.pid} of {getpass.getuser()} in {tmp_path / 'first'} since 20" in line
    assert second.poll() is None
    first.kill()
    code, out, err = finish(second)
    first.communicate()
    assert code == 0, err
    assert "epoch 1/1" in out


def test_a_free_device_is_locked_without_a_message_and_released(folder: Path) -> None:
    lines: list[str] = []
    for _ in range(2):
        with device_lock.hold([CPU], 1, lines.append):
            assert len(list(folder.glob("cpu-core-*.json"))) == 1
    assert lines == []
    assert list(folder.glob("*.json")) == []


def hold(folder: Path, threads: int, **environment: str) -> "subprocess.Popen[str]":
    """Start a process that holds the cores of a training with `threads` threads."""
    return run_in(folder, "-c", HOLD, str(threads), "wait", **environment)


@two_cores
def test_training_runs_on_the_cpu_hold_one_core_per_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_CORES", "2")
    first, second = hold(tmp_path, 1), hold(tmp_path, 1)
    assert read_until(first, "") == read_until(second, "") == "held\n"
    third = hold(tmp_path, 1)
    line = read_until(third, "waiting")
    assert f"process {first.pid} of" in line
    assert f"process {second.pid} of" in line
    first.communicate()
    assert read_until(third, "held") == "held\n"
    for process in (second, third):
        process.communicate()


@two_cores
def test_a_training_with_many_threads_is_not_overtaken_by_others_with_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_CORES", "2")
    first = hold(tmp_path, 1)
    read_until(first, "held")
    large = hold(tmp_path, 2)
    assert "needs 2 of 2 cores" in read_until(large, "is waiting for 1 of them")
    small = hold(tmp_path, 1)
    line = read_until(small, "waiting")
    assert f"; waiting for process {large.pid} of" in line
    assert "which has been waiting for cores longer" in line
    first.communicate()
    read_until(large, "held")
    read_until(small, f"in use by process {large.pid} of")
    large.communicate()
    read_until(small, "held")
    small.communicate()


@two_cores
def test_many_trainings_that_need_several_cores_all_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_CORES", "2")
    started = [run_in(tmp_path, "-c", HOLD, str(1 + number % 2)) for number in range(6)]
    for process in started:
        code, out, err = finish(process)
        assert (code, out.splitlines()[-1]) == (0, "held"), err


def test_a_training_with_more_threads_than_cores_takes_all_cores(folder: Path) -> None:
    with device_lock.hold([CPU], 1000, print):
        assert len(list(folder.glob("cpu-core-*.json"))) == len(device_lock.cores())


@two_cores
@pytest.mark.skipif(sys.platform != "linux", reason="binds processes to cores")
def test_processes_that_are_bound_to_different_cores_do_not_wait(tmp_path: Path) -> None:
    bound = "import os; os.sched_setaffinity(0, [{core}])" + HOLD
    cores = sorted(os.sched_getaffinity(0))[:2]
    started = [run_in(tmp_path, "-c", bound.format(core=core), "2", "wait") for core in cores]
    assert [read_until(process, "") for process in started] == ["held\n"] * 2
    for process in started:
        process.communicate()


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_an_invalid_number_of_cores_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_CORES", value)
    with pytest.raises(CatdogError, match=f"CATDOG_CORES: invalid value '{value}'; must be"):
        device_lock.cores()


def test_an_error_releases_the_device(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), device_lock.hold([CPU], 1, print):
        raise ZeroDivisionError
    code, out, err = finish(run_in(tmp_path, "-c", HOLD, "1"))
    assert (code, out) == (0, "held\n"), err


def test_an_empty_catdog_locks_disables_locking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock file appears in the default folder or in the working directory."""
    monkeypatch.setenv("CATDOG_LOCKS", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with device_lock.hold([CPU], 1, print):
        assert list(tmp_path.iterdir()) == []


# Other users


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the default lock folder, in a temporary folder like /tmp that only this test uses."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    for folder in (tmp_path, *tmp_path.parents):  # pytest's folders are closed to other users
        if folder.is_relative_to(tempfile.gettempdir()) and folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o011)
    monkeypatch.delenv("CATDOG_LOCKS")
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary / "catdog-locks"


def hold_once() -> None:
    with device_lock.hold([CPU], 1, print):
        pass


def as_user(number: int, script: str) -> str:
    """Run Python code in a child process with another user ID; return what it prints."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.setgid(number)
            os.setuid(number)
            with os.fdopen(write, "w") as stream:
                exec(script, {"out": stream, "hold_once": hold_once, "device_lock": device_lock})
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text


other_users = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
NOBODY = 65534


def test_the_default_folder_has_the_sticky_bit_and_files_only_their_owner_can_write(
    shared: Path,
) -> None:
    before = os.umask(0o077)
    try:
        with device_lock.hold([CPU], 1, print):
            modes = {path.suffix: oct(path.stat().st_mode)[-3:] for path in shared.iterdir()}
    finally:
        os.umask(before)
    assert oct(shared.stat().st_mode)[-4:] == "1777"
    assert modes == {".lock": "644", ".json": "644"}


def test_the_folder_of_an_earlier_version_gets_the_sticky_bit(shared: Path) -> None:
    shared.mkdir()
    shared.chmod(0o777)
    hold_once()
    assert oct(shared.stat().st_mode)[-4:] == "1777"


@other_users
def test_users_share_the_locks_and_are_not_blocked_by_a_record_of_a_killed_training(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_CORES", "1")
    hold_once()  # so the lock files belong to this user
    killed = "import os; c = device_lock.hold([device_lock.torch.device('cpu')], 1, print)\n"
    as_user(NOBODY, f"{killed}c.__enter__(); os._exit(0)")
    assert [path.suffixes for path in shared.glob("*core*.json")] == [[f".{NOBODY}", ".json"]]
    with device_lock.hold([CPU], 1, print):
        [held] = [path for path in shared.glob("*core*.lock")]
        lock = recorded_lock.RecordedLock(shared, held.stem)
        assert f"process {os.getpid()} of " in lock.holder
        tried = as_user(NOBODY, f"{TRY}\nout.write(str(lock({str(shared)!r}, {held.stem!r})))")
    assert tried == "False"
    tried = as_user(NOBODY, f"{TRY}\nout.write(str(lock({str(shared)!r}, {held.stem!r})))")
    assert tried == "True"


TRY = """
def lock(folder, name):
    from pathlib import Path
    from catdog.support.recorded_lock import RecordedLock
    return RecordedLock(Path(folder), name).try_acquire()
"""


@other_users
def test_a_folder_of_another_user_without_the_sticky_bit_is_refused(shared: Path) -> None:
    shared.mkdir()
    shared.chmod(0o777)
    os.chown(shared, NOBODY, NOBODY)
    with pytest.raises(CatdogError, match=r"has not set the sticky bit\); set CATDOG_LOCKS to"):
        hold_once()
    shared.chmod(0o1777)
    hold_once()


@pytest.mark.parametrize("kind", ["link", "file", "link to nothing"])
def test_a_folder_that_is_a_link_is_refused(kind: str, shared: Path, tmp_path: Path) -> None:
    target = tmp_path / "home"
    if kind == "file":
        shared.touch()
    else:
        shared.symlink_to(target)
    if kind == "link":
        target.mkdir()
    with pytest.raises(CatdogError, match=r"catdog-locks: .*not a folder.*; set CATDOG_LOCKS"):
        hold_once()
    assert not target.exists() or list(target.iterdir()) == []


@pytest.mark.parametrize("suffix", [".lock", f".{os.getuid()}.json"])
@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "dangling link"])
def test_no_file_is_overwritten_through_a_link_in_the_folder(
    kind: str, suffix: str, shared: Path, tmp_path: Path
) -> None:
    shared.mkdir()
    victim = tmp_path / "precious"
    for number in device_lock.cores():
        link = shared / f"cpu-core-{number}{suffix}"
        if kind == "dangling link":
            link.symlink_to(victim)
            continue
        victim.write_text("precious")
        link.hardlink_to(victim) if kind == "hard link" else link.symlink_to(victim)
    before = victim.read_text() if victim.exists() else None
    try:
        hold_once()
    except CatdogError as error:
        assert "; set CATDOG_LOCKS to another folder" in str(error)
        assert "\n" not in str(error)
    assert (victim.read_text() if victim.exists() else None) == before


@other_users
def test_the_lock_file_of_another_user_is_opened_for_reading_only(shared: Path) -> None:
    """Only its owner can write to it; a lock needs no write permission (except on NFS)."""
    hold_once()
    before = {path: path.stat() for path in shared.glob("*.lock")}
    assert before
    assert as_user(NOBODY, "hold_once(); out.write('held')") == "held"
    assert {path: path.stat() for path in shared.glob("*.lock")} == before


@other_users
def test_a_lock_file_that_its_owner_has_closed_to_others_is_refused(shared: Path) -> None:
    hold_once()
    for path in shared.glob("*.lock"):
        path.chmod(0o600)
    attempt = "try: hold_once()\nexcept Exception as error: out.write(str(error))"
    message = as_user(NOBODY, attempt)
    assert message.startswith(f"{shared}: cannot be used for device locks (cpu-")
    assert ".lock: Permission denied); set CATDOG_LOCKS to another folder" in message
    assert "\n" not in message


@pytest.mark.parametrize("suffix", [".lock", f".{os.getuid()}.json"])
def test_a_link_created_just_before_a_new_file_is_not_followed(
    suffix: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user replaces the file in the moment after this process found none (O_EXCL)."""
    victim = tmp_path / "precious"
    planted: list[str] = []
    real = os.open

    def attacked(path: str, flags: int, *arguments: int, **options: int) -> int:
        if flags & os.O_CREAT and str(path).endswith(suffix) and path not in planted:
            planted.append(path)
            os.symlink(victim, path, dir_fd=options["dir_fd"])
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", attacked)
    try:
        hold_once()
    except CatdogError as error:  # the link is neither followed nor removed
        assert "; set CATDOG_LOCKS to another folder" in str(error)
    assert planted
    assert not victim.exists()


def test_a_named_pipe_in_the_folder_is_refused_at_once(shared: Path) -> None:
    shared.mkdir()
    for number in device_lock.cores():
        os.mkfifo(shared / f"cpu-core-{number}.lock")
    with pytest.raises(CatdogError, match=r"not a regular file.*; set CATDOG_LOCKS"):
        hold_once()


def test_the_record_of_another_process_is_shown_without_control_characters(folder: Path) -> None:
    folder.mkdir()
    text = '{"pid": 1, "user": "\\u001b[2J", "folder": "a\\nb", "since": "x"}'
    (folder / "cpu.1.json").write_text(text)
    holder = recorded_lock.RecordedLock(folder, "cpu").holder
    assert holder == "process 1 of ?[2J in a?b since x"


def test_a_user_without_a_name_is_shown_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a user who is not in /etc/passwd."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert recorded_lock._this_process()["user"] == "user 54321"
