"""Pools of worker processes: their number, ordered results, and exit with the parent process."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

from catdog.errors import CatdogError

Item = TypeVar("Item")
Result = TypeVar("Result")


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


def map_chunks(
    work: Callable[[Item], list[Result]], chunks: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield the results of `work` on each chunk, in order, computed by `workers` processes.

    At most four chunks per worker are pending at a time, so memory does not grow with the number
    of chunks; Executor.map would submit all of them up front.
    """
    pending: deque[Future[list[Result]]] = deque()
    with process_pool(workers) as pool:
        for chunk in chunks:
            pending.append(pool.submit(work, chunk))
            if len(pending) >= 4 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _exit_with_parent() -> None:
    """Start a thread that terminates this worker as soon as its parent process has exited."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in workers only

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
