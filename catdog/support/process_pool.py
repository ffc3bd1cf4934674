"""Pools of worker processes: their number, ordered results, limits, and exit with the parent."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from catdog.errors import CatdogError
from catdog.support import process_limits

Item = TypeVar("Item")
Result = TypeVar("Result")

CPU_SECONDS = 20
"""per item; the slowest photos that `catdog.preparation.photo_limits` accepts need about 5"""
MEMORY = 1 << 30
"""bytes that a worker may allocate in addition to those at its start"""


def usable_cores() -> int:
    """Return the number of cores that this process may use.

    The environment variable CATDOG_WORKERS overrides it; CatdogError if that is not a positive
    integer.
    """
    if wanted := os.environ.get("CATDOG_WORKERS"):
        if not wanted.isdecimal() or int(wanted) < 1:
            raise CatdogError(
                f"CATDOG_WORKERS: invalid value {wanted!r}; must be an integer of at least 1"
            )
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool whose workers exit when this process exits, even by SIGKILL."""
    return ProcessPoolExecutor(workers, initializer=_exit_with_parent)


@dataclass(frozen=True)
class _Task(Generic[Item, Result]):
    """Call `work` for each item, with a limit of CPU time for each."""

    work: Callable[[Item], Result]
    cpu_seconds: int

    def __call__(self, items: Sequence[Item]) -> list[Result]:
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Result:
        process_limits.limit_cpu_time(self.cpu_seconds)
        return self.work(item)


def map_chunks(
    work: Callable[[Item], Result],
    chunks: Iterable[Sequence[Item]],
    workers: int,
    failed: Callable[[Item, str], Result],
    cpu_seconds: int = CPU_SECONDS,
) -> Iterator[Result]:
    """Yield `work(item)` for each item of each chunk, in order, computed by `workers` processes.

    At most four chunks per worker are pending at a time, so memory does not grow with the number
    of chunks. A worker that dies is replaced, and the items of its chunk are computed again, one
    per task; for an item that ends its worker again, `failed(item, reason)` is yielded. A worker
    ends if an item takes more than `cpu_seconds` of CPU time (not of elapsed time, so that a busy
    machine gives the same results). Allocating more than MEMORY bytes fails in `work` with a
    MemoryError, or with an error of the library that it calls. Raises BrokenProcessPool if other
    processes keep killing the workers.
    """
    task = _Task(work, cpu_seconds)
    pending: deque[tuple[Sequence[Item], ProcessFuture[list[Result]]]] = deque()

    def oldest_results() -> list[Result]:
        chunk, future = pending.popleft()
        try:
            return future.result()
        except LOST:
            return [retry(item) for item in chunk]

    def retry(item: Item) -> Result:
        for _ in range(3):
            try:
                return pool.submit(task, [item]).result()[0]
            except ProcessExpired as expired:
                return failed(item, _describe_exit(expired.exitcode, cpu_seconds))
            except LOST:
                pass
        raise BrokenProcessPool("worker processes were killed repeatedly")

    with closing(_Workers(workers)) as pool:
        for chunk in chunks:
            pending.append((chunk, pool.submit(task, chunk)))
            if len(pending) >= 4 * workers:
                yield from oldest_results()
        while pending:
            yield from oldest_results()


LOST = (ProcessExpired, BrokenProcessPool, CancelledError)
"""the errors of a task that was lost because a worker ended"""


class _Workers:
    """A pool of pebble, replaced when it breaks because a worker was killed while it was idle."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = self._start()

    def _start(self) -> ProcessPool:
        return ProcessPool(self._workers, initializer=_start_worker)

    def submit(
        self, task: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]
    ) -> ProcessFuture[list[Result]]:
        try:
            return self._pool.schedule(task, args=(items,))
        except RuntimeError:  # what pebble raises for a broken pool
            self.close()
            self._pool = self._start()
            return self._pool.schedule(task, args=(items,))

    def close(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


def _describe_exit(code: int, cpu_seconds: int) -> str:
    """Return why a worker ended; `code` is its exit code, or minus the number of a signal."""
    if code == -signal.SIGXCPU:
        return f"needs more than {cpu_seconds} s of CPU time"
    if code == -signal.SIGKILL:
        return "ended the worker process (SIGKILL), possibly out of memory"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"ended the worker process ({how})"


def _start_worker() -> None:
    _exit_with_parent()
    process_limits.limit_memory(MEMORY)


def _exit_with_parent() -> None:
    """Start a thread that terminates this worker as soon as its parent process has exited."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in workers only

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
