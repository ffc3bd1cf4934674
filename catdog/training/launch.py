"""Start `catdog train` in several processes, with torch.distributed's launcher.

The launcher monitors the processes and terminates all of them when one fails. Each records its
exception in a file (torch.distributed.elastic's `record`), and the first cause is reported once.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

import psutil
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import (
    ChildFailedError,
    ProcessFailure,
    record,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from catdog.errors import CatdogError, Stopped
from catdog.support.process_pool import usable_cores
from catdog.support.stop_signals import handled_by
from catdog.training.distributed import PeerExitedError

LAUNCHER = (
    "CATDOG_LAUNCHER"  # environment variable of the started processes: the process id of `launch`
)
GRACE = 30.0  # seconds from SIGTERM to SIGKILL, as in torch's launcher
RESUME = "run the same command to resume from the last checkpoint, if there is one"


def launch(count: int) -> None:
    """Run `catdog train` in `count` processes on this machine; return when all have finished.

    They share the cores. On SIGTERM or Ctrl-C they save a checkpoint and stop; a second signal
    kills them immediately. Raises Stopped in both cases, and CatdogError if one of them fails.
    """
    os.environ[LAUNCHER] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // count)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    command = ("-m", "catdog", "train")
    with (
        tempfile.TemporaryDirectory(prefix="catdog-") as logs,
        _no_logging(),
        _forward_signals() as signals,
    ):
        try:
            elastic_launch(_config(count, logs), sys.executable)(*command)
        except ChildFailedError as error:
            raise _explain(error.failures, count, signals) from None


def run_as_rank(work: Callable[[], None]) -> None:
    """Run `work` in a process that a launcher has started; a failure is reported once.

    `launch` reports it from what is recorded here. Under torchrun rank 0 reports it, and torchrun
    prints what the others recorded.
    """
    if launcher := os.environ.get(LAUNCHER):
        threading.Thread(target=_exit_with_launcher, args=[int(launcher)], daemon=True).start()
    try:
        record(_as_catdog_error)(work)
    except CatdogError as error:
        if launcher or os.environ["RANK"] != "0":
            sys.exit(error.exit_code)
        raise


def _as_catdog_error(work: Callable[[], None]) -> None:
    try:
        work()
    except OSError as error:
        raise CatdogError(str(error)) from error


def _exit_with_launcher(launcher: int) -> None:
    """Stop this process, as by SIGTERM, if the launcher has been killed.

    torch starts each process in its own session, so that a signal to the launcher's process group
    does not reach it.
    """
    while os.getppid() == launcher:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(Stopped.exit_code)


def _config(count: int, logs: str) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",  # any free port
        local_addr="127.0.0.1",  # a container may be unable to resolve its own host name
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=logs),
        signals_to_handle="",  # none: see _forward_signals
    )


@contextmanager
def _no_logging() -> Iterator[None]:
    """Disable the log of torch's launcher: the error message at the end says what happened."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _forward_signals() -> Iterator[list[int]]:
    """Forward stop signals to the processes while watching them; yield those received.

    torch's own handler would raise an exception that does not say how its processes ended, and a
    signal during its final wait would leave them running.
    """
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        children = psutil.Process().children()
        if not children:
            raise Stopped("stopped before training started")
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    with handled_by(forward):
        yield received


def _explain(failures: Mapping[int, ProcessFailure], count: int, signals: list[int]) -> CatdogError:
    """Return the error to report for processes that failed, by rank: that of the first cause."""
    rank, failure = min(failures.items(), key=_root_cause_key)
    kind, text = _recorded(failure)
    if kind == Stopped.__name__:
        return Stopped(text)
    if signals and (failure.exitcode < 0 or kind == PeerExitedError.__name__):
        return Stopped(f"stopped immediately; {RESUME}")
    if kind in {CatdogError.__name__, PeerExitedError.__name__}:
        return CatdogError(text)
    if kind:
        end = f"failed with {kind} (see above)"
    elif failure.exitcode < 0:
        memory = ", possibly out of memory" if -failure.exitcode == signal.SIGKILL else ""
        end = f"was killed by {failure.signal_name()}{memory}"
    else:
        end = f"exited with code {failure.exitcode}"
    who = f"process {rank + 1} of {count} (pid {failure.pid})"
    return CatdogError(f"{who} {end}; the other processes were stopped; {RESUME}")


def _root_cause_key(item: tuple[int, ProcessFailure]) -> tuple[bool, int, int]:
    """Return a sort key: causes before their consequences (lost contact, torch's SIGTERM)."""
    rank, failure = item
    consequence = (
        _recorded(failure)[0] == PeerExitedError.__name__ or failure.exitcode == -signal.SIGTERM
    )
    return consequence, failure.timestamp, rank


def _recorded(failure: ProcessFailure) -> tuple[str, str]:
    """Return name and text of the exception that ended a process; empty strings without one.

    `record` writes `NAME: TEXT`; if it wrote nothing, torch generates a text, which is ignored.
    """
    message = failure.error_file_data.get("message")
    if not isinstance(message, dict):
        return "", ""
    name, _, text = str(message["message"]).partition(": ")
    return name, text
