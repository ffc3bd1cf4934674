"""Set a flag on SIGTERM and SIGINT, which training checks where it can save a checkpoint."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_received: list[int] = []  # no Event: its lock is not safe to acquire in a signal handler


class StopRequest:
    """A flag that is true once a stop signal has been received."""

    def __init__(self, ignore_repeated: bool = False) -> None:
        self._received = False
        self._ignore_repeated = ignore_repeated

    def __bool__(self) -> bool:
        """Return whether a signal has been received."""
        return self._received

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        """Set the flag; restore the default action for a second signal unless `ignore_repeated`."""
        self._received = True
        if not self._ignore_repeated:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def stop_request(ignore_repeated: bool = False) -> Iterator[StopRequest]:
    """Yield a StopRequest that SIGTERM and SIGINT set inside the block.

    A second signal terminates the process immediately, unless `ignore_repeated`: a process that a
    launcher has started may get one signal from the user and one from the launcher, which later
    sends SIGKILL. Python handles signals in the main thread only; in any other thread the flag is
    never set.
    """
    request = StopRequest(ignore_repeated)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    with handled_by(request.handle_signal):
        yield request


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install `handler` for the stop signals inside the block, then restore the previous ones."""

    def handle(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        handler(number, frame)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def stop_requested() -> bool:
    """Return whether this process has handled a stop signal, which it may still be acting on."""
    return bool(_received)
