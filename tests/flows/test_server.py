"""What `python -m flows.server` adds to Prefect's server (restarts: test_agents.py)."""

import os
import time
from pathlib import Path

import pytest
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

from flows import server
from flows.server import disable_late_runs_on_sqlite
from tests.helpers.prefect_runs import run_deployment_now, state_of
from tools.prefect_services import running_server

SETTING = "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED"
SQLITE, POSTGRESQL = "sqlite+aiosqlite:////nowhere.db", "postgresql+asyncpg://a:b@host/c"


@pytest.mark.parametrize(
    ("database", "given", "expected"),
    [
        (SQLITE, None, "false"),
        (SQLITE, "true", "true"),
        (POSTGRESQL, None, None),
    ],
)
def test_late_runs_are_disabled_on_sqlite_unless_enabled_explicitly(
    monkeypatch: pytest.MonkeyPatch, database: str, given: str | None, expected: str | None
) -> None:
    monkeypatch.setenv(SETTING, given or "")  # restored after the test
    if given is None:
        monkeypatch.delenv(SETTING)
    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: database}):
        disable_late_runs_on_sqlite()
    assert os.environ.get(SETTING) == expected


def test_database_errors_are_reported_by_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong password of PostgreSQL is an error of the driver, not of SQLAlchemy."""
    started: list[str] = []

    async def refused() -> None:
        raise RuntimeError("password authentication failed")

    monkeypatch.setattr(server, "extend_heartbeat_windows", refused)
    monkeypatch.setattr(os, "execv", lambda program, command: started.extend(command))
    monkeypatch.setenv(SETTING, "true")
    server.main()
    assert started[1:5] == ["-m", "prefect", "server", "start"]


@pytest.mark.slow
def test_many_waiting_runs_do_not_lock_the_database(tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as running:
        runs = [run_deployment_now("pipeline/pipeline").id for _ in range(20)]
        time.sleep(30)  # Prefect marks runs as Late after 15 s
        assert {state_of(run).name for run in runs} == {"Scheduled"}
        assert "database is locked" not in running.log()
