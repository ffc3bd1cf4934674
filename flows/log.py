"""What flows write to their log: the type of the function, and errors as one line each."""

import logging
from collections.abc import Callable

from flows.errors import FlowError, first_line

Log = Callable[[str], None]  # writes one line


def shorten_errors() -> None:
    """Make Prefect log a FlowError as its first line; each module that defines a flow calls this.

    It may be called again: a logger keeps only one copy of a filter.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_first_line_only)


def _first_line_only(record: logging.LogRecord) -> bool:
    """Reduce a FlowError in Prefect's log to its first line, without traceback or output.

    The output of the stage is in the log already, and a traceback would lead into Prefect only.
    Prefect has no option to suppress it (PrefectHQ/prefect#7959).
    """
    error = record.exc_info[1] if record.exc_info else None
    arguments = record.args if isinstance(record.args, tuple) else ()
    retried = next((part for part in arguments if isinstance(part, FlowError)), None)
    if isinstance(error, FlowError):
        record.msg, record.args, record.exc_info = "%s", (first_line(error),), None
    elif retried:  # "Task run failed with …: StageError(…) - Retry 1/1 will start immediately"
        record.msg, record.args = "%s; retrying", (first_line(retried),)
    return True
