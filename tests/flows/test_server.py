"""What `python -m flows.server` adds to Prefect's server; that it may be restarted is elsewhere."""

import os
import time
from pathlib import Path

import pytest
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

from flows import server
from flows.server import spare_sqlite
from tests.helpers.prefect_runs import run_deployment_now, state_of
from tools.prefect_services import running_server

SETTING = "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED"
SQLITE, POSTGRESQL = "sqlite+aiosqlite:////nowhere.db", "postgresql+asyncpg://a:b@host/c"


@pytest.mark.parametrize(
    ("database", "asked", "set_to"),
    [
        (SQLITE, None, "false"),
        (SQLITE, "true", "true"),
        (POSTGRESQL, None, None),
    ],
)
def test_only_sqlite_is_spared_the_marking_of_late_runs_and_not_if_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, database: str, asked: str | None, set_to: str | None
) -> None:
    monkeypatch.setenv(SETTING, asked or "")  # so that it is as before after the test
    if asked is None:
        monkeypatch.delenv(SETTING)
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: database}):
        spare_sqlite()
    assert os.environ.get(SETTING) == set_to


def test_what_is_wrong_with_the_database_is_left_for_the_server_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong password of PostgreSQL is an error of its driver's own."""
    become: list[str] = []

    async def refused() -> None:
        raise RuntimeError("password authentication failed")

    monkeypatch.setattr(server, "give_time", refused)
    monkeypatch.setattr(os, "execv", lambda program, command: become.extend(command))
    monkeypatch.setenv(SETTING, "true")
    server.main()
    assert become[1:5] == ["-m", "prefect", "server", "start"]


@pytest.mark.slow
def test_many_runs_that_wait_do_not_lock_the_database(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as running:
        runs = [run_deployment_now("pipeline/pipeline").id for _ in range(20)]
        time.sleep(30)  # after 15 Prefect would call them late
        assert {state_of(run).name for run in runs} == {"Scheduled"}
        assert "database is locked" not in running.log()
