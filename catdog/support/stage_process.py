"""One process per stage of a project, which stops if the DVC that started it is killed.

DVC leaves a stage running when it is killed (no upstream issue found, searched 2026-11-30). The
stage would go on with the params and code of its start, and write its outputs after another DVC
has deleted them to run the stage again, or while that one runs.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from catdog.paths import LOCKS
from catdog.support.recorded_lock import RecordedLock
from catdog.support.stop_signals import stop_requested

DVC_STAGE = "DVC_STAGE"  # DVC sets this environment variable for the command of a stage
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish"})
POLL_SECONDS = 0.5


@contextmanager
def only_process(stage: str, log: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of `stage` in the project inside the block; wait while another process does.

    Before a wait, `log` gets one line that names the other process. Read params and inputs inside
    the block, since they may change during the wait.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    lock = RecordedLock(LOCKS, stage)
    if not lock.try_acquire():
        log(f"{stage}: already running in this project ({lock.holder}); waiting for it to end")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def stop_with_dvc() -> None:
    """From now on, stop this process, as by SIGTERM, when the DVC that has started it has exited.

    Without effect in a process that DVC has not started.
    """
    if os.environ.get(DVC_STAGE) and (dvc := _dvc_process()):
        threading.Thread(target=_stop_after, args=[dvc], daemon=True).start()


def _dvc_process() -> psutil.Process | None:
    """Return the process that started this one as a stage: its parent, apart from shells."""
    for parent in psutil.Process().parents():
        if parent.name() not in SHELLS:
            return parent
    return None


def _stop_after(dvc: psutil.Process) -> None:
    while _is_alive(dvc):
        time.sleep(POLL_SECONDS)
    # A signal to the process group has reached this process, too. A second one would end training
    # before it has saved a checkpoint.
    time.sleep(POLL_SECONDS)
    if not stop_requested():
        os.kill(os.getpid(), signal.SIGTERM)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
