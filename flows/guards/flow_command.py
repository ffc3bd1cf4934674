"""A flow as a command in a terminal: Ctrl-C cancels it cleanly, a mistake is one line on stderr."""

import functools
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ParamSpec, TypeVar, cast

from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)
from prefect.states import Cancelled

from flows.guards.outages import is_away
from flows.guards.temporary_server import end_with_us

P = ParamSpec("P")
R = TypeVar("R")

# A temporary server takes 5 s to start, but more than Prefect's 20 on a machine that trains.
START_SECONDS = 180


def cancelled_by_interrupt(function: Callable[P, R]) -> Callable[P, R]:
    """Let the run of a flow's function end as Cancelled, not as Crashed, when Ctrl-C stops it.

    Nothing has gone wrong then, and nobody need be told. Whoever has called the flow gets a
    CancelledRun, or the state.
    """

    @functools.wraps(function)
    def interruptible(*arguments: P.args, **settings: P.kwargs) -> R:
        try:
            return function(*arguments, **settings)
        except KeyboardInterrupt:
            # A state that a function returns becomes that of its run; only Prefect sees it.
            return cast(R, Cancelled(message="stopped by Ctrl-C or SIGTERM"))

    return interruptible


def run_as_command(name: str, work: Callable[[], object]) -> int:
    """Call `work`, which runs a flow; return the exit code of the command `name`.

    0: done; 1: failed, with one line on stderr that says why; 130: stopped by Ctrl-C or SIGTERM.
    """
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        _retry_no_more()
        raise KeyboardInterrupt

    # Prefect ends the process right after its own handling of SIGTERM, unless the handler that it
    # found raises. Then the temporary server is stopped on the way out, as after Ctrl-C.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        work()
    except (Exception, KeyboardInterrupt) as error:
        # Where Python cannot raise (while it collects garbage, say) the interrupt is lost, and
        # what arrives is the stage that the same Ctrl-C has ended: hence the list.
        if stopped or isinstance(error, KeyboardInterrupt):
            print("stopped; run it again to go on", file=sys.stderr)
            return 130
        # Prefect has logged what is no FlowError with its traceback
        reason = str(error).partition("\n")[0] or type(error).__name__
        print(f"{name} failed: {reason}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def some_server(no_other: bool = False) -> Iterator[None]:
    """Let the flows of this block use the server that PREFECT_API_URL names, else a temporary one.

    Also, and a line on stderr says so, if nobody answers there, unless `no_other` will do.
    """
    settings: dict[Any, Any] = {PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: START_SECONDS}
    if PREFECT_API_URL.value() and not no_other and is_away():
        said = f"no server answers at {PREFECT_API_URL.value()}; this run goes on without it"
        print(said, file=sys.stderr)
        settings[PREFECT_API_URL] = None
    with temporary_settings(settings):
        if not PREFECT_API_URL.value():
            end_with_us()
        yield


def _retry_no_more() -> None:
    """Let Prefect ask a temporary server only once from now on.

    Ctrl-C in a terminal also ends that server, and none comes back: retries would keep the command
    alive for minutes. Until then they are needed, since it is too busy at times. Changed in place:
    settings that are set anew would end with the flow that is interrupted, before the one above it.
    """
    if not PREFECT_API_URL.value():
        get_current_settings().client.max_retries = 0
