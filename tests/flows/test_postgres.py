"""A Prefect server that keeps its data in PostgreSQL."""

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]
import pytest

from tests.helpers.prefect_runs import log_of, run_deployment_now, wait_for_end
from tools import tiny_project
from tools.prefect_services import Agent, Server, running_server

OWNER = "postgres"  # PostgreSQL refuses to run as root; its package creates this user
AS_ROOT = os.geteuid() == 0
INSTALLED = shutil.which("pg_ctl") is not None and shutil.which("initdb") is not None
STATE = "select state_type::text from flow_run where id = $1"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not INSTALLED, reason="PostgreSQL is not installed (pg_ctl, initdb)"),
]


def run(folder: Path, *command: str) -> None:
    """Run a PostgreSQL command in `folder`; fail if it fails."""
    user: dict[str, Any] = {}
    if AS_ROOT:
        user = {"user": OWNER, "group": pwd.getpwnam(OWNER).pw_gid, "extra_groups": []}
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, **user)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of an empty database, on a PostgreSQL server for these tests only."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not in pytest's folder, which other users cannot read.
    with tempfile.TemporaryDirectory(prefix="catdog-pg-") as name:
        folder = Path(name)
        if AS_ROOT:
            os.chown(folder, pwd.getpwnam(OWNER).pw_uid, -1)
        run(folder, "initdb", "-D", "data", "-U", OWNER, "--auth", "trust", "--no-sync")
        options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
        run(folder, "pg_ctl", "-D", "data", "-w", "-l", "log.txt", "-o", options, "start")
        try:
            yield f"postgresql+asyncpg://{OWNER}@127.0.0.1:{port}/postgres"
        finally:
            run(folder, "pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server that uses it, with the deployments installed."""
    with running_server(tmp_path_factory.mktemp("server"), database) as server:
        yield server


def state_in(database: str, flow_run: UUID) -> str:
    """Return the state of a flow run as stored in PostgreSQL."""

    async def query() -> str:
        connection = await asyncpg.connect(database.replace("+asyncpg", ""))
        try:
            return str(await connection.fetchval(STATE, flow_run))
        finally:
            await connection.close()

    return asyncio.run(query())


def test_a_run_completes_on_a_server_with_postgresql(
    server: Server, database: str, tmp_path: Path
) -> None:
    project = tiny_project.create(tmp_path / "project")
    agent = Agent(server.url, "gpu", project, tmp_path / "agent", limit=1)
    agent.start()
    try:
        flow_run = run_deployment_now("pipeline/pipeline", experiment="kept")
        assert wait_for_end(flow_run.id, 600).is_completed(), log_of(flow_run.id)
        assert "kept" in tiny_project.dvc_output(project, "exp", "list", "--name-only").split()
    finally:
        agent.kill()
    assert state_in(database, flow_run.id) == "COMPLETED"
    assert not list(server.home.rglob("*.db"))  # SQLite is not used
