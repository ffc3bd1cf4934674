"""The records of runs, the command that lists and removes them, and clean-up after crashed runs."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from flows.errors import FlowError
from flows.runs import records
from flows.runs.__main__ import main

# A process that registers a run, and a child process that saves on SIGTERM.
HOLDER = """
import os, subprocess, sys, time
from pathlib import Path
from flows.runs import records

home = Path(sys.argv[1])
with records.register(home, "calm-owl", "id", "0123", "") as run:
    run.folder(home).mkdir()
    environment = {**os.environ, records.MARK: str(run.folder(home))}
    if len(sys.argv) > 2:
        subprocess.Popen([sys.executable, "-c", sys.argv[2], str(home)], env=environment)
    else:
        (home / "ready").touch()
    time.sleep(600)
"""

TRAINING = """
import signal, sys, time
from pathlib import Path

home = Path(sys.argv[1])

def save(*_):
    (home / "saved").touch()
    sys.exit()

signal.signal(signal.SIGTERM, save)
(home / "ready").touch()
time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CATDOG_HOME", str(tmp_path))
    monkeypatch.delenv("CATDOG_KEEP_DAYS", raising=False)
    return tmp_path


@pytest.fixture
def holder(home: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start a process that registers the run `calm-owl`; all processes end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*training: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", HOLDER, str(home), *training]
        started.append(subprocess.Popen(command, start_new_session=True))
        deadline = time.monotonic() + 60
        while not (home / "ready").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return started[-1]

    yield start
    for process in started:
        for left in psutil.process_iter():
            if _in_session(left, process.pid):
                left.kill()
        process.wait()


def _in_session(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session
    except (OSError, psutil.Error):
        return False


def make_run(home: Path, name: str, state: str, ended: datetime) -> Path:
    """Record a run that has ended; return its workspace."""
    with records.register(home, name, "id", "0123", "") as run:
        run.folder(home).mkdir()
        (run.folder(home) / "file").write_text("x" * 10_000)
        records.mark_ended(home, run, state, "stage train failed: exit code 1\nand more")
    record = home / "runs" / f"{name}.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "ended": ended.isoformat(timespec="seconds")}))
    return run.folder(home)


def names(home: Path) -> list[str]:
    return [run.name for run in records.all_runs(home)]


def test_name_that_another_process_has_locked_is_not_used(home: Path) -> None:
    records.create_home(home)
    # The other process has not written its record yet.
    with (
        FileLock(home / "runs" / "calm-owl.lock"),
        records.register(home, "calm-owl", "id", "0123", "") as run,
    ):
        assert run.name == "calm-owl-2"


def test_run_of_a_killed_process_is_marked_failed_and_its_training_is_ended(
    home: Path, holder: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    process = holder(TRAINING)
    process.kill()
    process.wait()
    logged: list[str] = []
    records.clean_up(home, logged.append)
    (run,) = records.all_runs(home)
    assert (run.state, run.message) == (
        "failed",
        f"process {process.pid} on {run.host} has crashed",
    )
    assert (home / "saved").exists()
    assert not [left for left in psutil.process_iter() if _in_session(left, process.pid)]
    (line,) = logged
    assert (
        f"process {process.pid} on {run.host} has crashed; terminated 1 of its child processes"
        in line
    )
    assert run.folder(home).is_dir()
    records.clean_up(home, logged.append)
    assert len(logged) == 1


def test_clean_up_does_not_change_a_live_run(
    home: Path, holder: Callable[..., "subprocess.Popen[bytes]"], capsys: pytest.CaptureFixture[str]
) -> None:
    process = holder(TRAINING)
    records.clean_up(home)
    assert main(["remove", "calm-owl"]) == 1
    assert main(["remove", "--all"]) == 0
    assert [run.state for run in records.all_runs(home)] == ["running"]
    assert process.poll() is None
    assert not (home / "saved").exists()
    out, err = capsys.readouterr()
    assert (out, err) == ("", "calm-owl: still running; cancel it first\n")


def test_crashed_run_is_listed_as_crashed_before_the_clean_up(
    home: Path,
    holder: Callable[..., "subprocess.Popen[bytes]"],
    capsys: pytest.CaptureFixture[str],
) -> None:
    process = holder()
    assert main(["list"]) == 0
    assert "running" in capsys.readouterr().out
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(["list"]) == 0
    assert "crashed" in capsys.readouterr().out
    assert main(["remove", "--failed"]) == 0
    assert names(home) == []


def test_kept_workspaces_are_removed_when_they_are_old(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_run(home, "old", "failed", datetime.now(UTC) - timedelta(days=8))
    new = make_run(home, "new", "cancelled", datetime.now(UTC) - timedelta(days=6))
    logged: list[str] = []
    records.clean_up(home, logged.append)
    assert (old.exists(), new.exists(), names(home)) == (False, True, ["new"])
    assert logged[0].startswith("removed the clone of run old (failed on 20")
    monkeypatch.setenv("CATDOG_KEEP_DAYS", "5")
    records.clean_up(home, logged.append)
    assert not new.exists()
    assert list((home / "runs").iterdir()) == []


def test_run_that_ends_during_a_clean_up_keeps_its_own_state(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clean-up takes a while; records may change after they were read."""
    make_run(home, "failed", "failed", datetime.now(UTC))
    (ended,) = records.all_runs(home)
    as_before = [replace(ended, state="running"), replace(ended, name="gone", state="running")]
    with monkeypatch.context() as patch:
        patch.setattr(records, "all_runs", lambda _: as_before)
        records.clean_up(home, pytest.fail)
    assert records.all_runs(home) == [ended]


def test_error_in_one_workspace_does_not_stop_the_clean_up(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=8)
    kept = make_run(home, "kept", "failed", long_ago)
    other = make_run(home, "other", "failed", long_ago)
    logged: list[str] = []
    remove = shutil.rmtree

    def refuse(folder: Path) -> None:
        if folder == kept:
            raise PermissionError(errno.EACCES, "Permission denied")
        remove(folder)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    records.clean_up(home, logged.append)
    assert f"{kept}: cannot be removed (Permission denied)" in logged
    assert (names(home), other.exists()) == (["kept"], False)


def test_log_that_another_clean_up_removes_is_not_an_error(home: Path) -> None:
    records.create_home(home)
    (home / "logs" / "gone").symlink_to(home / "nowhere")
    records.clean_up(home)


def test_old_logs_and_locks_are_removed(home: Path) -> None:
    records.create_home(home)
    long_ago = time.time() - 8 * 86_400
    for path in (home / "logs" / "old", home / "logs" / "new", home / "logs" / "kept"):
        path.mkdir()
    make_run(home, "kept-2", "failed", datetime.now(UTC))
    (home / "logs" / "kept-2").mkdir()
    (home / "locks" / "old.lock").touch()
    (home / "locks" / "new.lock").touch()
    (home / "runs" / "gone.lock").touch()
    for aged in ("logs/old", "logs/kept-2", "locks/old.lock", "runs/gone.lock"):
        os.utime(home / aged, (long_ago, long_ago))
    records.clean_up(home)
    assert sorted(path.name for path in (home / "logs").iterdir()) == ["kept", "kept-2", "new"]
    assert [path.name for path in (home / "locks").iterdir()] == ["new.lock"]
    assert not (home / "runs" / "gone.lock").exists()


def test_keep_days_must_be_a_number(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_KEEP_DAYS", "a week")
    with pytest.raises(FlowError, match="CATDOG_KEEP_DAYS: must be a number, not 'a week'"):
        records.clean_up(home)


def test_list_shows_the_runs_and_their_messages(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    make_run(home, "calm-owl", "failed", datetime.now(UTC))
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if "calm-owl" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:2] + cells[3:] == [
        "calm-owl",
        "failed",
        "0.0 MB",
        "calm-owl",
        "stage train failed: exit code 1",
    ]
    assert "are removed after 7 days" in out


def test_list_without_workspaces_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out == f"no clones in {home / 'runs'}\n"


def test_named_runs_are_removed_and_unknown_names_are_rejected(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two", "three"):
        make_run(home, name, "failed", datetime.now(UTC))
    assert main(["remove", "one", "none"]) == 1
    assert "none: no such run" in capsys.readouterr().err
    assert sorted(names(home)) == ["one", "three", "two"]
    assert main(["remove", "one", "two"]) == 0
    assert names(home) == ["three"]
    assert not (home / "runs" / "one").exists()


def test_remove_failed_keeps_finished_runs(home: Path) -> None:
    for name, state in (("one", "failed"), ("two", "cancelled"), ("three", "finished")):
        make_run(home, name, state, datetime.now(UTC))
    assert main(["remove", "--failed"]) == 0
    assert names(home) == ["three"]
    assert main(["remove", "--all"]) == 0
    assert names(home) == []


def test_remove_without_a_selection_is_an_error(home: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["remove"])
    assert raised.value.code == 2


def test_unreadable_record_is_skipped(home: Path) -> None:
    make_run(home, "one", "failed", datetime.now(UTC))
    (home / "runs" / "half.json").write_text('{"name": "half"')
    (home / "runs" / "other.json").write_text('{"name": "other"}')
    assert names(home) == ["one"]


def test_home_is_ignored_by_git(home: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=home, check=True)
    make_run(home, "one", "failed", datetime.now(UTC))
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=home, check=True, stdout=subprocess.PIPE
    )
    assert status.stdout == b""
