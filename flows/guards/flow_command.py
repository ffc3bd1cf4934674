"""Run a flow as a command in a terminal: Ctrl-C cancels it, and an error is one line on stderr."""

import functools
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ParamSpec, TypeVar, cast

from prefect import tags
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)
from prefect.states import Cancelled

from flows.guards.outages import is_unreachable

P = ParamSpec("P")
R = TypeVar("R")

# A temporary server starts in 5 s, but takes longer than Prefect's limit of 20 s on a machine that
# trains (https://github.com/PrefectHQ/prefect/issues/16397, closed, is about the same time-out).
START_SECONDS = 180


def cancelled_by_interrupt(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate the function of a flow so that Ctrl-C ends its run as Cancelled, not as Crashed.

    Crashed is what Prefect makes of it (no upstream issue found, searched 2026-11-30), and a crash
    sends a notification. The caller of the flow gets CancelledRun, or the state.
    """

    @functools.wraps(function)
    def interruptible(*arguments: P.args, **settings: P.kwargs) -> R:
        try:
            return function(*arguments, **settings)
        except KeyboardInterrupt:
            # Prefect takes a state that a flow returns as the state of its run.
            return cast(R, Cancelled(message="stopped by Ctrl-C or SIGTERM"))

    return interruptible


def run_as_command(name: str, work: Callable[[], object]) -> int:
    """Call `work`, which runs a flow; return the exit code of the command `name`.

    0: done; 1: failed, with the reason as one line on stderr; 130: stopped by Ctrl-C or SIGTERM.
    """
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        _stop_retrying()
        raise KeyboardInterrupt

    # After its own handling of SIGTERM, Prefect sends the signal once more, to the handler that it
    # had replaced (`capture_sigterm`). Python's default one would end the process at once and leave
    # the temporary server running (no upstream issue found, searched 2026-11-30). This one raises,
    # so that the server is stopped, as after Ctrl-C.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        work()
    except (Exception, KeyboardInterrupt) as error:
        # Python drops an exception that is raised in some places, such as a finalizer. Then the
        # error is that of the stage, which the same Ctrl-C has stopped; hence `stopped`.
        if stopped or isinstance(error, KeyboardInterrupt):
            print("stopped; run it again to continue", file=sys.stderr)
            return 130
        # Prefect has already logged the traceback of anything but a FlowError.
        reason = str(error).partition("\n")[0] or type(error).__name__
        print(f"{name} failed: {reason}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def choose_server(required: bool = False) -> Iterator[None]:
    """Let the flows of this block use the server at PREFECT_API_URL, or else a temporary one.

    Their runs have the tag `catdog` on the former, so that the automations of
    flows/deploy.py apply to them.
    The temporary one is also used, with a line on stderr, if the server at PREFECT_API_URL does not
    answer, unless that one is `required`.
    """
    settings: dict[Any, Any] = {PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: START_SECONDS}
    address = PREFECT_API_URL.value()
    if address and not required and is_unreachable():
        print(
            f"the server at {address} does not answer; this run uses a temporary one",
            file=sys.stderr,
        )
        settings[PREFECT_API_URL] = address = None
    # Tasks inherit the tag, and each then requests a slot for it, which is too much load for a
    # temporary server.
    tag = ["catdog"] if address else []
    with temporary_settings(settings), tags(*tag):
        yield


def _stop_retrying() -> None:
    """Make Prefect send each request to a temporary server only once from now on.

    Ctrl-C in a terminal also ends that server, and retries would keep the command alive for
    minutes. Before, retries are needed, since the server is sometimes too busy. The settings are
    changed in place: new ones would be dropped together with the interrupted flow, before the flow
    that called it has ended.
    """
    if not PREFECT_API_URL.value():
        get_current_settings().client.max_retries = 0
