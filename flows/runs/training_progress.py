"""The progress of a training run as a Prefect artifact, updated at each epoch."""

import re
from typing import cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

EPOCH = re.compile(r"^epoch\s+(\d+)/(\d+)\s*(.*)")


class EpochProgress:
    """The progress artifact `training`, updated from the line that training prints per epoch."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None

    def handle_line(self, line: str) -> None:
        """Show the epoch if `line` reports one.

        An update that fails is not retried, so that an unreachable server does not delay training;
        the next epoch updates it again.
        """
        if not (found := EPOCH.match(line)):
            return
        percent = 100 * int(found[1]) / max(1, int(found[2]))
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                self._show(percent, f"epoch {found[1]} of {found[2]}: {found[3].strip(' *')}")
        except Exception as error:
            get_run_logger().debug("cannot update the progress artifact: %s", error)

    def _show(self, percent: float, description: str) -> None:
        if self._artifact is None:
            created = create_progress_artifact(percent, "training", description)
            self._artifact = cast(UUID, created)  # in async code it is a coroutine
        else:
            update_progress_artifact(self._artifact, percent, description)
