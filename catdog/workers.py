"""Processes that work for this one: how many, and that they end with it."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor

from catdog.errors import CatdogError


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


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
