"""The error of flows that a user can fix."""


class FlowError(RuntimeError):
    """What is wrong, where, and what to do: the message of the failed run's state.

    The first line is complete without the others; it is the only one that is logged.
    """


def first_line(error: FlowError) -> str:
    """Return the summary of an error."""
    return str(error).partition("\n")[0]
