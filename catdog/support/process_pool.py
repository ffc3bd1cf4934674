"""Pools of worker processes: their number, ordered results, limits, and exit with the parent."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

from catdog.errors import CatdogError
from catdog.support import process_limits

Item = TypeVar("Item")
Result = TypeVar("Result")

CPU_SECONDS = 20
"""per item; the slowest photos that `catdog.preparation.photo_limits` accepts need about 5"""
KILLS = 3
"""of an item's worker before the item is refused: the kernel may kill it for others' memory"""
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
    per task; for an item that ends its worker again (by SIGKILL, KILLS times),
    `failed(item, reason)` is yielded. A worker ends if an item takes more than `cpu_seconds` of CPU
    time (not of elapsed time, so that a busy machine gives the same results). Allocating more than
    MEMORY bytes fails in `work` with a MemoryError, or with an error of the library that it calls.
    """
    pending: deque[tuple[Sequence[Item], Future[list[Result]]]] = deque()

    def oldest_results() -> list[Result]:
        chunk, future = pending.popleft()
        try:
            return future.result()
        except _WorkerEndedError:
            return [retry(item) for item in chunk]

    def retry(item: Item) -> Result:
        for _ in range(KILLS):
            try:
                return pool.submit([item]).result()[0]
            except _WorkerEndedError as ended:
                exit_code = ended.exit_code
                if exit_code != -signal.SIGKILL:
                    break
        return failed(item, _describe_exit(exit_code, cpu_seconds))

    with closing(_Workers(_Task(work, cpu_seconds), workers)) as pool:
        for chunk in chunks:
            pending.append((chunk, pool.submit(chunk)))
            if len(pending) >= 4 * workers:
                yield from oldest_results()
        while pending:
            yield from oldest_results()


class _WorkerEndedError(Exception):
    """A worker process ended before it returned the results of its task."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        """as in multiprocessing: the negative number of a signal"""


class _Worker(Generic[Item, Result]):
    """A worker process with a pipe of its own."""

    starting = threading.Lock()  # else two forked workers may inherit each other's pipes

    def __init__(self, task: _Task[Item, Result]) -> None:
        with self.starting:
            self._pipe, other_end = multiprocessing.Pipe()
            self._process = multiprocessing.Process(
                target=_serve, args=(task, other_end), daemon=True
            )
            self._process.start()
            other_end.close()  # so that the end of the process closes the pipe

    def send(self, items: Sequence[Item]) -> bool:
        """Start a task; return False if the process has ended."""
        try:
            self._pipe.send(items)
        except OSError:
            return False
        return True

    def receive(self) -> list[Result]:
        """Return the results of the task, or raise its exception or _WorkerEndedError."""
        try:
            results, error = self._pipe.recv()
        except (EOFError, OSError):
            raise _WorkerEndedError(self.end()) from None
        if error:
            raise error
        return cast("list[Result]", results)

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> int:
        """Wait for the end of the process; return its exit code."""
        self._process.join()
        self._pipe.close()
        return self._process.exitcode or 0


class _Workers(Generic[Item, Result]):
    """Worker processes that are replaced when they end, with a thread for each.

    The pools of pebble and concurrent.futures do not survive a kill at any moment: their workers
    share pipes, and locks that a killed worker does not release.
    """

    def __init__(self, task: _Task[Item, Result], workers: int) -> None:
        self._task = task
        self._jobs: SimpleQueue[tuple[Sequence[Item], Future[list[Result]]] | None] = SimpleQueue()
        self._closed = threading.Event()
        self._workers = [_Worker(task) for _ in range(workers)]
        self._threads = [
            threading.Thread(target=self._pass_tasks, args=(number,), daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, items: Sequence[Item]) -> Future[list[Result]]:
        future: Future[list[Result]] = Future()
        self._jobs.put((items, future))
        return future

    def close(self) -> None:
        """End all workers, also busy ones."""
        self._closed.set()
        for _ in self._threads:
            self._jobs.put(None)
        for number, thread in enumerate(self._threads):
            while thread.is_alive():  # the thread may have replaced its worker meanwhile
                self._workers[number].kill()
                thread.join(0.1)
            self._workers[number].kill()
            self._workers[number].end()

    def _pass_tasks(self, number: int) -> None:
        """Pass tasks to a worker, and their results to the futures, until `close`."""
        while (job := self._jobs.get()) and not self._closed.is_set():
            items, future = job
            try:
                while not self._workers[number].send(items):
                    self._replace(number)
                future.set_result(self._workers[number].receive())
            except Exception as error:  # of the task
                future.set_exception(error)

    def _replace(self, number: int) -> None:
        self._workers[number].end()
        self._workers[number] = _Worker(self._task)


def _serve(task: _Task[Item, Result], pipe: "Connection[Any, Any]") -> None:
    """Compute the tasks that come through a pipe; the main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C, which also ends the parent
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the handler of the parent
    _exit_with_parent()
    process_limits.limit_memory(MEMORY)
    while True:
        items = pipe.recv()
        try:
            pipe.send((task(items), None))
        except Exception as error:
            error.add_note(traceback.format_exc())
            pipe.send((None, error))


def _describe_exit(code: int, cpu_seconds: int) -> str:
    """Return why a worker ended; `code` is its exit code, or minus the number of a signal."""
    if code == -signal.SIGXCPU:
        return f"needs more than {cpu_seconds} s of CPU time"
    if code == -signal.SIGKILL:
        return "ended the worker process (SIGKILL), possibly out of memory"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"ended the worker process ({how})"


def _exit_with_parent() -> None:
    """Start a thread that terminates this worker as soon as its parent process has exited."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in workers only

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
