"""The number of workers, and that workers exit with their parent process."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from catdog.errors import CatdogError
from catdog.support.process_pool import usable_cores

POOL = """
import os, time
from catdog.support.process_pool import process_pool
with process_pool(2) as pool:
    print(*{pool.submit(os.getpid).result() for _ in range(20)}, flush=True)
    pool.submit(time.sleep, 60).result()
"""


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_process_leaves_no_workers() -> None:
    with subprocess.Popen([sys.executable, "-c", POOL], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        workers = [int(pid) for pid in owner.stdout.readline().split()]
        assert workers
        assert all(is_running(pid) for pid in workers)
        owner.kill()
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers)


def test_catdog_workers_sets_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATDOG_WORKERS", "3")
    assert usable_cores() == 3
    monkeypatch.delenv("CATDOG_WORKERS")
    assert usable_cores() >= 1


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", " "])
def test_an_invalid_number_of_workers_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_WORKERS", value)
    message = rf"^CATDOG_WORKERS: invalid value '{value}'; must be an integer of at least 1$"
    with pytest.raises(CatdogError, match=message):
        usable_cores()
