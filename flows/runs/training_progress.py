"""How far a training is, on the page of its run while it goes on."""

import re
from typing import cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

EPOCH = re.compile(r"^epoch\s+(\d+)/(\d+)\s*(.*)")


class EpochProgress:
    """The progress artifact `training`, moved by the lines that a training prints each epoch."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None

    def hear(self, line: str) -> None:
        """Show the epoch that `line` speaks of; any other line is nothing to it.

        A server that is away must not hold the training up, so a lost update is not tried again:
        the next epoch brings the next.
        """
        if not (found := EPOCH.match(line)):
            return
        share = 100 * int(found[1]) / max(1, int(found[2]))
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                self._show(share, f"epoch {found[1]} of {found[2]}: {found[3].strip(' *')}")
        except Exception as error:
            get_run_logger().debug("the progress could not be shown: %s", error)

    def _show(self, share: float, description: str) -> None:
        if self._artifact is None:
            created = create_progress_artifact(share, "training", description)
            self._artifact = cast(UUID, created)  # a coroutine only where one is asked for
        else:
            update_progress_artifact(self._artifact, share, description)
