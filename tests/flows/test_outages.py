"""A server that is away for a while is waited for, and one that stays away is not for ever."""

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.guards.outages import is_away, wait_out
from tools.prefect_services import Server, Service


def test_run_goes_on_when_its_server_is_back(prefect_server: Server) -> None:
    said: list[str] = []

    def start_it(line: str) -> None:
        said.append(line)
        Service.start(prefect_server)  # which does not wait until it answers

    wait_out(pytest.fail)
    prefect_server.stop()
    try:
        wait_out(start_it, seconds=300)
        assert said == [f"no server answers at {prefect_server.url}; waiting for it"]
        assert not is_away()
    finally:
        prefect_server.kill()
        prefect_server.start()


def test_server_that_stays_away_is_waited_for_so_long_only() -> None:
    said: list[str] = []
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        wait_out(said.append, seconds=0)
    assert said == ["no server answers at http://127.0.0.1:9/api; waiting for it"]


def test_run_without_a_server_waits_for_none() -> None:
    with temporary_settings({PREFECT_API_URL: None}):
        wait_out(pytest.fail)
