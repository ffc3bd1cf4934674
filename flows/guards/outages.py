"""Wait for a Prefect server that does not answer, where Prefect itself gives up at once.

A Prefect client retries a failed connection only if it has connected before (`_has_connected` in
prefect/client/base.py), and much of what a run asks for, such as the slots of a task's tags, uses a
new client. So a restart of the server between two stages would fail the run, after hours of
training. Upstream: https://github.com/PrefectHQ/prefect/issues/20462 (open); this module can go
once new clients retry too.
"""

import time

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.log import Log

POLL_SECONDS = 5.0
MAX_WAIT_SECONDS = 900.0


def is_unreachable() -> bool:
    """Return whether there is no connection to PREFECT_API_URL; an HTTP error is an answer."""
    once = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
    with once, get_client(sync_client=True) as client:
        return isinstance(client.api_healthcheck(), httpx.TransportError)


def wait_for_server(log: Log, seconds: float = MAX_WAIT_SECONDS) -> None:
    """Return as soon as the server of this run answers, or after `seconds` even if it does not.

    Returns at once without PREFECT_API_URL: a temporary server lives as long as the run. `log` gets
    one line when the wait begins.
    """
    if not PREFECT_API_URL.value() or not is_unreachable():
        return
    log(f"the server at {PREFECT_API_URL.value()} does not answer; waiting for it")
    deadline = time.monotonic() + seconds
    while is_unreachable() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
