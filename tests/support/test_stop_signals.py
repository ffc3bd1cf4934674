"""Stop signals: the first sets a flag, the second terminates the process."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from catdog.support.stop_signals import SIGNALS, stop_request

each_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@each_signal
def test_a_signal_sets_the_flag_and_the_block_continues(number: signal.Signals) -> None:
    with stop_request() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop


@each_signal
def test_the_previous_handlers_are_restored(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(ZeroDivisionError), stop_request():
        os.kill(os.getpid(), number)
        _ = 1 / 0
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_new_request_starts_unset() -> None:
    with stop_request():
        os.kill(os.getpid(), signal.SIGTERM)
    with stop_request() as stop:
        assert not stop


SIGNALLED_TWICE = """
import os, sys
from catdog.support.stop_signals import stop_request
number, ignore_repeated = int(sys.argv[1]), sys.argv[2] == "ignore"
with stop_request(ignore_repeated) as stop:
    os.kill(os.getpid(), number)
    print("one", bool(stop), flush=True)
    os.kill(os.getpid(), number)
    print("two", bool(stop), flush=True)
"""


@each_signal
@pytest.mark.parametrize("ignore_repeated", [False, True])
def test_a_second_signal_terminates_the_process_unless_ignored(
    number: signal.Signals, ignore_repeated: bool
) -> None:
    arguments = [str(int(number)), "ignore" if ignore_repeated else "terminate"]
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED_TWICE, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if ignore_repeated else -number)
    assert done.stdout.splitlines() == ["one True"] + ["two True"] * ignore_repeated


def test_in_another_thread_no_handler_is_installed() -> None:
    before, seen = [signal.getsignal(each) for each in SIGNALS], []

    def run() -> None:
        with stop_request() as stop:
            seen.append((bool(stop), [signal.getsignal(each) for each in SIGNALS]))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
