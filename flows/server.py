"""Start a Prefect server whose restart does not harm the runs that are in progress.

    python -m flows.server [option of `prefect server start`...]

It differs from `prefect server start` in two ways. Without them, the server would mark runs as
crashed whose heartbeats it has missed while it was down: `extend_heartbeat_windows` gives each run
the full time again. And on SQLite, many runs that wait for a device would lock the database: see
`disable_late_runs_on_sqlite`. (prefect.toml keeps the leases of devices in files.)
"""

import asyncio
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime

from prefect.server.database import provide_database_interface
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL
from sqlalchemy import select, update

from flows.guards.heartbeats import SILENCE, SILENT_IS_DEAD


def main() -> None:
    """Extend the heartbeat windows, then replace this process by `prefect server start`."""
    # The database may not exist yet. Any other problem is for the server to report; drivers have
    # exceptions that SQLAlchemy does not translate, such as asyncpg's for a wrong password.
    with suppress(Exception):
        asyncio.run(extend_heartbeat_windows())
    disable_late_runs_on_sqlite()
    command = [sys.executable, "-m", "prefect", "server", "start", *sys.argv[1:]]
    os.execv(command[0], command)


def disable_late_runs_on_sqlite() -> None:
    """On SQLite, do not let the server mark runs as Late, unless the environment enables it.

    The server marks all runs that have waited for 15 s concurrently, each in a transaction that
    reads before it writes. SQLite fails such transactions at once ("database is locked"; see
    PrefectHQ/prefect#18934), whatever the timeout: with 40 runs that waited for an agent the log
    grew by 25,000 lines per minute.
    """
    if PREFECT_SERVER_DATABASE_CONNECTION_URL.value().startswith("sqlite"):
        os.environ.setdefault("PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED", "false")


async def extend_heartbeat_windows() -> None:
    """Restart the time within which the server expects the next heartbeat of each run.

    Raises the error of the database driver if the database or its tables do not exist.
    """
    db = provide_database_interface()
    ours = select(db.Automation.id).where(db.Automation.name == SILENT_IS_DEAD)
    window = update(db.AutomationBucket).where(db.AutomationBucket.automation_id.in_(ours))
    async with db.session_context(begin_transaction=True) as session:
        await session.execute(window.values(end=datetime.now(UTC) + SILENCE))


if __name__ == "__main__":
    main()
