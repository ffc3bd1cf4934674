"""Processes that work for this one: how many, and that they end with it."""

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
    """Return the number of cores this process may use, or what CATDOG_WORKERS says."""
    if wanted := os.environ.get("CATDOG_WORKERS"):
        if not wanted.isdecimal() or int(wanted) < 1:
            raise CatdogError(f"CATDOG_WORKERS is {wanted!r}, but must be a number from 1")
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool whose processes end when this one is gone, by kill -9 too."""
    return ProcessPoolExecutor(workers, initializer=_end_with_parent)


def map_chunks(
    work: Callable[[Item], list[Result]], chunks: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield the results of `work` on each chunk, in order, worked on in `workers` processes.

    At most four chunks a process are under way before the next one is asked for: memory does not
    grow with their number, as it would with Executor.map, which takes them all in at once.
    """
    waiting: deque[Future[list[Result]]] = deque()
    with process_pool(workers) as pool:
        for chunk in chunks:
            waiting.append(pool.submit(work, chunk))
            if len(waiting) >= 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
