"""A temporary server ends with the command that Prefect started it for; nothing else does."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator

import psutil
import pytest

from flows.guards import temporary_server
from tools.prefect_services import REPOSITORY, kill_marked, marked, wait_for

# The command of a flow, with what matters of Prefect's servers: their words, and whose they are.
COMMAND = """
import subprocess, sys, time
from flows.guards.temporary_server import end_with_us

def start(name):
    sleep = "import time; time.sleep(600)"
    return subprocess.Popen([sys.executable, "-c", sleep, name]).pid

before = start("uvicorn")
end_with_us()
end_with_us()
print(start("uvicorn"), before, start("training"), flush=True)
time.sleep(600)
"""


@pytest.fixture
def mark() -> Iterator[str]:
    """What all processes of a test have in their environment; none outlives it."""
    mark = uuid.uuid4().hex
    yield mark
    kill_marked(mark)


def watchers(mark: str) -> list[psutil.Process]:
    """Return the processes that wait for the end of a command."""
    return [each for each in marked(mark) if temporary_server.__file__ in each.cmdline()]


def test_server_ends_with_a_command_that_is_killed_and_nothing_else_does(mark: str) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        cwd=REPOSITORY,
        env={**os.environ, "MARK": mark},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    server, *others = map(psutil.Process, map(int, next(command.stdout).split()))
    assert len(watchers(mark)) == 1
    command.kill()
    command.wait()
    wait_for(lambda: server not in marked(mark), 30)
    wait_for(lambda: not watchers(mark), 30)
    assert set(marked(mark)) == set(others)
