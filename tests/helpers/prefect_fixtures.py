"""Fixtures of a real Prefect server and real workers; tests/conftest.py loads them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.prefect_services import Agent, Server, deploy, pause_schedules


@pytest.fixture(scope="session")
def _server_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def prefect_server(
    _server_of_the_session: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server of the test session; Prefect clients in the tests of this module use it."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    settings: dict[Any, Any] = {
        PREFECT_API_URL: _server_of_the_session.url,
        PREFECT_HOME: tmp_path_factory.mktemp("prefect"),
    }
    with temporary_settings(settings):
        yield _server_of_the_session


@pytest.fixture(scope="module")
def deployed(prefect_server: Server) -> Server:
    """The server after `python -m flows.deploy`, with all schedules paused."""
    if not prefect_server.deployed:
        deploy(prefect_server)
        pause_schedules()
        prefect_server.deployed = True
    return prefect_server


@pytest.fixture
def start_agent(prefect_server: Server) -> Iterator[Callable[..., Agent]]:
    """Return a function that starts an agent; all are killed after the test.

    start_agent(pool, repository, home, limit=None, **environment)
    """
    agents: list[Agent] = []

    def start_one(
        pool: str, repository: Path, home: Path, limit: int | None = None, **variables: str
    ) -> Agent:
        agents.append(Agent(prefect_server.url, pool, repository, home, limit, **variables))
        agents[-1].start()
        return agents[-1]

    yield start_one
    for agent in agents:
        agent.kill()
        print(agent.log())  # pytest shows it if the test fails
