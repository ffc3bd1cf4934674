"""Start a Prefect server, so that what runs meanwhile survives a restart of it.

    python -m flows.server [option of `prefect server start`...]

Three things would go wrong without it. Prefect keeps its leases in memory, so that a device in use
would stay so for ever: here they are files. At its start it would declare each run dead that has
been silent for longer than the automation of flows/deploy.py allows, when it was the server that
was away: here each has its whole time again, from now on. And on SQLite it would call runs late
that wait for a device, all at once, and trip over itself: see `spare_sqlite`.
"""

import asyncio
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime

from prefect.server.database import provide_database_interface
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL
from sqlalchemy import select, update

from flows.deploy import SILENCE, SILENT_IS_DEAD


def main() -> None:
    """Give silent runs their time, then become `prefect server start`; does not return."""
    # No database yet? If there is another reason, the server itself will say it. Any error: drivers
    # have their own, such as asyncpg's of a wrong password, which SQLAlchemy does not translate.
    with suppress(Exception):
        asyncio.run(give_time())
    spare_sqlite()
    command = [sys.executable, "-m", "prefect", "server", "start", *sys.argv[1:]]
    os.execv(command[0], command)


def spare_sqlite() -> None:
    """On SQLite, let no run be marked Late, unless somebody has asked for that.

    Prefect does it to all that have waited for 15 s, side by side, each in a transaction that reads
    before it writes. SQLite fails such ones at once ("database is locked"), whatever timeout is
    set: with 40 runs that waited for an agent the log grew by 25,000 lines in a minute. And who
    waits for a device is not late.
    """
    if PREFECT_SERVER_DATABASE_CONNECTION_URL.value().startswith("sqlite"):
        os.environ.setdefault("PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED", "false")


async def give_time() -> None:
    """Let the windows, in which the server expects a beat of each run, end no sooner than usual.

    Raises what the database's driver does if that is not there or has no tables yet.
    """
    db = provide_database_interface()
    ours = select(db.Automation.id).where(db.Automation.name == SILENT_IS_DEAD)
    window = update(db.AutomationBucket).where(db.AutomationBucket.automation_id.in_(ours))
    async with db.session_context(begin_transaction=True) as session:
        await session.execute(window.values(end=datetime.now(UTC) + SILENCE))


if __name__ == "__main__":
    main()
