"""Waiting for a server that does not respond: until it responds again, or for a limited time."""

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.guards.outages import is_unreachable, wait_for_server
from tools.prefect_services import Server, Service


def test_wait_ends_when_the_server_answers_again(prefect_server: Server) -> None:
    logged: list[str] = []

    def start_server(line: str) -> None:
        logged.append(line)
        Service.start(prefect_server)  # unlike Server.start, this returns immediately

    wait_for_server(pytest.fail)
    prefect_server.stop()
    try:
        wait_for_server(start_server, seconds=300)
        assert logged == [f"the server at {prefect_server.url} does not respond; waiting for it"]
        assert not is_unreachable()
    finally:
        prefect_server.kill()
        prefect_server.start()


def test_wait_ends_after_the_given_time() -> None:
    logged: list[str] = []
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        wait_for_server(logged.append, seconds=0)
    assert logged == ["the server at http://127.0.0.1:9/api does not respond; waiting for it"]


def test_without_a_server_there_is_no_wait() -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        wait_for_server(pytest.fail)
