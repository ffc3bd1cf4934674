"""The supervisor: it terminates all processes of its command, and forwards output and exit code."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from flows.guards import supervisor
from tools.prefect_services import kill_marked

SUPERVISE = [sys.executable, str(supervisor.__file__)]


@contextmanager
def supervised(script: str, grace: float = 5) -> "Iterator[subprocess.Popen[str]]":
    """Start a shell script under the supervisor; none of its processes outlives the block."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [*SUPERVISE, str(grace), "--", "sh", "-c", script],
        env={**os.environ, "MARK": mark},
        stdout=subprocess.PIPE,
        text=True,
        # As in a terminal; the tests themselves may run under nohup.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        yield process
    finally:
        kill_marked(mark)
        process.communicate()


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_supervisor_passes_on_the_exit_code(script: str, code: int) -> None:
    with supervised(script) as process:
        assert process.wait(timeout=30) == code


def test_supervisor_passes_on_each_line_as_it_comes() -> None:
    with supervised("echo first; echo second >&2; sleep 60; echo last") as process:
        assert process.stdout is not None
        assert [next(process.stdout) for _ in range(2)] == ["first\n", "second\n"]
        process.terminate()
        assert process.stdout.read() == ""  # both came before the command exited


def test_supervisor_kills_what_does_not_stop_within_the_grace_period() -> None:
    with supervised("trap '' TERM; echo $$; while :; do sleep 0.1; done", 0.5) as process:
        assert process.stdout is not None
        command = int(next(process.stdout))
        process.terminate()
        assert process.wait(timeout=30) == 137
        assert not psutil.pid_exists(command)


def test_supervisor_ends_processes_that_the_command_leaves_running() -> None:
    with supervised("sleep 600 & echo $!") as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert not psutil.pid_exists(int(out))


def test_supervisor_waits_for_a_grandchild_that_outlives_the_command() -> None:
    child = (
        "sh -c 'trap \"sleep 1; echo saved; exit\" TERM; echo ready; while :; do sleep 0.1; done'"
    )
    with supervised(f"{child} & wait") as process:  # SIGTERM ends the outer shell immediately
        assert process.stdout is not None
        assert next(process.stdout) == "ready\n"
        process.terminate()
        assert process.stdout.read().endswith("saved\n")


def test_supervisor_reports_a_command_that_cannot_be_started() -> None:
    command = [*SUPERVISE, "1", "--", "/no/such/command"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 127
    assert run.stdout == "/no/such/command: cannot be started: No such file or directory\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_supervisor_stops_the_command_on_a_signal(number: signal.Signals) -> None:
    with supervised("echo ready; sleep 600") as process:
        assert process.stdout is not None
        next(process.stdout)
        process.send_signal(number)
        assert process.wait(timeout=30) == 143


def test_supervisor_under_nohup_outlives_its_terminal() -> None:
    script = "echo ready; sleep 1; echo done"
    command = ["nohup", *SUPERVISE, "5", "--", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(process.stdout)
        process.send_signal(signal.SIGHUP)
        assert process.stdout.read() == "done\n"
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere process 1 reaps every orphan")
def test_supervisor_does_not_wait_for_zombies_in_a_container_without_an_init_process() -> None:
    supervisor = [*SUPERVISE, "600", "--", "sh", "-c", "sh -c 'sleep 600; :' & wait"]
    container = f"""
import ctypes, subprocess, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # adopts orphans, and does not reap them
process = subprocess.Popen({supervisor!r})
time.sleep(1)
process.terminate()
print(process.wait(timeout=30))
"""
    run = subprocess.run(
        [sys.executable, "-c", container], capture_output=True, text=True, check=False
    )
    assert run.stdout == "143\n", run.stderr
