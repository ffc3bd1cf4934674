"""Workers exit with their parent; results are ordered; a worker that dies costs one item."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from catdog.errors import CatdogError
from catdog.support.process_pool import MEMORY, map_chunks, usable_cores

POOL = """
import os, time
from catdog.support.process_pool import process_pool
with process_pool(2) as pool:
    print(*{pool.submit(os.getpid).result() for _ in range(20)}, flush=True)
    pool.submit(time.sleep, 60).result()
"""
MAP = """
import os, time
from catdog.support.process_pool import map_chunks
def work(item):
    print(os.getpid(), flush=True)
    time.sleep(60)
list(map_chunks(work, [[0]], 1, lambda item, reason: 0))
"""


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("code", [POOL, MAP], ids=["process_pool", "map_chunks"])
def test_a_killed_process_leaves_no_workers(code: str) -> None:
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
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


Item = int | str


def square(item: Item) -> Item:
    """Return the square of a number; a text is executed."""
    if isinstance(item, str):
        exec(item)
        return item
    return item * item


def failed(item: Item, reason: str) -> str:
    return f"{item}: {reason}"


SPIN = "while True: pass"
KILL = "import os; os.kill(os.getpid(), 9)"
CRASH = "import ctypes, faulthandler; faulthandler.disable(); ctypes.string_at(0)"
EXIT = "import os; os._exit(3)"
REASONS = {
    SPIN: "needs more than 1 s of CPU time",
    KILL: "ended the worker process (SIGKILL), possibly out of memory",
    CRASH: "ended the worker process (SIGSEGV)",
    EXIT: "ended the worker process (exit code 3)",
}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_that_dies_costs_only_the_item_that_ends_it(workers: int) -> None:
    chunks: list[list[Item]] = [[1, SPIN, 2], [3], [KILL, 4, CRASH], [5, EXIT], [6], [7], [8]]
    results = list(map_chunks(square, chunks, workers, failed, cpu_seconds=1))
    items = [item for chunk in chunks for item in chunk]
    expected = [f"{i}: {REASONS[i]}" if isinstance(i, str) else i * i for i in items]
    assert results == expected


def test_an_item_whose_worker_is_killed_by_others_is_computed_again(tmp_path: Path) -> None:
    """As by the kernel, which may kill another process than the one that needs the memory."""
    killed_once = f"""
import os, pathlib
mark = pathlib.Path({str(tmp_path / "mark")!r})
if not mark.exists():
    mark.touch()
    os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    chunk: list[Item] = [1, killed_once, 2]
    assert list(map_chunks(square, [chunk], 1, failed)) == [1, killed_once, 4]


def test_workers_that_are_killed_while_idle_are_replaced() -> None:
    def chunks() -> Iterator[list[Item]]:
        for number in range(20):
            if number == 12:
                time.sleep(0.3)
                workers = multiprocessing.active_children()  # not its resource tracker
                assert len(workers) == 2
                for worker in workers:
                    worker.kill()
                time.sleep(0.3)
            yield [number]

    assert list(map_chunks(square, chunks(), 2, failed)) == [n * n for n in range(20)]


class KillsReceiver:
    """An item that kills the worker while it receives its task."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (KILL,)


class KillsSender:
    """A result that kills the worker while it sends it."""

    def __reduce__(self) -> tuple[object, ...]:
        os.kill(os.getpid(), signal.SIGKILL)
        return (KillsSender,)


def make_result(item: object) -> object:
    return KillsSender() if item == "sender" else item


def test_a_worker_that_is_killed_while_it_receives_or_sends_blocks_no_other() -> None:
    items: list[object] = [1, KillsReceiver(), 2, "sender", 3, 4, 5, 6]
    results = map_chunks(make_result, [[item] for item in items], 2, lambda _, reason: reason)
    killed = REASONS[KILL]
    assert list(results) == [1, killed, 2, killed, 3, 4, 5, 6]


def test_the_cpu_time_of_earlier_items_does_not_count() -> None:
    busy = "import time; end = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    assert list(map_chunks(square, [[busy] * 6], 1, failed, cpu_seconds=1)) == [busy] * 6


def allocate(size: int) -> str:
    try:
        return f"{len(bytearray(size)) >> 20} MiB"
    except MemoryError:
        return "MemoryError"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit memory")
def test_more_than_the_allowed_memory_is_a_memory_error() -> None:
    sizes = [MEMORY // 2, 2 * MEMORY, 1 << 20]
    assert list(map_chunks(allocate, [sizes], 1, lambda *_: "")) == [
        "512 MiB",
        "MemoryError",
        "1 MiB",
    ]


def test_an_error_of_the_work_is_raised_to_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_chunks(square, [["1 / 0"]], 1, failed))


def test_few_chunks_are_pending_at_a_time() -> None:
    taken = 0

    def chunks() -> Iterator[list[Item]]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield [number]

    results = map_chunks(square, chunks(), 2, failed)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    results.close()  # type: ignore[attr-defined]
    assert taken <= 12
