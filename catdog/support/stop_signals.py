"""Signals that ask a training to stop: noted, and acted on where its state is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether a stop was asked for."""

    def __init__(self, patient: bool = False) -> None:
        self._received = False
        self._patient = patient

    def __bool__(self) -> bool:
        """Return whether a signal has come."""
        return self._received

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: remember it; the next one of the kind ends an impatient process."""
        self._received = True
        if not self._patient:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def stop_request(patient: bool = False) -> Iterator[StopRequest]:
    """Give a StopRequest that SIGTERM and SIGINT set while the context lasts.

    The second signal ends the process at once, unless it is `patient`: a process that a launcher
    has started may get one from the user and one from the launcher, which kills it in the end.
    Python takes signals in its main thread only; in another one nothing is caught.
    """
    request = StopRequest(patient)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
