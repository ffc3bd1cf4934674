"""A Prefect server that is away for a while: waited for where Prefect itself would not.

Prefect's clients ask a server again only if it has answered them before (`_has_connected` in
prefect/client/base.py), and much of what a run asks for, such as the slots of a task's tags, has a
client of its own. So a run would fail for a restart of the server between two of its stages, after
a training of hours.
"""

import time
from collections.abc import Callable

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

POLL_SECONDS = 5.0
PATIENCE_SECONDS = 900.0


def is_away() -> bool:
    """Return whether nobody answers at PREFECT_API_URL, be it with an error."""
    once = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
    with once, get_client(sync_client=True) as client:
        return isinstance(client.api_healthcheck(), httpx.TransportError)


def wait_out(say: Callable[[str], None], seconds: float = PATIENCE_SECONDS) -> None:
    """Return once the server of this run answers, or after `seconds`: then who asks it will fail.

    At once if the run has none of its own (a temporary one does not go away).
    """
    if not PREFECT_API_URL.value() or not is_away():
        return
    say(f"no server answers at {PREFECT_API_URL.value()}; waiting for it")
    deadline = time.monotonic() + seconds
    while is_away() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
