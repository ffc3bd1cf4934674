"""Turn SIGTERM and SIGINT into a flag that a training checks where it can save its state."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """A flag that is true once a stop signal has been received."""

    def __init__(self, patient: bool = False) -> None:
        self._received = False
        self._patient = patient

    def __bool__(self) -> bool:
        """Return whether a signal has been received."""
        return self._received

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        """Set the flag; unless `patient`, restore the default action for the next signal."""
        self._received = True
        if not self._patient:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def stop_request(patient: bool = False) -> Iterator[StopRequest]:
    """Yield a StopRequest that SIGTERM and SIGINT set inside the block.

    A second signal ends the process immediately, unless `patient`: under a launcher a process may
    get one signal from the user and one from the launcher, which kills it in the end anyway.
    Python handles signals in the main thread only; in any other thread the flag is never set.
    """
    request = StopRequest(patient)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    with handled_by(request.handle_signal):
        yield request


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install `handler` for the stop signals inside the block, then restore the previous ones."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
